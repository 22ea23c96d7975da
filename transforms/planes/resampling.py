"""Resizing by named kernels: what MATLAB, Pillow, PyTorch and OpenCV call bicubic are four different things.

    matlab_*            imresize: antialiased when it shrinks; cubic with a = -0.5
    pillow_*            Image.resize: antialiased; near a border only the part of the kernel inside counts
    torch_antialias_*   interpolate(antialias=True, align_corners=False): the same weights as Pillow's
    opencv_linear, opencv_cubic     four or sixteen neighbours, never antialiased; cubic with a = -0.75. Also what
                        torch's interpolate does without antialias
    opencv_area         the mean over the area that a pixel covers; a variant of linear for a side that grows
    area                torch's "area": the plain mean of all pixels that a pixel touches
    scipy_spline        ndimage.zoom(order=3, grid_mode=True, mode="reflect"): the smoothest curve through the samples, a
                        cubic B-spline with prefilter; never antialiased
    nearest             the pixel whose centre is nearest

Each is a pair of banded matrices (`transforms.planes.banded`), so the adjoint is exact, border included.

Source: MATLAB's imresize.m (contributions); Pillow's Resample.c; OpenCV's resize.cpp; Keys, "Cubic convolution
interpolation", TASSP 1981 (the family of cubics); Unser, Aldroubi, Eden, "B-spline signal processing", TSP 1993.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from transforms.planes import Planes, namespace
from transforms.planes.banded import Band, apply_bands, apply_bands_adjoint
from transforms.planes.boundary import source_index

Values: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]
Size: TypeAlias = tuple[int, int]  # H, W

BORDERS = ("symmetric", "replicate")
STRIP = 512  # rows or columns that are in memory with 64 bits at a time


def cubic(x: Values, a: float) -> Values:
    """Keys' cubic convolution kernel, of support [-2, 2]."""
    x = np.abs(x)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))


def triangle(x: Values) -> Values:
    """Linear interpolation, of support [-1, 1]."""
    weights: Values = np.maximum(1 - np.abs(x), 0.0)
    return weights


def box(x: Values) -> Values:
    """1 on [-1/2, 1/2), as in MATLAB."""
    return ((x >= -0.5) & (x < 0.5)).astype(np.float64)


def lanczos(x: Values, lobes: int) -> Values:
    """sinc(x) sinc(x / n), of support [-n, n]."""
    weights: Values = np.where(np.abs(x) < lobes, np.sinc(x) * np.sinc(x / lobes), 0.0)
    return weights


def hamming(x: Values) -> Values:
    """A sinc under a Hamming window, of support [-1, 1], as in Pillow."""
    weights: Values = np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0.0)
    return weights


SPLINE_POLE = math.sqrt(3) - 2  # of the prefilter: it decays by 0.27 from one sample to the next
SPLINE_REACH = 16  # samples to each side: what lies beyond weighs less than 1e-9


def cardinal_spline(x: Values) -> Values:
    """The cubic spline that is 1 at 0 and 0 at the other whole numbers, cut off at +-16.

    eta(x) = sum_k c_k B(x - k) with the cubic B-spline B and the prefilter c_k = -6 z / (1 - z^2) z^|k|, z = sqrt(3) - 2.
    """
    x = np.abs(x)
    gain = -6 * SPLINE_POLE / (1 - SPLINE_POLE**2)
    nearest = np.floor(x)
    weights = np.zeros_like(x)
    for step in (-1, 0, 1, 2):  # all others are 0 there
        k = nearest + step
        weights += gain * SPLINE_POLE ** np.abs(k) * _cubic_b_spline(x - k)
    return np.where(x < SPLINE_REACH, weights, 0.0)


def _cubic_b_spline(x: Values) -> Values:
    """Of support [-2, 2]."""
    x = np.abs(x)
    outer = np.maximum(2 - x, 0) ** 3
    spline: Values = (outer - 4 * np.maximum(1 - x, 0) ** 3) / 6
    return spline


