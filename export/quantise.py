"""Float32 ONNX file -> its int8 twin, and only if it restores as well.

    q = clip(round(v / s) + z, 0, 255)        v ~ s (q - z)

Activations are unsigned with one scale s and zero point z each, from the least and greatest values on calibration pictures;
weights are signed with one scale for each output channel (U8S8, per channel, static; the QDQ form, which onnxruntime fuses into
integer convolutions). What makes it lossless enough and worth its while:

* Convolutions with fewer than 16 inputs or outputs, in practice the first and the last, stay float32: they see the picture
  itself, whose 256 levels would be lost, and integer kernels are no faster there.
* A skip is added in float32, since it carries the picture too.
* Channels are equalised: relu(v / r) = relu(v) / r for r > 0, so each channel can be divided by r before a ReLU and multiplied
  by it in the next convolution. With r the root of the channel's greatest value, weak channels keep more levels.
* A last convolution of side k becomes one of k x 1 with k times the outputs, whose results are added shifted: onnxruntime
  computes 16 outputs at least, of which one would count.

Source: Nagel, van Baalen, Blankevoort, Welling, "Data-free quantization through weight equalization and bias correction", ICCV
2019; Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from export.card import ModelCard
from export.onnx_export import quiet
from export.onnx_file import forget_source, graph_sha256, set_card, write_model
from models.recipes import Pair, load_recipe
from models.training_data import CleanPicture, first_by_hash, load_pictures
from transforms.errors import ConfigurationError
from transforms.metrics import parse_metric
from transforms.onnx_session import read_model
from transforms.planes import to_planes
from transforms.value_range import from_float, to_u8

FORMAT = "QDQ, activations uint8, weights int8 per channel, static"
NARROW = 16  # channels; below, onnxruntime's float kernels win and the picture itself is at stake
CALIBRATION_PICTURES = 32
CALIBRATION_SIDE = 192  # pixels of the crop that is run: memory does not grow with the picture
LOSS_DB = 0.1

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Gate:
    """What the twin may lose, and on what.

    Attributes:
        calibration: clean pictures whose degraded versions set the ranges.
        validation: clean pictures that both networks are measured on.
        degradation: recipe that makes what the network sees; empty: the one that it was trained with.
        protocol: metric name; empty: that of the training's validation.
        loss_db: the most that the mean may fall.
    """

    calibration: Sequence[str]
    validation: Sequence[str]
    degradation: str = ""
    protocol: str = ""
    loss_db: float = LOSS_DB


class QualityLossError(ConfigurationError):
    """The twin loses more than the gate allows."""


@dataclass(frozen=True)
class Quantised:
    """What was written, and the mean quality before and after."""

    path: str
    card: ModelCard
    float32: float
    int8: float


def quantise(source: str, output: str, gate: Gate) -> Quantised:
    """Writes the int8 twin of a float32 ONNX file that has a card.

    Raises:
        ConfigurationError: no card, no pictures, or a graph without wide convolutions.
        QualityLossError: the twin loses more than the gate allows. Nothing is written then.
    """
    file = read_model(source)
    model = onnx.load_model_from_string(file.source) if isinstance(file.source, bytes) else onnx.load(file.source)
    card = ModelCard.from_metadata({entry.key: entry.value for entry in model.metadata_props})
    if "quantisation" in card.card:
        raise ConfigurationError(f"{source!r} is quantised already; give the float32 model")
    gate = _completed(gate, card)
    calibration = first_by_hash(_pictures(gate.calibration, card), CALIBRATION_PICTURES)
    twin, kept = to_int8(model, list(_crops(_seen(calibration, gate.degradation))))
    before, after = (_quality(each, gate, card) for each in (model, twin))
    if not after >= before - gate.loss_db:
        raise QualityLossError(
            f"int8 restores {after:.3f} dB {gate.protocol} on {', '.join(gate.validation)} where float32 restores {before:.3f}: "
            f"{before - after:.3f} dB are lost, {gate.loss_db:g} allowed; nothing was written. Calibrate on more pictures like "
            "those to be restored, or allow more with --quality_loss"
        )
    facts = {
        "source_sha256": file.sha256,
        "source_graph_sha256": graph_sha256(model),
        "format": FORMAT,
        "float32_nodes": kept,
        "calibration": {"data": _names(gate.calibration), "pictures": len(calibration), "method": "least and greatest"},
        "gate": {
            "data": _names(gate.validation),
            "degradation": gate.degradation,
            "protocol": gate.protocol,
            "float32": round(before, 4),
            "int8": round(after, 4),
            "allowed_loss": gate.loss_db,
        },
    }
    card = _twin_card(card, twin, facts)
    set_card(twin, card)
    onnx.checker.check_model(twin, full_check=True)
    write_model(twin, output)
    return Quantised(output, card, before, after)


def to_int8(model: onnx.ModelProto, pictures: Sequence[Samples]) -> tuple[onnx.ModelProto, list[str]]:
    """The twin of a float32 graph, without metadata, and the names of the convolutions that stay float32.

    Args:
        model: convolutions, ReLUs, edge padding and what leads around them.
        pictures: N x C x H x W, as the network sees them.

    Raises:
        ConfigurationError: no pictures, or no convolution that is wide enough.
    """
    if not pictures:
        raise ConfigurationError("no pictures to calibrate on; name some with --calibration")
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    del prepared.metadata_props[:]
    equalise(prepared, pictures)
    split_narrow_outputs(prepared)
    convolutions = [node for node in prepared.graph.node if node.op_type == "Conv"]
    kept = [node.name for node in convolutions if _is_narrow(prepared, node)]
    if len(kept) == len(convolutions):
        raise ConfigurationError(f"the network has no convolution with {NARROW} or more inputs and outputs to quantise")
    with tempfile.TemporaryDirectory(prefix="quantise-") as folder, quiet("root"):
        target = Path(folder) / "int8.onnx"
        quantize_static(
            prepared, target, _Reader(prepared.graph.input[0].name, pictures),
            quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8, op_types_to_quantize=["Conv", "Relu"],
            nodes_to_exclude=_float_nodes(prepared, kept), calibrate_method=CalibrationMethod.MinMax,
        )  # fmt: skip
        twin = onnx.load(target)
    pad_integers(twin)
    del twin.metadata_props[:]
    forget_source(twin)
    return twin, kept


def equalise(model: onnx.ModelProto, pictures: Sequence[Samples]) -> None:
    """Brings the channels between two convolutions to like ranges; the function stays the same up to rounding.

    r_c = sqrt(greatest activation of channel c / greatest of all), limited to [1/16, 1].
    """
    pairs = list(_chains(model))
    if not pairs:
        return
    greatest = _greatest(model, [between for _, between, _ in pairs], pictures)
    weights = {each.name: each for each in model.graph.initializer}
    for first, between, second in pairs:
        strongest = max(float(greatest[between].max()), float(np.finfo(np.float32).tiny))
        ratio = np.sqrt(greatest[between] / strongest)
        ratio = np.clip(ratio, 1 / 16, 1).astype(np.float32)
        for name in first.input[1:]:
            values = numpy_helper.to_array(weights[name])
            _replace(weights[name], values / ratio.reshape(-1, *[1] * (values.ndim - 1)))
        after = weights[second.input[1]]
        _replace(after, numpy_helper.to_array(after) * ratio[None, :, None, None])


def split_narrow_outputs(model: onnx.ModelProto) -> None:
    """Turns k x k convolutions, k > 1, to fewer than 4 outputs into k x 1 ones, whose k parts are added shifted.

    y(i, j) = sum_b [ sum_a w(a, b) x(i + a, j + b) ] = sum_b u_b(i, j + b)
    """
    weights = {each.name: each for each in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        values = numpy_helper.to_array(weights[node.input[1]]) if _is_plain(model, node) else None
        if values is None or values.shape[0] >= 4 or values.shape[3] == 1:
            nodes.append(node)
            continue
        nodes += _split(model, node, values)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    for initializer in [each for each in model.graph.initializer if each.name not in read]:
        model.graph.initializer.remove(initializer)


def pad_integers(model: onnx.ModelProto) -> None:
    """Moves padding that only repeats samples to where they are bytes: quantise(pad(v)) = pad(quantise(v)), and back."""
    for padding in [node for node in model.graph.node if node.op_type == "Pad"]:
        if _attribute(padding, "mode", b"constant") == b"constant":
            continue
        before = [node for node in model.graph.node if padding.input[0] in node.output]
        after = [node for node in model.graph.node if padding.output[0] in node.input]
        if len(after) == 1 and after[0].op_type == "QuantizeLinear":
            _exchange(model, padding, after[0])
        elif before and before[0].op_type == "DequantizeLinear" and len(after) == 1:
            _exchange(model, before[0], padding)


def _exchange(model: onnx.ModelProto, first: onnx.NodeProto, second: onnx.NodeProto) -> None:
    """a -> first -> b -> second -> c becomes a -> second -> b' -> first -> c, if no other node reads b."""
    readers = [node for node in model.graph.node if first.output[0] in node.input]
    if len(readers) != 1:
        return
    source, between, end = first.input[0], f"{first.output[0]}_{second.op_type}", second.output[0]
    second.input[0], second.output[0], first.input[0], first.output[0] = source, between, between, end
    position = list(model.graph.node).index(second)
    model.graph.node.pop(position)
    model.graph.node.insert(list(model.graph.node).index(first), _copied(second))


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _split(model: onnx.ModelProto, node: onnx.NodeProto, weight: Samples) -> Iterator[onnx.NodeProto]:
    outputs, inputs, high, wide = weight.shape
    name = node.output[0]
    columns = weight.transpose(3, 0, 1, 2).reshape(wide * outputs, inputs, high, 1)
    _add(model, f"{name}_columns", np.ascontiguousarray(columns))
    _add(model, f"{name}_channels", np.array([1, 3], np.int64))
    parts = []
    top, left, bottom, right = _attribute(node, "pads", [0, 0, 0, 0])
    yield helper.make_node(
        "Conv", [node.input[0], f"{name}_columns"], [f"{name}_parts"], f"{node.name}_columns",
        kernel_shape=[high, 1], pads=[top, left, bottom, right],
    )  # fmt: skip
    for column in range(wide):
        # Along the channels the part of this column, along the width all but the columns that the shift loses.
        last = column - (wide - 1) or np.iinfo(np.int64).max
        _add(model, f"{name}_start_{column}", np.array([column * outputs, column], np.int64))
        _add(model, f"{name}_stop_{column}", np.array([(column + 1) * outputs, last], np.int64))
        parts.append(f"{name}_part_{column}")
        bounds = [f"{name}_start_{column}", f"{name}_stop_{column}", f"{name}_channels"]
        yield helper.make_node("Slice", [f"{name}_parts", *bounds], [parts[-1]], f"{node.name}_part_{column}")
    if len(node.input) > 2:
        _add(model, f"{name}_bias", _weights(model, node.input[2]).reshape(1, -1, 1, 1))
        parts.append(f"{name}_bias")
    yield helper.make_node("Sum", parts, [name], f"{node.name}_sum")


