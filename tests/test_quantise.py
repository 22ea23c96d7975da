"""The int8 twin: each rewriting keeps the function, the integers are those of onnxruntime, and the gate refuses what loses."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from PIL import Image

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 - needs torch

from export.card import ModelCard, read_card  # noqa: E402
from export.onnx_export import to_onnx  # noqa: E402
from export.onnx_file import set_card  # noqa: E402
from export.quantise import equalise, pad_integers, split_narrow_outputs, to_int8  # noqa: E402
from export.twins import Gate, make_twin  # noqa: E402
from models.networks import build_network  # noqa: E402
from models.zoo import zoo_path  # noqa: E402
from pipelines.main import main  # noqa: E402
from transforms.errors import ConfigurationError  # noqa: E402
from transforms.onnx_network import OnnxNetwork  # noqa: E402
from transforms.onnx_session import SessionSettings, read_model  # noqa: E402

ZOO = "denoise5-gray-25"


def run(model: onnx.ModelProto, picture: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: picture})[0]


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


@pytest.fixture(scope="module")
def gray(photo) -> np.ndarray:
    """1 x 1 x 160 x 192 of a photograph with noise, in [0, 1]."""
    clean = photo[60:220, 150:342].mean(axis=2) / 255
    noise = np.random.default_rng(0).standard_normal(clean.shape) * 25 / 255
    return (clean + noise).astype(np.float32)[None, None]


def uneven(network: nn.Module) -> nn.Module:
    """Channels of very different strength, which is what equalising is for."""
    generator = torch.Generator().manual_seed(3)
    for convolution in [module for module in network.modules() if isinstance(module, nn.Conv2d)][:-1]:
        strengths = 10 ** (2 * torch.rand(len(convolution.weight), generator=generator) - 2)
        with torch.no_grad():
            convolution.weight.mul_(strengths[:, None, None, None])
    return network.eval()


@pytest.fixture(scope="module", params=["srcnn", "vdsr"])
def network(request) -> onnx.ModelProto:
    torch.manual_seed(1)
    settings = {"srcnn": {"filters": [5, 3, 5]}, "vdsr": {"layers": 5, "features": 32}}[request.param]
    return to_onnx(uneven(build_network(request.param, settings)), 1)


@pytest.mark.parametrize("rewrite", [lambda m, g: equalise(m, [g]), lambda m, g: split_narrow_outputs(m)])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 17, 30)])
def test_rewritings_of_the_float_network_keep_the_function(network, gray, rewrite, shape):
    rewritten = copied(network)
    rewrite(rewritten, gray)
    onnx.checker.check_model(rewritten, full_check=True)
    assert rewritten.graph.SerializeToString() != network.graph.SerializeToString()
    picture = np.random.default_rng(2).random(shape, np.float32)
    expected = run(network, picture)
    assert np.abs(run(rewritten, picture) - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_equalised_channels_have_closer_ranges(network, gray):
    def spread(model: onnx.ModelProto) -> float:
        watched = copied(model)
        name = next(node.output[0] for node in model.graph.node if node.op_type == "Relu")
        watched.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
        greatest = session.run([name], {"degraded": gray})[0].max(axis=(0, 2, 3))
        alive = greatest[greatest > 0]
        return float(alive.max() / alive.min())

    equal = copied(network)
    equalise(equal, [gray])
    assert spread(equal) < 0.2 * spread(network)


def test_splitting_by_hand() -> None:
    """One input, one 1 x 3 filter (1, 10, 100): y = x(j - 1) + 10 x(j) + 100 x(j + 1) + 0.5."""
    convolution = nn.Conv2d(1, 1, (1, 3), padding=(0, 1))
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([1.0, 10, 100]).reshape(1, 1, 1, 3))
        convolution.bias.fill_(0.5)  # type: ignore[union-attr]
    model = to_onnx(convolution, 1)
    split_narrow_outputs(model)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Slice", "Slice", "Slice", "Sum"]
    picture = np.array([1, 2, 3], np.float32).reshape(1, 1, 1, 3)
    assert run(model, picture).ravel().tolist() == [210.5, 321.5, 32.5]


def test_a_symmetric_padding_moves_into_the_integers_and_changes_nothing() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Pad", ["x", "pads"], ["padded"], mode="edge"),
            helper.make_node("QuantizeLinear", ["padded", "scale", "zero"], ["bytes"]),
            helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["y"]),
        ],
        "padding",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 1, "a", "b"])],
        [
            numpy_helper.from_array(np.array([0, 0, 1, 2, 0, 0, 1, 2], np.int64), "pads"),
            numpy_helper.from_array(np.float32(0.01), "scale"),
            numpy_helper.from_array(np.uint8(7), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    moved = copied(model)
    pad_integers(moved)
    onnx.checker.check_model(moved, full_check=True)
    assert [node.op_type for node in moved.graph.node] == ["QuantizeLinear", "Pad", "DequantizeLinear"]
    picture = np.random.default_rng(0).random((1, 1, 5, 6), np.float32)
    assert np.array_equal(run(moved, picture), run(model, picture))


def test_wide_convolutions_are_integers_and_narrow_ones_are_not(network, gray):
    twin, kept = to_int8(network, [gray])
    made = {node.output[0]: node.op_type for node in twin.graph.node}
    convolutions = [node for node in twin.graph.node if node.op_type == "Conv"]
    integer = [node for node in convolutions if made.get(node.input[1]) == "DequantizeLinear"]
    assert len(kept) == 2
    assert sorted(node.name for node in convolutions if node not in integer) == sorted(kept)
    weights = {each.name: numpy_helper.to_array(each) for each in twin.graph.initializer}
    for node in integer:
        (source,) = [each for each in twin.graph.node if each.output[0] == node.input[1]]
        assert weights[source.input[0]].dtype == np.int8
        assert weights[source.input[1]].shape == (len(weights[source.input[0]]),)  # a scale for each output channel


def test_the_twin_restores_the_same_to_a_part_of_a_grey_level(gray):
    """An 8-bit rounding of each layer leaves 30 dB more than the noise that the network removes."""
    model = onnx.load(zoo_path(ZOO))
    twin, _ = to_int8(model, [gray])
    removed = np.square(gray - run(model, gray)).mean()
    assert 0 < np.square(run(twin, gray) - run(model, gray)).mean() < removed / 300


def test_the_same_pictures_give_the_same_bytes(network, gray):
    assert to_int8(network, [gray])[0].SerializeToString() == to_int8(network, [gray])[0].SerializeToString()


def test_no_wide_convolution_and_no_pictures_are_refused(network, gray):
    narrow = to_onnx(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)), 1)
    with pytest.raises(ConfigurationError, match="no convolution with 16 or more"):
        to_int8(narrow, [gray])
    with pytest.raises(ConfigurationError, match="no pictures to calibrate on"):
        to_int8(network, [])


@pytest.fixture(scope="module")
def pictures(photo, tmp_path_factory) -> tuple[str, str]:
    """Two folders of grey photographs: to calibrate and to validate on."""
    folder = tmp_path_factory.mktemp("pictures")
    gray = Image.fromarray(photo).convert("L")
    for name, box in (("calibration", (0, 0, 200, 180)), ("validation", (200, 60, 400, 260))):
        (folder / name).mkdir()
        gray.crop(box).save(folder / name / f"{name}.png")
    return str(folder / "calibration"), str(folder / "validation")


def export(pictures: tuple[str, str], output: Path, *more: str) -> int:
    return main([
        "export", "--checkpoint", str(zoo_path(ZOO)), "--output", str(output), "--quantize", "int8",
        "--calibration", pictures[0], "--validation", pictures[1], *more,
    ])  # fmt: skip


@pytest.fixture(scope="module")
def twin(pictures, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("twin") / "twin.onnx"
    assert export(pictures, path) == 0
    return path


def test_the_card_tells_what_was_done(twin, pictures):
    card = read_card(str(twin))
    facts = card.card["quantisation"]
    assert card.name == f"{ZOO}-int8"
    assert card.receptive_field == read_card(str(zoo_path(ZOO))).receptive_field
    assert facts["source_sha256"] == read_model(str(zoo_path(ZOO))).sha256
    assert facts["calibration"]["data"] == ["calibration"]
    assert facts["calibration"]["pictures"] == 1
    assert facts["gate"]["data"] == ["validation"]
    assert facts["gate"]["float32"] - facts["gate"]["int8"] <= 0.1
    assert card.card["measured"] == []
    assert json.dumps(pictures[0]) not in json.dumps(card.card)  # names, not paths: the card travels


def with_a_loud_channel(folder: Path) -> Path:
    """The same function, but one channel a million times stronger than its neighbours: 255 levels can't hold both."""
    model = onnx.load(zoo_path(ZOO))
    weights = {each.name: each for each in model.graph.initializer}
    second, third = [node for node in model.graph.node if node.op_type == "Conv"][1:3]
    for name, index, factor in [
        (second.input[1], 0, 1e6),
        (second.input[2], 0, 1e6),
        (third.input[1], np.s_[:, 0], 1e-6),
    ]:
        values = numpy_helper.to_array(weights[name]).copy()
        values[index] *= factor
        weights[name].CopyFrom(numpy_helper.from_array(values, name))
    path = folder / "loud.onnx"
    onnx.save(model, path)
    return path


