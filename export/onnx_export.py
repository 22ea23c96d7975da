"""Checkpoint -> ONNX file: batch norm folded, any size, card inside, and only if it computes what PyTorch computes.

Folding: a batch norm after a convolution is in evaluation an affine map of each channel,
    gamma (W * x + b - mu) / sqrt(var + eps) + beta  =  (s W) * x + s (b - mu) + beta,   s = gamma / sqrt(var + eps),
so it becomes part of the convolution's weights. (It commutes with zero padding because it comes after the convolution.)
"""

from __future__ import annotations

import copy
import logging
import platform
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxscript.optimizer
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.card import ModelCard
from export.onnx_file import forget_source, graph_sha256, set_card, write_model
from export.working_memory import bytes_per_pixel
from models.checkpoint import Progress, load_network, load_progress
from models.networks import build_network
from models.networks.cascade import KERNEL, Cascade
from models.networks.network import RestorationNetwork
from models.training_recipe import EnlargedLuma
from transforms.errors import ConfigurationError

OPSET = 18
_LARGEST_CONSTANT = 2**24  # values
FLOAT32_BITS = 24  # of a weight's significand
TOLERANCE = 1e-4
PARITY_SHAPES = ((1, 1, 1), (1, 11, 17), (2, 33, 40), (1, 64, 97), (3, 5, 128))  # N, H, W
LICENCE = "Apache-2.0 for the weights; the pictures they were trained on are research data and are not contained"


@dataclass(frozen=True)
class Exported:
    """What was written, and how far it is from PyTorch."""

    path: str
    card: ModelCard
    max_abs_error: float


def export(
    checkpoint: str, output: str, *, name: str = "", scale: int = 0, weight_bits: int = FLOAT32_BITS, opset: int = OPSET
) -> Exported:
    """Writes the network of a checkpoint folder as one ONNX file.

    Args:
        checkpoint: folder of a training run; of a cascade also that of each of its networks, comma-separated, in their order.
        output: path or URL of the file.
        name: of the model in its card; empty: the recipe's.
        scale: of weights for enlarged luma, which may serve several; 0: the only one that the recipe names.
        weight_bits: significant ones that each weight keeps, 24 all of them, 11 as many as float16 has; the others become zero, and
            the file, as large as before, compresses to about 60 % where it hardly compressed at all.
        opset: at least 17.

    Input `degraded` and output `restored` are float32, N x C x H x W, with N, H and W free. A classifier's output has its own
    name and shape.

    Raises:
        ConfigurationError: no checkpoint, more or fewer of them than the scale takes, a scale that the weights are not for, a
            batch norm that can't be folded, an opset below 17, or an ONNX model that differs from PyTorch with the same weights
            by more than 1e-4 anywhere. Nothing is written then.
    """
    if opset < 17:
        raise ConfigurationError(f"opset {opset} is too old; give at least 17")
    folders = [Path(part.strip()) for part in checkpoint.split(",") if part.strip()] or [Path(checkpoint)]
    runs = [load_progress(folder) for folder in folders]
    progress, choice = runs[0], runs[0].recipe["network"]
    use, passes = _use(progress.recipe, scale)
    _check_stages(runs, passes)
    stages = [_trained(folder, run) for folder, run in zip(folders, runs, strict=True)]
    network = stages[0]
    if passes > 1:
        network = Cascade(stages if len(stages) > 1 else stages * passes, use["enlarge"]["factor"])
    network.eval()
    folded = round_weights(fold_batch_norm(network), weight_bits)
    model = to_onnx(folded, choice["channels"], opset, network.min_size, network.output_name)
    error = check_parity(model, network if weight_bits == FLOAT32_BITS else folded, choice["channels"])
    card = _card(network, progress, model, error)
    later = [{"network": run.recipe["network"], "training": _training_facts(run)} for run in runs[1:]]
    rounded = {"weight_bits": weight_bits} if weight_bits < FLOAT32_BITS else {}
    facts = {**card.card, **rounded, **({"later_stages": later} if later else {})}
    card = replace(card, name=name or card.name, card=facts, **use)
    set_card(model, card)
    onnx.checker.check_model(model, full_check=True)
    write_model(model, output)
    return Exported(output, card, error)


def _trained(folder: Path, run: Progress) -> RestorationNetwork:
    choice = run.recipe["network"]
    network = build_network(choice["name"], {"channels": choice["channels"], **choice["settings"]})
    load_network(folder, network)
    return network


