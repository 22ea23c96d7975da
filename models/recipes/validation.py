"""Reads YAML configurations against a declared schema, with the file and line of every mistake.

A schema is built from *kinds*: `Number`, `Integer`, `Flag`, `Text`, `Word`, `ListOf`, `Nullable`, `Section` (a mapping
with known keys) and `Variant` (one of several sections, told apart by the key that it has). A kind reads a YAML node
into a value and writes its own JSON schema, so the published schema and the validator cannot drift apart.

    ADAM = Section({"rate": Field(Number(above=0), "learning rate")}, Adam)
    TRAINING = Section(
        {
            "batch_size": Field(Integer(minimum=1), "patches per step", default=128),
            "optimiser": Field(Variant("an optimiser", {"adam": Section({"adam": Field(ADAM)}, lambda adam: adam)})),
        },
        TrainingRecipe,  # called with the fields as keywords; its ValueError becomes an error at this section's line
    )
    training = read_text(text, "my.yaml", TRAINING)

    my.yaml:3: optimiser.adam: unknown key 'rte'; did you mean 'rate'?

All mistakes of a file are reported together. Numbers may be fractions such as `25/255`, and need no dot before their
exponent. Anchors, aliases, tags and duplicate keys are mistakes.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import yaml

from models.bounds import Bounds
from models.recipes.yaml_nodes import (
    STANDARD_TAG,
    Mistakes,
    Place,
    compose,
    entries_of,
    has_tag,
    line_of,
    scalar,
    shown,
)
from transforms.errors import ConfigurationError

S = TypeVar("S")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Definitions = dict[str, Any]  # name -> JSON schema: the `$defs` of a published schema

# No leading zeros: to YAML 1.1, 010 is 8.
_NUMBER = r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?"
_INTEGER = r"[-+]?(0|[1-9][0-9]{0,17})"
_REQUIRED: Any = object()


class Kind(Protocol[T_co]):
    """What a value may be."""

    def read(self, node: yaml.Node, place: Place) -> T_co:
        """The value of a node. Raises Mistakes."""

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        """Its JSON schema; shared parts go to `definitions`."""


def read_text(text: str, file: str, kind: Kind[T]) -> T:
    """Reads a YAML document.

    Args:
        text: the document.
        file: its name in messages.
        kind: what it must be.

    Raises:
        ConfigurationError: one line `FILE:LINE: PATH: what is wrong` for each mistake, in the file's order.
    """
    try:
        return kind.read(compose(text, file), Place(file))
    except Mistakes as error:
        raise ConfigurationError("\n".join(message for _, message in sorted(error.found))) from None
    except RecursionError:
        raise ConfigurationError(f"{file}:1: nested too deeply") from None


def schema_text(kind: Kind[Any], title: str) -> str:
    """The JSON schema (draft 2020-12) of a kind, ready to publish."""
    definitions: Definitions = {}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return json.dumps({**head, **kind.schema(definitions), "$defs": definitions}, indent=1, sort_keys=True) + "\n"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'sigma'?`, or nothing where no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True, kw_only=True)
class Number(Bounds):
    """A finite number, read as float: `0.1`, `1e-4`, `25/255`."""

    def read(self, node: yaml.Node, place: Place) -> float:
        value = _number(scalar(node))
        if value is None:
            raise place.mistake(f"expected {self.expectation()}, got {shown(node)}", line_of(node))
        if (complaint := self.complaint(value)) is not None:
            raise place.mistake(complaint, line_of(node))
        return value

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        # A fraction, or an exponent without a dot, is a string to YAML 1.1; its bounds are beyond JSON schema.
        text = {"type": "string", "pattern": rf"^{_NUMBER}(\s*/\s*{_NUMBER})?$"}
        return {"anyOf": [{"type": "number", **self.limits_schema()}, text]}


@dataclass(frozen=True, kw_only=True)
class Integer(Bounds):
    """A whole number, read as int."""

    integer: bool = True

    def read(self, node: yaml.Node, place: Place) -> int:
        text = scalar(node)
        if text is None or not has_tag(node, "int") or not re.fullmatch(_INTEGER, text):
            raise place.mistake(f"expected {self.expectation()}, got {shown(node)}", line_of(node))
        if (complaint := self.complaint(int(text))) is not None:
            raise place.mistake(complaint, line_of(node))
        return int(text)

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"type": "integer", **self.limits_schema()}


@dataclass(frozen=True)
class Flag:
    """`true` or `false`."""

    def read(self, node: yaml.Node, place: Place) -> bool:
        text = scalar(node)
        if not has_tag(node, "bool") or text not in ("true", "false"):
            raise place.mistake(f"expected true or false, got {shown(node)}", line_of(node))
        return text == "true"

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text:
    """Text that is not empty."""

    def read(self, node: yaml.Node, place: Place) -> str:
        text = scalar(node)
        if text is None or not has_tag(node, "str"):
            raise place.mistake(f"expected text, got {shown(node)}; put quotes around it if it is text", line_of(node))
        if not text.strip():
            raise place.mistake("expected text, got nothing", line_of(node))
        return text.strip()

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"type": "string", "pattern": r"\S"}


@dataclass(frozen=True, init=False)
class Word:
    """One of a few words: `Word("png", "npy")`."""

    words: tuple[str, ...]

    def __init__(self, *words: str) -> None:
        object.__setattr__(self, "words", words)

    def read(self, node: yaml.Node, place: Place) -> str:
        text = scalar(node)
        if text is None or text not in self.words:
            expected = " or ".join(repr(word) for word in self.words)
            hint = did_you_mean(text or "", self.words)
            raise place.mistake(f"expected {expected}, got {shown(node)}{hint}", line_of(node))
        return text

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"enum": list(self.words)}


@dataclass(frozen=True)
class ListOf(Generic[T]):
    """A list of `minimum` to `maximum` values, read as a tuple."""

    kind: Kind[T]
    minimum: int = 1
    maximum: int | None = None

    def read(self, node: yaml.Node, place: Place) -> tuple[T, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise place.mistake(f"expected a list, got {shown(node)}", line_of(node))
        count = len(node.value)
        if count < self.minimum or (self.maximum is not None and count > self.maximum):
            raise place.mistake(f"expected a list of {self._expected_count()}, got {count}", line_of(node))
        mistakes: list[tuple[int, str]] = []
        values: list[T] = []
        for index, each in enumerate(node.value):
            try:
                values.append(self.kind.read(each, place.item(index, line_of(each))))
            except Mistakes as error:
                mistakes += error.found
        if mistakes:
            raise Mistakes(mistakes)
        return tuple(values)

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        limits = {"minItems": self.minimum} | ({} if self.maximum is None else {"maxItems": self.maximum})
        return {"type": "array", "items": self.kind.schema(definitions), **limits}

    def _expected_count(self) -> str:
        if self.minimum == self.maximum:
            return f"{self.minimum} values"
        return f"at least {self.minimum}" + ("" if self.maximum is None else f" and at most {self.maximum}")


@dataclass(frozen=True)
class Nullable(Generic[T]):
    """A value, or `null` for none."""

    kind: Kind[T]

    def read(self, node: yaml.Node, place: Place) -> T | None:
        return None if has_tag(node, "null") else self.kind.read(node, place)

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"anyOf": [{"type": "null"}, self.kind.schema(definitions)]}


@dataclass(frozen=True)
class Built(Generic[S, T]):
    """A value of another kind, handed on to `build`, whose ValueError becomes a mistake at this place."""

    kind: Kind[S]
    build: Callable[[S], T]

    def read(self, node: yaml.Node, place: Place) -> T:
        value = self.kind.read(node, place)
        try:
            return self.build(value)
        except ValueError as error:
            raise place.mistake(str(error)) from error

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return self.kind.schema(definitions)


@dataclass(frozen=True)
class Shared(Generic[T]):
    """A named part of a schema, published once under `$defs`; made when first needed, so that it may contain itself."""

    name: str
    make: Callable[[], Kind[T]]

    def read(self, node: yaml.Node, place: Place) -> T:
        return self.make().read(node, place)

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        if self.name not in definitions:
            definitions[self.name] = {}  # holds the name while the part, which may refer to itself, is written
            definitions[self.name] = self.make().schema(definitions)
        return {"$ref": f"#/$defs/{self.name}"}


@dataclass(frozen=True)
class Field:
    """One key of a section: what it may be, its meaning for a person, its default (without one it is required)."""

    kind: Kind[Any]
    meaning: str = ""
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        return self.default is _REQUIRED


@dataclass(frozen=True)
class Section(Generic[T]):
    """A mapping with known keys, read as `build(**values)`; a ValueError of `build` becomes a mistake at this place."""

    fields: Mapping[str, Field]
    build: Callable[..., T]

    def read(self, node: yaml.Node, place: Place) -> T:
        entries = entries_of(node, place)
        mistakes = [each for name in entries if name not in self.fields for each in self._unknown(name, entries, place)]
        values: dict[str, Any] = {}
        for name, field in self.fields.items():
            try:
                values[name] = self._value(name, field, entries, place)
            except Mistakes as error:
                mistakes += error.found
        if mistakes:
            raise Mistakes(mistakes)
        try:
            return self.build(**values)
        except ValueError as error:
            raise place.mistake(str(error)) from error

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {name: _described(field, definitions) for name, field in self.fields.items()},
            "required": [name for name, field in self.fields.items() if field.required],
            "additionalProperties": False,
        }

    def _unknown(
        self, name: str, entries: Mapping[str, tuple[yaml.Node, Place]], place: Place
    ) -> list[tuple[int, str]]:
        known = f"; known are {_listed(self.fields)}" if self.fields else "; none is known here"
        hint = did_you_mean(name, self.fields) or known
        return place.mistake(f"unknown key {name!r}{hint}", entries[name][1].line).found

    @staticmethod
    def _value(name: str, field: Field, entries: Mapping[str, tuple[yaml.Node, Place]], place: Place) -> Any:
        if name in entries:
            return field.kind.read(*entries[name])
        if field.required:
            raise place.mistake(f"missing key {name!r}" + (f" ({field.meaning})" if field.meaning else ""))
        return field.default


@dataclass(frozen=True)
class Variant(Generic[T]):
    """A mapping with exactly one of several telling keys; the section of that key reads the whole mapping.

    Attributes:
        noun: what the telling keys are, for messages: "an optimiser".
        sections: telling key -> section.
        bare: telling keys that may stand alone as a word, short for `key: {}`.
    """

    noun: str
    sections: Mapping[str, Section[T]]
    bare: frozenset[str] = frozenset()

    def read(self, node: yaml.Node, place: Place) -> T:
        if isinstance(node, yaml.ScalarNode):
            node = self._spelt_out(node, place)
        entries = entries_of(node, place)
        telling = [name for name in entries if name in self.sections]
        if len(telling) == 1:
            return self.sections[telling[0]].read(node, place)
        if telling:
            raise place.mistake(f"expected {self.noun}, got {_listed(telling, ' and ')}", line_of(node))
        raise place.mistake(f"expected {self.noun}, got {self._untelling(entries)}", line_of(node))

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        words: list[dict[str, Any]] = [{"enum": sorted(self.bare)}] if self.bare else []
        return {"anyOf": [*words, *(section.schema(definitions) for section in self.sections.values())]}

    def _spelt_out(self, node: yaml.ScalarNode, place: Place) -> yaml.MappingNode:
        if node.value in self.bare:
            marks = (node.start_mark, node.end_mark)
            body = yaml.MappingNode(f"{STANDARD_TAG}map", [], *marks)
            return yaml.MappingNode(f"{STANDARD_TAG}map", [(node, body)], *marks)
        if node.value in self.sections:
            message = f"{node.value!r} cannot stand alone; write {node.value}: with its settings"
            raise place.mistake(message, line_of(node))
        hint = did_you_mean(node.value, self.sections)
        raise place.mistake(f"expected {self.noun}, got {shown(node)}{hint}", line_of(node))

    def _untelling(self, names: Iterable[str]) -> str:
        got = _listed(names) or "an empty mapping"
        hints = [hint for name in names if (hint := did_you_mean(name, self.sections))]
        return got + (hints[0] if hints else f"; known are {_listed(self.sections)}")


def _described(field: Field, definitions: Definitions) -> dict[str, Any]:
    described = field.kind.schema(definitions)
    return described | ({"description": field.meaning} if field.meaning else {})


def _number(text: str | None) -> float | None:
    parts = re.split(r"\s*/\s*", text or "")
    if len(parts) > 2 or not all(re.fullmatch(_NUMBER, part) for part in parts):
        return None
    values = [float(part) for part in parts]
    if len(values) == 1:
        return values[0]
    return values[0] / values[1] if values[1] else None


def _listed(words: Iterable[str], separator: str = ", ") -> str:
    return separator.join(repr(word) for word in words)
