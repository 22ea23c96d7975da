"""The text network in the one training loop: blurred pages in, sharper pages out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export.onnx_export import check_parity, to_onnx
from models.degradation.chains import replay
from models.networks import build_network
from models.networks.text_deblur import R18, R28, VARIANTS
from models.pages import PageStyle, write_pages
from models.recipes import Drawn, load_recipe
from models.training import TrainingOptions, train
from models.training_data import load_pictures, split_held_out
from models.training_log import read_log
from models.training_recipe import LearningRate, NetworkChoice, Validation, load_training_recipe
from models.validation import mean_quality, validation_pairs
from transforms.errors import ConfigurationError

BLUR = """{kind: degradation, description: one blur, source: none, channels: rgb,
  degradation: {sequence: [{gaussian_blur: {sigma: 1.6}}, round_to_8bit]}}"""


def block_network(variant: str, channels: int = 3, *, trained: bool = False) -> torch.nn.Module:
    """`trained`: what R28 adds begins as zero, which would hide its coarse layers."""
    network = build_network("text_deblur", {"channels": channels, "variant": variant})
    if trained and variant == R28:
        torch.nn.init.normal_(network.coarse.up.weight, std=0.05, generator=torch.Generator().manual_seed(4))
    return network


blocks = pytest.mark.parametrize("variant", [R18, R28])


@pytest.mark.parametrize("variant", [*VARIANTS, R18, R28])
def test_what_is_left_while_training_is_the_inside_of_what_is_made_in_use(variant: str) -> None:
    network = build_network("text_deblur", {"channels": 1, "variant": variant})
    border, picture = network.training_border, torch.rand(1, 1, 60, 62, generator=torch.Generator().manual_seed(2))
    inside = network.train()(picture)
    assert inside.shape[2:] == (60 - 2 * border, 62 - 2 * border)
    with torch.no_grad():
        whole = network.eval()(picture)
    assert whole.shape == picture.shape
    assert torch.allclose(whole[..., border : 60 - border, border : 62 - border], inside, atol=1e-5)


def test_the_network_of_blocks_has_the_size_of_its_table() -> None:
    sides_and_widths = [(5, 48, 128), *[(3, 128, 128)] * 16, (3, 128, 48)]
    expected = sum(side * side * inputs * outputs + outputs for side, inputs, outputs in sides_and_widths)
    assert _size(block_network(R18)) == expected == 2_570_416
    assert block_network(R18).receptive_field == 156
    coarse = [(2, 128, 192), *[(3, 192, 192)] * 8, (2, 192, 128)]
    expected += sum(side * side * inputs * outputs + outputs for side, inputs, outputs in coarse)
    assert _size(block_network(R28)) == expected == 5_423_088
    assert block_network(R28).receptive_field == 288


def _size(network: torch.nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


def test_the_weights_of_r18_compute_the_same_in_r28() -> None:
    small, large = block_network(R18).eval(), block_network(R28).eval()
    taken = large.load_state_dict(small.state_dict(), strict=False)
    assert not taken.unexpected_keys
    assert all(name.startswith("coarse.") for name in taken.missing_keys)
    page = torch.rand(1, 3, 48, 56, generator=torch.Generator().manual_seed(3))  # whole blocks of both
    with torch.no_grad():
        assert torch.equal(small(page), large(page))


@blocks
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (13, 8), (64, 97)])
def test_the_network_of_blocks_takes_any_size(size: tuple[int, int], variant: str) -> None:
    picture = torch.rand(2, 3, *size)
    with torch.no_grad():
        assert block_network(variant).eval()(picture).shape == picture.shape


@blocks
def test_the_network_of_blocks_is_the_same_in_onnx(variant: str) -> None:
    network = block_network(variant, trained=True).eval()
    assert check_parity(to_onnx(network, 3), network, 3) < 1e-5


@blocks
def test_white_paper_stays_white_before_any_training(variant: str) -> None:
    """The input is what the network begins with: far less than a grey level of noise is added to it."""
    page = torch.ones(1, 3, 64, 64)
    assert (block_network(variant).eval()(page) - page).abs().max() < 0.1


def test_pages_teach_it_to_sharpen(tmp_path: Path) -> None:
    """One kind of blur, a few small pages: what it learns in seconds is better than leaving the pages blurred."""
    style = PageStyle(("dejavu-serif",), ("paragraph",), rotation_deg=0, tilt_deg=0)
    write_pages(str(tmp_path / "pages.tar"), style, 1, 6)
    recipe = replace(
        load_training_recipe("train-text-deblur"), degradation=BLUR, steps=60, batch_size=4, patch_size=80, precision="float32",
        learning_rate=LearningRate(2e-3, warmup_steps=10), validation=Validation("psnr[rgb,border=20,u8]", every=60, held_out=0.4),
    )  # fmt: skip
    data = (str(tmp_path / "pages.tar"),)
    options = TrainingOptions(str(tmp_path / "run"), data, device="cpu", loaders=0, threads=1)
    train(recipe, options)
    _, judged = split_held_out(load_pictures(data, 3), 0.4)
    pairs = validation_pairs(judged, load_recipe(BLUR), recipe.seed)
    blurred_db = mean_quality(_Identity(), pairs, recipe.validation.protocol, torch.device("cpu"))
    (restored_db,) = (
        line[recipe.validation.protocol] for line in read_log(tmp_path / "run") if recipe.validation.protocol in line
    )
    assert restored_db > blurred_db + 1


def test_a_patch_without_an_inside_is_refused(tmp_path: Path) -> None:
    style = PageStyle(("dejavu-serif",), ("paragraph",))
    write_pages(str(tmp_path / "pages.tar"), style, 1, 2)
    network = NetworkChoice("text_deblur", 3, {"variant": "L15"})
    recipe = replace(load_training_recipe("train-text-deblur"), network=network, patch_size=50, steps=1)
    options = TrainingOptions(str(tmp_path / "run"), (str(tmp_path / "pages.tar"),), device="cpu", loaders=0, threads=1)
    with pytest.raises(ConfigurationError, match="patch_size must be more than 50"):
        train(recipe, options)


class _Identity(torch.nn.Module):
    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return picture


def test_the_test_recipe_is_the_training_recipe_with_one_level_of_noise() -> None:
    page = np.full((400, 400, 3), 255, np.uint8)
    page[::7, ::3] = 0
    radii, sizes = [], []
    recipe = load_recipe("text-deblur-test")
    for patch in range(60):
        drawn = recipe.draw(page, key="a", patch=patch, seed=1)
        assert isinstance(drawn, Drawn)
        defocus, walk = _steps(drawn.parameters["degradation"])
        radii.append(defocus)
        sizes.append(walk)
    assert 0 <= min(radii) < 0.5 < 3.5 < max(radii) <= 4
    assert min(sizes) >= 5
    assert max(sizes) <= 21
    flat = np.full((3, 120, 120), 0.5, np.float32)
    noisy = np.asarray(replay(flat, drawn.parameters["degradation"]))
    assert (noisy - flat).std() * 255 == pytest.approx(3, rel=0.02)


def _steps(degradation: object) -> tuple[float, float]:
    """Radius and size of the two blurs, wherever they stand in the drawn parameters."""
    found: dict[str, float] = {}

    def walk(node: object) -> None:
        if isinstance(node, dict):
            for name in ("radius_px", "size"):
                if isinstance(node.get(name), int | float):
                    found[name] = float(node[name])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(degradation)
    return found["radius_px"], found["size"]
