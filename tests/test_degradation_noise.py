"""White noise against theory, in each channel and across them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import stats

from models.degradation import GaussianNoise, ImpulseNoise, PoissonNoise, SpeckleNoise, Uniform, replay
from models.degradation.noise import draw_covariance
from models.degradation.normals import standard_normal
from models.degradation.protocol import Degradation
from transforms.errors import ConfigurationError
from transforms.planes import to_image, to_planes
from transforms.randomness import from_stream, generator

SAMPLES = 1_000_000
SIDE = 1000


def flat(value: float) -> np.ndarray:
    return np.full((SIDE, SIDE, 1), value, np.float32)


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
    np.testing.assert_allclose(noise, [-0.59460318, 0.98766142, -0.24096070, 1.12302041], rtol=1e-6)
    longer = GaussianNoise.apply(np.zeros((1, 1, 40_000), np.float32), parameters).ravel()
    np.testing.assert_allclose(longer[[32_767, 32_768, 39_999]], [-0.79745615, -2.45201349, 0.08249904], rtol=1e-6)


def test_normal_numbers_are_normal_to_the_fourth_moment_and_into_the_tails():
    numbers = standard_normal(generator(1, "normals"), (4_000_000,)).astype(np.float64)
    size = numbers.size
    assert stats.kstest(numbers, "norm").pvalue > 0.01
    for moment, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((numbers**moment).mean() - expected) < 5 * np.sqrt(variance / size)
    for beyond in (2, 3, 4, 5):
        share = 2 * stats.norm.sf(beyond)
        assert abs((np.abs(numbers) > beyond).mean() - share) < 5 * np.sqrt(share / size)


def test_the_normal_numbers_of_a_block_know_nothing_of_each_other():
    blocks = standard_normal(generator(1, "pairs"), (100, 2, 1 << 14)).astype(np.float64)
    first, second = blocks[:, 0].ravel(), blocks[:, 1].ravel()
    for power in (1, 2, 3):
        assert abs(np.corrcoef(first**power, second**power)[0, 1]) < 5 / np.sqrt(first.size)
    assert stats.kstest(np.arctan2(second, first) / (2 * np.pi) + 0.5, "uniform").pvalue > 0.01
    assert stats.kstest(np.exp(-(first**2 + second**2) / 2), "uniform").pvalue > 0.01


def sfc64(a, b, c):
    """Doty-Humphrey's generator as it is published, with its twelve rounds of warming up."""
    words, word, counter = [], (1 << 64) - 1, 1
    for _ in range(12 + 1000):
        mixed = (a + b + counter) & word
        counter += 1
        a, b, c = b ^ (b >> 11), (c + (c << 3)) & word, (((c << 24) | (c >> 40)) + mixed) & word
        words.append(mixed)
    return np.array(words[12:], dtype=np.uint64)


def test_normal_numbers_invert_the_distribution():
    """Each number lies in its bin of SciPy's distribution; in the first and the last one it is the inverse itself."""
    words = sfc64(*generator(1, "a").bit_generator.random_raw(3).tolist())
    bins = words.view(np.uint16)[:4000].astype(np.int64)
    numbers = standard_normal(generator(1, "a"), (4000,))
    inside = (bins > 0) & (bins < 65535)
    low, high = stats.norm.ppf(bins / 65536), stats.norm.ppf((bins + 1) / 65536)
    assert np.all((numbers >= low - 1e-6) & (numbers <= high + 1e-6))
    middle = stats.norm.ppf((bins[inside] + 0.5) / 65536)
    assert np.abs(numbers[inside] - middle).max() < 0.02  # the mean of a bin and its middle are apart where it is wide
    np.testing.assert_allclose(standard_normal(generator(1, "a"), (4000,), 0.2), np.float32(0.2) * numbers, rtol=1e-6)
    np.testing.assert_array_equal(standard_normal(generator(1, "a"), (3, 1, 5)).shape, (3, 1, 5))


def test_the_tails_of_normal_numbers_are_continuous():
    numbers = standard_normal(generator(2, "tails"), (8_000_000,)).astype(np.float64)
    edge = stats.norm.isf(1 / 65536)
    tails = np.abs(numbers[np.abs(numbers) > edge])
    assert len(np.unique(tails)) == len(tails)
    assert stats.kstest(stats.norm.sf(tails) * 65536, "uniform").pvalue > 0.01
    assert abs(float((numbers < -edge).sum()) - len(tails) / 2) < 5 * np.sqrt(len(tails) / 4)


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


