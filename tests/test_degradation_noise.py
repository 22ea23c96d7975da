"""Noise and quantisation against theory, and the contract that every operator keeps."""

from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pytest
from scipy import stats

from models.degradation import (
    OPERATORS,
    GaussianNoise,
    ImpulseNoise,
    Operator,
    PoissonNoise,
    RoundTo8Bit,
    SpeckleNoise,
    Uniform,
    UniformQuantisation,
    draw_steps,
    operator_class,
    replay,
)
from models.degradation.planes import to_image, to_planes
from models.degradation.protocol import Degradation, settings
from transforms.errors import ConfigurationError
from transforms.randomness import from_stream, generator
from transforms.value_range import from_float, to_float

SAMPLES = 1_000_000
SIDE = 1000

EXAMPLES: dict[str, Operator] = {
    "gaussian_noise": GaussianNoise(sigma=Uniform(0.05, 0.1)),
    "poisson_noise": PoissonNoise(photons=30),
    "speckle_noise": SpeckleNoise(sigma=0.2),
    "impulse_noise": ImpulseNoise(density=0.1),
    "uniform_quantisation": UniformQuantisation(levels=Uniform(3, 9)),
    "round_to_8bit": RoundTo8Bit(),
}


def flat(value: float) -> np.ndarray:
    return np.full((SIDE, SIDE, 1), value, np.float32)


def ramp(channels: int = 1) -> np.ndarray:
    return np.linspace(0, 1, 24 * 32 * channels, dtype=np.float32).reshape(24, 32, channels)


def degrade(operator: Degradation, image: np.ndarray, key: str = "a") -> np.ndarray:
    return to_image(operator.apply(to_planes(image), operator.sample(generator(1, key), image.shape)))


def assert_moments(noisy: np.ndarray, mean: float, variance: float, kurtosis: float = 3.0) -> None:
    """Within 5 standard errors: of the mean sqrt(v / n), of the variance v sqrt((kurtosis - 1) / n)."""
    values = noisy.astype(np.float64)
    assert abs(values.mean() - mean) < 5 * np.sqrt(variance / values.size)
    assert abs(values.var() - variance) < 5 * variance * np.sqrt((kurtosis - 1) / values.size)


# --- theory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "sigma"), [(0.0, 0.1), (0.5, 25 / 255), (1.0, 55 / 255)])
def test_gaussian_noise_has_the_mean_and_variance_of_theory_beyond_black_and_white(value, sigma):
    assert_moments(degrade(GaussianNoise(sigma), flat(value)), value, sigma**2)


def test_gaussian_noise_is_normal_and_white():
    noise = degrade(GaussianNoise(0.1), flat(0.5))[..., 0].astype(np.float64) - 0.5
    assert stats.kstest(noise.ravel()[:100_000] / 0.1, "norm").pvalue > 0.01
    for shifted in (noise[1:] * noise[:-1], noise[:, 1:] * noise[:, :-1]):
        assert abs(shifted.mean()) / 0.01 < 5e-3  # 5 standard errors of an uncorrelated product


def test_the_noise_of_a_stream_stays_what_it_was():
    # If this fails, pairs of earlier releases can no longer be made again: numpy or the kernel changed its draws.
    parameters = {"sigma": 1.0, "stream": "0123456789abcdef" * 2}
    noise = GaussianNoise.apply(np.zeros((1, 4, 1), np.float32), parameters).ravel()
    np.testing.assert_allclose(noise, [2.21513319, 0.40651602, 0.33277222, 0.46494019], rtol=1e-6)


@pytest.mark.parametrize(("value", "photons"), [(0.02, 60), (0.5, 5), (1.0, 300), (0.25, 1e6)])
def test_poisson_noise_has_variance_x_over_the_photon_count(value, photons):
    value = float(np.float32(value))
    kurtosis = 3 + 1 / (value * photons)
    assert_moments(degrade(PoissonNoise(photons), flat(value)), value, value / photons, kurtosis)


