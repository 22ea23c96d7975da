"""Networks: sizes as published, and what each of them computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.networks import NETWORKS, build_network
from models.networks.cascade import Cascade, Enlarge
from transforms.errors import ConfigurationError

EVERY = [
    ("model1", {"channels": 3}),
    ("model2", {"channels": 1}),
    ("model3", {"channels": 3}),
    ("model3", {"channels": 1, "layers": 4}),
    ("dncnn", {"channels": 1, "layers": 17}),
    ("dae", {"channels": 3, "layers": 20}),
    ("srcnn", {"channels": 1, "filters": (9, 1, 5)}),
    ("vdsr", {"channels": 1}),
    ("scn", {"channels": 1}),
    ("text_deblur", {"channels": 1, "variant": "L10-S"}),
    ("text_deblur", {"channels": 1, "variant": "R18"}),
    ("text_deblur", {"channels": 1, "variant": "R28"}),
    ("dcnn", {"channels": 1, "taps": 9, "maps": 4}),
    ("odcnn", {"channels": 1, "taps": 9, "maps": 4, "features": 8, "sides": (4, 2)}),
]
CLASSIFIERS = {"motion_patches", "motion_spectrum"}  # they make no pictures; see test_motion_patches
SMALLEST = {"scn": 7}  # it reflects six pixels at the border


def parameters(name: str, **settings: int) -> int:
    return sum(each.numel() for each in build_network(name, settings).parameters() if each.requires_grad)


@pytest.mark.parametrize(
    ("name", "settings", "published"),
    [
        ("model1", {"channels": 3}, 114_307),
        ("model2", {"channels": 3}, 114_307),
        ("model3", {"channels": 3}, 114_819),
        ("model3", {"channels": 3, "layers": 4}, 77_763),
        # DnCNN by hand: first and last convolution with bias, 15 or 18 without, with gamma and beta of 64 channels each.
        ("dncnn", {"channels": 1, "layers": 17}, (9 * 64 + 64) + 15 * (9 * 64 * 64 + 128) + (9 * 64 + 1)),
        ("dncnn", {"channels": 3, "layers": 20}, (27 * 64 + 64) + 18 * (9 * 64 * 64 + 128) + (27 * 64 + 3)),
    ],
)
def test_parameter_counts(name: str, settings: dict[str, int], published: int) -> None:
    assert parameters(name, **settings) == published


@pytest.mark.parametrize(
    ("name", "settings", "weights", "field"),
    [
        ("srcnn", {"filters": (9, 1, 5)}, 8_032, 13),
        ("srcnn", {"filters": (9, 3, 5)}, 24_416, 15),
        ("srcnn", {"filters": (9, 5, 5)}, 57_184, 17),
        ("vdsr", {}, 664_704, 41),
        ("dncnn", {"layers": 17}, 576 + 15 * 36_864 + 576, 35),
        ("text_deblur", {"variant": "L15"}, 2_253_376, 51),  # the paper: 2.3 million
    ],
)
def test_weights_without_biases_and_receptive_fields_as_published(name, settings, weights, field) -> None:
    network = build_network(name, settings)
    assert sum(each.numel() for each in network.parameters() if each.dim() == 4) == weights
    assert network.receptive_field == field


def test_the_text_network_makes_150_pixels_of_200_while_it_learns() -> None:
    network = build_network("text_deblur", {"channels": 3}).train()
    assert network(torch.rand(1, 3, 200, 200)).shape == (1, 3, 150, 150)
    picture = torch.rand(1, 3, 80, 80)
    valid = network(picture)
    assert torch.allclose(network.eval()(picture)[..., 25:-25, 25:-25], valid, atol=1e-5)


def test_every_name_in_the_table_is_tested() -> None:
    elsewhere = CLASSIFIERS | {"scsr"}  # its field shows on textured pictures only; see test_scsr
    assert {name for name, _ in EVERY} | elsewhere == set(NETWORKS)


@pytest.mark.parametrize(("name", "settings"), EVERY)
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (20, 9)])
def test_any_size_goes_in_and_comes_out(name: str, settings: dict[str, int], size: tuple[int, int]) -> None:
    network = build_network(name, settings).eval()
    picture = torch.rand(2, settings["channels"], *(max(side, SMALLEST.get(name, 1)) for side in size))
    assert network(picture).shape == picture.shape


@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_the_receptive_field_is_exactly_the_one_declared(name: str, settings: dict[str, int]) -> None:
    network = build_network(name, settings).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.uniform_(module.weight, 0.01, 0.1)  # positive: no ReLU is dead and nothing cancels out
    size = 2 * network.receptive_field + 1
    picture = torch.ones(1, settings["channels"], size, size, dtype=torch.float64, requires_grad=True)
    network.double()(picture)[0, 0, size // 2, size // 2].backward()
    assert picture.grad is not None
    reached = picture.grad[0, 0].abs().sum(0).nonzero()
    assert int(reached.max() - reached.min()) + 1 == network.receptive_field


@pytest.mark.parametrize(
    ("name", "skips"),
    [("model1", False), ("model2", True), ("model3", True), ("dncnn", True), ("dae", True), ("vdsr", True)],
)
def test_a_silent_last_layer_leaves_the_input_where_there_is_a_skip(name: str, skips: bool) -> None:
    network = build_network(name, {"channels": 1})
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    nn.init.zeros_(last.weight)
    picture = torch.rand(1, 1, 8, 8)
    assert torch.equal(network(picture), picture if skips else torch.zeros_like(picture))


def test_dncnn_subtracts_what_its_layers_predict() -> None:
    network = build_network("dncnn", {"channels": 1, "layers": 3}).eval()
    picture = torch.rand(1, 1, 8, 8)
    assert torch.allclose(network(picture), picture - network.body(picture))


def test_model3_normalises_before_each_relu() -> None:
    kinds = [type(module).__name__ for module in build_network("model3", {}).body]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 4 + ["Conv2d"]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("modle3", {}, "did you mean 'model3'"),
        ("model3", {"layer": 4}, "did you mean 'layers'"),
        ("model1", {"layers": 4}, "no setting 'layers'"),
        ("model3", {"layers": 6}, "4 or 5 layers, not 6"),
        ("model2", {"channels": 2}, "channels must be 1 .* not 2"),
        ("dncnn", {"layers": 2}, "at least 3 layers"),
    ],
)
def test_wrong_choices_are_refused_with_the_remedy(name: str, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_network(name, settings)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (20, 31)])
def test_the_enlargement_inside_a_cascade_is_torch_s_bicubic(factor: int, size: tuple[int, int]) -> None:
    small = torch.rand(2, 1, *size)
    expected = nn.functional.interpolate(small, scale_factor=factor, mode="bicubic")
    assert torch.allclose(Enlarge(factor)(small), expected, atol=5e-6)


def test_a_cascade_sees_as_far_as_it_says() -> None:
    """A changed pixel moves nothing beyond the field, and something at its rim."""
    cascade = Cascade([build_network("vdsr", {"layers": 2, "features": 4}) for _ in range(3)]).eval()
    assert cascade.scale == 4
    picture = torch.rand(1, 1, 41, 41)
    changed = picture.clone()
    changed[..., 20, 20] += 1
    with torch.inference_mode():
        moved = (cascade(picture) != cascade(changed))[0, 0].nonzero()
    halo = cascade.receptive_field // 2
    reach = max(20 - int(moved.min()) // 4, int(moved.max()) // 4 - 20)
    assert halo - 1 <= reach <= halo
