"""The motion that blurred a picture, pixel by pixel: a patch classifier at all places, averaged.

    C(p, m) = sum_q g(p - q) f_m(q) / sum_q g(p - q),     m(p) = argmax_m C(p, m)

f_m(q) is the classifier's confidence in motion m for the window centred at q, g a Gaussian of 10 pixels. Windows lie inside the
picture. The field is found for cells of a stride's size and the same for all pixels of a cell.

With 5 rotations the picture is also turned by 6, 12, 18 and 24 degrees and classified again: an angle of 30 j in a picture that
was turned by t is 30 j - t in the picture as it is. That makes 361 motions of the 73.

The picture is worked on in tiles, so that memory follows from the tile alone. Free of torch.

Source: Sun, Cao, Xu and Ponce, "Learning a convolutional neural network for non-uniform motion blur removal", CVPR 2015, section
3 (without the Markov random field).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.degradation.motion_labels import ANGLES, LENGTHS, label_count, label_vectors
from transforms.errors import ConfigurationError

Array = NDArray[np.float32]
Points = NDArray[np.float64]
SIGMA_PX = 10.0
_TRUNCATE = 3.0  # standard deviations
_TILE_CELLS = 48


class Classifier(Protocol):
    """See `models.motion_classifier.MotionClassifier`."""

    window: int
    stride: int

    def confidences(self, planes: Array) -> Array: ...


@dataclass(frozen=True)
class MotionField:
    """A picture's estimated motion.

    Attributes:
        labels: H x W, int16, of `models.degradation.motion_labels`.
        motion: 2 x H x W, float32: to the right and down, in pixels; zero where nothing moves. Its opposite is the same blur.
        confidence: H x W, float32: C(p, m(p)), the share of all labels' confidence, [0, 1].
        rotations: 1 (73 labels) or more.
    """

    labels: NDArray[np.int16]
    motion: Array
    confidence: Array
    rotations: int


def estimate_motion(
    classifier: Classifier, planes: Array, rotations: int = 1, sigma_px: float = SIGMA_PX
) -> MotionField:
    """Finds the motion of every pixel.

    Args:
        planes: C x H x W, [0, 1], with the classifier's channels.
        rotations: angles that the picture is turned to, 30 / rotations degrees apart; 5 in the paper.
        sigma_px: of the Gaussian.

    Raises:
        ConfigurationError: the picture is smaller than a window, or `rotations` is no divisor of 30.
    """
    height, width = planes.shape[1:]
    if min(height, width) < classifier.window:
        raise ConfigurationError(
            f"the picture has {width} x {height} pixels; the classifier needs at least {classifier.window} both ways"
        )
    if rotations < 1 or 30 % rotations:
        raise ConfigurationError(f"rotations: {rotations} is no divisor of 30; use 1 or 5")
    labels, confidence = np.empty((height, width), np.int16), np.empty((height, width), np.float32)
    for top, left in _tiles(height, width, classifier.stride):
        turns = [_Turn(classifier, planes, sigma_px, (top, left), 30.0 * k / rotations) for k in range(rotations)]
        together = combined([turn.averaged() for turn in turns])
        best = together.argmax(0)
        for whole, cells in ((labels, best), (confidence, together.max(0))):
            pixels = cells.repeat(classifier.stride, 0).repeat(classifier.stride, 1)
            part = whole[top : top + pixels.shape[0], left : left + pixels.shape[1]]
            part[:] = pixels[: part.shape[0], : part.shape[1]]
    motion = np.moveaxis(label_vectors(rotations).astype(np.float32)[labels], 2, 0)
    return MotionField(labels, motion, confidence, rotations)


def combined(each: list[Array]) -> Array:
    """Confidences of 73 labels in pictures turned by 0, 30/R, ... degrees, R arrays of 73 x ..., as those of all 72 R + 1
    labels: (72 R + 1) x ..., of sum 1."""
    rotations, rest = len(each), each[0].shape[1:]
    moving = np.zeros((len(LENGTHS), ANGLES * rotations, *rest), np.float32)
    for turn, confidences in enumerate(each):
        angles = (np.arange(ANGLES) * rotations - turn) % (ANGLES * rotations)
        moving[:, angles] = confidences[1:].reshape(len(LENGTHS), ANGLES, *rest)
    still = np.mean([confidences[0] for confidences in each], axis=0)
    together = np.concatenate([still[np.newaxis], moving.reshape(label_count(rotations) - 1, *rest)])
    normalised: Array = together / np.maximum(together.sum(0), np.finfo(np.float32).tiny)
    return normalised


def turned(planes: Array, centre: tuple[float, float], half: int, angle_deg: float) -> Array:
    """A square of 2 `half` pixels around a point (row, column), of the picture turned counter-clockwise about it, by cubic
    splines; beyond its border the picture is mirrored."""
    offsets = np.arange(-half, half, dtype=np.float64)
    rows, columns = _source_of(*np.meshgrid(offsets, offsets, indexing="ij"), centre, angle_deg)
    top, left = math.floor(rows.min()) - _SPLINE, math.floor(columns.min()) - _SPLINE
    side = math.ceil(max(rows.max() - top, columns.max() - left)) + _SPLINE + 1
    inside = [
        _mirrored(np.arange(first, first + side), length)
        for first, length in zip((top, left), planes.shape[1:], strict=True)
    ]
    part = planes[:, inside[0][:, np.newaxis], inside[1]]
    if angle_deg == 0:
        return part[:, _SPLINE : _SPLINE + 2 * half, _SPLINE : _SPLINE + 2 * half]
    made = [ndimage.map_coordinates(plane, (rows - top, columns - left), order=3, mode="nearest") for plane in part]
    return np.stack(made).astype(np.float32)


_SPLINE = 12  # pixels after which a cubic spline has forgotten its border


def _source_of(rows: Points, columns: Points, centre: tuple[float, float], angle_deg: float) -> tuple[Points, Points]:
    """Where a point of the turned picture, relative to the centre, lies in the picture as it is."""
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return centre[0] + columns * sin + rows * cos, centre[1] + columns * cos - rows * sin


def _turned_place(rows: Points, columns: Points, angle_deg: float) -> tuple[Points, Points]:
    """Where a point of the picture, relative to what it is turned about, lies in the turned one."""
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return rows * cos - columns * sin, rows * sin + columns * cos


def _on_the_grid(point: tuple[float, float], stride: int, angle_deg: float) -> tuple[float, float]:
    """The point nearest by that lies at multiples of the stride in the picture turned about its first pixel: then the windows of
    all tiles lie on one grid."""
    places = _turned_place(np.array(point[:1], np.float64), np.array(point[1:], np.float64), angle_deg)
    rows, columns = (np.round(each / stride) * stride for each in places)
    row, column = _source_of(rows, columns, (0.0, 0.0), angle_deg)
    return row.item(), column.item()


def _mirrored(index: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    period = max(1, 2 * (length - 1))
    folded = np.abs(index) % period
    mirrored: NDArray[np.intp] = np.minimum(folded, period - folded)
    return mirrored


def _tiles(height: int, width: int, stride: int) -> Iterator[tuple[int, int]]:
    side = _TILE_CELLS * stride
    return ((top, left) for top in range(0, height, side) for left in range(0, width, side))


class _Turn:
    """One tile of the picture, turned by one angle."""

    def __init__(
        self, classifier: Classifier, planes: Array, sigma_px: float, corner: tuple[int, int], angle_deg: float
    ) -> None:
        self._classifier, self._planes, self._sigma = classifier, planes, sigma_px / classifier.stride
        self._angle = angle_deg
        height, width = planes.shape[1:]
        rows, columns = (
            min(_TILE_CELLS * classifier.stride, side - first)
            for side, first in zip((height, width), corner, strict=True)
        )
        self._cells = tuple(math.ceil(each / classifier.stride) for each in (rows, columns))
        self._corner = corner
        self._centre = _on_the_grid((corner[0] + rows / 2, corner[1] + columns / 2), classifier.stride, angle_deg)
        radians = math.radians(angle_deg)
        reach = max(rows, columns) / 2 + (int(_TRUNCATE * self._sigma + 0.5) + 3) * classifier.stride
        half = reach * (math.cos(radians) + math.sin(radians)) + classifier.window / 2
        self._half = math.ceil(half / classifier.stride) * classifier.stride

    def averaged(self) -> Array:
        """73 x h x w: C of the tile's cells."""
        square = turned(self._planes, self._centre, self._half, self._angle)
        found = self._classifier.confidences(square[np.newaxis])[0]
        inside = self._windows_inside(found.shape[1:])
        weighted = self._smoothed(np.concatenate([found * inside, inside[np.newaxis]]))
        at = self._cells_on_the_grid()
        sampled = np.stack([ndimage.map_coordinates(each, at, order=1, mode="nearest") for each in weighted])
        averaged: Array = (sampled[:-1] / np.maximum(sampled[-1], 1e-6)).astype(np.float32)
        return averaged

    def _middle(self, index: Points) -> Points:
        """Centres of windows relative to the tile's centre, in pixels of the turned picture."""
        middle: Points = index * self._classifier.stride - self._half + (self._classifier.window - 1) / 2
        return middle

    def _windows_inside(self, shape: tuple[int, ...]) -> Array:
        """h x w: 1 where all of a window lies in the picture."""
        rows, columns = np.meshgrid(*(self._middle(np.arange(each, dtype=np.float64)) for each in shape), indexing="ij")
        inside = np.ones(shape, np.bool_)
        reach = (self._classifier.window - 1) / 2
        for down in (-reach, reach):
            for across in (-reach, reach):
                points = _source_of(rows + down, columns + across, self._centre, self._angle)
                for point, length in zip(points, self._planes.shape[1:], strict=True):
                    inside &= (point > -0.5) & (point < length - 0.5)
        return inside.astype(np.float32)

    def _smoothed(self, maps: Array) -> Array:
        smoothed: Array = ndimage.gaussian_filter(
            maps, (0, self._sigma, self._sigma), mode="constant", truncate=_TRUNCATE
        )
        return smoothed

    def _cells_on_the_grid(self) -> tuple[Points, Points]:
        """Where the tile's cells lie on the grid of windows, as fractional indices."""
        stride = self._classifier.stride
        down, across = (
            first + stride * np.arange(count) + (stride - 1) / 2 - middle
            for first, count, middle in zip(self._corner, self._cells, self._centre, strict=True)
        )
        rows, columns = np.meshgrid(down, across, indexing="ij")
        turned_rows, turned_columns = _turned_place(rows, columns, self._angle)
        first = float(self._middle(np.zeros(1))[0])
        return (turned_rows - first) / stride, (turned_columns - first) / stride
