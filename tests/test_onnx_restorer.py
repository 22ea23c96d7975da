"""Restoring with ONNX networks. The oracle is onnxruntime on the whole picture, called here without any of our code."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from transforms import onnx_network, onnx_session
from transforms.errors import ConfigurationError, Reason, RecordError
from transforms.onnx_network import OnnxNetwork, load_network
from transforms.onnx_restorer import OnnxRestorer, OnnxRestorerFactory
from transforms.onnx_session import ModelFile, OnnxRunError, OnnxSession, SessionSettings, read_model
from transforms.restorer import PerChannelCount, RestorerFactory
from transforms.value_range import from_float

ROOT = Path(__file__).parents[1]
Build = Callable[["Graph"], str]


class Graph:
    """Writes small networks, operator by operator; each method returns the name of its result."""

    def __init__(self, channels: int = 3, kind: type = np.float32, seed: int = 0) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.channels = channels
        self.kind = kind
        self.rng = np.random.default_rng(seed)

    def constant(self, values: Any, kind: type | None = None) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, kind or self.kind), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def conv(self, x: str, inputs: int, outputs: int, size: int = 3, **attributes: Any) -> str:
        attributes.setdefault("pads", [size // 2 * attributes.get("dilations", [1])[0]] * 4)
        weights = self.rng.normal(0, np.sqrt(1 / (inputs * size * size)), (outputs, inputs, size, size))
        bias = self.constant(self.rng.normal(0, 0.1, outputs))
        return self.add("Conv", x, self.constant(weights), bias, **attributes)

    def up(self, x: str, scale: int) -> str:
        scales = self.constant([1, 1, scale, scale], np.float32)
        return self.add("Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric")

    def model(self, result: str, shape: tuple[Any, ...] = ("n", None, "h", "w"), **metadata: Any) -> onnx.ModelProto:
        element = TensorProto.FLOAT16 if self.kind is np.float16 else TensorProto.FLOAT
        inputs = [shape[0], self.channels, *shape[2:]]
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("x", element, inputs)],
            [helper.make_tensor_value_info(result, element, None)],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(model, {f"conservator.{name}": json.dumps(value) for name, value in metadata.items()})
        return model


def plain(graph: Graph, layers: int = 3, features: int = 6) -> str:
    x = graph.conv("x", graph.channels, features)
    for _ in range(layers - 2):
        x = graph.conv(graph.add("Relu", x), features, features)
    return graph.add("Add", "x", graph.conv(graph.add("Relu", x), features, graph.channels))


def reflecting(graph: Graph) -> str:
    padded = graph.add("Pad", "x", graph.constant([0, 0, 4, 4, 0, 0, 4, 4], np.int64), mode="reflect")
    x = graph.add("Relu", graph.conv(padded, graph.channels, 4, 5, pads=[0] * 4))
    return graph.conv(x, 4, graph.channels, 5, pads=[0] * 4)


def dilated(graph: Graph) -> str:
    x = graph.add("LeakyRelu", graph.conv("x", graph.channels, 4, dilations=[4, 4]))
    return graph.conv(x, 4, graph.channels, dilations=[2, 2])


def encoder_decoder(graph: Graph) -> str:
    down = graph.add("Relu", graph.conv("x", graph.channels, 6, strides=[2, 2]))
    weights = graph.constant(graph.rng.normal(0, 0.3, (6, graph.channels, 2, 2)))
    return graph.add("ConvTranspose", down, weights, strides=[2, 2])


def u_net(graph: Graph) -> str:
    top = graph.add("Relu", graph.conv("x", graph.channels, 4))
    middle = graph.add("Relu", graph.conv(graph.add("MaxPool", top, kernel_shape=[2, 2], strides=[2, 2]), 4, 4))
    bottom = graph.add("Relu", graph.conv(graph.add("AveragePool", middle, kernel_shape=[2, 2], strides=[2, 2]), 4, 4))
    middle = graph.conv(graph.add("Concat", middle, graph.up(bottom, 2), axis=1), 8, 4)
    return graph.conv(graph.add("Concat", top, graph.up(middle, 2), axis=1), 8, graph.channels)


def enlarging(scale: int) -> Build:
    def build(graph: Graph) -> str:
        x = graph.add("Tanh", graph.conv("x", graph.channels, 6, 5))
        return graph.add("DepthToSpace", graph.conv(x, 6, graph.channels * scale**2), blocksize=scale)

    return build


def shuffling(graph: Graph) -> str:
    inside = graph.add("SpaceToDepth", "x", blocksize=3)
    x = graph.conv(graph.add("Relu", graph.conv(inside, 9 * graph.channels, 8)), 8, 9 * graph.channels)
    return graph.add("DepthToSpace", x, blocksize=3)


def shrinking(graph: Graph) -> str:
    return graph.conv(graph.add("Relu", graph.conv("x", graph.channels, 4)), 4, graph.channels, strides=[2, 2])


def pooling(graph: Graph) -> str:
    gate = graph.add("Sigmoid", graph.add("GlobalAveragePool", graph.conv("x", graph.channels, graph.channels)))
    return graph.add("Mul", "x", gate)


def normalising(graph: Graph) -> str:
    ones, zeros = graph.constant(np.ones(4)), graph.constant(np.zeros(4))
    x = graph.add("InstanceNormalization", graph.conv("x", graph.channels, 4), ones, zeros)
    return graph.conv(graph.add("Relu", x), 4, graph.channels)


def root(graph: Graph) -> str:
    """NaN below 0.25, else the square root of what is above it."""
    return graph.add("Sqrt", graph.add("Sub", "x", graph.constant(0.25)))


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    def write(
        build: Build, channels: int = 3, kind: type = np.float32, shape: Any = ("n", 0, "h", "w"), **metadata: Any
    ) -> str:
        graph = Graph(channels, kind)
        path = tmp_path / f"net{len(list(tmp_path.iterdir()))}.onnx"
        onnx.save(graph.model(build(graph), shape, **metadata), path)
        return str(path)

    return write


def whole(path: str, picture: NDArray[Any], multiple: int = 1) -> NDArray[np.float32]:
    """onnxruntime on the whole picture, reflected up to a multiple."""
    height, width = picture.shape[:2]
    margins = ((0, -height % multiple), (0, -width % multiple), (0, 0))
    padded = np.pad(picture, margins, mode="reflect")
    top = np.float32({"uint8": 255, "uint16": 65535}.get(str(picture.dtype), 1))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    kind = np.float16 if session.get_inputs()[0].type == "tensor(float16)" else np.float32
    images = (padded / top).astype(kind).transpose(2, 0, 1)[None]
    result = session.run(None, {"x": images})[0][0].transpose(1, 2, 0).astype(np.float32)
    scale = Fraction(result.shape[0], padded.shape[0])
    return result[: int(height * scale), : int(width * scale)]


def noise(height: int, width: int, channels: int, kind: Any = np.uint8, seed: int = 0) -> NDArray[Any]:
    values = np.random.default_rng(seed).random((height, width, channels))
    return from_float(values.astype(np.float32), kind)


def restore_one(restorer: OnnxRestorer, picture: NDArray[Any]) -> Any:
    (restored,) = restorer.restore([picture], [{}])
    return restored


EXACT = {
    "plain colour": (plain, {"channels": 3}, 1),
    "plain grey": (plain, {"channels": 1}, 1),
    "reflecting": (reflecting, {}, 1),
    "dilated": (dilated, {}, 1),
    "encoder-decoder": (encoder_decoder, {}, 2),
    "U-net": (u_net, {}, 4),
    "enlarging x2": (enlarging(2), {}, 1),
    "enlarging x3 grey": (enlarging(3), {"channels": 1}, 1),
    "shuffling by 3": (shuffling, {}, 3),
    "shrinking by 2": (shrinking, {}, 2),
    "one at a time": (plain, {"shape": (1, 0, "h", "w")}, 1),
    "two at a time": (plain, {"shape": (2, 0, "h", "w")}, 1),
}


@pytest.mark.parametrize("case", EXACT)
@pytest.mark.parametrize("size", [(97, 131), (40, 150), (41, 33)])
def test_tiles_give_what_the_whole_picture_gives(case: str, size: tuple[int, int], save: Callable[..., str]) -> None:
    build, options, multiple = EXACT[case]
    path = save(build, **options)
    restorer = OnnxRestorerFactory(path, tile=40, batch=3).load()
    channels = options.get("channels", 3)
    # The same weights for any batch size, because the oracle runs one picture at a time.
    expected_path = save(build) if options.get("shape", "n")[0] == 2 else path
    picture = noise(*size, channels, np.float32)
    expected = whole(expected_path, picture, multiple)
    restored = restore_one(restorer, picture)
    assert restored.notes["tiling"] == "exact"
    assert restored.notes["tiles"] >= 2
    assert restored.samples.dtype == np.float32
    np.testing.assert_allclose(restored.samples, expected, rtol=0, atol=1e-5)
    eight = noise(*size, channels)
    expected_bits = from_float(whole(expected_path, eight, multiple), np.uint8)
    np.testing.assert_array_equal(restore_one(restorer, eight).samples, expected_bits)


@pytest.mark.parametrize("case", ["plain colour", "U-net", "enlarging x2"])
def test_a_halo_one_step_short_would_show(case: str, save: Callable[..., str]) -> None:
    """The comparison above can fail: with less halo the seams are there."""
    build, options, multiple = EXACT[case]
    path = save(build, **options)
    network = OnnxRestorerFactory(path).load()._network
    picture = noise(30, 43, 3, np.float32)
    for short, close in ((0, True), (network.field.period, False)):
        network.field = replace(network.field, halo=network.field.halo - short)
        restorer = OnnxRestorer(network, tile=OnnxRestorer(network)._smallest_tile)
        difference = np.abs(restore_one(restorer, picture).samples - whole(path, picture, multiple)).max()
        assert (difference < 1e-5) if close else (difference > 1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 110), st.integers(1, 110), st.integers(40, 70), st.integers(1, 5), st.integers(1, 3))
def test_any_size_any_tile_any_batch(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, tile: int, batch: int, pictures: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any_size.onnx"
    if not path.exists():
        graph = Graph(3)
        onnx.save(graph.model(u_net(graph)), path)
    restorer = OnnxRestorerFactory(str(path), tile=tile, batch=batch).load()
    given_pictures = [noise(height + each, width, 3, seed=each) for each in range(pictures)]
    for picture, restored in zip(given_pictures, restorer.restore(given_pictures, [{}] * pictures), strict=True):
        np.testing.assert_array_equal(restored.samples, from_float(whole(str(path), picture, 4), np.uint8))


def test_a_picture_not_larger_than_the_tile_goes_whole(save: Callable[..., str]) -> None:
    restorer = OnnxRestorerFactory(save(plain), tile=64).load()
    assert restore_one(restorer, noise(64, 50, 3)).notes == {"tiling": "whole", "tiles": 1}
    assert restore_one(restorer, noise(1, 1, 3)).samples.shape == (1, 1, 3)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("made_for", [1, 3])
def test_channels_and_depth_come_back(kind: Any, channels: int, made_for: int, save: Callable[..., str]) -> None:
    path = save(plain, channels=made_for)
    picture = noise(50, 70, channels, kind)
    restored = restore_one(OnnxRestorerFactory(path, tile=32).load(), picture).samples
    if made_for == channels:
        expected = whole(path, picture)
    elif made_for == 1:
        expected = np.concatenate([whole(path, picture[..., [plane]]) for plane in range(3)], axis=2)
    else:
        expected = whole(path, np.repeat(picture, 3, axis=2)).mean(axis=2, keepdims=True)
    assert (restored.shape, restored.dtype) == (picture.shape, picture.dtype)
    if kind is np.float32:
        np.testing.assert_allclose(restored, expected, atol=1e-5)
    else:
        np.testing.assert_array_equal(restored, from_float(expected, kind))


def test_float_samples_are_not_clipped(save: Callable[..., str]) -> None:
    path = save(lambda graph: graph.add("Mul", "x", graph.constant(2.0)))
    picture = np.linspace(-1, 3, 300, dtype=np.float32).reshape(10, 10, 3)
    np.testing.assert_array_equal(restore_one(OnnxRestorerFactory(path).load(), picture).samples, 2 * picture)


def test_value_range_and_colour_order_are_those_of_the_network(save: Callable[..., str]) -> None:
    def first_channel_to_black(graph: Graph) -> str:
        return graph.add("Mul", "x", graph.constant(np.array([0, 1, 1]).reshape(3, 1, 1)))

    picture = noise(20, 20, 3)
    as_bgr = restore_one(OnnxRestorerFactory(save(first_channel_to_black, color="bgr")).load(), picture).samples
    np.testing.assert_array_equal(as_bgr, picture * np.array([1, 1, 0], np.uint8))

    def negative(graph: Graph) -> str:
        return graph.add("Sub", graph.constant(100.0), "x")  # black is 0 and white is 100 in this network

    inverted = restore_one(OnnxRestorerFactory(save(negative, value_range=[0, 100])).load(), picture).samples
    np.testing.assert_array_equal(inverted, 255 - picture)


def test_a_network_of_one_size_restores_any_size(save: Callable[..., str]) -> None:
    path, free = save(enlarging(2), shape=("n", 0, 64, 64)), save(enlarging(2))
    restorer = OnnxRestorerFactory(path).load()
    picture = noise(150, 101, 3)
    restored = restore_one(restorer, picture)
    assert restored.notes == {"tiling": "exact", "tiles": 6, "tile": [64, 64]}
    np.testing.assert_array_equal(restored.samples, from_float(whole(free, picture), np.uint8))
    small = restore_one(restorer, noise(40, 64, 3)).samples  # continued by reflection to 64, cut back
    padded = np.pad(noise(40, 64, 3), ((0, 24), (0, 0), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(small, from_float(whole(free, padded), np.uint8)[:80])


def test_half_precision_in_and_out(save: Callable[..., str]) -> None:
    path = save(plain, kind=np.float16)
    picture = noise(90, 75, 3)
    restored = restore_one(OnnxRestorerFactory(path, tile=40).load(), picture)
    assert restored.notes["tiling"] == "exact"
    np.testing.assert_array_equal(restored.samples, from_float(whole(path, picture), np.uint8))


@pytest.mark.parametrize("build", [pooling, normalising])
def test_networks_that_look_at_everything_are_blended_and_say_so(build: Build, save: Callable[..., str]) -> None:
    path = save(build)
    restorer = OnnxRestorerFactory(path, tile=48).load()
    restored = restore_one(restorer, noise(100, 120, 3))
    assert restored.notes["tiling"] == "blend"
    assert "pixels more than" in restored.notes["tiling_reason"]
    assert restorer.describe()["tiling"] == "blend"
    small = noise(48, 48, 3)
    assert restore_one(restorer, small).notes["tiling"] == "whole"
    np.testing.assert_array_equal(restore_one(restorer, small).samples, from_float(whole(path, small), np.uint8))


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_blending_adds_up(scale: int, channels: int, save: Callable[..., str]) -> None:
    """Declared global, in truth pointwise: every window gives the same, and so must their blend."""
    path = save(lambda graph: graph.up("x", scale), channels=1, receptive_field=None)
    picture = noise(203, 97, channels, np.uint16)
    restored = restore_one(OnnxRestorerFactory(path, tile=64).load(), picture)
    assert "says" in restored.notes["tiling_reason"]
    difference = restored.samples.astype(int) - picture.repeat(scale, 0).repeat(scale, 1)
    assert np.abs(difference).max() <= 1


def test_a_blend_has_no_seams(save: Callable[..., str]) -> None:
    """Windows that disagree pass into each other: no step is larger than the cosine's steepest."""

    def mean_of_window(graph: Graph) -> str:
        return graph.add("Add", graph.add("Mul", "x", graph.constant(0.0)), graph.add("GlobalAveragePool", "x"))

    restorer = OnnxRestorerFactory(save(mean_of_window, channels=1), tile=64).load()
    ramp = np.tile(np.linspace(0, 1, 400, dtype=np.float32)[None, :, None], (64, 1, 1))
    restored = restore_one(restorer, ramp).samples
    largest_step = np.abs(np.diff(restored[..., 0], axis=1)).max()
    between_windows = 64 / 400
    assert 0 < largest_step < between_windows * np.pi / 2 / 16 * 1.1  # over an overlap of at least 16


