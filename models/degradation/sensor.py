"""What a camera's sensor does: photon and read noise in linear light behind a tone curve, and banding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from models.degradation.distributions import Drawable, DrawableWord
from models.degradation.noise import SharedOrNot, normal_numbers, photon_counts
from models.degradation.normals import standard_normal
from models.degradation.protocol import Operator, Parameters, Quantity, Wording
from transforms.planes import Planes, like, namespace, to_numpy
from transforms.randomness import from_stream

TONE_CURVES = ("srgb", "gamma", "smoothstep", "linear")
FAINTEST = 1e-12  # a photon of less light than this makes no visible noise, and its count leaves the range of NumPy's generator
_GAMMA = 2.2


def to_linear_light(planes: Planes, tone_curve: str) -> Planes:
    """The light z of [0, 1] that the tone curve shows as x = T(z).

    srgb        IEC 61966-2-1: a straight line near black, then the power 2.4
    gamma       x = z^(1 / 2.2)
    smoothstep  x = 3 t^2 - 2 t^3 with t = z^(1 / 2.2): an S-curve over the gamma, as cameras have
    linear      x = z
    """
    xp = namespace(planes)
    if tone_curve == "srgb":
        return xp.where(planes <= 0.04045, planes / 12.92, ((planes + 0.055) / 1.055) ** 2.4)
    if tone_curve == "smoothstep":
        planes = 0.5 - xp.sin(xp.arcsin(1 - 2 * planes) / 3)
    return planes if tone_curve == "linear" else planes**_GAMMA


def from_linear_light(planes: Planes, tone_curve: str) -> Planes:
    """x = T(z) for light z of [0, 1]; the inverse of `to_linear_light`."""
    xp = namespace(planes)
    if tone_curve == "srgb":
        return xp.where(planes <= 0.0031308, planes * 12.92, 1.055 * planes ** (1 / 2.4) - 0.055)
    if tone_curve != "linear":
        planes = planes ** (1 / _GAMMA)
    return planes * planes * (3 - 2 * planes) if tone_curve == "smoothstep" else planes


def sensor_counts(planes: Planes, shot: float, read: float, rng: np.random.Generator) -> Planes:
    """y = a Poisson(z / a) + b N,  N ~ N(0, 1), for linear light z >= 0: mean z, variance a z + b^2."""
    light = to_numpy(planes)
    counts = photon_counts(light, 1 / shot, rng) if shot > FAINTEST else light.copy()
    if read > 0:
        counts += standard_normal(rng, counts.shape, read)
    return like(counts, planes)


def banding_noise(
    planes: Planes, sigma_rows: float, sigma_columns: float, rng: np.random.Generator, across_channels: str
) -> Planes:
    """y(i, j) = x(i, j) + s_r R(i) + s_c C(j),  R, C ~ N(0, 1): mean x, variance s_r^2 + s_c^2.

    Two pixels of one row have the covariance s_r^2, two of one column s_c^2, all others 0.
    """
    channels, height, width = planes.shape
    rows = normal_numbers((channels, height, 1), rng, across_channels, sigma=sigma_rows)
    columns = normal_numbers((channels, 1, width), rng, across_channels, sigma=sigma_columns)
    banded = planes + like(rows, planes)
    banded += like(columns, planes)
    return banded


@dataclass(frozen=True)
class SensorNoise(Operator):
    """Poisson-Gaussian noise of a sensor, seen through the camera's tone curve T.

        z = T^-1(clip(x)) / g          y = T( clip( g (a Poisson(z / a) + b N) ) )

    In linear light the variance is a z + b^2 before the white balance gain g. The sensor's two ends are part of it: x is clipped to
    [0, 1] before, and the light after, as full wells and black levels do; so dark and bright noise is one-sided.
    Literature: a from 1e-4 (daylight) to 0.012 (night), b from 1e-4 to 0.06; gains 1.9 to 2.4 for red and 1.5 to 1.9 for blue.

    Source: Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting", TIP 2008 (variance a x + b); Guo et al., "Toward
    Convolutional Blind Denoising of Real Photographs" (CBDNet), CVPR 2019, section 3.1; Brooks et al., "Unprocessing Images for
    Learned Raw Denoising", CVPR 2019, section 3 (noise, gains, gamma, smoothstep).
    """

    name: ClassVar[str] = "sensor_noise"
    noisy: ClassVar[bool] = True
    shot: Annotated[
        Drawable, Quantity(meaning="a: light that one photon stands for; full scale is 1", minimum=0, maximum=1)
    ]
    read: Annotated[Drawable, Quantity(meaning="b: standard deviation of read noise, in linear light", minimum=0)]
    tone_curve: Annotated[DrawableWord, Wording(meaning="of the camera", options=TONE_CURVES)] = "srgb"
    red_gain: Annotated[Drawable, Quantity(meaning="white balance: red is amplified by it", above=0)] = 1.0
    blue_gain: Annotated[Drawable, Quantity(meaning="white balance: blue is amplified by it", above=0)] = 1.0

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        xp, tone_curve = namespace(planes), parameters["tone_curve"]
        gains = np.ones((planes.shape[0], 1, 1), dtype=np.float32)
        if len(gains) == 3:
            gains[0], gains[2] = parameters["red_gain"], parameters["blue_gain"]
        light = to_linear_light(xp.clip(planes, 0, 1), tone_curve) / like(gains, planes)
        noisy = sensor_counts(light, parameters["shot"], parameters["read"], from_stream(parameters["stream"]))
        return from_linear_light(xp.clip(noisy * like(gains, planes), 0, 1), tone_curve)


@dataclass(frozen=True)
class BandingNoise(Operator):
    """An offset for each row and each column, y(i, j) = x(i, j) + s_r R(i) + s_c C(j); not clipped.

    What row-wise and column-wise amplifiers add; strongest with high gain, sigma 0.002 to 0.03.

    Source: Wei et al., "A Physics-based Noise Formation Model for Extreme Low-light Raw Denoising", CVPR 2020 (row noise).
    """

    name: ClassVar[str] = "banding_noise"
    noisy: ClassVar[bool] = True
    sigma_rows: Annotated[Drawable, Quantity(meaning="standard deviation between rows; white is 1", minimum=0)]
    sigma_columns: Annotated[Drawable, Quantity(meaning="standard deviation between columns", minimum=0)] = 0.0
    across_channels: SharedOrNot = "shared"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        rng, across_channels = from_stream(parameters["stream"]), parameters["across_channels"]
        return banding_noise(planes, parameters["sigma_rows"], parameters["sigma_columns"], rng, across_channels)
