"""The range and depth of samples, and luma: [0, 1] in float32, 0..255 in uint8, 0..65535 in uint16."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash
from numpy.typing import DTypeLike, NDArray

Samples = NDArray[Any]  # H x W x C, C in {1, 3}, uint8 | uint16 | float32
_LUMA_WEIGHTS = np.array([65.481, 128.553, 24.966])
LUMA_SWING = 219 / 255  # of luma_bt601 from black to white
DIGEST_PREFIX = "xxh3:"


def to_float(samples: Samples) -> NDArray[np.float32]:
    """uint8 / 255, uint16 / 65535, float32 as it is (not copied): float32, [0, 1]."""
    if samples.dtype == np.float32:
        return samples
    scaled: NDArray[np.float32] = np.divide(samples, np.float32(_top(samples.dtype)), dtype=np.float32)
    return scaled


def from_float(values: NDArray[Any], dtype: DTypeLike) -> Samples:
    """clip(values, 0, 1) * 255 or 65535, rounded half to even; float32: as it is, not clipped."""
    target = np.dtype(dtype)
    if target == np.float32:
        return values.astype(np.float32, copy=False)
    scaled: NDArray[np.float32] = np.clip(values, 0, 1, dtype=np.float32)
    scaled *= np.float32(_top(target))
    np.rint(scaled, out=scaled)
    return scaled.astype(target)


def to_u8(samples: Samples) -> NDArray[np.uint8]:
    """8-bit samples: uint16 / 257 and float32 * 255, rounded; uint8 as it is (not copied)."""
    if samples.dtype == np.uint8:
        return samples
    if samples.dtype == np.uint16:
        return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    eight: NDArray[np.uint8] = from_float(samples, np.uint8)
    return eight


def samples_digest(samples: Samples) -> str:
    """XXH3 of type, shape and samples, `xxh3:` and 128 bits as hex: equal digests are equal pictures, whatever file holds them.

    It finds what changed by accident, at the speed of memory; it is no seal against people.

    Args:
        samples: uint8, uint16 or float32 of any shape; hashed in C order and little endian.
    """
    digest = xxhash.xxh3_128(_described(samples.dtype, samples.shape))
    little_endian = samples if sys.byteorder == "little" else samples.astype(samples.dtype.newbyteorder("<"))
    digest.update(np.ascontiguousarray(little_endian).data)
    return DIGEST_PREFIX + digest.hexdigest()


@lru_cache(maxsize=64)
def _described(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    return f"{dtype.name} {'x'.join(map(str, shape))}\n".encode()


def _top(dtype: np.dtype[Any]) -> int:
    if dtype not in (np.uint8, np.uint16):
        raise TypeError(f"samples are {dtype}; expected uint8, uint16 or float32")
    return 255 if dtype == np.uint8 else 65535


def luma_bt601(rgb: NDArray[Any]) -> NDArray[Any]:
    """MATLAB's rgb2ycbcr luma (ITU-R BT.601, studio swing).

    Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255, with R, G, B in 0..255.

    Args:
        rgb: ... x 3; uint8, or float in [0, 1].

    Returns:
        Of the shape without the last axis: uint8, rounded, for uint8; for floats Y / 255 in [16/255, 235/255], same
        dtype.

    Raises:
        TypeError: other samples.
    """
    if rgb.shape[-1] != 3:
        raise TypeError(f"luma needs R, G, B on the last axis, the array is {rgb.shape}")
    if rgb.dtype == np.uint8:
        return np.floor(16 + rgb @ (_LUMA_WEIGHTS / 255) + 0.5).astype(np.uint8)
    if not np.issubdtype(rgb.dtype, np.floating):
        raise TypeError(f"samples are {rgb.dtype}; expected uint8 or float in [0, 1]")
    return (16 / 255 + rgb.astype(np.float64) @ (_LUMA_WEIGHTS / 255)).astype(rgb.dtype)
