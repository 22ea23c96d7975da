"""What all recipes of a training have in common, whatever they train: words for people, and how a file of one kind is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from models.recipes.loader import kind_of, read_recipe_text
from models.recipes.validation import Field, Section, Text, Word, read_text
from transforms.errors import ConfigurationError

R = TypeVar("R")
FOR_PEOPLE = frozenset({"name", "purpose", "command", "cost", "reaches"})  # what decides no weights


def fields_for_people(kind: str, purpose: str) -> dict[str, Field]:
    """The first entries of a recipe's schema."""
    return {
        "kind": Field(Word(kind), kind),
        "name": Field(Text(), "the model's name"),
        "purpose": Field(Text(), purpose),
        "command": Field(Text(), "the command that makes the weights", ""),
        "cost": Field(Text(), "time and machine", ""),
        "reaches": Field(Text(), "the figure to expect, with its protocol", ""),
    }


def plain_json(recipe: Any) -> dict[str, Any]:
    """A recipe's fields, every default written out."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return plain


def without(plain: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """All entries but those."""
    return {name: value for name, value in plain.items() if name not in names}


def load_kind(name_or_path: str, kind: str, section: Section[R]) -> R:
    """Loads a recipe that ships, by name, or any by path or URL.

    Raises:
        ConfigurationError: no such recipe, one of another kind, or one line `FILE:LINE: PATH: what is wrong` for each mistake.
    """
    text, file = read_recipe_text(name_or_path)
    if (found := kind_of(text, file)) not in (kind, ""):
        raise ConfigurationError(f"{file}: a recipe of kind {found}, where kind: {kind} is expected")
    return read_text(text, file, section)


def is_of_kind(name_or_path: str, kind: str) -> bool:
    """Whether a recipe says that it is of this kind.

    Raises:
        ConfigurationError: no such recipe.
    """
    return kind_of(*read_recipe_text(name_or_path)) == kind