def test_poisson_noise_counts_photons_with_poisson_frequencies():
    counts = np.rint(degrade(PoissonNoise(4), flat(0.5)) * 4).astype(int).ravel()
    observed = np.bincount(counts, minlength=12)
    expected = stats.poisson.pmf(np.arange(12), 2.0) * SAMPLES
    pooled = [*observed[:9], observed[9:].sum()], [*expected[:9], SAMPLES - expected[:9].sum()]
    assert stats.chisquare(*pooled).pvalue > 0.01


def test_poisson_noise_leaves_black_and_what_is_below_it_black():
    image = np.array([[[0.0], [-0.3]]], np.float32)
    np.testing.assert_array_equal(degrade(PoissonNoise(10), image), np.zeros_like(image))


def test_poisson_noise_of_a_large_picture_is_drawn_in_blocks_with_the_same_result():
    image = np.random.default_rng(3).random((2300, 1000, 1), dtype=np.float32)
    parameters = PoissonNoise(20).sample(generator(1, "a"), image.shape)
    at_once = from_stream(parameters["stream"]).poisson(image.astype(np.float64) * 20) / 20
    np.testing.assert_array_equal(PoissonNoise.apply(image, parameters), at_once.astype(np.float32))


@pytest.mark.parametrize(("value", "sigma"), [(0.25, 0.15), (0.9, 0.6)])
def test_speckle_has_a_standard_deviation_in_proportion_to_the_value(value, sigma):
    value = float(np.float32(value))
    assert_moments(degrade(SpeckleNoise(sigma), flat(value)), value, (sigma * value) ** 2)


def test_speckle_leaves_black_black():
    np.testing.assert_array_equal(degrade(SpeckleNoise(0.5), flat(0.0)), flat(0.0))


@pytest.mark.parametrize(("density", "salt"), [(0.03, 0.5), (0.27, 0.5), (0.5, 0.9), (1.0, 0.25)])
def test_impulse_noise_hits_its_share_of_samples_and_leaves_the_others(density, salt):
    noisy = degrade(ImpulseNoise(density, salt), flat(0.5))
    for value, share in ((1.0, density * salt), (0.0, density * (1 - salt)), (0.5, 1 - density)):
        found = float((noisy == value).mean())
        assert abs(found - share) <= 5 * np.sqrt(share * (1 - share) / SAMPLES)


def test_impulse_noise_hits_channels_independently():
    hit = degrade(ImpulseNoise(0.2), np.full((SIDE, SIDE, 3), 0.5, np.float32)) != 0.5
    both = float((hit[..., 0] & hit[..., 1]).mean())
    assert abs(both - 0.04) < 5 * np.sqrt(0.04 * 0.96 / SAMPLES)


@pytest.mark.parametrize("levels", [2, 5, 8, 16, 256])
def test_quantisation_has_its_levels_and_the_error_of_theory(levels):
    image = np.random.default_rng(1).random((SIDE, SIDE, 1), dtype=np.float32)
    quantised = degrade(UniformQuantisation(levels), image)
    np.testing.assert_allclose(np.unique(quantised), np.linspace(0, 1, levels), atol=1e-7)
    error = (quantised.astype(np.float64) - image).ravel()
    step = 1 / (levels - 1)
    assert np.abs(error).max() <= step / 2 + 1e-6
    # Uniform in [-q/2, q/2]: variance q^2 / 12, kurtosis 9/5.
    assert abs(error.var() - step**2 / 12) < 5 * step**2 / 12 * np.sqrt(0.8 / SAMPLES)


def test_quantisation_clips():
    image = np.array([[[-0.4], [1.7]]], np.float32)
    np.testing.assert_array_equal(degrade(UniformQuantisation(5), image), [[[0.0], [1.0]]])


