"""DCNN and ODCNN: the pseudo-inverse against scikit-image and the paper, the networks against what they begin as."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve
from skimage.restoration import wiener
from torch.nn import functional

from models.degradation.blur_kernels import disk
from models.degradation.convolution import convolve
from models.degradation.quantisation import Highlights
from models.networks import build_network
from models.networks.dcnn import DCNN, ODCNN, pseudo_inverse, whole_pseudo_inverse
from models.recipes import Pair, load_recipe
from models.training_recipe import load_training_recipe
from transforms.errors import ConfigurationError

SMALL = {"taps": 31, "maps": 12, "radius_px": 2, "noise_to_signal": 0.01}


@pytest.fixture(scope="module")
def gray(photo) -> np.ndarray:
    return photo.mean(axis=2) / 255


def window(taps: int) -> np.ndarray:
    return np.roll(whole_pseudo_inverse(disk(7), 1e-4), (taps // 2, taps // 2), (0, 1))[:taps, :taps]


@pytest.mark.parametrize(("taps", "rank"), [(61, 24), (121, 37), (201, 48)])
def test_the_inverse_of_the_paper_s_disk_has_the_rank_that_the_paper_found(taps, rank):
    """The paper: 38 one-dimensional filters of 121 taps for a disk of radius 7."""
    values = np.linalg.svd(window(taps), compute_uv=False)
    assert np.count_nonzero(values > 0.01 * values[0]) == rank


def test_the_window_keeps_the_energy_and_the_sum():
    whole, cut = whole_pseudo_inverse(disk(7), 1e-4), window(121)
    assert np.square(cut).sum() / np.square(whole).sum() == pytest.approx(0.993, abs=5e-4)
    assert cut.sum() == pytest.approx(-2, abs=0.05)  # what cutting does to flat areas
    mended = pseudo_inverse(disk(7), 121, 1e-4)
    assert mended.sum() == pytest.approx(1 / (1 + 1e-4), abs=1e-12)
    assert np.ptp(mended - cut) < 1e-15
    values = np.linalg.svd(mended, compute_uv=False)
    assert np.count_nonzero(values > 0.01 * values[0]) in (37, 38)


@pytest.mark.parametrize("kernel", [disk(7), np.random.default_rng(0).dirichlet(np.ones(35)).reshape(5, 7)])
def test_the_whole_inverse_is_scikit_image_s_wiener_filter(gray, kernel):
    identity = np.zeros((3, 3))
    identity[1, 1] = 1
    expected = wiener(gray, kernel, 0.01, reg=identity, clip=False)
    inverse = whole_pseudo_inverse(kernel, 0.01)
    found = np.fft.ifft2(np.fft.fft2(gray) * np.fft.fft2(inverse)).real
    np.testing.assert_allclose(found, expected, atol=1e-9)


def restored(network: DCNN, blurred: np.ndarray) -> np.ndarray:
    """The valid part only, in double precision."""
    with torch.no_grad():
        return network.double().train()(torch.from_numpy(blurred)[None, None])[0, 0].numpy()


@pytest.mark.parametrize(("taps", "maps"), [(121, 38), (41, 41)])
@pytest.mark.parametrize("kernel", [disk(7), np.random.default_rng(1).dirichlet(np.ones(63)).reshape(9, 7)])
def test_the_first_weights_compute_the_separable_inverse(gray, kernel, taps, maps):
    """Of a kernel without symmetry too, so that a transposed or turned filter would show."""
    blurred = fftconvolve(gray, kernel, "valid")[100:250, 150:290]
    inverse = pseudo_inverse(kernel, taps, 1e-3)
    left, values, right = np.linalg.svd(inverse)
    separable = (left[:, :maps] * values[:maps]) @ right[:maps]
    expected = fftconvolve(blurred - 0.5, separable, "valid") + 0.5
    network, errors = build_network("dcnn", {"taps": taps, "maps": maps, "initial": "random"}), []
    for spread in (0.02, 0.002):
        network.set_separable(inverse, spread)
        errors.append(np.abs(restored(network, blurred) - expected).max())
    assert errors[1] < 1e-4
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)  # tanh(a) = a - a^3 / 3
    if maps == taps:
        np.testing.assert_allclose(expected, fftconvolve(blurred - 0.5, inverse, "valid") + 0.5, atol=1e-9)


def test_the_first_weights_deblur(gray):
    blurred = convolve(gray[np.newaxis], disk(7), "reflect")[0]
    blurred += np.random.default_rng(0).normal(0, 1 / 255, blurred.shape)
    deblurred = restored(build_network("dcnn", {"noise_to_signal": 0.003}), blurred[:300, :300])
    inside = np.s_[60:240, 60:240]
    error, before = (np.square(each - gray[inside]).mean() for each in (deblurred, blurred[inside]))
    assert 10 * np.log10(before / error) > 3


def test_dcnn_has_the_paper_s_layers():
    network = build_network("dcnn", {})
    shapes = [tuple(layer.weight.shape) for layer in (network.columns, network.rows, network.combine)]
    assert shapes == [(38, 1, 121, 1), (38, 38, 1, 121), (1, 38, 1, 1)]
    assert sum(each.numel() for each in network.parameters()) == 121 * 38 + 38 * 38 * 121 + 38 + (38 + 38 + 1)
    off_diagonal = network.rows.weight[~torch.eye(38, dtype=torch.bool)]
    assert not off_diagonal.any()


def test_odcnn_has_the_paper_s_layers_and_makes_42_pixels_of_184():
    network = build_network("odcnn", {})
    assert network.merged_kernels().shape == (512, 38, 16, 16)
    assert network.mix.weight.shape == (512, 512, 1, 1)
    assert network.gather.weight.shape == (1, 512, 8, 8)
    weights = [
        network.columns.weight,
        network.rows.weight,
        network.merged_kernels(),
        network.mix.weight,
        network.gather.weight,
    ]
    assert sum(each.numel() for each in weights) == pytest.approx(5.45e6, rel=0.01)
    assert (network.receptive_field, network.training_border) == (143, 71)
    assert network.to("meta").train()(torch.empty(1, 1, 184, 184, device="meta")).shape == (1, 1, 42, 42)


def test_merged_kernels_equal_the_two_layers_that_they_replace(gray):
    """At the paper's size: 512 kernels of 16 x 16 x 38."""
    network = build_network("odcnn", {}).train()
    with torch.no_grad():
        network.combine.bias.fill_(0.1)
        network.reject.bias.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(1))
        maps = network.maps(torch.from_numpy(gray[None, None, :140, :140]).float())
        merged = functional.conv2d(maps, network.merged_kernels(), network.merged_bias())
        unmerged = network.reject(network.combine(maps))
    assert merged.shape == (1, 512, 5, 5)
    assert torch.allclose(merged, unmerged, atol=1e-5)


