"""JPEG (ITU T.81, JFIF 1.02), 8 bit, through libjpeg-turbo in imagecodecs; the metadata segments are put in here.

libjpeg never refuses damaged or missing coded data: it fills with grey and counts a warning that no Python binding
shows. So completeness is decided here: the end marker, the scans of a progressive file, and a test for early ends
(`_refuse_grey_fill`). A flipped bit inside a scan can't be seen by anybody: JPEG has no checksum.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from transforms.errors import Reason, RecordError
from transforms.images.header import Header, Metadata, Pixels, corrupt, cut, split_alpha, unsupported, valid_icc
from transforms.images.inks import cmyk_to_rgb
from transforms.images.options import EncodeOptions

NAME = "JPEG"
HOLDS_16_BIT = HOLDS_ALPHA = False
HOLDS_GREY = True
LARGEST_SIDE = 65500  # libjpeg's JPEG_MAX_DIMENSION

_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # any marker but stuffed bytes and restarts
_MOST_SCANS = 500  # each costs a pass over the picture; the standard script of libjpeg has 10
_BARE_MARKERS = (0x01, 0xD8)  # without a length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_READ_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # baseline, extended, progressive; Huffman and arithmetic


def read_header(data: bytes) -> Header:
    """Walks the markers up to EOI.

    Raises:
        RecordError: `TRUNCATED` (no EOI, or scans are missing), `CORRUPT` (no frame, no size), `UNSUPPORTED` (lossless,
            hierarchical, 12 bit).
    """
    header = Header("jpeg")
    header.detail.update(icc={}, scans=0, adobe=False, progressive=False, precision={})
    position = 2
    while True:
        found = _MARKER.search(data, position)  # as libjpeg, over padding and stray bytes
        if found is None:
            raise cut("its segments: no EOI")
        position, marker = found.start(), data[found.start() + 1]
        if marker == 0xD9:
            break
        position = position + 2 if marker in _BARE_MARKERS else _read_segment(header, marker, data, position)
    header.detail["eoi"] = position
    _finish(header)
    return header


def frame_size(data: bytes, position: int) -> tuple[int, int] | None:
    """(width, height) of the JPEG stream that starts at `position`; None if it has no frame header."""
    position += 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        position += 1 if marker == 0xFF else 2 + length
    return None


def _read_segment(header: Header, marker: int, data: bytes, position: int) -> int:
    """Reads one segment; returns where it ends."""
    if position + 4 > len(data):
        raise cut("its segments: no EOI")
    length = int.from_bytes(data[position + 2 : position + 4], "big")
    end = position + 2 + length
    if length < 2:
        raise corrupt(f"a segment of {length} bytes")
    if end > len(data):
        raise cut("a segment")
    body = data[position + 4 : end]
    if marker in _FRAMES:
        _read_frame(header, marker, body)
    elif marker == 0xDA:
        _read_scan(header, body)
    else:
        _read_application(header, marker, body)
    return end


def _read_frame(header: Header, marker: int, body: bytes) -> None:
    if header.width:
        raise unsupported("hierarchical JPEG: several frames")
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise corrupt("the frame header is too short")
    header.bits, header.height, header.width, header.channels = struct.unpack_from(">BHHB", body)
    if marker not in _READ_FRAMES:
        raise unsupported("lossless or hierarchical JPEG: convert it first")
    if header.bits != 8:
        raise unsupported(f"JPEG with {header.bits} bits a sample: 8 are read; convert it to PNG or TIFF")
    if not header.width or not header.height:
        raise corrupt(f"size {header.width} x {header.height}")
    if header.channels not in (1, 3, 4):
        raise unsupported(f"JPEG with {header.channels} components: 1, 3 or 4 are read")
    header.detail["progressive"] = marker in (0xC2, 0xCA)
    header.detail["precision"] = {component: [None] * 64 for component in body[6 : 6 + 3 * header.channels : 3]}


def _read_scan(header: Header, body: bytes) -> None:
    """Notes down to which bit the scan brings each coefficient of its components."""
    header.detail["scans"] += 1
    if header.detail["scans"] > _MOST_SCANS:
        raise corrupt(f"more than {_MOST_SCANS} scans")
    count = body[0] if body else 0
    if len(body) < 4 + 2 * count:
        raise corrupt("the scan header is too short")
    first, last, approximation = body[1 + 2 * count : 4 + 2 * count]
    if not header.detail["progressive"]:
        first, last, approximation = 0, 63, 0
    for component in body[1 : 1 + 2 * count : 2]:
        bits = header.detail["precision"].get(component)
        if bits is None or not first <= last <= 63:
            raise corrupt("a scan of a component or a band that does not exist")
        bits[first : last + 1] = [approximation & 15] * (last + 1 - first)


def _read_application(header: Header, marker: int, body: bytes) -> None:
    if marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 12:
        unit, x, y = struct.unpack_from(">BHH", body, 7)
        inch = {1: 1.0, 2: 2.54}.get(unit)
        header.dpi = (x * inch, y * inch) if inch and x and y else None
    elif marker == 0xE1 and body.startswith(_EXIF):
        header.exif = header.exif or body[len(_EXIF) :]
    elif marker == 0xE1 and body.startswith(_XMP):
        header.xmp = header.xmp or body[len(_XMP) :]
    elif marker == 0xE1 and body.startswith(_EXTENDED_XMP):
        header.note("extended XMP left out")
    elif marker == 0xE2 and body.startswith(_ICC) and len(body) > len(_ICC) + 2:
        header.detail["icc"][body[12]] = (body[13], body[14:])
    elif marker == 0xE2 and body.startswith(b"MPF\0"):
        header.note("further pictures behind the first (MPF) left out")
    elif marker == 0xED:
        header.note("Photoshop and IPTC block left out")
    elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
        header.detail["adobe"] = True
    elif marker == 0xFE:
        header.note("JPEG comment left out")


def _finish(header: Header) -> None:
    if not header.width:
        raise corrupt("no frame header before EOI")
    pieces = header.detail.pop("icc")
    if pieces:
        total = next(iter(pieces.values()))[0]
        whole = sorted(pieces) == list(range(1, total + 1))
        header.icc = valid_icc(b"".join(pieces[n][1] for n in sorted(pieces)) if whole else b"", header)
    if any(bit != 0 for bits in header.detail["precision"].values() for bit in bits):
        raise RecordError(Reason.TRUNCATED, "scans are missing: the file ends before its picture is complete")


def decode(header: Header, data: bytes) -> Pixels:
    """See `Format.decode`."""
    pixels = imagecodecs.jpeg8_decode(data)
    stored = 1 if pixels.ndim == 2 else pixels.shape[2]
    if stored != header.channels:
        raise corrupt(f"{stored} channels, but the header says {header.channels}")
    if stored == 4:
        if header.detail["adobe"]:  # Adobe stores ink inverted, and marks it
            np.subtract(255, pixels, out=pixels)
        return Pixels(cmyk_to_rgb(header, pixels))
    _refuse_grey_fill(header, data, pixels)
    return split_alpha(pixels)


_NEAR_MID_GREY = 40
_EXTRA_BITS = bytes(range(1, 128, 3)) * 96  # any bits without 0xFF


def _refuse_grey_fill(header: Header, data: bytes, pixels: NDArray[Any]) -> None:
    """Refuses a JPEG whose coded data ends early although EOI is there.

    libjpeg fills the rest with mid-grey. The proof: with more bits before EOI the decoder takes them, so the picture's
    end changes; a complete picture ignores them. The second decode is spent only where the last pixel is near
    mid-grey, and not on progressive files, where an early end of the last scan shows as lost detail and nothing else.
    """
    if header.detail["progressive"] or np.abs(pixels[-1, -1].astype(int) - 128).max() > _NEAR_MID_GREY:
        return
    last_row = pixels[-1].copy()
    longer = b"".join((memoryview(data)[: header.detail["eoi"]], _EXTRA_BITS, b"\xff\xd9"))
    imagecodecs.jpeg8_decode(longer, out=pixels)
    if not np.array_equal(pixels[-1], last_row):
        raise RecordError(Reason.TRUNCATED, "the coded data ends before the picture does; a decoder would fill in grey")


def encode(pixels: NDArray[Any], metadata: Metadata, options: EncodeOptions, notes: list[str]) -> bytes:
    """See `Format.encode`."""
    data = bytes(imagecodecs.jpeg8_encode(pixels, options.jpeg_quality, subsampling=options.jpeg_subsampling))
    after_jfif = 4 + struct.unpack_from(">H", data, 4)[0] if data[2:4] == b"\xff\xe0" else 2
    return b"".join((data[:2], *_metadata_segments(metadata, notes), memoryview(data)[after_jfif:]))


_LONGEST = 65533  # bytes in the body of a segment
_ICC_PIECE = _LONGEST - len(_ICC) - 2


def _metadata_segments(metadata: Metadata, notes: list[str]) -> Iterator[bytes]:
    unit, x, y = 0, 1, 1
    if metadata.dpi is not None:
        unit, x, y = 1, *(min(max(round(dots), 1), 65535) for dots in metadata.dpi)
    yield _segment(0xE0, b"JFIF\0\1\1" + struct.pack(">BHHBB", unit, x, y, 0, 0))
    for name, prefix, block in (("EXIF", _EXIF, metadata.exif), ("XMP", _XMP, metadata.xmp)):
        if block is not None and len(prefix) + len(block) > _LONGEST:
            notes.append(f"{name} dropped: longer than a JPEG segment")
        elif block is not None:
            yield _segment(0xE1, prefix + block)
    icc = metadata.icc or b""
    pieces = [icc[start : start + _ICC_PIECE] for start in range(0, len(icc), _ICC_PIECE)]
    if len(pieces) > 255:
        notes.append("ICC profile dropped: longer than 255 JPEG segments")
        return
    for number, piece in enumerate(pieces, 1):
        yield _segment(0xE2, _ICC + bytes((number, len(pieces))) + piece)


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
