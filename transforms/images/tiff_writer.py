"""TIFF 6.0 files: strips of 1 MiB with horizontal differences, deflate or LZW.

An EXIF block has the same header as a TIFF file, so it stands at the head of the file byte for byte, all offsets
inside it stay true (maker notes too), and the picture's directory takes its entries over. tifffile can't write EXIF,
Pillow no 16-bit RGB. No time and no program name is written: the same picture gives the same bytes.
"""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from typing import Any

import imagecodecs
from numpy.typing import NDArray

from transforms.errors import Reason, RecordError
from transforms.images.exif import STRUCTURAL_TAGS
from transforms.images.header import Metadata
from transforms.images.options import EncodeOptions
from transforms.images.tiff_directories import (
    ICC_PROFILE,
    ORIENTATION,
    RESOLUTION_UNIT,
    SIZES,
    X_RESOLUTION,
    XMP,
    Y_RESOLUTION,
    Entry,
    TiffError,
    read_directory,
    read_layout,
)

_BYTE, _SHORT, _LONG, _RATIONAL, _UNDEFINED = 1, 3, 4, 5, 7
_COMPRESSION_TAG = {"none": 1, "lzw": 5, "deflate": 8}
_STRIP_BYTES = 1 << 20
_LARGEST_FILE = (1 << 32) - 1
_DEFLATE_LEVEL = 6
Tags = dict[int, tuple[int, bytes]]  # tag -> TIFF type, value in the file's byte order


def encode(pixels: NDArray[Any], metadata: Metadata, options: EncodeOptions, notes: list[str]) -> bytes:
    """See `Format.encode`.

    Raises:
        RecordError: `ENCODE_FAILED`: the file would be longer than 4 GiB.
    """
    head, order, kept = _head(metadata, notes)
    file = io.BytesIO()
    file.write(head + bytes(len(head) % 2))
    image = pixels if pixels.ndim == 3 else pixels[:, :, None]
    rows = max(1, _STRIP_BYTES // image[0].nbytes)
    offsets, counts = [], []
    for top in range(0, len(image), rows):
        strip = _strip(image[top : top + rows], order, options.tiff_compression)
        offsets.append(file.tell())
        counts.append(file.write(strip))
        _refuse_huge(file)
    tags = _picture_tags(image, order, options.tiff_compression) | _metadata_tags(metadata, order)
    tags[273] = _LONG, struct.pack(f"{order}{len(offsets)}I", *offsets)
    tags[278] = _LONG, struct.pack(order + "I", rows)
    tags[279] = _LONG, struct.pack(f"{order}{len(counts)}I", *counts)
    _write_directory(file, order, tags, kept)
    return file.getvalue()


def _refuse_huge(file: io.BytesIO) -> None:
    if file.tell() > _LARGEST_FILE:
        raise RecordError(
            Reason.ENCODE_FAILED, f"more than {_LARGEST_FILE} bytes, which TIFF can't address; choose png"
        )


def _head(metadata: Metadata, notes: list[str]) -> tuple[bytes, str, dict[int, Entry]]:
    """The head of the file, the EXIF block or a bare header; its byte order; the entries to take over."""
    if metadata.exif is not None:
        try:
            layout = read_layout(metadata.exif)
            if layout.big:
                raise TiffError("a BigTIFF header")
            directory = read_directory(metadata.exif, layout, layout.first)
        except TiffError:
            notes.append("EXIF dropped: unreadable, and TIFF keeps it as tags")
        else:
            kept = {tag: entry for tag, entry in directory.entries.items() if tag not in STRUCTURAL_TAGS and entry.raw}
            return metadata.exif, layout.order, kept
    return b"II*\0" + bytes(4), "<", {}


def _strip(strip: NDArray[Any], order: str, compression: str) -> bytes:
    """One strip: each row's differences to the left neighbour (TIFF 6.0 section 14), then the compressor."""
    if compression != "none":
        difference = strip.copy()
        difference[:, 1:] -= strip[:, :-1]
        strip = difference
    raw = strip.astype(f"{order}u{strip.itemsize}", copy=False).tobytes()
    if compression == "lzw":
        return bytes(imagecodecs.lzw_encode(raw))
    return bytes(imagecodecs.deflate_encode(raw, _DEFLATE_LEVEL)) if compression == "deflate" else raw


def _picture_tags(image: NDArray[Any], order: str, compression: str) -> Tags:
    height, width, channels = image.shape

    def short(*values: int) -> tuple[int, bytes]:
        return _SHORT, struct.pack(f"{order}{len(values)}H", *values)

    tags = {
        256: (_LONG, struct.pack(order + "I", width)),
        257: (_LONG, struct.pack(order + "I", height)),
        258: short(*[8 * image.itemsize] * channels),
        259: short(_COMPRESSION_TAG[compression]),
        262: short(2 if channels >= 3 else 1),
        ORIENTATION: short(1),
        277: short(channels),
        284: short(1),
    }
    if compression != "none":
        tags[317] = short(2)
    if channels in (2, 4):
        tags[338] = short(2)
    return tags


def _metadata_tags(metadata: Metadata, order: str) -> Tags:
    tags: Tags = {}
    if metadata.dpi is not None:
        for tag, dots in zip((X_RESOLUTION, Y_RESOLUTION), metadata.dpi, strict=True):
            ratio = Fraction(dots).limit_denominator(10_000)
            tags[tag] = _RATIONAL, struct.pack(order + "II", ratio.numerator, ratio.denominator)
        tags[RESOLUTION_UNIT] = _SHORT, struct.pack(order + "H", 2)
    if metadata.xmp is not None:
        tags[XMP] = _BYTE, metadata.xmp
    if metadata.icc is not None:
        tags[ICC_PROFILE] = _UNDEFINED, metadata.icc
    return tags


def _write_directory(file: io.BytesIO, order: str, tags: Tags, kept: dict[int, Entry]) -> None:
    """Writes long values and the directory at the end of the file, and the directory's place into the header."""
    slots = {tag: (entry.type, entry.raw, entry.offset) for tag, entry in kept.items()}
    for tag, (kind, raw) in tags.items():
        file.write(bytes(file.tell() % 2))
        slots[tag] = kind, raw, file.tell()
        file.write(raw if len(raw) > 4 else b"")
    file.write(bytes(file.tell() % 2))
    start = file.tell()
    file.write(struct.pack(order + "H", len(slots)))
    for tag, (kind, raw, offset) in sorted(slots.items()):
        value = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack(order + "I", offset)
        file.write(struct.pack(order + "HHI", tag, kind, len(raw) // SIZES[kind]) + value)
    file.write(bytes(4))
    _refuse_huge(file)
    file.seek(4)
    file.write(struct.pack(order + "I", start))
