"""What the training of a generative network is: a YAML file with the network, the cut of the pictures, and the schedule. Free
of torch.

kind: gan-training
name: dcgan-faces                       the model's name in the zoo
purpose: draw faces
command: conservator train --recipe ... the command that made the shipped weights
cost: 20 minutes on one CPU core
reaches: a sliced Wasserstein distance of ... on held-out faces
network: {features: 32, latent: 100}    of models.networks.dcgan
crop: 54                                pixels: the middle square of each picture, made 64 x 64 bicubically
flip: true                              half of the pictures, drawn by chance, are mirrored left to right
held_out: 200                           pictures kept back, the first by the hash of their key
batch_size: 64
steps: 4000
seed: 64
precision: bfloat16                     of the layers' arithmetic; weights, loss and optimiser stay float32
learning_rate: 0.0002                   of Adam, for both networks
beta1: 0.5
average: 0.998                          what ships is a running mean of G's weights with this memory; 0: the last ones
sheet_every: 500                        steps between two sheets of pictures drawn from the same latent vectors
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.recipe_kinds import FOR_PEOPLE, fields_for_people, is_of_kind, load_kind, plain_json, without
from models.recipes.validation import Field, Flag, Integer, Number, Section, Word

KIND = "gan-training"
DISCRIMINATOR = "-discriminator"  # what its name has on top of the generator's


@dataclass(frozen=True)
class GanNetworks:
    """Sizes of generator and discriminator."""

    features: int
    latent: int = 100


@dataclass(frozen=True)
class GanRecipe:
    """A training run of a generator against a discriminator; see the module's example.

    Defaults are those of Radford, Metz, Chintala, ICLR 2016, section 4; the running mean is that of Yazıcı et al., "The unusual
    effectiveness of averaging in GAN training", ICLR 2019.
    """

    name: str
    purpose: str
    network: GanNetworks
    crop: int
    steps: int
    batch_size: int = 64
    flip: bool = True
    held_out: int = 0
    learning_rate: float = 2e-4
    beta1: float = 0.5
    average: float = 0.0
    precision: str = "float32"
    seed: int = 0
    sheet_every: int = 500
    command: str = ""
    cost: str = ""
    reaches: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with every default written out."""
        return {"kind": KIND, **plain_json(self)}

    def deciding(self) -> dict[str, Any]:
        """What decides the weights, as JSON: not what is for a person."""
        return without(self.to_json(), FOR_PEOPLE | {"sheet_every"})


def load_gan_recipe(name_or_path: str) -> GanRecipe:
    """Loads a recipe of this kind that ships, by name (`train-dcgan-faces`), or any by path or URL.

    Raises:
        ConfigurationError: no such recipe, or one line `FILE:LINE: PATH: what is wrong` for each mistake in it.
    """
    return load_kind(name_or_path, KIND, _RECIPE)


def is_gan_recipe(name_or_path: str) -> bool:
    """Whether a recipe says that it is of this kind.

    Raises:
        ConfigurationError: no such recipe.
    """
    return is_of_kind(name_or_path, KIND)


def discriminator_path(generator: str) -> str:
    """Where the discriminator of a generator's `.onnx` file is."""
    return generator.removesuffix(".onnx") + f"{DISCRIMINATOR}.onnx"


def _recipe(kind: str, **values: Any) -> GanRecipe:
    return GanRecipe(**values)


_COUNT = Integer(minimum=1)
_NETWORK = Section(
    {
        "features": Field(_COUNT, "of the layers next to the picture: 64 are the papers'"),
        "latent": Field(_COUNT, "length of the latent vector", 100),
    },
    GanNetworks,
)
_RECIPE = Section(
    {
        **fields_for_people(KIND, "draw faces, ..."),
        "network": Field(_NETWORK),
        "crop": Field(_COUNT, "side of the square in the middle of each picture, pixels"),
        "flip": Field(Flag(), "mirror half of the pictures", True),
        "held_out": Field(Integer(minimum=0), "pictures kept back", 0),
        "batch_size": Field(Integer(minimum=2), "pictures per step", 64),
        "steps": Field(_COUNT, "of both optimisers"),
        "seed": Field(Integer(minimum=0), "of weights, latent vectors and the order of the pictures", 0),
        "precision": Field(Word("float32", "bfloat16"), "of the layers", "float32"),
        "learning_rate": Field(Number(above=0), "of Adam", 2e-4),
        "beta1": Field(Number(minimum=0, below=1), "of Adam", 0.5),
        "average": Field(Number(minimum=0, below=1), "memory of the running mean of G's weights", 0.0),
        "sheet_every": Field(_COUNT, "steps between two sheets", 500),
    },
    _recipe,
)
