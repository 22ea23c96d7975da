"""Reading and writing ONNX files as protocol buffers: metadata, digest of the graph, traces of the exporter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import onnx
import onnxruntime

from export.card import Measured, ModelCard
from transforms.storage import OutputStore, read_bytes


def write_model(model: onnx.ModelProto, path: str) -> None:
    """Publishes a model under its final name, whole or not at all."""
    folder, _, name = path.rpartition("/")
    OutputStore(folder or ".").write(name, model.SerializeToString(deterministic=True))


def set_card(model: onnx.ModelProto, card: ModelCard) -> None:
    """Replaces all of a model's metadata by a card."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, card.to_metadata())


def graph_sha256(model: onnx.ModelProto) -> str:
    """Digest of graph and weights, without metadata."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def add_measured(path: str, figures: Sequence[Measured]) -> ModelCard:
    """Writes measured figures into the card of an exported model, replacing those of the same set, protocol and recipe.

    Graph and weights keep their bytes, so the figures belong to the very network that was measured.
    """
    model = onnx.load_model_from_string(read_bytes(path))
    card = ModelCard.from_metadata({entry.key: entry.value for entry in model.metadata_props})
    kept = [
        entry
        for entry in card.card.get("measured", [])
        if not any(_same_measurement(entry, figure) for figure in figures)
    ]
    card = replace(card, card={**card.card, "measured": kept + [asdict(figure) for figure in figures]})
    set_card(model, card)
    write_model(model, path)
    return card


def _same_measurement(entry: dict[str, Any], figure: Measured) -> bool:
    return (entry["data_set"], entry["protocol"], entry["recipe"]) == (figure.data_set, figure.protocol, figure.recipe)


def forget_source(model: onnx.ModelProto) -> None:
    """Drops what the exporter noted about the source code (stack traces, file names): it differs on each machine."""
    model.doc_string = ""
    model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]


def cpu_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """The model as onnxruntime runs it on the CPU."""
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
