"""What a degradation is: `sample` draws its parameters, `apply` uses them.

Three layers, as in torchvision's transforms v2: a *kernel* is a plain function on arrays, `speckle(planes, sigma, rng)`;
`sample` draws parameters from the distributions of a recipe; `apply` unpacks parameters and calls the kernel. The
parameters are plain JSON and hold everything that `apply` needs, down to the key of the noise stream. `apply` is a
static method, so it cannot look at the distributions: any pair can be made again from its JSON and the clean picture,
without the recipe.

Pictures are *planes* here: C x H x W float32, a NumPy array or a PyTorch tensor (`transforms.planes`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, ClassVar, Protocol, TypeAlias, get_type_hints

import numpy as np
from numpy.typing import NDArray

from models.bounds import Bounds
from models.degradation.distributions import Constant, Distribution, Uniform, WordChoice
from transforms.planes import Planes, namespace
from transforms.randomness import stream_key

Image: TypeAlias = NDArray[np.float32]  # H x W x C, [0, 1] in principle; noise may leave the range
Shape: TypeAlias = tuple[int, int, int]  # H, W, C
Parameters: TypeAlias = Mapping[str, Any]  # plain JSON
Step: TypeAlias = Mapping[str, Parameters]  # one entry: operator name -> its drawn parameters, as a recipe writes it


class Degradation(Protocol):
    """An operator A (or a noise n) of  y = A(x) + n,  or a chain of them."""

    name: ClassVar[str]

    def sample(self, rng: np.random.Generator, shape: Shape, clean_shape: Shape | None = None) -> Parameters:
        """Draws parameters, plain JSON, for a picture of `shape`; the chain began with a clean one of `clean_shape`."""

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        """The degraded picture, float32, C x H x W. The input is left as it is."""

    @staticmethod
    def output_shape(shape: Shape, parameters: Parameters) -> Shape:
        """Shape of `apply`'s result; the next operator of a chain is sampled for it."""

    def to_json(self) -> Any:
        """The configuration, as a recipe writes it under the operator's name."""


@dataclass(frozen=True, kw_only=True)
class Quantity(Bounds):
    """A number that an operator draws: its bounds, and its meaning for a person, with the unit.

    It annotates the field of the operator, `sigma: Annotated[Drawable, Quantity(meaning="...", minimum=0)]`, and from
    there checks Python code and recipes, and makes the published schema.
    """

    meaning: str

    def drawing(self, distribution: Distribution) -> Callable[[np.random.Generator], float]:
        """What draws a plain Python number, fit for JSON."""
        return distribution.sample_integer if self.integer else distribution.sample

    def check(self, distribution: Distribution) -> None:
        """Raises ValueError for a distribution that may leave the bounds."""
        if self.integer and isinstance(distribution, Uniform) and distribution.power != 1:
            raise ValueError(f"whole numbers are not drawn with a power ({distribution.power}); leave it out")
        for value in distribution.values():
            if (complaint := self.complaint(value)) is not None:
                raise ValueError(complaint)


@dataclass(frozen=True, kw_only=True)
class Wording:
    """A word that an operator draws, often a named method: `boundary: Annotated[DrawableWord, Wording(...)]`."""

    meaning: str
    options: tuple[str, ...]

    def drawing(self, choice: WordChoice) -> Callable[[np.random.Generator], str]:
        """What draws a word."""
        return choice.sample

    def check(self, choice: WordChoice) -> None:
        """Raises ValueError for a word that is not an option."""
        for word in choice.options:
            if word not in self.options:
                raise ValueError(f"{word!r} is not one of {', '.join(self.options)}")


@dataclass(frozen=True, kw_only=True)
class Location:
    """A file or a list of files, named in the recipe by path or URL: `kernels: Annotated[str, Location(meaning="...")]`.

    The operator reads it while it samples and puts what it read into the parameters, so that `apply` needs no file.
    """

    meaning: str


Setting: TypeAlias = Quantity | Wording | Location


@cache
def settings(operator: type[Operator]) -> Mapping[str, Setting]:
    """The settings of an operator class, in the order of its fields."""
    hints = get_type_hints(operator, include_extras=True)
    annotations = {each.name: getattr(hints[each.name], "__metadata__", ()) for each in fields(operator)}
    return {name: extras[0] for name, extras in annotations.items() if extras and isinstance(extras[0], Setting)}


@cache
def defaults(operator: type[Operator]) -> Mapping[str, Any]:
    """The settings that may be left out, with their value then."""
    given = {each.name: each.default for each in fields(operator) if each.default is not MISSING}
    return {name: as_drawable(given[name], setting) for name, setting in settings(operator).items() if name in given}


