"""Random fields and lines for marks that look natural: uneven light, paper, stains, tears and cracks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from transforms.planes.banded import Band, apply_bands

_FAR = np.float32(1e12)  # a squared distance
_CHUNK = 1 << 18  # pixels of discs laid at once: bounds the memory of pictures with very many


def smooth_field(rng: np.random.Generator, size: tuple[int, int], cell: float) -> NDArray[np.float32]:
    """A smooth Gaussian random field, H x W: at each pixel of mean 0 and variance 1, alike within about `cell` pixels.

    White noise on a coarse grid, weighted by cubic B-splines whose squared weights sum to 1 at each pixel.

    Args:
        size: H, W.
        cell: distance of the grid's points in pixels, at least 1.
    """
    rows, columns = _splines(size[0], cell), _splines(size[1], cell)
    coarse = rng.standard_normal((rows.length, columns.length), dtype=np.float32)
    field: NDArray[np.float32] = apply_bands(coarse, rows, columns)
    return field


@lru_cache(maxsize=8)
def _splines(length: int, cell: float) -> Band:
    positions = (np.arange(length) + 0.5) / cell
    first = np.floor(positions)
    t = positions - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    indices = first.astype(np.int64)[:, np.newaxis] + np.arange(4)
    return Band(int(indices.max()) + 1, indices, weights)


def fractal_line(rng: np.random.Generator, points: int, decay: float) -> NDArray[np.float64]:
    """Offsets of a jagged line from the straight one between its ends, by midpoint displacement.

    Args:
        points: how many at least; the result has 2^n + 1, of which the first and the last are 0.
        decay: each level's standard deviation over that of the level before, which is 1 for the first; 0.5 gives a
            smooth line, 0.7 a ragged one.

    Source: Fournier, Fussell and Carpenter, "Computer rendering of stochastic models", CACM 1982.
    """
    line, deviation = np.zeros(2), 1.0
    while len(line) < points:
        finer = np.empty(2 * len(line) - 1)
        finer[::2] = line
        finer[1::2] = (line[:-1] + line[1:]) / 2 + deviation * rng.standard_normal(len(line) - 1)
        line, deviation = finer, deviation * decay
    return line


def stamp(
    coverage: NDArray[np.float32],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    radii: NDArray[np.float64],
    strengths: NDArray[np.float64],
) -> None:
    """Lays anti-aliased discs on `coverage`, H x W, in place; where discs overlap, the strongest counts.

    Lines of any course and width are many discs. A line thinner than a pixel covers it in proportion to its width.

    Args:
        coverage: 0 to 1.
        rows, columns, radii: of N discs, in pixels from the centre of the top left one.
        strengths: coverage inside each disc, 0 to 1.
    """
    reaches = np.ceil(np.maximum(radii, 1)).astype(np.int64)  # pixels whose centre is within radius + 1/2 of the disc's
    for reach in np.unique(reaches).tolist():
        alike = np.nonzero(reaches == reach)[0]
        count = max(1, _CHUNK // (2 * reach + 1) ** 2)
        for start in range(0, len(alike), count):
            part = alike[start : start + count]
            _stamp(coverage, reach, rows[part], columns[part], radii[part], strengths[part])


def _stamp(
    coverage: NDArray[np.float32],
    reach: int,
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    radii: NDArray[np.float64],
    strengths: NDArray[np.float64],
) -> None:
    height, width = coverage.shape
    steps = np.arange(-reach, reach + 1)
    near_rows = np.rint(rows).astype(np.int64)[:, np.newaxis] + steps
    near_columns = np.rint(columns).astype(np.int64)[:, np.newaxis] + steps
    down = (near_rows - rows[:, np.newaxis]).astype(np.float32)
    right = (near_columns - columns[:, np.newaxis]).astype(np.float32)
    down *= down
    right *= right
    down[(near_rows < 0) | (near_rows >= height)] = _FAR  # outside: too far to be covered
    right[(near_columns < 0) | (near_columns >= width)] = _FAR
    laid = down[:, :, np.newaxis] + right[:, np.newaxis, :]
    np.sqrt(laid, out=laid)
    radii = radii.astype(np.float32)
    np.subtract((radii + np.float32(0.5))[:, np.newaxis, np.newaxis], laid, out=laid)
    np.minimum(laid, np.minimum(2 * radii, 1)[:, np.newaxis, np.newaxis], out=laid)
    laid *= strengths.astype(np.float32)[:, np.newaxis, np.newaxis]
    index = (near_rows * width)[:, :, np.newaxis] + near_columns[:, np.newaxis, :]
    counts = laid > 0
    np.maximum.at(coverage.reshape(-1), index[counts], laid[counts])
