"""Blur by a field of motion: each pixel is smeared along a line of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.degradation.displacement import draw_field
from models.degradation.distributions import Drawable
from models.degradation.protocol import LinearOperator, Parameters, Quantity, Shape
from models.degradation.taps import Part, Size, Taps, Term, gather, scatter
from models.degradation.warps import FilledWord
from transforms.planes import Planes
from transforms.randomness import from_stream

Vectors: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]  # u (to the right) and v (downwards), in pixels
Field: TypeAlias = Callable[[int, int], Vectors]  # (first, last) -> the motion of rows first .. last - 1


def smear(planes: Planes, field: Field, longest: float, boundary: str) -> Planes:
    """y(p) = the mean of x along the segment from p - m(p)/2 to p + m(p)/2,  m = (u, v).

    The segment is sampled where it crosses the centres of the pixels' columns (of their rows, if it is steeper than 45
    degrees), with linear interpolation between the two pixels there. Each sample counts with the length of its pixel that
    the segment covers. So motion along the axes is an exact box filter, and motion by up to 1 pixel leaves the picture as
    it is, in agreement with `models.degradation.blur_kernels.line`.

    Args:
        planes: C x H x W.
        field: the motion, H x W vectors.
        longest: no vector is longer, in pixels.
        boundary: what stands outside the picture, one of `models.degradation.warps.FILLED`.

    Source: Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE Trans. Medical Imaging 1(3),
    1982, for the sampling.
    """
    return gather(planes, _taps(field, (int(planes.shape[-2]), int(planes.shape[-1])), longest, boundary))


def smear_adjoint(planes: Planes, field: Field, longest: float, boundary: str) -> Planes:
    """The adjoint of `smear`."""
    return scatter(planes, _taps(field, (int(planes.shape[-2]), int(planes.shape[-1])), longest, boundary))


def _steps(major: float) -> int:
    """How many pixels a segment of this extent reaches to either side."""
    return max(0, math.ceil(major / 2 - 0.5))


def _taps(field: Field, size: Size, longest: float, boundary: str) -> Taps:
    margin = _steps(longest) + 1

    def parts(first: int, last: int) -> Iterator[Part]:
        u, v = (each.reshape(-1) for each in field(first, last))
        rows = np.arange(first, last)[:, np.newaxis] + margin
        stride = size[1] + 2 * margin
        centres = (rows * stride + (np.arange(size[1]) + margin)).reshape(-1)
        flat = np.abs(u) >= np.abs(v)
        for chosen, major, minor, strides in ((flat, u, v, (1, stride)), (~flat, v, u, (stride, 1))):
            here = np.flatnonzero(chosen)
            if len(here) == len(centres):
                targets = slice(first * size[1], last * size[1])
                yield Part(targets, _crossings(centres, major, minor, strides))
            elif len(here):
                yield Part(here + first * size[1], _crossings(centres[here], major[here], minor[here], strides))

    return Taps(size, size, (margin, margin), boundary, parts)


def _crossings(
    centres: NDArray[np.intp], major: NDArray[np.float64], minor: NDArray[np.float64], strides: tuple[int, int]
) -> Iterator[Term]:
    """The samples of segments that all cross columns (or all rows), outwards from the centre, both directions at once.

    Args:
        centres: where the segments' centres stand in the padded picture.
        major, minor: extents of the motion across the columns and along them.
        strides: steps in the padded picture to the next column and to the next pixel of a column.
    """
    along, across = strides
    slope = np.divide(minor, major, out=np.zeros_like(major), where=major != 0).astype(np.float32)
    extent = np.maximum(np.abs(major), 1).astype(np.float32)
    share = 1 / extent
    steps = _steps(float(extent.max()))
    yield Term(share, ((centres, 0),))
    lead = steps * along + across  # so that no offset is negative
    centres = centres - lead
    for step in range(1, steps + 1):
        # The segment covers the pixel `step` away from step - 1/2 on, as far as it reaches.
        weights = share * np.clip(extent * np.float32(0.5) + np.float32(0.5 - step), 0, 1)
        crossing = slope * np.float32(step)
        whole = np.floor(crossing)
        beyond = weights * (crossing - whole)
        shift = whole.astype(np.intp)
        shift *= across
        ahead, behind = centres + shift, centres - shift
        onward, backward = lead + step * along, lead - step * along
        yield Term(weights - beyond, ((ahead, onward), (behind, backward)))
        yield Term(beyond, ((ahead, onward + across), (behind, backward - across)))


def camera_motion(
    size: Size, translation: tuple[float, float], turn: float, zoom: float, longest: float, wobble: Field | None = None
) -> Field:
    """The motion of a picture while its camera moves, to first order:  m(p) = t + turn J (p - c) + zoom (p - c) + wobble.

    Args:
        translation: of the picture's centre c, to the right and downwards, in pixels.
        turn: in radians, counter-clockwise.
        zoom: share by which distances grow.
        longest: vectors longer than that many pixels are cut to that length.
        wobble: added before that.
    """
    across = np.arange(size[1]) - (size[1] - 1) / 2

    def field(first: int, last: int) -> Vectors:
        down = (np.arange(first, last) - (size[0] - 1) / 2)[:, np.newaxis]
        u = (translation[0] + zoom * across) + turn * down
        v = (translation[1] - turn * across) + zoom * down
        if wobble is not None:
            for total, part in zip((u, v), wobble(first, last), strict=True):
                total += part
        shrink = np.minimum(1, longest / np.maximum(np.hypot(u, v), 1e-9))
        return u * shrink, v * shrink

    return field


@dataclass(frozen=True)
class MotionFieldBlur(LinearOperator):
    """Blur by a field of motion, y(p) = mean of x along p - m(p)/2 .. p + m(p)/2, as a moving camera makes it.

    The field m is that of a camera that shifts, turns and zooms while it exposes, plus a smooth random part. The paper
    estimates lengths up to 25 pixels; a length of 1 is no motion.

    Source: Sun, Cao, Xu and Ponce, "Learning a Convolutional Neural Network for Non-uniform Motion Blur Removal", CVPR 2015,
    section 2 (one linear motion for each pixel).
    """

    name: ClassVar[str] = "motion_field_blur"
    noisy: ClassVar[bool] = True
    translation_px: Annotated[Drawable, Quantity(meaning="motion of the picture's centre in pixels", minimum=0)]
    angle_deg: Annotated[Drawable, Quantity(meaning="its direction in degrees, counter-clockwise from the horizontal")]
    rotation_deg: Annotated[
        Drawable, Quantity(meaning="turn during the exposure in degrees, counter-clockwise", minimum=-90, maximum=90)
    ] = 0
    zoom: Annotated[
        Drawable, Quantity(meaning="share by which distances grow during the exposure", minimum=-0.5, maximum=0.5)
    ] = 0
    wobble_px: Annotated[
        Drawable, Quantity(meaning="standard deviation of the random part in pixels, in each direction", minimum=0)
    ] = 0
    correlation_px: Annotated[
        Drawable,
        Quantity(meaning="standard deviation of the Gaussian that smooths the random part, in pixels", minimum=1),
    ] = 32
    max_length_px: Annotated[
        Drawable, Quantity(meaning="longer motion is cut to this many pixels", minimum=1, maximum=1000)
    ] = 25
    boundary: FilledWord = "reflect"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        field = drawn_field((int(planes.shape[-2]), int(planes.shape[-1])), parameters)
        return smear(planes, field, parameters["max_length_px"], parameters["boundary"])

    @staticmethod
    def adjoint(planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        return smear_adjoint(
            planes, drawn_field(shape[:2], parameters), parameters["max_length_px"], parameters["boundary"]
        )

    @staticmethod
    def arrays(shape: Shape, parameters: Parameters) -> Mapping[str, NDArray[Any]]:
        vectors = drawn_field(shape[:2], parameters)(0, shape[0])
        return {"motion": np.stack(vectors).astype(np.float32)}


def drawn_field(size: Size, parameters: Parameters) -> Field:
    """The field that drawn parameters of `motion_field_blur` stand for."""
    angle, length = math.radians(parameters["angle_deg"]), parameters["translation_px"]
    wobble = drawn_wobble(size, parameters) if parameters["wobble_px"] else None
    return camera_motion(
        size,
        (length * math.cos(angle), -length * math.sin(angle)),
        math.radians(parameters["rotation_deg"]),
        parameters["zoom"],
        parameters["max_length_px"],
        wobble,
    )


def drawn_wobble(size: Size, parameters: Parameters) -> Field:
    """Its random part."""
    rng, amplitude = from_stream(parameters["stream"]), parameters["wobble_px"]
    first, second = (draw_field(rng, size, parameters["correlation_px"]) for _ in range(2))

    def field(start: int, end: int) -> Vectors:
        return amplitude * first.rows(start, end), amplitude * second.rows(start, end)

    return field
