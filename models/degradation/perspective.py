"""Perspective: a flat page that is not held square to the camera, or whose corners have moved."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.degradation.distributions import Distribution, Drawable
from models.degradation.geometry import Geometry, Map, Matrix, affine_matrix, homography
from models.degradation.protocol import Parameters, Quantity, Shape
from models.degradation.taps import Size
from models.degradation.warps import FilledWord, SamplingWord

LEAST_DEPTH = 0.2  # over the depth of the centre; nearer to the camera's plane the picture is stretched beyond use


def quadrilateral_matrix(size: Size, corners: NDArray[np.float64]) -> Matrix:
    """The homography that moves the four corners of a picture: top left, top right, bottom right, bottom left.

    Args:
        corners: 4 x 2, shifts to the right and downwards, over the lengths of the sides.

    Source: Heckbert, "Fundamentals of Texture Mapping and Image Warping", 1989, section 2.2.3; solved as 8 equations.
    """
    half = np.maximum(np.array([size[1] - 1, size[0] - 1]) / 2, 0.5)
    matrix: Matrix = _quadrilaterals(half, (2 * half * corners)[np.newaxis])[0]
    return matrix


def _quadrilaterals(half: NDArray[np.float64], shifts: NDArray[np.float64]) -> NDArray[np.float64]:
    """N homographies for the corners (+-half) and N x 4 x 2 shifts of them."""
    before = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    after = before + shifts
    equations = np.zeros((len(shifts), 2, 4, 8))
    for axis in (0, 1):
        equations[:, axis, :, 3 * axis : 3 * axis + 2] = before
        equations[:, axis, :, 3 * axis + 2] = 1
        equations[:, axis, :, 6:] = -after[:, :, axis, np.newaxis] * before
    values = after.transpose(0, 2, 1).reshape(-1, 8, 1)
    found = np.linalg.solve(equations.reshape(-1, 8, 8), values)[..., 0]
    return np.concatenate([found, np.ones((len(found), 1))], axis=1).reshape(-1, 3, 3)


def turned_plane_matrix(
    size: Size, pitch_deg: float, yaw_deg: float, roll_deg: float, field_of_view_deg: float
) -> Matrix:
    """How a camera that looks at a flat page sees it after the page has turned about its centre.

    The page stands at the distance at which its diagonal fills the field of view.  p' = f (R p)_xy / (f + (R p)_z) with the
    focal length f = R0 / tan(fov / 2) in pixels, R0 being half the diagonal.

    Args:
        pitch_deg: about the horizontal axis; the top goes away from the camera.
        yaw_deg: about the vertical axis; the right side goes away.
        roll_deg: in its plane, first of the three, counter-clockwise.
    """
    pitch, yaw = math.radians(pitch_deg), math.radians(yaw_deg)
    focal = math.hypot(*size) / 2 / math.tan(math.radians(field_of_view_deg) / 2)
    # Rows are x, y and depth of the turned page, which has no depth before.
    about_vertical = np.array([[math.cos(yaw), 0], [0, 1], [math.sin(yaw), 0]])
    about_horizontal = np.array(
        [[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]]
    )
    turned = about_horizontal @ about_vertical @ affine_matrix(roll_deg, 1, 0)[:2, :2]
    matrix = np.zeros((3, 3))
    matrix[:2, :2] = turned[:2]
    matrix[2, :2] = turned[2] / focal
    matrix[2, 2] = 1
    return matrix


@dataclass(frozen=True)
class PerspectiveJitter(Geometry):
    """A page that is not held square to the camera,  y(H p) = x(p):  H first turns it, then moves its corners.

    It turns in its plane (roll) and out of it (pitch and yaw), and each corner moves by up to `corner_shift` of the sides,
    evenly spread. All are 0 unless they are set.

    Raises:
        ValueError: settings with which a part of the picture could come to lie near or behind the camera's plane, where the
            map has no inverse.

    Source: Hradiš et al., "Convolutional Neural Networks for Direct Text Deblurring", BMVC 2015, section 4: out-of-plane
    turns of N(0, 4 degrees) and in-plane turns of N(0, 1 degree), bicubic.
    """

    name: ClassVar[str] = "perspective_jitter"
    pitch_deg: Annotated[Drawable, Quantity(meaning="turn in degrees; the top goes away", minimum=-60, maximum=60)] = 0
    yaw_deg: Annotated[
        Drawable, Quantity(meaning="turn in degrees; the right side goes away", minimum=-60, maximum=60)
    ] = 0
    roll_deg: Annotated[
        Drawable, Quantity(meaning="turn in the plane in degrees, counter-clockwise", minimum=-360, maximum=360)
    ] = 0
    corner_shift: Annotated[
        Drawable,
        Quantity(meaning="largest shift of a corner along a side, over the side's length", minimum=0, maximum=0.1),
    ] = 0
    field_of_view_deg: Annotated[
        Drawable, Quantity(meaning="angle at which the camera sees the diagonal, in degrees", minimum=1, maximum=120)
    ] = 50
    sampling: SamplingWord = "bilinear"
    boundary: FilledWord = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        pitch, yaw, view = (
            math.radians(_largest(each)) for each in (self.pitch_deg, self.yaw_deg, self.field_of_view_deg)
        )
        away = math.acos(math.cos(pitch) * math.cos(yaw))  # from the camera's axis to the page's normal
        reach = _reach(_largest(self.corner_shift)) * math.tan(view / 2)
        if (depth := 1 - math.tan(away) * reach) < LEAST_DEPTH:
            raise ValueError(
                f"pitch_deg, yaw_deg: a page that turns by up to {math.degrees(away):.3g} degrees and is seen at "
                f"{math.degrees(view):.3g} reaches the camera's plane (depth {depth:.2g}, expected at least {LEAST_DEPTH}); "
                "narrow the turns, field_of_view_deg or corner_shift"
            )

    def sample(self, rng: np.random.Generator, shape: Shape, clean_shape: Shape | None = None) -> Parameters:
        """Draws the settings, then the corners: top left, top right, bottom right, bottom left, each (x, y) over the sides."""
        parameters = super().sample(rng, shape, clean_shape)
        corners: list[Any] = rng.uniform(-1, 1, (4, 2)).tolist()
        reach = parameters["corner_shift"]
        return {**parameters, "corners": [[reach * x, reach * y] for x, y in corners]}

    @staticmethod
    def source(parameters: Parameters, size: Size) -> Map:
        return homography(np.linalg.inv(_homography(parameters, size)))

    @staticmethod
    def target(parameters: Parameters, size: Size) -> Map:
        return homography(_homography(parameters, size))


def _homography(parameters: Parameters, size: Size) -> Matrix:
    p = parameters
    turned = turned_plane_matrix(size, p["pitch_deg"], p["yaw_deg"], p["roll_deg"], p["field_of_view_deg"])
    moved = quadrilateral_matrix(size, np.array(p["corners"]))
    return moved @ turned


def _largest(setting: Any) -> float:
    drawn: Distribution = setting
    return max(abs(value) for value in drawn.values())


@lru_cache(maxsize=64)
def _reach(corner_shift: float) -> float:
    """How far outside the frame the moved corners may make the frame's own corners read, over its half sides; at least 1."""
    frame = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]).T
    shifts = 2 * corner_shift * np.array(list(itertools.product((-1, 1), repeat=8))).reshape(-1, 4, 2)
    read = np.linalg.inv(_quadrilaterals(np.ones(2), shifts)) @ frame
    return float(np.abs(read[:, :2] / read[:, 2:]).max())