def _check_stages(runs: Sequence[Progress], passes: int) -> None:
    """Several checkpoints are the networks of one cascade: as many as it has, all for luma that is enlarged alike."""
    if len(runs) == 1:
        return
    if len(runs) != passes:
        raise ConfigurationError(
            f"{len(runs)} checkpoints, but this scale takes {passes} network{'s' if passes > 1 else ''} one after the other: "
            "name as many, or one for all"
        )
    first, *others = (_enlarged_by(run.recipe) for run in runs)
    if any(other != first for other in others):
        raise ConfigurationError(f"the networks of a cascade enlarge alike, but these do by {[first, *others]}")


def _enlarged_by(recipe: Mapping[str, Any]) -> tuple[Any, Any]:
    section = recipe.get("enlarge") or {}
    return section.get("kernel"), section.get("factor")


def _use(recipe: Mapping[str, Any], scale: int) -> tuple[dict[str, Any], int]:
    """What the card says of weights for enlarged luma at one scale, nothing for others; how often the network runs."""
    section = recipe.get("enlarge")
    if section is None:
        if scale:
            raise ConfigurationError(f"the recipe {recipe['name']!r} has no section `enlarge`: leave out the scale")
        return {}, 1
    luma = EnlargedLuma(**{**section, "scales": tuple(section["scales"])})
    if not scale and len(luma.scales) > 1:
        raise ConfigurationError(f"the weights serve the scales {', '.join(map(str, luma.scales))}: name one")
    scale = scale or luma.scales[0]
    enlargement, passes = luma.at(scale), luma.passes(scale)
    if passes > 1 and luma.kernel != KERNEL:
        raise ConfigurationError(f"a cascade enlarges between its networks by {KERNEL}, not by {luma.kernel!r}")
    purpose = recipe["purpose"] if scale == 1 else f"{recipe['purpose']} x{scale}"
    enlarge = {} if enlargement is None else {"enlarge": enlargement.to_json()}
    return {"color": "luma", "scale": scale, "purpose": purpose, **enlarge}, passes


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy, in evaluation mode, whose batch norms went into the convolutions before them."""
    folded = copy.deepcopy(network).eval()
    for sequence in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        for index in range(len(sequence) - 1):
            convolution, norm = sequence[index], sequence[index + 1]
            if isinstance(convolution, (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(norm, nn.BatchNorm2d):
                is_transposed = isinstance(convolution, nn.ConvTranspose2d)
                sequence[index] = fuse_conv_bn_eval(convolution, norm, transpose=is_transposed)
                sequence[index + 1] = nn.Identity()
    return folded


@torch.no_grad()
def round_weights(network: nn.Module, bits: int) -> nn.Module:
    """Rounds every weight, in place, to so many significant bits.

    w = m 2^e, 1/2 <= |m| < 1, becomes round(2^bits m) 2^(e - bits).
    """
    for weight in network.parameters() if bits < FLOAT32_BITS else ():
        mantissa, exponent = torch.frexp(weight)
        weight.copy_(torch.ldexp(torch.round(mantissa * 2**bits), exponent - bits))
    return network


def to_onnx(
    network: nn.Module, channels: int, opset: int = OPSET, min_size: int = 1, output: str = "restored"
) -> onnx.ModelProto:
    """Traces a network for any N, and any H and W from `min_size`.

    Raises:
        ConfigurationError: the graph still holds a batch norm.
    """
    example = torch.rand(2, channels, max(24, min_size + 4), max(32, min_size + 12))
    sides = {name: torch.export.Dim(name, min=min_size) if min_size > 1 else torch.export.Dim(name) for name in "HW"}
    free = {0: torch.export.Dim("N"), 2: sides["H"], 3: sides["W"]}
    model = _computed_ahead(traced(network, example, ("degraded", output), free, opset))
    forget_source(model)  # what was computed ahead brought notes of its own
    if any(node.op_type == "BatchNormalization" for node in model.graph.node):
        raise ConfigurationError(
            "a batch norm has no convolution right before it in a Sequential and can't be folded; reorder the network"
        )
    return model


def traced(
    network: nn.Module, example: torch.Tensor, names: tuple[str, str], free: Mapping[int, Any], opset: int = OPSET
) -> onnx.ModelProto:
    """The graph of a network, without traces of the source code.

    Args:
        example: an input.
        names: of input and output.
        free: the input's axes that may have any length, as `torch.export.Dim`.
    """
    with warnings.catch_warnings(), quiet("torch.onnx"):
        warnings.simplefilter("ignore")  # the exporter warns about its own internals, and that torchvision is absent
        program = torch.onnx.export(
            network, (example,), input_names=[names[0]], output_names=[names[1]], opset_version=opset,
            dynamic_shapes=(free,), dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program although dynamo=True")
    model: onnx.ModelProto = program.model_proto
    forget_source(model)
    return model


def _computed_ahead(model: onnx.ModelProto) -> onnx.ModelProto:
    """With what follows from weights alone computed, which the exporter does of small ones only; not where the file would grow."""
    computed: onnx.ModelProto = onnxscript.optimizer.optimize(
        model, input_size_limit=_LARGEST_CONSTANT, output_size_limit=_LARGEST_CONSTANT
    )
    return computed if computed.ByteSize() < model.ByteSize() else model


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Only errors of a logger that says much about its own internals."""
    chatty = logging.getLogger(logger)
    level = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        yield
    finally:
        chatty.setLevel(level)


