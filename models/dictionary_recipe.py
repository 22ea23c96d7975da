"""What the learning of ScSR's two dictionaries is: a YAML file with the network, the patches, and the rounds. Free of torch.

kind: dictionaries
name: scsr-x2                           the model's name in the zoo
purpose: super-resolution
command: conservator train --recipe ... the command that made the shipped weights
cost: 94 s of one CPU core's time
reaches: 35.98 dB psnr[y,border=2,u8] on Set5 x2
network: {atoms: 256, steps: 20, weight: 0.1, projections: 4}     of models.networks.scsr
degradation: enlarged-x2                the recipe that makes the pairs
patches_per_picture: 600                at random places
least_norm: 50                          of a patch's derivatives, in grey levels: the detail of flatter ones is rounding
rounds: 30                              of coding and least squares in turn
coding_steps: 10                        of ISTA in each round, from the codes of the last one
weight: 0.15                            lambda of the learning
seed: 41
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from models.recipe_kinds import FOR_PEOPLE, fields_for_people, is_of_kind, load_kind, plain_json, without
from models.recipes.validation import Field, Integer, Number, Section, Text

KIND = "dictionaries"
FACTOR, KERNEL = 2, "matlab_bicubic"  # what the network itself shrinks and enlarges by when it projects back


@dataclass(frozen=True)
class CodingSettings:
    """Settings of `models.networks.scsr.scsr`; defaults are its own."""

    atoms: int = 256
    steps: int = 20
    weight: float = 0.1
    projections: int = 4


@dataclass(frozen=True)
class DictionaryRecipe:
    """How the dictionaries are learned; see the module's example."""

    name: str
    purpose: str
    network: CodingSettings
    degradation: str
    rounds: int
    patches_per_picture: int = 600
    least_norm: float = 50.0
    coding_steps: int = 10
    weight: float = 0.15
    seed: int = 0
    command: str = ""
    cost: str = ""
    reaches: str = ""

    @property
    def steps(self) -> int:
        """The rounds, as all other trainings call them."""
        return self.rounds

    def network_settings(self) -> dict[str, Any]:
        """The builder's keywords."""
        return {"channels": 1, **asdict(self.network)}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with every default written out, and what an export needs: network and enlargement by name."""
        plain = plain_json(self)
        network = {"name": "scsr", "channels": 1, "settings": plain.pop("network")}
        enlarge = {"scales": [FACTOR], "kernel": KERNEL}
        return {"kind": KIND, **plain, "network": network, "enlarge": enlarge}

    def deciding(self) -> dict[str, Any]:
        """What decides the weights, as JSON: not what is for a person."""
        return without(self.to_json(), FOR_PEOPLE)


def load_dictionary_recipe(name_or_path: str) -> DictionaryRecipe:
    """Loads a recipe of this kind that ships, by name (`train-scsr-x2`), or any by path or URL.

    Raises:
        ConfigurationError: no such recipe, or one line `FILE:LINE: PATH: what is wrong` for each mistake in it.
    """
    return load_kind(name_or_path, KIND, _RECIPE)


def is_dictionary_recipe(name_or_path: str) -> bool:
    """Whether a recipe says that it is of this kind.

    Raises:
        ConfigurationError: no such recipe.
    """
    return is_of_kind(name_or_path, KIND)


def _recipe(kind: str, **values: Any) -> DictionaryRecipe:
    return DictionaryRecipe(**values)


_COUNT = Integer(minimum=1)
_NETWORK = Section(
    {
        "atoms": Field(_COUNT, "columns of both dictionaries", CodingSettings.atoms),
        "steps": Field(_COUNT, "of FISTA", CodingSettings.steps),
        "weight": Field(Number(above=0), "lambda when a picture is restored", CodingSettings.weight),
        "projections": Field(Integer(minimum=0), "steps of back-projection", CodingSettings.projections),
    },
    CodingSettings,
)
_RECIPE = Section(
    {
        **fields_for_people(KIND, "super-resolution"),
        "network": Field(_NETWORK),
        "degradation": Field(Text(), "the recipe that makes the pairs"),
        "patches_per_picture": Field(_COUNT, "at random places", DictionaryRecipe.patches_per_picture),
        "least_norm": Field(Number(minimum=0), "of a patch's derivatives, in grey levels", DictionaryRecipe.least_norm),
        "rounds": Field(_COUNT, "of coding and least squares in turn"),
        "coding_steps": Field(_COUNT, "of ISTA in each round", DictionaryRecipe.coding_steps),
        "weight": Field(Number(above=0), "lambda of the learning", DictionaryRecipe.weight),
        "seed": Field(Integer(minimum=0), "of patches and first atoms", 0),
    },
    _recipe,
)
