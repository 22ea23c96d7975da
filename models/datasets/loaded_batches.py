"""Batches that are put together pair by pair, in loading processes or in between."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from models.datasets.drawn import Floats, PairSource, refuse_mixed


class LoadedBatches(Dataset[tuple[Tensor, Tensor]]):
    """Batch number n: degraded and clean pictures, N x C x h x w and N x C x H x W, of the draws n N ... (n + 1) N - 1.

    Raises:
        ConfigurationError: draws of several shapes.
    """

    def __init__(self, source: PairSource, batch_size: int) -> None:
        self._source, self._size = source, batch_size

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        pairs = [self._source.draw(number * self._size + slot) for slot in range(self._size)]
        return _stacked([each.degraded for each in pairs], "degraded"), _stacked(
            [each.clean for each in pairs], "clean"
        )


def _stacked(pictures: list[Floats], role: str) -> Tensor:
    refuse_mixed((each.shape for each in pictures), f"{role} pictures")
    return torch.from_numpy(np.stack(pictures))
