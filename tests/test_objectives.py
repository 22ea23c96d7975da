"""Distances between restored and clean pictures, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.networks.network import RestorationNetwork
from models.objectives import objective_named
from transforms.errors import ConfigurationError


class Shrinking(RestorationNetwork):
    """Loses a pixel at each side while it trains."""

    training_border = 1

    def forward(self, degraded: Tensor) -> Tensor:
        return degraded[..., 1:-1, 1:-1]


@pytest.mark.parametrize(("name", "expected"), [("mean_squared_error", 0.05), ("mean_absolute_error", 0.2)])
def test_the_distance_is_taken_inside_the_border_that_training_loses(name: str, expected: float) -> None:
    clean = torch.full((1, 1, 4, 4), 9.0)
    clean[..., 1:-1, 1:-1] = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    degraded = clean.clone()
    degraded[..., 1:-1, 1:-1] += torch.tensor([[0.1, -0.1], [0.3, -0.3]])
    network = Shrinking()
    loss = objective_named(name, "psnr[gray,u8]").loss(network, degraded, network(degraded), clean)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["mean_squared_error", "mean_absolute_error"])
def test_an_answer_of_another_size_is_refused(name: str) -> None:
    patch = torch.zeros(1, 1, 6, 6)
    with pytest.raises(ConfigurationError, match="scale, channels or borders do not fit"):
        objective_named(name, "psnr[gray,u8]").loss(Shrinking(), patch, patch, patch)
