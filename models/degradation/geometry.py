"""Changes of a picture's geometry: each output pixel reads the picture where an exact map sends it.

    y(p) = x(f(p)),    and back where f has an inverse:    x(q) = y(f^-1(q))

Linear in the picture. The result has the picture's size. Coordinates count from the picture's centre, ((W - 1) / 2,
(H - 1) / 2): x to the right and y downwards, in pixels.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.degradation.distributions import Drawable
from models.degradation.protocol import LinearOperator, Parameters, Quantity, Shape
from models.degradation.taps import Size
from models.degradation.warps import FilledWord, Places, Reading, Reals, SamplingWord, inside, warp, warp_adjoint
from transforms.planes import Planes

Coordinates: TypeAlias = Reals
Map: TypeAlias = Callable[[Coordinates, Coordinates], tuple[Coordinates, Coordinates]]  # x (1 x W), y (n x 1) -> x', y'
Matrix: TypeAlias = Reals  # 3 x 3, of homogeneous coordinates (x, y, 1)


@dataclass(frozen=True)
class Geometry(LinearOperator):
    """Base: an operator that is its map, with the settings `sampling` and `boundary`."""

    @staticmethod
    @abstractmethod
    def source(parameters: Parameters, size: Size) -> Map:
        """f: where an output pixel reads the picture."""

    @staticmethod
    @abstractmethod
    def target(parameters: Parameters, size: Size) -> Map:
        """f^-1: where a pixel of the picture is to be found in the output."""

    @classmethod
    def apply(cls, planes: Planes, parameters: Parameters) -> Planes:
        size = (int(planes.shape[-2]), int(planes.shape[-1]))
        reading = reading_of(cls.source(parameters, size), size)
        return warp(planes, reading, size, parameters["boundary"], parameters["sampling"])

    @classmethod
    def adjoint(cls, planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        reading = reading_of(cls.source(parameters, shape[:2]), shape[:2])
        return warp_adjoint(planes, reading, shape[:2], parameters["boundary"], parameters["sampling"])

    @classmethod
    def inverse(cls, planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        """The picture back from `apply`'s result, of `shape`. It is right where `valid_mask` says so."""
        reading = reading_of(cls.target(parameters, shape[:2]), shape[:2])
        return warp(planes, reading, shape[:2], parameters["boundary"], parameters["sampling"])

    @classmethod
    def valid_mask(cls, parameters: Parameters, shape: Shape) -> NDArray[np.bool_]:
        """Which pixels of the picture `apply`'s result shows, H x W: there `inverse` finds them again."""
        return inside(reading_of(cls.target(parameters, shape[:2]), shape[:2]), shape[:2], shape[:2])

    @classmethod
    def arrays(cls, shape: Shape, parameters: Parameters) -> Mapping[str, NDArray[Any]]:
        """The mask is 0 where the result shows what lies outside the picture."""
        shown = inside(reading_of(cls.source(parameters, shape[:2]), shape[:2]), shape[:2], shape[:2])
        return {"mask": shown.astype(np.uint8) * np.uint8(255)}


def reading_of(mapped: Map, size: Size) -> Reading:
    """A map about the centre as the places of rows."""
    centre_x, centre_y = (size[1] - 1) / 2, (size[0] - 1) / 2
    across = (np.arange(size[1]) - centre_x)[np.newaxis, :]

    def reading(first: int, last: int) -> Places:
        down = (np.arange(first, last) - centre_y)[:, np.newaxis]
        columns, rows = mapped(across, down)
        return rows + centre_y, columns + centre_x

    return reading


def affine_matrix(
    rotation_deg: float, scale: float, shear: float, translation: tuple[float, float] = (0.0, 0.0)
) -> Matrix:
    """Shears (x + shear y), then scales, turns counter-clockwise as seen on the screen, and moves to the right and downwards."""
    turn = math.radians(rotation_deg)
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    return np.array([[cos, sin + shear * cos, translation[0]], [-sin, cos - shear * sin, translation[1]], [0, 0, 1]])


def homography(matrix: Matrix) -> Map:
    """(x, y, 1) -> matrix (x, y, 1), divided by its third element."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()

    def mapped(x: Coordinates, y: Coordinates) -> tuple[Coordinates, Coordinates]:
        first, second = a * x + (b * y + c), d * x + (e * y + f)
        if g == 0 and h == 0:
            return (first, second) if i == 1 else (first / i, second / i)
        depth = g * x + (h * y + i)
        first /= depth
        second /= depth
        return first, second

    return mapped


@dataclass(frozen=True)
class AffineJitter(Geometry):
    """A small turn, change of scale, shear and shift about the centre:  y(M p + d) = x(p),  M = R(t) s [1 h; 0 1].

    For scales near 1: nothing smooths the picture before it becomes smaller; `resize` does.

    Source: geometric jitter of Hradiš et al., "Convolutional Neural Networks for Direct Text Deblurring", BMVC 2015, section 4:
    turns of N(0, 1 degree), bicubic.
    """

    name: ClassVar[str] = "affine_jitter"
    rotation_deg: Annotated[
        Drawable, Quantity(meaning="turn in degrees, counter-clockwise", minimum=-360, maximum=360)
    ] = 0
    scale: Annotated[Drawable, Quantity(meaning="enlargement; the frame stays", minimum=0.1, maximum=10)] = 1
    shear: Annotated[
        Drawable, Quantity(meaning="shift to the right of each row, in pixels per row", minimum=-2, maximum=2)
    ] = 0
    shift_x_px: Annotated[Drawable, Quantity(meaning="shift to the right in pixels")] = 0
    shift_y_px: Annotated[Drawable, Quantity(meaning="shift downwards in pixels")] = 0
    sampling: SamplingWord = "bilinear"
    boundary: FilledWord = "reflect"

    @staticmethod
    def source(parameters: Parameters, size: Size) -> Map:
        return homography(np.linalg.inv(_affine(parameters)))

    @staticmethod
    def target(parameters: Parameters, size: Size) -> Map:
        return homography(_affine(parameters))


def _affine(parameters: Parameters) -> Matrix:
    p = parameters
    return affine_matrix(p["rotation_deg"], p["scale"], p["shear"], (p["shift_x_px"], p["shift_y_px"]))
