"""Linear maps that differ from pixel to pixel: each output pixel is a weighted sum of a few input pixels.

    y(p) = sum_t w_t(p) x(i_t(p))            adjoint:  x(q) = sum over all (t, p) with i_t(p) = q of w_t(p) y(p)

Warps by bilinear sampling, fields of motion and turbulence are such maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.degradation.boundary import OUTSIDE, source_index
from models.degradation.planes import Planes, like, namespace


@dataclass(frozen=True, eq=False)
class Taps:
    """A sparse map from pictures of H x W to pictures of H' x W'.

    Attributes:
        size: H and W of the input.
        indices: T x H' x W', row * W + column of the input pixel.
        weights: T x H' x W', float32; 0 where a tap counts nothing.
    """

    size: tuple[int, int]
    indices: NDArray[np.int64]
    weights: NDArray[np.float32]


def bilinear(rows: NDArray[Any], columns: NDArray[Any], size: tuple[int, int], boundary: str) -> Taps:
    """Taps that read a picture of `size` at fractional positions; pixel centres have whole coordinates.

    Args:
        rows, columns: H' x W', in pixels from the centre of the top left one.
        boundary: what is read outside; not "valid".
    """
    top, left = np.floor(rows), np.floor(columns)
    down, right = (rows - top).astype(np.float32), (columns - left).astype(np.float32)
    indices, weights = [], []
    for row_step, row_weight in ((0, 1 - down), (1, down)):
        row_index = source_index(top + row_step, size[0], boundary)
        for column_step, column_weight in ((0, 1 - right), (1, right)):
            column_index = source_index(left + column_step, size[1], boundary)
            outside = (row_index == OUTSIDE) | (column_index == OUTSIDE)
            indices.append(np.where(outside, 0, row_index * size[1] + column_index))
            weights.append(np.where(outside, np.float32(0), row_weight * column_weight))
    return Taps(size, np.stack(indices), np.stack(weights).astype(np.float32))


def joined(several: list[Taps], shares: list[float]) -> Taps:
    """The weighted sum of maps of the same sizes, as one."""
    weights = [np.float32(share) * taps.weights for taps, share in zip(several, shares, strict=True)]
    return Taps(several[0].size, np.concatenate([taps.indices for taps in several]), np.concatenate(weights))


def gather(planes: Planes, taps: Taps) -> Planes:
    """Applies the map to each of ... x H x W planes."""
    xp = namespace(planes)
    flat = xp.reshape(planes, (*planes.shape[:-2], taps.size[0] * taps.size[1]))
    result: Planes = None
    for indices, weights in zip(taps.indices, taps.weights, strict=True):
        read = xp.take(flat, like(indices.reshape(-1), planes), axis=-1)
        term = xp.reshape(read, (*planes.shape[:-2], *indices.shape)) * like(weights, planes)
        result = term if result is None else result + term
    return result


def scatter(planes: Planes, taps: Taps) -> Planes:
    """The adjoint of `gather`."""
    pixels = taps.size[0] * taps.size[1]
    channels = planes.reshape(-1, *planes.shape[-2:])
    spread = [_spread(channel, taps, pixels) for channel in channels]
    return namespace(planes).stack(spread).reshape(*planes.shape[:-2], *taps.size)


def _spread(channel: Planes, taps: Taps, pixels: int) -> Planes:
    if isinstance(channel, np.ndarray):
        weighted = taps.weights * channel
        return np.bincount(taps.indices.ravel(), weighted.ravel(), pixels).astype(channel.dtype)
    weighted = like(taps.weights, channel) * channel
    indices = like(taps.indices, channel).reshape(-1)
    return channel.new_zeros(pixels).index_add_(0, indices, weighted.reshape(-1))