@dataclass(frozen=True)
class Grid:
    """One side of a resize: `length` samples in, `outputs` out, `step` input samples from one output to the next."""

    length: int
    outputs: int
    step: float

    def centres(self) -> Values:
        """Where the outputs' centres fall, counted from the centre of the first input sample."""
        centres: Values = (np.arange(self.outputs, dtype=np.float64) + 0.5) * self.step - 0.5
        return centres


Taps: TypeAlias = tuple[Indices, Values]  # outputs x taps each; the indices lie inside


def _interpolated(grid: Grid, weigh: Callable[[Values], Values], width: float, antialias: bool, border: str) -> Taps:
    """MATLAB's way: all taps count, those outside read what the border puts there."""
    stretch = max(grid.step, 1.0) if antialias else 1.0
    centres = grid.centres()
    count = math.ceil(width * stretch) + 2
    positions = np.floor(centres - width * stretch / 2)[:, np.newaxis] + np.arange(count)
    weights = weigh((centres[:, np.newaxis] - positions) / stretch)
    used = np.flatnonzero(weights.any(axis=0))
    kept = slice(int(used[0]), int(used[-1]) + 1)
    weights = weights[:, kept]
    indices = source_index(positions[:, kept], grid.length, border)
    return indices, weights / weights.sum(axis=1, keepdims=True)


def _clipped(grid: Grid, weigh: Callable[[Values], Values], width: float) -> Taps:
    """Pillow's way: taps outside do not count, and the rest is scaled up to sum 1."""
    stretch = max(grid.step, 1.0)
    centres = (np.arange(grid.outputs) + 0.5) * grid.step  # from the edge of the first sample
    first = np.maximum(np.floor(centres - width * stretch / 2 + 0.5), 0)
    last = np.minimum(np.floor(centres + width * stretch / 2 + 0.5), grid.length)
    positions = first[:, np.newaxis] + np.arange(int((last - first).max()))
    weights = weigh((positions + 0.5 - centres[:, np.newaxis]) / stretch)
    weights = np.where(positions < last[:, np.newaxis], weights, 0.0)
    indices = np.minimum(positions, grid.length - 1).astype(np.int64)
    return indices, weights / weights.sum(axis=1, keepdims=True)


def _nearest(grid: Grid) -> Taps:
    positions = np.floor((np.arange(grid.outputs) + 0.5) * grid.step).astype(np.int64)
    return np.minimum(positions, grid.length - 1)[:, np.newaxis], np.ones((grid.outputs, 1))


def _touched(grid: Grid) -> Taps:
    """The mean of every sample that the output's interval touches: torch's adaptive_avg_pool."""
    outputs = np.arange(grid.outputs)
    first, last = outputs * grid.length // grid.outputs, -(-(outputs + 1) * grid.length // grid.outputs)
    positions = first[:, np.newaxis] + np.arange(int((last - first).max()))
    weights = (positions < last[:, np.newaxis]) / (last - first)[:, np.newaxis]
    return np.minimum(positions, grid.length - 1), weights


def _covered(grid: Grid) -> Taps:
    """Each sample by the share of it that the output's interval covers; OpenCV's bilinear variant when it enlarges."""
    outputs = np.arange(grid.outputs)
    if grid.step < 1:
        left = np.floor(outputs * grid.step)
        share = outputs + 1 - (left + 1) / grid.step
        right_weight = np.where(share <= 0, 0.0, share - np.floor(share))
        indices = np.minimum(np.stack([left, left + 1], axis=1).astype(np.int64), grid.length - 1)
        return indices, np.stack([1 - right_weight, right_weight], axis=1)
    start = (outputs * grid.step)[:, np.newaxis]
    positions = np.floor(start) + np.arange(math.ceil(grid.step) + 1)
    weights = np.minimum(positions + 1, np.minimum(start + grid.step, grid.length)) - np.maximum(positions, start)
    weights = np.maximum(weights, 0.0)
    indices = np.minimum(positions, grid.length - 1).astype(np.int64)
    return indices, weights / weights.sum(axis=1, keepdims=True)


