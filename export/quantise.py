"""Float32 graph -> integers.

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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from export.onnx_export import quiet
from export.onnx_file import cpu_session, forget_source
from transforms.errors import ConfigurationError

NARROW = 16  # channels; below, onnxruntime's float kernels win and the picture itself is at stake

Samples = NDArray[np.float32]


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
    session = cpu_session(watched)
    wanted = [f"{name}_greatest" for name in names]
    found = [session.run(wanted, {session.get_inputs()[0].name: picture}) for picture in pictures]
    return {name: np.max(values, axis=0) for name, values in zip(names, zip(*found, strict=True), strict=True)}


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds pictures to onnxruntime's calibration."""

    def __init__(self, name: str, pictures: Iterable[Samples]) -> None:
        self._feeds = ({name: picture} for picture in pictures)

    def get_next(self) -> dict[str, Samples] | None:
        return next(self._feeds, None)


def _weights(model: onnx.ModelProto, name: str) -> Samples:
    return next(numpy_helper.to_array(each) for each in model.graph.initializer if each.name == name)


def _replace(tensor: onnx.TensorProto, values: NDArray[Any]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))


def _add(model: onnx.ModelProto, name: str, values: NDArray[Any]) -> None:
    model.graph.initializer.append(numpy_helper.from_array(values, name))


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
