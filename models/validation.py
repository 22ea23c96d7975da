"""How good a network is: whole pictures, degraded once, restored in float32, measured with a named protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.recipes import Pair, Recipe
from models.training_data import TrainingPicture
from transforms.metrics import parse_metric
from transforms.value_range import from_float, to_float


@dataclass(frozen=True)
class ValidationPair:
    """Clean samples as stored, and the degraded picture, float32 H x W x C, neither clipped nor rounded."""

    clean: NDArray[np.uint8]
    degraded: NDArray[np.float32]


def validation_pairs(pictures: Sequence[TrainingPicture], recipe: Recipe, seed: int) -> list[ValidationPair]:
    """Whole pictures with their degradation, the same at every call. Stored pairs keep theirs."""
    pairs, recipe = [], replace(recipe, patches=None)
    for picture in pictures:
        if picture.degraded is not None:
            pairs.append(ValidationPair(picture.clean, to_float(picture.degraded)))
            continue
        pair = recipe.pair(picture.clean, key=picture.key, patch=0, seed=seed)
        if isinstance(pair, Pair):
            pairs.append(
                ValidationPair(from_float(pair.clean, np.dtype(np.uint8)), np.asarray(pair.degraded, np.float32))
            )
    return pairs


def mean_quality(network: nn.Module, pairs: Sequence[ValidationPair], protocol: str, device: torch.device) -> float:
    """Mean of the metric over the pictures, restored, clipped and rounded to 8 bit. Leaves the network in training mode."""
    metric = parse_metric(protocol)
    network.eval()
    with torch.inference_mode():
        values = [metric(_restored(network, pair.degraded, device), pair.clean) for pair in pairs]
    network.train()
    return float(np.mean(values))


def _restored(network: nn.Module, degraded: NDArray[np.float32], device: torch.device) -> NDArray[np.uint8]:
    batch = torch.from_numpy(np.ascontiguousarray(np.moveaxis(degraded, 2, 0)))[None].to(device)
    restored = network(batch)[0].float().cpu().numpy()
    return from_float(np.moveaxis(restored, 0, 2), np.dtype(np.uint8))
