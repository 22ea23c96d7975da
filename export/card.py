"""The card: what a model says about itself, in the ONNX file's own `metadata_props`. Free of torch and onnx.

Each entry's key starts with `conservator.` and its value is JSON:

    name              "denoise5-gray-25"
    purpose           "denoise"
    channels          1 or 3                color    "gray", "luma" or "rgb"
    scale             output size / input size, enlargement included
    enlarge           how luma is enlarged before the network sees it; absent where it is not
    size_multiple     height and width must be multiples of it
    receptive_field   pixels; half of it, rounded down, is the halo of a tile
    value_range       [0, 1]
    bytes_per_pixel   what the network's tensors take at the most while it runs, over the pixels of its input; absent from
                      older cards
    card              everything else: network, training, measured quality, licence, versions

A file is identified by the SHA-256 of its bytes, card included. `card.graph_sha256` is that of graph and weights alone:
it stays when a measured figure is added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import onnxruntime

from transforms.errors import ConfigurationError
from transforms.storage import read_bytes

PREFIX = "conservator."
_OPTIONAL = ("enlarge", "bytes_per_pixel")


@dataclass(frozen=True)
class ModelCard:
    """See the module's table."""

    name: str
    purpose: str
    channels: int
    color: str
    scale: int
    size_multiple: int
    receptive_field: int
    value_range: tuple[float, float] = (0.0, 1.0)
    enlarge: Mapping[str, Any] | None = None
    bytes_per_pixel: int | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    def to_metadata(self) -> dict[str, str]:
        """Entries for `metadata_props`."""
        said = {name: value for name, value in asdict(self).items() if name not in _OPTIONAL or value is not None}
        return {PREFIX + name: json.dumps(value, sort_keys=True, ensure_ascii=False) for name, value in said.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> ModelCard:
        """Reads the entries of a model.

        Raises:
            ConfigurationError: an entry is missing or no JSON.
        """
        names = [each.name for each in fields(cls) if each.name not in _OPTIONAL or PREFIX + each.name in metadata]
        missing = [PREFIX + name for name in names if PREFIX + name not in metadata]
        if missing:
            raise ConfigurationError(
                f"the model has no card: its metadata lacks {', '.join(missing)}; export it with `conservator export`"
            )
        try:
            values = {name: json.loads(metadata[PREFIX + name]) for name in names}
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"the model's card is no JSON: {error}; export it again") from error
        return cls(**{**values, "value_range": tuple(values["value_range"])})


@dataclass(frozen=True)
class Measured:
    """One quality figure of the shipped file.

    Attributes:
        data_set: such as `BSD68`.
        protocol: metric name, such as `psnr[gray,u8]`.
        recipe: how the pictures were degraded.
        value: mean over the set.
        degraded: the same figure of the degraded pictures; of a classifier, that of a blind guess.
        pictures: how many.
        published: figures to compare with, name -> value.
    """

    data_set: str
    protocol: str
    recipe: str
    value: float
    degraded: float
    pictures: int
    published: Mapping[str, float] = field(default_factory=dict)


def read_card(path: str) -> ModelCard:
    """Reads the card of an ONNX file, by path or URL.

    Raises:
        ConfigurationError: no such file, no ONNX model, or a model without a card.
    """
    try:
        session = onnxruntime.InferenceSession(read_bytes(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common class short of Exception
        raise ConfigurationError(f"cannot read the model {path!r}: {error}") from error
    return ModelCard.from_metadata(session.get_modelmeta().custom_metadata_map)
