"""A training run's state in one file: tensors in safetensors, the rest as JSON in that file's own header. No pickle.

One file, written beside its name and renamed, is either the old state or the new one, whenever the process dies.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from transforms.errors import ConfigurationError

FILE_NAME = "checkpoint.safetensors"
FORMAT = 1


@dataclass
class Progress:
    """What a run knows besides its tensors.

    Attributes:
        step: finished optimiser steps.
        recipe: the training recipe as JSON.
        fingerprint: hash of all that decides the weights: recipe, degradation, pictures.
        elapsed_s: training time over all sessions of the run.
        facts: provenance for the card: data sets, digest of the degradation recipe, initial weights, machine, versions.
    """

    step: int
    recipe: dict[str, Any]
    fingerprint: str
    elapsed_s: float
    facts: dict[str, Any]


def save_checkpoint(folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
    """Writes the whole state; a crash leaves the previous checkpoint."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": str(FORMAT), "progress": json.dumps(vars(progress))}
    unfinished = folder / f"{FILE_NAME}.tmp"
    with open(unfinished, "wb") as file:
        file.write(save(plain, metadata))
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, folder / FILE_NAME)


def load_progress(folder: Path) -> Progress:
    """Reads a checkpoint's JSON without its tensors.

    Raises:
        ConfigurationError: there is none, or it is not ours.
    """
    with _opened(folder) as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != str(FORMAT):
        raise ConfigurationError(
            f"{folder / FILE_NAME} is no checkpoint of format {FORMAT}; train again, or use the version that wrote it"
        )
    return Progress(**json.loads(metadata["progress"]))


def load_network(folder: Path, network: nn.Module) -> None:
    """Copies the checkpoint's weights into a network of the same architecture."""
    network.load_state_dict(_tensors(folder, "network."))


def start_from(folder: Path, network: nn.Module) -> list[str]:
    """Copies the weights of another run's checkpoint, by name; what that run does not have stays as it was drawn.

    Raises:
        ConfigurationError: no name in common, or a weight of another shape.

    Returns:
        The names of the weights that were not found there.
    """
    return copy_by_name(_tensors(folder, "network."), network, str(folder))


def copy_by_name(there: Mapping[str, Tensor], network: nn.Module, source: str) -> list[str]:
    """As `start_from`, from named weights; `source` is what an error calls them."""
    here = network.state_dict()
    common = there.keys() & here.keys()
    odd = [name for name in sorted(common) if there[name].shape != here[name].shape]
    if odd or not common:
        found = (
            f"{odd[0]} has {tuple(there[odd[0]].shape)} there, {tuple(here[odd[0]].shape)} here"
            if odd
            else "no name in common"
        )
        raise ConfigurationError(
            f"the weights in {source!r} do not fit this network: {found}; name weights of a network with the same layers"
        )
    network.load_state_dict({name: there[name] for name in common}, strict=False)
    return sorted(here.keys() - common)


def weights_digest(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights, names included; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(folder, "network.").items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_optimiser(folder: Path, optimiser: torch.optim.Optimizer) -> None:
    """Copies the checkpoint's optimiser state; the groups (and their learning rate) stay those of `optimiser`."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _tensors(folder, "optimiser.").items():
        index, _, entry = name.partition(".")
        state.setdefault(int(index), {})[entry] = _laid_out_like(parameters[int(index)], tensor)
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Moments have the strides of their parameter (channels last, say), as they had when they were made."""
    return torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor


def _tensors(folder: Path, prefix: str) -> dict[str, Tensor]:
    with _opened(folder) as file:
        return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118


def _opened(folder: Path) -> Any:
    try:
        return safe_open(folder / FILE_NAME, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(
            f"cannot read the checkpoint in {str(folder)!r}: {error}; give the folder that `train` wrote"
        ) from error
