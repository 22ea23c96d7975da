"""Quantisation: few grey levels, and the 8 bits of an ordinary file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from models.degradation.distributions import Drawable
from models.degradation.planes import Planes, like, namespace, to_numpy
from models.degradation.protocol import Operator, Parameters, Quantity
from transforms.value_range import from_float, to_float


def quantise(planes: Planes, levels: int) -> Planes:
    """y = round((L - 1) clip(x)) / (L - 1): L equidistant levels from black to white, halves to even."""
    xp = namespace(planes)
    steps = float(levels - 1)
    return xp.round(xp.clip(planes, 0, 1) * steps) / steps


@dataclass(frozen=True)
class UniformQuantisation(Operator):
    """L equidistant levels per channel; a busy picture gets an error of variance q^2 / 12 with q = 1 / (L - 1).

    Source: Bennett, "Spectra of quantized signals", BSTJ 1948 (the q^2 / 12 model).
    """

    name: ClassVar[str] = "uniform_quantisation"
    levels: Annotated[
        Drawable, Quantity(meaning="levels, with black and white", minimum=2, maximum=65536, integer=True)
    ]

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return quantise(planes, parameters["levels"])


@dataclass(frozen=True)
class RoundTo8Bit(Operator):
    """Clips to [0, 1] and rounds to 256 levels: bit for bit what a trip through an 8-bit file does to a picture."""

    name: ClassVar[str] = "round_to_8bit"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return like(to_float(from_float(to_numpy(planes), np.uint8)), planes)
