"""What a degradation is: `sample` draws its parameters, `apply` uses them.

Three layers, as in torchvision's transforms v2: a *kernel* is a plain function on arrays, `speckle(image, sigma, rng)`;
`sample` draws parameters from the distributions of a recipe; `apply` unpacks parameters and calls the kernel. The
parameters are plain JSON and hold everything that `apply` needs, down to the key of the noise stream. `apply` is a
static method, so it cannot look at the distributions: any pair can be made again from its JSON and the clean picture,
without the recipe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, ClassVar, Protocol, TypeAlias, get_type_hints

import numpy as np
from numpy.typing import NDArray

from models.bounds import Bounds
from models.degradation.distributions import Constant, Distribution
from transforms.randomness import stream_key

Image: TypeAlias = NDArray[np.float32]  # H x W x C, [0, 1] in principle; noise may leave the range
Shape: TypeAlias = tuple[int, int, int]  # H, W, C
Parameters: TypeAlias = Mapping[str, Any]  # plain JSON
Step: TypeAlias = Mapping[str, Parameters]  # one entry: operator name -> its drawn parameters, as a recipe writes it


class Degradation(Protocol):
    """An operator A (or a noise n) of  y = A(x) + n,  or a chain of them."""

    name: ClassVar[str]

    def sample(self, rng: np.random.Generator, shape: Shape) -> Parameters:
        """Draws parameters, plain JSON, for a picture of this shape."""

    @staticmethod
    def apply(image: Image, parameters: Parameters) -> Image:
        """The degraded picture, float32, H x W x C. The input is left as it is."""

    @staticmethod
    def output_shape(shape: Shape, parameters: Parameters) -> Shape:
        """Shape of `apply`'s result; the next operator of a chain is sampled for it."""

    def to_json(self) -> Any:
        """The configuration, as a recipe writes it under the operator's name."""


class LinearDegradation(Degradation, Protocol):
    """A linear A. A solver inverts it through `adjoint`:  <A x, y> = <x, A^T y>  for all x and y."""

    @staticmethod
    def adjoint(image: Image, parameters: Parameters, shape: Shape) -> Image:
        """A^T of a picture in the range of A; `shape` is that of the clean picture."""


@dataclass(frozen=True, kw_only=True)
class Quantity(Bounds):
    """A number that an operator draws: its bounds, and its meaning for a person, with the unit.

    It annotates the field of the operator, `sigma: Annotated[Drawable, Quantity(meaning="...", minimum=0)]`, and from
    there checks Python code and recipes, and makes the published schema.
    """

    meaning: str

    def draw(self, distribution: Distribution, rng: np.random.Generator) -> float:
        """Draws a plain Python number, fit for JSON."""
        return distribution.sample_integer(rng) if self.integer else distribution.sample(rng)


@cache
def quantities(operator: type[Operator]) -> Mapping[str, Quantity]:
    """The drawn parameters of an operator class, in the order of its fields."""
    hints = get_type_hints(operator, include_extras=True)
    annotations = {each.name: getattr(hints[each.name], "__metadata__", ()) for each in fields(operator)}
    return {name: extras[0] for name, extras in annotations.items() if extras and isinstance(extras[0], Quantity)}


@cache
def defaults(operator: type[Operator]) -> Mapping[str, Distribution]:
    """The drawn parameters that may be left out, with their value then."""
    given = {each.name: each.default for each in fields(operator) if each.default is not MISSING}
    return {name: _distribution(given[name]) for name in quantities(operator) if name in given}


@dataclass(frozen=True)
class Operator(ABC):
    """Base of the elementary degradations: draws each annotated field, and a stream key if the operator is noisy.

    Raises:
        ValueError: a number outside the bounds of its field.
    """

    name: ClassVar[str]
    noisy: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, quantity in quantities(type(self)).items():
            distribution = _distribution(getattr(self, name))
            for value in distribution.values():
                if (complaint := quantity.complaint(value)) is not None:
                    raise ValueError(f"{name}: {complaint}")
            object.__setattr__(self, name, distribution)  # frozen, but a bare number becomes a Constant once, here

    def sample(self, rng: np.random.Generator, shape: Shape) -> Parameters:
        """Draws every parameter; none depends on the picture's shape."""
        parameters: dict[str, Any] = {
            name: quantity.draw(getattr(self, name), rng) for name, quantity in quantities(type(self)).items()
        }
        if self.noisy:
            parameters["stream"] = stream_key(rng)
        return parameters

    @staticmethod
    @abstractmethod
    def apply(image: Image, parameters: Parameters) -> Image:
        """The degraded picture, float32, H x W x C. The input is left as it is."""

    @staticmethod
    def output_shape(shape: Shape, parameters: Parameters) -> Shape:
        """Unchanged."""
        return shape

    def to_json(self) -> Any:
        """Parameter name -> distribution."""
        return {name: getattr(self, name).to_json() for name in quantities(type(self))}


def _distribution(value: Any) -> Distribution:
    if isinstance(value, int | float):
        return Constant(value)
    distribution: Distribution = value
    return distribution
