"""ISTA, FISTA and LISTA against their theory, each other, and scikit-image's patches of a real photograph."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from models.networks.lista import LISTA, fista, ista, lasso, lipschitz, soft_threshold

WEIGHT = 0.1


@pytest.fixture(scope="module")
def signals(photo) -> torch.Tensor:
    """2,000 patches of 5 x 5 grey pixels without their mean, of unit length."""
    gray = photo.mean(axis=2) / 255
    rng = np.random.default_rng(1)
    places = rng.integers(0, 512 - 5, (4000, 2))
    patches = np.stack([gray[top : top + 5, left : left + 5].ravel() for top, left in places])
    patches -= patches.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(patches, axis=1)
    kept = patches[norms > 0.1][:2000] / norms[norms > 0.1][:2000, None]
    return torch.from_numpy(kept)


@pytest.fixture(scope="module")
def dictionary(signals) -> torch.Tensor:
    """Fifty patches of the same picture as atoms: real, and far from orthogonal."""
    return signals[1500:1550].T.contiguous()


def test_soft_threshold_is_the_proximal_map_of_the_one_norm():
    values, grid = torch.linspace(-2, 2, 41).double(), torch.linspace(-3, 3, 60_001).double()
    cost = 0.5 * (values[:, None] - grid) ** 2 + 0.7 * grid.abs()
    assert torch.allclose(grid[cost.argmin(1)], soft_threshold(values, 0.7), atol=1e-3)


def test_ista_never_rises_and_both_keep_their_bounds(signals, dictionary):
    some = signals[:50]
    best = fista(some, dictionary, WEIGHT, 3000)
    optimum, distance, bound = lasso(some, dictionary, best, WEIGHT), best.square().sum(1), lipschitz(dictionary)
    costs = [lasso(some, dictionary, ista(some, dictionary, WEIGHT, steps), WEIGHT) for steps in range(1, 40)]
    assert all((after <= before + 1e-12).all() for before, after in pairwise(costs))
    for steps in (5, 20, 39):
        assert (costs[steps - 1] - optimum <= bound * distance / (2 * steps) + 1e-9).all()
        accelerated = lasso(some, dictionary, fista(some, dictionary, WEIGHT, steps), WEIGHT)
        assert (accelerated - optimum <= 2 * bound * distance / (steps + 1) ** 2 + 1e-9).all()


def test_the_optimum_fulfils_the_conditions_of_optimality(signals, dictionary):
    """At the optimum D'(y - D a) is lambda sign(a) where a is not 0, and at most lambda elsewhere."""
    codes = fista(signals[:20], dictionary, WEIGHT, 5000)
    gradient = (signals[:20] - codes @ dictionary.T) @ dictionary
    assert torch.allclose(gradient[codes != 0], WEIGHT * codes[codes != 0].sign(), atol=1e-6)
    assert gradient.abs().max() <= WEIGHT + 1e-6


@pytest.mark.parametrize("stages", [0, 1, 3, 7])
def test_untrained_lista_with_k_stages_is_k_plus_one_steps_of_ista(signals, dictionary, stages):
    with torch.no_grad():
        learned = LISTA(dictionary, WEIGHT, stages)(signals)
    assert torch.allclose(learned, ista(signals, dictionary, WEIGHT, stages + 1), atol=1e-6)


def test_three_trained_stages_beat_thirty_steps_of_ista(signals, dictionary):
    best = fista(signals, dictionary, WEIGHT, 2000)
    learning, held_out = slice(0, 1400), slice(1600, 2000)  # the atoms are in neither
    torch.manual_seed(0)
    network = LISTA(dictionary, WEIGHT, 3)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 700)
    for _ in range(700):
        optimiser.zero_grad()
        (network(signals[learning]) - best[learning]).square().sum(1).mean().backward()
        optimiser.step()
        rate.step()
    with torch.no_grad():
        learned = network(signals[held_out])
    error = (learned - best[held_out]).square().sum(1).mean()
    thirty = (ista(signals[held_out], dictionary, WEIGHT, 30) - best[held_out]).square().sum(1).mean()
    assert error < thirty
