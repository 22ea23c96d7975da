"""The recipes `bsrgan` and `real-esrgan` draw what the papers and their code say."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.degradation import draw_steps
from models.recipes import load_recipe
from models.recipes.recipe import Pair
from transforms.randomness import generator

DRAWS = 1000
SHAPE = (256, 256, 3)
RESIZES = ("resize", "gaussian_decimate")
Steps = list[tuple[str, dict[str, Any]]]


def drawn(name: str) -> list[Steps]:
    degradation = load_recipe(name).degradation
    chains = [draw_steps(degradation, generator(1, str(number)), SHAPE) for number in range(DRAWS)]
    return [[item for step in chain for item in step.items()] for chain in chains]


@pytest.fixture(scope="module")
def bsrgan() -> list[Steps]:
    return drawn("bsrgan")


@pytest.fixture(scope="module")
def real_esrgan() -> list[Steps]:
    return drawn("real-esrgan")


def assert_share(hits: int, trials: int, expected: float) -> None:
    """Within 5 standard errors."""
    assert abs(hits / trials - expected) < 5 * np.sqrt(expected * (1 - expected) / trials)


def names(steps: Steps) -> list[str]:
    return [name for name, _ in steps if name != "clip"]


def resizes(steps: Steps) -> Steps:
    return [(name, parameters) for name, parameters in steps if name in RESIZES]


# --- BSRGAN ---------------------------------------------------------------------------------------------------------


def spread(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def test_bsrgan_draws_its_numbers_from_the_ranges_of_the_released_code(bsrgan):
    for first_halving, widest, largest_axis, longest_division in ((False, 2.8, 8, 8), (True, 2.4, 6, 4)):
        chains = [
            steps
            for steps in bsrgan
            if (steps[0][0] == "resize" and steps[1][0] == "clip" and is_halving(steps)) is first_halving
        ]
        steps = [step for chain in chains for step in chain]
        sigmas = [drawn["sigma"] for name, drawn in steps if name == "gaussian_blur"]
        assert 0 <= min(sigmas) < 0.1
        assert 0.97 * widest < max(sigmas) <= widest
        variances = [
            drawn[axis] ** 2
            for name, drawn in steps
            if name == "anisotropic_gaussian_blur"
            for axis in ("sigma_x", "sigma_y")
        ]
        assert 0.97 * largest_axis < max(variances) <= largest_axis + 1e-9
        assert np.mean(variances) == pytest.approx(largest_axis / 2, rel=0.1)  # the square is uniform
        decimations = [drawn for name, drawn in steps if name == "gaussian_decimate"]
        assert {drawn["offset"] for drawn in decimations} == {"middle"}
        assert {drawn["factor"] for drawn in decimations} == {2 if first_halving else 4}
        low, high = spread([drawn["sigma"] for drawn in decimations])
        assert (low >= 0.1, high <= (1.2 if first_halving else 2.4)) == (True, True)
        divisors = [
            1 / drawn["scale"] for name, drawn in steps if name == "resize" and drawn["scale"] not in (0.25, 0.5)
        ]
        assert 1 <= min(divisors) < 1.1
        assert 0.95 * longest_division < max(divisors) <= longest_division + 1e-9
        assert np.mean(divisors) == pytest.approx((1 + longest_division) / 2, rel=0.1)  # the divisor is uniform
    levels = [drawn["sigma"] * 255 for chain in bsrgan for name, drawn in chain if name == "gaussian_noise"]
    assert 2 <= min(levels) < 2.3
    assert 24.7 < max(levels) <= 25 + 1e-9
    qualities = [drawn["quality"] for chain in bsrgan for name, drawn in chain if name == "jpeg"]
    assert spread(qualities) == (30, 95)


def is_halving(steps: Steps) -> bool:
    """Whether the picture is halved before all else; its other resizes draw another scale, or make a quarter."""
    return steps[0][1]["scale"] == 0.5


def test_bsrgan_does_each_step_once_and_jpeg_last(bsrgan):
    for steps in bsrgan:
        count = Counter(names(steps))
        assert count["gaussian_blur"] + count["anisotropic_gaussian_blur"] == 2
        assert count["gaussian_noise"] == 1
        assert len(resizes(steps)) in (2, 3)
        assert steps[-1][0] == "jpeg"
        exact = resizes(steps)[-1]
        assert exact[0] == "resize"
        assert exact[1]["size"] == [64, 64]
        assert exact[1]["relative_to"] == "clean"


def test_bsrgan_halves_a_quarter_of_the_patches_first(bsrgan):
    halved = [steps for steps in bsrgan if len(resizes(steps)) == 3]
    assert_share(len(halved), DRAWS, 0.25)
    assert all(steps[0][1]["size"] == [128, 128] for steps in halved)
    matlab = sum(steps[0][1]["kernel"] == "matlab_bicubic" for steps in halved)
    assert_share(matlab, len(halved), 0.5)
    for steps in bsrgan:  # then everything is as for x2
        factors = {parameters["factor"] for name, parameters in steps if name == "gaussian_decimate"}
        assert factors <= ({2} if len(resizes(steps)) == 3 else {4})


def test_bsrgan_draws_kernels_noise_and_quality_as_the_paper_does(bsrgan):
    steps = [step for chain in bsrgan for step in chain]
    blurs = [(name, own) for name, own in steps if name.endswith("blur")]
    assert_share(sum(name == "gaussian_blur" for name, _ in blurs), len(blurs), 0.5)
    assert {own["size"] for _, own in blurs} == set(range(7, 26, 2))
    channels = Counter(own["across_channels"] for name, own in steps if name == "gaussian_noise")
    for word, share in (("independent", 0.4), ("shared", 0.4), ("correlated", 0.2)):
        assert_share(channels[word], DRAWS, share)
    qualities = {own["quality"] for name, own in steps if name == "jpeg"}
    assert qualities == set(range(30, 96))
    assert_share(sum(names(chain).count("jpeg") == 2 for chain in bsrgan), DRAWS, 0.9)
    random = [resizes(chain)[-2] for chain in bsrgan]
    assert_share(sum(name == "resize" for name, _ in random), DRAWS, 0.75)


def test_the_axes_of_bsrgans_kernels_have_the_mean_variance_of_the_paper(bsrgan):
    """Their variances are U(0, 8), or U(0, 6) for the quarter that is halved: 4 and 3 in the mean."""
    for halved, mean in ((False, 4.0), (True, 3.0)):
        kernels = [
            own["sigma_x"] ** 2
            for chain in bsrgan
            if (len(resizes(chain)) == 3) == halved
            for name, own in chain
            if name == "anisotropic_gaussian_blur"
        ]
        assert abs(np.mean(kernels) - mean) < 5 * mean / np.sqrt(3 * len(kernels)) + 0.02


def test_every_order_of_bsrgans_steps_is_as_likely(bsrgan):
    """Without the final JPEG: where the noise stands among two blurs, two resizes and, mostly, a JPEG."""
    places: Counter[int] = Counter()
    for steps in bsrgan:
        order = names(steps)[1:-1] if len(resizes(steps)) == 3 else names(steps)[:-1]
        if len(order) == 6:
            places[order.index("gaussian_noise")] += 1
    for place in range(6):
        assert_share(places[place], places.total(), 1 / 6)


def test_bsrgan_degrades_as_much_as_a_plain_implementation_of_the_paper(photo):
    sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
    try:
        import bsrgan_baseline
    finally:
        sys.path.pop(0)
    recipe, count = load_recipe("bsrgan"), 60
    ours, plain = [], []
    for number in range(count):
        pair = recipe.pair(photo, key="a", patch=number, seed=3)
        assert isinstance(pair, Pair)
        ours.append(loss_db(pair.clean, pair.degraded))
        plain.append(loss_db(*bsrgan_baseline.pair(photo, 256, np.random.default_rng([3, number]))))
    spread = np.hypot(np.std(ours), np.std(plain)) / np.sqrt(count)
    assert abs(np.mean(ours) - np.mean(plain)) < 5 * spread
    assert 0.6 < np.std(ours) / np.std(plain) < 1.6


def loss_db(clean: np.ndarray, degraded: np.ndarray) -> float:
    """PSNR of the degraded patch against the clean one's 4 x 4 means."""
    means = clean.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3), dtype=np.float64)
    return float(-10 * np.log10(((degraded - means) ** 2).mean()))