@pytest.mark.parametrize("sides", [(9, 5), (16, 8), (4, 6)])
def test_odcnn_begins_as_the_dcnn_that_it_is_given(gray, sides):
    generator = torch.Generator().manual_seed(0)
    dcnn = build_network("dcnn", SMALL)
    with torch.no_grad():
        for each in dcnn.parameters():
            each.add_(0.05 * torch.randn(each.shape, generator=generator))
    odcnn = build_network("odcnn", {**SMALL, "features": 16, "sides": sides})
    absent, unknown = odcnn.load_state_dict(dcnn.state_dict(), strict=False)
    assert not unknown
    assert {name.partition(".")[0] for name in absent} == {"reject", "correction", "mix", "gather"}
    picture = torch.from_numpy(gray[None, None, :90, :80]).float()
    with torch.no_grad():
        assert torch.allclose(odcnn.eval()(picture)[..., 9:-9, 9:-9], dcnn.eval()(picture)[..., 9:-9, 9:-9], atol=1e-5)


@pytest.mark.parametrize(("name", "more"), [("dcnn", {}), ("odcnn", {"features": 8, "sides": (4, 4)})])
def test_in_use_the_size_stays_and_the_inside_is_that_of_training(gray, name, more):
    network = build_network(name, {**SMALL, **more})
    picture = torch.from_numpy(gray[None, None, :70, :61]).float()
    with torch.no_grad():
        whole, valid = network.eval()(picture), network.train()(picture)
    border = network.training_border
    assert whole.shape == picture.shape
    assert torch.allclose(whole[..., border:-border, border:-border], valid, atol=1e-5)


def test_an_exported_odcnn_holds_its_merged_kernels_and_not_what_they_are_made_of():
    from export.onnx_export import to_onnx

    model = to_onnx(build_network("odcnn", {**SMALL, "features": 16, "sides": (4, 4)}).eval(), 1)
    assert [node.op_type for node in model.graph.node].count("Conv") == 5
    kernels = [each for each in model.graph.initializer if list(each.dims[2:]) == [4, 4]]
    assert sorted(each.dims[0] for each in kernels) == [1, 16]


