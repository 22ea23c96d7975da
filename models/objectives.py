"""What a training minimises, and by which figures it is judged.

    mean_squared_error    mean |f(y) - x|^2, x the clean picture                      judged on whole pictures by a metric
    mean_absolute_error   mean |f(y) - x|                                             judged likewise
    cross_entropy         -sum_t p_t log softmax(f(y))_t, p the drawn motion's shares  judged on its patches by the answers

Labels are the 73 of linear motion (`models.degradation.motion_labels`). The motion is read from the pair's recorded parameters;
one of the 361 whose angle lies between two of the 73 is shared out over both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.degradation.motion_labels import (
    drawn_motion,
    end_point_error,
    label_of_motion,
    label_shares,
    label_vectors,
    motion_vector,
)
from models.networks.network import RestorationNetwork
from models.recipes import Recipe
from models.training_data import CleanPicture
from models.validation import ValidationPair, mean_quality, patch_pairs, validation_pairs
from transforms.errors import ConfigurationError
from transforms.metrics import parse_metric

Targets = Callable[[Sequence[Mapping[str, Any]]], Tensor]  # the pairs' parameters -> one target for each
TOP1, END_POINT_ERROR = "top1[label]", "end_point_error[px]"
_JUDGED_TOGETHER = 256  # patches


class Objective(Protocol):
    """A loss with what it compares."""

    def targets(self) -> Targets | None:
        """What is learned instead of the clean pictures; None: those."""

    def loss(self, network: RestorationNetwork, degraded: Tensor, answer: Tensor, target: Tensor) -> Tensor:
        """A scalar. `answer` is what the network made of `degraded`, as float32.

        Raises:
            ConfigurationError: the answer does not fit the target.
        """

    def judged(self, pictures: Sequence[CleanPicture], recipe: Recipe, seed: int) -> list[ValidationPair]:
        """What the figures are measured on, the same at every call."""

    def figures(self, network: nn.Module, pairs: Sequence[ValidationPair], device: torch.device) -> dict[str, float]:
        """Name -> value. Leaves the network in training mode."""


def objective_named(name: str, protocol: str) -> Objective:
    """The objective of a training recipe, with the protocol of its validation.

    Raises:
        ConfigurationError: an unknown name, or a protocol that it does not have.
    """
    known: dict[str, type[_OfPictures | CrossEntropy]] = {
        "mean_squared_error": MeanSquaredError,
        "mean_absolute_error": MeanAbsoluteError,
        "cross_entropy": CrossEntropy,
    }
    if name not in known:
        raise ConfigurationError(f"unknown objective {name!r}; expected one of {', '.join(known)}")
    return known[name](protocol)


@dataclass(frozen=True)
class _OfPictures:
    """A distance between the restored picture and the clean one, inside the border that training loses."""

    protocol: str

    def __post_init__(self) -> None:
        parse_metric(self.protocol)

    def targets(self) -> None:
        return None

    def loss(self, network: RestorationNetwork, degraded: Tensor, answer: Tensor, target: Tensor) -> Tensor:
        clean = _inside(target, network.training_border)
        if answer.shape != clean.shape:
            raise ConfigurationError(
                f"the network makes {_size(answer)} of {_size(degraded)}, but the clean pictures have {_size(clean)}: its "
                "scale, channels or borders do not fit the degradation recipe"
            )
        return self.distance(answer, clean)

    def distance(self, answer: Tensor, clean: Tensor) -> Tensor:
        raise NotImplementedError

    def judged(self, pictures: Sequence[CleanPicture], recipe: Recipe, seed: int) -> list[ValidationPair]:
        return validation_pairs(pictures, recipe, seed)

    def figures(self, network: nn.Module, pairs: Sequence[ValidationPair], device: torch.device) -> dict[str, float]:
        return {self.protocol: mean_quality(network, pairs, self.protocol, device)}


@dataclass(frozen=True)
class MeanSquaredError(_OfPictures):
    """mean |f(y) - x|^2."""

    def distance(self, answer: Tensor, clean: Tensor) -> Tensor:
        return functional.mse_loss(answer, clean)


@dataclass(frozen=True)
class MeanAbsoluteError(_OfPictures):
    """mean |f(y) - x|: a few hard patches do not outweigh all others, as they do when errors are squared.

    Source: Lim et al., "Enhanced deep residual networks for single image super-resolution", CVPRW 2017, section 3.3.
    """

    def distance(self, answer: Tensor, clean: Tensor) -> Tensor:
        return functional.l1_loss(answer, clean)


@dataclass(frozen=True)
class CrossEntropy:
    """-sum_t p_t log softmax(f(y))_t, averaged over all windows of a patch.

    Figures: `top1[label]`, the share of patches whose likeliest label is the one nearest to the drawn motion;
    `end_point_error[px]`, the mean length of the difference between the motion vector of that label and the drawn one, up to
    the sign of either.
    """

    protocol: str

    def __post_init__(self) -> None:
        if self.protocol not in (TOP1, END_POINT_ERROR):
            raise ConfigurationError(
                f"cross_entropy has no protocol {self.protocol!r}; expected {TOP1} or {END_POINT_ERROR}"
            )

    def targets(self) -> Targets:
        return _shares

    def loss(self, network: RestorationNetwork, degraded: Tensor, answer: Tensor, target: Tensor) -> Tensor:
        if answer.dim() != 4 or answer.shape[1] != target.shape[1]:
            raise ConfigurationError(
                f"the network makes {_size(answer)} of {_size(degraded)}, expected N x {target.shape[1]} x h x w, one value for "
                "each label of motion; choose a network such as motion_spectrum"
            )
        return functional.cross_entropy(answer, target[:, :, None, None].expand(-1, -1, *answer.shape[2:]))

    def judged(self, pictures: Sequence[CleanPicture], recipe: Recipe, seed: int) -> list[ValidationPair]:
        return patch_pairs(pictures, recipe, seed)

    def figures(self, network: nn.Module, pairs: Sequence[ValidationPair], device: torch.device) -> dict[str, float]:
        drawn = [drawn_motion(pair.parameters) for pair in pairs]
        answers = _likeliest(network, pairs, device)
        vectors = label_vectors(1)[answers]
        truth = np.array([motion_vector(each["length_px"], each["angle_deg"]) for each in drawn])
        right = answers == [label_of_motion(each["length_px"], each["angle_deg"], 1) for each in drawn]
        truth[[each["label"] == 0 for each in drawn]] = 0.0
        return {TOP1: float(right.mean()), END_POINT_ERROR: float(end_point_error(vectors, truth).mean())}


def _shares(parameters: Sequence[Mapping[str, Any]]) -> Tensor:
    """N x 73, float32."""
    drawn = [drawn_motion(each) for each in parameters]
    return torch.from_numpy(np.stack([label_shares(each["length_px"], each["angle_deg"]) for each in drawn]))


def _likeliest(network: nn.Module, pairs: Sequence[ValidationPair], device: torch.device) -> Any:
    network.eval()
    answers = []
    with torch.inference_mode():
        for first in range(0, len(pairs), _JUDGED_TOGETHER):
            patches = np.stack([pair.degraded for pair in pairs[first : first + _JUDGED_TOGETHER]])
            confidences = network(torch.from_numpy(patches).to(device)).mean((2, 3))
            answers.append(confidences.argmax(1).cpu().numpy())
    network.train()
    return np.concatenate(answers)


def _inside(batch: Tensor, border: int) -> Tensor:
    height, width = batch.shape[-2:]
    return batch[..., border : height - border, border : width - border]


def _size(batch: Tensor) -> str:
    return " x ".join(map(str, batch.shape))
