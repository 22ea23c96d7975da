"""What acts on each pixel alone, by a map of the picture's size: gains, masks and overlays.

    gain       y = g x                       linear, its own adjoint
    mask       y = m x + (1 - m) fill        m is 0 or 1
    overlay    y = x + a (c - x)             a layer of opacity a and colour c

A grey picture counts as one whose red, green and blue are equal, and its result is the luma of theirs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.degradation.distributions import Drawable
from models.degradation.protocol import LinearOperator, Operator, Parameters, Quantity, Shape
from transforms.planes import Planes, like

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, full swing

COLOURS = {
    "white": (1.0, 1.0, 1.0),
    "ivory": (0.95, 0.91, 0.82),  # the bare paper of an old print
    "grey": (0.5, 0.5, 0.5),
    "black": (0.03, 0.03, 0.03),  # a scanner's lid: never quite 0
    "orange": (1.0, 0.55, 0.1),  # a camera's date stamp
}


def tint(colour: tuple[float, float, float], channels: int) -> NDArray[np.float32]:
    """A colour as C x 1 x 1: three channels, or its luma."""
    values = colour if channels == 3 else (float(np.dot(LUMA, colour)),)
    return np.array(values, np.float32).reshape(-1, 1, 1)


def size_of(planes: Planes) -> tuple[int, int]:
    """H, W."""
    return int(planes.shape[-2]), int(planes.shape[-1])


@dataclass(frozen=True)
class Gain(LinearOperator):
    """y = g x, with a gain for each sample; diagonal, hence its own adjoint."""

    @classmethod
    @abstractmethod
    def gain(cls, size: tuple[int, int], channels: int, parameters: Parameters) -> NDArray[np.float32]:
        """The gain, C x H x W, or an array that broadcasts to it."""

    @classmethod
    def apply(cls, planes: Planes, parameters: Parameters) -> Planes:
        return planes * like(cls.gain(size_of(planes), int(planes.shape[-3]), parameters), planes)

    @classmethod
    def adjoint(cls, planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        return cls.apply(planes, parameters)


@dataclass(frozen=True)
class Mask(LinearOperator):
    """y = m x + (1 - m) fill, with m the same in all channels: the data term of inpainting.

    Linear for fill = 0. With another fill it is affine, and `adjoint` is that of its linear part,  x -> A x - A 0.
    """

    fill: Annotated[Drawable, Quantity(meaning="value of the missing pixels; the operator is linear for 0")] = field(
        default=0.0, kw_only=True
    )

    @classmethod
    @abstractmethod
    def intact(cls, size: tuple[int, int], parameters: Parameters) -> NDArray[np.bool_]:
        """Which pixels are kept, H x W."""

    @classmethod
    def apply(cls, planes: Planes, parameters: Parameters) -> Planes:
        intact, fill = cls.intact(size_of(planes), parameters), np.float32(parameters["fill"])
        kept = planes * like(intact.astype(np.float32), planes)
        return kept + like(~intact * fill, planes) if fill else kept

    @classmethod
    def adjoint(cls, planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        return planes * like(cls.intact(size_of(planes), parameters).astype(np.float32), planes)

    @classmethod
    def arrays(cls, shape: Shape, parameters: Parameters) -> Mapping[str, NDArray[Any]]:
        return {"mask": cls.intact(shape[:2], parameters).astype(np.uint8) * np.uint8(255)}


@dataclass(frozen=True)
class Overlay(Operator):
    """y = x + a (c - x): something lies on the picture. Where a is 0 the picture stays bit for bit what it was."""

    noisy: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def opacity(cls, size: tuple[int, int], parameters: Parameters) -> NDArray[np.float32]:
        """a, H x W, 0 to 1."""

    @classmethod
    def layer(
        cls, size: tuple[int, int], channels: int, parameters: Parameters
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """a, and c as C x H x W or an array that broadcasts to it: here the colour that the parameter `colour` names."""
        return cls.opacity(size, parameters), tint(COLOURS[parameters["colour"]], channels)

    @classmethod
    def apply(cls, planes: Planes, parameters: Parameters) -> Planes:
        opacity, paint = cls.layer(size_of(planes), int(planes.shape[-3]), parameters)
        painted = like(paint, planes) - planes
        painted *= like(opacity, planes)
        painted += planes
        return painted

    @classmethod
    def arrays(cls, shape: Shape, parameters: Parameters) -> Mapping[str, NDArray[Any]]:
        return {"mask": np.where(cls.opacity(shape[:2], parameters) > 0, np.uint8(0), np.uint8(255))}