def _matlab(weigh: Callable[[Values], Values], width: float) -> Callable[[Grid, str], Taps]:
    return lambda grid, border: _interpolated(grid, weigh, width, True, border)


def _opencv(weigh: Callable[[Values], Values], width: float) -> Callable[[Grid, str], Taps]:
    return lambda grid, border: _interpolated(grid, weigh, width, False, "replicate")


def _pillow(weigh: Callable[[Values], Values], width: float) -> Callable[[Grid, str], Taps]:
    return lambda grid, border: _clipped(grid, weigh, width)


_KERNELS: dict[str, Callable[[Grid, str], Taps]] = {
    "matlab_bicubic": _matlab(lambda x: cubic(x, -0.5), 4),
    "matlab_bilinear": _matlab(triangle, 2),
    "matlab_box": _matlab(box, 1),
    "matlab_lanczos2": _matlab(lambda x: lanczos(x, 2), 4),
    "matlab_lanczos3": _matlab(lambda x: lanczos(x, 3), 6),
    "nearest": lambda grid, border: _nearest(grid),
    "area": lambda grid, border: _touched(grid),
    "pillow_bicubic": _pillow(lambda x: cubic(x, -0.5), 4),
    "pillow_bilinear": _pillow(triangle, 2),
    "pillow_box": _pillow(lambda x: box(-x), 1),
    "pillow_hamming": _pillow(hamming, 2),
    "pillow_lanczos": _pillow(lambda x: lanczos(x, 3), 6),
    "torch_antialias_bicubic": _pillow(lambda x: cubic(x, -0.5), 4),
    "torch_antialias_bilinear": _pillow(triangle, 2),
    "opencv_linear": _opencv(triangle, 2),
    "opencv_cubic": _opencv(lambda x: cubic(x, -0.75), 4),
    "opencv_area": lambda grid, border: _covered(grid),
    "scipy_spline": lambda grid, border: _interpolated(grid, cardinal_spline, 2 * SPLINE_REACH, False, "symmetric"),
}
RESIZE_KERNELS = tuple(_KERNELS)
MATLAB_KERNELS = tuple(name for name in RESIZE_KERNELS if name.startswith("matlab_"))


def resized(length: int, scale: float, kernel: str) -> int:
    """Samples that `length` become: rounded up by MATLAB's kernels, to the nearest (half up) by all others."""
    exact = length * scale
    # 30 * (1 / 3) is a hair above 10 in some spellings of the scale; MATLAB's own ceil forgives as much.
    outputs = math.ceil(exact - 1e-9) if kernel in MATLAB_KERNELS else math.floor(exact + 0.5)
    return max(outputs, 1)


@lru_cache(maxsize=256)
def resize_band(length: int, outputs: int, kernel: str, border: str, scale: float | None = None) -> Band:
    """The matrix that resizes one side.

    Args:
        length, outputs: samples before and after.
        kernel: one of RESIZE_KERNELS.
        border: "symmetric" or "replicate", what MATLAB's kernels read outside; the others have rules of their own.
        scale: outputs per input sample where that is not outputs / length; only MATLAB's kernels look at it.

    Raises:
        ValueError: unknown kernel or border.
    """
    if kernel not in _KERNELS or border not in BORDERS:
        raise ValueError(f"kernel {kernel!r}, border {border!r}: expected one of {RESIZE_KERNELS} and of {BORDERS}")
    own_step = scale is not None and kernel in MATLAB_KERNELS
    step = 1 / scale if own_step and scale is not None else length / outputs
    if outputs == length and step == 1:  # every kernel is 1 at 0 and 0 at the other whole numbers
        return Band(length, np.arange(length)[:, np.newaxis], np.ones((length, 1)))
    return Band(length, *_KERNELS[kernel](Grid(length, outputs, step), border))


def resize_bands(size: Size, to: Size, kernel: str, border: str, scale: float | None = None) -> tuple[Band, Band]:
    """The matrices of `resize_band` for rows and columns."""
    rows, columns = (resize_band(before, after, kernel, border, scale) for before, after in zip(size, to, strict=True))
    return rows, columns