def test_two_networks_share_the_pictures_by_their_channels(save: Callable[..., str]) -> None:
    gray, color = save(plain, channels=1), save(plain, channels=3)
    factory: RestorerFactory = PerChannelCount((OnnxRestorerFactory(color), OnnxRestorerFactory(gray)))
    restorer = factory.load()
    pictures = [noise(20, 30, channels, seed=channels) for channels in (3, 1, 3)]
    restored = restorer.restore(pictures, [{}] * 3)
    for picture, result in zip(pictures, restored, strict=True):
        expected = whole(gray if picture.shape[2] == 1 else color, picture)
        np.testing.assert_array_equal(result.samples, from_float(expected, np.uint8))
    assert restorer.counters["tiles_run"] == 3
    assert restorer.scale == 1
    swapped = PerChannelCount((OnnxRestorerFactory(gray), OnnxRestorerFactory(color)))
    assert swapped.fingerprint() == factory.fingerprint()
    assert len(factory.describe()["per_channel_count"]) == 2


def test_two_networks_that_do_not_fit_together_are_refused(save: Callable[..., str]) -> None:
    gray, double = OnnxRestorerFactory(save(plain, channels=1)), OnnxRestorerFactory(save(enlarging(2)))
    with pytest.raises(ConfigurationError, match=r"these take \[1, 1\]"):
        PerChannelCount((gray, gray)).load()
    with pytest.raises(ConfigurationError, match="enlarge by 1 and 2"):
        PerChannelCount((gray, double)).load()


