"""Sensor noise, banding, correlated noise and film grain against theory: mean, variance, autocorrelation."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import ndimage, stats

from models.degradation.grain import CorrelatedNoise, FilmGrain, autocorrelation, grain_field, grain_taps
from models.degradation.normals import standard_normal
from models.degradation.protocol import Operator
from models.degradation.sensor import TONE_CURVES, BandingNoise, SensorNoise, from_linear_light, to_linear_light
from transforms.randomness import generator

SIDE = 1000
SAMPLES = SIDE * SIDE


def flat(*values: float) -> np.ndarray:
    """Planes of one value each, float32."""
    return np.broadcast_to(np.array(values, np.float32)[:, np.newaxis, np.newaxis], (len(values), SIDE, SIDE)).copy()


def degrade(operator: Operator, planes: np.ndarray, key: str = "a") -> np.ndarray:
    channels, height, width = planes.shape
    return operator.apply(planes, operator.sample(generator(1, key), (height, width, channels)))


def assert_moments(
    values: np.ndarray, mean: float, variance: float, correlated: float = 1.0, spread: float = 1.0
) -> None:
    """Within 5 standard errors; `correlated` is the sum of rho over all lags, `spread` that of rho^2: 1 for white noise."""
    exact = values.astype(np.float64)
    assert abs(exact.mean() - mean) < 5 * np.sqrt(variance * correlated / exact.size)
    assert abs(exact.var() - variance) < 5 * variance * np.sqrt(2.1 * spread / exact.size)


def correlation(values: np.ndarray, rows: int, columns: int) -> float:
    """Sample autocorrelation of H x W values at a lag."""
    centred = values.astype(np.float64) - values.mean(dtype=np.float64)
    height, width = values.shape
    product = centred[rows:, columns:] * centred[: height - rows, : width - columns]
    return float(product.mean() / centred.var())


# --- correlated noise and grain -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["gaussian", "box"])
@pytest.mark.parametrize("length", [0, 0.3, 1, 2.5, 5])
def test_correlated_noise_has_the_variance_and_the_autocorrelation_of_theory(kernel, length):
    noise = degrade(CorrelatedNoise(0.1, length, kernel), flat(0.5))[0] - np.float32(0.5)
    rho = [autocorrelation(length, kernel, lag) for lag in range(50)]
    total, squares = 2 * sum(rho) - 1, 2 * sum(value**2 for value in rho) - 1
    assert_moments(noise, 0, 0.01, total**2, squares**2)
    bound = 5 * np.sqrt(2 * squares**2 / SAMPLES)
    for rows, columns in ((0, 1), (1, 0), (2, 0), (0, 3), (1, 1), (2, 3), (9, 0), (0, 30)):
        assert abs(correlation(noise, rows, columns) - rho[rows] * rho[columns]) < bound


def test_the_autocorrelation_of_a_gaussian_kernel_is_a_gaussian_of_twice_the_variance():
    for lag in range(8):
        assert autocorrelation(2.0, "gaussian", lag) == pytest.approx(np.exp(-(lag**2) / 16), abs=1e-4)


def test_the_autocorrelation_of_a_box_of_odd_side_is_a_triangle():
    assert [autocorrelation(5, "box", lag) for lag in range(7)] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0, 0])


def test_a_box_of_fractional_side_covers_its_outermost_pixels_in_part():
    np.testing.assert_allclose(grain_taps(2.5, "box"), np.array([0.75, 1, 0.75]) / np.sqrt(2.125))


def test_a_correlated_field_is_white_noise_through_the_kernel():
    taps = grain_taps(1.5, "gaussian")
    radius = len(taps) // 2
    white = standard_normal(generator(5, "a"), (2, 40 + 2 * radius, 50 + 2 * radius))
    kernel = np.outer(taps, taps)
    expected = [ndimage.convolve(each, kernel)[radius:-radius, radius:-radius] for each in white]
    np.testing.assert_allclose(grain_field((2, 40, 50), 1.5, "gaussian", generator(5, "a")), expected, atol=2e-5)


def test_pixels_at_the_border_have_the_variance_of_all_others():
    fields = np.concatenate([grain_field((50, 6, 5), 1.2, "gaussian", generator(1, str(key))) for key in range(80)])
    variances = fields.astype(np.float64).var(axis=0)
    assert np.abs(variances - 1).max() < 5 * np.sqrt(2 / len(fields))


def test_shared_correlated_noise_is_grey_and_independent_is_not():
    shared = degrade(CorrelatedNoise(0.1, 1.0, across_channels="shared"), flat(0.5, 0.5, 0.5))
    np.testing.assert_array_equal(shared[0], shared[2])
    own = degrade(CorrelatedNoise(0.1, 1.0), flat(0.5, 0.5, 0.5))
    assert abs(np.corrcoef(own[0].ravel(), own[1].ravel())[0, 1]) < 5 * np.sqrt(2 * np.pi / SAMPLES)


@pytest.mark.parametrize(("value", "sigma", "size"), [(0.5, 0.05, 0.8), (0.1, 0.1, 1.5), (0.9, 0.03, 0.0)])
def test_film_grain_has_the_variance_of_the_boolean_model_and_the_autocorrelation_of_its_size(value, sigma, size):
    grain = degrade(FilmGrain(sigma, size), flat(value))[0] - np.float32(value)
    rho = [autocorrelation(size, "gaussian", lag) for lag in range(20)]
    total, squares = 2 * sum(rho) - 1, 2 * sum(each**2 for each in rho) - 1
    assert_moments(grain, 0, 4 * sigma**2 * value * (1 - value), total**2, squares**2)
    for lag in (1, 2, 5):
        assert abs(correlation(grain, 0, lag) - rho[lag]) < 5 * np.sqrt(2 * squares**2 / SAMPLES)


def test_film_grain_leaves_black_white_and_what_is_beyond_as_it_is():
    planes = flat(0.0, 1.0, 1.2)
    np.testing.assert_array_equal(degrade(FilmGrain(0.1), planes), planes)


# --- sensor ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("light", "shot", "read"), [(0.3, 0.002, 0.01), (0.5, 0.0, 0.03), (0.4, 0.005, 0.0)])
@pytest.mark.parametrize("tone_curve", TONE_CURVES)
def test_sensor_noise_has_the_variance_a_z_plus_b2_in_linear_light(tone_curve, light, shot, read):
    planes = from_linear_light(flat(light), tone_curve)
    noisy = to_linear_light(degrade(SensorNoise(shot, read, tone_curve), planes), tone_curve)
    exact = float(to_linear_light(planes, tone_curve).mean(dtype=np.float64))
    assert_moments(noisy, exact, shot * exact + read**2)


def test_sensor_noise_counts_photons_with_poisson_frequencies():
    noisy = degrade(SensorNoise(0.05, 0.0, "linear"), flat(0.2))
    counts = np.bincount(np.rint(noisy / 0.05).astype(int).ravel(), minlength=21)
    expected = stats.poisson.pmf(np.arange(21), 4.0) * SAMPLES
    pooled = [*counts[:12], counts[12:].sum()], [*expected[:12], SAMPLES - expected[:12].sum()]
    assert stats.chisquare(*pooled).pvalue > 0.01


def test_white_balance_gains_amplify_the_noise_of_red_and_blue():
    shot, read, gains = 0.002, 0.01, (2.0, 1.0, 1.6)
    noisy = degrade(SensorNoise(shot, read, "linear", red_gain=gains[0], blue_gain=gains[2]), flat(0.4, 0.4, 0.4))
    for channel, gain in zip(noisy, gains, strict=True):
        assert_moments(channel, float(np.float32(0.4)), gain * shot * 0.4 + (gain * read) ** 2)


def test_gains_leave_a_grey_picture_alone():
    with_gains = degrade(SensorNoise(0.002, 0.01, red_gain=2.0, blue_gain=2.0), flat(0.4))
    assert with_gains.tobytes() == degrade(SensorNoise(0.002, 0.01), flat(0.4)).tobytes()


@pytest.mark.parametrize("tone_curve", TONE_CURVES)
def test_a_sensor_without_noise_shows_what_it_sees_and_clips_the_rest(tone_curve):
    planes = np.linspace(-0.2, 1.2, 1000, dtype=np.float32).reshape(1, 10, 100)
    seen = degrade(SensorNoise(0.0, 0.0, tone_curve), planes)
    np.testing.assert_allclose(seen, planes.clip(0, 1), atol=2e-5 if tone_curve == "smoothstep" else 2e-6)


def test_a_sensor_never_leaves_black_and_white():
    noisy = degrade(SensorNoise(0.05, 0.1), flat(0.0, 0.5, 1.0))
    assert noisy.min() == 0
    assert noisy.max() <= 1
    assert (noisy[0] == 0).mean() > 0.45  # read noise below black is cut off
    assert (noisy[2] > 0.999999).mean() > 0.45


def test_a_faint_photon_is_no_error():
    np.testing.assert_allclose(degrade(SensorNoise(1e-30, 0.0, "linear"), flat(0.5)), flat(0.5), atol=1e-6)


@pytest.mark.parametrize(
    ("tone_curve", "shown", "light"),
    [
        ("srgb", 0.5, 0.21404114),  # IEC 61966-2-1
        ("srgb", 0.04, 0.04 / 12.92),
        ("gamma", 0.5, 0.5**2.2),
        ("smoothstep", 0.5, 0.5**2.2),  # the S-curve crosses the straight line at one half
        ("smoothstep", 0.784, 0.7**2.2),  # 3 t^2 - 2 t^3 at t = 0.7
        ("linear", 0.3, 0.3),
    ],
)
def test_tone_curves_have_their_published_values(tone_curve, shown, light):
    assert to_linear_light(np.float32([shown]), tone_curve)[0] == pytest.approx(light, rel=1e-5)
    assert from_linear_light(np.float32([light]), tone_curve)[0] == pytest.approx(shown, rel=1e-5)


@pytest.mark.parametrize("tone_curve", TONE_CURVES)
def test_tone_curves_rise_from_black_to_white(tone_curve):
    shown = from_linear_light(np.linspace(0, 1, 5000, dtype=np.float32), tone_curve)
    assert shown[0] == 0
    assert shown[-1] == pytest.approx(1, abs=1e-6)
    assert (np.diff(shown) > -1e-7).all()


# --- banding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("across_channels", ["shared", "independent"])
def test_banding_adds_one_offset_to_each_row_and_each_column(across_channels):
    noise = degrade(BandingNoise(0.02, 0.01, across_channels), flat(0.5, 0.5, 0.5)).astype(np.float64) - 0.5
    rows, columns = noise.mean(axis=2, keepdims=True), noise.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(noise, rows + columns - noise.mean(axis=(1, 2), keepdims=True), atol=2e-7)
    for offsets, sigma in ((rows, 0.02), (columns, 0.01)):
        assert abs(offsets[0].var() / sigma**2 - 1) < 5 * np.sqrt(2 / SIDE)
        assert stats.kstest((offsets[0].ravel() - offsets[0].mean()) / offsets[0].std(), "norm").pvalue > 0.01
    assert np.array_equal(noise[0], noise[2]) == (across_channels == "shared")


def test_neighbours_in_a_row_share_its_band_and_diagonal_ones_share_nothing():
    shares, variance = [], 0.02**2 + 0.01**2
    for key in range(20):  # a picture has few rows: the mean over several
        noise = degrade(BandingNoise(0.02, 0.01), flat(0.0), str(key))[0].astype(np.float64)
        shares.append(
            [(noise * noise).mean(), *((noise[r:, c:] * noise[: SIDE - r, : SIDE - c]).mean() for r, c in LAGS)]
        )
    found = np.mean(shares, axis=0)
    expected = [variance, 0.02**2, 0.01**2, 0]
    # Products of 20,000 independent rows (or columns): a standard error of sqrt(2) sigma^2 / sqrt(20,000) at most.
    np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(2) * variance / np.sqrt(20 * SIDE))


LAGS = ((0, 1), (1, 0), (1, 1))


def test_rows_alone_leave_columns_alone():
    noisy = degrade(BandingNoise(0.02), flat(0.5))
    np.testing.assert_array_equal(noisy, np.broadcast_to(noisy[:, :, :1], noisy.shape))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CorrelatedNoise(0.1, -1), "length: expected a number from 0 to 256, got -1"),
        (lambda: CorrelatedNoise(0.1, 1, "disk"), "kernel: 'disk' is not one of gaussian, box"),
        (lambda: FilmGrain(-0.1), "sigma: expected a number of at least 0, got -0.1"),
        (lambda: SensorNoise(2, 0), "shot: expected a number from 0 to 1, got 2"),
        (lambda: SensorNoise(0, 0, "rec709"), "tone_curve: 'rec709' is not one of srgb, gamma, smoothstep, linear"),
        (lambda: SensorNoise(0, 0, red_gain=0), "red_gain: expected a number above 0, got 0"),
        (lambda: BandingNoise(0.1, -0.1), "sigma_columns: expected a number of at least 0, got -0.1"),
    ],
)
def test_a_setting_outside_its_bounds_is_refused_when_the_operator_is_made(make, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        make()
