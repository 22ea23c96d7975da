"""Export: what is written computes what PyTorch computes, or nothing is written."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from skimage.data import astronaut
from torch import nn

from export import onnx_export
from export.card import Measured, ModelCard, read_card
from export.onnx_export import check_parity, export, fold_batch_norm, to_onnx
from export.onnx_file import add_measured, graph_sha256
from export.quality import measure, measure_into_card
from export.working_memory import bytes_per_pixel
from models.checkpoint import load_network, load_progress, save_checkpoint
from models.networks import build_network
from models.recipes import load_recipe
from models.training import TrainingOptions, train
from models.training_data import TrainingPicture
from models.training_recipe import EnlargedLuma, LearningRate, NetworkChoice, TrainingRecipe, Validation
from pipelines.main import main
from transforms.errors import ConfigurationError
from transforms.onnx_restorer import OnnxRestorerFactory
from transforms.planes.resampling import resize_planes

RECIPE = TrainingRecipe(
    name="tiny",
    purpose="denoise",
    network=NetworkChoice("model3", 3, {"layers": 4}),
    degradation="cdncnn-25",
    steps=3,
    batch_size=2,
    patch_size=12,
    learning_rate=LearningRate(1e-2),
    validation=Validation("psnr[rgb,u8]", held_out=0),
    command="conservator train --recipe tiny",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps of a colour Model3, so that its batch norms are no identities."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "photos").mkdir()
    samples = np.random.Generator(np.random.Philox(key=1)).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(samples).save(folder / "photos" / "a.png")
    return train(RECIPE, TrainingOptions(str(folder / "run"), (str(folder / "photos"),), device="cpu", loaders=0))


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    return Path(export(str(checkpoint), str(checkpoint / "tiny.onnx")).path)


def trained(checkpoint: Path) -> nn.Module:
    network = build_network("model3", {"channels": 3, "layers": 4})
    load_network(checkpoint, network)
    return network.eval()


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 31, 7), (3, 3, 16, 50)])
def test_the_file_computes_what_the_network_computes(checkpoint: Path, exported: Path, shape: tuple[int, ...]) -> None:
    picture = np.random.Generator(np.random.Philox(key=2)).random(shape, dtype=np.float32)
    with torch.inference_mode():
        expected = trained(checkpoint)(torch.from_numpy(picture)).numpy()
    (restored,) = onnxruntime.InferenceSession(exported.read_bytes()).run(None, {"degraded": picture})
    assert np.abs(restored - expected).max() < 1e-4


def test_the_file_is_what_the_contract_says(exported: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} == {"Conv", "Relu", "Add"}
    assert model.opset_import[0].version >= 17
    assert all(tensor.data_type == onnx.TensorProto.FLOAT for tensor in model.graph.initializer)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    (degraded,), (restored,) = model.graph.input, model.graph.output
    for value in (degraded, restored):
        sides = value.type.tensor_type.shape.dim
        assert [bool(side.dim_param) for side in sides] == [True, False, True, True]
        assert sides[1].dim_value == 3


def test_nothing_of_the_machine_is_in_the_file(exported: Path) -> None:
    content = exported.read_bytes()
    for trace in (str(Path(__file__).parents[1]), str(exported.parent), ".py"):
        assert trace.encode() not in content


def test_exporting_again_gives_the_same_bytes(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    export(str(checkpoint), str(tmp_path / "again.onnx"))
    assert (tmp_path / "again.onnx").read_bytes() == exported.read_bytes()


def test_rounded_weights_are_nearly_the_same_and_compress_to_half(
    checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    rounded = export(str(checkpoint), str(tmp_path / "rounded.onnx"), weight_bits=11)
    assert rounded.card.card["weight_bits"] == 11
    before, after = (
        {each.name: numpy_helper.to_array(each) for each in onnx.load(file).graph.initializer}
        for file in (exported, rounded.path)
    )
    assert before.keys() == after.keys()
    for name, weights in before.items():
        np.testing.assert_allclose(after[name], weights, rtol=2.0**-11, atol=0)
        np.testing.assert_array_equal(after[name].view(np.uint32) & 0x1FFF, 0)  # 13 of float32's 23 stored bits
    kernels = [max((each.values()), key=np.size).tobytes() for each in (before, after)]
    assert len(zlib.compress(kernels[1])) < 0.65 * len(zlib.compress(kernels[0]))


def test_folding_keeps_the_function_and_the_original(checkpoint: Path) -> None:
    network = trained(checkpoint).double()
    picture = torch.rand(2, 3, 9, 14, dtype=torch.float64)
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    with torch.inference_mode():
        assert torch.allclose(folded(picture), network(picture), atol=1e-12)


def test_folding_by_hand() -> None:
    """One channel, one tap: y = gamma (w x + b - mean) / sqrt(variance + eps) + beta."""
    convolution, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)
    with torch.no_grad():
        convolution.weight.fill_(2)
        convolution.bias.fill_(5)  # type: ignore[union-attr]
        norm.weight.fill_(3)
        norm.bias.fill_(7)
        norm.running_mean.fill_(4)  # type: ignore[union-attr]
        norm.running_var.fill_(8)  # type: ignore[union-attr]
    folded = fold_batch_norm(nn.Sequential(convolution, norm))[0]
    assert folded.weight.item() == pytest.approx(2.0)  # 3 * 2 / sqrt(8 + 1)
    assert folded.bias.item() == pytest.approx(8.0)  # 3 (5 - 4) / 3 + 7


def test_a_batch_norm_that_cannot_be_folded_is_refused() -> None:
    leading = nn.Sequential(nn.BatchNorm2d(1), nn.ReLU(), nn.Conv2d(1, 1, 3, padding=1)).eval()
    with pytest.raises(ConfigurationError, match="can't be folded"):
        to_onnx(fold_batch_norm(leading), 1)


def test_a_model_that_differs_is_refused(exported: Path) -> None:
    other = build_network("model3", {"channels": 3, "layers": 4})
    nn.init.constant_(other.body[-1].bias, 0.1)
    with pytest.raises(ConfigurationError, match="ONNX and PyTorch differ by"):
        check_parity(onnx.load(exported), other.eval(), 3)


def test_a_model_with_nan_is_refused(exported: Path, checkpoint: Path) -> None:
    model = onnx.load(exported)
    broken = np.full(model.graph.initializer[-1].dims, np.nan, np.float32)
    model.graph.initializer[-1].CopyFrom(onnx.numpy_helper.from_array(broken, model.graph.initializer[-1].name))
    with pytest.raises(ConfigurationError, match="differ by nan"):
        check_parity(model, trained(checkpoint), 3)


def test_nothing_is_written_without_parity(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(ConfigurationError, match="nothing was written"):
        export(str(checkpoint), str(tmp_path / "tiny.onnx"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("opset", [17, 20])
def test_other_opsets(checkpoint: Path, tmp_path: Path, opset: int) -> None:
    export(str(checkpoint), str(tmp_path / "m.onnx"), opset=opset)
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == opset


def test_an_old_opset_and_a_missing_checkpoint_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least 17"):
        export(str(checkpoint), str(tmp_path / "m.onnx"), opset=16)
    with pytest.raises(ConfigurationError, match="cannot read the checkpoint"):
        export(str(tmp_path), str(tmp_path / "m.onnx"))


def test_the_card_tells_how_the_model_was_made(exported: Path) -> None:
    card = read_card(str(exported))
    assert (card.name, card.purpose, card.channels, card.color) == ("tiny", "denoise", 3, "rgb")
    assert (card.scale, card.size_multiple, card.receptive_field, card.value_range) == (1, 1, 9, (0.0, 1.0))
    assert card.card["parameters"] == 77_763
    assert card.card["training"]["data"] == ["photos"]
    assert card.card["training"]["steps"] == 3
    assert card.card["training"]["command"] == RECIPE.command
    assert card.card["training"]["recipe"]["degradation"] == "cdncnn-25"
    assert card.card["training"]["degradation_sha256"] == load_recipe("cdncnn-25").fingerprint()
    assert card.card["measured"] == []


def test_the_card_tells_what_a_pixel_takes(exported: Path) -> None:
    """Two maps of 64 features, before and after a convolution or its ReLU, and the input, which the residual needs in the end."""
    assert read_card(str(exported)).bytes_per_pixel == 4 * (2 * 64 + 3)
    model = onnx.load(exported)
    model.graph.output.append(
        onnx.ValueInfoProto(name=model.graph.node[0].output[0])
    )  # one more map that lives to the end
    assert bytes_per_pixel(model, 3) == 4 * (3 * 64 + 3)


def test_every_metadata_value_is_json(exported: Path) -> None:
    metadata = onnxruntime.InferenceSession(exported.read_bytes()).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["conservator.channels"]) == 3
    assert json.loads(metadata["conservator.color"]) == "rgb"
    assert json.loads(metadata["conservator.value_range"]) == [0.0, 1.0]
    assert all(name.startswith("conservator.") for name in metadata)


def test_a_measured_figure_changes_the_card_and_not_the_graph(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(exported.read_bytes())
    before = onnx.load(path)
    figure = Measured("BSD68", "psnr[gray,u8]", "dncnn-25", 28.4, 20.3, 68, {"DnCNN-17": 29.23})
    add_measured(str(path), [figure])
    add_measured(str(path), [replace(figure, recipe="gaussian-25", value=28.0)])
    card = add_measured(str(path), [replace(figure, value=28.5)])
    assert [(entry["recipe"], entry["value"]) for entry in card.card["measured"]] == [
        ("gaussian-25", 28.0),
        ("dncnn-25", 28.5),
    ]
    assert read_card(str(path)) == ModelCard.from_metadata(card.to_metadata())
    after = onnx.load(path)
    assert after.graph.SerializeToString(deterministic=True) == before.graph.SerializeToString(deterministic=True)
    assert graph_sha256(after) == graph_sha256(before) == card.card["graph_sha256"]


def test_the_graph_digest_sees_a_changed_weight(exported: Path) -> None:
    model = onnx.load(exported)
    digest = graph_sha256(model)
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    assert graph_sha256(model) != digest


def test_no_model_and_no_card_are_told_apart(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ConfigurationError, match="cannot read the model"):
        read_card(str(tmp_path / "text.onnx"))
    model = onnx.load(exported)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(ConfigurationError, match=r"the model has no card: its metadata lacks conservator.name"):
        read_card(str(tmp_path / "bare.onnx"))


def identity(path: Path) -> Path:
    """A model that restores nothing."""
    onnx.save(to_onnx(nn.Identity(), 1), path)
    return path


def test_measuring_a_model_that_restores_nothing_gives_the_figure_of_the_noise(tmp_path: Path) -> None:
    grey = [TrainingPicture("grey", np.full((200, 200, 1), 128, np.uint8))]
    value, degraded = measure(str(identity(tmp_path / "m.onnx")), grey, "dncnn-25", "psnr[gray,u8]")
    assert value == degraded
    assert value == pytest.approx(20 * np.log10(255 / 25), abs=0.1)  # mid grey: clipping at 5 sigma is no matter


def test_a_measurement_lands_in_the_card(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(exported.read_bytes())
    Image.fromarray(np.full((30, 30, 3), 128, np.uint8)).save(tmp_path / "a.png")
    measured = measure_into_card(str(path), [str(tmp_path / "a.png")], "one", "cdncnn-25", "psnr[rgb,u8]", {"X": 1.0})
    (entry,) = read_card(str(path)).card["measured"]
    assert entry["value"] == measured.value
    assert (entry["data_set"], entry["pictures"], entry["published"]) == ("one", 1, {"X": 1.0})


@pytest.fixture(scope="module")
def for_luma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps of SCN, which serves three scales by running once or twice."""
    folder = tmp_path_factory.mktemp("luma")
    (folder / "photos").mkdir()
    samples = np.random.Generator(np.random.Philox(key=1)).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(samples).save(folder / "photos" / "a.png")
    recipe = replace(
        RECIPE,
        name="scn",
        purpose="super-resolution",
        network=NetworkChoice("scn", 1),
        degradation="enlarged-opencv-x2",
        validation=Validation("psnr[y,u8]", held_out=0),
        enlarge=EnlargedLuma((1, 2, 3, 4), "opencv_cubic", 2, "matlab_bicubic"),
    )
    return train(recipe, TrainingOptions(str(folder / "run"), (str(folder / "photos"),), device="cpu", loaders=0))


