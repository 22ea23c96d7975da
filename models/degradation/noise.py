"""Noise: Gaussian, Poisson, speckle, impulse.

Planes are float32, C x H x W, nominally [0, 1]. No result is clipped or rounded: a recipe says so itself, with
`round_to_8bit`. Every kernel is a function of the picture, its parameters and the generator of its own stream. Noise is
independent in each sample, that is, in each channel of each pixel. The numbers are always drawn by NumPy, so that a
tensor on an accelerator gets the same noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from models.degradation.distributions import Drawable
from models.degradation.planes import Planes, like, namespace, to_numpy
from models.degradation.protocol import Operator, Parameters, Quantity
from transforms.randomness import from_stream

_BLOCK_SAMPLES = 1 << 20


def gaussian_noise(planes: Planes, sigma: float, rng: np.random.Generator) -> Planes:
    """y = x + sigma N,  N ~ N(0, 1): mean x, variance sigma^2."""
    noise = rng.standard_normal(tuple(planes.shape), dtype=np.float32)
    noise *= np.float32(sigma)
    noisy = like(noise, planes)
    noisy += planes
    return noisy


def poisson_noise(planes: Planes, photons: float, rng: np.random.Generator) -> Planes:
    """y = K / P,  K ~ Poisson(P max(x, 0)): mean x, variance x / P. Below black there is no light, so that is black."""
    flat = to_numpy(planes).reshape(-1)
    noisy = np.empty_like(flat)
    # Blocks, since the counts and their means take 64 bits; the draws come in the same order as at once.
    for start in range(0, flat.size, _BLOCK_SAMPLES):
        expected = np.maximum(flat[start : start + _BLOCK_SAMPLES], 0).astype(np.float64) * photons
        noisy[start : start + _BLOCK_SAMPLES] = rng.poisson(expected) / photons
    return like(noisy.reshape(planes.shape), planes)


def speckle(planes: Planes, sigma: float, rng: np.random.Generator) -> Planes:
    """y = x (1 + sigma N),  N ~ N(0, 1): mean x, variance (sigma x)^2."""
    noise = rng.standard_normal(tuple(planes.shape), dtype=np.float32)
    noise *= np.float32(sigma)
    noise += np.float32(1)
    noisy = like(noise, planes)
    noisy *= planes
    return noisy


def impulse_noise(planes: Planes, density: float, salt: float, rng: np.random.Generator) -> Planes:
    """y = 1 with probability d s, 0 with probability d (1 - s), x otherwise."""
    chance = rng.random(tuple(planes.shape), dtype=np.float32)
    noisy = namespace(planes).where(like(chance < density, planes), 0.0 * planes, planes)
    return namespace(planes).where(like(chance < density * salt, planes), 0.0 * planes + 1, noisy)


@dataclass(frozen=True)
class GaussianNoise(Operator):
    """Additive white Gaussian noise, y = x + sigma N; not clipped.

    Source: Zhang et al., "Beyond a Gaussian Denoiser", TIP 2017 (sigma 15, 25, 50 on the 8-bit scale).
    """

    name: ClassVar[str] = "gaussian_noise"
    noisy: ClassVar[bool] = True
    sigma: Annotated[Drawable, Quantity(meaning="standard deviation; white is 1, so 25/255 is the usual 25", minimum=0)]

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return gaussian_noise(planes, parameters["sigma"], from_stream(parameters["stream"]))


@dataclass(frozen=True)
class PoissonNoise(Operator):
    """Photon (shot) noise, y = Poisson(P x) / P, for a linear sensor that counts P photons at white.

    Source: Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting", TIP 2008, without its Gaussian part.
    """

    name: ClassVar[str] = "poisson_noise"
    noisy: ClassVar[bool] = True
    photons: Annotated[Drawable, Quantity(meaning="photon count at white", above=0, maximum=1e12)]

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return poisson_noise(planes, parameters["photons"], from_stream(parameters["stream"]))


@dataclass(frozen=True)
class SpeckleNoise(Operator):
    """Multiplicative Gaussian noise, y = x (1 + sigma N); not clipped.

    Source: Hendrycks and Dietterich, "Benchmarking neural network robustness", ICLR 2019 (`speckle_noise`).
    """

    name: ClassVar[str] = "speckle_noise"
    noisy: ClassVar[bool] = True
    sigma: Annotated[Drawable, Quantity(meaning="standard deviation in units of the sample's own value", minimum=0)]

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return speckle(planes, parameters["sigma"], from_stream(parameters["stream"]))


@dataclass(frozen=True)
class ImpulseNoise(Operator):
    """Salt-and-pepper noise: a share `density` of the samples becomes white (a share `salt` of them) or black.

    Source: Hendrycks and Dietterich, ICLR 2019 (`impulse_noise`: half salt, half pepper).
    """

    name: ClassVar[str] = "impulse_noise"
    noisy: ClassVar[bool] = True
    density: Annotated[Drawable, Quantity(meaning="share of the samples that are hit", minimum=0, maximum=1)]
    salt: Annotated[Drawable, Quantity(meaning="share of white among them", minimum=0, maximum=1)] = 0.5

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return impulse_noise(planes, parameters["density"], parameters["salt"], from_stream(parameters["stream"]))
