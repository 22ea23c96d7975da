"""Fresh pairs in batches, degraded together on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from models.datasets.drawn import refuse_mixed
from models.datasets.fresh_pairs import FreshPairs
from models.datasets.resident import ResidentPictures
from models.degradation.chains import replay_each
from models.recipes import Cut, Recipe
from models.recipes.patches import inner
from models.training_data import CleanPicture
from transforms.planes import to_planes


class FreshBatches(Dataset[tuple[Tensor, Tensor]]):
    """Batch number n of what `FreshPairs` draws, as tensors on a device: degraded N x C x h x w, clean N x C x H x W.

    Places and parameters are drawn on the host by the same keys, so that the pairs are those of `FreshPairs`, up to the
    rounding of another processor. Operators compute on the device, pictures with the same next step as one batch. Noise is
    drawn by NumPy on the host wherever it is added, so that it is the same noise; codecs work on the host too. For a
    device, use it in the training's own process: it starts kernels, which no forked process can.

    Args:
        pictures, recipe, patch_size, seed: as for `FreshPairs`.
        device: where the batches are wanted.
        targets: makes what is learned instead of the clean pictures, of the pairs' parameters.
        resident: keep the clean pictures on the device, as uint8, and cut there. Default: if that is no CPU and they take
            less than half of its free memory.

    Raises:
        ConfigurationError: as `FreshPairs`; while drawing, pictures of one batch that have several sizes.
    """

    def __init__(
        self,
        pictures: Sequence[CleanPicture],
        recipe: Recipe,
        batch_size: int,
        patch_size: int | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        targets: Callable[[Sequence[Mapping[str, Any]]], Tensor] | None = None,
        resident: bool | None = None,
    ) -> None:
        self._targets = targets
        self._pairs = FreshPairs(pictures, recipe, patch_size, seed)
        self._batch_size, self._device = batch_size, torch.device(device)
        if resident is None:
            resident = ResidentPictures.fit(self._pairs.pictures, recipe.channels, self._device)
        self._resident = ResidentPictures(self._pairs.pictures, recipe.channels, self._device) if resident else None

    def __len__(self) -> int:
        return max(1, len(self._pairs) // self._batch_size)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        chosen = [self._pairs.choose(number * self._batch_size + slot) for slot in range(self._batch_size)]
        drawn = [each for _, _, each in chosen]
        refuse_mixed(((c, h, w) for h, w, c in (each.clean.shape for each in drawn)), "clean pictures")
        if self._resident is not None:
            places = [(which, Cut.from_json(each.parameters["cut"])) for which, _, each in chosen]
            clean = self._resident.cut(places)
        else:
            clean = torch.from_numpy(np.stack([to_planes(each.clean) for each in drawn])).to(self._device)
        degraded: Tensor = replay_each(clean, [each.parameters["degradation"] for each in drawn])
        if degraded.data_ptr() == clean.data_ptr():
            degraded = degraded.clone()  # every step stayed away
        size, margin = (clean.shape[-2], clean.shape[-1]), drawn[0].margin
        if self._targets is not None:
            return inner(degraded, margin, size), self._targets([each.parameters for each in drawn])
        return inner(degraded, margin, size), inner(clean, margin, size)