@pytest.mark.parametrize(
    ("scale", "passes", "enlarge"),
    [
        (1, 1, None),
        (2, 1, {"factor": 2, "kernel": "opencv_cubic"}),
        (3, 2, {"factor": 2, "kernel": "opencv_cubic", "shrink": "matlab_bicubic"}),
        (4, 2, {"factor": 2, "kernel": "opencv_cubic"}),
    ],
)
def test_one_checkpoint_serves_several_scales(
    for_luma: Path, scale: int, passes: int, enlarge: dict[str, object] | None, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    exported = export(str(for_luma), str(path), name=f"scn-x{scale}", scale=scale)
    card = read_card(str(path))
    assert card == exported.card
    assert (card.name, card.color, card.scale, card.enlarge) == (f"scn-x{scale}", "luma", scale, enlarge)
    assert card.purpose == ("super-resolution" if scale == 1 else f"super-resolution x{scale}")
    restorer = OnnxRestorerFactory(str(path)).load()
    assert restorer.exact
    assert restorer.scale == scale
    picture = np.random.Generator(np.random.Philox(key=2)).random((9, 12, 1), dtype=np.float32)
    large = picture[..., 0] if enlarge is None else resize_planes(picture[..., 0], scale=2, kernel="opencv_cubic")
    network = build_network("scn", {})
    load_network(for_luma, network)
    with torch.inference_mode():
        made = network.eval()(torch.from_numpy(large)[None, None])
        if passes == 2:
            made = network(nn.functional.interpolate(made, scale_factor=2, mode="bicubic"))
    expected = resize_planes(made[0, 0].numpy(), size=(9 * scale, 12 * scale))
    (restored,) = restorer.restore([picture], [{}])
    assert np.abs(restored.samples[..., 0] - expected).max() < 1e-5


def another(run: Path, folder: Path, **changes: Any) -> Path:
    """A checkpoint of the same network with other weights, and perhaps another recipe."""
    progress, network = load_progress(run), build_network("scn", {})
    load_network(run, network)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(0.9)
    folder.mkdir()
    changed = replace(progress, recipe={**progress.recipe, **changes}, step=7)
    save_checkpoint(folder, network, torch.optim.SGD(network.parameters()), changed)
    return folder


def test_a_cascade_of_two_checkpoints_runs_the_second_after_the_first(for_luma: Path, tmp_path: Path) -> None:
    second, path = another(for_luma, tmp_path / "second"), tmp_path / "m.onnx"
    assert main(["export", "--checkpoint", f"{for_luma}, {second}", "--output", str(path), "--scale", "4"]) == 0
    picture = np.random.Generator(np.random.Philox(key=2)).random((9, 12, 1), dtype=np.float32)
    made = torch.from_numpy(resize_planes(picture[..., 0], scale=2, kernel="opencv_cubic"))[None, None]
    with torch.inference_mode():
        for number, folder in enumerate((for_luma, second)):
            network = build_network("scn", {}).eval()
            load_network(folder, network)
            larger = nn.functional.interpolate(made, scale_factor=2, mode="bicubic") if number else made
            made = network(larger)
    (restored,) = OnnxRestorerFactory(str(path)).load().restore([picture], [{}])
    assert np.abs(restored.samples[..., 0] - made[0, 0].numpy()).max() < 1e-5
    card = read_card(str(path)).card
    (later,) = card["later_stages"]
    assert (later["training"]["steps"], later["network"]) == (7, card["network"])
    assert card["training"]["steps"] == load_progress(for_luma).step


def test_checkpoints_that_make_no_cascade_are_refused(for_luma: Path, checkpoint: Path, tmp_path: Path) -> None:
    second, path = another(for_luma, tmp_path / "second"), str(tmp_path / "m.onnx")
    with pytest.raises(ConfigurationError, match="2 checkpoints, but this scale takes 1 network one after the other"):
        export(f"{for_luma},{second}", path, scale=2)
    with pytest.raises(ConfigurationError, match="3 checkpoints, but this scale takes 2 networks"):
        export(f"{for_luma},{second},{second}", path, scale=3)
    section = load_progress(for_luma).recipe["enlarge"]
    odd = another(for_luma, tmp_path / "odd", enlarge={**section, "kernel": "matlab_bicubic"})
    for other in (odd, checkpoint):
        with pytest.raises(ConfigurationError, match="the networks of a cascade enlarge alike"):
            export(f"{for_luma},{other}", path, scale=4)
    assert not Path(path).exists()


def test_a_scale_that_the_weights_are_not_for_is_refused(checkpoint: Path, for_luma: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="serve the scales 1, 2, 3, 4: name one"):
        export(str(for_luma), str(tmp_path / "m.onnx"))
    with pytest.raises(ConfigurationError, match="for the scales 1, 2, 3, 4, not 5"):
        export(str(for_luma), str(tmp_path / "m.onnx"), scale=5)
    with pytest.raises(ConfigurationError, match="has no section `enlarge`"):
        export(str(checkpoint), str(tmp_path / "m.onnx"), scale=2)
    assert list(tmp_path.iterdir()) == []


def test_enlarging_does_not_decide_the_weights() -> None:
    luma = EnlargedLuma((2,), "matlab_bicubic")
    assert replace(RECIPE, enlarge=luma).deciding() == RECIPE.deciding()


def test_measuring_a_network_for_luma_is_the_papers_test(tmp_path: Path) -> None:
    """A network that changes nothing has the bicubic's figure, by the whole way of `restore`."""
    model = to_onnx(nn.Identity(), 1)
    said = {"color": "luma", "scale": 3, "enlarge": {"factor": 3, "kernel": "matlab_bicubic"}}
    onnx.helper.set_model_props(model, {f"conservator.{name}": json.dumps(value) for name, value in said.items()})
    onnx.save(model, tmp_path / "m.onnx")
    picture = TrainingPicture("astronaut", astronaut()[100:200, 150:251])
    value, degraded = measure(str(tmp_path / "m.onnx"), [picture], "shrunk-x3", "psnr[y,border=3,u8]")
    assert value == pytest.approx(degraded, abs=1e-3)
    assert 20 < value < 40
