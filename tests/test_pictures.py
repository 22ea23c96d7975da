"""Pictures in and out, against Pillow (8 bit), tifffile, imagecodecs and files written by hand (16 bit)."""

from __future__ import annotations

import io
import itertools
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps
from skimage import data as photographs

from transforms import pictures
from transforms.errors import ConfigurationError, Reason, RecordError
from transforms.images import png
from transforms.pictures import EncodeOptions, Picture, decode, encode

PHOTO: NDArray[np.uint8] = photographs.astronaut()[100:187, 60:179]  # 87 x 119, odd on purpose
OPTIONS = EncodeOptions()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
KINDS = ("png", "jpeg", "tiff", "webp", "bmp")
Array = NDArray[Any]


def saved(image: Image.Image | Array, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    return file.getvalue()


def tiff_written(samples: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **({"metadata": None} | options))
    return file.getvalue()


def npy_written(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_written(
    stored: Array, colour: int, bits: int, *chunks: bytes, interlace: bool = False, level: int = 6
) -> bytes:
    """A PNG by hand: no filters. `stored` is H x W x C of whole bytes, or H x row bytes below 8 bits."""
    height, width = stored.shape[:2]
    width = width if bits >= 8 else width * 8 // bits
    big = stored.astype(">u2") if bits == 16 else stored
    passes = [big]
    if interlace:  # Adam7
        grid = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        passes = [big[top::down, left::across] for top, left, down, across in grid]
    rows = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlace))
    body = png_chunk(b"IHDR", head) + b"".join(chunks) + png_chunk(b"IDAT", zlib.compress(rows, level))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def deep(seed: int, channels: int) -> NDArray[np.uint16]:
    """16-bit samples whose low bytes matter."""
    low = np.random.default_rng(seed).integers(0, 257, (*PHOTO.shape[:2], channels), dtype=np.uint16)
    base = np.concatenate([PHOTO, PHOTO[:, :, ::-1]], axis=2)[:, :, :channels].astype(np.uint16)
    return base * np.uint16(255) + low


def grey(samples: Array) -> Array:
    return np.asarray(Image.fromarray(samples).convert("L"))


# ---------------------------------------------------------------- what goes in


READABLE = [
    ("1", "PNG"), ("1", "TIFF"), ("1", "BMP"), ("L", "PNG"), ("L", "JPEG"), ("L", "TIFF"), ("L", "BMP"),
    ("LA", "PNG"), ("LA", "TIFF"), ("P", "PNG"), ("P", "TIFF"), ("P", "BMP"), ("RGB", "PNG"), ("RGB", "JPEG"),
    ("RGB", "TIFF"), ("RGB", "WEBP"), ("RGB", "BMP"), ("RGBA", "PNG"), ("RGBA", "TIFF"), ("RGBA", "WEBP"),
]  # fmt: skip
NOTES_ON_READING = {"1": ("1 bit widened to 8",), "P": ("palette converted to RGB",)}


