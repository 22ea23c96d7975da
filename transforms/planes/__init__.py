"""Planes: a picture as C x H x W float32, in NumPy or in PyTorch on any device, so that one code serves both.

Operators compute with the array API (https://data-apis.org/array-api), which NumPy and, through `array_api_compat`,
PyTorch offer. Constants are made in NumPy and handed over by `like`. Kernels take any number of leading dimensions,
`... x H x W`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import array_api_compat
import numpy as np
import scipy.fft
from numpy.typing import NDArray

Planes: TypeAlias = Any  # NDArray[np.float32] or torch.Tensor, C x H x W


def to_planes(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """H x W x C -> C x H x W, contiguous; the picture itself if it is grey."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def to_image(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """C x H x W -> H x W x C, contiguous."""
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def namespace(planes: Planes) -> Any:
    """The functions for these planes: `namespace(x).matmul(a, x)`."""
    return np if isinstance(planes, np.ndarray) else array_api_compat.array_namespace(planes)


def like(values: NDArray[Any], planes: Planes) -> Any:
    """A NumPy array as one of the planes' kind, on their device; floating numbers get the planes' type."""
    if isinstance(planes, np.ndarray):
        return values.astype(planes.dtype, copy=False) if values.dtype.kind == "f" else values
    there = namespace(planes).asarray(np.require(values, requirements=("C", "W")), device=planes.device)
    return there.to(planes.dtype) if values.dtype.kind == "f" else there


def to_numpy(planes: Planes) -> NDArray[np.float32]:
    """Planes of any kind as a NumPy array, for codecs and other libraries; `like` leads back."""
    if isinstance(planes, np.ndarray):
        return planes
    array: NDArray[np.float32] = planes.detach().cpu().numpy()
    return array


def fft_of(planes: Planes) -> Any:
    """The module with `rfft2(x, s=...)` and `irfft2(x, s=...)`: SciPy's keeps float32 and is faster than NumPy's."""
    return scipy.fft if isinstance(planes, np.ndarray) else namespace(planes).fft
