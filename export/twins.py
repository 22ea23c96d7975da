"""Float32 ONNX file -> its twin in int8 or float16, and only if that restores as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.card import ModelCard
from export.half_precision import to_float16
from export.onnx_file import cpu_session, graph_sha256, set_card, write_model
from export.quantise import Samples, to_int8
from export.working_memory import bytes_per_pixel
from models.recipes import Pair, load_recipe
from models.training_data import CleanPicture, first_by_hash, load_pictures
from models.training_setup import data_names
from transforms.errors import ConfigurationError
from transforms.metrics import parse_metric
from transforms.onnx_session import read_model
from transforms.planes import to_planes
from transforms.value_range import from_float, to_u8

# Arithmetic -> what the card says of it, and what the twin's name has on top.
FORMATS = {
    "int8": ("QDQ, activations uint8, weights int8 per channel, static", "-int8"),
    "float16": ("float16, but for input, output and the skip between them", "-fp16"),
}
CALIBRATION_PICTURES = 32
CALIBRATION_SIDE = 192  # pixels of the crop that is run: memory does not grow with the picture
LOSS_DB = 0.1


@dataclass(frozen=True)
class Gate:
    """What the twin may lose, and on what.

    Attributes:
        validation: clean pictures that both networks are measured on.
        calibration: clean pictures whose degraded versions set the ranges of int8.
        degradation: recipe that makes what the network sees; empty: the one that it was trained with.
        protocol: metric name; empty: that of the training's validation.
        loss_db: the most that the mean may fall.
    """

    validation: Sequence[str]
    calibration: Sequence[str] = ()
    degradation: str = ""
    protocol: str = ""
    loss_db: float = LOSS_DB


class QualityLossError(ConfigurationError):
    """The twin loses more than the gate allows."""


@dataclass(frozen=True)
class Twin:
    """What was written, and the mean quality before and after."""

    path: str
    card: ModelCard
    float32: float
    reduced: float


def make_twin(source: str, output: str, arithmetic: str, gate: Gate) -> Twin:
    """Writes the twin of a float32 ONNX file that has a card.

    Args:
        arithmetic: a key of `FORMATS`.

    Raises:
        ConfigurationError: no card, no pictures, or a graph that can't be converted.
        QualityLossError: the twin loses more than the gate allows. Nothing is written then.
    """
    file = read_model(source)
    model = onnx.load_model_from_string(file.source) if isinstance(file.source, bytes) else onnx.load(file.source)
    card = ModelCard.from_metadata({entry.key: entry.value for entry in model.metadata_props})
    if "quantisation" in card.card:
        raise ConfigurationError(f"{source!r} is quantised already; give the float32 model")
    gate = _completed(gate, card)
    facts: dict[str, Any] = {"arithmetic": arithmetic, "format": FORMATS[arithmetic][0]}
    if arithmetic == "int8":
        calibration = first_by_hash(_pictures(gate.calibration, card), CALIBRATION_PICTURES)
        twin, kept = to_int8(model, list(_crops(_seen(calibration, gate.degradation))))
        facts["calibration"] = {
            "data": data_names(gate.calibration), "pictures": len(calibration), "method": "least and greatest",
        }  # fmt: skip
    else:
        twin, kept = to_float16(model)
    before, after = (_quality(each, gate, card) for each in (model, twin))
    if not after >= before - gate.loss_db:
        advice = (
            "Calibrate on more pictures like those to be restored, or allow" if facts.get("calibration") else "Allow"
        )
        raise QualityLossError(
            f"{arithmetic} restores {after:.3f} dB {gate.protocol} on {', '.join(gate.validation)} where float32 restores "
            f"{before:.3f}: {before - after:.3f} dB are lost, {gate.loss_db:g} allowed; nothing was written. {advice} more with "
            "--quality_loss"
        )
    facts |= {
        "source_sha256": file.sha256,
        "source_graph_sha256": graph_sha256(model),
        "float32_nodes": kept,
        "gate": {
            "data": data_names(gate.validation),
            "degradation": gate.degradation,
            "protocol": gate.protocol,
            "float32": round(before, 4),
            arithmetic: round(after, 4),
            "allowed_loss": gate.loss_db,
        },
    }
    card = _twin_card(card, twin, facts)
    set_card(twin, card)
    onnx.checker.check_model(twin, full_check=True)
    write_model(twin, output)
    return Twin(output, card, before, after)


def _completed(gate: Gate, card: ModelCard) -> Gate:
    """With the recipe and the protocol of the training where none was named."""
    recipe: Mapping[str, Any] = card.card.get("training", {}).get("recipe", {})
    validation: Mapping[str, Any] = recipe.get("validation", {})
    completed = replace(
        gate,
        degradation=gate.degradation or validation.get("degradation", "") or recipe.get("degradation", ""),
        protocol=gate.protocol or validation.get("protocol", ""),
    )
    for name in ("degradation", "protocol"):
        if not getattr(completed, name):
            raise ConfigurationError(f"the card of {card.name!r} names no {name}; name one with --{name}")
    return completed


def _pictures(data: Sequence[str], card: ModelCard) -> Sequence[CleanPicture]:
    return load_pictures(data, 3 if card.color == "luma" else card.channels)


def _seen(pictures: Iterable[CleanPicture], recipe: str) -> Iterator[tuple[Samples, NDArray[np.uint8]]]:
    """Whole pictures as the network sees them, C x H x W, and clean."""
    whole = replace(load_recipe(recipe), patches=None)
    for picture in pictures:
        pair = whole.pair(picture.clean, key=picture.key, patch=0, seed=0)
        if not isinstance(pair, Pair):
            raise ConfigurationError(f"recipe {recipe!r} rejects picture {picture.key!r} ({pair.detail}); leave it out")
        yield np.ascontiguousarray(to_planes(pair.degraded), np.float32), to_u8(pair.clean)


def _crops(pairs: Iterable[tuple[Samples, NDArray[np.uint8]]]) -> Iterator[Samples]:
    for degraded, _ in pairs:
        top, left = ((side - min(side, CALIBRATION_SIDE)) // 2 for side in degraded.shape[1:])
        yield np.ascontiguousarray(degraded[None, :, top : top + CALIBRATION_SIDE, left : left + CALIBRATION_SIDE])


def _quality(model: onnx.ModelProto, gate: Gate, card: ModelCard) -> float:
    """Mean of the metric over the validation pictures, restored, clipped and rounded to 8 bit."""
    session, metric = cpu_session(model), parse_metric(gate.protocol)
    figures = []
    for degraded, clean in _seen(_pictures(gate.validation, card), gate.degradation):
        (restored,) = session.run(None, {session.get_inputs()[0].name: degraded[None]})
        figures.append(metric(from_float(np.moveaxis(restored[0], 0, 2), np.uint8), clean))
    return float(np.mean(figures))


def _twin_card(card: ModelCard, twin: onnx.ModelProto, facts: Mapping[str, Any]) -> ModelCard:
    kept = {name: value for name, value in card.card.items() if name != "parity_max_abs_error"}
    about = {**kept, "measured": [], "graph_sha256": graph_sha256(twin), "quantisation": dict(facts)}
    # onnxruntime's CPU computes float16 convolutions in float32: its twin is not lighter there.
    heaviness = max(card.bytes_per_pixel or 0, bytes_per_pixel(twin, card.channels, card.size_multiple))
    return replace(card, name=card.name + FORMATS[facts["arithmetic"]][1], bytes_per_pixel=heaviness, card=about)
