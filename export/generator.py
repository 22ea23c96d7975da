"""Checkpoint of an adversarial run -> two ONNX files with cards: the generator, and beside it the discriminator.

    NAME.onnx                 z, N x latent, uniform in [-1, 1]      -> picture, N x 3 x 64 x 64 in [-1, 1]
    NAME-discriminator.onnx   picture, N x 3 x 64 x 64 in [-1, 1]    -> logit, N

The generator is the run's averaged one. Neither restores pictures: a solver searches with both (`models.generative`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from export.card import ModelCard
from export.onnx_export import Exported, facts_of_export, fold_batch_norm, largest_difference, traced
from export.onnx_file import set_card, write_model
from models.checkpoint import Progress, load_network, load_progress
from models.gan_recipe import DISCRIMINATOR, GanNetworks, GanRecipe, discriminator_path
from models.gan_training import Adversaries
from models.networks.dcgan import CHANNELS, SIDE

LICENCE = (
    "non-commercial research only: the faces it learned from (CelebA, Liu et al., ICCV 2015) may be used for nothing else, "
    "and may not be passed on; none is contained"
)
_PARITY_BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class _Part:
    """One of the two networks, as it is written."""

    name: str
    purpose: str
    network: nn.Module
    example: torch.Tensor
    takes: str
    gives: str


def export_generator(checkpoint: str, output: str) -> list[Exported]:
    """Writes generator and discriminator of a checkpoint folder; N is free.

    Raises:
        ConfigurationError: no checkpoint, or an ONNX model that differs from PyTorch by more than 1e-4. Nothing is written
            then.
    """
    progress = load_progress(Path(checkpoint))
    networks = Adversaries(_recipe(progress)).eval()
    load_network(Path(checkpoint), networks)
    parts = _parts(progress.recipe, networks)
    paths = (output, discriminator_path(output))
    models = [_to_onnx(part) for part in parts]
    errors = [_check_parity(model, part) for model, part in zip(models, parts, strict=True)]
    written = []
    for path, part, model, error in zip(paths, parts, models, errors, strict=True):
        card = _card(part, progress, model, error)
        set_card(model, card)
        onnx.checker.check_model(model, full_check=True)
        write_model(model, path)
        written.append(Exported(path, card, error))
    return written


def _to_onnx(part: _Part) -> onnx.ModelProto:
    names = (part.takes.partition(",")[0], part.gives.partition(",")[0])
    return traced(fold_batch_norm(part.network), part.example, names, {0: torch.export.Dim("N")})


def _check_parity(model: onnx.ModelProto, part: _Part) -> float:
    rng, size = np.random.Generator(np.random.Philox(key=0)), part.example.shape[1:]
    inputs = (rng.uniform(-1, 1, (batch, *size)).astype(np.float32) for batch in _PARITY_BATCHES)
    return largest_difference(model, part.network, inputs)


def _recipe(progress: Progress) -> GanRecipe:
    values = {name: value for name, value in progress.recipe.items() if name != "kind"}
    return GanRecipe(**{**values, "network": GanNetworks(**values["network"])})


def _parts(recipe: dict[str, Any], networks: Adversaries) -> tuple[_Part, _Part]:
    latent = recipe["network"]["latent"]
    picture = f"picture, N x {CHANNELS} x {SIDE} x {SIDE} in [-1, 1]"
    return (
        _Part(
            recipe["name"], recipe["purpose"], networks.average, torch.zeros(2, latent),
            f"z, N x {latent}, uniform in [-1, 1]", picture,
        ),
        _Part(
            recipe["name"] + DISCRIMINATOR, f"tell photographs from what {recipe['name']} draws", networks.discriminator,
            torch.zeros(2, CHANNELS, SIDE, SIDE), picture, "logit, N, above 0 for a photograph",
        ),
    )  # fmt: skip


def _card(part: _Part, progress: Progress, model: onnx.ModelProto, error: float) -> ModelCard:
    return ModelCard(
        name=part.name,
        purpose=part.purpose,
        channels=CHANNELS,
        color="rgb",
        scale=1,
        size_multiple=SIDE,
        receptive_field=SIDE,
        value_range=(-1.0, 1.0),
        card={
            "network": {"name": "dcgan", "part": _part_name(part), **progress.recipe["network"]},
            "takes": part.takes,
            "gives": part.gives,
            **facts_of_export(part.network, progress, model, error, LICENCE),
        },
    )


def _part_name(part: _Part) -> str:
    return "discriminator" if part.name.endswith(DISCRIMINATOR) else "generator"