def test_a_network_that_loses_too_much_is_refused_and_not_written(pictures, tmp_path, capsys):
    loud, output = with_a_loud_channel(tmp_path), tmp_path / "twin.onnx"
    assert export(pictures, output, "--checkpoint", str(loud)) == 6
    assert "nothing was written" in capsys.readouterr().err
    assert not output.exists()
    assert export(pictures, output, "--checkpoint", str(loud), "--quality_loss", "20") == 0
    gate = read_card(str(output)).card["quantisation"]["gate"]
    assert gate["float32"] - gate["int8"] > 0.1


@pytest.mark.parametrize("flag", [("--name", "mine"), ("--scale", "2"), ("--weight_bits", "11")])
def test_flags_of_checkpoints_are_refused_for_what_is_exported_already(flag, pictures, tmp_path, capsys):
    assert export(pictures, tmp_path / "twin.onnx", *flag) == 5
    assert f"for which {flag[0]} says nothing" in capsys.readouterr().err


def test_what_is_missing_is_named(pictures, twin, tmp_path, capsys):
    arguments = ["export", "--checkpoint", str(zoo_path(ZOO)), "--output", str(tmp_path / "m.onnx")]
    assert main([*arguments, "--quantize", "int8", "--calibration", pictures[0]]) == 5
    assert "--validation" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match="quantised already"):
        make_twin(str(twin), str(tmp_path / "m.onnx"), "int8", Gate([pictures[1]], [pictures[0]]))
    bare = onnx.load(zoo_path(ZOO))
    card = ModelCard.from_metadata({entry.key: entry.value for entry in bare.metadata_props})
    set_card(bare, ModelCard(**{**vars(card), "card": {}}))
    onnx.save(bare, tmp_path / "bare.onnx")
    with pytest.raises(ConfigurationError, match="names no degradation"):
        make_twin(str(tmp_path / "bare.onnx"), str(tmp_path / "m.onnx"), "int8", Gate([pictures[1]], [pictures[0]]))


def test_the_restorer_tiles_the_twin_exactly(twin):
    network = OnnxNetwork(read_model(str(twin)), SessionSettings())
    assert (network.field.halo, network.field.period, network.field.obstacle) == (5, 1, None)
    picture = np.random.default_rng(4).random((1, 1, 90, 70), np.float32)
    whole = network.run(picture)
    upper, lower = network.run(picture[:, :, : 40 + 5]), network.run(picture[:, :, 40 - 5 :])
    assert np.array_equal(np.concatenate([upper[:, :, :40], lower[:, :, 5:]], axis=2), whole)


def test_the_graph_has_no_more_nodes_than_it_needs(twin):
    counts = Counter(node.op_type for node in onnx.load(twin).graph.node)
    assert counts["Conv"] == 5
    assert counts["Relu"] == 1  # after the float convolution; the zero point does the others' work
