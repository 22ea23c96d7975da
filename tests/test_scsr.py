"""ScSR: its parts against the resampling and the sparse coder of the project, and dictionaries that are learned and not drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from export.card import read_card  # noqa: E402 - needs torch
from export.onnx_export import check_parity, to_onnx  # noqa: E402
from models.dictionaries import joint_dictionary, learn_dictionaries, least_squares, training_patches  # noqa: E402
from models.dictionary_recipe import (  # noqa: E402
    CodingSettings,
    DictionaryRecipe,
    is_dictionary_recipe,
    load_dictionary_recipe,
)
from models.networks import build_network  # noqa: E402
from models.networks.lista import fista  # noqa: E402
from models.networks.scn import gradient_filters  # noqa: E402
from models.networks.scsr import ScSR  # noqa: E402
from models.recipes.loader import load_recipe, shipped_recipes  # noqa: E402
from models.training import TrainingOptions  # noqa: E402
from models.training_data import TrainingPicture  # noqa: E402
from models.training_recipe import load_training_recipe  # noqa: E402
from pipelines.main import main  # noqa: E402
from transforms.errors import ConfigurationError  # noqa: E402
from transforms.onnx_restorer import OnnxRestorerFactory  # noqa: E402
from transforms.planes.resampling import resize_planes  # noqa: E402

torch.set_num_threads(1)

SMALL = {"atoms": 128, "steps": 8, "projections": 2}
RECIPE = """
kind: dictionaries
name: scsr-x2
purpose: super-resolution
network: {atoms: 128, steps: 8, projections: 2, weight: 0.1}
degradation: enlarged-x2
rounds: 4
seed: 1
"""


def brief(rounds: int = 5) -> DictionaryRecipe:
    return DictionaryRecipe("scsr-x2", "super-resolution", CodingSettings(**SMALL), "enlarged-x2", rounds)


def drawn(**settings: object) -> ScSR:
    torch.manual_seed(0)
    network = build_network("scsr", {**SMALL, **settings}).eval()
    assert isinstance(network, ScSR)
    torch.nn.init.normal_(network.high, std=0.05)
    return network


def test_shrinking_and_enlarging_is_matlabs_bicubic_twice():
    picture = np.random.default_rng(0).random((40, 56))
    expected = resize_planes(resize_planes(picture, scale=0.5), scale=2)
    found = drawn().shrunk_and_enlarged(torch.from_numpy(picture).float()[None, None])[0, 0].numpy()
    assert np.abs(found - expected)[8:-8, 8:-8].max() < 1e-6


def test_the_features_are_yangs_derivatives():
    """A ramp of slope 1 along a row has first derivative 2 there, and no other."""
    ramp = torch.arange(9.0).expand(9, 9)[None, None]
    features = torch.nn.functional.conv2d(ramp, gradient_filters()).reshape(25, 4)
    assert features.tolist() == [[2.0, 0.0, 0.0, 0.0]] * 25


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_codes_are_those_of_fista(steps):
    network = drawn(steps=steps).double()
    network.set_low(network.low.clone())  # its Lipschitz bound too in float64
    signals = torch.nn.functional.normalize(torch.randn(30, 100, dtype=torch.float64), dim=1)
    with torch.no_grad():
        found = network.codes(signals.T[None, :, :, None])[0, :, :, 0].T
    assert torch.allclose(found, fista(signals, network.low, network.weight, steps), atol=1e-9)


def test_without_detail_and_projection_the_picture_stays():
    network = drawn(projections=0)
    torch.nn.init.zeros_(network.high)
    picture = torch.rand(2, 1, 14, 20)
    with torch.no_grad():
        assert torch.equal(network(picture), picture)


def test_projections_bring_the_shrunk_result_back_to_the_small_picture():
    small = torch.from_numpy(np.random.default_rng(1).random((1, 1, 20, 24))).float()
    enlarged = torch.from_numpy(resize_planes(small.numpy(), scale=2))

    def error(projections: int) -> float:
        with torch.no_grad():
            restored = drawn(projections=projections)(enlarged)
        return float(np.square(resize_planes(restored.numpy(), scale=0.5) - small.numpy())[..., 4:-4, 4:-4].mean())

    assert error(8) < 0.5 * error(2) < 0.5 * error(0)


def test_a_result_sees_the_declared_field_and_no_more():
    network = drawn()
    picture = torch.rand(1, 1, 96, 96, requires_grad=True)
    network(picture)[0, 0, 48, 48].backward()
    assert picture.grad is not None
    seen = torch.nonzero(picture.grad[0, 0])
    assert (seen - 48).abs().max() <= network.receptive_field // 2


def test_onnx_computes_the_same():
    network = drawn()
    check_parity(to_onnx(network, 1), network, 1, [(1, 16, 18), (2, 34, 40)])


@pytest.mark.parametrize("wrong", [{"channels": 3}, {"atoms": 0}, {"steps": 0}, {"weight": 0.0}, {"projections": -1}])
def test_what_it_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="scsr"):
        build_network("scsr", wrong)


def test_least_squares_recovers_what_made_the_signals():
    codes, dictionary = torch.randn(500, 12).double(), torch.randn(7, 12).double()
    assert torch.allclose(least_squares(codes @ dictionary.T, codes), dictionary, atol=0.02)


def test_patches_carry_the_detail_of_their_own_place(photo):
    """Derivatives and lost detail of a picture that is bright in one corner are both large there only."""
    network = drawn()
    flat = np.full((96, 96, 3), 60, np.uint8)
    flat[20:40, 20:40] = photo[20:40, 200:220]
    directions, norms, details = training_patches(network, [TrainingPicture("a", flat)], brief())
    assert directions.shape[1] == 100
    assert torch.allclose(directions.norm(dim=1), torch.ones(len(directions)), atol=1e-4)
    assert norms.min() > 50
    assert 0 < len(details) < 40 * 40  # of 88 x 88 places


def test_learned_atoms_code_pictures_better_than_drawn_ones(photo):
    network = drawn()
    parts = [TrainingPicture(str(row), photo[row : row + 128, 100:400]) for row in (0, 128, 256)]
    directions, norms, details = training_patches(network, parts, brief())
    low, costs = joint_dictionary(directions, details / norms, 128, brief())
    assert costs[-1] < 0.95 * costs[0]
    assert torch.allclose(low.norm(dim=0), torch.ones(128), atol=1e-4)
    again, _ = joint_dictionary(directions, details / norms, 128, brief())
    assert torch.equal(low, again)


def photographs(photo, folder: Path) -> Path:
    folder.mkdir()
    for number, row in enumerate((0, 128, 384)):
        Image.fromarray(photo[row : row + 128]).save(folder / f"{number}.png")
    return folder


def test_a_learned_network_beats_enlargement_on_another_part_of_the_photograph(photo, tmp_path: Path):
    """Learned and exported by the commands of all other networks."""
    recipe, run, exported = tmp_path / "recipe.yaml", tmp_path / "run", tmp_path / "scsr.onnx"
    recipe.write_text(RECIPE)
    words = ["train", "--recipe", recipe, "--data", photographs(photo, tmp_path / "data"), "--threads", 1]
    assert main([str(word) for word in (*words, "--output", run)]) == 0
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    assert log[-1]["loss"] < log[0]["loss"]
    assert main(["export", "--checkpoint", str(run), "--output", str(exported)]) == 0
    card = read_card(str(exported))
    assert (card.color, card.scale, card.enlarge) == ("luma", 2, {"factor": 2, "kernel": "matlab_bicubic"})
    clean = photo[256:384, 100:356].mean(axis=2) / 255
    small = resize_planes(clean, scale=0.5)
    restored = OnnxRestorerFactory(str(exported)).load().restore([small[..., None].astype(np.float32)], [{}])[0]
    inside = np.s_[8:-8, 8:-8]
    enlarged, result = resize_planes(small, scale=2), restored.samples[..., 0]
    before, after = (np.square(each - clean)[inside].mean() for each in (enlarged, result))
    assert after < 10**-0.08 * before  # 0.8 dB


def test_what_the_learning_has_no_use_for_is_refused_at_once(tmp_path: Path, capsys):
    """It used to fail late, after the pictures had been read, as a training of some other network."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    words = ["train", "--recipe", str(tmp_path / "recipe.yaml"), "--data", "nowhere", "--output", str(tmp_path / "run")]
    others = (["--resume"], ["--validation", "v"], ["--initial_weights", "w"], ["--steps", "3"], ["--device", "cuda"])
    for other in others:
        assert main([*words, *other]) == 5
        assert f"a recipe of kind dictionaries takes no {other[0]}:" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_is_never_overwritten(tmp_path: Path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"precious")
    with pytest.raises(ConfigurationError, match="already holds a run"):
        learn_dictionaries(brief(), TrainingOptions(str(tmp_path), ("nowhere",)))


