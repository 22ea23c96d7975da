"""The float16 twin: what is half and what is not, what it loses, and the float32 that a tile falls back to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

from export.card import read_card
from export.half_precision import to_float16
from export.twins import Gate, make_twin
from models.zoo import zoo_path
from pipelines.main import main
from transforms.errors import ConfigurationError
from transforms.onnx_network import OnnxNetwork
from transforms.onnx_session import PROVIDER_NAMES, SessionSettings, read_model

ZOO = "denoise5-gray-25"


@pytest.fixture(scope="module")
def pictures(photo, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(photo[60:260, 200:400]).convert("L").save(folder / "one.png")
    return str(folder)


@pytest.fixture(scope="module")
def twin(pictures, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("half") / "twin.onnx"
    make_twin(str(zoo_path(ZOO)), str(path), "float16", Gate([pictures]))
    return path


def test_weights_are_half_and_the_picture_is_not(twin):
    model = onnx.load(twin)
    kinds = {each.data_type for each in model.graph.initializer if len(each.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert twin.stat().st_size < 0.6 * zoo_path(ZOO).stat().st_size
    session = onnxruntime.InferenceSession(twin)
    assert {each.type for each in (*session.get_inputs(), *session.get_outputs())} == {"tensor(float)"}
    skip = next(node for node in model.graph.node if "degraded" in node.input and node.op_type != "Cast")
    assert skip.op_type in ("Add", "Sub")  # of the float32 picture itself, not of a half copy of it


def test_the_card_tells_what_was_done_and_that_next_to_nothing_was_lost(twin):
    card = read_card(str(twin))
    facts = card.card["quantisation"]
    assert (card.name, facts["arithmetic"]) == (f"{ZOO}-fp16", "float16")
    assert len(facts["float32_nodes"]) == 1
    assert "calibration" not in facts
    assert abs(facts["gate"]["float32"] - facts["gate"]["float16"]) < 0.01


def test_it_restores_as_the_float32_network_does(twin):
    picture = np.random.default_rng(1).random((1, 1, 50, 60), np.float32)
    (half,), (full,) = (
        onnxruntime.InferenceSession(path).run(None, {"degraded": picture}) for path in (twin, zoo_path(ZOO))
    )
    assert 0 < np.abs(half - full).max() < 1 / 255


def test_the_restorer_has_float32_to_fall_back_to(twin, monkeypatch):
    network = OnnxNetwork(read_model(str(twin)), SessionSettings())
    picture = np.random.default_rng(1).random((1, 1, 50, 60), np.float32)
    assert network.run_in_float32(picture) is None  # a CPU has computed in float32 already
    monkeypatch.setattr(network._session, "provider", PROVIDER_NAMES["cuda"])
    again = network.run_in_float32(picture)
    assert again is not None
    np.testing.assert_array_equal(again, network.run(picture))


def test_weights_that_overflow_are_refused():
    model = onnx.load(zoo_path(ZOO))
    weight = next(each for each in model.graph.initializer if len(each.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e7), weight.name))
    with pytest.raises(ConfigurationError, match="float16 can't hold"):
        to_float16(model)


def test_the_command_takes_no_calibration(pictures, tmp_path, capsys):
    words = ["export", "--checkpoint", str(zoo_path(ZOO)), "--quantize", "float16", "--validation", pictures]
    words += ["--output", str(tmp_path / "m.onnx")]
    assert main([*words, "--calibration", pictures]) == 5
    assert "leave --calibration out" in capsys.readouterr().err
    assert main(words) == 0
    assert "dB in float16" in capsys.readouterr().out
