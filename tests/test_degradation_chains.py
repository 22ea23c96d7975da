"""Chains and distributions: frequencies against theory, and what is drawn can be replayed without the chain."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from scipy import stats

from models.degradation import (
    Choice,
    Constant,
    GaussianNoise,
    ImpulseNoise,
    InOrder,
    LogUniform,
    Maybe,
    OneOf,
    RoundTo8Bit,
    Shuffle,
    SpeckleNoise,
    Uniform,
    UniformQuantisation,
    draw_steps,
    replay,
    replay_all,
)
from models.degradation.protocol import Operator, Parameters, Shape
from transforms.planes import Planes
from transforms.randomness import generator

NOISE, SPECKLE, IMPULSE, ROUND = GaussianNoise(0.1), SpeckleNoise(0.2), ImpulseNoise(0.1), RoundTo8Bit()
DRAWS = 4000
SHAPE = (8, 8, 1)

CHAINS = {
    "sequence": InOrder((NOISE, SPECKLE, ROUND)),
    "shuffle": Shuffle((NOISE, SPECKLE, IMPULSE, ROUND)),
    "one_of": OneOf((NOISE, SPECKLE), (1, 3)),
    "maybe": Maybe(NOISE, 0.5),
    "nested": InOrder(
        (OneOf((Shuffle((NOISE, ROUND)), Maybe(SPECKLE, 0.5)), (1, 1)), Maybe(InOrder((IMPULSE, ROUND)), 0.5))
    ),
}


def names_drawn(chain: object, draws: int = DRAWS) -> Counter[tuple[str, ...]]:
    rng = generator(1, "chains")
    drawn = (draw_steps(chain, rng, SHAPE) for _ in range(draws))  # type: ignore[arg-type]
    return Counter(tuple(name for step in steps for name in step) for steps in drawn)


def assert_frequencies(observed: Counter[tuple[str, ...]], shares: dict[tuple[str, ...], float]) -> None:
    assert observed.keys() == shares.keys()
    expected = [share * observed.total() for share in shares.values()]
    assert stats.chisquare([observed[each] for each in shares], expected).pvalue > 0.01


# --- chains ---------------------------------------------------------------------------------------------------------


def test_a_sequence_keeps_its_order():
    assert names_drawn(CHAINS["sequence"]).keys() == {("gaussian_noise", "speckle_noise", "round_to_8bit")}


def test_a_shuffle_draws_every_order_equally_often():
    orders = names_drawn(CHAINS["shuffle"], 12_000)
    assert_frequencies(orders, dict.fromkeys(orders, 1 / 24))


def test_one_of_draws_by_weight():
    assert_frequencies(names_drawn(CHAINS["one_of"]), {("gaussian_noise",): 0.25, ("speckle_noise",): 0.75})


def test_one_of_never_draws_what_weighs_nothing():
    assert names_drawn(OneOf((NOISE, SPECKLE, ROUND), (0, 1, 0))).keys() == {("speckle_noise",)}


def test_maybe_draws_with_its_probability():
    assert_frequencies(names_drawn(Maybe(NOISE, 0.3)), {("gaussian_noise",): 0.3, (): 0.7})
    assert names_drawn(Maybe(NOISE, 0)).keys() == {()}
    assert names_drawn(Maybe(NOISE, 1)).keys() == {("gaussian_noise",)}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_replays_from_json_alone_to_the_same_bytes(name):
    image = np.random.default_rng(1).random((16, 16, 3), dtype=np.float32)
    for patch in range(8):
        parameters = CHAINS[name].sample(generator(1, "a", patch), image.shape)
        degraded = CHAINS[name].apply(image, parameters)
        plain = json.loads(json.dumps(parameters, allow_nan=False))
        assert replay(image, plain["steps"]).tobytes() == degraded.tobytes()


@pytest.mark.parametrize("name", CHAINS)
def test_pictures_that_are_replayed_together_are_those_that_are_replayed_alone(name):
    rng = np.random.default_rng(1)
    pictures = [rng.random((3, 8 + number, 16), dtype=np.float32) for number in range(9)]
    steps = [CHAINS[name].sample(generator(1, "a", patch), (8, 16, 3))["steps"] for patch in range(9)]
    together = replay_all(pictures, steps)
    for planes, own, made in zip(pictures, steps, together, strict=True):
        assert made.tobytes() == replay(planes, own).tobytes()
    assert replay_all([], []) == []


@pytest.mark.parametrize("name", CHAINS)
def test_drawn_steps_are_flat_and_elementary(name):
    for steps in (draw_steps(CHAINS[name], generator(1, "a", patch), SHAPE) for patch in range(50)):
        assert all(len(step) == 1 for step in steps)
        assert all("steps" not in parameters for step in steps for parameters in step.values())


def test_steps_of_a_sequence_act_in_order():
    image = np.full((4, 4, 1), 0.3, np.float32)
    two, five = UniformQuantisation(2), UniformQuantisation(5)
    coarse_first = InOrder((two, five))
    fine_first = InOrder((five, UniformQuantisation(3)))
    assert np.unique(coarse_first.apply(image, coarse_first.sample(generator(1, "a"), image.shape))) == [0]
    assert np.unique(fine_first.apply(image, fine_first.sample(generator(1, "a"), image.shape))) == [0]
    noise_last = InOrder((ROUND, NOISE))
    assert np.unique(noise_last.apply(image, noise_last.sample(generator(1, "a"), image.shape))).size == 16


@dataclass(frozen=True)
class Halve(Operator):
    """Every second row and column."""

    name: ClassVar[str] = "halve"

    @staticmethod
    def apply(image: Planes, parameters: Parameters) -> Planes:
        return image[:, ::2, ::2].copy()

    @staticmethod
    def output_shape(shape: Shape, parameters: Parameters) -> Shape:
        return (shape[0] + 1) // 2, (shape[1] + 1) // 2, shape[2]


@dataclass(frozen=True)
class Corner(Operator):
    """Blackens the last pixel, whose place follows from the shape."""

    name: ClassVar[str] = "corner"

    def sample(self, rng: np.random.Generator, shape: Shape, clean_shape: Shape | None = None) -> Parameters:
        return {"row": shape[0] - 1, "column": shape[1] - 1}

    @staticmethod
    def apply(image: Planes, parameters: Parameters) -> Planes:
        blackened = image.copy()
        blackened[:, parameters["row"], parameters["column"]] = 0
        return blackened


def test_an_operator_is_sampled_for_the_shape_that_the_ones_before_it_leave(monkeypatch):
    monkeypatch.setattr("models.degradation.chains.operator_class", {"halve": Halve, "corner": Corner}.__getitem__)
    image = np.ones((9, 13, 1), np.float32)
    chain = InOrder((Halve(), Maybe(Halve(), 1), Corner()))
    parameters = chain.sample(generator(1, "a"), image.shape)
    degraded = chain.apply(np.moveaxis(image, 2, 0), parameters)
    assert (*degraded.shape[1:], 1) == chain.output_shape(image.shape, parameters) == (3, 4, 1)
    assert np.argwhere(degraded == 0).tolist() == [[0, 2, 3]]


def test_two_noises_of_one_chain_are_independent():
    image = np.zeros((500, 500, 1), np.float32)
    first, second = draw_steps(InOrder((NOISE, NOISE)), generator(1, "a"), image.shape)
    correlation = np.corrcoef(replay(image, [first]).ravel(), replay(image, [second]).ravel())[0, 1]
    assert abs(correlation) < 5 / 500


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneOf((NOISE,), (1, 2)), "2 weights for 1 members"),
        (lambda: OneOf((NOISE, ROUND), (0, 0)), "not all 0"),
        (lambda: OneOf((NOISE, ROUND), (1, -1)), "not negative"),
        (lambda: Maybe(NOISE, 1.5), "probability 1.5 is not between 0 and 1"),
        (lambda: Uniform(2, 1), "runs backwards"),
        (lambda: LogUniform(0, 1), "needs 0 < smaller bound"),
        (lambda: Choice(()), "the list is empty"),
        (lambda: Choice((1, 2), (1,)), "1 weights for 2 choices"),
    ],
)
def test_a_chain_or_distribution_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- distributions --------------------------------------------------------------------------------------------------


def draws_of(distribution: object, *, integer: bool = False) -> np.ndarray:
    rng = generator(1, "distributions")
    draw = distribution.sample_integer if integer else distribution.sample  # type: ignore[attr-defined]
    return np.array([draw(rng) for _ in range(20_000)])


def test_constant_is_constant():
    assert set(draws_of(Constant(0.25))) == {0.25}


def test_uniform_is_uniform():
    assert stats.kstest(draws_of(Uniform(2, 5)), stats.uniform(2, 3).cdf).pvalue > 0.01


def test_log_uniform_is_log_uniform():
    drawn = draws_of(LogUniform(0.001, 10))
    assert drawn.min() >= 0.001
    assert drawn.max() <= 10
    assert stats.kstest(drawn, stats.loguniform(0.001, 10).cdf).pvalue > 0.01


def test_choice_draws_by_weight():
    counts = Counter(draws_of(Choice((1.0, 2.0, 4.0), (1, 2, 5))).tolist())
    assert counts.keys() == {1.0, 2.0, 4.0}
    assert stats.chisquare([counts[1.0], counts[2.0], counts[4.0]], [2500, 5000, 12500]).pvalue > 0.01
    equal = Counter(draws_of(Choice((1.0, 2.0))).tolist())
    assert stats.chisquare([equal[1.0], equal[2.0]]).pvalue > 0.01


def test_integers_include_both_bounds():
    uniform = Counter(draws_of(Uniform(2, 6), integer=True).tolist())
    assert sorted(uniform) == [2, 3, 4, 5, 6]
    assert stats.chisquare(list(uniform.values())).pvalue > 0.01
    drawn = Counter(draws_of(LogUniform(2, 6), integer=True).tolist())
    expected = [20_000 * np.log((n + 1) / n) / np.log(7 / 2) for n in range(2, 7)]
    assert stats.chisquare([drawn[n] for n in range(2, 7)], expected).pvalue > 0.01


@pytest.mark.parametrize("distribution", [Constant(3), Uniform(2, 6), LogUniform(2, 6), Choice((2, 3), (1, 1))])
def test_draws_are_plain_numbers_fit_for_json(distribution):
    rng = generator(1, "a")
    assert type(distribution.sample_integer(rng)) is int
    assert type(distribution.sample(rng)) in (int, float)


@pytest.mark.parametrize(("power", "low", "high"), [(0.5, 0.01, 8), (-1, 1, 8), (2, 0, 3)])
def test_a_power_of_a_uniform_number_is_uniform_when_the_power_is_undone(power, low, high):
    distribution = Uniform(low, high, power)
    drawn = np.array([distribution.sample(generator(1, "a", patch)) for patch in range(DRAWS)])
    assert min(distribution.values()) <= drawn.min()
    assert drawn.max() <= max(distribution.values())
    undone = drawn ** (1 / power)
    assert stats.kstest(undone, "uniform", args=(low, high - low)).pvalue > 0.01


@pytest.mark.parametrize(("low", "high", "power"), [(0, 1, -1), (-1, 1, 0.5), (1, 2, 0)])
def test_a_power_that_does_not_exist_is_refused(low, high, power):
    with pytest.raises(ValueError, match="has no power"):
        Uniform(low, high, power)
