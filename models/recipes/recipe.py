"""Recipes: how pairs of a clean and a degraded picture are made.

All that is drawn follows from (seed, key, patch) alone, and is written into the pair's JSON. So a pair can be made
again from either: from those three, or from the JSON and the clean picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from models.degradation.chains import draw_steps, replay
from models.degradation.protocol import Degradation, Image
from models.recipes.channels import CHANNELS, with_channels
from models.recipes.patches import Cut, Patches
from transforms.errors import ConfigurationError
from transforms.randomness import generator
from transforms.value_range import Samples, to_float

STORES = ("png", "npy")
_STEP_CUT, _STEP_DEGRADE = 0, 1  # independent draws: another way of cutting leaves the noise as it is


@dataclass(frozen=True)
class Pair:
    """A clean and a degraded picture.

    Attributes:
        clean: float32, H x W x C, [0, 1]; of whole float32 pictures it is the samples themselves, not a copy.
        degraded: float32; may leave [0, 1] unless the recipe rounds it.
        parameters: plain JSON: `channels`, `cut` and the drawn `degradation`: all that `Recipe.replay` needs.
        patch: its number in the picture.
    """

    clean: Image
    degraded: Image
    parameters: dict[str, Any]
    patch: int


@dataclass(frozen=True)
class Rejection:
    """No pair for this patch; `reason` is counted ("too_small", "flat"), `detail` is for a person."""

    patch: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Recipe:
    """A degradation with its patches and its way of storing.

    Attributes:
        name: default: that of the file, without its ending.
        degradation: an operator or a chain.
        description, source: for a person: what it is for, and the paper and section that it follows.
        channels: the clean picture is taken "as_is", or made "gray" (BT.601 luma) or "rgb" before all else.
        patches: None for whole pictures.
        store: file type of the degraded picture: "png" clips and rounds, "npy" keeps float32 as it is.

    Raises:
        ConfigurationError: unknown `channels` or `store`.
    """

    name: str
    degradation: Degradation
    description: str = ""
    source: str = ""
    channels: str = "as_is"
    patches: Patches | None = None
    store: str = "png"

    def __post_init__(self) -> None:
        for name, known in (("channels", CHANNELS), ("store", STORES)):
            if getattr(self, name) not in known:
                raise ConfigurationError(f"recipe {self.name!r}: {name}: {getattr(self, name)!r} is not one of {known}")

    def pair(self, samples: Samples, *, key: str, patch: int, seed: int, size: int | None = None) -> Pair | Rejection:
        """Makes one pair.

        Args:
            samples: the clean picture, H x W x C with C of 1 or 3, uint8, uint16 or float32.
            key: the record's key.
            patch: any number from 0; each gives another place and another draw.
            seed: the run's.
            size: side of the patch in pixels, instead of the recipe's.

        Raises:
            ValueError: samples of another shape.
            TypeError: samples of another type.
        """
        found = self._cut(samples, self._patches(size), generator(seed, key, patch, _STEP_CUT), patch)
        if isinstance(found, Rejection):
            return found
        cut, clean = found
        steps = draw_steps(self.degradation, generator(seed, key, patch, _STEP_DEGRADE), clean.shape)
        parameters = {"channels": self.channels, "cut": cut.to_json(), "degradation": steps}
        return Pair(clean, self.degrade(clean, parameters), parameters, patch)

    def pairs(
        self, samples: Samples, *, key: str, seed: int, per_image: int | None = None, size: int | None = None
    ) -> Iterator[Pair | Rejection]:
        """Makes the pairs 0, 1, ... of a picture; one that is too small gives a single rejection."""
        planned = self.patches.per_image if self.patches else 1
        for patch in range(planned if per_image is None else per_image):
            made = self.pair(samples, key=key, patch=patch, seed=seed, size=size)
            yield made
            if isinstance(made, Rejection) and made.reason == "too_small":
                return

    def degrade(self, clean: Image, parameters: Mapping[str, Any]) -> Image:
        """The degraded picture again, from the pair's clean picture and its parameters: the same bytes."""
        degraded = replay(clean, parameters["degradation"])
        # A chain of which every step stayed away hands the clean picture back; the two halves must not share memory.
        return degraded.copy() if np.may_share_memory(degraded, clean) else degraded

    def replay(self, samples: Samples, parameters: Mapping[str, Any], patch: int = 0) -> Pair:
        """The whole pair again, from the picture that it was cut from and its parameters: the same bytes."""
        clean = _clean(samples, Cut.from_json(parameters["cut"]), parameters["channels"])
        return Pair(clean, self.degrade(clean, parameters), dict(parameters), patch)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with every default written out; `load_recipe` reads it."""
        words = {"name": self.name, "description": self.description, "source": self.source}
        return {"kind": "degradation", **words, **self._deciding()}

    def fingerprint(self) -> str:
        """Hash of all that decides the bytes of a pair: neither the name nor what is for a person."""
        canonical = json.dumps(_canonical(self._deciding()), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def _deciding(self) -> dict[str, Any]:
        return {
            "channels": self.channels,
            "patches": asdict(self.patches) if self.patches else None,
            "degradation": {self.degradation.name: self.degradation.to_json()},
            "store": self.store,
        }

    def _patches(self, size: int | None) -> Patches | None:
        if size is None or (self.patches is not None and self.patches.size == size):
            return self.patches
        return replace(self.patches, size=size) if self.patches else Patches(size)

    def _cut(
        self, samples: Samples, patches: Patches | None, rng: np.random.Generator, patch: int
    ) -> tuple[Cut, Image] | Rejection:
        height, width = samples.shape[:2]
        if patches is None:
            cut = Cut(0, 0, height, width)
            return cut, _clean(samples, cut, self.channels)
        if patches.size > min(height, width):
            detail = f"the picture's {width}x{height} pixels hold no patch of {patches.size}x{patches.size}"
            return Rejection(patch, "too_small", detail)
        for _ in range(patches.attempts):
            cut = patches.draw(rng, height, width)
            clean = _clean(samples, cut, self.channels)
            if not patches.is_flat(clean):
                return cut, clean
        detail = f"{patches.attempts} places, all with a standard deviation below {patches.minimum_std:g}"
        return Rejection(patch, "flat", detail)


def _clean(samples: Samples, cut: Cut, channels: str) -> Image:
    return cut.turn(to_float(with_channels(cut.crop(samples), channels)))


def _canonical(value: Any) -> Any:
    """Numbers in one spelling: 1 and 1.0 are the same setting."""
    if isinstance(value, dict):
        return {key: _canonical(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
