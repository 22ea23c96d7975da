"""What every training loop does before its first step: choose the device, note the provenance, decide whether it may resume."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from models.checkpoint import Progress, load_progress
from transforms.errors import ConfigurationError
from transforms.storage import split_patterns

log = logging.getLogger(__name__)


def choose_device(name: str) -> torch.device:
    """The device of a name, or, for an empty one, a GPU if there is one.

    Raises:
        ConfigurationError: a GPU that torch does not see.
    """
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigurationError(
                f"device {name!r} was asked for, but torch sees no GPU; leave --device out to train on the CPU"
            )
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return device


def warn_of_slow_precision(precision: str, device: torch.device) -> None:
    """Says so where bfloat16 is asked of a CPU that has no arithmetic for it: it takes ten times as long there as float32."""
    if precision == "bfloat16" and device.type == "cpu" and "AVX512" not in torch.backends.cpu.get_cpu_capability():
        log.warning(
            "precision: bfloat16, but this CPU (%s) computes it in software, about ten times as slowly as float32; copy the recipe "
            "and set precision: float32", torch.backends.cpu.get_cpu_capability()
        )  # fmt: skip


def data_names(data: Sequence[str]) -> list[str]:
    """What a card calls data sets: names, not paths, since it travels.

    Args:
        data: patterns as on the command line, each perhaps several with commas between.
    """
    return [PurePosixPath(pattern).name.removeprefix("@") for patterns in data for pattern in split_patterns(patterns)]


def provenance(data: Sequence[str]) -> dict[str, Any]:
    """What the card says about data, machine and versions."""
    return {
        "data": data_names(data),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""),
        "versions": {"torch": torch.__version__, "python": platform.python_version(), "numpy": np.__version__},
    }


def resumable(output: str, fingerprint: str, *, resume: bool) -> Progress:
    """How far the run in `output` is.

    Raises:
        ConfigurationError: it must not be continued (`resume` is false), or has another fingerprint.
    """
    if not resume:
        raise ConfigurationError(
            f"{output!r} already holds a run; pass --resume to continue it, or choose another --output"
        )
    progress = load_progress(Path(output))
    if progress.fingerprint != fingerprint:
        raise ConfigurationError(
            f"the run in {output!r} has the fingerprint {progress.fingerprint}, this one {fingerprint}: its "
            "recipe or its pictures are others; resume with the same, or choose another --output"
        )
    return progress
