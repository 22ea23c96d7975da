"""Depth, range and luma, against closed forms and scikit-image."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import rgb2ycbcr

from transforms.value_range import from_float, luma_bt601, to_float, to_u8


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_float_and_back_is_the_identity(dtype: type, top: int) -> None:
    every = np.arange(top + 1).astype(dtype)
    floats = to_float(every)
    assert floats.dtype == np.float32
    assert (floats[0], floats[-1]) == (0.0, 1.0)
    np.testing.assert_array_equal(floats, (np.arange(top + 1) / top).astype(np.float32))
    np.testing.assert_array_equal(from_float(floats, dtype), every)


def test_from_float_clips_and_rounds_half_to_even() -> None:
    values = np.array([-0.5, 0.0, 0.5 / 255, 1.5 / 255, 2.5 / 255, 254.5 / 255, 1.0, 7.0], np.float64)
    np.testing.assert_array_equal(from_float(values, np.uint8), [0, 0, 0, 2, 2, 254, 255, 255])
    assert from_float(values, np.uint16)[-1] == 65535


def test_float_samples_pass_as_they_are() -> None:
    values = np.array([-0.5, 0.25, 7.0], np.float32)
    assert to_float(values) is values
    np.testing.assert_array_equal(from_float(values, np.float32), values)


def test_to_u8_rounds_every_16_bit_value() -> None:
    every = np.arange(65536, dtype=np.uint16)
    expected = [round(Fraction(int(value), 257)) for value in every]
    np.testing.assert_array_equal(to_u8(every), expected)
    eight = np.arange(256, dtype=np.uint8)
    assert to_u8(eight) is eight
    np.testing.assert_array_equal(to_u8(eight.astype(np.float32) / 255), eight)


@pytest.mark.parametrize("dtype", [np.int16, np.float64, np.bool_])
def test_other_samples_are_refused(dtype: type) -> None:
    with pytest.raises(TypeError, match=np.dtype(dtype).name):
        to_float(np.zeros((2, 2, 3), dtype))


def test_luma_is_scikit_images(photo: NDArray[np.uint8]) -> None:
    reference = rgb2ycbcr(photo)[..., 0]
    luma = luma_bt601(photo)
    assert luma.dtype == np.uint8
    assert luma.shape == photo.shape[:2]
    assert np.abs(luma - reference).max() <= 0.5 + 1e-9
    np.testing.assert_allclose(luma_bt601(photo / 255.0) * 255, reference, atol=1e-9)
    single = luma_bt601(to_float(photo))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single * 255, reference, atol=1e-4)


def test_luma_of_black_and_white() -> None:
    ends = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)
    np.testing.assert_array_equal(luma_bt601(ends), [16, 235])
    np.testing.assert_allclose(luma_bt601(ends / 255.0), [16 / 255, 235 / 255], atol=1e-12)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 3), np.uint16)]
)
def test_luma_refuses_what_is_not_rgb(wrong: NDArray[np.generic]) -> None:
    with pytest.raises(TypeError):
        luma_bt601(wrong)
