"""Blur of a moving object before a still background."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.degradation.blur_kernels import line
from models.degradation.convolution import Kernel, convolve, convolve_adjoint
from models.degradation.distributions import Drawable
from models.degradation.protocol import LinearOperator, Parameters, Quantity, Shape
from models.degradation.taps import Size
from models.degradation.warps import FilledWord
from transforms.planes import Planes, like, namespace
from transforms.randomness import from_stream

HARMONICS = 6  # of the outline, from the second on: the first would only shift it
_CLEAR = 1e-3  # a share of the exposure below which a pixel counts as intact


def blob(
    size: Size, share: float, roughness: float, rng: np.random.Generator
) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """A random smooth shape with an anti-aliased rim:  r(t) = r0 (1 + sum_n a_n cos(n t + b_n)).

    Its area is  pi r0^2 (1 + sum a_n^2 / 2),  and r0 is such that this is `share` of the picture. It lies inside the picture as
    far as it fits.

    Args:
        roughness: standard deviation of the radius over r0; 0 is a disk, above 0.3 deep bays appear.

    Returns:
        The rows and columns that it touches, and what it covers of each pixel there, 0 to 1.
    """
    order = np.arange(2, HARMONICS + 1)
    spread = 1 / order
    amplitudes = rng.standard_normal(len(order)) * spread * (roughness * math.sqrt(2) / np.linalg.norm(spread))
    # The radius must stay positive all around, or the outline crosses itself.
    amplitudes *= min(1.0, 0.8 / max(float(np.abs(amplitudes).sum()), 1e-9))
    waves = amplitudes * np.exp(1j * rng.uniform(0, 2 * math.pi, len(order)))
    radius = math.sqrt(share * size[0] * size[1] / (math.pi * (1 + float(np.square(amplitudes).sum()) / 2)))
    reach = radius * (1 + float(np.abs(amplitudes).sum())) + 1
    centre = [_between(reach, side, rng) for side in size]
    rows, columns = (
        slice(max(0, math.floor(c - reach)), min(side, math.ceil(c + reach) + 1))
        for c, side in zip(centre, size, strict=True)
    )
    down = np.arange(rows.start, rows.stop, dtype=np.float32)[:, np.newaxis] - np.float32(centre[0])
    right = np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(centre[1])
    point = right + 1j * down
    distance = np.abs(point)
    turn = point / np.maximum(distance, np.float32(1e-6))  # exp(i t)
    outline = np.zeros_like(turn)
    for wave in waves[::-1].astype(np.complex64):
        outline = (outline + wave) * turn
    outline *= turn
    covered = np.float32(radius) * (1 + outline.real) + np.float32(0.5) - distance
    return (rows, columns), np.clip(covered, 0, 1).astype(np.float32, copy=False)


def _between(reach: float, side: int, rng: np.random.Generator) -> float:
    """A centre from which `reach` stays inside 0 .. side - 1; the middle, if nothing does."""
    free = max(0.0, side - 1 - 2 * reach)
    return (side - 1 - free) / 2 + free * float(rng.random())


def move_object(planes: Planes, mask: NDArray[np.float32], kernel: Kernel, boundary: str) -> Planes:
    """y = (1 - k * m) x + k * (m x).

    Args:
        planes: C x H x W.
        mask: m, H x W, what the object covers of each pixel, 0 to 1.
        kernel: k, its motion during the exposure, of sum 1.
        boundary: see `transforms.planes.boundary`; not "valid".
    """
    shape = like(mask, planes)
    return (1 - convolve(shape, kernel, boundary)) * planes + convolve(shape * planes, kernel, boundary)


def move_object_adjoint(planes: Planes, mask: NDArray[np.float32], kernel: Kernel, boundary: str) -> Planes:
    """x = (1 - k * m) y + m K^T y."""
    shape = like(mask, planes)
    return (1 - convolve(shape, kernel, boundary)) * planes + shape * convolve_adjoint(planes, kernel, boundary)


@dataclass(frozen=True)
class ObjectMotionBlur(LinearOperator):
    """A moving object before a still background,  y = (1 - k * m) x + k * (m x):  what the object uncovers is the picture itself.

    The object's own share of the exposure, k * m, is the transparency of its blurred picture, and the background shows through
    the rest. Behind the object the background is unknown; the sharp picture takes its place there, so that one picture is all
    that is needed and y is linear in it.

    Source: Jia, "Single Image Motion Deblurring Using Transparency", CVPR 2007, section 3: the blurred picture of an
    object is  k * (m F) + (1 - k * m) B,  with foreground F and background B.
    """

    name: ClassVar[str] = "object_motion_blur"
    noisy: ClassVar[bool] = True
    length_px: Annotated[
        Drawable, Quantity(meaning="way of the object in pixels; up to 1 is none", minimum=0, maximum=1000)
    ]
    angle_deg: Annotated[Drawable, Quantity(meaning="its direction in degrees, counter-clockwise from the horizontal")]
    share: Annotated[Drawable, Quantity(meaning="area of the object over the picture's", above=0, maximum=1)] = 0.25
    roughness: Annotated[
        Drawable,
        Quantity(meaning="how its outline differs from a circle, standard deviation over radius", minimum=0, maximum=1),
    ] = 0.2
    boundary: FilledWord = "reflect"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        result = namespace(planes).asarray(planes, copy=True)
        where, mask, kernel = drawn_object((int(planes.shape[-2]), int(planes.shape[-1])), parameters)
        result[:, *where] = move_object(planes[:, *where], mask, kernel, parameters["boundary"])
        return result

    @staticmethod
    def adjoint(planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        result = namespace(planes).asarray(planes, copy=True)
        where, mask, kernel = drawn_object(shape[:2], parameters)
        result[:, *where] = move_object_adjoint(planes[:, *where], mask, kernel, parameters["boundary"])
        return result

    @staticmethod
    def arrays(shape: Shape, parameters: Parameters) -> Mapping[str, NDArray[Any]]:
        where, mask, kernel = drawn_object(shape[:2], parameters)
        touched = np.full(shape[:2], 255, np.uint8)
        touched[where] = np.where(convolve(mask, kernel, parameters["boundary"]) > _CLEAR, np.uint8(0), np.uint8(255))
        return {"mask": touched, "kernel": kernel.astype(np.float32)}


def drawn_object(size: Size, parameters: Parameters) -> tuple[tuple[slice, slice], NDArray[np.float32], Kernel]:
    """The object of drawn parameters: the rows and columns that its motion touches, its mask there, and its kernel.

    All else of the picture stays as it is. Next to the region's own borders the mask is 0 for as long as the kernel is, so that it
    does not matter what a convolution reads beyond them; where the region ends with the picture, the boundary is the picture's.
    """
    kernel = line(parameters["length_px"], parameters["angle_deg"])
    place, small = blob(size, parameters["share"], parameters["roughness"], from_stream(parameters["stream"]))
    spans = [(each.start, each.stop) for each in place]
    margins = [side // 2 + 1 for side in kernel.shape]
    if parameters["boundary"] == "circular" and any(
        start < margin or stop > side - margin for (start, stop), margin, side in zip(spans, margins, size, strict=True)
    ):
        wide = [(0, side) for side in size]  # it comes in again at the other side
    else:
        wide = [
            (max(0, start - margin), min(side, stop + margin))
            for (start, stop), margin, side in zip(spans, margins, size, strict=True)
        ]
    mask = np.zeros([stop - start for start, stop in wide], np.float32)
    mask[tuple(slice(own[0] - all_[0], own[1] - all_[0]) for own, all_ in zip(spans, wide, strict=True))] = small
    rows, columns = (slice(start, stop) for start, stop in wide)
    return (rows, columns), mask, kernel
