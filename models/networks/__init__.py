"""Restoration networks and the table of their names.

A network maps N x C x H x W float32 in the card's value range to restored pictures, or, a classifier, to scores; what sizes it
takes and how much larger its result is, its attributes say. To add one: write its module (a `RestorationNetwork`), give it a
builder with keyword settings, and add a line to `NETWORKS`. Training, export, tiling and the reports need nothing else.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from transforms.errors import ConfigurationError

if TYPE_CHECKING:
    from models.networks.network import RestorationNetwork

NETWORKS: dict[str, str] = {
    "model1": "models.networks.plain.model1",
    "model2": "models.networks.plain.model2",
    "model3": "models.networks.plain.model3",
    "dncnn": "models.networks.dncnn.dncnn",
    "dae": "models.networks.dae.dae",
    "srcnn": "models.networks.srcnn.srcnn",
    "vdsr": "models.networks.vdsr.vdsr",
    "scn": "models.networks.scn.scn",
    "scsr": "models.networks.scsr.scsr",
    "text_deblur": "models.networks.text_deblur.text_deblur",
    "motion_patches": "models.networks.motion_patches.motion_patches",
    "motion_spectrum": "models.networks.motion_spectrum.motion_spectrum",
    "dcnn": "models.networks.dcnn.dcnn",
    "odcnn": "models.networks.dcnn.odcnn",
}


def build_network(name: str, settings: Mapping[str, Any]) -> RestorationNetwork:
    """Builds a freshly initialised network.

    Raises:
        ConfigurationError: unknown name, unknown setting, or a value that the network refuses.

    Example:
        >>> network = build_network("model3", {"channels": 1, "layers": 5})
    """
    builder = _builder(name)
    known = inspect.signature(builder).parameters
    for setting in settings:
        if setting not in known:
            raise ConfigurationError(f"network {name!r} has no setting {setting!r}; {_suggestion(setting, known)}")
    return builder(**settings)


def _builder(name: str) -> Callable[..., RestorationNetwork]:
    if name not in NETWORKS:
        raise ConfigurationError(f"unknown network {name!r}; {_suggestion(name, NETWORKS)}")
    module, _, attribute = NETWORKS[name].rpartition(".")
    found: Callable[..., RestorationNetwork] = getattr(import_module(module), attribute)
    return found


def _suggestion(word: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