@pytest.mark.parametrize(("mode", "form"), READABLE)
def test_reads_what_pillow_reads(mode: str, form: str) -> None:
    image = Image.fromarray(np.dstack([PHOTO, PHOTO[:, :, 1]])).convert("RGB" if mode not in ("LA", "RGBA") else "RGBA")
    data = saved(image.convert(mode), form)
    picture = decode(data, f"x.{form.lower()}")
    expected = np.asarray(Image.open(io.BytesIO(data)).convert({"1": "L", "P": "RGB"}.get(mode, mode)))
    expected = expected[:, :, None] if expected.ndim == 2 else expected
    colours = 1 if mode in ("1", "L", "LA") else 3
    np.testing.assert_array_equal(picture.samples, expected[:, :, :colours])
    assert picture.samples.dtype == np.uint8
    assert picture.samples.flags.c_contiguous
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    if picture.alpha is not None:
        np.testing.assert_array_equal(picture.alpha, expected[:, :, -1])
    assert picture.notes == NOTES_ON_READING.get(mode, ())
    assert picture.kind == form.lower()


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("extra", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_is_pillow_bit_for_bit(subsampling: int, extra: dict[str, Any], mode: str) -> None:
    data = saved(Image.fromarray(PHOTO).convert(mode), "JPEG", quality=80, subsampling=subsampling, **extra)
    np.testing.assert_array_equal(decode(data, "x.jpg").samples.squeeze(), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_grey_below_8_bits(bits: int) -> None:
    stored = np.random.default_rng(1).integers(0, 256, (9, 5), dtype=np.uint8)
    data = png_written(stored, 0, bits)
    values = np.stack([stored >> shift & ((1 << bits) - 1) for shift in range(8 - bits, -1, -bits)], axis=2).reshape(
        9, -1
    )
    picture = decode(data, "x.png")
    np.testing.assert_array_equal(picture.samples[:, :, 0], values * (255 // ((1 << bits) - 1)))
    assert picture.notes == (f"{bits} bit widened to 8",)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("interlace", [False, True])
def test_png_by_hand(colour: int, channels: int, bits: int, interlace: bool) -> None:
    stored = deep(3, channels) if bits == 16 else deep(3, channels).astype(np.uint8)
    picture = decode(png_written(stored, colour, bits, interlace=interlace), "x.png")
    colours = 3 if channels >= 3 else 1
    np.testing.assert_array_equal(picture.samples, stored[:, :, :colours])
    assert picture.samples.dtype == stored.dtype
    if channels in (2, 4):
        assert picture.alpha is not None
        assert picture.alpha.dtype == stored.dtype
        np.testing.assert_array_equal(picture.alpha, stored[:, :, -1])
    assert picture.notes == ()


@pytest.mark.parametrize("bits", [8, 16])
def test_png_transparent_colour_becomes_alpha(bits: int) -> None:
    stored = deep(5, 3) if bits == 16 else PHOTO
    data = png_written(stored, 2, bits, png_chunk(b"tRNS", stored[4, 6].astype(">u2").tobytes()))
    picture = decode(data, "x.png")
    clear = (stored == stored[4, 6]).all(axis=2)
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha == 0, clear)
    assert set(np.unique(picture.alpha)) == {0, 2**bits - 1}
    np.testing.assert_array_equal(picture.samples, stored)
    assert picture.notes == ("transparent colour converted to alpha",)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_a_palette_of_greys_becomes_grey(form: str) -> None:
    image = Image.fromarray((grey(PHOTO) // 32).astype(np.uint8))
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([value for step in range(8) for value in (255 - step * 20,) * 3])
    picture = decode(saved(image, form), f"x.{form.lower()}")
    np.testing.assert_array_equal(picture.samples[:, :, 0], 255 - (grey(PHOTO) // 32) * 20)
    assert picture.notes == ("palette converted to grey",)


def test_a_palette_of_greys_with_an_rgb_profile_stays_rgb() -> None:
    image = Image.frombytes("P", (4, 4), bytes(range(16)))
    image.putpalette([value for step in range(16) for value in (step * 9,) * 3])
    picture = decode(saved(image, "PNG", icc_profile=SRGB), "x.png")
    assert picture.samples.shape == (4, 4, 3)
    assert picture.icc == SRGB


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 160, 10))])
def test_a_palette_with_transparency_gives_alpha(transparency: int | bytes) -> None:
    data = saved(Image.fromarray(PHOTO).quantize(16), "PNG", transparency=transparency)
    picture = decode(data, "x.png")
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    np.testing.assert_array_equal(np.dstack([picture.samples, picture.alpha]), expected)


def test_a_dark_16_bit_scan_is_not_taken_for_8_bit() -> None:
    dark = deep(2, 3) % np.uint16(200)
    for data, name in ((png_written(dark, 2, 16), "x.png"), (tiff_written(dark, photometric="rgb"), "x.tif")):
        picture = decode(data, name)
        assert picture.samples.dtype == np.uint16
        np.testing.assert_array_equal(picture.samples, dark)


TIFFS: dict[str, dict[str, Any]] = {
    "raw": {},
    "big endian": {"byteorder": ">"},
    "big tiff": {"bigtiff": True},
    "deflate with predictor": {"compression": "deflate", "predictor": True},
    "lzw": {"compression": "lzw", "rowsperstrip": 7},
    "packbits": {"compression": "packbits", "rowsperstrip": 7},
    "zstd": {"compression": "zstd"},
    "tiles": {"tile": (32, 48)},
    "planes": {"planarconfig": "separate"},
    "planes in tiles": {"planarconfig": "separate", "tile": (32, 32), "compression": "deflate"},
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", TIFFS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_that_tifffile_wrote(dtype: type, name: str, channels: int) -> None:
    samples = deep(7, channels).astype(dtype)
    options = TIFFS[name] | {"photometric": "minisblack" if channels == 1 else "rgb"}
    if channels == 4:
        options["extrasamples"] = ["unassalpha"]
    stored = samples[:, :, 0] if channels == 1 else samples
    if "planarconfig" in options and channels > 1:
        stored = np.ascontiguousarray(np.moveaxis(samples, 2, 0))
    elif channels == 1:
        options.pop("planarconfig", None)
    picture = decode(tiff_written(stored, **options), "x.tif")
    np.testing.assert_array_equal(picture.samples, samples[:, :, :3])
    assert picture.samples.dtype == dtype
    assert (picture.alpha is None) == (channels != 4)
    if picture.alpha is not None:
        np.testing.assert_array_equal(picture.alpha, samples[:, :, 3])
    assert picture.notes == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_white_is_zero(dtype: type) -> None:
    samples = deep(8, 1).astype(dtype)[:, :, 0]
    picture = decode(tiff_written(samples, photometric="miniswhite"), "x.tif")
    np.testing.assert_array_equal(picture.samples[:, :, 0], np.iinfo(dtype).max - samples)


@pytest.mark.parametrize("compression", ["group3", "group4", "packbits", "tiff_lzw"])
def test_tiff_fax_pages(compression: str) -> None:
    page = Image.fromarray(photographs.page()).convert("1")
    picture = decode(saved(page, "TIFF", compression=compression), "x.tif")
    np.testing.assert_array_equal(picture.samples[:, :, 0], np.asarray(page.convert("L")))
    assert picture.notes == ("1 bit widened to 8",)


def test_tiff_premultiplied_alpha_is_divided_out() -> None:
    colour, alpha = PHOTO.astype(float), np.full(PHOTO.shape[:2], 128.0)
    alpha[0] = 0
    stored = np.dstack([np.rint(colour * alpha[:, :, None] / 255), alpha]).astype(np.uint8)
    picture = decode(tiff_written(stored, photometric="rgb", extrasamples=["assocalpha"]), "x.tif")
    assert np.abs(picture.samples[1:].astype(int) - PHOTO[1:]).max() <= 1  # half a level, times 255 / 128
    assert not picture.samples[0].any()
    assert picture.notes == ("premultiplied alpha divided out",)


def test_tiff_extra_channels_are_noted() -> None:
    samples = deep(4, 5)
    data = tiff_written(samples, photometric="rgb", extrasamples=["unassalpha", "unspecified"], planarconfig="contig")
    picture = decode(data, "x.tif")
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, samples[:, :, 3])
    assert picture.notes == ("extra channels left out",)


@pytest.mark.parametrize("compression", [None, "jpeg"])
def test_tiff_ycbcr(compression: str | None) -> None:
    stored = np.asarray(Image.fromarray(PHOTO).convert("YCbCr"))
    picture = decode(tiff_written(stored, photometric="ycbcr", compression=compression), "x.tif")
    assert np.abs(picture.samples.astype(int) - PHOTO).mean() < 3
    assert picture.notes == (() if compression else ("YCbCr converted to RGB",))  # JPEG is always YCbCr inside


def subsampled_ycbcr_tiff(rgb: Array) -> bytes:
    """Uncompressed YCbCr with 2 x 2 chroma (TIFF 6.0 section 21), which neither Pillow nor tifffile decodes."""
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    height, width = rgb.shape[0] // 2, rgb.shape[1] // 2
    luma = ycc[:, :, 0].reshape(height, 2, width, 2).transpose(0, 2, 1, 3).reshape(height, width, 4)
    units = np.concatenate([luma, ycc[::2, ::2, 1:]], axis=2).tobytes()
    longs = {256: width * 2, 257: height * 2, 273: 8, 278: height * 2, 279: len(units)}
    shorts = {259: 1, 262: 6, 277: 3}
    after = 8 + len(units)
    slots = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in longs.items()}
    slots |= {tag: struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items()}
    slots[258] = struct.pack("<HHII", 258, 3, 3, after)
    slots[530] = struct.pack("<HHIHH", 530, 3, 2, 2, 2)
    slots[532] = struct.pack("<HHII", 532, 5, 6, after + 6)
    black_and_white = struct.pack("<12I", 0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)
    directory = struct.pack("<H", len(slots)) + b"".join(slots[tag] for tag in sorted(slots)) + bytes(4)
    values = struct.pack("<3H", 8, 8, 8) + black_and_white
    return b"II*\0" + struct.pack("<I", after + len(values)) + units + values + directory


def test_tiff_subsampled_ycbcr() -> None:
    picture = decode(subsampled_ycbcr_tiff(PHOTO[:86, :118]), "x.tif")
    assert np.abs(picture.samples.astype(int) - PHOTO[:86, :118]).mean() < 4


@pytest.mark.parametrize("depth", [16, 32])
def test_bmp_of_other_depths(depth: int) -> None:
    if depth == 32:
        data = saved(Image.fromarray(np.dstack([PHOTO, PHOTO[:, :, 0]])), "BMP")
        np.testing.assert_array_equal(decode(data, "x.bmp").samples, PHOTO)
        return
    five = PHOTO[:, :118] >> 3
    words = five[:, :, 0].astype("<u2") << 10 | five[:, :, 1].astype("<u2") << 5 | five[:, :, 2]
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + words.nbytes, 0, 0, 54, 40, 118, -87, 1, 16, 0, 0, 0, 0, 0, 0)
    decoded = decode(head + words.astype("<u2").tobytes(), "x.bmp").samples
    np.testing.assert_array_equal(decoded, (five.astype(int) * 255 // 31))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_npy(shape: tuple[int, ...], order: str, byte_order: str) -> None:
    values = np.random.default_rng(0).normal(0.5, 0.5, shape).astype(np.float32)  # may exceed [0, 1]
    picture = decode(npy_written(np.asarray(values, byte_order + "f4", order)), "x.noise.npy")
    np.testing.assert_array_equal(picture.samples, values.reshape(5, 7, -1))
    assert picture.samples.dtype == np.dtype(np.float32)
    assert picture.kind == "npy"


# ---------------------------------------------------------------- CMYK


def grey_ink_profile() -> bytes:
    """A small CMYK profile (ICC.1, lut8): lightness falls with the mean ink, no colour. lcms reads it."""
    table = b"".join(
        bytes((round(255 * (1 - sum(inks) / 4)), 128, 128)) for inks in itertools.product((0, 1), repeat=4)
    )
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 if n % 4 == 0 else 0 for n in range(9)))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + table + ramp * 3
    tags = {b"A2B0": lut, b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    tags[b"cprt"] = b"text\0\0\0\0free\0"
    table_size, body = 4 + 12 * len(tags), b""
    index = struct.pack(">I", len(tags))
    for name, value in tags.items():
        index += name + struct.pack(">II", 128 + table_size + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    size = 128 + table_size + len(body)
    head = struct.pack(">I4sI4s4s4s12s4s", size, b"\0\0\0\0", 0x02400000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp")
    return (head + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0") + index + body


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile(form: str) -> None:
    data = saved(Image.fromarray(PHOTO).convert("CMYK"), form)
    picture = decode(data, f"x.{form.lower()}")
    np.testing.assert_array_equal(picture.samples, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert picture.notes == ("CMYK converted to RGB without a profile",)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_through_its_profile(form: str) -> None:
    profile = grey_ink_profile()
    data = saved(Image.fromarray(photographs.astronaut()).convert("CMYK"), form, icc_profile=profile)
    picture = decode(data, f"x.{form.lower()}")
    opened = Image.open(io.BytesIO(data))
    used = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    expected = ImageCms.profileToProfile(opened, used, ImageCms.createProfile("sRGB"), outputMode="RGB")
    np.testing.assert_array_equal(picture.samples, np.asarray(expected))
    assert np.ptp(picture.samples.astype(int), axis=2).max() <= 2  # greys, as the profile says
    assert picture.icc is None  # it described inks
    assert picture.notes == ("CMYK converted to sRGB through its ICC profile",)


def test_cmyk_with_a_broken_profile_keeps_the_picture() -> None:
    profile = grey_ink_profile()[:200].ljust(600, b"\xff")
    data = saved(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", icc_profile=profile)
    notes = decode(data, "x.jpg").notes
    assert notes == ("CMYK converted to RGB without a profile", "ICC profile unreadable, left out")


# ---------------------------------------------------------------- there and back


def sample_pictures() -> Iterator[tuple[str, Picture]]:
    for dtype, channels, alpha in itertools.product((np.uint8, np.uint16), (1, 3), (False, True)):
        samples, opacity = deep(11, channels).astype(dtype), deep(12, 1).astype(dtype)[:, :, 0]
        name = f"{np.dtype(dtype)} {channels}{' alpha' if alpha else ''}"
        yield name, Picture(samples, opacity if alpha else None, "png")


PICTURES = dict(sample_pictures())
LOST = {  # what a format can't hold, in the order of the notes
    "jpeg": ("16 bit reduced to 8: JPEG has none", "alpha dropped: JPEG has none", None),
    "webp": ("16 bit reduced to 8: WebP has none", None, "grey stored as RGB: WebP has none"),
    "bmp": ("16 bit reduced to 8: BMP has none", "alpha dropped: BMP has none", None),
}


def expected_notes(name: str, kind: str) -> tuple[str, ...]:
    holds = ("uint16" in name, "alpha" in name, " 1" in name)
    return tuple(text for text, applies in zip(LOST.get(kind, (None,) * 3), holds, strict=True) if applies and text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PICTURES)
def test_round_trip(kind: str, name: str) -> None:
    picture = PICTURES[name]
    data, notes = encode(picture, kind, OPTIONS)
    again = decode(data, f"x.{kind}")
    assert notes == expected_notes(name, kind)
    assert again.notes == ()
    expected = picture.samples if kind in ("png", "tiff") else pictures.to_u8(picture.samples)
    if kind == "webp" and expected.shape[2] == 1:
        expected = np.repeat(expected, 3, axis=2)
    if kind == "jpeg":
        assert again.samples.shape == expected.shape
        assert np.abs(again.samples.astype(int) - expected).mean() < 8  # the noise in the low bits is hard to code
    else:
        np.testing.assert_array_equal(again.samples, expected)
        assert again.samples.dtype == expected.dtype
    assert (again.alpha is not None) == (picture.alpha is not None and kind in ("png", "tiff", "webp"))
    if again.alpha is not None and picture.alpha is not None:
        np.testing.assert_array_equal(again.alpha, picture.alpha if kind != "webp" else pictures.to_u8(picture.alpha))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in PICTURES if "uint8" in name])
def test_pillow_reads_what_we_write(kind: str, name: str) -> None:
    picture = PICTURES[name]
    data, _ = encode(picture, kind, OPTIONS)
    image = Image.open(io.BytesIO(data))
    ours = decode(data, f"x.{kind}")
    theirs = np.asarray(image) if np.asarray(image).ndim == 3 else np.asarray(image)[:, :, None]
    np.testing.assert_array_equal(theirs[:, :, : ours.samples.shape[2]], ours.samples)
    if ours.alpha is not None:
        np.testing.assert_array_equal(theirs[:, :, -1], ours.alpha)


@pytest.mark.parametrize("name", [name for name in PICTURES if "uint16" in name])
@pytest.mark.parametrize("compression", ["deflate", "lzw", "none"])
def test_tifffile_reads_what_we_write(name: str, compression: str) -> None:
    picture = PICTURES[name]
    data, _ = encode(picture, "tiff", EncodeOptions(tiff_compression=compression))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert len(file.pages) == 1
        stored = file.pages[0].asarray()
        tags = {tag.name for tag in file.pages[0].tags}
    expected = picture.samples if picture.alpha is None else np.dstack([picture.samples, picture.alpha])
    np.testing.assert_array_equal(stored, expected.squeeze())
    assert not tags & {"Software", "DateTime"}


@pytest.mark.parametrize("name", [name for name in PICTURES if "uint16" in name])
def test_our_16_bit_png_holds_the_samples(name: str) -> None:
    """Read by hand: libpng's filters are undone with the PNG standard's formulas."""
    picture = PICTURES[name]
    data, _ = encode(picture, "png", OPTIONS)
    position, body = 8, b""
    while position < len(data):
        length, chunk = struct.unpack_from(">I4s", data, position)
        body += data[position + 8 : position + 8 + length] if chunk == b"IDAT" else b""
        position += 12 + length
    expected = picture.samples if picture.alpha is None else np.dstack([picture.samples, picture.alpha])
    height, width, channels = expected.shape
    rows = np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, -1)
    stored = unfiltered(rows, 2 * channels).view(">u2").reshape(height, width, channels)
    np.testing.assert_array_equal(stored, expected)


def unfiltered(rows: Array, pixel_bytes: int) -> NDArray[np.uint8]:
    """PNG 3rd edition section 9."""
    above, result = [0] * (rows.shape[1] - 1), []
    for kind, *values in rows.tolist():
        for n, value in enumerate(values):
            a = values[n - pixel_bytes] if n >= pixel_bytes else 0
            c = above[n - pixel_bytes] if n >= pixel_bytes else 0
            b = above[n]
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            values[n] = value + (0, a, b, (a + b) // 2, nearest)[kind] & 255
        above = values
        result.append(values)
    return np.array(result, np.uint8)


def test_jpeg_at_default_quality_is_close_and_what_pillow_would_write(photo: NDArray[np.uint8]) -> None:
    data, _ = encode(Picture(photo, None, "png"), "jpeg", OPTIONS)
    error = np.mean((decode(data, "x.jpg").samples.astype(float) - photo) ** 2)
    assert 10 * np.log10(255**2 / error) > 38
    theirs = saved(photo, "JPEG", quality=95, subsampling=0)
    np.testing.assert_array_equal(decode(data, "x.jpg").samples, np.asarray(Image.open(io.BytesIO(theirs))))


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_jpeg_subsampling(subsampling: str) -> None:
    data, _ = encode(Picture(PHOTO, None, "png"), "jpeg", EncodeOptions(jpeg_subsampling=subsampling))
    layers = Image.open(io.BytesIO(data)).layer  # type: ignore[attr-defined]
    assert layers[0][1:3] == {"444": (1, 1), "422": (2, 1), "420": (2, 2)}[subsampling]


def test_webp_keeps_colours_under_full_transparency() -> None:
    picture = Picture(PHOTO, np.zeros(PHOTO.shape[:2], np.uint8), "png")
    again = decode(encode(picture, "webp", OPTIONS)[0], "x.webp")
    np.testing.assert_array_equal(again.samples, PHOTO)


def test_lossy_webp_is_smaller(photo: NDArray[np.uint8]) -> None:
    picture = Picture(photo, None, "png")
    lossy, _ = encode(picture, "webp", EncodeOptions(webp_lossless=False, webp_quality=80))
    assert len(lossy) < len(encode(picture, "webp", OPTIONS)[0]) / 4
    assert np.abs(decode(lossy, "x.webp").samples.astype(int) - photo).mean() < 5


@pytest.mark.parametrize(
    ("kind", "dtype"), [("png", np.uint16), ("tiff", np.uint16), ("jpeg", np.uint8), ("bmp", np.uint8)]
)
def test_float_samples(kind: str, dtype: type) -> None:
    values = np.linspace(-0.1, 1.1, 3 * 64 * 64, dtype=np.float32).reshape(64, 64, 3)
    data, notes = encode(Picture(values, None, "npy"), kind, OPTIONS)
    assert notes == (f"float samples stored as {8 * np.dtype(dtype).itemsize} bit",)
    top = np.iinfo(dtype).max
    again = decode(data, f"x.{kind}").samples
    assert again.dtype == dtype
    assert np.abs(again / top - np.clip(values, 0, 1)).max() <= (0.51 / top if kind != "jpeg" else 0.05)


def test_npy_round_trip() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.5, (6, 5, 3)).astype(np.float32)
    data, notes = encode(Picture(values, None, "npy"), "npy", OPTIONS)
    assert notes == ()
    np.testing.assert_array_equal(np.load(io.BytesIO(data), allow_pickle=False), values)
    data, notes = encode(Picture(PHOTO, None, "png", icc=SRGB), "npy", OPTIONS)
    assert notes == ("metadata dropped: npy has none",)
    np.testing.assert_array_equal(np.load(io.BytesIO(data)), PHOTO / np.float32(255))


@pytest.mark.parametrize("level", [1, 6, 9])
@pytest.mark.parametrize("name", PICTURES)
def test_png_in_bands_is_the_same_picture(monkeypatch: pytest.MonkeyPatch, name: str, level: int) -> None:
    whole, _ = encode(PICTURES[name], "png", EncodeOptions(png_level=level))
    monkeypatch.setattr(png, "_WHOLE", 0)
    monkeypatch.setattr(png, "_BAND_BYTES", 4000)
    picture = Picture(PICTURES[name].samples, PICTURES[name].alpha, "png", exif=b"II*\0\x08\0\0\0\1\0" + bytes(16))
    banded, _ = encode(picture, "png", EncodeOptions(png_level=level))
    np.testing.assert_array_equal(imagecodecs.png_decode(banded), imagecodecs.png_decode(whole))
    Image.open(io.BytesIO(banded)).verify()
    assert decode(banded, "x.png").exif == picture.exif


@pytest.mark.parametrize("kind", [*KINDS, "npy"])
def test_the_same_picture_gives_the_same_bytes(kind: str) -> None:
    picture = Picture(PHOTO, PHOTO[:, :, 0], "png", icc=SRGB, exif=camera_exif(1), dpi=(300, 300), xmp=XMP)
    copy = Picture(
        np.array(PHOTO), np.array(PHOTO[:, :, 0]), "tiff", icc=SRGB, exif=camera_exif(1), dpi=(300, 300), xmp=XMP
    )
    assert encode(picture, kind, OPTIONS) == encode(copy, kind, OPTIONS)


def test_samples_need_not_be_contiguous() -> None:
    flipped = PHOTO[::-1, ::-1]
    for kind in ("png", "tiff", "webp", "bmp"):
        np.testing.assert_array_equal(
            decode(encode(Picture(flipped, None, "png"), kind, OPTIONS)[0], f"x.{kind}").samples, flipped
        )


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_tiny_pictures(size: tuple[int, int], kind: str) -> None:
    samples = PHOTO[: size[0], : size[1]]
    assert decode(encode(Picture(samples, None, "png"), kind, OPTIONS)[0], f"x.{kind}").samples.shape == samples.shape


# ---------------------------------------------------------------- orientation and metadata


def camera_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a street in the rain", orientation
    exif.get_ifd(0x8769)[0x9003] = "1999:12:31 23:59:58"
    return exif.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "mode"), [("PNG", "RGBA"), ("PNG", "L"), ("JPEG", "RGB"), ("TIFF", "RGBA"), ("WEBP", "RGBA")]
)
def test_orientation_is_applied_once(form: str, mode: str, orientation: int) -> None:
    image = Image.fromarray(np.dstack([PHOTO, PHOTO[:, :, 1]])).convert(mode)
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + camera_exif(orientation))
    data = saved(image, form, exif=exif, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    picture = decode(data, f"x.{form.lower()}")
    for _ in range(2):  # decoded, then written and decoded again
        both = picture.samples if picture.alpha is None else np.dstack([picture.samples, picture.alpha])
        np.testing.assert_array_equal(both.squeeze(), expected)
        kind = "png" if form == "JPEG" else form.lower()
        picture = decode(encode(picture, kind, OPTIONS)[0], f"x.{kind}")
    assert picture.exif is not None
    seen = Image.Exif()
    seen.load(b"Exif\0\0" + picture.exif)
    assert seen.get(0x0112, 1) == 1
    assert seen[0x010E] == "a street in the rain"


@pytest.mark.parametrize("orientation", [2, 6])
def test_orientation_of_ycbcr_tiff(orientation: int) -> None:
    """libtiff would turn it by itself."""
    stored = np.asarray(Image.fromarray(PHOTO).convert("YCbCr"))
    options: dict[str, Any] = {"photometric": "ycbcr", "extratags": [(274, 3, 1, orientation, True)]}
    turned = decode(tiff_written(stored, **options), "x.tif").samples
    upright = decode(tiff_written(stored, photometric="ycbcr"), "x.tif").samples
    np.testing.assert_array_equal(turned, upright[:, ::-1] if orientation == 2 else np.rot90(upright, -1))


@pytest.mark.parametrize("value", [0, 9, 700])
def test_an_orientation_that_does_not_exist_is_upright(value: int) -> None:
    picture = decode(saved(PHOTO, "PNG", exif=b"Exif\0\0" + camera_exif(value)), "x.png")
    np.testing.assert_array_equal(picture.samples, PHOTO)
    assert picture.notes == (() if value == 0 else ("orientation is none of 1 to 8, taken as upright",))


def test_orientation_in_xmp_alone() -> None:
    packet = b'<rdf:Description tiff:Orientation="6"/>'
    data, _ = encode(Picture(PHOTO, None, "png", xmp=packet), "png", OPTIONS)
    picture = decode(data, "x.png")
    np.testing.assert_array_equal(picture.samples, np.rot90(PHOTO, -1))
    assert picture.xmp == packet.replace(b"6", b"1")


CARRIERS = ("png", "jpeg", "tiff", "webp")


@pytest.mark.parametrize(("source", "target"), list(itertools.product(CARRIERS, CARRIERS)))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_profile_exif_xmp_and_resolution_survive(source: str, target: str, dtype: type) -> None:
    samples = PHOTO.astype(dtype)
    first = Picture(samples, None, "png", icc=SRGB, exif=camera_exif(1), dpi=(300.0, 150.0), xmp=XMP)
    middle = decode(encode(first, source, OPTIONS)[0], f"x.{source}")
    data, _ = encode(middle, target, OPTIONS)
    last = decode(data, f"x.{target}")
    assert last.icc == SRGB
    assert last.xmp == XMP
    through_exif = (source, target) == ("tiff", "webp")
    assert last.dpi == (None if "webp" in (source, target) and not through_exif else (300.0, 150.0))
    assert last.exif is not None
    if "tiff" not in (source, target):
        assert last.exif == first.exif
    if target != "tiff" or dtype == np.uint8:
        image = Image.open(io.BytesIO(data))
        assert image.info["icc_profile"] == SRGB
        assert image.getexif()[0x010E] == "a street in the rain"
        assert image.getexif().get_ifd(0x8769)[0x9003] == "1999:12:31 23:59:58"
        if last.dpi and target != "webp":
            assert np.allclose(image.info["dpi"], (300, 150), atol=0.013)


def test_resolution_turns_with_the_picture() -> None:
    data = saved(PHOTO, "PNG", dpi=(300, 150), exif=b"Exif\0\0" + camera_exif(6))
    assert decode(data, "x.png").dpi == (300.0, 150.0)[::-1]


def test_bmp_keeps_resolution_and_notes_the_rest() -> None:
    picture = Picture(PHOTO, None, "png", icc=SRGB, exif=camera_exif(1), dpi=(300.0, 150.0), xmp=XMP)
    data, notes = encode(picture, "bmp", OPTIONS)
    assert decode(data, "x.bmp").dpi == (300.0, 150.0)
    assert notes == tuple(f"{name} dropped: BMP has none" for name in ("ICC profile", "EXIF", "XMP"))


def test_long_blocks_in_jpeg() -> None:
    profile = SRGB.ljust(200_000, b"\0")
    picture = Picture(PHOTO, None, "png", icc=profile, exif=camera_exif(1).ljust(70_000, b"\0"), xmp=XMP.ljust(70_000))
    data, notes = encode(picture, "jpeg", OPTIONS)
    assert notes == ("EXIF dropped: longer than a JPEG segment", "XMP dropped: longer than a JPEG segment")
    assert decode(data, "x.jpg").icc == profile
    assert Image.open(io.BytesIO(data)).info["icc_profile"] == profile


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_broken_exif_block_keeps_the_picture(kind: str) -> None:
    block = b"II\x2a\0\xff\xff\xff\x7f" + bytes(30)
    picture = decode(encode(Picture(PHOTO, None, "png", exif=block), kind, OPTIONS)[0], f"x.{kind}")
    assert picture.samples.shape == PHOTO.shape
    assert picture.exif == block
    assert picture.notes == ("EXIF unreadable, kept as it is",)
    _, notes = encode(picture, "tiff", OPTIONS)
    assert notes == ("EXIF dropped: unreadable, and TIFF keeps it as tags",)


@pytest.mark.parametrize("kind", CARRIERS)
def test_a_broken_profile_keeps_the_picture(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    picture = decode(encode(Picture(PHOTO, None, "png", icc=b"no profile at all"), kind, OPTIONS)[0], f"x.{kind}")
    assert picture.samples.shape == PHOTO.shape
    assert picture.icc is None
    assert picture.notes == ("ICC profile unreadable, left out",)
    assert capfd.readouterr().err == ""


def test_damaged_and_odd_png_chunks_are_noted(capfd: pytest.CaptureFixture[str]) -> None:
    damaged = png_chunk(b"eXIf", camera_exif(1))[:-1] + b"?"
    misfit = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB))
    gamma = png_chunk(b"gAMA", struct.pack(">I", 100_000))
    data = png_written(PHOTO[:, :, :1], 0, 8, damaged, png_chunk(b"tEXt", b"a\0b"), misfit, gamma)
    picture = decode(data, "x.png")
    assert picture.notes == ("damaged eXIf chunk left out", "PNG text left out")
    assert picture.icc == SRGB
    np.testing.assert_array_equal(picture.samples, PHOTO[:, :, :1])
    assert capfd.readouterr().err == ""  # libpng writes there
    assert decode(png_written(PHOTO, 2, 8, gamma), "x.png").notes == ("PNG gamma and chromaticities left out",)
    _, notes = encode(picture, "png", OPTIONS)
    assert notes == ("ICC profile dropped: PNG allows none of another colour space than its pixels",)


# ---------------------------------------------------------------- what is refused


def cut(data: bytes, part: float = 0.5) -> bytes:
    return data[: int(len(data) * part)]


def bomb_png() -> bytes:
    head = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + png_chunk(b"IDAT", zlib.compress(b""))
        + png_chunk(b"IEND", b"")
    )


