"""Pairs that are made on the fly, by the code that `conservator degrade` runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from models.datasets.drawn import ATTEMPTS, DrawnPair
from models.degradation.chains import replay
from models.recipes import Drawn, Recipe
from models.recipes.patches import inner
from models.training_data import CleanPicture
from transforms.errors import ConfigurationError
from transforms.planes import to_planes
from transforms.randomness import generator

_NEXT_ATTEMPT = 1 << 40  # patch numbers of one draw's attempts; a run has fewer draws


class FreshPairs(Dataset[dict[str, Any]]):
    """Cuts patches from clean pictures, chosen in proportion to their area, and degrades them by a recipe.

    `pairs[number]` is a dictionary as `PairShards` gives it. Any number from 0 may be asked for; an epoch has no meaning here,
    and `len` is only what samplers go by. A draw with (key, patch) in its parameters is bit for bit what
    `recipe.pair(picture, key=key, patch=patch, seed=seed, size=patch_size)` makes.

    Args:
        pictures: clean, all with the channels that the network wants; see `models.training_data.load_pictures`.
        patch_size: side of the clean patch; None: the recipe's, or whole pictures if it cuts none.
        length: draws that an epoch is said to have; default: what the recipe cuts from all pictures.
        with_parameters: items tell how they were degraded (`degradation`, `cut`, `channels`, `patch`).

    Raises:
        ConfigurationError: no picture is large enough; while drawing, a recipe that rejects everything.
    """

    def __init__(
        self,
        pictures: Sequence[CleanPicture],
        recipe: Recipe,
        patch_size: int | None = None,
        seed: int = 0,
        *,
        length: int | None = None,
        with_parameters: bool = False,
    ) -> None:
        size = patch_size or (recipe.patches.size if recipe.patches else None)
        margin = recipe.patches.margin if recipe.patches else 0
        self.pictures = _large_enough(pictures, size + 2 * margin if size else recipe.crop_to_multiple)
        self.recipe = recipe
        self.patch_size, self.seed, self._with_parameters = patch_size, seed, with_parameters
        per_image = recipe.patches.per_image if recipe.patches else 1
        self._length = len(self.pictures) * per_image if length is None else length
        areas = np.array([height * width for height, width in (picture.size for picture in self.pictures)], np.float64)
        self._shares = np.cumsum(areas / areas.sum())
        self._shares[-1] = 1.0  # the sum may round below one, and the last draw would fall off the end

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.draw(number).item(with_parameters=self._with_parameters)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """As many draws as `len` says."""
        return (self[number] for number in range(len(self)))

    def draw(self, number: int) -> DrawnPair:
        """The pair of a number, from 0.

        Raises:
            IndexError: a negative number.
            ConfigurationError: the recipe rejected too many patches in a row.
        """
        which, patch, drawn = self.choose(number)
        clean = to_planes(drawn.clean)
        if np.may_share_memory(clean, self.pictures[which].clean):
            clean = clean.copy()
        degraded = np.ascontiguousarray(replay(clean, drawn.parameters["degradation"]), np.float32)
        if np.may_share_memory(degraded, clean):
            degraded = degraded.copy()  # a chain of which every step stayed away hands the clean picture back
        if drawn.margin:
            size = clean.shape[1:]
            degraded, clean = (np.ascontiguousarray(inner(each, drawn.margin, size)) for each in (degraded, clean))
        return DrawnPair(self.pictures[which].key, clean, degraded, {**drawn.parameters, "patch": patch})

    def choose(self, number: int) -> tuple[int, int, Drawn]:
        """All that is random in a draw: which picture, which patch of it, and what happens to that."""
        if number < 0:
            raise IndexError(f"draw {number}; the first one is 0")
        rng = generator(self.seed, "training draw", patch=number)
        for attempt in range(ATTEMPTS):
            which = int(np.searchsorted(self._shares, rng.random(), side="right"))
            picture, patch = self.pictures[which], number + attempt * _NEXT_ATTEMPT
            drawn = self.recipe.draw(picture.clean, key=picture.key, patch=patch, seed=self.seed, size=self.patch_size)
            if isinstance(drawn, Drawn):
                return which, patch, drawn
        raise ConfigurationError(
            f"recipe {self.recipe.name!r} rejected {ATTEMPTS} patches in a row; lower its rejection thresholds or use other "
            "pictures"
        )


def _large_enough(pictures: Sequence[CleanPicture], side: int) -> list[CleanPicture]:
    kept = [picture for picture in pictures if min(picture.size) >= side]
    if not kept:
        raise ConfigurationError(
            f"none of {len(pictures)} pictures is at least {side} pixels wide and high; lower patch_size or check --data"
        )
    return kept
