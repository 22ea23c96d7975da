"""Where a patch is cut out of a picture, and how it is turned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.bounds import Bounds
from models.degradation.protocol import Image
from transforms.errors import ConfigurationError
from transforms.planes import Planes
from transforms.value_range import Samples


@dataclass(frozen=True)
class Cut:
    """A rectangle of a picture, mirrored sideways if `flip`, then turned counter-clockwise by `rotation` quarters."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False
    rotation: int = 0

    def crop(self, samples: Samples) -> Samples:
        """The rectangle, not yet mirrored and turned; a view."""
        return samples[self.top : self.top + self.height, self.left : self.left + self.width]

    def turn(self, image: Image) -> Image:
        """The rectangle's picture mirrored and turned; a view."""
        mirrored = image[:, ::-1] if self.flip else image
        return np.rot90(mirrored, self.rotation) if self.rotation else mirrored

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` reads it."""
        return dict(vars(self))  # dataclasses.asdict copies deeply, which takes as long as the cutting

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Cut:
        """The cut that `to_json` wrote."""
        return cls(**plain)


def varies(image: Image, minimum_std: float) -> bool:
    """Whether a channel's standard deviation reaches a minimum.

    By E x^2 - (E x)^2: it is right to 0.005 in float32, and takes a tenth of the time of NumPy's.
    """
    for row in image.transpose(2, 0, 1).reshape(image.shape[2], -1):  # a view where the image lies plane by plane
        variance = float(np.dot(row, row)) / row.size - (float(np.add.reduce(row)) / row.size) ** 2
        if math.sqrt(max(0.0, variance)) >= minimum_std:
            return True
    return False


def sharpness(image: Image) -> float:
    """Standard deviation of the Laplacian of the mean of the channels; white is 1. Out of focus, it falls to the noise.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000 (variance of the Laplacian).
    """
    if min(image.shape[:2]) < 3:
        return 0.0
    gray = image.mean(axis=2)
    middle = gray[1:-1, 1:-1]
    laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * middle
    return float(laplacian.std())


def difference_hash(image: Image) -> int:
    """64 bits: whether each of 8 x 9 cells is brighter than its right neighbour. Pictures that look alike differ in few.

    Source: Krawetz, "Kind of like that", 2013 (dHash).
    """
    gray = image.mean(axis=2)
    rows, columns = (
        np.linspace(0, side, cells + 1).astype(int)[:-1] for side, cells in zip(gray.shape, (8, 9), strict=True)
    )
    cells = np.add.reduceat(np.add.reduceat(gray, rows, axis=0), columns, axis=1)
    cells /= np.outer(np.diff(rows, append=gray.shape[0]), np.diff(columns, append=gray.shape[1]))
    return int.from_bytes(np.packbits(cells[:, :-1] > cells[:, 1:]).tobytes(), "big")


def inner(planes: Planes, margin: int, size: tuple[int, int]) -> Planes:
    """What is left of ... x h x w planes without the margin; a view.

    Args:
        planes: the clean picture with its margin, or what became of it in another size.
        margin: in pixels of the clean picture.
        size: H and W of the clean picture with its margin.

    Raises:
        ConfigurationError: the margin is no whole number of pixels in the planes' size.
    """
    if not margin:
        return planes
    edges = []
    for side, clean_side in zip(planes.shape[-2:], size, strict=True):
        edge, remainder = divmod(margin * int(side), clean_side)
        if remainder:
            raise ConfigurationError(
                f"a margin of {margin} pixels is no whole number of pixels after the degradation makes {side} of {clean_side}; "
                "choose another margin, or 0"
            )
        edges.append(edge)
    return planes[..., edges[0] : planes.shape[-2] - edges[0], edges[1] : planes.shape[-1] - edges[1]]


SIZE = Bounds(minimum=1, integer=True)
COUNT = Bounds(minimum=1, integer=True)
MARGIN = Bounds(minimum=0, integer=True)
SHARPNESS = Bounds(minimum=0, maximum=4)
HASH_DISTANCE = Bounds(minimum=0, maximum=32, integer=True)
MINIMUM_STD = Bounds(minimum=0, maximum=0.5)  # no picture in [0, 1] varies more than half black, half white


@dataclass(frozen=True)
class Patches:
    """How patches are drawn.

    Attributes:
        size: side of the square, in pixels.
        per_image: patches per picture.
        flips: mirror half of them.
        rotations: turn by 0, 90, 180 or 270 degrees, each as likely.
        minimum_std: a place is flat, and drawn again, if no channel's standard deviation reaches this; white is 1.
        attempts: draws before a flat or blurred place is given up.
        minimum_sharpness: a place is blurred, and drawn again, if `sharpness` does not reach this; 0 takes all.
        minimum_hash_distance: a patch is a duplicate, and left out, if its `difference_hash` differs in fewer bits from
            that of an earlier patch of the same picture; 0 takes all.
        margin: pixels around the patch that are degraded with it and cut off afterwards, so that what a blur reads beyond
            the patch is the picture and not a mirror image.

    Raises:
        ConfigurationError: a number outside its bounds.
    """

    size: int
    per_image: int = 1
    flips: bool = False
    rotations: bool = False
    minimum_std: float = 0.0
    attempts: int = 10
    minimum_sharpness: float = 0.0
    minimum_hash_distance: int = 0
    margin: int = 0

    def __post_init__(self) -> None:
        limits = {
            "size": SIZE,
            "per_image": COUNT,
            "minimum_std": MINIMUM_STD,
            "attempts": COUNT,
            "minimum_sharpness": SHARPNESS,
            "minimum_hash_distance": HASH_DISTANCE,
            "margin": MARGIN,
        }
        for name, bounds in limits.items():
            if (complaint := bounds.complaint(getattr(self, name))) is not None:
                raise ConfigurationError(f"patches: {name}: {complaint}")

    @property
    def side(self) -> int:
        """Of what is cut: the patch with its margin."""
        return self.size + 2 * self.margin

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Cut:
        """Draws a place of a picture that is at least as large as patch and margin; every place is as likely."""
        return Cut(
            top=int(rng.integers(height - self.side + 1)),
            left=int(rng.integers(width - self.side + 1)),
            height=self.side,
            width=self.side,
            flip=self.flips and bool(rng.integers(2)),
            rotation=int(rng.integers(4)) if self.rotations else 0,
        )

    def complaint(self, image: Image) -> str | None:
        """Why there is nothing to learn from a patch, given without its margin: "flat", "blurred", or None."""
        if self.minimum_std > 0 and not varies(image, self.minimum_std):
            return "flat"
        if self.minimum_sharpness > 0 and sharpness(image) < self.minimum_sharpness:
            return "blurred"
        return None
