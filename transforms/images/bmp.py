"""BMP: 24-bit rows straight from the bytes, palettes, run lengths and bit fields through Pillow's plug-in class.

The class and not `Image.open`: that one compares with the process-wide `MAX_IMAGE_PIXELS` and
warns, while the size was compared with the caller's own budget before.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image

from transforms.errors import Reason, RecordError
from transforms.images.header import (
    Header,
    Metadata,
    Pixels,
    corrupt,
    cut,
    per_inch,
    per_metre,
    resolve_palette,
    split_alpha,
    unsupported,
)
from transforms.images.options import EncodeOptions

NAME = "BMP"
HOLDS_16_BIT = HOLDS_ALPHA = False
HOLDS_GREY = True
LARGEST_SIDE = (1 << 31) - 1
_LARGEST_FILE = (1 << 32) - 1
_BAND_ROWS = 256  # rows at a time, so that no second whole picture exists


def read_header(data: bytes) -> Header:
    """Reads the two headers.

    Raises:
        RecordError: `TRUNCATED`, `CORRUPT` (no size), `UNSUPPORTED` (a JPEG or PNG inside).
    """
    if len(data) < 26:
        raise cut("its header")
    offset, size = struct.unpack_from("<II", data, 10)
    if 14 + size > len(data):
        raise cut("its header")
    header = Header("bmp")
    compression = 0
    header.width, height, _, depth = struct.unpack_from("<HHHH" if size == 12 else "<iiHH", data, 18)
    if size >= 40:
        compression, _, x, y = struct.unpack_from("<IIii", data, 30)
        header.dpi = per_inch(x, y)
    header.height = abs(height)
    if header.width <= 0 or not header.height:
        raise corrupt(f"size {header.width} x {height}")
    if compression in (4, 5):
        raise unsupported("BMP with a JPEG or PNG inside: store that one")
    if depth not in (1, 4, 8, 16, 24, 32):
        raise corrupt(f"{depth} bits a pixel")
    header.palette = depth <= 8
    header.detail.update(offset=offset, top_down=height < 0, plain=depth == 24 and compression == 0)
    stride = (header.width * depth + 31) // 32 * 4
    if compression in (0, 3, 6) and offset + stride * header.height > len(data):
        raise cut("its pixels")
    return header


def decode(header: Header, data: bytes) -> Pixels:
    """See `Format.decode`."""
    if not header.detail["plain"]:
        return _from_pillow(header, BmpImagePlugin.BmpImageFile(io.BytesIO(data)))
    stride = (3 * header.width + 3) // 4 * 4
    stored = np.frombuffer(data, np.uint8, stride * header.height, header.detail["offset"])
    rows = stored.reshape(header.height, stride)[:, : 3 * header.width].reshape(header.height, header.width, 3)
    upright = rows if header.detail["top_down"] else rows[::-1]
    return Pixels(np.ascontiguousarray(upright[:, :, ::-1]))


def _from_pillow(header: Header, image: Image.Image) -> Pixels:
    """Grey or RGB, 8 bit, with alpha where the mode has it. Conversions are noted in `header`.

    Raises:
        RecordError: `UNSUPPORTED` for a mode that is neither.
    """
    if image.mode == "P":
        image.load()
        table = np.frombuffer(bytes(image.getpalette("RGB") or [0, 0, 0]), np.uint8).reshape(-1, 3)
        return resolve_palette(header, split_alpha(np.array(image.convert("RGB"))), table)
    if image.mode == "1":
        header.note("1 bit widened to 8")
        image = image.convert("L")
    if image.mode not in ("L", "RGB", "RGBA"):
        raise unsupported(f"BMP in Pillow's mode {image.mode}: convert it to grey or RGB")
    return split_alpha(np.array(image))


def encode(pixels: NDArray[Any], metadata: Metadata, options: EncodeOptions, notes: list[str]) -> bytes:
    """See `Format.encode`. Grey becomes 8 bit with a ramp of greys for a palette, RGB 24 bit; rows run upwards."""
    for name, block in (("ICC profile", metadata.icc), ("EXIF", metadata.exif), ("XMP", metadata.xmp)):
        if block is not None:
            notes.append(f"{name} dropped: BMP has none")
    height, width = pixels.shape[:2]
    depth = 8 if pixels.ndim == 2 else 24
    stride = (width * depth + 31) // 32 * 4
    ramp = bytes(v for grey in range(256) for v in (grey, grey, grey, 0)) if depth == 8 else b""
    offset = 54 + len(ramp)
    if offset + stride * height > _LARGEST_FILE:
        raise RecordError(Reason.ENCODE_FAILED, f"{width} x {height} pixels: BMP holds less than 4 GiB; choose png")
    dots = (0, 0) if metadata.dpi is None else per_metre(metadata.dpi)
    head = struct.pack("<2sIHHI", b"BM", offset + stride * height, 0, 0, offset)
    head += struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, 0, stride * height, *dots, len(ramp) // 4, 0)
    file = io.BytesIO()
    file.write(head + ramp)
    upwards = pixels[::-1] if depth == 8 else pixels[::-1, :, ::-1]
    for top in range(0, height, _BAND_ROWS):
        band = upwards[top : top + _BAND_ROWS]
        rows = np.zeros((len(band), stride), np.uint8)
        rows[:, : width * depth // 8] = band.reshape(len(band), -1)
        file.write(rows.data)
    return file.getvalue()
