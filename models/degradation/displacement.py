"""Smooth random displacement: white noise filtered by a Gaussian, a few rows at a time to spare memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.degradation.taps import Size
from transforms.planes.banded import Band, apply_bands

_REACH = 5  # lattice points on either side; the Gaussian is below 4e-6 there


@dataclass(frozen=True, eq=False)
class SmoothField:
    """A Gaussian random field of mean 0 and variance 1 whose correlation at distance d is exp(-d^2 / (4 sigma^2)).

    That is white noise filtered by a Gaussian of standard deviation sigma. The noise stands on a lattice with spacing sigma
    instead of on every pixel: by Poisson's summation formula this changes the correlation by less than 2 exp(-pi^2) = 1e-4.
    """

    halfway: NDArray[np.float64]  # H x lattice columns
    columns: Band

    def rows(self, first: int, last: int) -> NDArray[np.float64]:
        """Rows first .. last - 1, each W long."""
        rows: NDArray[np.float64] = apply_bands(self.halfway[first:last], None, self.columns)
        return rows


def draw_field(rng: np.random.Generator, size: Size, sigma: float) -> SmoothField:
    """Draws a field for H x W pixels.

    Args:
        sigma: standard deviation of the filter in pixels, above 0.
    """
    rows, columns = _spread(size[0], sigma), _spread(size[1], sigma)
    lattice = rng.standard_normal((rows.length, columns.length))
    return SmoothField(apply_bands(lattice, rows, None), columns)


@lru_cache(maxsize=8)  # the two components of one displacement, of a square
def _spread(length: int, sigma: float) -> Band:
    places = np.arange(length) / sigma
    nodes = np.floor(places)[:, np.newaxis] + np.arange(1 - _REACH, _REACH + 1)
    weights = np.exp(-0.5 * np.square(places[:, np.newaxis] - nodes))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    indices = nodes.astype(np.int64) + _REACH - 1
    return Band(int(indices[-1, -1]) + 1, indices, weights)
