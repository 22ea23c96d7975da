"""Finds recipes: by the name of one that ships, by path or URL, or as the JSON that another run has noted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import fsspec
import yaml

from models.recipes.grammar import recipe_section
from models.recipes.recipe import Recipe
from models.recipes.validation import did_you_mean, read_text, schema_text
from models.recipes.yaml_nodes import Mistakes, compose
from transforms.errors import ConfigurationError

FOLDER = Path(__file__).parent
SCHEMA_FILE = FOLDER / "recipe.schema.json"
TRAINING_KINDS = ("training", "gan-training", "dictionaries")
_ENDINGS = (".yaml", ".yml", ".json")  # JSON is YAML


def load_recipe(name_or_path: str) -> Recipe:
    """Loads a degradation recipe.

    Args:
        name_or_path: name of a shipped recipe (`gaussian-25`), path or URL of a YAML file, or what `Recipe.to_json` gave,
            as JSON text.

    Raises:
        ConfigurationError: no such recipe, or one line `FILE:LINE: PATH: what is wrong` for each mistake in it.
    """
    text, file = read_recipe_text(name_or_path)
    if kind_of(text, file) in TRAINING_KINDS:
        raise ConfigurationError(f"{file}: a recipe for training, where one for degradation is expected")
    recipe = read_text(text, file, recipe_section())
    return recipe if recipe.name else replace(recipe, name=PurePosixPath(file).stem)


def shipped_recipes(kind: str = "degradation") -> list[str]:
    """Names of the recipes of a kind that ship, sorted."""
    return [path.stem for path in _shipped() if kind_of(path.read_text("utf-8"), path.name) == kind]


def read_recipe_text(name_or_path: str) -> tuple[str, str]:
    """The text of a recipe of any kind, and its file name for messages.

    Raises:
        ConfigurationError: no such file, it can't be opened, or it is not UTF-8.
    """
    url = str(name_or_path)
    if url.startswith("{"):
        return url, "recipe.json"
    if "/" not in url and not url.endswith(_ENDINGS):
        url = str(_shipped_file(url))
    try:
        with fsspec.open(url, "rb") as file:
            content: bytes = file.read()
        return content.decode("utf-8"), url
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{url}: not UTF-8 at byte {error.start}; save the recipe as UTF-8") from error
    except (OSError, ValueError, ImportError) as error:
        raise ConfigurationError(f"cannot read the recipe {url!r}: {error}") from error


def kind_of(text: str, file: str) -> str:
    """What kind of recipe a document says it is ("degradation", or one of TRAINING_KINDS); empty if it does not say."""
    try:
        root = compose(text, file)
    except Mistakes:
        return ""  # whoever reads the document for good reports them
    entries = root.value if isinstance(root, yaml.MappingNode) else []
    return next((str(value.value) for key, value in entries if key.value == "kind"), "")


def recipe_schema() -> str:
    """The JSON schema of degradation recipes, as published in `recipe.schema.json`."""
    return schema_text(recipe_section(), "Conservator degradation recipe")


def _shipped() -> list[Path]:
    return sorted(FOLDER.glob("*.yaml"))


def _shipped_file(name: str) -> Path:
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        names = [each.stem for each in _shipped()]
        hint = did_you_mean(name, names) or f"; shipped are {', '.join(names)}"
        raise ConfigurationError(
            f"no recipe is called {name!r}{hint} (a file of your own needs its ending: {name}.yaml)"
        )
    return path
