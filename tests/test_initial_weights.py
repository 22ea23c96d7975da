"""A network that begins with a shallower one's layers computes what that one computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from models.initial_weights import begin_with, digest_of, grow
from models.networks import build_network
from models.zoo import zoo_path
from transforms.errors import ConfigurationError


def patches(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(16, channels, 24, 24, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("model", "channels"), [("denoise5-gray-25", 1), ("denoise5-color-25", 3)])
@pytest.mark.parametrize("layers", [5, 7, 9])
def test_a_grown_network_computes_what_the_model_that_ships_computes(model: str, channels: int, layers: int) -> None:
    network = build_network("dncnn", {"channels": channels, "layers": layers})
    facts = begin_with(model, network, patches(channels))
    assert facts["identity_layers"] == layers - 5
    other = patches(channels, seed=1)
    (expected,) = onnxruntime.InferenceSession(zoo_path(model)).run(None, {"degraded": other.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(network.eval()(other).numpy(), expected, atol=1e-4)


def test_in_training_it_computes_the_same_on_the_patches_it_began_with() -> None:
    network, seen = build_network("dncnn", {"channels": 1, "layers": 7}), patches(1)
    begin_with("denoise5-gray-25", network, seen)
    with torch.inference_mode():
        in_use, in_training = network.eval()(seen), network.train()(seen)
    np.testing.assert_allclose(in_training.numpy(), in_use.numpy(), atol=1e-4)


def test_a_network_without_batch_norm_grows_too() -> None:
    shallow = build_network("vdsr", {"layers": 3, "features": 8})
    deep = build_network("vdsr", {"layers": 6, "features": 8})
    layers = [(each.weight.detach(), each.bias.detach()) for each in shallow.body if isinstance(each, torch.nn.Conv2d)]
    assert grow(deep, layers, patches(1)) == 3
    with torch.inference_mode():
        torch.testing.assert_close(deep(patches(1)), shallow(patches(1)))


def test_a_network_that_is_no_stack_takes_weights_by_name() -> None:
    network = build_network("odcnn", {"features": 8, "sides": [4, 4]})
    facts = begin_with("dcnn-disk7", network, patches(1))
    assert facts["digest"] == digest_of("dcnn-disk7")
    assert {name.split(".")[0] for name in facts["fresh"]} == {"reject", "correction", "mix", "gather"}
    picture = torch.rand(1, 1, 40, 50, generator=torch.Generator().manual_seed(1))
    (expected,) = onnxruntime.InferenceSession(zoo_path("dcnn-disk7")).run(None, {"degraded": picture.numpy()})
    with torch.inference_mode():
        restored = network.eval()(picture).numpy()
    np.testing.assert_allclose(restored[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4], atol=1e-4)


def test_the_digest_is_of_the_weights_and_not_of_the_card(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(zoo_path("denoise5-gray-25"))
    entry = next(each for each in model.metadata_props if each.key == "conservator.purpose")
    entry.value = '"another"'
    onnx.save(model, tmp_path / "copy.onnx")
    assert digest_of(str(tmp_path / "copy.onnx")) == digest_of("denoise5-gray-25") != digest_of("denoise5-color-25")


@pytest.mark.parametrize(
    ("source", "network", "settings", "message"),
    [
        ("denoise5-gray-25", "dncnn", {"layers": 4}, "5 layers can't begin a stack of 4"),
        (
            "denoise5-gray-25",
            "vdsr",
            {"features": 32},
            r"layer 1 has \(64, 1, 3, 3\) weights there, \(32, 1, 3, 3\) here",
        ),
        ("denoise5-color-25", "dae", {"layers": 7}, "batch norm without scale and offset"),
        ("denoise5-gray-25", "scn", {}, "no name in common"),
        ("missing.onnx", "dncnn", {}, "cannot read the weights of 'missing.onnx'"),
    ],
)
def test_layers_that_do_not_fit_are_refused(source: str, network: str, settings: dict[str, int], message: str) -> None:
    built = build_network(network, settings)
    with pytest.raises(ConfigurationError, match=message):
        begin_with(source, built, patches(3 if "color" in source else 1))
