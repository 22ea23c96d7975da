"""NumPy arrays (npy format 1.0 to 3.0) as pictures: H x W or H x W x C, uint8, uint16, or float32 in [0, 1] in principle."""

from __future__ import annotations

import ast
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.images.header import Header, Metadata, Pixels, corrupt, cut, unsupported
from transforms.images.options import EncodeOptions

NAME = "npy"
HOLDS_16_BIT = HOLDS_ALPHA = False  # it holds float32, which `transforms.pictures` knows
HOLDS_GREY = True
LARGEST_SIDE = (1 << 31) - 1
_TYPES = ("|u1", "<u2", ">u2", "<f4", ">f4")
_LONGEST_HEADER = 10_000  # NumPy's own limit: longer literals can exhaust the parser


def read_header(data: bytes) -> Header:
    """Reads the header; evaluates nothing but literals, so no pickle can hide.

    Raises:
        RecordError: `TRUNCATED`, `CORRUPT`, `UNSUPPORTED` (another type, or not H x W or H x W x C with C of 1 or 3).
    """
    start = 10 if data[6:7] == b"\1" else 12
    end = start + int.from_bytes(data[8:start], "little")
    if max(start, end) > len(data):
        raise cut("its header")
    try:
        described = ast.literal_eval(data[start : min(end, start + _LONGEST_HEADER)].decode("latin-1").strip())
        shape, dtype, fortran = tuple(described["shape"]), described["descr"], bool(described["fortran_order"])
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        raise corrupt("the npy header can't be read") from None
    if dtype not in _TYPES:
        raise unsupported(f"npy with samples {dtype!r}: uint8, uint16 and float32 in [0, 1] are read")
    if len(shape) not in (2, 3) or not all(isinstance(n, int) for n in shape) or shape[2:] not in ((), (1,), (3,)):
        raise unsupported(f"npy of shape {shape}: H x W or H x W x C with C of 1 or 3 is read")
    if shape[0] <= 0 or shape[1] <= 0:
        raise corrupt(f"size {shape[1]} x {shape[0]}")
    item_bytes = np.dtype(dtype).itemsize
    header = Header("npy", shape[1], shape[0], channels=shape[2] if len(shape) == 3 else 1, bits=8 * item_bytes)
    header.detail.update(offset=end, dtype=dtype, order="F" if fortran else "C", shape=shape)
    if end + item_bytes * shape[0] * shape[1] * header.channels > len(data):
        raise cut("its samples")
    return header


def decode(header: Header, data: bytes) -> Pixels:
    """See `Format.decode`."""
    detail = header.detail
    count = header.width * header.height * header.channels
    stored = np.frombuffer(data, detail["dtype"], count, detail["offset"]).reshape(
        detail["shape"], order=detail["order"]
    )
    native = stored.dtype.newbyteorder("=")
    samples = np.array(stored, native, order="C").reshape(header.height, header.width, header.channels)
    if native == np.float32 and not np.isfinite(samples).all():
        raise corrupt("the array holds NaN or infinity")
    return Pixels(samples)


def encode(pixels: NDArray[Any], metadata: Metadata, options: EncodeOptions, notes: list[str]) -> bytes:
    """See `Format.encode`."""
    if any(block is not None for block in (metadata.icc, metadata.exif, metadata.xmp, metadata.dpi)):
        notes.append("metadata dropped: npy has none")
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(pixels, "<f4"), version=(1, 0), allow_pickle=False)
    return file.getvalue()
