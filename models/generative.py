"""The generative prior for solvers: generator and discriminator of an exported model as differentiable networks.

Both come from the ONNX files that ship, batch norms folded, so that what is searched with is what was measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor

from models.gan_recipe import discriminator_path
from models.networks.dcgan import Discriminator, Generator
from models.zoo import MODELS, zoo_path
from transforms.errors import ConfigurationError
from transforms.storage import read_bytes


@dataclass(frozen=True)
class GenerativePrior:
    """G and D in evaluation mode, without gradients to their own weights.

    Attributes:
        generator: N x latent, uniform in [-1, 1] -> N x 3 x 64 x 64 in [-1, 1].
        discriminator: N x 3 x 64 x 64 in [-1, 1] -> N logits of "is a photograph".
    """

    generator: Generator
    discriminator: Discriminator


def load_generative_prior(model: str) -> GenerativePrior:
    """Loads `NAME.onnx` and `NAME-discriminator.onnx`.

    Args:
        model: a zoo name (`dcgan-faces`), or path or URL of the generator's file.

    Raises:
        ConfigurationError: no such model, or one that is no generator that `conservator export` wrote.

    Example:
        >>> prior = load_generative_prior("dcgan-faces")  # doctest: +SKIP
    """
    path = model if model.endswith(".onnx") else str(zoo_path(model))
    generator, discriminator = _read(path, "generator"), _read(discriminator_path(path), "discriminator")
    loaded = GenerativePrior(
        Generator(generator.features, generator.latent, folded=True).eval(),
        Discriminator(discriminator.features, folded=True).eval(),
    )
    for network, read in ((loaded.generator, generator), (loaded.discriminator, discriminator)):
        # The exporter leaves a bias out that is zero everywhere.
        network.load_state_dict(
            {name: read.weights.get(name, torch.zeros_like(tensor)) for name, tensor in network.state_dict().items()}
        )
        network.requires_grad_(False)
    return loaded


@dataclass(frozen=True)
class _Read:
    features: int
    latent: int
    weights: dict[str, Tensor]


def _read(path: str, part: str) -> _Read:
    try:
        model = onnx.load_model_from_string(read_bytes(path))
    except Exception as error:  # protocol buffers' own errors have no common class short of Exception
        raise ConfigurationError(f"cannot read the {part} {path!r}: {error}") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    network = json.loads(metadata.get("conservator.card", "{}")).get("network", {})
    if network.get("name") != "dcgan" or network.get("part") != part:
        raise ConfigurationError(
            f"{path!r} is no {part} of a generative prior; the zoo has {', '.join(n for n in MODELS if 'gan' in n) or 'none'}"
        )
    weights = {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer
    }
    return _Read(network["features"], network["latent"], weights)
