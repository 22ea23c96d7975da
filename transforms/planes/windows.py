"""Separable convolution of NumPy planes, of every output or of every n-th.

    y(j) = sum_t w(t) x(first + n j + t)          along the columns, then along the rows

All outputs have the same weights. So one small matrix serves all blocks of outputs, each of which reads a window of the
padded planes, and a single call multiplies them all: for a patch that takes half the time of a call for each block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.planes.boundary import fill_margins

# Outputs of a block: fewer keep BLAS waiting, more multiply mostly zeros. Measured for 7 to 25 taps and sides of 64 to 256.
ROWS_BLOCK, COLUMNS_BLOCK, DECIMATING_BLOCK = 8, 16, 8
CACHED_SAMPLES = (
    1 << 16
)  # planes that are larger together are filtered one by one, so that both passes stay in the cache


@dataclass(frozen=True, eq=False)
class Reach:
    """What the outputs of a filter read.

    Attributes:
        weights: of the samples that an output reads, from left to right; float64.
        first: the first sample that the first output reads; negative outside.
        step: samples from one output to the next.
        outputs: their number.
        boundary: what stands outside.
    """

    weights: NDArray[np.float64]
    first: int
    step: int
    outputs: int
    boundary: str

    def every(self, kept: range) -> Reach:
        """Only some of the outputs, at equal steps."""
        first = self.first + kept.start * self.step
        return Reach(self.weights, first, self.step * kept.step, len(kept), self.boundary)

    def matrix(self, outputs: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Weights of neighbouring outputs: outputs x samples that they read together."""
        side = len(self.weights)
        width = (outputs - 1) * self.step + side
        matrix = np.zeros((outputs, width), dtype)
        item = matrix.itemsize
        np.ndarray((outputs, side), dtype, matrix, 0, ((width + self.step) * item, item))[...] = self.weights
        return matrix

    def margins(self, length: int) -> tuple[int, int]:
        """How many samples beyond 0 .. length - 1 are read, before and after."""
        last = self.first + (self.outputs - 1) * self.step + len(self.weights)
        return max(0, -self.first), max(0, last - length)


def filtered(planes: NDArray[Any], rows: Reach, columns: Reach) -> NDArray[Any]:
    """Filters ... x H x W planes along both axes."""
    single = planes.reshape(-1, *planes.shape[-2:])
    result = np.empty((len(single), rows.outputs, columns.outputs), planes.dtype)
    together = max(1, CACHED_SAMPLES // max(1, planes.shape[-2] * planes.shape[-1]))
    for start in range(0, len(single), together):
        _filter(single[start : start + together], rows, columns, result[start : start + together])
    return result.reshape(*planes.shape[:-2], *result.shape[1:])


def _filter(planes: NDArray[Any], rows: Reach, columns: Reach, result: NDArray[Any]) -> None:
    count, height, width = planes.shape
    left, right = columns.margins(width)
    wide = np.empty((count, height, left + width + right), planes.dtype)
    wide[..., left : left + width] = planes
    fill_margins(wide, left, width, -1, columns.boundary)
    above, below = rows.margins(height)
    high = np.empty((count, above + height + below, columns.outputs), planes.dtype)
    _along_columns(wide, left + columns.first, columns, high[:, above : above + height])
    fill_margins(high, above, height, -2, rows.boundary)
    _along_rows(high, above + rows.first, rows, result)


def _along_columns(planes: NDArray[Any], first: int, reach: Reach, result: NDArray[Any]) -> None:
    """`planes` are contiguous; the first output reads their samples from `first` on."""
    size = COLUMNS_BLOCK if reach.step == 1 else DECIMATING_BLOCK
    matrix = np.ascontiguousarray(reach.matrix(size, planes.dtype).T)
    blocks, left = divmod(reach.outputs, size)
    (count, height, _), (plane, row, item) = planes.shape, planes.strides
    if blocks:
        shape, strides = (blocks, count, height, len(matrix)), (size * reach.step * item, plane, row, item)
        parts = result[..., : blocks * size].reshape(count, height, blocks, size)
        windows = np.ndarray(shape, planes.dtype, planes, first * item, strides)
        np.matmul(windows, matrix, out=parts.transpose(2, 0, 1, 3))
    if left:
        used = len(matrix) - (size - left) * reach.step
        start = first + blocks * size * reach.step
        np.matmul(planes[..., start : start + used], matrix[:used, :left], out=result[..., blocks * size :])


def _along_rows(planes: NDArray[Any], first: int, reach: Reach, result: NDArray[Any]) -> None:
    size = ROWS_BLOCK if reach.step == 1 else DECIMATING_BLOCK
    matrix = reach.matrix(size, planes.dtype)
    blocks, left = divmod(reach.outputs, size)
    (count, _, width), (plane, row, item) = planes.shape, planes.strides
    if blocks:
        shape, strides = (count, blocks, matrix.shape[1], width), (plane, size * reach.step * row, row, item)
        parts = result[:, : blocks * size].reshape(count, blocks, size, width)
        np.matmul(matrix, np.ndarray(shape, planes.dtype, planes, first * row, strides), out=parts)
    if left:
        used = matrix.shape[1] - (size - left) * reach.step
        start = first + blocks * size * reach.step
        np.matmul(matrix[:left, :used], planes[:, start : start + used], out=result[:, blocks * size :])