@dataclass(frozen=True)
class Operator(ABC):
    """Base of the elementary degradations: draws each annotated field, and a stream key if the operator is noisy.

    Raises:
        ValueError: a number outside the bounds of its field, a word that is no option.
    """

    name: ClassVar[str]
    noisy: ClassVar[bool] = False
    _draws: ClassVar[tuple[tuple[str, Callable[[np.random.Generator], Any]], ...]]  # set for each instance, no setting

    def __post_init__(self) -> None:
        for name, setting in settings(type(self)).items():
            drawable = as_drawable(getattr(self, name), setting)
            if not isinstance(setting, Location):
                try:
                    setting.check(drawable)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
            object.__setattr__(self, name, drawable)  # frozen, but a bare number becomes a Constant once, here
        object.__setattr__(self, "_draws", tuple(self._drawn_settings()))

    def __getstate__(self) -> dict[str, Any]:
        """The settings alone: what draws them follows from them, and need not travel to a worker."""
        return {name: value for name, value in vars(self).items() if name != "_draws"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)  # frozen
        object.__setattr__(self, "_draws", tuple(self._drawn_settings()))

    def _drawn_settings(self) -> Iterator[tuple[str, Callable[[np.random.Generator], Any]]]:
        """Each setting that is drawn, with what draws it."""
        for name, setting in settings(type(self)).items():
            if not isinstance(setting, Location):
                yield name, setting.drawing(getattr(self, name))

    def sample(self, rng: np.random.Generator, shape: Shape, clean_shape: Shape | None = None) -> Parameters:
        """Draws every number and word, in the order of the fields; none depends on the picture's shape."""
        parameters: dict[str, Any] = {name: draw(rng) for name, draw in self._draws}
        if self.noisy:
            parameters["stream"] = stream_key(rng)
        return parameters

    def further_draws(self) -> Mapping[str, tuple[Quantity, Distribution]]:
        """Numbers that `sample` draws beside the settings, with what they are drawn from: reports show them beside it."""
        return {}

    @staticmethod
    @abstractmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        """The degraded picture, float32, C x H x W. The input is left as it is."""

    @classmethod
    def apply_each(cls, batch: Planes, parameters: Sequence[Parameters]) -> Planes:
        """Degrades N x C x H x W pictures, each with parameters of its own, whose results have one shape."""
        return namespace(batch).stack([cls.apply(planes, own) for planes, own in zip(batch, parameters, strict=True)])

    @classmethod
    def apply_all(cls, pictures: Sequence[Planes], parameters: Sequence[Parameters]) -> list[Planes]:
        """What `apply` makes of each picture, to the last bit, for several small ones of any shapes in less time."""
        return [cls.apply(planes, own) for planes, own in zip(pictures, parameters, strict=True)]

    @staticmethod
    def output_shape(shape: Shape, parameters: Parameters) -> Shape:
        """Unchanged."""
        return shape

    @staticmethod
    def arrays(shape: Shape, parameters: Parameters) -> Mapping[str, NDArray[Any]]:
        """Arrays that a record may carry beside the pictures, for a picture of `shape`.

        "kernel": float32, kh x kw, the point spread function. "mask": uint8, H x W, 255 where the picture is intact.
        "motion": float32, 2 x H x W, horizontal and vertical motion in pixels.
        """
        return {}

    def paths(self) -> list[str]:
        """The files that it names."""
        return [getattr(self, name) for name, setting in settings(type(self)).items() if isinstance(setting, Location)]

    def content_digest(self) -> str | None:
        """Hash of the files that it draws from, whose change makes other pairs; None for those that read none."""
        return None

    def to_json(self) -> Any:
        """Setting -> its distribution, word or path."""
        return {name: written(getattr(self, name)) for name in settings(type(self))}


@dataclass(frozen=True)
class LinearOperator(Operator):
    """A linear A. A solver inverts it through `adjoint`:  <A x, y> = <x, A^T y>  for all x and y."""

    @staticmethod
    @abstractmethod
    def adjoint(planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        """A^T of a picture in the range of A; `shape` is that of the picture that A was applied to."""


def as_drawable(value: Any, setting: Setting) -> Any:
    """A bare number as a Constant, a bare word as a WordChoice of one; all else as it is."""
    if isinstance(setting, Quantity) and isinstance(value, int | float):
        return Constant(value)
    if isinstance(setting, Wording) and isinstance(value, str):
        return WordChoice((value,))
    return value


def written(value: Any) -> Any:
    """A setting as a recipe writes it."""
    return value.to_json() if hasattr(value, "to_json") else value
