"""Quantisation: few grey levels, bits, steps, the 8 bits of an ordinary file; saturation and clipping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.degradation.distributions import Drawable, DrawableWord
from models.degradation.protocol import Operator, Parameters, Quantity, Wording
from transforms.planes import Planes, like, namespace, to_numpy
from transforms.randomness import from_stream

ROUNDINGS = ("nearest", "floor")
DITHERS = ("none", "uniform", "triangular")
# A value that stands on a step in 8 or 16 bit may lie two roundings of float32 below it: floor must not drop it by a level.
_SLACK = 1 + 4 * float(np.finfo(np.float32).eps)


def quantise(planes: Planes, levels: int, rounding: str = "nearest") -> Planes:
    """y = round((L - 1) clip(x)) / (L - 1), halves to even, or floor: L equidistant levels from black to white."""
    xp = namespace(planes)
    steps = float(levels - 1)
    scaled = xp.clip(planes, 0, 1) * steps
    return (xp.floor(scaled * _SLACK) if rounding == "floor" else xp.round(scaled)) / steps


def quantise_in_steps(planes: Planes, step: float, rounding: str = "floor") -> Planes:
    """y = q floor(clip(x) / q), or round: the multiples of q up to white."""
    xp = namespace(planes)
    scaled = xp.clip(planes, 0, 1) * (1 / step)
    whole = xp.floor(scaled * _SLACK) if rounding == "floor" else xp.round(scaled)
    return xp.clip(whole, 0, float(np.floor(1 / step * _SLACK))) * step


def quantise_with_dither(planes: Planes, levels: int, dither: str, rng: np.random.Generator) -> Planes:
    """y = round((L - 1) clip(x) + v) / (L - 1), clipped, with noise v added before and not taken off after.

    uniform      v ~ U(-1/2, 1/2): the mean of y is x, its variance q^2 f (1 - f) with x a share f above a level
    triangular   v = u - w, u, w ~ U(-1/2, 1/2): the mean of y is x and the variance of the whole error q^2 / 4, whatever x is
    """
    if dither == "none":
        return quantise(planes, levels)
    xp, shape, steps = namespace(planes), tuple(planes.shape), float(levels - 1)
    noise = rng.random(shape, dtype=np.float32)
    noise -= np.float32(0.5) if dither == "uniform" else rng.random(shape, dtype=np.float32)
    return xp.clip(xp.round(xp.clip(planes, 0, 1) * steps + like(noise, planes)), 0, steps) / steps


_ROUNDING = Wording(meaning="to the nearest level, or to the one below", options=ROUNDINGS)


@dataclass(frozen=True)
class UniformQuantisation(Operator):
    """L equidistant levels per channel; a busy picture gets an error of variance q^2 / 12 with q = 1 / (L - 1).

    With `rounding: floor` the variance is the same and the mean error -q / 2; white is then reached by white alone.

    Source: Bennett, "Spectra of quantized signals", BSTJ 1948 (the q^2 / 12 model). L of 5, 8, 16, 32.
    """

    name: ClassVar[str] = "uniform_quantisation"
    levels: Annotated[
        Drawable, Quantity(meaning="levels, with black and white", minimum=2, maximum=65536, integer=True)
    ]
    rounding: Annotated[DrawableWord, _ROUNDING] = "nearest"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return quantise(planes, parameters["levels"], parameters.get("rounding", "nearest"))


@dataclass(frozen=True)
class StepQuantisation(Operator):
    """Multiples of a step q, y = q floor(clip(x) / q): `step: 55/255` leaves 0, 55, 110, 165, 220 of 255.

    Source: Yeh et al., "Image Restoration with Deep Generative Models", ICASSP 2018 (quantisation to 5 levels; the released code
    takes floor(v / 55) 55 of 8-bit values).
    """

    name: ClassVar[str] = "step_quantisation"
    step: Annotated[Drawable, Quantity(meaning="distance of the levels; white is 1", minimum=1 / 65535, maximum=1)]
    rounding: Annotated[DrawableWord, _ROUNDING] = "floor"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return quantise_in_steps(planes, parameters["step"], parameters["rounding"])


@dataclass(frozen=True)
class BitDepth(Operator):
    """2^b levels per channel from black to white, with or without dither.

    Source: Lipshitz, Wannamaker and Vanderkooy, "Quantization and Dither: A Theoretical Survey", JAES 1992
    (non-subtractive dither).
    """

    name: ClassVar[str] = "bit_depth"
    noisy: ClassVar[bool] = True
    bits: Annotated[Drawable, Quantity(meaning="bits per channel", minimum=1, maximum=16, integer=True)]
    dither: Annotated[DrawableWord, Wording(meaning="noise added before rounding", options=DITHERS)] = "none"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        rng = from_stream(parameters["stream"])
        return quantise_with_dither(planes, 1 << parameters["bits"], parameters["dither"], rng)


@dataclass(frozen=True)
class RoundTo8Bit(Operator):
    """Clips to [0, 1] and rounds to 256 levels: bit for bit what a trip through an 8-bit file does to a picture."""

    name: ClassVar[str] = "round_to_8bit"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        whole: NDArray[Any] = to_numpy(planes).clip(0, 1, dtype=np.float32)
        whole *= np.float32(255)
        np.rint(whole, out=whole)
        whole /= np.float32(255)
        return like(whole, planes)


@dataclass(frozen=True)
class Saturation(Operator):
    """An overexposed sensor, y = min(a x, z_max): all that is brighter than z_max / a is lost; nothing happens at black.

    Source: Xu et al., "Deep Convolutional Neural Network for Image Deconvolution", NIPS 2014, equation 1 (blur first, then this; a
    of 1.2 to 3).
    """

    name: ClassVar[str] = "saturation"
    gain: Annotated[Drawable, Quantity(meaning="a: exposure", above=0)]
    ceiling: Annotated[Drawable, Quantity(meaning="z_max: the largest value that the sensor holds", above=0)] = 1.0

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return namespace(planes).clip(planes * parameters["gain"], None, parameters["ceiling"])


@dataclass(frozen=True)
class Highlights(Operator):
    """Light that a picture could not show, y = x + (g - 1) max(x - t, 0) / (1 - t): white becomes g, nothing changes up to t.

    Before a blur it makes of a picture that was clipped at 1 the light that fell on the sensor; after it, `clip` is the sensor.

    Source: Rim et al., "Realistic blur synthesis for learning image deblurring", ECCV 2022 (blurred pictures saturate as real ones
    do only if clipped pixels are made brighter before the blur); the ramp from t on is our own.
    """

    name: ClassVar[str] = "highlights"
    gain: Annotated[Drawable, Quantity(meaning="g: light where the picture is white", minimum=1)]
    threshold: Annotated[Drawable, Quantity(meaning="t: up to here nothing changes", minimum=0, below=1)] = 0.9

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        threshold = parameters["threshold"]
        slope = (parameters["gain"] - 1) / (1 - threshold)
        return planes + slope * namespace(planes).clip(planes - threshold, 0, None)


@dataclass(frozen=True)
class Clip(Operator):
    """y = min(max(x, low), high), as the released code of many papers does after each of its steps."""

    name: ClassVar[str] = "clip"
    low: Annotated[Drawable, Quantity(meaning="smallest value that stays")] = 0.0
    high: Annotated[Drawable, Quantity(meaning="largest value that stays; wins over low")] = 1.0

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return planes.clip(parameters["low"], parameters["high"])  # a method of both kinds, in less time than np.clip
