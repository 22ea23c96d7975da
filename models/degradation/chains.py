"""Chains of degradations: in sequence, one of several, maybe, in shuffled order.

A chain decides while it samples. What it has drawn is a plain list of elementary steps, `[{"gaussian_noise": {...}}]`,
in the order of application. So a drawn chain can be applied without the chain that drew it, `replay(planes, steps)`, and,
if all its steps are linear, so can its adjoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.degradation.distributions import check_weights, draw_index
from models.degradation.protocol import Degradation, LinearOperator, Operator, Parameters, Shape, Step
from models.degradation.table import operator_class
from transforms.errors import ConfigurationError
from transforms.planes import Planes, namespace


def replay(planes: Planes, steps: Sequence[Step]) -> Planes:
    """Applies drawn steps, one after the other, to C x H x W planes.

    Raises:
        ConfigurationError: a step names no operator of the table.
    """
    for name, parameters in elementary(steps):
        planes = operator_class(name).apply(planes, parameters)
    return planes


def replay_all(pictures: Sequence[Planes], steps: Sequence[Sequence[Step]]) -> list[Planes]:
    """What `replay` makes of each picture, to the last bit, in less time for small ones.

    All take their first step, then all their second: a step's code and tables stay in the core's cache, from which the FFTs
    and the encoder of a single pair would drive them.

    Raises:
        ConfigurationError: a step names no operator of the table.
    """
    results, waiting = list(pictures), [deque(elementary(each)) for each in steps]
    while any(waiting):
        members: dict[str, list[int]] = {}
        for index, own in enumerate(waiting):
            if own:
                members.setdefault(own[0][0], []).append(index)
        for name, those in members.items():
            parameters = [waiting[index].popleft()[1] for index in those]
            made = operator_class(name).apply_all([results[index] for index in those], parameters)
            for index, planes in zip(those, made, strict=True):
                results[index] = planes
    return results


def replay_each(batch: Planes, steps: Sequence[Sequence[Step]]) -> Planes:
    """Applies to each of N x C x H x W planes steps of its own.

    In each round every picture takes its next step. Those that take a step of one name and have the same shapes before and
    after it are degraded together, as one batch: on an accelerator that is what makes it fast. On their way the pictures may
    have any sizes.

    Raises:
        ConfigurationError: a step names no operator of the table, or the results have several shapes.
    """
    xp, waiting = namespace(batch), [deque(elementary(each)) for each in steps]
    pictures, made = list(batch), {tuple(range(len(steps))): batch}
    while groups := _next_groups(pictures, waiting):
        before, made = made, {}
        for (name, *_), members in groups.items():
            together = before.get(tuple(members))
            if together is None:
                together = xp.stack([pictures[index] for index in members])
            parameters = [waiting[index].popleft()[1] for index in members]
            made[tuple(members)] = results = operator_class(name).apply_each(together, parameters)
            for index, planes in zip(members, results, strict=True):
                pictures[index] = planes
    whole = made.get(tuple(range(len(steps))))
    if whole is not None:
        return whole
    shapes = sorted({tuple(planes.shape) for planes in pictures})
    if len(shapes) > 1:
        named = ", ".join(" x ".join(map(str, shape)) for shape in shapes[:4])
        raise ConfigurationError(
            f"the degraded pictures of one batch have several shapes ({named}{', ...' if len(shapes) > 4 else ''}) and can't "
            "be stacked; take a recipe whose results have one size, or batches of 1"
        )
    return xp.stack(pictures)


def _next_groups(
    pictures: Sequence[Planes], waiting: Sequence[Sequence[tuple[str, Parameters]]]
) -> dict[tuple[str, Shape, Shape], list[int]]:
    """Which pictures take their next step together: by its name, and the shapes before and after it."""
    groups: dict[tuple[str, Shape, Shape], list[int]] = {}
    for index, own in enumerate(waiting):
        if own:
            name, parameters = own[0]
            channels, height, width = pictures[index].shape
            before = (height, width, channels)
            after = operator_class(name).output_shape(before, parameters)
            groups.setdefault((name, before, after), []).append(index)
    return groups


def replay_adjoint(planes: Planes, steps: Sequence[Step], shape: Shape) -> Planes:
    """The adjoint of drawn linear steps; `shape` is that of the picture before the first.

    Raises:
        ConfigurationError: a step that is not linear.
    """
    shapes, named = [shape], list(elementary(steps))
    for name, parameters in named:
        shapes.append(operator_class(name).output_shape(shapes[-1], parameters))
    for (name, parameters), before in zip(reversed(named), reversed(shapes[:-1]), strict=True):
        operator = operator_class(name)
        if not issubclass(operator, LinearOperator):
            raise ConfigurationError(f"{name} is not linear and has no adjoint; a solver needs a linear degradation")
        planes = operator.adjoint(planes, parameters, before)
    return planes


def arrays_of(shape: Shape, steps: Sequence[Step]) -> dict[str, NDArray[Any]]:
    """Kernels, masks and motion fields of drawn steps: `kernel`, `mask`, and `kernel2` for a second kernel, ..."""
    found: dict[str, NDArray[Any]] = {}
    for name, parameters in elementary(steps):
        operator = operator_class(name)
        for kind, array in operator.arrays(shape, parameters).items():
            earlier = sum(each.rstrip("0123456789") == kind for each in found)
            found[f"{kind}{earlier + 1}" if earlier else kind] = array
        shape = operator.output_shape(shape, parameters)
    return found


def shape_after(shape: Shape, steps: Sequence[Step]) -> Shape:
    """Shape of a picture after drawn steps."""
    for name, parameters in elementary(steps):
        shape = operator_class(name).output_shape(shape, parameters)
    return shape


def elementary(steps: Sequence[Step]) -> Iterator[tuple[str, Parameters]]:
    """Name and parameters of each step."""
    for step in steps:
        yield from step.items()


def operators_of(degradation: Degradation) -> Iterator[Operator]:
    """The operators of a chain, in the order in which they are written; those that an operator holds come after it."""
    if isinstance(degradation, Operator):
        yield degradation
    member = getattr(degradation, "member", None)
    for each in getattr(degradation, "members", ()) if member is None else (member,):
        yield from operators_of(each)


def draw_steps(
    degradation: Degradation, rng: np.random.Generator, shape: Shape, clean_shape: Shape | None = None
) -> list[Step]:
    """Draws an operator or a chain as a list of elementary steps."""
    steps: list[Step] = []
    _draw_into(steps, degradation, rng, shape, clean_shape or shape)
    return steps


def _draw_into(
    steps: list[Step], degradation: Degradation, rng: np.random.Generator, shape: Shape, clean_shape: Shape
) -> Shape:
    """Appends what it draws, and gives the shape of a picture after it."""
    if isinstance(degradation, Chain):
        for member in degradation.draw_order(rng):
            shape = _draw_into(steps, member, rng, shape, clean_shape)
        return shape
    parameters = degradation.sample(rng, shape, clean_shape)
    steps.append(DrawnStep(degradation, parameters))
    return degradation.output_shape(shape, parameters)


class DrawnStep(dict[str, Parameters]):
    """A step that knows who drew it, so that counts of draws can be told apart where an operator stands in a recipe twice.

    In all else, as JSON and when it is pickled, it is the plain step.
    """

    __slots__ = ("drawn_by",)

    def __init__(self, degradation: Degradation, parameters: Parameters) -> None:
        super().__init__({degradation.name: parameters})
        self.drawn_by = degradation

    def __reduce__(self) -> tuple[type[dict[str, Parameters]], tuple[dict[str, Parameters]]]:
        return dict, (dict(self),)


@dataclass(frozen=True)
class Chain(ABC):
    """Base of the chains: `sample` gives `{"steps": [...]}`, and `apply` replays them."""

    name: ClassVar[str]

    def sample(self, rng: np.random.Generator, shape: Shape, clean_shape: Shape | None = None) -> Parameters:
        """Draws which steps happen, in which order, and each one's parameters."""
        return {"steps": draw_steps(self, rng, shape, clean_shape)}

    @abstractmethod
    def draw_order(self, rng: np.random.Generator) -> Sequence[Degradation]:
        """Draws which of the members happen, in order of application."""

    @abstractmethod
    def to_json(self) -> Any:
        """The configuration, as a recipe writes it under the chain's name."""

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        """Applies the drawn steps."""
        return replay(planes, parameters["steps"])

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
    """`shuffle: [A, B, ...]`: all of them, every order as likely as any other.

    Members with `keep_order: true` stay in the order in which they are written, wherever the others fall.

    Attributes:
        ordered: positions of the members that keep their order.
    """

    name: ClassVar[str] = "shuffle"
    members: tuple[Degradation, ...]
    ordered: frozenset[int] = frozenset()

    def draw_order(self, rng: np.random.Generator) -> Sequence[Degradation]:
        drawn = rng.permutation(len(self.members)).tolist()
        in_order = iter(sorted(self.ordered))
        return [self.members[next(in_order) if index in self.ordered else index] for index in drawn]

    def to_json(self) -> Any:
        kept = [{"keep_order": True} if index in self.ordered else {} for index in range(len(self.members))]
        return [{**flag, each.name: each.to_json()} for flag, each in zip(kept, self.members, strict=True)]


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
