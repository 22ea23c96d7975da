"""PNG (W3C PNG 3rd edition), 1 to 16 bits, through libpng in imagecodecs; profile, EXIF, XMP and resolution are chunks
put in here.

libpng refuses short and damaged pixel data; the chunks and their checksums are walked here first.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, cast

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from transforms.images.header import (
    NOTE_XMP,
    Header,
    Metadata,
    Pixels,
    corrupt,
    cut,
    inflate,
    per_inch,
    per_metre,
    resolve_palette,
    split_alpha,
    unsupported,
    valid_icc,
)
from transforms.images.options import EncodeOptions

NAME = "PNG"
HOLDS_16_BIT = HOLDS_ALPHA = HOLDS_GREY = True
LARGEST_SIDE = 1_000_000  # libpng's user limit; the format itself has 31 bits

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_XMP_KEYWORD = b"XML:com.adobe.xmp\0"
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_SMALL = 64 << 20  # bytes of a file that may be copied without a second thought


def read_header(data: bytes) -> Header:
    """Walks the chunks.

    Raises:
        RecordError: `TRUNCATED` (a chunk or IEND is missing), `CORRUPT` (a chunk that the pixels need is damaged, no
            size), `UNSUPPORTED` (animation).
    """
    header = Header("png")
    header.detail["kept"] = []  # (start, end) of the chunks that the pixels need
    position, name = 8, b""
    while name != b"IEND":
        if position + 12 > len(data):
            raise cut("its chunks: no IEND")
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise cut(f"its {name.decode('latin-1')} chunk")
        if name in _PIXEL_CHUNKS:
            header.detail["kept"].append((position, end))
        _read_chunk(header, name, data, position + 8, end - 4)
        position = end
    if not header.detail.get("pixels"):
        raise corrupt("no IDAT chunk: the file has no pixels")
    return header


def _read_chunk(header: Header, name: bytes, data: bytes, start: int, end: int) -> None:
    if (not header.width) != (name == b"IHDR"):
        raise corrupt("IHDR is not the first chunk, or stands twice")
    label = name.decode("latin-1")
    checksum: int = imagecodecs.deflate_crc32(
        cast(bytes, memoryview(data)[start - 4 : end])
    )  # several times as fast as zlib
    intact = checksum == struct.unpack_from(">I", data, end)[0]
    if name in _PIXEL_CHUNKS and not intact:
        raise corrupt(f"checksum of the {label} chunk is wrong")
    if name == b"IDAT":
        header.detail["pixels"] = True
        return
    body = data[start:end]
    if name in _PIXEL_CHUNKS:
        _read_pixel_chunk(header, name, body)
    elif not name[0] & 0x20:
        raise corrupt(f"unknown critical chunk {label!r}")
    elif not intact:
        header.note(f"damaged {label} chunk left out")
        header.detail["noisy"] = True
    else:
        _read_ancillary_chunk(header, name, body)


def _read_pixel_chunk(header: Header, name: bytes, body: bytes) -> None:
    if name == b"IHDR":
        _read_ihdr(header, body)
    elif name == b"PLTE":
        header.detail["table"] = np.frombuffer(body, np.uint8, len(body) // 3 * 3).reshape(-1, 3)
    elif name == b"tRNS":
        header.detail["transparent"] = True


def _read_ihdr(header: Header, body: bytes) -> None:
    if len(body) != 13:
        raise corrupt(f"IHDR has {len(body)} bytes, expected 13")
    header.width, header.height, header.bits, colour, compression, filtering, interlace = struct.unpack(
        ">IIBBBBB", body
    )
    if not 0 < header.width < 1 << 31 or not 0 < header.height < 1 << 31:
        raise corrupt(f"size {header.width} x {header.height}")
    if header.bits not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise corrupt(
            f"IHDR: colour type {colour}, {header.bits} bits, compression {compression}, interlace {interlace}"
        )
    header.channels, header.palette = _CHANNELS[colour], colour == 3


def _read_ancillary_chunk(header: Header, name: bytes, body: bytes) -> None:
    if name == b"acTL" and len(body) == 8 and struct.unpack_from(">I", body)[0] > 1:
        raise unsupported("animated PNG: store the frames as pictures of their own")
    if name == b"iCCP" and header.icc is None:
        header.icc = valid_icc(inflate(body.partition(b"\0")[2][1:]) or b"", header)
        header.detail["profile"] = True
    elif name == b"eXIf":
        header.exif = body
    elif name == b"pHYs" and len(body) == 9:
        x, y, unit = struct.unpack(">IIB", body)
        header.dpi = per_inch(x, y) if unit == 1 else None
    elif name == b"iTXt" and body.startswith(_XMP_KEYWORD):
        header.xmp = _read_xmp(header, body)
    elif name in (b"tEXt", b"zTXt", b"iTXt"):
        header.note("PNG text left out")
    elif name in (b"gAMA", b"cHRM"):
        header.detail["gamma"] = True
    elif name == b"sRGB":
        header.detail["srgb"] = True


def _read_xmp(header: Header, body: bytes) -> bytes | None:
    """The packet of an iTXt chunk: keyword 0, compression flag, method, language 0, translated keyword 0, text."""
    flag = body[len(_XMP_KEYWORD) : len(_XMP_KEYWORD) + 1]
    text = body[len(_XMP_KEYWORD) + 2 :].partition(b"\0")[2].partition(b"\0")[2]
    packet = inflate(text) if flag == b"\1" else text
    if packet is None:
        header.note(NOTE_XMP)
    return packet


def decode(header: Header, data: bytes) -> Pixels:
    """See `Format.decode`."""
    if header.detail.get("gamma") and not header.detail.get("srgb") and header.icc is None:
        header.note("PNG gamma and chromaticities left out")
    pixels = split_alpha(imagecodecs.png_decode(_quiet(header, data)))
    if header.palette:
        return resolve_palette(header, pixels, header.detail.get("table", np.zeros((1, 3), np.uint8)))
    if header.bits < 8:
        header.note(f"{header.bits} bit widened to 8")
    if header.detail.get("transparent"):
        header.note("transparent colour converted to alpha")
    return pixels


def _quiet(header: Header, data: bytes) -> bytes:
    """The file without chunks about which libpng writes to the process's error stream: odd profiles and damaged text.

    It is a copy, so a large file pays for it only where a message is certain.
    """
    misfit = header.icc is not None and (header.icc[16:20] == b"GRAY") != (header.channels <= 2 and not header.palette)
    certain = misfit or header.detail.get("noisy") or (header.detail.get("profile") and header.icc is None)
    if not certain and not (header.detail.get("profile") and len(data) < _SMALL):
        return data
    view = memoryview(data)
    return b"".join((_SIGNATURE, *(view[start:end] for start, end in header.detail["kept"])))


_ALL_FILTERS = 0xF8  # libpng's PNG_ALL_FILTERS: row by row, the smallest sum of absolute differences wins
_AFTER_IHDR = 33
_WHOLE = 128 << 20  # bytes of pixels that are compressed in one go
_BAND_BYTES = 8 << 20


def encode(pixels: NDArray[Any], metadata: Metadata, options: EncodeOptions, notes: list[str]) -> bytes:
    """See `Format.encode`."""
    strategy = imagecodecs.PNG.STRATEGY.RLE if options.png_level == 1 else imagecodecs.PNG.STRATEGY.FILTERED
    chunks = b"".join(_metadata_chunks(metadata, pixels.ndim == 2 or pixels.shape[2] == 2, notes))
    if pixels.nbytes > _WHOLE:
        return _encode_in_bands(pixels, chunks, options.png_level, strategy)
    data = bytes(imagecodecs.png_encode(pixels, options.png_level, strategy=strategy, filter=_ALL_FILTERS))
    if not chunks:
        return data
    view = memoryview(data)
    return b"".join((view[:_AFTER_IHDR], chunks, view[_AFTER_IHDR:]))


def _encode_in_bands(pixels: NDArray[Any], chunks: bytes, level: int, strategy: int) -> bytes:
    """As libpng would, but without its second copy of the compressed file, which counts from a hundred megapixels on.

    libpng filters a band of rows and stores it uncompressed; the filtered rows go through one deflate stream. A band
    starts with the last row of the band before, since filters look at the row above; that row's own result is dropped.
    """
    height, row_bytes = len(pixels), pixels[0].nbytes
    rows = max(1, _BAND_BYTES // row_bytes)
    engine = zlib.compressobj(level, strategy=strategy)
    file = io.BytesIO()
    for top in range(0, height, rows):
        above = min(top, 1)
        stored = bytes(imagecodecs.png_encode(pixels[top - above : top + rows], 0, filter=_ALL_FILTERS))
        if not top:
            file.write(_SIGNATURE + _chunk(b"IHDR", _ihdr(stored, height)) + chunks)
        packed = engine.compress(memoryview(_filtered(stored))[above * (row_bytes + 1) :])
        file.write(_chunk(b"IDAT", packed) if packed else b"")
    file.write(_chunk(b"IDAT", engine.flush()) + _chunk(b"IEND", b""))
    return file.getvalue()


def _ihdr(png: bytes, height: int) -> bytes:
    """The IHDR body of a PNG, for another height."""
    return png[16:20] + struct.pack(">I", height) + png[24:29]


def _filtered(png: bytes) -> bytes:
    """The filtered rows in a PNG: its IDAT chunks, inflated."""
    view, position, pieces = memoryview(png), len(_SIGNATURE), []
    while position < len(png):
        length, name = struct.unpack_from(">I4s", png, position)
        if name == b"IDAT":
            pieces.append(view[position + 8 : position + 8 + length])
        position += 12 + length
    return zlib.decompress(b"".join(pieces))


def _metadata_chunks(metadata: Metadata, grey: bool, notes: list[str]) -> Iterator[bytes]:
    if metadata.icc is not None:
        if grey == (metadata.icc[16:20] == b"GRAY"):
            yield _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc, 6))
        else:
            notes.append("ICC profile dropped: PNG allows none of another colour space than its pixels")
    if metadata.dpi is not None:
        yield _chunk(b"pHYs", struct.pack(">IIB", *per_metre(metadata.dpi), 1))
    if metadata.exif is not None:
        yield _chunk(b"eXIf", metadata.exif)
    if metadata.xmp is not None:
        yield _chunk(b"iTXt", _XMP_KEYWORD + bytes(4) + metadata.xmp)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
