"""How much memory a graph's tensors take while it runs, for each pixel of its input."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx

from export.onnx_file import cpu_session

SIDE = 64  # pixels of the picture that is measured on, at least


def bytes_per_pixel(model: onnx.ModelProto, channels: int, multiple: int = 1, min_size: int = 1) -> int:
    """Bytes of the tensors between input and output that live at once, at the most, over the pixels of the input.

    A tensor lives from the node that makes it to the last one that reads it. What follows from weights alone does not count, and
    neither does what kernels need beside. Runtimes that fuse nodes need less; those that compute float16 in float32 need more.
    For graphs as `export` makes them: a float32 input of any size, no subgraphs, work in proportion to the pixels.

    Args:
        channels: of the input.
        multiple, min_size: of the heights and widths that the network takes.
    """
    side = math.ceil(max(SIDE, min_size) / multiple) * multiple
    sizes = _sizes(model, np.zeros((1, channels, side, side), np.float32))
    return math.ceil(max(_living(model, sizes)) / side**2)


def _sizes(model: onnx.ModelProto, images: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> dict[str, int]:
    """Bytes of the input and of every tensor that depends on it."""
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    (image,) = {value.name for value in model.graph.input} - {weights.name for weights in model.graph.initializer}
    dependent = {image}
    for node in model.graph.node:
        if dependent.intersection(node.input):
            dependent.update(filter(None, node.output))
    names = [name for node in model.graph.node for name in node.output if name in dependent]
    del open_model.graph.output[:]
    open_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    made = cpu_session(open_model).run(names, {image: images})
    return {image: images.nbytes} | {name: tensor.nbytes for name, tensor in zip(names, made, strict=True)}


def _living(model: onnx.ModelProto, sizes: dict[str, int]) -> Iterator[int]:
    """Bytes that live while each node runs."""
    last_use = {name: number for number, node in enumerate(model.graph.node) for name in node.input}
    results = {value.name for value in model.graph.output}
    living = {value.name for value in model.graph.input if value.name in sizes}
    for number, node in enumerate(model.graph.node):
        living |= {name for name in node.output if name in sizes}
        yield sum(sizes[name] for name in living)
        living = {name for name in living if last_use.get(name, -1) > number or name in results}
