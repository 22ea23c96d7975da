"""What hot or moving air does to a picture: it sways (tilt) and blurs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from models.degradation.convolution import Kernel, convolve, convolve_adjoint
from models.degradation.displacement import draw_field
from models.degradation.distributions import Drawable
from models.degradation.protocol import LinearOperator, Parameters, Quantity, Shape
from models.degradation.taps import Size
from models.degradation.warps import FilledWord, Places, Reading, SamplingWord, warp, warp_adjoint
from transforms.planes import Planes, like
from transforms.randomness import from_stream

REFERENCE_SIDE = 480  # the book's picture is 480 x 480, and its frequencies count whole waves in that picture
_REACH = 15  # of the kernel, in units of its width: beyond lies half a per cent of its sum
_LARGEST = 64


def hufnagel_otf(strength: float, frequency: NDArray[np.float64]) -> NDArray[np.float64]:
    """H = exp(-k (480 f)^(5/3)), the long-exposure transfer function.

    Args:
        strength: k; 0.0025 severe, 0.001 mild, 0.00025 slight.
        frequency: f = sqrt(fx^2 + fy^2), in cycles per pixel. In waves per 480 pixels it is the book's sqrt(u^2 + v^2).

    Source: Hufnagel and Stanley, JOSA 54, 1964; Gonzalez and Woods, "Digital Image Processing", equation 5.6-3.
    """
    result: NDArray[np.float64] = np.exp(-strength * (REFERENCE_SIDE * frequency) ** (5 / 3))
    return result


def hufnagel_kernel(strength: float) -> Kernel:
    """The point spread function of `hufnagel_otf`, of sum 1, at most 129 x 129; its tails fall with r^(-11/3).

    Below a strength of 0.00025 the transfer function does not vanish at the highest frequency of the grid, and the kernel has
    small negative values.
    """
    return _hufnagel_kernel(strength).copy()  # the cached one is not for callers to write to


@lru_cache(maxsize=16)
def _hufnagel_kernel(strength: float) -> Kernel:
    # The transfer function is that of a stable law, exp(-|width omega|^(5/3)) at omega = 2 pi f.
    width = REFERENCE_SIDE * strength**0.6 / (2 * math.pi)
    radius = min(math.ceil(_REACH * width), _LARGEST)
    if radius == 0:
        return np.ones((1, 1))
    side = scipy.fft.next_fast_len(max(4 * radius, 32), real=True)
    frequency = np.hypot(scipy.fft.fftfreq(side)[:, np.newaxis], scipy.fft.rfftfreq(side))
    spread = scipy.fft.irfft2(hufnagel_otf(strength, frequency), s=(side, side))
    near = np.arange(-radius, radius + 1)
    kernel: Kernel = spread[np.ix_(near, near)] / spread[np.ix_(near, near)].sum()
    return kernel


@dataclass(frozen=True)
class Turbulence(LinearOperator):
    """Atmospheric turbulence: the picture is displaced, then blurred,  y = h * (T x),  (T x)(p) = x(p + d(p)).

    d is white noise filtered by a Gaussian (usual are widths of 8 to 32 pixels and displacements of 1 to 5), and h is that of
    Hufnagel and Stanley. With `unevenness` e, the strength k of the blur drifts over the picture between k (1 - e) and k (1 + e):
    y = (1 - w) (h1 * T x) + w (h2 * T x), with the blurs h1 and h2 of these two strengths and a smooth random w.

    Source: Hufnagel and Stanley, "Modulation transfer function associated with image transmission through turbulent
    media", JOSA 54, 1964, for the blur; Chan, "Tilt-Then-Blur or Blur-Then-Tilt? Clarifying the Atmospheric Turbulence
    Model", IEEE SPL 29, 2022, for the order.
    """

    name: ClassVar[str] = "turbulence"
    noisy: ClassVar[bool] = True
    strength: Annotated[
        Drawable,
        Quantity(
            meaning="k of exp(-k (fx^2 + fy^2)^(5/6)), frequencies in waves per 480 pixels", minimum=0, maximum=0.01
        ),
    ]
    tilt_px: Annotated[
        Drawable,
        Quantity(meaning="standard deviation of the displacement in pixels, in each direction", minimum=0, maximum=100),
    ]
    correlation_px: Annotated[
        Drawable,
        Quantity(meaning="standard deviation of the Gaussian that smooths the displacement, in pixels", minimum=1),
    ] = 16
    unevenness: Annotated[
        Drawable, Quantity(meaning="by which share the strength differs within the picture", minimum=0, maximum=1)
    ] = 0
    sampling: SamplingWord = "bilinear"
    boundary: FilledWord = "reflect"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        size = (int(planes.shape[-2]), int(planes.shape[-1]))
        boundary = parameters["boundary"]
        reading, blend = drawn_air(size, parameters)
        tilted = warp(planes, reading, size, boundary, parameters["sampling"])
        if blend is None:
            return convolve(tilted, hufnagel_kernel(parameters["strength"]), boundary)
        weaker, stronger = (convolve(tilted, kernel, boundary) for kernel in _extremes(parameters))
        stronger -= weaker
        stronger *= like(blend, planes)
        return weaker + stronger

    @staticmethod
    def adjoint(planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        boundary = parameters["boundary"]
        reading, blend = drawn_air(shape[:2], parameters)
        if blend is None:
            tilted = convolve_adjoint(planes, hufnagel_kernel(parameters["strength"]), boundary)
        else:
            weaker, stronger = _extremes(parameters)
            share = like(blend, planes) * planes
            tilted = convolve_adjoint(planes - share, weaker, boundary) + convolve_adjoint(share, stronger, boundary)
        return warp_adjoint(tilted, reading, shape[:2], boundary, parameters["sampling"])

    @staticmethod
    def arrays(shape: Shape, parameters: Parameters) -> Mapping[str, NDArray[Any]]:
        """The kernel of the mean strength, and the displacement d as motion (to the right and downwards)."""
        rows, columns = drawn_air(shape[:2], parameters)[0](0, shape[0])
        motion = np.stack([columns - np.arange(shape[1]), rows - np.arange(shape[0])[:, np.newaxis]])
        return {
            "kernel": hufnagel_kernel(parameters["strength"]).astype(np.float32),
            "motion": motion.astype(np.float32),
        }


def drawn_air(size: Size, parameters: Parameters) -> tuple[Reading, NDArray[np.float32] | None]:
    """Where drawn parameters read the picture, and the share of the stronger blur, H x W, if the blur is uneven."""
    rng, amplitude = from_stream(parameters["stream"]), parameters["tilt_px"]
    down, right = (draw_field(rng, size, parameters["correlation_px"]) for _ in range(2))

    def reading(first: int, last: int) -> Places:
        rows, columns = down.rows(first, last), right.rows(first, last)
        rows *= amplitude
        rows += np.arange(first, last)[:, np.newaxis]
        columns *= amplitude
        columns += np.arange(size[1])
        return rows, columns

    if not parameters["unevenness"]:
        return reading, None
    blend = draw_field(rng, size, parameters["correlation_px"]).rows(0, size[0]).astype(np.float32)
    blend *= np.float32(0.25)  # about 1/2; two standard deviations reach the extremes
    blend += np.float32(0.5)
    return reading, np.clip(blend, 0, 1, out=blend)


def _extremes(parameters: Parameters) -> tuple[Kernel, Kernel]:
    strength, unevenness = parameters["strength"], parameters["unevenness"]
    return hufnagel_kernel(strength * (1 - unevenness)), hufnagel_kernel(strength * (1 + unevenness))