def _is_plain(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """An ordinary convolution: no groups, stride or dilation."""
    return (
        node.op_type == "Conv"
        and _attribute(node, "group", 1) == 1
        and set(_attribute(node, "strides", [1])) == {1}
        and set(_attribute(node, "dilations", [1])) == {1}
        and any(each.name == node.input[1] for each in model.graph.initializer)
    )


def _is_narrow(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    outputs, inputs = _weights(model, node.input[1]).shape[:2]
    return bool(min(outputs, inputs * int(_attribute(node, "group", 1))) < NARROW)


def _float_nodes(model: onnx.ModelProto, kept: Sequence[str]) -> list[str]:
    """Those convolutions, and the ReLUs that follow no other: what they take has no range of its own then."""
    integer = {node.output[0] for node in model.graph.node if node.op_type == "Conv" and node.name not in kept}
    return [*kept, *(node.name for node in model.graph.node if node.op_type == "Relu" and node.input[0] not in integer)]


def _chains(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, str, onnx.NodeProto]]:
    """(convolution, its activations, next convolution) where only a ReLU and a padding lie between."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in model.graph.node:
        if not _is_plain(model, node):
            continue
        path, here = [], node
        while len(following := readers.get(here.output[0], [])) == 1:
            here = following[0]
            path.append(here.op_type)
            if here.op_type not in ("Relu", "Pad"):
                break
        if path in (["Relu", "Conv"], ["Relu", "Pad", "Conv"]) and _is_plain(model, here):
            yield node, readers[node.output[0]][0].output[0], here


def _greatest(model: onnx.ModelProto, names: Sequence[str], pictures: Sequence[Samples]) -> dict[str, Samples]:
    """Greatest value of each channel of some tensors."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    _add(watched, "all_but_channels", np.array([0, 2, 3], np.int64))
    for name in names:
        watched.graph.node.append(
            helper.make_node("ReduceMax", [name, "all_but_channels"], [f"{name}_greatest"], keepdims=0)
        )
        watched.graph.output.append(
            helper.make_tensor_value_info(f"{name}_greatest", onnx.TensorProto.FLOAT, ["channels"])
        )
    session = _session(watched)
    wanted = [f"{name}_greatest" for name in names]
    found = [session.run(wanted, {session.get_inputs()[0].name: picture}) for picture in pictures]
    return {name: np.max(values, axis=0) for name, values in zip(names, zip(*found, strict=True), strict=True)}


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds pictures to onnxruntime's calibration."""

    def __init__(self, name: str, pictures: Iterable[Samples]) -> None:
        self._feeds = ({name: picture} for picture in pictures)

    def get_next(self) -> dict[str, Samples] | None:
        return next(self._feeds, None)


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


def _names(data: Sequence[str]) -> list[str]:
    """Names, not paths: the card travels."""
    return [PurePosixPath(url).name for url in data]


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
    session, metric = _session(model), parse_metric(gate.protocol)
    figures = []
    for degraded, clean in _seen(_pictures(gate.validation, card), gate.degradation):
        (restored,) = session.run(None, {session.get_inputs()[0].name: degraded[None]})
        figures.append(metric(from_float(np.moveaxis(restored[0], 0, 2), np.uint8), clean))
    return float(np.mean(figures))


def _twin_card(card: ModelCard, twin: onnx.ModelProto, facts: Mapping[str, Any]) -> ModelCard:
    kept = {name: value for name, value in card.card.items() if name != "parity_max_abs_error"}
    about = {**kept, "measured": [], "graph_sha256": graph_sha256(twin), "quantisation": dict(facts)}
    return replace(card, name=f"{card.name}-int8", card=about)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _weights(model: onnx.ModelProto, name: str) -> Samples:
    return next(numpy_helper.to_array(each) for each in model.graph.initializer if each.name == name)


def _replace(tensor: onnx.TensorProto, values: NDArray[Any]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))


def _add(model: onnx.ModelProto, name: str, values: NDArray[Any]) -> None:
    model.graph.initializer.append(numpy_helper.from_array(values, name))


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
