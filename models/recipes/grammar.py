"""What a degradation recipe may say: its YAML schema, made from the tables of operators, chains and distributions."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from models.bounds import Bounds
from models.degradation.chains import InOrder, Maybe, OneOf, Shuffle
from models.degradation.distributions import (
    Choice,
    Constant,
    Distribution,
    LogUniform,
    Normal,
    Uniform,
    WordChoice,
)
from models.degradation.protocol import Degradation, Operator, Quantity, Setting, Wording, defaults, settings
from models.degradation.table import OPERATORS, operator_class
from models.recipes.channels import CHANNELS
from models.recipes.patches import COUNT, HASH_DISTANCE, MARGIN, MINIMUM_STD, SHARPNESS, SIZE, Patches
from models.recipes.recipe import ARRAYS, STORES, Recipe
from models.recipes.validation import (
    Built,
    Definitions,
    Field,
    Flag,
    Integer,
    Kind,
    ListOf,
    Nullable,
    Number,
    Section,
    Shared,
    Text,
    Variant,
    Word,
)
from models.recipes.yaml_nodes import Place

_BOUNDS = ("minimum", "maximum", "above", "below")


@dataclass(frozen=True)
class Drawn:
    """A number, or a distribution of numbers, within the bounds of a quantity."""

    quantity: Quantity

    def read(self, node: yaml.Node, place: Place) -> Distribution:
        if isinstance(node, yaml.MappingNode):
            return _distribution(self.quantity).read(node, place)
        return Constant(number(self.quantity).read(node, place))

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        """Many quantities have the same bounds: each set of bounds is published once."""
        bounds = [f"{name} {value:g}" for name in _BOUNDS if (value := getattr(self.quantity, name)) is not None]
        name = ", ".join(["drawn integer" if self.quantity.integer else "drawn number", *bounds])
        if name not in definitions:
            distributions: list[Any] = _distribution(self.quantity).schema(definitions)["anyOf"]
            definitions[name] = {"anyOf": [number(self.quantity).schema(definitions), *distributions]}
        return {"$ref": "#/$defs/" + name.replace(" ", "%20")}


@dataclass(frozen=True)
class DrawnWord:
    """A word, or a choice of words."""

    wording: Wording

    def read(self, node: yaml.Node, place: Place) -> WordChoice:
        if isinstance(node, yaml.MappingNode):
            return self._choice().read(node, place)
        return WordChoice((self._word().read(node, place),))

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"anyOf": [self._word().schema(definitions), self._choice().schema(definitions)]}

    def _word(self) -> Word:
        return Word(*self.wording.options)

    def _choice(self) -> Section[WordChoice]:
        weights = Field(ListOf(Number(minimum=0)), "how often each is chosen, relative to the others", default=None)
        return Section({"choice": Field(ListOf(self._word()), "the words to choose from"), "weights": weights}, _words)


def _words(choice: tuple[str, ...], weights: tuple[float, ...] | None) -> WordChoice:
    return WordChoice(choice, weights)


def kind_of_setting(setting: Setting) -> Kind[Any]:
    """How a recipe writes a setting."""
    if isinstance(setting, Quantity):
        return Drawn(setting)
    return DrawnWord(setting) if isinstance(setting, Wording) else Path()


@dataclass(frozen=True)
class Path:
    """A path or URL; a relative path begins at the recipe's folder."""

    def read(self, node: yaml.Node, place: Place) -> str:
        path = Text().read(node, place)
        if re.match(r"[a-z][a-z0-9+.-]+:", path) or os.path.isabs(path):
            return path
        folder, separator, _ = place.file.rpartition("/")
        return f"{folder}/{path}" if "://" in folder else os.path.abspath(f"{folder}{separator}{path}")

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return Text().schema(definitions)


def number(bounds: Bounds) -> Kind[float]:
    """The kind of a number within bounds."""
    limits = {name: getattr(bounds, name) for name in _BOUNDS}
    return Integer(**limits) if bounds.integer else Number(**limits)


def recipe_section() -> Section[Recipe]:
    """The schema of a degradation recipe."""
    return Section(
        {
            "kind": Field(Word("degradation"), "what kind of recipe this is"),
            "name": Field(Text(), "instead of the file's name", default=""),
            "description": Field(Text(), "what it is for"),
            "source": Field(Text(), "the paper and section that it follows"),
            "channels": Field(Word(*CHANNELS), "what the clean picture becomes before all else", default="as_is"),
            "patches": Field(Nullable(_patches()), "how patches are cut; without: whole pictures", default=None),
            "degradation": Field(_step(), "one operator or chain"),
            "store": Field(
                Word(*STORES), "png clips and rounds the degraded picture, npy keeps float32", default="png"
            ),
            "crop_to_multiple": Field(
                Integer(minimum=1), "the clean picture's sides become multiples of this", default=1
            ),
            "arrays": Field(ListOf(Word(*ARRAYS), 0), "arrays that a record carries beside its pictures", default=()),
        },
        lambda kind, **fields: Recipe(**fields),
    )