def test_round_to_8bit_is_what_storing_as_8_bit_does():
    image = np.random.default_rng(1).uniform(-0.2, 1.2, (200, 200, 3)).astype(np.float32)
    rounded = degrade(RoundTo8Bit(), image)
    stored = from_float(image, np.uint8)
    assert rounded.tobytes() == to_float(stored).tobytes()
    np.testing.assert_array_equal(from_float(rounded, np.uint8), stored)


def test_round_to_8bit_rounds_halves_to_even_and_keeps_its_levels():
    levels = (np.arange(256, dtype=np.float32) / np.float32(255)).reshape(16, 16, 1)
    np.testing.assert_array_equal(degrade(RoundTo8Bit(), levels), levels)
    halves = np.array([[[0.5 / 255], [2.5 / 255], [254.5 / 255]]], np.float32)
    expected = np.rint(halves * np.float32(255)) / np.float32(255)
    np.testing.assert_array_equal(degrade(RoundTo8Bit(), halves), expected)


# --- contract -------------------------------------------------------------------------------------------------------


def test_the_examples_cover_the_table():
    assert EXAMPLES.keys() == OPERATORS.keys()


@pytest.mark.parametrize("name", OPERATORS)
def test_the_table_and_the_classes_agree_on_names(name):
    assert operator_class(name).name == name
    assert type(EXAMPLES[name]) is operator_class(name)


def test_an_unknown_operator_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="no degradation is called 'blurr'; known are gaussian_noise"):
        replay(ramp(), [{"blurr": {}}])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_gives_a_new_float32_picture_and_leaves_its_input_alone(name, channels):
    image = ramp(channels)
    image.flags.writeable = False
    parameters = EXAMPLES[name].sample(generator(1, "a"), image.shape)
    degraded = EXAMPLES[name].apply(image, parameters)
    assert degraded.dtype == np.float32
    assert degraded.shape == EXAMPLES[name].output_shape(image.shape, parameters)
    assert not np.shares_memory(degraded, image)
    assert not np.array_equal(degraded, image)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_replays_from_json_alone_to_the_same_bytes(name):
    steps = draw_steps(EXAMPLES[name], generator(1, "a"), (24, 32, 3))
    degraded = EXAMPLES[name].apply(ramp(3), steps[0][name])
    again = replay(ramp(3), json.loads(json.dumps(steps, allow_nan=False)))
    assert again.tobytes() == degraded.tobytes()
    assert replay(ramp(3), steps).tobytes() == degraded.tobytes()  # and a second time: nothing was used up


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example.noisy])
def test_noise_differs_between_two_draws(name):
    assert degrade(EXAMPLES[name], ramp(), "a").tobytes() != degrade(EXAMPLES[name], ramp(), "b").tobytes()


@pytest.mark.parametrize("name", OPERATORS)
def test_parameters_hold_every_quantity_and_a_stream_if_noisy(name):
    example = EXAMPLES[name]
    parameters = example.sample(generator(1, "a"), (8, 8, 1))
    assert parameters.keys() == settings(type(example)).keys() | ({"stream"} if example.noisy else set())


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_survives_pickling(name):
    assert pickle.loads(pickle.dumps(EXAMPLES[name])) == EXAMPLES[name]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise(-0.1), "sigma: expected a number of at least 0, got -0.1"),
        (lambda: GaussianNoise(float("nan")), "sigma: expected a number of at least 0, got nan"),
        (lambda: GaussianNoise(Uniform(-1, 1)), "sigma: expected a number of at least 0, got -1"),
        (lambda: PoissonNoise(0), "photons: expected a number above 0 and of at most 1e+12, got 0"),
        (lambda: ImpulseNoise(0.1, salt=1.5), "salt: expected a number from 0 to 1, got 1.5"),
        (lambda: UniformQuantisation(1), "levels: expected a whole number from 2 to 65536, got 1"),
        (lambda: UniformQuantisation(2.5), "levels: expected a whole number from 2 to 65536, got 2.5"),
    ],
)
def test_a_number_outside_its_bounds_is_refused_when_the_operator_is_made(make, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        make()
