"""EXIF blocks and TIFF directories, against Pillow."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from transforms.images.exif import apply_orientation, dots_per_inch, upright, upright_xmp
from transforms.images.options import EncodeOptions
from transforms.images.tiff_directories import TiffError, read_directory, read_layout
from transforms.pictures import Picture, decode, encode

MAKER_NOTE = bytes(range(256)) * 3
Entries = Sequence[tuple[int, int, int, bytes]]  # tag, type, count, value


def block_with(order: str, entries: Entries, following: int = 0) -> bytes:
    """A hand-made block: entries with values of at most 4 bytes."""
    body = struct.pack(order + "2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")
    return body + struct.pack(order + "I", following)


def camera_block(orientation: int = 6) -> bytes:
    """What a camera writes: IFD0, Exif directory with a maker note, GPS directory."""
    exif = Image.Exif()
    exif[0x010E] = "a street in the rain"
    exif[0x0112] = orientation
    exif[0x011A], exif[0x011B], exif[0x0128] = 240.0, 120.0, 2
    exif[0x0132] = "1999:12:31 23:59:59"
    exif.get_ifd(0x8769)[0x9003] = "1999:12:31 23:59:58"
    exif.get_ifd(0x8769)[0x927C] = MAKER_NOTE
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "form"), [(3, "H"), (4, "I"), (1, "B")])
def test_upright_changes_the_orientation_and_nothing_else(order: str, kind: int, form: str) -> None:
    def made(value: int) -> bytes:
        make = (0x010F, 2, 3, b"me\0")
        return block_with(order, [make, (0x0112, kind, 1, struct.pack(order + form, value))]) + b"tail"

    assert upright(made(6)) == (made(1), 6)
    assert upright(made(1)) == (made(1), 1)


def test_upright_without_orientation_keeps_the_block() -> None:
    block = block_with("<", [(0x010F, 2, 3, b"me\0")])
    assert upright(block) == (block, 1)


def test_upright_keeps_a_camera_block_byte_for_byte() -> None:
    block = camera_block(8)
    patched, orientation = upright(block)
    assert orientation == 8
    differences = [n for n, (a, b) in enumerate(zip(block, patched, strict=True)) if a != b]
    assert len(differences) == 1
    assert (block[differences[0]], patched[differences[0]]) == (8, 1)
    seen = Image.Exif()
    seen.load(b"Exif\0\0" + patched)
    assert seen[0x0112] == 1
    assert seen[0x010E] == "a street in the rain"
    assert seen.get_ifd(0x8769)[0x927C] == MAKER_NOTE


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II",
        b"junk that is no header",
        b"II\x2a\0\xff\xff\xff\xff",
        b"II\x2a\0\x08\0\0\0\xff\xff" + bytes(40),
        b"MM\0\x2a\0\0\0\x08\0\x05" + bytes(8),
        b"II\x2b\0\x08\0",
    ],
)
def test_damaged_blocks_raise_tiff_error_only(block: bytes) -> None:
    with pytest.raises(TiffError):
        upright(block)
    assert dots_per_inch(block) is None


def test_every_cut_of_a_block_is_read_or_refused() -> None:
    block = camera_block()
    outcomes = set()
    for end in range(len(block)):
        try:
            outcomes.add(upright(block[:end])[1])
        except TiffError:
            outcomes.add(None)
    assert outcomes == {None, 6}


def test_a_lost_value_does_not_hide_the_others() -> None:
    block = block_with("<", [(0x010E, 2, 4000, struct.pack("<I", 9999)), (0x0112, 3, 1, b"\3\0")])
    directory = read_directory(block, read_layout(block), 8)
    assert directory.lost == {0x010E}
    assert directory.integer(0x0112, 1) == 3


@pytest.mark.parametrize(("unit", "expected"), [(2, (240.0, 120.0)), (3, (609.6, 304.8)), (1, None)])
def test_dots_per_inch(unit: int, expected: tuple[float, float] | None) -> None:
    exif = Image.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = 240.0, 120.0, unit
    assert dots_per_inch(exif.tobytes().removeprefix(b"Exif\0\0")) == expected


def test_resolution_over_zero_is_none() -> None:
    exif = block_with("<", [(0x011A, 5, 1, struct.pack("<I", 50)), (0x011B, 5, 1, struct.pack("<I", 50))])
    assert dots_per_inch(exif.ljust(50, b"\0") + bytes(8)) is None


@pytest.mark.parametrize("written", [b'<x tiff:Orientation="8"/>', b"<tiff:Orientation>8</tiff:Orientation>"])
def test_xmp_orientation(written: bytes) -> None:
    assert upright_xmp(written) == (written.replace(b"8", b"1"), 8)
    assert upright_xmp(b"<x/>") == (b"<x/>", 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_apply_orientation_is_exif_transpose(orientation: int, shape: tuple[int, ...]) -> None:
    stored = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    turned = apply_orientation(stored, orientation)
    np.testing.assert_array_equal(turned, expected)
    assert turned.flags.c_contiguous


@pytest.mark.parametrize("byte_order", ["II", "MM"])
def test_block_from_tiff_says_what_pillow_reads_from_the_file(photo: NDArray[np.uint8], byte_order: str) -> None:
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + camera_block(6))
    exif.endian = "<" if byte_order == "II" else ">"
    file = io.BytesIO()
    Image.fromarray(photo[:40, :60]).save(file, "TIFF", exif=exif)
    picture = decode(file.getvalue(), "x.tif")
    assert picture.exif is not None
    seen = Image.Exif()
    seen.load(b"Exif\0\0" + picture.exif)
    assert {tag: seen[tag] for tag in (0x010E, 0x0132)} == {
        0x010E: "a street in the rain",
        0x0132: "1999:12:31 23:59:59",
    }
    assert seen.get_ifd(0x8769)[0x9003] == "1999:12:31 23:59:58"
    assert seen.get_ifd(0x8769)[0x927C] == MAKER_NOTE
    assert seen.get_ifd(0x8825)[1] == "N"
    assert seen.get(0x0112, 1) == 1
    assert not {256, 257, 258, 259, 262, 273, 279} & set(seen)
    assert picture.samples.shape == (60, 40, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_carries_an_exif_block_in_either_byte_order(photo: NDArray[np.uint8], dtype: type, order: str) -> None:
    block = block_with(order, [(0x010F, 2, 3, b"me\0"), (0x0112, 3, 1, struct.pack(order + "H", 1))])
    samples = photo[:33, :47].astype(dtype) * dtype(1 if dtype is np.uint8 else 257)
    data, notes = encode(Picture(samples, None, "png", exif=block), "tiff", EncodeOptions())
    assert notes == ()
    assert data[8 : len(block)] == block[8:]
    again = decode(data, "x.tif")
    np.testing.assert_array_equal(again.samples, samples)
    seen = Image.open(io.BytesIO(data)).getexif()
    assert (seen[0x010F], seen[0x0112]) == ("me", 1)


def test_a_broken_exif_pointer_loses_only_its_directory(photo: NDArray[np.uint8]) -> None:
    block = block_with("<", [(0x010F, 2, 3, b"me\0"), (0x8769, 4, 1, struct.pack("<I", 0xFFFFFF))])
    data, _ = encode(Picture(photo[:8, :8], None, "png", exif=block), "tiff", EncodeOptions())
    picture = decode(data, "x.tif")
    assert picture.notes == ("part of EXIF unreadable, left out",)
    seen = Image.Exif()
    seen.load(b"Exif\0\0" + (picture.exif or b""))
    assert dict(seen) == {0x010F: "me", 0x0112: 1}
