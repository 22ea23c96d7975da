"""Point spread functions by formula. Each is float64, kh x kw, sums to 1 and is centred on its origin (kh // 2, kw // 2).

Angles are in degrees, counter-clockwise as seen on the screen, from the positive horizontal axis, as in MATLAB's
fspecial: rows run downwards, so a direction of angle t is (cos t) columns and (-sin t) rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import numpy as np
import scipy.special
from numpy.typing import NDArray

Kernel: TypeAlias = NDArray[np.float64]
T = TypeVar("T", bound=np.floating[Any])
_DUST = (
    1e-12  # of the largest element: nothing in float32, but denormal numbers take a processor a hundred times as long
)
_REACH = 4.0  # standard deviations, as far as an automatic size goes; SciPy's gaussian_filter goes as far


def identity() -> Kernel:
    """The blur that changes nothing."""
    return np.ones((1, 1))


def automatic_size(sigma: float) -> int:
    """Side of a kernel that reaches four standard deviations to each side."""
    return 2 * math.ceil(_REACH * sigma) + 1


def gaussian_taps(sigma: float, size: int = 0, shift: float = 0.0) -> NDArray[np.float64]:
    """exp(-(i + s)^2 / (2 sigma^2)), of sum 1; `size` taps, 0 for as many as matter. sigma 0 is a single 1.

    A shift s of 1/2 centres what each output reads half a pixel after it.
    """
    steps = _steps(size or automatic_size(sigma)) + (shift if sigma > 0 else 0.0)
    if sigma > 0:
        exponents = -0.5 * (steps / sigma) ** 2
        taps = np.exp(exponents - exponents.max())  # of a shifted and very narrow Gaussian all would be 0
    else:
        taps = (steps == 0).astype(np.float64)
    return normalised(without_dust(taps))


def ellipse(sigma_x: float, sigma_y: float, angle_deg: float, size: int) -> NDArray[np.float64]:
    """The squared distance  x^T S^-1 x  of each element from the origin; S has the axes sigma_x, sigma_y, turned."""
    size = size or automatic_size(max(sigma_x, sigma_y))
    columns, rows = _steps(size), -_steps(size)[:, np.newaxis]
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    along, across = cos * columns + sin * rows, cos * rows - sin * columns
    distance: NDArray[np.float64] = (along / sigma_x) ** 2 + (across / sigma_y) ** 2
    return distance


def gaussian(sigma_x: float, sigma_y: float, angle_deg: float, size: int = 0) -> Kernel:
    """exp(-d / 2) with d of `ellipse`."""
    return normalised(without_dust(np.exp(-0.5 * ellipse(sigma_x, sigma_y, angle_deg, size))))


def generalised_gaussian(sigma_x: float, sigma_y: float, angle_deg: float, beta: float, size: int = 0) -> Kernel:
    """exp(-d^beta / 2): pointed for beta below 1, flat-topped above."""
    return normalised(without_dust(np.exp(-0.5 * ellipse(sigma_x, sigma_y, angle_deg, size) ** beta)))


def plateau(sigma_x: float, sigma_y: float, angle_deg: float, beta: float, size: int = 0) -> Kernel:
    """1 / (1 + d^beta)."""
    return normalised(without_dust(1 / (1 + ellipse(sigma_x, sigma_y, angle_deg, size) ** beta)))


def circular_sinc(cutoff: float, size: int) -> Kernel:
    """The ideal low-pass filter, cut off at a circle of `cutoff` radians per pixel:  k = w J1(w r) / (2 pi r)."""
    steps = _steps(size)
    radius = np.hypot(steps, steps[:, np.newaxis])
    safe = np.where(radius == 0, 1.0, radius)
    values = cutoff * scipy.special.j1(cutoff * safe) / (2 * np.pi * safe)
    return normalised(np.where(radius == 0, cutoff**2 / (4 * np.pi), values))


def disk(radius_px: float) -> Kernel:
    """A uniform disk. Each element has exactly the share of the disk that falls onto its pixel, so the rim is smooth.

    A radius of up to half a pixel leaves the picture as it is.
    """
    (kernel,) = disks([radius_px])
    return kernel


def disks(radii_px: Sequence[float]) -> list[Kernel]:
    """`disk` of each of several radii, in half the time for each."""
    wide = [radius for radius in radii_px if radius > 0.5]
    drawn = iter(_disks(np.array(wide)) if wide else ())
    return [next(drawn) if radius > 0.5 else identity() for radius in radii_px]


def _disks(radii: NDArray[np.float64]) -> Iterator[Kernel]:
    halves = np.ceil(radii - 0.5).astype(int).tolist()
    edges = np.concatenate([[0.0], np.arange(max(halves) + 1) + 0.5])
    corners = _quarter_disk(edges[:, np.newaxis], edges, radii[:, np.newaxis, np.newaxis])
    strips = corners[:, 1:] - corners[:, :-1]
    quarters = np.maximum(strips[..., 1:] - strips[..., :-1], 0)
    quarters[:, 0] *= 2  # the first row and column are halves of their pixels
    quarters[..., 0] *= 2
    for quarter, half in zip(quarters, halves, strict=True):
        distances = np.abs(np.arange(-half, half + 1))
        yield normalised(quarter[distances[:, np.newaxis], distances])


def _quarter_disk(a: NDArray[np.float64], b: NDArray[np.float64], radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area that a disk about the origin shares with [0, a] x [0, b]."""

    def under_arc(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The integral of sqrt(r^2 - t^2) from 0 to x."""
        area: NDArray[np.float64] = x * np.sqrt(np.maximum(radius**2 - x * x, 0)) + radius**2 * np.arcsin(x / radius)
        return area / 2

    a, b = np.minimum(a, radius), np.minimum(b, radius)
    reached = np.minimum(np.sqrt(np.maximum(radius**2 - b * b, 0)), a)  # so far the arc runs above b
    return b * reached + under_arc(a) - under_arc(reached)


def line(length_px: float, angle_deg: float) -> Kernel:
    """A straight line of motion, one pixel wide and anti-aliased: MATLAB's fspecial('motion', length, angle).

    Lengths up to 1 leave the picture as it is.
    """
    return _line(length_px, angle_deg % 180).copy() if length_px > 1 else identity()


@lru_cache(maxsize=512)
def _line(length_px: float, angle_deg: float) -> Kernel:
    reach = (length_px - 1) / 2
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    half = (math.ceil(abs(reach * cos)) + 1, math.ceil(abs(reach * sin)) + 1)
    columns, rows = np.arange(-half[0], half[0] + 1), -np.arange(-half[1], half[1] + 1)[:, np.newaxis]
    along, across = cos * columns + sin * rows, cos * rows - sin * columns
    # Beyond the ends it is the distance from the end, not from the line.
    beyond = np.where(np.hypot(columns, rows) >= reach, reach - np.abs(along), 0.0)
    weights = np.maximum(1 - np.hypot(across, beyond), 0.0)
    weights[weights < 1e-12] = 0
    return normalised(cropped(weights))


def compose(first: Kernel, second: Kernel) -> Kernel:
    """One kernel for two blurs in a row: their full convolution."""
    if first.size == 1 or second.size == 1:
        return first * second
    first, second = odd_sided(first), odd_sided(second)
    if first.size < second.size:
        first, second = second, first
    height, width = second.shape
    around = np.zeros((first.shape[0] + 2 * height - 2, first.shape[1] + 2 * width - 2))
    around[height - 1 : height - 1 + first.shape[0], width - 1 : width - 1 + first.shape[1]] = first
    size = (first.shape[0] + height - 1, first.shape[1] + width - 1)
    windows = np.ndarray((*size, height, width), around.dtype, around, 0, around.strides * 2)
    composed: Kernel = windows.reshape(-1, second.size) @ second[::-1, ::-1].ravel()
    return composed.reshape(size)


def odd_sided(kernel: NDArray[T]) -> NDArray[T]:
    """With an empty row or column after an even side; the origin is in the very middle then, whichever way it is turned."""
    if kernel.shape[0] % 2 and kernel.shape[1] % 2:
        return kernel
    return np.pad(kernel, [(0, 1 - side % 2) for side in kernel.shape])


def cropped(kernel: NDArray[T]) -> NDArray[T]:
    """Without the empty rows and columns around; as much goes at each side, so that the origin stays in the middle."""
    if (kernel[0].any() or kernel[-1].any()) and (kernel[:, 0].any() or kernel[:, -1].any()):
        return kernel  # most are, and this is found in a quarter of the time
    rows, columns = np.flatnonzero(kernel.any(axis=1)), np.flatnonzero(kernel.any(axis=0))
    if not len(rows):
        return kernel
    top = min(int(rows[0]), kernel.shape[0] - 1 - int(rows[-1]))
    left = min(int(columns[0]), kernel.shape[1] - 1 - int(columns[-1]))
    return kernel[top : kernel.shape[0] - top, left : kernel.shape[1] - left]


def without_dust(kernel: NDArray[np.float64]) -> Kernel:
    """Elements far too small to be seen are 0: of a narrow Gaussian in a wide kernel nearly all."""
    return np.where(kernel < _DUST * kernel.max(), 0.0, kernel)


def normalised(kernel: NDArray[np.float64]) -> Kernel:
    """Of sum 1.

    Raises:
        ValueError: the sum is 0, negative or not finite.
    """
    total = float(kernel.sum())
    if not 0 < total < math.inf:
        raise ValueError(f"a kernel of sum {total:g} cannot be scaled to sum 1")
    return kernel / total


def _steps(size: int) -> NDArray[np.float64]:
    """Whole steps from the origin, which is element size // 2."""
    return np.arange(size, dtype=np.float64) - size // 2
