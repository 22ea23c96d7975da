"""EXIF blocks (EXIF 2.32): orientation, resolution, and blocks made from TIFF files, without a picture library.

A block is a small TIFF file. It is carried byte for byte but for the one tag that must change: orientation, because
the samples are turned upright. Damage never costs the picture.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.images.tiff_directories import (
    ICC_PROFILE,
    INTEGER_FORMATS,
    LONG,
    ORIENTATION,
    RESOLUTION_UNIT,
    SIZES,
    X_RESOLUTION,
    XMP,
    Y_RESOLUTION,
    Directory,
    Entry,
    Layout,
    TiffError,
    read_directory,
    read_layout,
)

_POINTERS = (34665, 34853, 40965)  # to the Exif, GPS and Interoperability directories

# How one TIFF file stores its pixels, and blocks that are carried apart or belong to one program's own pixels
# (Photoshop). They are no property of the picture and never go into an EXIF block.
_PHOTOSHOP = frozenset((34377, 37724))
STRUCTURAL_TAGS = _PHOTOSHOP.union(
    (*range(254, 260), *range(262, 267), 273, *range(277, 282), 284, *range(288, 294), 297, 301, *range(317, 326)),
    (330, 332, 334, *range(337, 348), *range(512, 522), *range(529, 533), XMP, ICC_PROFILE, 32997, 42112, 42113),
)


def upright(block: bytes) -> tuple[bytes, int]:
    """Reads the orientation of an EXIF block and sets it to 1 in place; all other bytes stay as they are.

    Returns:
        The block, and the value that it held: 1 if it has none, and possibly one that the standard does not know.

    Raises:
        TiffError: the first directory can't be read.
    """
    layout = read_layout(block)
    directory = read_directory(block, layout, layout.first)
    value = directory.integer(ORIENTATION, 1)
    if value == 1:
        return block, 1
    entry = directory.entries[ORIENTATION]
    one = struct.pack(layout.order + INTEGER_FORMATS[entry.type], 1)
    return block[: entry.offset] + one + block[entry.offset + len(one) :], value


def dots_per_inch(block: bytes) -> tuple[float, float] | None:
    """Resolution that an EXIF block gives; None for none or a damaged block."""
    try:
        layout = read_layout(block)
        return read_directory(block, layout, layout.first).dots_per_inch()
    except TiffError:
        return None


_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>\s*))([0-9])")


def upright_xmp(packet: bytes) -> tuple[bytes, int]:
    """As `upright`, for an XMP packet."""
    found = _XMP_ORIENTATION.search(packet)
    if found is None:
        return packet, 1
    return _XMP_ORIENTATION.sub(rb"\g<1>1", packet), int(found.group(2))


def apply_orientation(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turns stored pixels upright.

    Args:
        pixels: H x W or H x W x C.
        orientation: EXIF 2.32 tag 274: 1 as it is, 2 mirrored left-right, 3 turned by 180 degrees, 4 mirrored
            top-bottom, 5 transposed, 6 to be turned clockwise, 7 transversed, 8 to be turned anticlockwise.

    Returns:
        A C-contiguous array; the argument itself for orientation 1.
    """
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def block_from_directory(data: bytes, layout: Layout, directory: Directory) -> tuple[bytes | None, tuple[str, ...]]:
    """Makes an EXIF block of what a TIFF file's directory says about the picture, in the file's byte order.

    The Exif, GPS and Interoperability directories go along. Offsets inside a maker note, which only its maker
    understands, are not adapted.

    Returns:
        The block, None if the directory says nothing; and notes on what was left out.
    """
    kept = {tag: entry for tag, entry in directory.entries.items() if tag not in STRUCTURAL_TAGS}
    notes = set()
    if directory.entries.keys() & _PHOTOSHOP:
        notes.add("Photoshop and IPTC block left out")
    if directory.lost:
        notes.add("part of EXIF unreadable, left out")
    if not kept.keys() - {ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT}:
        return None, tuple(notes)
    body = bytearray(struct.pack(layout.order + "2sHI", b"II" if layout.order == "<" else b"MM", 42, 8))
    if not _append_directory(body, data, layout, kept, depth=0):
        notes.add("part of EXIF unreadable, left out")
    return bytes(body), tuple(sorted(notes))


def _append_directory(body: bytearray, data: bytes, layout: Layout, entries: dict[int, Entry], depth: int) -> bool:
    """Writes a directory at the end of `body`, its values and sub-directories behind it; False if one could not be
    read.
    """
    children = {tag: _child(data, layout, entries[tag]) for tag in _POINTERS if tag in entries and depth < 2}
    stored = {tag: entry for tag, entry in sorted(entries.items()) if 0 < entry.type < 16 and entry.type in SIZES}
    stored = {tag: entry for tag, entry in stored.items() if tag not in _POINTERS or children.get(tag) is not None}
    whole = len(stored) == len(entries)
    start = len(body)
    body += struct.pack(layout.order + "H", len(stored)) + bytes(12 * len(stored) + 4)
    for number, (tag, entry) in enumerate(stored.items()):
        kind, count, raw = entry.type, entry.count, entry.raw
        child = children.get(tag)
        if child is not None:
            kind, count, raw = LONG, 1, struct.pack(layout.order + "I", len(body))
            whole &= _append_directory(body, data, layout, child.entries, depth + 1) and not child.lost
        elif len(raw) > 4:
            raw = struct.pack(layout.order + "I", len(body))
            body += entry.raw + bytes(len(entry.raw) % 2)
        slot = start + 2 + 12 * number
        body[slot : slot + 12] = struct.pack(layout.order + "HHI", tag, kind, count) + raw.ljust(4, b"\0")
    return whole


def _child(data: bytes, layout: Layout, entry: Entry) -> Directory | None:
    """The directory that a pointer leads to; None if it is damaged."""
    place = Directory(layout.order, {0: entry}).integer(0, 0)
    try:
        return read_directory(data, layout, place)
    except TiffError:
        return None
