"""Noise that has a grain: spatially correlated Gaussian noise, and film grain.

White noise through a kernel k of unit energy, sum k^2 = 1, is a stationary Gaussian field of variance 1 with the
autocorrelation  rho(d) = sum_i k(i) k(i + d)  in each direction. The white noise reaches beyond the border by the kernel's
radius, so that border pixels are like all others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.degradation.distributions import Drawable, DrawableWord
from models.degradation.noise import SharedOrNot, normal_numbers
from models.degradation.protocol import Operator, Parameters, Quantity, Wording
from transforms.planes import Planes, like, namespace
from transforms.planes.banded import Band, apply_bands, filter_band
from transforms.randomness import from_stream

KERNELS = ("gaussian", "box")
LONGEST = 256.0
_TRUNCATION = 4.0  # of a Gaussian, in standard deviations; what is cut off is 6e-5 of its sum


def grain_taps(length: float, kernel: str) -> NDArray[np.float64]:
    """Taps of unit energy in one direction, an odd number of them.

    Args:
        length: pixels; the standard deviation of "gaussian", the side of "box", whose outermost taps count by the share of
            their pixel that it covers.
    """
    if kernel == "box":
        radius = max(0, math.ceil((length - 1) / 2))
        taps = np.clip(length / 2 - np.abs(np.arange(-radius, radius + 1)) + 0.5, 0, 1) if radius else np.ones(1)
    else:
        radius = math.ceil(_TRUNCATION * length)
        taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(length, 1e-6)) ** 2)
    taps /= math.sqrt(float(taps @ taps))
    return taps


def autocorrelation(length: float, kernel: str, lag: int) -> float:
    """rho(lag) of the field along a row or a column; for "gaussian" close to exp(-lag^2 / (4 length^2)).

    Along both, lags (a, b) have the correlation rho(a) rho(b).
    """
    taps = grain_taps(length, kernel)
    return float(taps[: len(taps) - lag] @ taps[lag:]) if lag < len(taps) else 0.0


def grain_field(
    shape: tuple[int, ...], length: float, kernel: str, rng: np.random.Generator, across_channels: str = "independent"
) -> NDArray[np.float32]:
    """A Gaussian field of mean 0 and variance 1 for C x H x W planes; 1 x H x W if the channels share it."""
    channels, height, width = shape
    radius = len(grain_taps(length, kernel)) // 2
    white = normal_numbers((channels, height + 2 * radius, width + 2 * radius), rng, across_channels)
    if not radius:
        return white
    field: NDArray[np.float32] = apply_bands(white, _band(height, length, kernel), _band(width, length, kernel))
    return field


@lru_cache(maxsize=4)  # rows and columns of a square, and of the next picture if the length is a constant
def _band(side: int, length: float, kernel: str) -> Band:
    taps = grain_taps(length, kernel)
    return filter_band(side + len(taps) - 1, taps, "valid")


def correlated_noise(planes: Planes, sigma: float, field: NDArray[np.float32]) -> Planes:
    """y = x + sigma G: mean x, variance sigma^2, autocorrelation that of the field G."""
    return planes + like(np.multiply(field, np.float32(sigma)), planes)


def film_grain(planes: Planes, sigma: float, field: NDArray[np.float32]) -> Planes:
    """y = x + sigma 2 sqrt(x (1 - x)) G: mean x, variance 4 sigma^2 x (1 - x); none in black, white and beyond."""
    xp = namespace(planes)
    inside = xp.clip(planes, 0, 1)
    return planes + xp.sqrt(inside * (1 - inside)) * like(np.multiply(field, np.float32(2 * sigma)), planes)


@dataclass(frozen=True)
class CorrelatedNoise(Operator):
    """Spatially correlated Gaussian noise, y = x + sigma G, G = k * N with sum k^2 = 1; not clipped.

    Variance sigma^2; autocorrelation exp(-d^2 / (4 l^2)) for a Gaussian kernel of l pixels, the triangle 1 - d / l for a
    box of an odd side l. What demosaicking, resizing and denoising leave of white noise: l of 0.5 to 2 pixels.

    Source: Papoulis, "Probability, Random Variables, and Stochastic Processes" (systems with stochastic inputs: white
    noise through a linear filter).
    """

    name: ClassVar[str] = "correlated_noise"
    noisy: ClassVar[bool] = True
    sigma: Annotated[Drawable, Quantity(meaning="standard deviation; white is 1", minimum=0)]
    length: Annotated[
        Drawable,
        Quantity(meaning="of the kernel in pixels: standard deviation, or a box's side", minimum=0, maximum=LONGEST),
    ]
    kernel: Annotated[DrawableWord, Wording(meaning="what white noise is filtered with", options=KERNELS)] = "gaussian"
    across_channels: SharedOrNot = "independent"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return correlated_noise(planes, parameters["sigma"], _field(planes, parameters, parameters["kernel"]))


@dataclass(frozen=True)
class FilmGrain(Operator):
    """Grain of photographic film, y = x + 2 sigma sqrt(x (1 - x)) G; strongest in mid-grey, where it is sigma; not clipped.

    The scaling is that of the Boolean model of film: grains thrown at random cover a point with probability x, which has
    the variance x (1 - x). G is the Gaussian field of `correlated_noise` with a Gaussian kernel of the grain's size, what
    many small grains add up to within a pixel. So the mean is x, the variance 4 sigma^2 x (1 - x), the autocorrelation
    exp(-d^2 / (4 size^2)). Sigma 0.02 to 0.1, size 0.5 to 2 pixels. Colour film has a grain in each of its layers
    ("independent"), black-and-white film one for all ("shared").

    Source: Newson et al., "Realistic Film Grain Rendering", IPOL 2017 (Boolean model); Norkin and Birkbeck, "Film Grain
    Synthesis for AV1 Video Codec", DCC 2018 (filtered Gaussian noise, scaled by a function of the picture's value).
    """

    name: ClassVar[str] = "film_grain"
    noisy: ClassVar[bool] = True
    sigma: Annotated[Drawable, Quantity(meaning="standard deviation in mid-grey; white is 1", minimum=0)]
    size: Annotated[
        Drawable, Quantity(meaning="of the grain: standard deviation in pixels", minimum=0, maximum=LONGEST)
    ] = 0.8
    across_channels: SharedOrNot = "independent"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return film_grain(planes, parameters["sigma"], _field(planes, parameters, "gaussian"))


def _field(planes: Planes, parameters: Parameters, kernel: str) -> NDArray[np.float32]:
    length = parameters["length"] if "length" in parameters else parameters["size"]
    rng = from_stream(parameters["stream"])
    return grain_field(tuple(planes.shape), length, kernel, rng, parameters["across_channels"])
