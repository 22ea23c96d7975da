"""Colour against Pillow, scikit-image, colorsys and closed forms."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import color, exposure

from models.degradation import operator_class
from models.degradation.colour import fade_dyes, sepia_matrix
from models.degradation.layers import LUMA
from transforms.planes import to_planes

WHOLE_DYES = {"cyan": 1, "magenta": 1, "yellow": 1, "stain": 0, "black": 0.12}


@pytest.fixture(scope="module")
def planes(photo) -> np.ndarray:
    return to_planes(photo[100:300, 50:300].astype(np.float32) / np.float32(255))


def applied(name: str, planes: np.ndarray, **parameters: Any) -> np.ndarray:
    return operator_class(name).apply(planes, parameters)


def flat(*channels: float) -> np.ndarray:
    return np.array(channels, np.float32).reshape(-1, 1, 1) * np.ones((1, 4, 5), np.float32)


# --- grey -----------------------------------------------------------------------------------------------------------


def test_bt601_grey_is_pillows_within_its_rounding(photo, planes):
    pillow = np.asarray(Image.fromarray(photo[100:300, 50:300]).convert("L"), np.float32)
    grey = applied("grayscale", planes, weights="bt601_full", keep_channels="no")
    assert grey.shape == (1, 200, 250)
    assert np.abs(grey[0] * 255 - pillow).max() < 0.51


def test_bt709_grey_is_that_of_scikit_image(planes):
    grey = applied("grayscale", planes, weights="bt709", keep_channels="no")
    np.testing.assert_allclose(grey[0], color.rgb2gray(planes, channel_axis=0), atol=2e-4)


def test_average_grey_is_the_mean(planes):
    grey = applied("grayscale", planes, weights="average", keep_channels="no")
    np.testing.assert_allclose(grey[0], planes.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("name", ["grayscale", "hsv_value"])
def test_grey_that_keeps_its_channels_is_the_single_one_three_times(planes, name):
    one, three = (applied(name, planes, weights="bt601_full", keep_channels=keep) for keep in ("no", "yes"))
    np.testing.assert_allclose(three, np.repeat(one, 3, axis=0), atol=1e-7)


@pytest.mark.parametrize("name", ["grayscale", "hsv_value"])
@pytest.mark.parametrize("keep", ["no", "yes"])
def test_a_grey_picture_stays_grey_and_as_it_is(planes, name, keep):
    grey = planes[:1]
    np.testing.assert_array_equal(applied(name, grey, weights="bt601_full", keep_channels=keep), grey)


def test_hsv_value_is_that_of_colorsys_and_pillow(photo, planes):
    value = applied("hsv_value", planes, keep_channels="no")[0]
    for row, column in [(0, 0), (17, 200), (120, 3), (199, 249)]:
        assert value[row, column] == pytest.approx(colorsys.rgb_to_hsv(*planes[:, row, column].tolist())[2])
    pillow = np.asarray(Image.fromarray(photo[100:300, 50:300]).convert("HSV"))[..., 2]
    np.testing.assert_array_equal(np.rint(value * 255), pillow)


# --- fading ---------------------------------------------------------------------------------------------------------


def test_a_print_whose_dyes_are_all_there_looks_as_before(planes):
    np.testing.assert_allclose(applied("fading", planes, **WHOLE_DYES), planes, atol=2e-6)


def test_fading_keeps_a_share_of_each_dyes_density():
    kept = (0.5, 0.8, 0.3)
    faded = fade_dyes(flat(0.2, 0.4, 0.6), kept, black=0)
    np.testing.assert_allclose(np.log(faded[:, 0, 0]), np.array(kept) * np.log([0.2, 0.4, 0.6]), rtol=1e-5)


def test_fading_is_the_same_in_linear_light_and_in_gamma_encoded_samples(planes):
    encoded = np.clip(planes, 0.06, 1)
    there = fade_dyes(encoded**2.2, (0.6, 0.8, 0.7), black=0) ** (1 / 2.2)
    np.testing.assert_allclose(there, fade_dyes(encoded, (0.6, 0.8, 0.7), black=0), atol=1e-5)


def test_fading_lifts_black_and_leaves_white():
    parameters = WHOLE_DYES | {"cyan": 0.5}
    np.testing.assert_allclose(applied("fading", flat(1, 1, 1), **parameters), flat(1, 1, 1), atol=1e-6)
    black = applied("fading", flat(0, 0, 0), **parameters)[:, 0, 0]
    np.testing.assert_allclose(black, [(0.12**0.5 - 0.12) / 0.88, 0, 0], atol=1e-6)


def test_cyan_that_fades_leaves_a_red_cast(planes):
    change = applied("fading", planes, **(WHOLE_DYES | {"cyan": 0.5})) - planes
    assert change[0].mean() > 0.05
    np.testing.assert_allclose(change[1:], 0, atol=2e-6)


def test_a_yellow_stain_takes_blue_from_white():
    stained = applied("fading", flat(1, 1, 1), **(WHOLE_DYES | {"stain": 0.2}))
    np.testing.assert_allclose(stained[:, 0, 0], [1, 0.94, 0.8], atol=1e-6)


def test_noise_below_black_fades_to_finite_values():
    assert np.isfinite(applied("fading", flat(-0.5, -0.14, 1.4), **(WHOLE_DYES | {"cyan": 0.5, "black": 0}))).all()


# --- tone and cast --------------------------------------------------------------------------------------------------


def test_gamma_is_that_of_scikit_image_and_leaves_what_is_below_black_black(planes):
    np.testing.assert_allclose(
        applied("gamma", planes, gamma=1.7), exposure.adjust_gamma(planes, 1.7), rtol=1e-5, atol=1e-7
    )
    np.testing.assert_array_equal(applied("gamma", flat(-0.2), gamma=0.6), flat(0))


def test_brightness_and_contrast_turn_about_mid_grey_without_clipping():
    toned = applied("brightness_contrast", flat(0, 0.5, 1), brightness=0.1, contrast=1.2)
    np.testing.assert_allclose(toned[:, 0, 0], [0, 0.6, 1.2], atol=1e-6)


def test_a_cast_is_a_gain_for_each_channel(planes):
    cast = applied("colour_cast", planes, red=1.2, green=1, blue=0.8)
    np.testing.assert_allclose(cast, planes * np.array([1.2, 1, 0.8]).reshape(3, 1, 1), rtol=1e-6)


def test_sepia_is_the_common_matrix_over_its_greatest_row_sum():
    common = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
    np.testing.assert_allclose(sepia_matrix(1, 3), common / common.sum(axis=1).max(), atol=0.03)
    np.testing.assert_array_equal(sepia_matrix(0, 3), np.eye(3))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("fading", WHOLE_DYES | {"cyan": 0.5, "yellow": 0.7, "stain": 0.1}),
        ("colour_cast", {"red": 1.2, "green": 0.9, "blue": 0.8}),
        ("sepia", {"strength": 0.7}),
    ],
)
def test_a_grey_picture_becomes_the_luma_of_what_its_colour_twin_becomes(planes, name, parameters):
    grey = planes[1:2]
    twin = applied(name, np.repeat(grey, 3, axis=0), **parameters)
    luma = np.tensordot(LUMA, twin, axes=1)
    np.testing.assert_allclose(applied(name, grey, **parameters)[0], luma, atol=2e-6)