def check_parity(
    model: onnx.ModelProto, network: nn.Module, channels: int, shapes: Sequence[tuple[int, int, int]] = PARITY_SHAPES
) -> float:
    """Largest absolute difference between ONNX Runtime on the CPU and PyTorch, over several odd sizes, none below the
    network's smallest.

    Raises:
        ConfigurationError: it exceeds 1e-4, or is not finite.
    """
    rng, least = np.random.Generator(np.random.Philox(key=0)), getattr(network, "min_size", 1)
    sizes = ((count, channels, max(high, least), max(wide, least)) for count, high, wide in shapes)
    return largest_difference(model, network, (rng.normal(0.5, 0.3, size).astype(np.float32) for size in sizes))


def largest_difference(model: onnx.ModelProto, network: nn.Module, inputs: Iterable[NDArray[np.float32]]) -> float:
    """Absolute, between ONNX Runtime on the CPU and PyTorch.

    Raises:
        ConfigurationError: it exceeds 1e-4, or is not finite.
    """
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    worst = 0.0
    for given in inputs:
        with torch.inference_mode():
            expected = network(torch.from_numpy(given)).numpy()
        (found,) = session.run(None, {session.get_inputs()[0].name: given})
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
        if not difference <= TOLERANCE:
            size = "x".join(map(str, given.shape))
            raise ConfigurationError(
                f"ONNX and PyTorch differ by {difference:.3g} (allowed {TOLERANCE:g}) on {size}; nothing was written"
            )
        worst = max(worst, difference)
    return worst


def _card(network: RestorationNetwork, progress: Progress, model: onnx.ModelProto, error: float) -> ModelCard:
    channels = progress.recipe["network"]["channels"]
    return ModelCard(
        name=progress.recipe["name"],
        purpose=progress.recipe["purpose"],
        channels=channels,
        color="gray" if channels == 1 else "rgb",
        scale=network.scale,
        size_multiple=network.size_multiple,
        receptive_field=network.receptive_field,
        bytes_per_pixel=bytes_per_pixel(model, channels, network.size_multiple, network.min_size),
        card={
            "network": progress.recipe["network"],
            **facts_of_export(network, progress, model, error, LICENCE),
        },
    )


def facts_of_export(
    network: nn.Module, progress: Progress, model: onnx.ModelProto, error: float, licence: str
) -> dict[str, Any]:
    """What every card says, of whatever kind its network is; nothing is measured yet."""
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "training": _training_facts(progress),
        "parity_max_abs_error": error,
        "graph_sha256": graph_sha256(model),
        "measured": [],
        "licence": licence,
        "versions": _exporter_versions(),
    }


def _exporter_versions() -> dict[str, str]:
    """What the file was made with."""
    return {
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
    }


def _training_facts(progress: Progress) -> dict[str, Any]:
    """What the card says about the training."""
    facts = progress.facts
    return {
        "recipe": {
            name: value
            for name, value in progress.recipe.items()
            if name not in ("command", "cost", "reaches", "network")
        },
        "fingerprint": progress.fingerprint,
        "command": progress.recipe["command"],
        **{name: facts[name] for name in ("initial_weights", "degradation_sha256") if name in facts},
        "data": facts["data"],
        "steps": progress.step,
        "time_s": round(progress.elapsed_s),
        "machine": facts["machine"],
        "versions": facts["versions"],
    }
