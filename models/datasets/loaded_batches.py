"""Batches that are put together pair by pair, in loading processes or in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from models.datasets.drawn import Floats, PairSource, refuse_mixed


class LoadedBatches(Dataset[tuple[Tensor, Tensor]]):
    """Batch number n: degraded and clean pictures, N x C x h x w and N x C x H x W, of the draws n N ... (n + 1) N - 1.

    Args:
        targets: makes what is learned instead of the clean pictures, of the pairs' parameters.

    Raises:
        ConfigurationError: draws of several shapes.
    """

    def __init__(
        self,
        source: PairSource,
        batch_size: int,
        targets: Callable[[Sequence[Mapping[str, Any]]], Tensor] | None = None,
    ) -> None:
        self._source, self._size, self._targets = source, batch_size, targets

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        pairs = [self._source.draw(number * self._size + slot) for slot in range(self._size)]
        degraded = _stacked([each.degraded for each in pairs], "degraded")
        if self._targets is not None:
            return degraded, self._targets([each.parameters for each in pairs])
        return degraded, _stacked([each.clean for each in pairs], "clean")


def _stacked(pictures: list[Floats], role: str) -> Tensor:
    refuse_mixed((each.shape for each in pictures), f"{role} pictures")
    return torch.from_numpy(np.stack(pictures))