# --- across channels ------------------------------------------------------------------------------------------------


def colour(*values: float) -> np.ndarray:
    return np.broadcast_to(np.array(values, np.float32), (SIDE, SIDE, 3)).copy()


def test_shared_gaussian_noise_is_grey_in_a_colour_picture():
    noise = degrade(GaussianNoise(0.1, across_channels="shared"), colour(0.2, 0.5, 0.9)) - colour(0.2, 0.5, 0.9)
    np.testing.assert_allclose(noise[..., 0], noise[..., 1], atol=1e-6)
    np.testing.assert_allclose(noise[..., 0], noise[..., 2], atol=1e-6)
    assert_moments(noise[..., 0], 0, 0.01)


def test_independent_gaussian_noise_is_uncorrelated_between_channels():
    noise = degrade(GaussianNoise(0.1), colour(0.2, 0.5, 0.9)).astype(np.float64) - (0.2, 0.5, 0.9)
    correlations = np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)
    assert np.abs(correlations).max() < 5 / np.sqrt(SAMPLES)


def test_correlated_gaussian_noise_has_the_covariance_that_its_record_says():
    for key in "abc":
        operator = GaussianNoise(0.1, across_channels="correlated")
        parameters = operator.sample(generator(1, key), (SIDE, SIDE, 3))
        expected = 0.01 * np.array(parameters["covariance"])
        noise = operator.apply(np.zeros((3, SIDE, SIDE), np.float32), parameters).astype(np.float64)
        found = np.cov(noise.reshape(3, -1))
        # Wishart: the standard error of element ij is sqrt((c_ij^2 + c_ii c_jj) / n).
        variances = np.diag(expected)
        assert (np.abs(found - expected) < 5 * np.sqrt((expected**2 + np.outer(variances, variances)) / SAMPLES)).all()


def test_drawn_covariances_are_covariances_with_a_mean_variance_of_a_half():
    drawn = np.array([draw_covariance(generator(1, str(number)), 3) for number in range(4000)])
    np.testing.assert_allclose(drawn, drawn.transpose(0, 2, 1), atol=1e-12)
    assert np.linalg.eigvalsh(drawn).min() > -1e-12
    variances = np.trace(drawn, axis1=1, axis2=2) / 3
    assert abs(variances.mean() - 0.5) < 5 / np.sqrt(36 * 4000)  # the mean of three U(0, 1) has the variance 1/36
    assert drawn.min() >= 0  # channels rise together
    assert np.median(drawn[:, 0, 1]) > 0.1


def test_correlated_noise_of_a_grey_picture_has_its_one_variance():
    operator = GaussianNoise(0.1, across_channels="correlated")
    parameters = operator.sample(generator(1, "a"), (SIDE, SIDE, 1))
    noisy = operator.apply(np.zeros((1, SIDE, SIDE), np.float32), parameters)
    assert_moments(noisy, 0, 0.01 * parameters["covariance"][0][0])


def test_speckle_across_channels_scales_with_each_channel():
    clean = colour(0.2, 0.5, 0.9)
    shared = degrade(SpeckleNoise(0.3, across_channels="shared"), clean) / clean - 1
    np.testing.assert_allclose(shared[..., 0], shared[..., 2], atol=1e-5)
    operator = SpeckleNoise(0.3, across_channels="correlated")
    parameters = operator.sample(generator(1, "a"), clean.shape)
    relative = to_image(operator.apply(to_planes(clean), parameters)).astype(np.float64) / clean - 1
    expected = 0.09 * np.array(parameters["covariance"])
    np.testing.assert_allclose(np.cov(relative.reshape(-1, 3).T), expected, atol=5e-3 * np.trace(expected))


def test_shared_poisson_noise_is_that_of_the_luma_on_every_channel():
    clean, photons = colour(0.2, 0.5, 0.9), 40
    noise = degrade(PoissonNoise(photons, across_channels="shared"), clean).astype(np.float64) - clean
    np.testing.assert_allclose(noise[..., 0], noise[..., 1], atol=1e-6)
    np.testing.assert_allclose(noise[..., 0], noise[..., 2], atol=1e-6)
    luma = 0.299 * 0.2 + 0.587 * 0.5 + 0.114 * 0.9
    assert_moments(noise[..., 0], 0, luma / photons, 3 + 1 / (luma * photons))


