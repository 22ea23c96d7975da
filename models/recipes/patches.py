"""Where a patch is cut out of a picture, and how it is turned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.bounds import Bounds
from models.degradation.protocol import Image
from transforms.errors import ConfigurationError
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
        """The rectangle's picture mirrored and turned; contiguous."""
        mirrored = image[:, ::-1] if self.flip else image
        return np.ascontiguousarray(np.rot90(mirrored, self.rotation) if self.rotation else mirrored)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` reads it."""
        return dict(vars(self))  # dataclasses.asdict copies deeply, which takes as long as the cutting

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Cut:
        """The cut that `to_json` wrote."""
        return cls(**plain)


SIZE = Bounds(minimum=1, integer=True)
COUNT = Bounds(minimum=1, integer=True)
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
        attempts: draws before a flat place is given up.

    Raises:
        ConfigurationError: a number outside its bounds.
    """

    size: int
    per_image: int = 1
    flips: bool = False
    rotations: bool = False
    minimum_std: float = 0.0
    attempts: int = 10

    def __post_init__(self) -> None:
        limits = {"size": SIZE, "per_image": COUNT, "minimum_std": MINIMUM_STD, "attempts": COUNT}
        for name, bounds in limits.items():
            if (complaint := bounds.complaint(getattr(self, name))) is not None:
                raise ConfigurationError(f"patches: {name}: {complaint}")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Cut:
        """Draws a place of a picture that is at least as large as the patch; every place is as likely."""
        return Cut(
            top=int(rng.integers(height - self.size + 1)),
            left=int(rng.integers(width - self.size + 1)),
            height=self.size,
            width=self.size,
            flip=self.flips and bool(rng.integers(2)),
            rotation=int(rng.integers(4)) if self.rotations else 0,
        )

    def is_flat(self, image: Image) -> bool:
        """Whether there is nothing to learn from a patch."""
        return self.minimum_std > 0 and float(image.std(axis=(0, 1)).max()) < self.minimum_std