def _patches() -> Section[Patches]:
    flat = "a place is drawn again if no channel's standard deviation reaches this; white is 1"
    blurred = "a place is drawn again if the Laplacian's standard deviation does not reach this; white is 1"
    duplicate = "a patch is left out if fewer bits of its 64-bit difference hash differ from an earlier one's"
    return Section(
        {
            "size": Field(number(SIZE), "side of the square in pixels"),
            "per_image": Field(number(COUNT), "patches per picture", default=1),
            "flips": Field(Flag(), "mirror half of them", default=False),
            "rotations": Field(Flag(), "turn by 0, 90, 180 or 270 degrees", default=False),
            "minimum_std": Field(number(MINIMUM_STD), flat, default=0.0),
            "attempts": Field(number(COUNT), "draws before a flat or blurred place is given up", default=10),
            "minimum_sharpness": Field(number(SHARPNESS), blurred, default=0.0),
            "minimum_hash_distance": Field(number(HASH_DISTANCE), duplicate, default=0),
            "margin": Field(number(MARGIN), "pixels around it that are degraded too and then cut off", default=0),
        },
        Patches,
    )


def _step() -> Shared[Degradation]:
    return Shared("step", _steps)


@cache
def _steps() -> Variant[Degradation]:
    return _variant({}, bare=True)


@cache
def _weighted_steps() -> Variant[tuple[Degradation, float]]:
    weight = Field(Number(minimum=0), "how often it is chosen, relative to the others", default=1.0)
    return _variant({"weight": weight}, bare=True)


@cache
def _shuffled_steps() -> Variant[tuple[Degradation, bool]]:
    keep = Field(Flag(), "stays before or after the other members that keep their order", default=False)
    return _variant({"keep_order": keep}, bare=True)


@cache
def _possible_step() -> Variant[tuple[Degradation, float]]:
    return _variant({"probability": Field(Number(minimum=0, maximum=1), "of the step happening")}, bare=False)


def _variant(beside: dict[str, Field], *, bare: bool) -> Variant[Any]:
    """One operator or chain, alone or with another key beside it: `{weight: 2, gaussian_noise: {...}}`."""

    def section(name: str, body: Kind[Degradation]) -> Section[Any]:
        def build(**values: Any) -> Any:
            member = values.pop(name)
            return (member, *values.values()) if beside else member

        return Section({name: Field(body), **beside}, build)

    bodies = {name: _operator(name) for name in OPERATORS} | _chains()  # composed_blur is an operator that holds others
    sections = {name: section(name, body) for name, body in bodies.items()}
    return Variant("one operator or chain", sections, _without_needs() if bare else frozenset())


def _without_needs() -> frozenset[str]:
    """Operators that need no setting: their bare name is enough."""
    classes = {name: operator_class(name) for name in OPERATORS}
    return frozenset(
        name
        for name, found in classes.items()
        if name not in _chains() and len(defaults(found)) == len(settings(found))
    )


def _operator(name: str) -> Shared[Degradation]:
    def make() -> Section[Operator]:
        given = {key: {"default": value} for key, value in defaults(operator_class(name)).items()}
        fields = {
            key: Field(kind_of_setting(setting), setting.meaning, **given.get(key, {}))
            for key, setting in settings(operator_class(name)).items()
        }
        return Section(fields, operator_class(name))

    return Shared(name, make)


def _chains() -> dict[str, Shared[Degradation]]:
    return {
        "sequence": Shared("sequence", lambda: Built(ListOf(_step()), InOrder)),
        "shuffle": Shared("shuffle", lambda: Built(ListOf(_shuffled_steps()), _shuffle)),
        "one_of": Shared("one_of", lambda: Built(ListOf(_weighted_steps()), _one_of)),
        "composed_blur": Shared("composed_blur", lambda: Built(ListOf(_step(), 2), _composed_blur)),
        "maybe": Shared("maybe", lambda: Built(_possible_step(), lambda possible: Maybe(*possible))),
    }


def _shuffle(flagged: tuple[tuple[Degradation, bool], ...]) -> Shuffle:
    members, kept = zip(*flagged, strict=True)
    return Shuffle(members, frozenset(index for index, flag in enumerate(kept) if flag))


def _composed_blur(members: tuple[Degradation, ...]) -> Degradation:
    from models.degradation.blur import ComposedBlur, KernelBlur

    for member in members:
        if not isinstance(member, KernelBlur):
            raise ValueError(f"composed_blur: {member.name} has no kernel; name blurs with one kernel for the picture")
    return ComposedBlur(tuple(each for each in members if isinstance(each, KernelBlur)))


def _one_of(weighted: tuple[tuple[Degradation, float], ...]) -> OneOf:
    members, weights = zip(*weighted, strict=True)
    return OneOf(members, weights)


def _distribution(quantity: Quantity) -> Variant[Distribution]:
    value = number(quantity)
    bounds = Field(ListOf(value, 2, 2), "smallest and greatest value")
    power = Field(Number(), "what a uniform number is raised to: 0.5 for a uniform square, -1 for a uniform divisor")
    base = Field(ListOf(Number(), 2, 2), "smallest and greatest of the number that is raised")
    normal = Field(ListOf(Number(), 2, 2), "mean and standard deviation; cut off at four of these")
    options = Field(ListOf(value), "the values to choose from")
    weights = Field(ListOf(Number(minimum=0)), "how often each is chosen, relative to the others", default=None)
    return Variant(
        "one distribution",
        {
            "constant": Section({"constant": Field(value)}, lambda constant: Constant(constant)),
            "uniform": Section({"uniform": bounds}, lambda uniform: Uniform(*uniform)),
            "power": Section({"power": power, "of": base}, lambda power, of: Uniform(of[0], of[1], power)),
            "log_uniform": Section({"log_uniform": bounds}, lambda log_uniform: LogUniform(*log_uniform)),
            "normal": Section({"normal": normal}, lambda normal: Normal(*normal)),
            "choice": Section({"choice": options, "weights": weights}, lambda choice, weights: Choice(choice, weights)),
        },
    )
