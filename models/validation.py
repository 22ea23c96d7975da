"""How good a network is: whole pictures, degraded once, restored in float32, measured with a named protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.datasets import PairShards
from models.datasets.drawn import Floats
from models.degradation.chains import replay
from models.recipes import Drawn, Pair, Recipe
from models.training_data import CleanPicture
from transforms.metrics import parse_metric
from transforms.planes import to_planes
from transforms.value_range import from_float


@dataclass(frozen=True)
class ValidationPair:
    """Clean samples, H x W x C, the degraded picture, C x h x w, neither clipped nor rounded, and how it was degraded."""

    clean: NDArray[np.uint8]
    degraded: Floats
    parameters: Mapping[str, Any] = field(default_factory=dict)


def validation_pairs(pictures: Sequence[CleanPicture], recipe: Recipe, seed: int) -> list[ValidationPair]:
    """Whole pictures with their degradation, the same at every call."""
    pairs, recipe = [], replace(recipe, patches=None)
    for picture in pictures:
        drawn = recipe.draw(picture.clean, key=picture.key, patch=0, seed=seed)
        if isinstance(drawn, Drawn):
            degraded = replay(to_planes(drawn.clean), drawn.parameters["degradation"])
            pairs.append(ValidationPair(_eight_bit(drawn.clean), np.asarray(degraded, np.float32), drawn.parameters))
    return pairs


def patch_pairs(pictures: Sequence[CleanPicture], recipe: Recipe, seed: int) -> list[ValidationPair]:
    """The patches that `conservator degrade` cuts from the pictures, the same at every call."""
    made = [
        pair
        for each in pictures
        for pair in recipe.pairs(each.clean, key=each.key, seed=seed)
        if isinstance(pair, Pair)
    ]
    return [ValidationPair(_eight_bit(pair.clean), to_planes(pair.degraded), pair.parameters) for pair in made]


def stored_validation_pairs(pairs: PairShards) -> list[ValidationPair]:
    """Stored pairs, whole, in their order."""
    drawn = [pairs.whole(position) for position in range(len(pairs))]
    return [ValidationPair(_eight_bit(np.moveaxis(each.clean, 0, 2)), each.degraded, each.parameters) for each in drawn]


def mean_quality(network: nn.Module, pairs: Sequence[ValidationPair], protocol: str, device: torch.device) -> float:
    """Mean of the metric over the pictures, restored, clipped and rounded to 8 bit. Leaves the network in training mode."""
    metric = parse_metric(protocol)
    network.eval()
    with torch.inference_mode():
        values = [metric(_restored(network, pair.degraded, device), pair.clean) for pair in pairs]
    network.train()
    return float(np.mean(values))


def _restored(network: nn.Module, degraded: Floats, device: torch.device) -> NDArray[np.uint8]:
    restored = network(torch.from_numpy(degraded)[None].to(device))[0].float().cpu().numpy()
    return _eight_bit(np.moveaxis(restored, 0, 2))


def _eight_bit(image: Floats) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = from_float(image, np.uint8)
    return rounded
