"""Arrays as npy files and back, at the speed of memory: for patches, `np.save` costs as much as their noise."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"\x93NUMPY\x01\x00"


@lru_cache(maxsize=64)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def npy_bytes(array: NDArray[Any]) -> bytes:
    """An array as an npy file (format 1.0, C order): the bytes of `np.save`."""
    array = np.ascontiguousarray(array)
    return b"".join((_header(array.dtype.str, array.shape), array.data))


@lru_cache(maxsize=64)
def _described(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(header))
    if fortran:
        raise ValueError("an npy file in Fortran order; C order is read here")
    return dtype, shape


def npy_array(data: bytes) -> NDArray[Any]:
    """The array of what `npy_bytes` wrote; a view of it, read only.

    Raises:
        ValueError: another version of npy, Fortran order, or too few bytes.
    """
    if data[:8] != _MAGIC:
        raise ValueError("no npy file of version 1.0")
    start = 10 + int.from_bytes(data[8:10], "little")
    dtype, shape = _described(bytes(data[8:start]))
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(data, dtype, count, start).reshape(shape)