# --- Real-ESRGAN ----------------------------------------------------------------------------------------------------


def rounds(steps: Steps) -> tuple[Steps, Steps]:
    """The first round ends with its JPEG."""
    first = next(index for index, (name, _) in enumerate(steps) if name == "jpeg") + 1
    return steps[:first], steps[first:]


def test_real_esrgan_ends_at_a_quarter_in_8_bit(real_esrgan):
    for steps in real_esrgan:
        assert steps[-1][0] == "round_to_8bit"
        assert resizes(steps)[-1][1]["size"] == [64, 64]
        assert names(steps).count("jpeg") == 2


def test_real_esrgan_draws_each_round_with_the_released_shares(real_esrgan):
    first, second = ([rounds(steps)[number] for steps in real_esrgan] for number in (0, 1))
    shares = {"gaussian_blur": 0.405, "anisotropic_gaussian_blur": 0.225, "generalised_gaussian_blur": 0.135}
    shares |= {"plateau_blur": 0.135, "sinc_blur": 0.1}
    opening = Counter(steps[0][0] for steps in first)
    for name, share in shares.items():
        assert_share(opening[name], DRAWS, share)
    opening = Counter(steps[0][0] for steps in second)  # a resize where the second blur stays away
    for name, share in shares.items():
        assert_share(opening[name], DRAWS, 0.8 * share)
    for chain, share in ((first, 0.5), (second, 0.5)):
        assert_share(sum("poisson_noise" in names(steps) for steps in chain), DRAWS, share)
        grey = [own["across_channels"] for steps in chain for _, own in steps if "across_channels" in own]
        assert_share(grey.count("shared"), DRAWS, 0.4)
    scales = [own["scale"] for steps in first for name, own in steps if name == "resize"]
    assert_share(len(scales), DRAWS, 0.9)
    assert_share(sum(scale > 1 for scale in scales), len(scales), 2 / 9)
    assert 0.15 <= min(scales) < 0.17
    assert 1.48 < max(scales) <= 1.5


def test_real_esrgans_last_jpeg_comes_before_or_after_the_last_resize(real_esrgan):
    after = [names(steps)[-2] == "jpeg" for steps in real_esrgan]
    assert_share(sum(after), DRAWS, 0.5)
    sinc = [{"sinc_blur"} & set(names(steps)[-3:-1]) for steps in real_esrgan]
    assert_share(sum(map(bool, sinc)), DRAWS, 0.8)


@pytest.mark.parametrize("name", ["bsrgan", "real-esrgan"])
def test_a_blind_pair_is_a_quarter_as_large_as_its_clean_half(photo, name):
    pair = load_recipe(name).pair(photo, key="a", patch=0, seed=1)
    assert isinstance(pair, Pair)
    assert pair.clean.shape == SHAPE
    assert pair.degraded.shape == (64, 64, 3)
    levels = pair.degraded * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    assert Image.fromarray(np.rint(levels).astype(np.uint8)).size == (64, 64)
