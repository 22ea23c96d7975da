"""Float32 graph -> float16, for accelerators: half the memory and, on tensor cores, several times the rate.

Input, output and the skip that carries the picture stay float32: float16 has 11 bits, 16-bit pictures need more. All else is
float16, whose greatest number is 65,504; the restorer computes a tile whose result is not finite again in float32 (a CPU session
of the same file: onnxruntime's CPU has no float16 convolutions and computes them in float32).

Source: Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.3, of what may be half and what may not.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from export.onnx_export import quiet
from export.onnx_file import forget_source
from transforms.errors import ConfigurationError

_SKIPS = ("Add", "Sub", "Sum")
_GREATEST = float(np.finfo(np.float16).max)


def to_float16(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The twin of a float32 graph, without metadata, and the names of the nodes that stay float32.

    Raises:
        ConfigurationError: a weight that float16 can't hold.
    """
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and np.abs(values).max(initial=0) > _GREATEST:
            raise ConfigurationError(f"{weight.name} has values beyond {_GREATEST:g}, which float16 can't hold")
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    del prepared.metadata_props[:]
    kept = [node.name for node in _adding_to_the_picture(prepared)]
    with quiet("root"):
        twin: onnx.ModelProto = convert_float_to_float16(prepared, keep_io_types=True, node_block_list=kept)
    _skip_round_trips(twin)
    OnnxModel(twin).topological_sort()  # the casts stand at the end
    forget_source(twin)
    return twin, kept


def _adding_to_the_picture(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that make the output by adding to the input, or subtracting from it."""
    (picture,), (result,) = ([each.name for each in part] for part in (model.graph.input, model.graph.output))
    return [
        node
        for node in model.graph.node
        if node.op_type in _SKIPS and picture in node.input and list(node.output) == [result]
    ]


def _skip_round_trips(model: onnx.ModelProto) -> None:
    """Who takes float32 that was float16 in between, but float32 before that, takes the first: the picture, in full."""
    halved = {node.output[0]: node.input[0] for node in model.graph.node if _casts_to(node, onnx.TensorProto.FLOAT16)}
    back = [node for node in model.graph.node if _casts_to(node, onnx.TensorProto.FLOAT) and node.input[0] in halved]
    names = {node.output[0]: halved[node.input[0]] for node in back}
    for node in back:
        model.graph.node.remove(node)
    for result in model.graph.output:
        if result.name in names:  # it keeps its name, and what it was before gets it
            names[names.pop(result.name)] = result.name
    for node in model.graph.node:
        for tensors in (node.input, node.output):
            for position, name in enumerate(tensors):
                tensors[position] = names.get(name, name)
    read = {name for node in model.graph.node for name in node.input} | {each.name for each in model.graph.output}
    for node in [node for node in model.graph.node if node.op_type == "Cast" and node.output[0] not in read]:
        model.graph.node.remove(node)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(each.name == "to" and each.i == kind for each in node.attribute)
