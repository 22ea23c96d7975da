"""WebP (RFC 9649), through libwebp in imagecodecs; profile, EXIF and XMP are RIFF chunks put in here."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import imagecodecs
from numpy.typing import NDArray

from transforms.images.exif import dots_per_inch
from transforms.images.header import Header, Metadata, Pixels, corrupt, cut, split_alpha, unsupported, valid_icc
from transforms.images.options import EncodeOptions

NAME = "WebP"
HOLDS_16_BIT = HOLDS_GREY = False
HOLDS_ALPHA = True
LARGEST_SIDE = 16383  # 14 bits

_LOSSLESS_EFFORT = 20  # of 100; libwebp's default of 75 takes twice the time for the same size
_ALPHA, _ICC, _EXIF, _XMP = 0x10, 0x20, 0x08, 0x04  # flags of the VP8X chunk


def read_header(data: bytes) -> Header:
    """Walks the RIFF chunks.

    Raises:
        RecordError: `TRUNCATED`, `CORRUPT` (no bitstream), `UNSUPPORTED` (animation).
    """
    header = Header("webp")
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise cut("its RIFF container")
    for name, start, length in _chunks(data, end):
        if start + length > end:
            raise corrupt(f"the {name.decode('latin-1')} chunk is longer than its RIFF container")
        _read_chunk(header, name, memoryview(data)[start : start + length])
    if not header.detail.get("pixels"):
        raise corrupt("no VP8 or VP8L chunk: the file has no pixels")
    return header


def _chunks(data: bytes, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, length) of each chunk's body."""
    position = 12
    while position + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, position)
        yield name, position + 8, length
        position += 8 + length + length % 2


def _read_chunk(header: Header, name: bytes, body: memoryview) -> None:
    if name == b"VP8X" and len(body) >= 10:
        if body[0] & 2:
            raise unsupported("animated WebP: store the frames as pictures of their own")
        _set_size(header, 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))
    elif name == b"VP8L":
        if len(body) < 5 or body[0] != 0x2F:
            raise corrupt("the VP8L bitstream has no signature")
        bits = int.from_bytes(body[1:5], "little")
        header.detail["pixels"] = True
        _set_size(header, 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    elif name == b"VP8 ":
        if len(body) < 10 or bytes(body[3:6]) != b"\x9d\x01\x2a":
            raise corrupt("the VP8 bitstream has no start code")
        header.detail["pixels"] = True
        _set_size(header, *(side & 0x3FFF for side in struct.unpack_from("<HH", body, 6)))
    elif name == b"ICCP":
        header.icc = valid_icc(bytes(body), header)
    elif name == b"EXIF":
        header.exif = bytes(body).removeprefix(b"Exif\0\0")
    elif name == b"XMP ":
        header.xmp = bytes(body)


def _set_size(header: Header, width: int, height: int) -> None:
    if not width or not height:
        raise corrupt(f"size {width} x {height}")
    if header.width and (header.width, header.height) != (width, height):
        raise corrupt(f"a canvas of {header.width} x {header.height} with a picture of {width} x {height}")
    header.width, header.height = width, height


def decode(header: Header, data: bytes) -> Pixels:
    """See `Format.decode`."""
    return split_alpha(imagecodecs.webp_decode(data))


def encode(pixels: NDArray[Any], metadata: Metadata, options: EncodeOptions, notes: list[str]) -> bytes:
    """See `Format.encode`."""
    level = _LOSSLESS_EFFORT if options.webp_lossless else options.webp_quality
    data = bytes(
        imagecodecs.webp_encode(pixels, level, lossless=options.webp_lossless, method=options.webp_method, numthreads=1)
    )
    if metadata.dpi is not None and (metadata.exif is None or dots_per_inch(metadata.exif) != metadata.dpi):
        notes.append("resolution dropped: WebP has none")
    if metadata.icc is None and metadata.exif is None and metadata.xmp is None:
        return data
    return _with_metadata(data, metadata, pixels.shape[1], pixels.shape[0])


def _with_metadata(data: bytes, metadata: Metadata, width: int, height: int) -> bytes:
    """The extended container: VP8X, ICCP, ALPH, the bitstream, EXIF, XMP, in this order (RFC 9649 section 2.7)."""
    view = memoryview(data)
    streams = [
        (name, view[start : start + length]) for name, start, length in _chunks(data, len(data)) if name != b"VP8X"
    ]
    flags = _ALPHA if any(name == b"ALPH" or (name == b"VP8L" and body[4] & 0x10) for name, body in streams) else 0
    for flag, block in ((_ICC, metadata.icc), (_EXIF, metadata.exif), (_XMP, metadata.xmp)):
        flags |= flag if block is not None else 0
    canvas = struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks: list[tuple[bytes, bytes | memoryview | None]] = [(b"VP8X", canvas), (b"ICCP", metadata.icc), *streams]
    chunks += [(b"EXIF", metadata.exif), (b"XMP ", metadata.xmp)]
    parts: list[bytes | memoryview] = []
    for name, body in chunks:
        if body is not None:
            parts += [name + struct.pack("<I", len(body)), body, bytes(len(body) % 2)]
    return b"".join((b"RIFF", struct.pack("<I", 4 + sum(map(len, parts))), b"WEBP", *parts))
