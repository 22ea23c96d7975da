"""Restoring with networks for enlarged luma: what happens around the network, told by the card.

The oracles are `resize_planes` on whole pictures, scikit-image's conversion of colours, and onnxruntime on the whole plane.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skimage.color import rgb2ycbcr

from transforms.enlargement import Enlargement, Resized
from transforms.errors import ConfigurationError, RecordError
from transforms.onnx_restorer import OnnxRestorerFactory
from transforms.planes.resampling import RESIZE_KERNELS, resize_planes
from transforms.value_range import from_float, luma_bt601, to_float

Array = NDArray[Any]
X3 = {"factor": 3, "kernel": "matlab_bicubic"}
TWICE = {"factor": 2, "kernel": "opencv_cubic", "shrink": "matlab_bicubic"}


def noise(height: int, width: int, channels: int, kind: Any = np.uint8, seed: int = 0) -> Array:
    return from_float(np.random.default_rng(seed).random((height, width, channels), dtype=np.float32), kind)


def write(path: Path, *, strength: float = 0.05, repeats: int = 1, **said: Any) -> str:
    """A network of one channel that adds two 3 x 3 convolutions of that strength to its input, and repeats each pixel."""
    rng = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(rng.normal(0, strength, size).astype(np.float32), name)
        for name, size in (("a", (4, 1, 3, 3)), ("b", (1, 4, 3, 3)))
    ]
    weights.append(numpy_helper.from_array(np.array([1, 1, repeats, repeats], np.float32), "s"))
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["f"], pads=[1] * 4),
        helper.make_node("Relu", ["f"], ["r"]),
        helper.make_node("Conv", ["r", "b"], ["d"], pads=[1] * 4),
        helper.make_node("Add", ["x", "d"], ["e"]),
        helper.make_node(
            "Resize", ["e", "", "s"], ["y"], mode="nearest", coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
    ]  # fmt: skip
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, *sides])
        for name, sides in (("x", "hw"), ("y", "HW"))
    ]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {f"conservator.{key}": json.dumps(value) for key, value in said.items()})
    onnx.save(model, path)
    return str(path)


@pytest.fixture(scope="module")
def tripling(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("models") / "x3.onnx", color="luma", scale=3, enlarge=X3)


@pytest.fixture(scope="module")
def shrinking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twice enlarged, twice by the network, and shrunk to three times."""
    path = tmp_path_factory.mktemp("models") / "x4-to-x3.onnx"
    return write(path, repeats=2, color="luma", scale=3, enlarge=TWICE)


@pytest.fixture
def unchanging(tmp_path: Path) -> str:
    """Its answer is its input."""
    return write(tmp_path / "identity.onnx", strength=0, color="luma", scale=3, enlarge=X3)


def restore(model: str, picture: Array, tile: int | None = None) -> Array:
    result: Array = OnnxRestorerFactory(model, tile=tile).load().restore([picture], [{}])[0].samples
    return result