@pytest.mark.parametrize("scale", [0.05, 0.5, 3])
@pytest.mark.parametrize("across_channels", ["independent", "shared"])
def test_scaled_poisson_noise_keeps_its_mean_and_has_the_variance_times_the_square(scale, across_channels):
    noisy = degrade(PoissonNoise(256, across_channels=across_channels, scale=scale), colour(0.5, 0.5, 0.5))
    assert_moments(noisy[..., 1], 0.5, scale**2 * 0.5 / 256, 3 + 1 / 128)


def test_scaled_poisson_noise_of_a_grey_picture_is_the_same_shared_or_not():
    noisy = [degrade(PoissonNoise(256, word, 2.0), flat(0.5)).tobytes() for word in ("independent", "shared")]
    assert noisy[0] == noisy[1]


@pytest.mark.parametrize("values", ["salt_and_pepper", "uniform"])
def test_shared_impulses_hit_whole_pixels(values):
    hit = degrade(ImpulseNoise(0.2, across_channels="shared", values=values), colour(0.3, 0.3, 0.3)) != np.float32(0.3)
    assert (hit[..., 0] == hit[..., 1]).all()
    assert (hit[..., 0] == hit[..., 2]).all()
    assert abs(hit[..., 0].mean() - 0.2) < 5 * np.sqrt(0.2 * 0.8 / SAMPLES)


def test_salt_and_pepper_of_whole_pixels_is_white_and_black_without_colour():
    noisy = degrade(ImpulseNoise(0.2, 0.3, across_channels="shared"), colour(0.3, 0.4, 0.5))
    pixels = noisy.reshape(-1, 3)
    white, black = (pixels == 1).all(axis=1).mean(), (pixels == 0).all(axis=1).mean()
    assert abs(white - 0.06) < 5 * np.sqrt(0.06 * 0.94 / SAMPLES)
    assert abs(black - 0.14) < 5 * np.sqrt(0.14 * 0.86 / SAMPLES)


@pytest.mark.parametrize("across_channels", ["independent", "shared"])
def test_uniform_impulses_take_any_value(across_channels):
    noisy = degrade(ImpulseNoise(0.5, across_channels=across_channels, values="uniform"), colour(2, 2, 2))
    for channel in range(3):
        values = noisy[..., channel]
        assert stats.kstest(values[values != 2][:100_000], "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    "operator", [GaussianNoise(0.1), PoissonNoise(30), SpeckleNoise(0.2), ImpulseNoise(0.1)], ids=lambda each: each.name
)
def test_a_record_from_before_channels_were_named_gives_the_same_bytes(operator):
    parameters = operator.sample(generator(1, "a"), (24, 32, 3))
    old = {name: value for name, value in parameters.items() if name not in ("across_channels", "scale", "values")}
    planes = generator(2, "picture").random((3, 24, 32), dtype=np.float32)
    assert len(old) < len(parameters)
    assert operator.apply(planes, old).tobytes() == operator.apply(planes, parameters).tobytes()


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_an_unknown_operator_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="no degradation is called 'blurr'; known are gaussian_noise"):
        replay(to_planes(flat(0.5)), [{"blurr": {}}])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise(-0.1), "sigma: expected a number of at least 0, got -0.1"),
        (lambda: GaussianNoise(float("nan")), "sigma: expected a number of at least 0, got nan"),
        (lambda: GaussianNoise(Uniform(-1, 1)), "sigma: expected a number of at least 0, got -1"),
        (lambda: PoissonNoise(0), "photons: expected a number above 0 and of at most 1e+12, got 0"),
        (lambda: ImpulseNoise(0.1, salt=1.5), "salt: expected a number from 0 to 1, got 1.5"),
        (lambda: PoissonNoise(30, "gray"), "across_channels: 'gray' is not one of independent, shared"),
        (lambda: PoissonNoise(30, scale=-1), "scale: expected a number of at least 0, got -1"),
    ],
)
def test_a_number_outside_its_bounds_is_refused_when_the_operator_is_made(make, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        make()
