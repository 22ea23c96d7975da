"""Chains of degradations: in sequence, one of several, maybe, in shuffled order.

A chain decides while it samples. What it has drawn is a plain list of elementary steps, `[{"gaussian_noise": {...}}]`,
in the order of application. So a drawn chain can be applied without the chain that drew it: `replay(image, steps)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from models.degradation.distributions import check_weights, draw_index
from models.degradation.protocol import Degradation, Image, Parameters, Shape, Step
from models.degradation.table import operator_class


def replay(image: Image, steps: Sequence[Step]) -> Image:
    """Applies drawn steps, one after the other.

    Raises:
        ConfigurationError: a step names no operator of the table.
    """
    for step in steps:
        for name, parameters in step.items():
            image = operator_class(name).apply(image, parameters)
    return image


def shape_after(shape: Shape, steps: Sequence[Step]) -> Shape:
    """Shape of a picture after drawn steps."""
    for step in steps:
        for name, parameters in step.items():
            shape = operator_class(name).output_shape(shape, parameters)
    return shape


def draw_steps(degradation: Degradation, rng: np.random.Generator, shape: Shape) -> list[Step]:
    """Draws an operator or a chain as a list of elementary steps."""
    parameters = degradation.sample(rng, shape)
    if isinstance(degradation, Chain):
        steps: list[Step] = parameters["steps"]
        return steps
    return [{degradation.name: parameters}]


@dataclass(frozen=True)
class Chain(ABC):
    """Base of the chains: `sample` gives `{"steps": [...]}`, and `apply` replays them."""

    name: ClassVar[str]

    def sample(self, rng: np.random.Generator, shape: Shape) -> Parameters:
        """Draws which steps happen, in which order, and each one's parameters."""
        steps: list[Step] = []
        for degradation in self.draw_order(rng):
            added = draw_steps(degradation, rng, shape)
            shape = shape_after(shape, added)
            steps += added
        return {"steps": steps}

    @abstractmethod
    def draw_order(self, rng: np.random.Generator) -> Sequence[Degradation]:
        """Draws which of the members happen, in order of application."""

    @abstractmethod
    def to_json(self) -> Any:
        """The configuration, as a recipe writes it under the chain's name."""

    @staticmethod
    def apply(image: Image, parameters: Parameters) -> Image:
        """Applies the drawn steps."""
        return replay(image, parameters["steps"])

    @staticmethod
    def output_shape(shape: Shape, parameters: Parameters) -> Shape:
        """Shape after the drawn steps."""
        return shape_after(shape, parameters["steps"])


@dataclass(frozen=True)
class InOrder(Chain):
    """`sequence: [A, B, ...]`: A, then B, ..."""

    name: ClassVar[str] = "sequence"
    members: tuple[Degradation, ...]

    def draw_order(self, rng: np.random.Generator) -> Sequence[Degradation]:
        return self.members

    def to_json(self) -> Any:
        return [{each.name: each.to_json()} for each in self.members]


@dataclass(frozen=True)
class Shuffle(Chain):
    """`shuffle: [A, B, ...]`: all of them, every order as likely as any other."""

    name: ClassVar[str] = "shuffle"
    members: tuple[Degradation, ...]

    def draw_order(self, rng: np.random.Generator) -> Sequence[Degradation]:
        return [self.members[index] for index in rng.permutation(len(self.members)).tolist()]

    def to_json(self) -> Any:
        return [{each.name: each.to_json()} for each in self.members]


@dataclass(frozen=True)
class OneOf(Chain):
    """`one_of: [{weight: 2, A: ...}, {B: ...}]`: one of them, with probability proportional to its weight."""

    name: ClassVar[str] = "one_of"
    members: tuple[Degradation, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.members) != len(self.weights):
            raise ValueError(f"one_of: {len(self.weights)} weights for {len(self.members)} members; give one for each")
        check_weights(self.weights)

    def draw_order(self, rng: np.random.Generator) -> Sequence[Degradation]:
        return (self.members[draw_index(rng, self.weights)],)

    def to_json(self) -> Any:
        pairs = zip(self.weights, self.members, strict=True)
        return [{"weight": weight, each.name: each.to_json()} for weight, each in pairs]


@dataclass(frozen=True)
class Maybe(Chain):
    """`maybe: {probability: p, A: ...}`: A with probability p, nothing otherwise."""

    name: ClassVar[str] = "maybe"
    member: Degradation
    probability: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"maybe: probability {self.probability} is not between 0 and 1")

    def draw_order(self, rng: np.random.Generator) -> Sequence[Degradation]:
        return (self.member,) if rng.random() < self.probability else ()

    def to_json(self) -> Any:
        return {"probability": self.probability, self.member.name: self.member.to_json()}
