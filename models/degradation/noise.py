"""Noise: Gaussian, Poisson, speckle, impulse.

Planes are float32, C x H x W, nominally [0, 1]. No result is clipped or rounded: a recipe says so itself, with
`clip` or `round_to_8bit`. Every kernel is a function of the picture, its parameters and the generator of its own stream.
Noise is independent from pixel to pixel; what it is from channel to channel is named and recorded:

    independent   each channel has noise of its own
    shared        one noise for all channels: grey noise in a colour picture
    correlated    Gaussian with a covariance C between the channels, drawn for each picture

The numbers are always drawn by NumPy, so that a tensor on an accelerator gets the same noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.degradation.distributions import Drawable, DrawableWord
from models.degradation.normals import standard_normal
from models.degradation.protocol import Operator, Parameters, Quantity, Shape, Wording
from transforms.planes import Planes, like, namespace, to_numpy
from transforms.randomness import from_stream

_BLOCK_SAMPLES = 1 << 20
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601

Covariance = list[list[float]]  # C x C, as JSON holds it


def normal_numbers(
    shape: tuple[int, ...],
    rng: np.random.Generator,
    across_channels: str,
    covariance: Covariance | None = None,
    sigma: float = 1.0,
) -> NDArray[np.float32]:
    """Numbers of N(0, sigma^2) for C x H x W planes; 1 x H x W if "shared"; of the covariance sigma^2 C if "correlated"."""
    if across_channels == "shared":
        return standard_normal(rng, (1, *shape[1:]), sigma)
    numbers = standard_normal(rng, shape, sigma)
    return correlate_channels(numbers, covariance) if across_channels == "correlated" and covariance else numbers


def correlate_channels(numbers: NDArray[np.float32], covariance: Covariance) -> NDArray[np.float32]:
    """C^(1/2) n for each pixel's n ~ N(0, 1): numbers of covariance C."""
    variances, basis = np.linalg.eigh(np.array(covariance))
    root = (basis * np.sqrt(np.maximum(variances, 0))) @ basis.T
    flat = root.astype(np.float32) @ numbers.reshape(len(numbers), -1)
    mixed: NDArray[np.float32] = flat.reshape(numbers.shape)
    return mixed


def draw_covariance(rng: np.random.Generator, channels: int) -> Covariance:
    """A covariance between channels:  C = |U^T D U|,  D = diag(d), d ~ U(0, 1), U a random orthonormal basis.

    U holds the left singular vectors of a matrix of U(0, 1). |.| is the absolute value of each element: channels rise
    together. Of up to three channels that leaves a covariance a covariance. The mean variance of a channel is E[d] = 1/2.

    Source: Zhang et al., ICCV 2021, section 3.3 (3D generalised zero-mean Gaussian noise), and the released code.
    """
    eigenvalues = rng.random(channels)
    basis = np.linalg.svd(rng.random((channels, channels)))[0]
    covariance: Covariance = np.abs((basis.T * eigenvalues) @ basis).tolist()
    return covariance


def gaussian_noise(
    planes: Planes,
    sigma: float,
    rng: np.random.Generator,
    across_channels: str = "independent",
    covariance: Covariance | None = None,
) -> Planes:
    """y = x + sigma N,  N ~ N(0, 1): mean x, variance sigma^2; N ~ N(0, C) across correlated channels."""
    noise = normal_numbers(tuple(planes.shape), rng, across_channels, covariance, sigma)
    noisy = like(noise, planes)
    if across_channels == "shared":
        return noisy + planes
    noisy += planes
    return noisy


def speckle(
    planes: Planes,
    sigma: float,
    rng: np.random.Generator,
    across_channels: str = "independent",
    covariance: Covariance | None = None,
) -> Planes:
    """y = x (1 + sigma N),  N ~ N(0, 1): mean x, variance (sigma x)^2; N ~ N(0, C) across correlated channels."""
    noise = normal_numbers(tuple(planes.shape), rng, across_channels, covariance, sigma)
    noise += np.float32(1)
    noisy = like(noise, planes)
    if across_channels == "shared":
        return noisy * planes
    noisy *= planes
    return noisy


