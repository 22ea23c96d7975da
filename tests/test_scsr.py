"""ScSR: its parts against the resampling and the sparse coder of the project, and dictionaries that are learned and not drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from export.onnx_export import check_parity, to_onnx  # noqa: E402 - needs torch
from models.checkpoint import load_network  # noqa: E402
from models.dictionaries import joint_dictionary, learn, least_squares, training_patches  # noqa: E402
from models.networks import build_network  # noqa: E402
from models.networks.lista import fista  # noqa: E402
from models.networks.scsr import ScSR, gradient_filters  # noqa: E402
from models.training_data import TrainingPicture  # noqa: E402
from models.training_recipe import load_training_recipe  # noqa: E402
from transforms.errors import ConfigurationError  # noqa: E402
from transforms.planes.resampling import resize_planes  # noqa: E402

torch.set_num_threads(1)

SMALL = {"atoms": 128, "steps": 8, "projections": 2}
RECIPE = """
kind: training
name: scsr-x2
purpose: super-resolution
command: none
network: {name: scsr, channels: 1, settings: {atoms: 128, steps: 8, projections: 2, weight: 0.1}}
enlarge: {scales: [2], kernel: matlab_bicubic}
degradation: enlarged-x2
patch_size: 40
batch_size: 1
steps: 4
seed: 1
learning_rate: {peak: 0.001}
validation: {protocol: "psnr[y,border=2,u8]"}
"""


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
    directions, norms, details = training_patches(network, [TrainingPicture("a", flat)], "enlarged-x2", 0)
    assert directions.shape[1] == 100
    assert torch.allclose(directions.norm(dim=1), torch.ones(len(directions)), atol=1e-4)
    assert norms.min() > 50
    assert 0 < len(details) < 40 * 40  # of 88 x 88 places


def test_learned_atoms_code_pictures_better_than_drawn_ones(photo):
    network = drawn()
    parts = [TrainingPicture(str(row), photo[row : row + 128, 100:400]) for row in (0, 128, 256)]
    directions, norms, details = training_patches(network, parts, "enlarged-x2", 0)
    low, costs = joint_dictionary(directions, details / norms, 128, 5, 0)
    assert costs[-1] < 0.95 * costs[0]
    assert torch.allclose(low.norm(dim=0), torch.ones(128), atol=1e-4)
    again, _ = joint_dictionary(directions, details / norms, 128, 5, 0)
    assert torch.equal(low, again)


def test_a_learned_network_beats_enlargement_on_another_part_of_the_photograph(photo, tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "data").mkdir()
    for number, row in enumerate((0, 128, 384)):
        Image.fromarray(photo[row : row + 128]).save(tmp_path / "data" / f"{number}.png")
    recipe = load_training_recipe(str(tmp_path / "recipe.yaml"))
    folder = learn(recipe, [str(tmp_path / "data")], str(tmp_path / "run"))
    network = build_network(recipe.network.name, recipe.network.all_settings()).eval()
    load_network(folder, network)
    clean = photo[256:384, 100:356].mean(axis=2) / 255
    enlarged = resize_planes(resize_planes(clean, scale=0.5), scale=2)
    with torch.no_grad():
        restored = network(torch.from_numpy(enlarged).float()[None, None])[0, 0].numpy()
    inside = np.s_[8:-8, 8:-8]
    before, after = (np.square(each - clean)[inside].mean() for each in (enlarged, restored))
    assert after < 10**-0.08 * before  # 0.8 dB