def test_fewer_patches_than_atoms_are_refused(photo, tmp_path: Path):
    few = replace(brief(), patches_per_picture=40)
    with pytest.raises(ConfigurationError, match="120 patches for 128 atoms; name more pictures"):
        learn_dictionaries(few, TrainingOptions(str(tmp_path / "run"), (str(photographs(photo, tmp_path / "data")),)))


def test_the_recipe_that_ships_is_of_its_own_kind():
    recipe = load_dictionary_recipe("train-scsr-x2")
    assert shipped_recipes("dictionaries") == ["train-scsr-x2"]
    assert is_dictionary_recipe("train-scsr-x2")
    assert not is_dictionary_recipe("train-vdsr")
    assert (
        DictionaryRecipe("n", "p", CodingSettings(), "enlarged-x2", 1).deciding()
        == replace(recipe, rounds=1, seed=0).deciding()
    )
    for load, message in ((load_training_recipe, "dictionaries"), (load_recipe, "a recipe for training")):
        with pytest.raises(ConfigurationError, match=message):
            load("train-scsr-x2")
    with pytest.raises(ConfigurationError, match="a recipe of kind training, where kind: dictionaries is expected"):
        load_dictionary_recipe("train-vdsr")


def test_mistakes_in_a_recipe_are_named(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("rounds: 4", "round: 4\nweight: 0").replace("atoms: 128", "atoms: 0"))
    with pytest.raises(ConfigurationError) as caught:
        load_dictionary_recipe(str(path))
    for mistake in ("network.atoms", "did you mean 'rounds'", "weight"):
        assert mistake in str(caught.value)
