"""Weights that a training begins with: those of another run, or of a shallower network that ships.

A run's checkpoint is copied by name, and so is an `.onnx` file, unless the network is a stack of convolutions: the file's stack
then grows to the depth of the network, so that at first it computes the same:

    W_n * r(... r(W_1 * y + b_1)) + b_n,  r(a) = max(a, 0);   I * r(a) = r(a) = r(r(a))

New layers are the identity I between the last two; where a batch norm follows a convolution, a batch of patches tells what it
takes away, m and v, and its scale and offset give that back: sqrt(v) (a - m) / sqrt(v) + m + b.

Source: Chen, Goodfellow, Shlens, "Net2Net: accelerating learning via knowledge transfer", ICLR 2016, section 2.3.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoint import copy_by_name, start_from, weights_digest
from models.networks import build_network
from models.networks.network import RestorationNetwork
from models.zoo import MODELS, zoo_path
from transforms.errors import ConfigurationError

_CARD = "conservator.card"


def digest_of(source: str) -> str:
    """SHA-256 of the weights, 16 hexadecimal digits.

    Args:
        source: folder of a run, name of a model that ships, or an `.onnx` file.
    """
    if (file := _onnx_file(source)) is None:
        return weights_digest(Path(source))
    model, digest = _read_model(file), hashlib.sha256()
    weights = _weights(model)
    for node in model.graph.node:
        if node.op_type == "Conv":
            for name in node.input[1:]:
                if name in weights:  # computed ones follow from others
                    digest.update(weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def begin_with(source: str, network: RestorationNetwork, patches: Tensor) -> dict[str, Any]:
    """Copies weights into a network that is to be trained.

    Args:
        source: folder of a run, name of a model that ships, or an `.onnx` file with our card.
        patches: N x C x h x w degraded ones, for the batch norms of layers that grow.

    Raises:
        ConfigurationError: no such file, or layers that do not fit.

    Returns:
        For the card: the digest, and which weights are `fresh`, not taken from there.
    """
    if (file := _onnx_file(source)) is None:
        return {"digest": digest_of(source), "fresh": start_from(Path(source), network)}
    facts = {"digest": digest_of(source), "model": file.stem}
    if not _stack_of(network):
        model = _read_model(file)
        return {**facts, "fresh": copy_by_name(_weights(model), network, source)}
    layers, residual = _read_stack(file)
    added = grow(network, layers, patches, negate=residual != network.residual)
    return {**facts, "fresh": [], "identity_layers": added}


@torch.no_grad()
def grow(
    network: RestorationNetwork, layers: Sequence[tuple[Tensor, Tensor]], patches: Tensor, *, negate: bool = False
) -> int:
    """Makes the network's `body` compute what a stack of convolutions with ReLU between computes.

    Args:
        layers: weight and bias of each convolution, in order.
        patches: N x C x h x w.
        negate: the network subtracts where the stack is added, or the other way round.

    Raises:
        ConfigurationError: fewer layers than the stack, or others shapes.

    Returns:
        How many identity layers it took.
    """
    body = _stack_of(network)
    places = [index for index, module in enumerate(body) if isinstance(module, nn.Conv2d)]
    added = len(places) - len(layers)
    if added < 0 or len(layers) < 2:
        raise ConfigurationError(
            f"{len(layers)} layers can't begin a stack of {len(places)}; name weights of a network with at most as many"
        )
    hidden = patches
    for number, index in enumerate(places):
        convolution = body[index]
        assert isinstance(convolution, nn.Conv2d)
        weight, bias = _layer(layers, number, len(places), convolution)
        if negate and index == places[-1]:
            weight, bias = -weight, -bias
        if weight.shape != convolution.weight.shape:
            raise ConfigurationError(
                f"layer {number + 1} has {tuple(weight.shape)} weights there, {tuple(convolution.weight.shape)} here; name "
                "weights of a network as wide as this one"
            )
        convolution.weight.copy_(weight)
        norm = body[index + 1] if index + 1 < len(body) else None
        answer = nn.functional.conv2d(hidden, weight, padding=convolution.padding)
        if isinstance(norm, nn.BatchNorm2d):
            _pass_through(norm, answer, bias)
            if convolution.bias is not None:
                convolution.bias.zero_()
        elif convolution.bias is not None:
            convolution.bias.copy_(bias)
        hidden = nn.functional.relu(answer + bias[:, None, None])
    return added


def _stack_of(network: RestorationNetwork) -> list[nn.Module]:
    """The modules of a network that is a plain stack; none of others."""
    body = getattr(network, "body", None)
    return list(body.children()) if isinstance(body, nn.Sequential) else []


def _layer(
    layers: Sequence[tuple[Tensor, Tensor]], number: int, depth: int, convolution: nn.Conv2d
) -> tuple[Tensor, Tensor]:
    """Weight and bias of one of `depth` layers: the stack's first ones, identities, the stack's last one."""
    if number < len(layers) - 1:
        return layers[number]
    if number == depth - 1:
        return layers[-1]
    identity = torch.zeros_like(convolution.weight)
    return nn.init.dirac_(identity), torch.zeros(len(identity))


def _pass_through(norm: nn.BatchNorm2d, answer: Tensor, bias: Tensor) -> None:
    """Sets a batch norm to what adds the bias, in training on such patches and in use."""
    if not norm.affine or norm.running_mean is None or norm.running_var is None:
        raise ConfigurationError("a batch norm without scale and offset can't pass values through; train from scratch")
    variance, mean = torch.var_mean(answer, (0, 2, 3), correction=0)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean + bias)


def _onnx_file(source: str) -> Path | None:
    if source in MODELS:
        return zoo_path(source)
    return Path(source) if source.endswith(".onnx") else None


def _read_model(file: Path) -> Any:
    import onnx  # a second to import, and only models that ship need it

    try:
        return onnx.load(file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read the weights of {str(file)!r}: {error}") from error


def _weights(model: Any) -> dict[str, Tensor]:
    """By the names that they have in the network, but for those that export folded into others."""
    import onnx

    return {entry.name: torch.tensor(onnx.numpy_helper.to_array(entry)) for entry in model.graph.initializer}


def _read_stack(file: Path) -> tuple[list[tuple[Tensor, Tensor]], int]:
    """Weights and biases of a plain stack of convolutions, in order, and how its network uses their result."""
    model = _read_model(file)
    cards = [entry.value for entry in model.metadata_props if entry.key == _CARD]
    if not cards:
        raise ConfigurationError(f"{str(file)!r} has no card that names its network; name a model that `export` wrote")
    choice = json.loads(cards[0])["network"]
    network = build_network(choice["name"], {"channels": choice["channels"], **choice["settings"]})
    weights = _weights(model)
    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    if any(len(node.input) < 3 or not {*node.input[1:]} <= weights.keys() for node in layers):
        raise ConfigurationError(f"{str(file)!r} is no plain stack of convolutions; name the folder of its run")
    return [(weights[node.input[1]], weights[node.input[2]]) for node in layers], network.residual
