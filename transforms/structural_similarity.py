"""The structural similarity index of Wang, Bovik, Sheikh and Simoncelli (2004), streamed over tiles.

Memory depends on the tile, never on the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

WINDOW_PX = 11
_HALO = WINDOW_PX - 1
_SIGMA_PX = 1.5
_K1, _K2 = 0.01, 0.03
# One product of matrices yields 16 filtered rows: the zeros of a taller band matrix cost more than fewer calls save
# (measured with OpenBLAS: 8, 16, 24, 32, 48). Each product also stays below the 2^18 multiplications from which OpenBLAS
# starts threads, which would fight with those of the operator.
_BLOCK_PX = 16
TILE_ROWS, TILE_COLUMNS = 64, 128

Band = NDArray[Any]  # rows x width x channels
# (top, bottom) -> these rows of both pictures, of equal shape and type
BandReader = Callable[[int, int], tuple[Band, Band]]


def gaussian_window() -> NDArray[np.float64]:
    """The 11 weights exp(-x^2 / (2 * 1.5^2)), normalised to the sum 1; the window is their outer product."""
    offsets = np.arange(WINDOW_PX) - WINDOW_PX // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA_PX**2))
    normalised: NDArray[np.float64] = weights / weights.sum()
    return normalised


def _band_matrix() -> NDArray[np.float32]:
    """T with T[i, i + k] = w[k]: T @ rows filters 26 rows to the 16 whose window is complete."""
    matrix = np.zeros((_BLOCK_PX, _BLOCK_PX + _HALO))
    for row in range(_BLOCK_PX):
        matrix[row, row : row + WINDOW_PX] = gaussian_window()
    return matrix.astype(np.float32)


_FILTER = _band_matrix()


def mean_structural_similarity(read_band: BandReader, shape: tuple[int, int, int], peak: float) -> float:
    """Mean SSIM over all complete windows and all channels.

    SSIM = (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2)), with Gaussian-weighted moments (11 x 11,
    sigma 1.5, population covariance), C1 = (0.01 peak)^2, C2 = (0.03 peak)^2, eq. 13 of the paper; valid region only.

    Args:
        read_band: gives rows of both pictures.
        shape: height, width, channels; height and width at least 11.
        peak: the data range.

    Returns:
        A value in [-1, 1]. Sums inside a tile are float32 about the tile's own mean, across tiles float64; the result agrees
        with float64 throughout to 1e-7 on photographs.
    """
    height, width, channels = shape
    tile = _Tile(channels, peak)
    total = 0.0
    for top in range(0, height - _HALO, TILE_ROWS):
        restored, reference = read_band(top, min(top + TILE_ROWS + _HALO, height))
        for left in range(0, width - _HALO, TILE_COLUMNS):
            columns = slice(left, left + TILE_COLUMNS + _HALO)
            total += tile.sum_similarity(restored[:, columns], reference[:, columns])
    return total / ((height - _HALO) * (width - _HALO) * channels)


class _Tile:
    """Working memory for tiles of up to 64 x 128 windows.

    With s = x + y and d = x - y, all that SSIM needs are the means and variances of s and d, four filtered planes instead of
    five, and rounding errors of the variance of s touch only the small term:
        2 mx my = (ms^2 - md^2) / 2      mx^2 + my^2 = (ms^2 + md^2) / 2
        2 sxy   = (vs - vd) / 2          sx^2 + sy^2 = (vs + vd) / 2
    """

    def __init__(self, channels: int, peak: float) -> None:
        rows, columns = TILE_ROWS + _HALO, TILE_COLUMNS + _HALO
        blocks_down, blocks_across = TILE_ROWS // _BLOCK_PX, TILE_COLUMNS // _BLOCK_PX
        self._channels = channels
        self._c1 = np.float32(2 * (_K1 * peak) ** 2)
        self._c2 = np.float32(2 * (_K2 * peak) ** 2)
        # s, d, s^2, d^2. Buffers are kept, because fresh pages for each tile cost more than the arithmetic.
        self._planes = np.zeros((4, rows, columns, channels), np.float32)
        self._second = np.empty((rows, columns, channels), np.float32)
        # Filtering down the rows writes the transpose, so that filtering along them is the same contiguous product.
        self._down = np.empty((4, blocks_down, columns * channels, _BLOCK_PX), np.float32)
        self._both = np.empty((4, blocks_down, blocks_across, _BLOCK_PX, channels * _BLOCK_PX), np.float32)
        plane, row, _, sample = self._planes.strides
        self._down_windows = as_strided(
            self._planes,
            (4, blocks_down, columns * channels, _BLOCK_PX + _HALO),
            (plane, _BLOCK_PX * row, sample, row),
            writeable=False,
        )
        plane, block, sample, _ = self._down.strides
        self._across_windows = as_strided(
            self._down,
            (4, blocks_down, blocks_across, _BLOCK_PX + _HALO, channels * _BLOCK_PX),
            (plane, block, _BLOCK_PX * channels * sample, channels * sample, self._down.itemsize),
            writeable=False,
        )

    def sum_similarity(self, restored: Band, reference: Band) -> float:
        """Sum of SSIM over the complete windows of a tile (rows x columns x channels, at most 74 x 138)."""
        offset = self._load(restored, reference)
        np.matmul(self._down_windows, _FILTER.T, out=self._down)
        np.matmul(_FILTER, self._across_windows, out=self._both)
        similarity = self._similarity(offset)
        self._clear_outside(similarity, restored.shape[0] - _HALO, restored.shape[1] - _HALO)
        return float(similarity.sum(dtype=np.float64))

    def _load(self, restored: Band, reference: Band) -> np.float32:
        """Fills the planes and returns the constant that was taken off s."""
        rows, columns, _ = restored.shape
        total, difference, total_squared, difference_squared = self._planes[:, :rows, :columns]
        second = self._second[:rows, :columns]
        total[...] = restored
        second[...] = reference
        np.subtract(total, second, out=difference)
        total += second
        # Variances do not change with a constant, and squares of small numbers keep their digits.
        offset = np.float32(np.rint(total[::4, ::4].mean(dtype=np.float64)))
        total -= offset
        np.multiply(total, total, out=total_squared)
        np.multiply(difference, difference, out=difference_squared)
        return offset

    def _similarity(self, offset: np.float32) -> NDArray[np.float32]:
        """SSIM of every window: blocks down x blocks across x 16 columns x (channels x 16 rows)."""
        mean_s, mean_d, spread_s, spread_d = self._both
        square = self._down.reshape(-1)[: mean_s.size].reshape(mean_s.shape)  # free by now
        np.multiply(mean_s, mean_s, out=square)
        spread_s -= square
        spread_s += self._c2
        np.multiply(mean_d, mean_d, out=mean_d)
        spread_d -= mean_d
        mean_s += offset
        mean_s *= mean_s
        mean_s += self._c1
        np.subtract(mean_s, mean_d, out=square)
        mean_s += mean_d
        mean_s *= np.add(spread_s, spread_d, out=mean_d)
        square *= np.subtract(spread_s, spread_d, out=spread_s)
        square /= mean_s
        return square

    def _clear_outside(self, similarity: NDArray[np.float32], rows: int, columns: int) -> None:
        """Zeroes what lies beyond the picture in a tile at its right or lower border."""
        down, across = divmod(rows, _BLOCK_PX), divmod(columns, _BLOCK_PX)
        view = similarity.reshape(*similarity.shape[:3], self._channels, _BLOCK_PX)
        if rows < TILE_ROWS:
            view[down[0], ..., down[1] :] = 0
            view[down[0] + 1 :] = 0
        if columns < TILE_COLUMNS:
            view[:, across[0], across[1] :] = 0
            view[:, across[0] + 1 :] = 0
