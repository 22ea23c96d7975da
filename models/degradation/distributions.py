"""Distributions from which a degradation draws its numbers.

In a recipe: a bare number or `{constant: a}`, `{uniform: [a, b]}`, `{power: p, of: [a, b]}` (a uniform number to the power
of p), `{log_uniform: [a, b]}`, `{normal: [mean, std]}`, `{choice: [a, b, c]}`, and `{choice: [a, b, c], weights: [1, 2, 1]}`.
Words are bare or chosen: `{choice: [reflect, circular]}`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, TypeAlias

import numpy as np


class Distribution(Protocol):
    """A distribution of one number."""

    def sample(self, rng: np.random.Generator) -> float:
        """Draws a real number."""

    def sample_integer(self, rng: np.random.Generator) -> int:
        """Draws an integer; the bounds are whole numbers and both can be drawn."""

    def values(self) -> tuple[float, ...]:
        """The numbers that define it; its support lies between the least and the greatest."""

    def to_json(self) -> Any:
        """As a recipe writes it."""


Drawable: TypeAlias = Distribution | float  # what Python code may write for a parameter: 0.1, Uniform(0, 0.2)
TRUNCATION = 4.0  # of a normal distribution, in standard deviations: a draw in 16,000 is drawn again


@dataclass(frozen=True)
class Constant:
    """Always the same number."""

    value: float

    def sample(self, rng: np.random.Generator) -> float:
        return self.value

    def sample_integer(self, rng: np.random.Generator) -> int:
        return int(self.value)

    def values(self) -> tuple[float, ...]:
        return (self.value,)

    def to_json(self) -> Any:
        return self.value


@dataclass(frozen=True)
class Uniform:
    """x = u^power, and every u of [low, high] is as likely as any other; power 1/2 makes the variance x^2 uniform, -1 the
    divisor 1 / x."""

    low: float
    high: float
    power: float = 1.0

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"uniform: [{self.low}, {self.high}] runs backwards; write the smaller bound first")
        if self.power != 1 and (self.low < 0 or (self.power <= 0 and self.low == 0) or self.power == 0):
            raise ValueError(f"uniform: [{self.low}, {self.high}] has no power {self.power}; bounds must be above 0")

    def sample(self, rng: np.random.Generator) -> float:
        drawn = self.low + (self.high - self.low) * rng.random()
        return float(drawn if self.power == 1 else drawn**self.power)

    def sample_integer(self, rng: np.random.Generator) -> int:
        if self.power != 1:
            raise ValueError(f"uniform: whole numbers are not drawn with a power ({self.power}); leave it out")
        return int(rng.integers(int(self.low), int(self.high), endpoint=True))

    def values(self) -> tuple[float, ...]:
        if self.power == 1:
            return (self.low, self.high)
        ends = (float(self.low**self.power), float(self.high**self.power))
        return (min(ends), max(ends))

    def to_json(self) -> Any:
        bounds = [self.low, self.high]
        return {"uniform": bounds} if self.power == 1 else {"power": self.power, "of": bounds}


@dataclass(frozen=True)
class LogUniform:
    """The logarithm is uniform: each doubling inside [low, high] is as likely as any other. Both bounds are above 0."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"log_uniform: [{self.low}, {self.high}] needs 0 < smaller bound <= greater bound")

    def sample(self, rng: np.random.Generator) -> float:
        drawn = math.exp(math.log(self.low) + math.log(self.high / self.low) * float(rng.random()))
        return min(max(drawn, self.low), self.high)  # exp(log(a)) may miss a by one rounding

    def sample_integer(self, rng: np.random.Generator) -> int:
        # n owns the cell [n, n + 1) of the logarithmic scale, so P(n) = log(1 + 1/n) / log((high + 1) / low).
        drawn = math.exp(math.log(self.low) + math.log((self.high + 1) / self.low) * float(rng.random()))
        return min(max(int(drawn), int(self.low)), int(self.high))

    def values(self) -> tuple[float, ...]:
        return (self.low, self.high)

    def to_json(self) -> Any:
        return {"log_uniform": [self.low, self.high]}


@dataclass(frozen=True)
class Normal:
    """The bell curve, cut off at four standard deviations so that bounds can be checked before the run."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not 0 <= self.std < math.inf:
            raise ValueError(f"normal: the standard deviation {self.std} must be finite and not negative")

    def sample(self, rng: np.random.Generator) -> float:
        drawn = math.inf
        while abs(drawn) > TRUNCATION:
            drawn = float(rng.standard_normal())
        return self.mean + self.std * drawn

    def sample_integer(self, rng: np.random.Generator) -> int:
        return round(self.sample(rng))

    def values(self) -> tuple[float, ...]:
        return (self.mean - TRUNCATION * self.std, self.mean + TRUNCATION * self.std)

    def to_json(self) -> Any:
        return {"normal": [self.mean, self.std]}


@dataclass(frozen=True)
class Choice:
    """One of `options`, with probabilities proportional to `weights` (all equal without)."""

    options: tuple[float, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check_choice(self.options, self.weights, "number")

    def sample(self, rng: np.random.Generator) -> float:
        return self.options[draw_index(rng, self.weights or (1.0,) * len(self.options))]

    def sample_integer(self, rng: np.random.Generator) -> int:
        return int(self.sample(rng))

    def values(self) -> tuple[float, ...]:
        return self.options

    def to_json(self) -> Any:
        plain: dict[str, Any] = {"choice": list(self.options)}
        return plain if self.weights is None else plain | {"weights": list(self.weights)}


@dataclass(frozen=True)
class WordChoice:
    """One of several words, with probabilities proportional to `weights` (all equal without)."""

    options: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check_choice(self.options, self.weights, "word")

    def sample(self, rng: np.random.Generator) -> str:
        if len(self.options) == 1:
            return self.options[0]
        return self.options[draw_index(rng, self.weights or (1.0,) * len(self.options))]

    def to_json(self) -> Any:
        if len(self.options) == 1:
            return self.options[0]
        plain: dict[str, Any] = {"choice": list(self.options)}
        return plain if self.weights is None else plain | {"weights": list(self.weights)}


DrawableWord: TypeAlias = WordChoice | str


def _check_choice(options: Sequence[object], weights: Sequence[float] | None, noun: str) -> None:
    if not options:
        raise ValueError(f"choice: the list is empty; name at least one {noun}")
    if weights is not None:
        if len(weights) != len(options):
            raise ValueError(f"{len(weights)} weights for {len(options)} choices; write one for each")
        check_weights(weights)


def check_weights(weights: Sequence[float]) -> None:
    """Raises ValueError unless the weights are finite, not negative, and not all 0."""
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or sum(weights) <= 0:
        raise ValueError(f"weights {list(weights)} must be finite, not negative, and not all 0")


def draw_index(rng: np.random.Generator, weights: Sequence[float]) -> int:
    """Draws i with probability weights[i] / sum(weights)."""
    sums = list(accumulate(weights))
    return bisect_right(sums, rng.random() * sums[-1])