def limited(network: OnnxNetwork, pixels: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A device with memory for so many pixels, complaining as onnxruntime does. Returns the shapes that were tried."""
    tried: list[tuple[int, ...]] = []
    session = network._session._session

    class Device:
        def run(self, names: Any, feed: dict[str, NDArray[Any]]) -> Any:
            (images,) = feed.values()
            tried.append(images.shape)
            if images[:, 0].size > pixels:
                raise RuntimeError("Non-zero status code: bfc_arena.cc Failed to allocate memory for requested buffer")
            return session.run(names, feed)

    monkeypatch.setattr(network._session, "_session", Device())
    return tried


def test_out_of_memory_halves_the_batch_then_the_tile(
    save: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(plain)
    restorer = OnnxRestorerFactory(path, tile=64, batch=4).load()
    pictures = [noise(64, 64, 3, seed=each) for each in range(4)]
    expected = [from_float(whole(path, picture), np.uint8) for picture in pictures]
    tried = limited(restorer._network, 2 * 64 * 64, monkeypatch)
    for restored, right in zip(restorer.restore(pictures, [{}] * 4), expected, strict=True):
        np.testing.assert_array_equal(restored.samples, right)
    assert [shape[0] for shape in tried] == [4, 2, 2]
    assert (restorer.counters["oom_splits"], restorer.counters["oom_smaller_tiles"]) == (1, 0)
    limited(restorer._network, 40 * 40, monkeypatch)
    for restored, right in zip(restorer.restore(pictures, [{}] * 4), expected, strict=True):
        np.testing.assert_array_equal(restored.samples, right)
        assert restored.notes["tiling"] == "exact"
    assert restorer.counters["oom_smaller_tiles"] == 4  # each picture by itself: nothing is remembered


def test_out_of_memory_with_the_smallest_tile_is_a_memory_error(
    save: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = OnnxRestorerFactory(save(plain)).load()
    limited(restorer._network, 100, monkeypatch)
    with pytest.raises(MemoryError, match="smallest tile"):
        restore_one(restorer, noise(200, 200, 3))
    fixed = OnnxRestorerFactory(save(plain, shape=("n", 0, 64, "w"))).load()
    limited(fixed._network, 100, monkeypatch)
    with pytest.raises(MemoryError, match="smallest tile"):
        restore_one(fixed, noise(200, 200, 3))


def test_onnxruntime_out_of_memory_for_real_is_understood() -> None:
    """In a process with a limited address space, because only the allocator's own words count."""
    program = """
import resource, numpy as np
from transforms.onnx_session import OnnxSession, SessionSettings, ModelFile
from onnx import helper, TensorProto
wide = helper.make_tensor("r", TensorProto.INT64, [4], [1, 64, 1, 1])
graph = helper.make_graph([helper.make_node("Tile", ["x", "r"], ["t"]), helper.make_node("Exp", ["t"], ["y"])], "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "h", "w"])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [wide])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
session = OnnxSession(ModelFile("m", model.SerializeToString(), ""), SessionSettings())
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
try:
    session.run(np.zeros((1, 1, 4096, 4096), np.float32))
except MemoryError as error:
    print("understood", error)
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to know the address space in use")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("understood"), done.stderr


def test_a_failing_tile_fails_its_picture_and_no_pixel_is_made_up(save: Callable[..., str]) -> None:
    restorer = OnnxRestorerFactory(save(root), tile=32).load()
    good = noise(100, 100, 3) // 2 + 100
    bad = good.copy()
    bad[70, 80] = 0
    for pictures in ([bad], [good, bad]):
        with pytest.raises(RecordError, match="rows 45 to 77, columns 68 to 100") as caught:
            restorer.restore(pictures, [{}] * len(pictures))
        assert caught.value.reason is Reason.NON_FINITE
    assert restorer.counters["nonfinite_tiles"] == 2
    assert restorer.counters["float32_retries"] == 0  # it was float32 already
    expected = np.sqrt(good / np.float32(255) - np.float32(0.25))
    np.testing.assert_array_equal(restore_one(restorer, good).samples, from_float(expected, np.uint8))


class HalfPrecisionDevice:
    """Stands for a GPU whose float16 overflows in bright tiles."""

    provider = "CUDAExecutionProvider"

    def __init__(self, session: OnnxSession) -> None:
        self._session = session

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        answer = self._session.run(images).copy()
        answer[images.max(axis=(1, 2, 3)) > 0.9] = np.inf
        return answer


@pytest.mark.parametrize(("build", "message"), [(plain, ""), (root, "in float32 too")])
def test_overflow_in_half_precision_is_computed_again_in_float32(
    build: Build, message: str, save: Callable[..., str]
) -> None:
    path = save(build, kind=np.float16)
    network = OnnxNetwork(read_model(path), SessionSettings())
    network._session = HalfPrecisionDevice(network._session)  # type: ignore[assignment]
    restorer = OnnxRestorer(network, tile=40)
    picture = noise(80, 80, 3) // 2 + 70
    picture[10, 10] = 255
    if message:
        picture[12, 12] = 0  # NaN whatever the arithmetic
        with pytest.raises(RecordError, match=message):
            restore_one(restorer, picture)
    else:
        expected = from_float(whole(path, picture), np.uint8)
        np.testing.assert_array_equal(restore_one(restorer, picture).samples, expected)
    assert restorer.counters["float32_retries"] == restorer.counters["nonfinite_tiles"] == 1


@pytest.mark.parametrize(
    ("field", "message"),
    [(5, "moves results 3 pixels away: declare at least 7"), (7, ""), (21, ""), (2000, ""), (None, "")],
)
def test_a_declared_receptive_field_is_checked(field: int | None, message: str, save: Callable[..., str]) -> None:
    path = save(plain, receptive_field=field)
    if message:
        with pytest.raises(ConfigurationError, match=message):
            OnnxRestorerFactory(path).load()
        return
    described = OnnxRestorerFactory(path).load().describe()
    assert described["receptive_field"] == (field if field in (7, 21) else None)
    assert described["tiling"] == ("exact" if field in (7, 21) else "blend")


def test_a_global_network_must_not_declare_a_field(save: Callable[..., str]) -> None:
    with pytest.raises(ConfigurationError, match="or null"):
        OnnxRestorerFactory(save(pooling, receptive_field=11)).load()


def test_a_tile_without_room_for_the_halo_is_refused(save: Callable[..., str]) -> None:
    path = save(dilated)
    with pytest.raises(ConfigurationError, match=r"tile 12 is too small .* sees 6 pixels far: pass at least 13"):
        OnnxRestorerFactory(path, tile=12).load()
    assert restore_one(OnnxRestorerFactory(path, tile=13).load(), noise(20, 20, 3)).notes["tiles"] == 64
    with pytest.raises(ConfigurationError, match="sees the whole picture: pass at least 5"):
        OnnxRestorerFactory(save(pooling), tile=4).load()


@pytest.mark.parametrize(
    "settings_",
    [{"provider": "gpu"}, {"precision": "half"}, {"batch": 0}, {"tile": -5}, {"session_threads": 0}],
)
def test_settings_are_checked_when_they_are_made(settings_: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings_))):
        OnnxRestorerFactory("net.onnx", **settings_)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x01"])
def test_a_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"net\.onnx' can't be loaded"):
        OnnxRestorerFactory(str(tmp_path / "net.onnx")).load()


def test_an_absent_model_is_refused(tmp_path: Path) -> None:
    for path in (str(tmp_path / "absent.onnx"), "memory://nowhere/absent.onnx", str(tmp_path)):
        with pytest.raises(ConfigurationError, match="cannot read the model"):
            OnnxRestorerFactory(path).load()


def test_a_model_behind_any_url(save: Callable[..., str]) -> None:
    path = save(plain)
    with fsspec.open("memory://models/net.onnx", "wb") as file:
        file.write(Path(path).read_bytes())
    remote = OnnxRestorerFactory("memory://models/net.onnx")
    picture = noise(30, 30, 3)
    np.testing.assert_array_equal(
        restore_one(remote.load(), picture).samples, restore_one(OnnxRestorerFactory(path).load(), picture).samples
    )
    assert remote.fingerprint() == OnnxRestorerFactory(path).fingerprint()


def test_weights_in_a_file_beside_the_model_count(tmp_path: Path) -> None:
    graph = Graph(3)
    model = graph.model(plain(graph))
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    factory = OnnxRestorerFactory(str(path))
    np.testing.assert_array_equal(restore_one(factory.load(), noise(9, 9, 3)).samples.shape, (9, 9, 3))
    before = factory.fingerprint()
    weights = bytearray((tmp_path / "net.onnx.data").read_bytes())
    weights[3] ^= 1
    (tmp_path / "net.onnx.data").write_bytes(weights)
    assert OnnxRestorerFactory(str(path)).fingerprint() != before
    with fsspec.open("memory://apart/net.onnx", "wb") as file:
        file.write(path.read_bytes())
    with pytest.raises(ConfigurationError, match="put them inside"):
        OnnxRestorerFactory("memory://apart/net.onnx").load()


def test_fingerprint_needs_no_session_and_is_about_bytes(
    save: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(plain)
    monkeypatch.setattr(onnx_session.ort, "InferenceSession", None)
    one = OnnxRestorerFactory(path).fingerprint()
    assert (
        OnnxRestorerFactory(path, batch=7, session_threads=2, provider="cuda", allow_cpu_fallback=True).fingerprint()
        == one
    )
    assert OnnxRestorerFactory(path, tile=100).fingerprint() != one
    assert OnnxRestorerFactory(save(reflecting)).fingerprint() != one
    assert json.loads(json.dumps(one)) == one


def test_workers_refuse_another_model_than_the_driver_saw(save: Callable[..., str]) -> None:
    path = save(plain)
    factory = OnnxRestorerFactory(path)
    factory.fingerprint()
    sent = pickle.loads(pickle.dumps(factory))
    assert sent == factory
    sent.load()
    Path(path).write_bytes(Path(save(reflecting)).read_bytes())
    with pytest.raises(ConfigurationError, match="has changed since the start"):
        sent.load()


def test_restorers_of_a_process_share_one_session(save: Callable[..., str]) -> None:
    factory = OnnxRestorerFactory(save(plain))
    one, two = factory.load(), OnnxRestorerFactory(factory.model, tile=64).load()
    assert one._network is two._network
    assert load_network(read_model(factory.model), SessionSettings(threads=2)) is not one._network


def test_a_provider_that_is_not_there_is_an_error(save: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(plain)
    missing = "cuda" if "CUDAExecutionProvider" not in onnxruntime.get_available_providers() else "tensorrt"
    with pytest.raises(ConfigurationError, match="--allow_cpu_fallback"):
        OnnxRestorerFactory(path, provider=missing).load()
    described = OnnxRestorerFactory(path, provider=missing, allow_cpu_fallback=True).describe()
    assert described["provider"] == "CPUExecutionProvider"


def test_a_provider_that_silently_gives_way_is_an_error(
    save: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime lists CUDA, fails to start it, and goes on with the CPU."""
    path = save(plain)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    monkeypatch.setattr(
        onnx_session.ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnx_session.ort, "InferenceSession", lambda *arguments, **options: session)
    with pytest.raises(ConfigurationError, match="onnxruntime chose CPUExecutionProvider"):
        OnnxRestorerFactory(path, provider="cuda").load()


@pytest.mark.parametrize("broken", [False, True])
def test_another_provider_is_tried_once_and_probed_on_the_cpu(
    broken: bool, save: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []

    class Device(OnnxSession):
        def __init__(self, model: ModelFile, settings: SessionSettings) -> None:
            super().__init__(model, replace(settings, provider="cpu"))
            if settings.provider == "cuda":
                self.provider = "CUDAExecutionProvider"

        def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            if self.provider == "CUDAExecutionProvider":
                shapes.append(images.shape)
                if broken:
                    raise OnnxRunError("no kernel image is available for execution on the device")
            return super().run(images)

    monkeypatch.setattr(onnx_network, "OnnxSession", Device)
    factory = OnnxRestorerFactory(save(plain), provider="cuda", batch=6, tile=128)
    if broken:
        with pytest.raises(ConfigurationError, match="does not run on CUDAExecutionProvider"):
            factory.load()
        return
    restorer = factory.load()
    assert shapes == [(1, 3, 1, 1)]
    restorer.restore([noise(300, 300, 3)], [{}])
    assert shapes[1:] == [(6, 3, 128, 128), (3, 3, 128, 128)]  # full batches of few shapes


def test_describe_is_json_and_carries_the_card(save: Callable[..., str]) -> None:
    path = save(plain, name="denoise3", purpose="denoise", card={"psnr": 28})
    described = OnnxRestorerFactory(path).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["name"] == "denoise3"
    assert described["card"] == {"psnr": 28}
    assert (described["receptive_field"], described["tiling"], described["scale"]) == (7, "exact", 1.0)
    assert OnnxRestorerFactory(save(reflecting)).describe()["name"].startswith("net")


def test_an_empty_call_and_pictures_of_all_kinds_at_once(save: Callable[..., str]) -> None:
    path = save(plain)
    restorer = OnnxRestorerFactory(path, tile=32, batch=8).load()
    assert restorer.restore([], []) == []
    pictures = [
        noise(9, 50, 3),
        noise(50, 9, 1, np.uint16),
        noise(20, 20, 3, np.float32),
        noise(70, 70, 3),
        noise(9, 50, 3),
    ]
    together = restorer.restore(pictures, [{}] * len(pictures))
    for picture, restored in zip(pictures, together, strict=True):
        np.testing.assert_allclose(restored.samples, restore_one(restorer, picture).samples, atol=1e-6)
        assert (restored.samples.shape, restored.samples.dtype) == (picture.shape, picture.dtype)


def test_a_heavy_network_has_smaller_tiles_by_default(save: Callable[..., str]) -> None:
    """100 kB for each pixel: 1.5 GiB are 126 x 126 of them. What was asked for is not changed."""
    light, heavy = (save(plain, **said) for said in ({}, {"bytes_per_pixel": 100_000}))
    assert OnnxRestorerFactory(light).load().describe()["tile"] == [512, 512]
    assert OnnxRestorerFactory(heavy).load().describe()["tile"] == [126, 126]
    assert OnnxRestorerFactory(heavy, tile=300).load().describe()["tile"] == [300, 300]
    picture = noise(300, 200, 3)
    few, many = (restore_one(OnnxRestorerFactory(model).load(), picture) for model in (light, heavy))
    assert many.notes["tiles"] > few.notes["tiles"] == 1
    restorer = OnnxRestorerFactory(heavy).load()
    assert [restorer._capacity((side, side)) for side in (126, 80, 60)] == [1, 2, 4]
    np.testing.assert_array_equal(many.samples, few.samples)


def test_a_network_that_sees_far_has_larger_tiles_where_memory_is_known_to_allow(save: Callable[..., str]) -> None:
    """A halo of 80: at 768 pixels 37 % of what is computed is thrown away, at 960 31 %."""

    def far(graph: Graph) -> str:
        return graph.conv("x", graph.channels, graph.channels, dilations=[80, 80])

    for said, side in (({}, 768), ({"bytes_per_pixel": 24}, 960), ({"bytes_per_pixel": 2000}, 897)):
        assert OnnxRestorerFactory(save(far, channels=1, **said)).load().describe()["tile"] == [side, side], said


@pytest.mark.data
def test_a_published_network_of_fixed_size(data_dir: Path) -> None:
    """ESPCN from the ONNX tutorials: luma only, 224 x 224, three times larger."""
    path = str(data_dir / "weights/ESPCN_onnx/super_resolution.onnx")
    restorer = OnnxRestorerFactory(path).load()
    described = restorer.describe()
    assert (described["scale"], described["channels"], described["receptive_field"]) == (
        3.0,
        1,
        11,
    )  # 5x5 and three 3x3
    picture = noise(224, 224, 1)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"input": (picture / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)})[0]
    np.testing.assert_array_equal(
        restore_one(restorer, picture).samples, from_float(expected[0].transpose(1, 2, 0), np.uint8)
    )
    larger = restore_one(restorer, noise(230, 240, 1))
    assert larger.notes == {"tiling": "exact", "tiles": 4, "tile": [224, 224]}
    assert larger.samples.shape == (690, 720, 1)


def test_memory_is_that_of_the_samples_and_a_few_tiles(save: Callable[..., str]) -> None:
    """60 megapixels of grey: 60 MB in, 60 MB out; one whole-picture plane of floats would be 240 MB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc: the peak of getrusage is inherited from the process that starts a child")
    program = f"""
import numpy as np
from transforms.onnx_restorer import OnnxRestorerFactory
def peak_kib():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
restorer = OnnxRestorerFactory({save(lambda graph: plain(graph, 2, 4), channels=1)!r}).load()
picture = np.full((7500, 8000, 1), 100, np.uint8)
picture[::2] = 50
restorer.restore([picture[:600, :600]], [{{}}])
before = peak_kib()
(restored,) = restorer.restore([picture], [{{}}])
print((peak_kib() - before) // 1024, restored.notes["tiles"])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    grown_mib, tiles = map(int, done.stdout.split())
    assert tiles > 200
    assert 50 <= grown_mib < 57 + 30  # the result, and what the allocator keeps of the tiles