def poisson_noise(
    planes: Planes, photons: float, rng: np.random.Generator, across_channels: str = "independent", scale: float = 1.0
) -> Planes:
    """y = x + s (K / P - x),  K ~ Poisson(P x): mean x, variance s^2 x / P. Below black there is no light: that is black first.

    Shared by the channels:  y = x + s (K / P - g),  K ~ Poisson(P g)  with the luma g: mean x, variance s^2 g / P.
    """
    light = np.maximum(to_numpy(planes), np.float32(0))
    if across_channels == "shared" and len(light) > 1:
        luma = np.tensordot(_LUMA, light, axes=1)
        noise = photon_counts(luma, photons, rng)
        noise -= luma
        noise *= np.float32(scale)
        light += noise
        return like(light, planes)
    counts = photon_counts(light, photons, rng)
    if scale != 1:
        counts -= light
        counts *= np.float32(scale)
        counts += light
    return like(counts, planes)


def photon_counts(light: NDArray[np.float32], photons: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """K / P,  K ~ Poisson(P x), for light x >= 0 of any shape."""
    flat = light.reshape(-1)
    counts = np.empty_like(flat)
    # Blocks, since the counts and their means take 64 bits; the draws come in the same order as at once.
    for start in range(0, flat.size, _BLOCK_SAMPLES):
        expected = flat[start : start + _BLOCK_SAMPLES].astype(np.float64) * photons
        counts[start : start + _BLOCK_SAMPLES] = rng.poisson(expected) / photons
    return counts.reshape(light.shape)


def impulse_noise(
    planes: Planes,
    density: float,
    salt: float,
    rng: np.random.Generator,
    across_channels: str = "independent",
    values: str = "salt_and_pepper",
) -> Planes:
    """y = v with probability d, x otherwise; v is 1 with probability s and 0 with 1 - s, or v ~ U(0, 1)."""
    shape = tuple(planes.shape)
    chance = rng.random((1, *shape[1:]) if across_channels == "shared" else shape, dtype=np.float32)
    where = namespace(planes).where
    if values == "uniform":
        return where(like(chance < density, planes), like(rng.random(shape, dtype=np.float32), planes), planes)
    noisy = where(like(chance < density, planes), 0.0 * planes, planes)
    return where(like(chance < density * salt, planes), 0.0 * planes + 1, noisy)


_ACROSS_CHANNELS = "noise of each channel: its own, one for all, or its own with a drawn covariance"
AcrossChannels = Annotated[
    DrawableWord, Wording(meaning=_ACROSS_CHANNELS, options=("independent", "shared", "correlated"))
]
SharedOrNot = Annotated[
    DrawableWord, Wording(meaning="noise of each channel: its own, or one for all", options=("independent", "shared"))
]


@dataclass(frozen=True)
class _Gaussian(Operator):
    """Draws the covariance of correlated channels."""

    noisy: ClassVar[bool] = True

    def sample(self, rng: np.random.Generator, shape: Shape, clean_shape: Shape | None = None) -> Parameters:
        """Draws the settings and, for correlated channels, `covariance` in units of sigma^2."""
        parameters: dict[str, Any] = dict(super().sample(rng, shape, clean_shape))
        if parameters["across_channels"] == "correlated":
            parameters["covariance"] = draw_covariance(rng, shape[2])
        return parameters


@dataclass(frozen=True)
class GaussianNoise(_Gaussian):
    """Additive white Gaussian noise, y = x + sigma N; not clipped.

    Source: Zhang et al., "Beyond a Gaussian Denoiser", TIP 2017 (sigma 15, 25, 50 on the 8-bit scale); across channels:
    Zhang et al., "Designing a Practical Degradation Model for Deep Blind Image Super-Resolution", ICCV 2021, section 3.3
    (sigma 1 to 25).
    """

    name: ClassVar[str] = "gaussian_noise"
    sigma: Annotated[Drawable, Quantity(meaning="standard deviation; white is 1, so 25/255 is the usual 25", minimum=0)]
    across_channels: AcrossChannels = "independent"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        rng = from_stream(parameters["stream"])
        return gaussian_noise(planes, parameters["sigma"], rng, *_channels(parameters))


@dataclass(frozen=True)
class PoissonNoise(Operator):
    """Photon (shot) noise, y = Poisson(P x) / P, for a linear sensor that counts P photons at white.

    With `scale` s the noise is s times as strong, y = x + s (Poisson(P x) / P - x): P sets its granularity, s its strength.

    Source: Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting", TIP 2008, without its Gaussian part;
    scale and grey noise: Wang et al., "Real-ESRGAN", ICCVW 2021, and its released code (P of 256, scale 0.05 to 3).
    """

    name: ClassVar[str] = "poisson_noise"
    noisy: ClassVar[bool] = True
    photons: Annotated[Drawable, Quantity(meaning="photon count at white", above=0, maximum=1e12)]
    across_channels: SharedOrNot = "independent"
    scale: Annotated[Drawable, Quantity(meaning="factor on the noise; 1 is a true photon count", minimum=0)] = 1.0

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        rng, scale = from_stream(parameters["stream"]), parameters.get("scale", 1.0)
        return poisson_noise(planes, parameters["photons"], rng, _channels(parameters)[0], scale)


@dataclass(frozen=True)
class SpeckleNoise(_Gaussian):
    """Multiplicative Gaussian noise, y = x (1 + sigma N); not clipped.

    Source: Hendrycks and Dietterich, "Benchmarking neural network robustness", ICLR 2019 (`speckle_noise`, sigma 0.15 to
    0.6).
    """

    name: ClassVar[str] = "speckle_noise"
    sigma: Annotated[Drawable, Quantity(meaning="standard deviation in units of the sample's own value", minimum=0)]
    across_channels: AcrossChannels = "independent"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return speckle(planes, parameters["sigma"], from_stream(parameters["stream"]), *_channels(parameters))


@dataclass(frozen=True)
class ImpulseNoise(Operator):
    """Impulse noise: a share `density` of the samples, or of the pixels, becomes white or black, or any value.

    Salt and pepper: a share `salt` of them becomes 1, the others 0. Uniform: each becomes a number of [0, 1]; if whole
    pixels are hit, each of their channels its own.

    Source: Hendrycks and Dietterich, ICLR 2019 (`impulse_noise`: half salt, half pepper; density 0.03 to 0.27).
    """

    name: ClassVar[str] = "impulse_noise"
    noisy: ClassVar[bool] = True
    density: Annotated[Drawable, Quantity(meaning="share of the samples or pixels that are hit", minimum=0, maximum=1)]
    salt: Annotated[Drawable, Quantity(meaning="share of white among them", minimum=0, maximum=1)] = 0.5
    across_channels: Annotated[
        DrawableWord, Wording(meaning="hits each channel by itself, or whole pixels", options=("independent", "shared"))
    ] = "independent"
    values: Annotated[
        DrawableWord, Wording(meaning="white and black, or any value", options=("salt_and_pepper", "uniform"))
    ] = "salt_and_pepper"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        values = parameters.get("values", "salt_and_pepper")
        rng, across_channels = from_stream(parameters["stream"]), _channels(parameters)[0]
        return impulse_noise(planes, parameters["density"], parameters["salt"], rng, across_channels, values)


def _channels(parameters: Parameters) -> tuple[str, Covariance | None]:
    """Records of earlier releases do not say it: their channels were independent."""
    return parameters.get("across_channels", "independent"), parameters.get("covariance")