def jpeg_with_size(width: int, height: int) -> bytes:
    data = saved(PHOTO, "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def damaged_huffman() -> bytes:
    data = bytearray(saved(PHOTO, "JPEG"))
    place = data.index(b"\xff\xc4") + 5
    data[place : place + 16] = b"\xff" * 16
    return bytes(data)


def tiff_with(tag: int, value: int) -> bytes:
    data = bytearray(tiff_written(PHOTO, photometric="rgb", compression="deflate"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        found = file.pages[0].tags[tag]
    struct.pack_into("<H" if found.dtype == 3 else "<I", data, found.valueoffset, value)
    return bytes(data)


def tiff_with_garbage() -> bytes:
    data = bytearray(tiff_written(PHOTO, photometric="rgb", compression="deflate"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        offset, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    data[offset : offset + count] = bytes(count)
    return bytes(data)


def frames(form: str) -> bytes:
    images = [Image.fromarray(PHOTO), Image.fromarray(PHOTO[::-1])]
    return saved(
        images[0], form, save_all=True, append_images=images[1:], **({"lossless": True} if form == "WEBP" else {})
    )


def broken_webp() -> bytes:
    data = bytearray(saved(PHOTO, "WEBP", quality=80))
    data[21:23] = b"\xff\xff"  # length of the first partition
    return bytes(data)


def shallow_png() -> bytes:
    """All checksums right, but the pixel data ends early."""
    return png_written(PHOTO[:40], 2, 8).replace(struct.pack(">II", 119, 40), struct.pack(">II", 119, 87), 1)


def rechecked(data: bytes) -> bytes:
    """The same PNG with the right checksum for its IHDR."""
    return data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]


# name -> (field, how to make it, reason)
BROKEN: dict[str, tuple[str, Callable[[], bytes], Reason]] = {
    "empty file": ("png", lambda: b"", Reason.EMPTY),
    "png cut in half": ("png", lambda: cut(saved(PHOTO, "PNG")), Reason.TRUNCATED),
    "png without its end": ("png", lambda: saved(PHOTO, "PNG")[:-12], Reason.TRUNCATED),
    "jpeg cut in half": ("jpg", lambda: cut(saved(PHOTO, "JPEG")), Reason.TRUNCATED),
    "jpeg without its end": ("jpg", lambda: saved(PHOTO, "JPEG")[:-2], Reason.TRUNCATED),
    "jpeg cut and closed": ("jpg", lambda: cut(saved(PHOTO, "JPEG")) + b"\xff\xd9", Reason.TRUNCATED),
    "grey jpeg cut and closed": ("jpg", lambda: cut(saved(grey(PHOTO), "JPEG")) + b"\xff\xd9", Reason.TRUNCATED),
    "progressive jpeg cut and closed": (
        "jpg",
        lambda: cut(saved(PHOTO, "JPEG", progressive=True)) + b"\xff\xd9",
        Reason.TRUNCATED,
    ),
    "tiff cut in half": ("tif", lambda: cut(saved(PHOTO, "TIFF")), Reason.TRUNCATED),
    "packed tiff cut": (
        "tif",
        lambda: cut(tiff_written(PHOTO, photometric="rgb", compression="lzw"), 0.9),
        Reason.TRUNCATED,
    ),
    "webp cut in half": ("webp", lambda: cut(saved(PHOTO, "WEBP")), Reason.TRUNCATED),
    "bmp cut in half": ("bmp", lambda: cut(saved(PHOTO, "BMP")), Reason.TRUNCATED),
    "npy cut in half": ("npy", lambda: cut(npy_written(PHOTO.astype(np.float32))), Reason.TRUNCATED),
    "first four bytes": ("png", lambda: saved(PHOTO, "PNG")[:4], Reason.TRUNCATED),
    "error page": ("jpg", lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>", Reason.NOT_AN_IMAGE),
    "text": ("png", lambda: b"this is no picture\n" * 20, Reason.NOT_AN_IMAGE),
    "svg": ("png", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>', Reason.NOT_AN_IMAGE),
    "random bytes": ("jpg", lambda: np.random.default_rng(0).bytes(5000), Reason.NOT_AN_IMAGE),
    "zeros": ("jpg", lambda: bytes(5000), Reason.NOT_AN_IMAGE),
    "jpeg named png": ("png", lambda: saved(PHOTO, "JPEG"), Reason.WRONG_EXTENSION),
    "png named jpeg": ("jpeg", lambda: saved(PHOTO, "PNG"), Reason.WRONG_EXTENSION),
    "webp named tif": ("tif", lambda: saved(PHOTO, "WEBP"), Reason.WRONG_EXTENSION),
    "png bomb": ("png", bomb_png, Reason.TOO_LARGE),
    "jpeg bomb": ("jpg", lambda: jpeg_with_size(65_000, 65_000), Reason.TOO_LARGE),
    "tiff bomb": ("tif", lambda: tiff_with(256, 1 << 30), Reason.TOO_LARGE),
    "gif": ("png", lambda: saved(Image.fromarray(PHOTO).quantize(), "GIF"), Reason.UNSUPPORTED),
    "avif": ("jpg", lambda: saved(PHOTO, "AVIF"), Reason.UNSUPPORTED),
    "heic": ("jpg", lambda: b"\0\0\0\x18ftypheic" + bytes(100), Reason.UNSUPPORTED),
    "jpeg 2000": ("jpg", lambda: saved(PHOTO, "JPEG2000"), Reason.UNSUPPORTED),
    "animated png": ("png", lambda: frames("PNG"), Reason.UNSUPPORTED),
    "animated webp": ("webp", lambda: frames("WEBP"), Reason.UNSUPPORTED),
    "pages in a tiff": ("tif", lambda: frames("TIFF"), Reason.UNSUPPORTED),
    "float tiff": ("tif", lambda: tiff_written(PHOTO.astype(np.float32), photometric="rgb"), Reason.UNSUPPORTED),
    "signed tiff": ("tif", lambda: tiff_written(PHOTO.astype(np.int16), photometric="rgb"), Reason.UNSUPPORTED),
    "32-bit tiff": ("tif", lambda: tiff_written(PHOTO.astype(np.uint32), photometric="rgb"), Reason.UNSUPPORTED),
    "lab tiff": ("tif", lambda: saved(Image.fromarray(PHOTO).convert("LAB"), "TIFF"), Reason.UNSUPPORTED),
    "12-bit jpeg": (
        "jpg",
        lambda: imagecodecs.jpeg8_encode(PHOTO.astype(np.uint16), 90, bitspersample=12),
        Reason.UNSUPPORTED,
    ),
    "lossless jpeg": ("jpg", lambda: imagecodecs.jpeg8_encode(PHOTO, lossless=True), Reason.UNSUPPORTED),
    "npy of doubles": ("npy", lambda: npy_written(PHOTO.astype(float)), Reason.UNSUPPORTED),
    "npy with a pickle": ("npy", lambda: npy_written(np.array([{"a": 1}], dtype=object)), Reason.UNSUPPORTED),
    "png with a wrong checksum": ("png", lambda: flipped_in_data(), Reason.CORRUPT),
    "png with too few rows": ("png", lambda: rechecked(shallow_png()), Reason.CORRUPT),
    "png without pixels": ("png", lambda: png_written(PHOTO[:0], 2, 8), Reason.CORRUPT),
    "jpeg of no height": ("jpg", lambda: jpeg_with_size(119, 0), Reason.CORRUPT),
    "jpeg with a broken code table": ("jpg", damaged_huffman, Reason.CORRUPT),
    "tiff of no width": ("tif", lambda: tiff_with(256, 0), Reason.CORRUPT),
    "tiff with a garbage strip": ("tif", tiff_with_garbage, Reason.CORRUPT),
    "tiff without all strips": ("tif", lambda: tiff_with(278, 20), Reason.CORRUPT),
    "webp with a broken stream": ("webp", broken_webp, Reason.CORRUPT),
    "npy with nan": ("npy", lambda: npy_written(np.full((4, 4), np.nan, np.float32)), Reason.CORRUPT),
}


def flipped_in_data() -> bytes:
    data = bytearray(saved(PHOTO, "PNG"))
    data[len(data) // 2] ^= 16
    return bytes(data)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pictures_get_their_reason(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    field, make, reason = BROKEN[name]
    with pytest.raises(RecordError) as caught:
        decode(make(), f"degraded.{field}")
    assert caught.value.reason == reason, caught.value.detail
    assert caught.value.detail
    assert capfd.readouterr().err == ""


WHOLE: dict[str, Callable[[], bytes]] = {
    "png": lambda: saved(PHOTO, "PNG", exif=camera_exif(6)),
    "jpeg": lambda: saved(PHOTO, "JPEG", exif=camera_exif(6)),
    "progressive.jpeg": lambda: saved(PHOTO, "JPEG", progressive=True, icc_profile=SRGB),
    "tiff": lambda: encode(Picture(PHOTO, None, "png", exif=camera_exif(1)), "tiff", OPTIONS)[0],
    "tifffile.tiff": lambda: tiff_written(deep(1, 3), photometric="rgb", compression="deflate", rowsperstrip=20),
    "webp": lambda: saved(PHOTO, "WEBP", exif=b"Exif\0\0" + camera_exif(6)),
    "bmp": lambda: saved(PHOTO, "BMP"),
    "palette.bmp": lambda: saved(Image.fromarray(PHOTO).quantize(64), "BMP"),
    "npy": lambda: npy_written(PHOTO.astype(np.float32)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_no_cut_file_is_taken_for_whole(name: str) -> None:
    data = WHOLE[name]()
    decode(data, f"x.{name}")
    ends = {*range(1, 40), *range(len(data) - 40, len(data)), *range(40, len(data), len(data) // 100)}
    for end in sorted(ends):
        with pytest.raises(RecordError) as caught:
            decode(data[:end], f"x.{name}")
        expected = {Reason.TRUNCATED} | ({Reason.NOT_AN_IMAGE} if end < 20 else set())
        assert caught.value.reason in expected, f"{end} of {len(data)} bytes: {caught.value}"


@pytest.mark.parametrize("name", WHOLE)
def test_damage_is_refused_or_read_but_never_anything_else(name: str) -> None:
    data, rng = WHOLE[name](), np.random.default_rng(17)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), rng.choice([60, 500, len(data)])), 3):
            damaged[place] = rng.integers(0, 256)
        try:
            assert decode(bytes(damaged), f"x.{name}", max_pixels=10**7).samples.size
        except RecordError:
            refused += 1
    assert refused


def test_the_extensions_of_one_kind_are_the_same() -> None:
    for name in ("a.jpg", "a.jpeg", "a.degraded.JPG", "a.dat"):
        assert decode(saved(PHOTO, "JPEG"), name).kind == "jpeg"
    for name in ("a.tif", "a.tiff"):
        assert decode(saved(PHOTO, "TIFF"), name).kind == "tiff"


@pytest.mark.parametrize("name", WHOLE)
def test_the_budget_is_checked_before_decoding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, pixels = WHOLE[name](), PHOTO.shape[0] * PHOTO.shape[1]
    assert decode(data, f"x.{name}", max_pixels=pixels).samples.size == 3 * pixels
    monkeypatch.setattr(pictures, "_decode_pixels", lambda *_: pytest.fail("decoded"))
    with pytest.raises(RecordError) as caught:
        decode(data, f"x.{name}", max_pixels=pixels - 1)
    assert caught.value.reason == Reason.TOO_LARGE
    assert "119" in caught.value.detail


def test_pillows_own_limit_plays_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its check is process-wide, so it may neither warn nor refuse; and it is left as it is."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name, make in WHOLE.items():
        assert decode(make(), f"x.{name}").samples.size
    data = tiff_written(np.asarray(Image.fromarray(PHOTO).convert("YCbCr")), photometric="ycbcr")
    assert decode(data, "x.tif").samples.shape == PHOTO.shape
    decode(saved(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"), "x.jpg")
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_jpeg_strip_may_not_be_larger_than_it_says() -> None:
    data = tiff_written(PHOTO, photometric="ycbcr", compression="jpeg")
    place = data.index(b"\xff\xc0") + 5
    data = data[:place] + struct.pack(">HH", 65_000, 65_000) + data[place + 4 :]
    with pytest.raises(RecordError, match="strip"):
        decode(data, "x.tif")


def test_a_mid_grey_end_is_no_proof_of_a_cut_jpeg() -> None:
    """Only a picture whose coded data ends early is refused, not one that is grey where it ends."""
    samples = PHOTO.copy()
    samples[40:] = 128
    for mode in ("RGB", "L"):
        data = saved(Image.fromarray(samples).convert(mode), "JPEG", quality=95)
        decoded = decode(data, "x.jpg").samples.squeeze()
        np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(data))))


def test_thumbnail_pages_do_not_make_a_tiff_many_pages() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(PHOTO, photometric="rgb", metadata=None)
        writer.write(PHOTO[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
    picture = decode(file.getvalue(), "x.tif")
    np.testing.assert_array_equal(picture.samples, PHOTO)
    assert picture.notes == ("TIFF thumbnail or mask left out",)


# ---------------------------------------------------------------- encoding limits, threads


@pytest.mark.parametrize(("kind", "side"), [("webp", 16_384), ("jpeg", 65_501)])
def test_a_picture_too_long_for_its_format(kind: str, side: int) -> None:
    with pytest.raises(RecordError, match="pixels a side; choose png or tiff") as caught:
        encode(Picture(np.zeros((1, side, 3), np.uint8), None, "png"), kind, OPTIONS)
    assert caught.value.reason == Reason.ENCODE_FAILED


def test_an_unknown_kind_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="gif"):
        encode(Picture(PHOTO, None, "png"), "gif", OPTIONS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"png_level": 0},
        {"jpeg_quality": 101},
        {"jpeg_subsampling": "411"},
        {"tiff_compression": "zip"},
        {"webp_method": 9},
    ],
)
def test_options_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        EncodeOptions(**wrong)


def test_threads_do_not_disturb_each_other() -> None:
    made = {name: make() for name, make in WHOLE.items()}
    alone = {name: decode(data, f"x.{name}") for name, data in made.items()}
    start = threading.Barrier(8)

    def work(seed: int) -> bool:
        start.wait()
        names = np.random.default_rng(seed).permutation(list(made))
        for name in names:
            picture = decode(made[name], f"x.{name}")
            assert np.array_equal(picture.samples, alone[name].samples)
            kind = name.rpartition(".")[2]
            assert encode(picture, kind, OPTIONS) == encode(alone[name], kind, OPTIONS)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


MEMORY = """
import resource, sys
import numpy as np
from transforms.pictures import EncodeOptions, Picture, decode, encode
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
rng = np.random.default_rng(0)
samples = np.empty((6000, 8000, 3), np.uint8)
for top in range(0, 6000, 100):
    samples[top : top + 100] = rng.integers(0, 64, (100, 8000, 3), dtype=np.uint8)
picture, size = Picture(samples, None, "png"), samples.nbytes / 2**20
before = peak()
data, _ = encode(picture, sys.argv[1], EncodeOptions())
print((peak() - before - len(data) / 2**20) / size)
del picture, samples
before = peak()
decode(data, "x." + sys.argv[1])
print(max(0, peak() - before) / size)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "bmp"])
def test_memory_of_a_large_picture(kind: str) -> None:
    """48 megapixels: encoding needs little beside the result, decoding little beside the array."""
    import subprocess
    import sys

    run = subprocess.run([sys.executable, "-c", MEMORY, kind], capture_output=True, text=True, check=True)
    encoding, decoding = (float(line) for line in run.stdout.split())
    assert encoding < 0.6
    assert decoding < 0.35  # the array of before is free again


# ---------------------------------------------------------------- real files


def pillow_pixels(path: Path) -> NDArray[np.uint8]:
    image = ImageOps.exif_transpose(Image.open(path))
    return np.asarray(image.convert({"P": "RGB", "1": "L"}.get(image.mode, image.mode)))


def assert_reads_as_pillow(path: Path) -> None:
    picture = decode(path.read_bytes(), path.name)
    expected = pillow_pixels(path)
    expected = expected if expected.ndim == 3 else expected[:, :, None]
    colours = picture.samples.shape[2]
    if picture.samples.dtype == np.uint8 and expected.dtype == np.uint8:
        np.testing.assert_array_equal(picture.samples, expected[:, :, :colours])
    assert picture.samples.shape[:2] == expected.shape[:2]


def test_the_photographs_in_the_scikit_image_wheel() -> None:
    folder = Path(photographs.__file__).parent
    found = [path for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg", ".jpeg")]
    assert len(found) > 15
    for path in found:
        assert_reads_as_pillow(path)


@pytest.mark.data
@pytest.mark.parametrize("folder", ["BSD68", "Set5", "Set14", "classic5", "CelebA10k", "OldPhotos_BOPBTL", "T91"])
def test_development_images(data_dir: Path, folder: str) -> None:
    found = [
        path for path in sorted((data_dir / folder).rglob("*")) if path.suffix.lower()[1:] in pictures.KIND_OF_EXTENSION
    ]
    for path in [path for path in found if path.suffix != ".npy"][:6]:
        assert_reads_as_pillow(path)