def test_all_that_odcnn_adds_can_learn(gray):
    network = build_network("odcnn", {**SMALL, "features": 16, "sides": (4, 4)}).train()
    picture = torch.from_numpy(gray[None, None, :60, :60]).float()
    optimiser = torch.optim.SGD(network.parameters(), 0.01)
    for _ in range(2):  # features without a say in the output get a gradient once they have one
        optimiser.zero_grad()
        network(picture).square().mean().backward()
        optimiser.step()
    assert all(each.grad.any() for each in network.parameters())
    assert network.correction[2:].any()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """So small layers gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def learn(network: DCNN, degraded: torch.Tensor, clean: torch.Tensor, steps: int) -> float:
    """Learns from the upper half of a picture; the error of its lower half, in decibel."""
    optimiser, rng, border = (
        torch.optim.Adam(network.parameters(), 3e-4),
        np.random.default_rng(2),
        network.training_border,
    )
    inside, network = np.s_[..., border:-border, border:-border], network.train()
    for _ in range(steps):
        top, left = rng.integers(0, 256 - 64), rng.integers(0, 512 - 64)
        here = np.s_[..., top : top + 64, left : left + 64]
        loss = functional.mse_loss(network(degraded[here]), clean[here][inside])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        error = functional.mse_loss(network(degraded[..., 256:, :]), clean[..., 256:, :][inside])
    return 10 * float(torch.log10(error))


@pytest.mark.usefixtures("one_thread")
def test_the_pseudo_inverse_is_a_decibel_ahead_of_random_weights_at_equal_steps(gray):
    """In small: a disk of radius 2, 21 taps, 40 steps on the same patches. They gain a decibel on it, too."""
    blurred = convolve(gray[np.newaxis], disk(2), "reflect")[0]
    blurred += np.random.default_rng(0).normal(0, 1 / 255, blurred.shape)
    clean, degraded = (torch.from_numpy(each).float()[None, None] for each in (gray, blurred))
    errors = []
    for initial, steps in (("random", 40), ("pseudo-inverse", 0), ("pseudo-inverse", 40)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build_network("dcnn", {**SMALL, "taps": 21, "maps": 8, "initial": initial})
        errors.append(learn(network, degraded, clean, steps))
    random, before, after = errors
    assert after < random - 1
    assert after < before - 1


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dcnn", {"channels": 3}, "channels must be 1, not 3"),
        ("dcnn", {"taps": 120}, "taps must be odd"),
        ("dcnn", {"taps": 21, "maps": 22}, "maps from 1 to taps"),
        ("dcnn", {"initial": "svd"}, "'svd' is not one of pseudo-inverse, random"),
        ("dcnn", {"noise_to_signal": 0}, "must be above 0"),
        ("odcnn", {"sides": (16, 9)}, "even sum"),
        ("odcnn", {"features": 1}, "2 or more features"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        build_network(name, settings)


def test_highlights_make_white_the_given_light_and_leave_the_rest():
    ramp = np.linspace(0, 1, 101, dtype=np.float32)[np.newaxis, np.newaxis]
    lit = Highlights.apply(ramp, {"gain": 3, "threshold": 0.8})
    np.testing.assert_array_equal(lit[ramp <= 0.8], ramp[ramp <= 0.8])
    np.testing.assert_allclose(lit[ramp > 0.8], ramp[ramp > 0.8] + 10 * (ramp[ramp > 0.8] - 0.8), rtol=1e-5)
    assert lit.max() == pytest.approx(3)


def test_lights_saturate_after_the_blur_and_not_before(gray):
    """A white square of 30 pixels with the light 4: after the blur its saturated core is larger than with the light 1."""
    scene = np.full((120, 120, 1), 0.2, np.float32)
    scene[45:75, 45:75] = 1
    recipe = replace(load_recipe("deconvolution-disk7"), patches=None)
    shares, gains = [], []
    for number in range(12):
        pair = recipe.pair(scene, key="square", patch=number, seed=3)
        assert isinstance(pair, Pair)
        shares.append(np.mean(pair.degraded > 0.95))
        gains.append(
            next(step["highlights"]["gain"] for step in pair.parameters["degradation"] if "highlights" in step)
        )
    order = np.argsort(gains)
    assert np.corrcoef(gains, shares)[0, 1] > 0.8
    assert shares[order[0]] < (30 / 120) ** 2 < shares[order[-1]]


@pytest.mark.parametrize("name", ["train-dcnn-disk7", "train-dcnn-disk7-random", "train-odcnn-disk7"])
def test_the_recipes_fit_their_networks(name):
    recipe = load_training_recipe(name)
    network = build_network(recipe.network.name, recipe.network.all_settings())
    assert isinstance(network, ODCNN if "odcnn" in name else DCNN)
    assert network.receptive_field < recipe.patch_size
    assert load_recipe(recipe.degradation).channels == "gray"


def test_the_random_recipe_differs_from_the_other_in_its_first_weights_alone():
    one, other = (load_training_recipe(f"train-dcnn-disk7{which}").deciding() for which in ("", "-random"))
    one.pop("network"), other.pop("network")
    one.pop("name", None), other.pop("name", None)
    assert one == other
