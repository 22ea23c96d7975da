"""Checkpoint of an adversarial run -> two ONNX files with cards: the generator, and beside it the discriminator.

    NAME.onnx                 z, N x latent, uniform in [-1, 1]      -> picture, N x 3 x 64 x 64 in [-1, 1]
    NAME-discriminator.onnx   picture, N x 3 x 64 x 64 in [-1, 1]    -> logit, N

The generator is the run's averaged one. Neither restores pictures: a solver searches with both (`models.generative`).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from export.card import ModelCard
from export.onnx_export import OPSET, TOLERANCE, Exported, facts_of_export, fold_batch_norm, quiet
from export.onnx_file import forget_source, set_card, write_model
from models.checkpoint import Progress, load_network, load_progress
from models.gan_recipe import DISCRIMINATOR, GanNetworks, GanRecipe, discriminator_path
from models.gan_training import Adversaries
from models.networks.dcgan import CHANNELS, SIDE
from transforms.errors import ConfigurationError

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
    models = [to_onnx(part) for part in parts]
    errors = [check_parity(model, part) for model, part in zip(models, parts, strict=True)]
    written = []
    for path, part, model, error in zip(paths, parts, models, errors, strict=True):
        card = _card(part, progress, model, error)
        set_card(model, card)
        onnx.checker.check_model(model, full_check=True)
        write_model(model, path)
        written.append(Exported(path, card, error))
    return written


def to_onnx(part: _Part) -> onnx.ModelProto:
    """Traces a network for any N."""
    with warnings.catch_warnings(), quiet("torch.onnx"):
        warnings.simplefilter("ignore")  # the exporter warns about its own internals, and that torchvision is absent
        program = torch.onnx.export(
            fold_batch_norm(part.network), (part.example,), opset_version=OPSET, dynamo=True, external_data=False,
            input_names=[part.takes.partition(",")[0]], output_names=[part.gives.partition(",")[0]],
            dynamic_shapes=({0: torch.export.Dim("N")},), verbose=False,
        )  # fmt: skip
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program although dynamo=True")
    model: onnx.ModelProto = program.model_proto
    forget_source(model)
    return model


def check_parity(model: onnx.ModelProto, part: _Part) -> float:
    """Largest absolute difference between ONNX Runtime on the CPU and PyTorch.

    Raises:
        ConfigurationError: it exceeds 1e-4, or is not finite.
    """
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.Generator(np.random.Philox(key=0))
    worst = 0.0
    for batch in _PARITY_BATCHES:
        given = rng.uniform(-1, 1, (batch, *part.example.shape[1:])).astype(np.float32)
        with torch.inference_mode():
            expected = part.network(torch.from_numpy(given)).numpy()
        (found,) = session.run(None, {session.get_inputs()[0].name: given})
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
        if not difference <= TOLERANCE:
            raise ConfigurationError(
                f"ONNX and PyTorch differ by {difference:.3g} (allowed {TOLERANCE:g}) in {part.name} for a batch of {batch}; "
                "nothing was written"
            )
        worst = max(worst, difference)
    return worst


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