def resize_planes(
    planes: Planes,
    *,
    scale: float | None = None,
    size: Size | None = None,
    kernel: str = "matlab_bicubic",
    border: str = "symmetric",
) -> Planes:
    """Resizes ... x H x W planes by a factor or to a size.

    Args:
        planes: floating point, NumPy or torch.
        scale: output pixels per input pixel of both sides; or
        size: H' and W' of the result.
        kernel: one of RESIZE_KERNELS.
        border: "symmetric" (MATLAB today) or "replicate" (MATLAB until about 2014); only MATLAB's kernels look at it.

    Raises:
        ValueError: not exactly one of scale and size; unknown kernel or border.

    Example:
        >>> resize_planes(np.ones((1, 6, 9), np.float32), scale=1 / 3).shape
        (1, 2, 3)
    """
    before = (int(planes.shape[-2]), int(planes.shape[-1]))
    return apply_bands(planes, *resize_bands(before, _target(before, scale, size, kernel), kernel, border, scale))


def resize_planes_adjoint(
    planes: Planes,
    before: Size,
    *,
    scale: float | None = None,
    kernel: str = "matlab_bicubic",
    border: str = "symmetric",
) -> Planes:
    """The adjoint of `resize_planes`, from ... x H' x W' back to the size `before`, H x W."""
    size = (int(planes.shape[-2]), int(planes.shape[-1]))
    return apply_bands_adjoint(planes, *resize_bands(before, size, kernel, border, scale))


def resize_planes_8bit(
    planes: Planes,
    *,
    scale: float | None = None,
    size: Size | None = None,
    kernel: str = "matlab_bicubic",
    border: str = "symmetric",
) -> Planes:
    """What MATLAB's imresize does to a uint8 picture: rounded and clipped to 8 bits after each of the two passes.

    Rows come first where both sides shrink alike, else the side that shrinks more. With border "replicate" these are
    the published low-resolution pictures of SelfExSR, bit for bit.

    Args:
        planes: ... x H x W, [0, 1]; they too are rounded and clipped first. For the others see `resize_planes`.
    """
    before = (int(planes.shape[-2]), int(planes.shape[-1]))
    after = _target(before, scale, size, kernel)
    bands = resize_bands(before, after, kernel, border, scale)
    rows_first = scale is not None or after[0] * before[1] <= after[1] * before[0]
    levels = _rounded(planes * 255)
    for axis in (-2, -1) if rows_first else (-1, -2):
        levels = _pass_8bit(levels, bands[axis], axis)
    return levels / 255


def _pass_8bit(levels: Planes, band: Band, axis: int) -> Planes:
    """One pass over levels of 0 to 255, rounded and clipped after it, strip by strip.

    Sums of 8-bit samples that end in exactly one half are common; in float32 some would fall to the wrong side.
    """
    xp, strips = namespace(levels), []
    for start in range(0, levels.shape[-3 - axis], STRIP):
        strip = slice(start, start + STRIP)
        exact = xp.asarray(levels[..., strip] if axis == -2 else levels[..., strip, :], dtype=xp.float64)
        resized_strip = apply_bands(exact, *((band, None) if axis == -2 else (None, band)))
        strips.append(xp.asarray(_rounded(resized_strip), dtype=levels.dtype))
    return xp.concat(strips, axis=-3 - axis)


def _rounded(levels: Planes) -> Planes:
    """Whole numbers from 0 to 255, halves up."""
    xp = namespace(levels)
    return xp.clip(xp.floor(levels + 0.5), 0.0, 255.0)


def _target(before: Size, scale: float | None, size: Size | None, kernel: str) -> Size:
    if size is not None and scale is None:
        return size
    if scale is None or size is not None:
        raise ValueError(f"scale {scale} and size {size}: give one of them")
    return resized(before[0], scale, kernel), resized(before[1], scale, kernel)