def answer(model: str, plane: Array) -> Array:
    """The network's answer to a whole plane."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {"x": plane[np.newaxis, np.newaxis].astype(np.float32)})[0][0, 0]
    return result


def luma_of(picture: Array) -> Array:
    floats = to_float(picture).astype(np.float64)
    luma: Array = floats[..., 0] if picture.shape[2] == 1 else luma_bt601(floats)
    return luma


def largest_difference(one: Array, other: Array) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())


@pytest.mark.parametrize("kernel", RESIZE_KERNELS)
@pytest.mark.parametrize("size", [(23, 31), (69, 93), (14, 10)])
def test_windows_are_parts_of_the_whole(kernel: str, size: tuple[int, int]) -> None:
    picture = noise(23, 31, 3)
    whole = resize_planes(np.moveaxis(to_float(picture), 2, 0).astype(np.float64), size=size, kernel=kernel)
    view = Resized(picture, size, kernel)
    height, width = size
    for rows, columns in (((0, height), (0, width)), ((3, 9), (0, 7)), ((height - 5, height), (4, width))):
        part = view.window(slice(*rows), slice(*columns))
        assert part.dtype == np.float32
        assert largest_difference(part, whole[:, slice(*rows), slice(*columns)]) < 2e-6
    beyond = view.window(slice(height - 4, height + 3), slice(0, width))
    assert largest_difference(beyond[:, 4:], beyond[:, 2::-1]) < 1e-6  # reflected about the last row


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    tile=st.integers(12, 64),
)
@settings(max_examples=40, deadline=None)
def test_any_size_and_any_tile_give_the_network_s_luma(
    tripling: str, height: int, width: int, channels: int, tile: int
) -> None:
    picture = noise(height, width, channels, np.float32, seed=height + 50 * width)
    expected = answer(tripling, resize_planes(luma_of(picture), scale=3))
    assert largest_difference(luma_of(restore(tripling, picture, tile)), expected) < 1e-5


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_integers_are_rounded_once_at_the_end(tripling: str, kind: Any, channels: int) -> None:
    picture = noise(33, 20, channels, kind)
    result = restore(tripling, picture, 24)
    assert result.dtype == kind
    exact = restore(tripling, to_float(picture))
    assert largest_difference(to_float(result), np.clip(exact, 0, 1)) < 0.51 / np.iinfo(kind).max


def test_chroma_is_that_of_the_bicubic_and_luma_is_the_network_s(tripling: str) -> None:
    """Of a soft picture, which the clipping to [0, 1] leaves alone."""
    picture = (0.3 + 0.4 * noise(30, 41, 3, np.float32)).astype(np.float32)
    result = restore(tripling, picture, 40)
    planes = resize_planes(np.moveaxis(picture, 2, 0).astype(np.float64), scale=3)
    bicubic, found = rgb2ycbcr(np.moveaxis(planes, 0, 2)), rgb2ycbcr(result.astype(np.float64))
    assert largest_difference(found[..., 1:], bicubic[..., 1:]) < 1e-3  # on the scale of 16 to 240
    grey = restore(tripling, luma_of(picture)[..., np.newaxis].astype(np.float32))
    assert largest_difference(found[..., 0] / 255, grey[..., 0]) < 1e-5
    assert largest_difference(found[..., 0], bicubic[..., 0]) > 1  # the network did something


def test_a_network_that_changes_nothing_gives_the_bicubic_of_every_channel(unchanging: str) -> None:
    picture = noise(19, 26, 3, np.float32)
    expected = resize_planes(np.moveaxis(picture, 2, 0).astype(np.float64), scale=3)
    assert largest_difference(restore(unchanging, picture, 16), np.moveaxis(expected, 0, 2)) < 1e-5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (31, 18)])
def test_what_became_too_large_is_shrunk(shrinking: str, channels: int, size: tuple[int, int]) -> None:
    picture = noise(*size, channels, np.float32)
    larger = answer(shrinking, resize_planes(luma_of(picture), scale=2, kernel="opencv_cubic")).astype(np.float64)
    expected = resize_planes(larger, size=(3 * size[0], 3 * size[1]))
    for tile in (None, 16):
        assert largest_difference(luma_of(restore(shrinking, picture, tile)), expected) < 1e-5


def test_luma_as_it_is(tmp_path: Path) -> None:
    """A network for luma need not enlarge: chroma stays, sample by sample."""
    model = write(tmp_path / "m.onnx", color="luma")
    picture = (0.3 + 0.4 * noise(20, 30, 3, np.float32)).astype(np.float32)
    result = restore(model, picture, 16)
    assert largest_difference(luma_of(result), answer(model, luma_of(picture))) < 1e-5
    before, after = rgb2ycbcr(picture.astype(np.float64)), rgb2ycbcr(result.astype(np.float64))
    assert largest_difference(before[..., 1:], after[..., 1:]) < 1e-3


def test_pictures_of_all_kinds_at_once(tripling: str) -> None:
    restorer = OnnxRestorerFactory(tripling, tile=24).load()
    pictures = [noise(9, 14, 1), noise(30, 11, 3, np.uint16), noise(5, 5, 3, np.float32), noise(30, 11, 3)]
    together = restorer.restore(pictures, [{}] * len(pictures))
    for picture, each in zip(pictures, together, strict=True):
        assert np.array_equal(each.samples, restore(tripling, picture, 24))
        assert each.notes["tiles"] >= 1


def test_the_scale_is_that_of_everything_together(tripling: str, shrinking: str) -> None:
    for model, enlarge in ((tripling, X3), (shrinking, TWICE)):
        restorer = OnnxRestorerFactory(model).load()
        described = restorer.describe()
        assert restorer.scale == 3
        assert (described["scale"], described["color"], described["enlarge"]) == (3.0, "luma", enlarge)
        assert Enlargement.from_json(described["enlarge"]).to_json() == enlarge


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"scale": 2, "enlarge": X3},
            r"conservator\.scale 2, but enlarging by 3 and running it makes 3, and no kernel",
        ),
        ({"scale": 4, "enlarge": X3}, r"conservator\.scale 4, but enlarging by 3 and running it makes 3: "),
        ({"scale": 2}, r"conservator\.scale 2, but running it shows 1"),
        ({"color": "gray", "enlarge": X3}, "only luma is enlarged"),
        ({"color": "rgb"}, "color 'rgb' but takes 1 channels"),
        ({"enlarge": {"factor": 3}}, "expected an object with factor and kernel"),
        ({"enlarge": {**X3, "passes": 2}}, "expected an object with factor and kernel"),
        ({"enlarge": {**X3, "factor": 0}}, "factor is 0, expected a whole number of at least 1"),
        ({"enlarge": {**X3, "kernel": "bicubic"}}, "no kernel is called 'bicubic'"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(said: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = write(tmp_path / "m.onnx", **{"color": "luma", **said})
    with pytest.raises(ConfigurationError, match=message):
        OnnxRestorerFactory(model).load()


def test_a_non_finite_tile_still_fails_its_picture(tmp_path: Path) -> None:
    model = write(tmp_path / "m.onnx", strength=1e30, color="luma", scale=3, enlarge=X3)
    with pytest.raises(RecordError, match="NaN or infinity"):
        restore(model, noise(8, 8, 3))
