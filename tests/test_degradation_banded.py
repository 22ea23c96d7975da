"""Banded matrices and convolution: the quick ways give what the plain definitions give."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from models.degradation import blur_kernels, convolution
from models.degradation.camera_shake import walk_kernel
from models.degradation.convolution import convolve
from models.degradation.noise import GaussianNoise
from models.recipes.patches import Cut, varies
from models.recipes.recipe import Recipe
from transforms.planes import windows
from transforms.planes.banded import apply_bands, apply_bands_adjoint, filter_band
from transforms.planes.boundary import BOUNDARIES, OUTSIDE, fill_margins, pad, source_index
from transforms.planes.resampling import RESIZE_KERNELS, resize_band
from transforms.randomness import generator

RNG = np.random.default_rng(0)
INSIDE = [boundary for boundary in BOUNDARIES if boundary != "valid"]


def matrix_by_definition(length, taps, boundary):
    """y(i) = sum_j taps(j) x(i + origin - j), a loop."""
    origin, side = len(taps) // 2, len(taps)
    outputs = range(side - 1 - origin, length - origin) if boundary == "valid" else range(length)
    matrix = np.zeros((len(outputs), length))
    for row, output in enumerate(outputs):
        for position, tap in enumerate(taps):
            (place,) = source_index(np.array([output + origin - position]), length, boundary)
            if place != OUTSIDE:
                matrix[row, place] += tap
    return matrix


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("length", "side"), [(1, 1), (9, 4), (16, 5), (50, 7), (70, 24), (200, 15)])
def test_a_filter_is_the_matrix_of_its_definition(boundary, length, side):
    taps = RNG.random(side)
    band, expected = filter_band(length, taps, boundary), matrix_by_definition(length, taps, boundary)
    np.testing.assert_allclose(band.dense(), expected, atol=1e-12)
    picture = RNG.random((2, length, length + 3)).astype(np.float32)
    np.testing.assert_allclose(apply_bands(picture, band, None), expected @ picture, atol=1e-5)
    np.testing.assert_allclose(
        apply_bands(picture.swapaxes(1, 2), None, band), picture.swapaxes(1, 2) @ expected.T, atol=1e-5
    )
    other = RNG.random((2, len(expected), 5)).astype(np.float32)
    np.testing.assert_allclose(apply_bands_adjoint(other, band, None), expected.T @ other, atol=1e-5)


@pytest.mark.parametrize("boundary", INSIDE)
@pytest.mark.parametrize("kept", [range(0, 100, 4), range(2, 100, 4), range(1, 100, 3), range(99, 100, 7)])
def test_every_nth_output_of_a_filter_is_every_nth_row(boundary, kept):
    taps = RNG.random(25)
    band = filter_band(100, taps, boundary).every(kept)
    expected = matrix_by_definition(100, taps, boundary)[kept]
    np.testing.assert_allclose(band.dense(), expected, atol=1e-12)
    picture = RNG.random((3, 100, 8)).astype(np.float32)
    np.testing.assert_allclose(apply_bands(picture, band, None), expected @ picture, atol=1e-5)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize(
    ("size", "sides"), [((40, 33), (7, 15)), ((17, 64), (6, 1)), ((3, 5), (3, 5)), ((8, 8), (5, 8))]
)
def test_a_filter_along_both_axes_is_the_product_of_both_matrices(boundary, step, size, sides):
    taps = [RNG.random(side) for side in sides]
    matrices = [matrix_by_definition(length, each, boundary) for length, each in zip(size, taps, strict=True)]
    kept = [range(step - 1 if len(matrix) >= step else 0, len(matrix), step) for matrix in matrices]
    bands = [
        filter_band(length, each, boundary).every(some) for length, each, some in zip(size, taps, kept, strict=True)
    ]
    picture = RNG.random((2, 3, *size)).astype(np.float32)
    expected = matrices[0][kept[0]] @ picture @ matrices[1][kept[1]].T
    np.testing.assert_allclose(apply_bands(picture, *bands), expected, rtol=1e-5, atol=1e-5)


def test_planes_are_filtered_and_convolved_alike_whether_together_or_one_by_one(monkeypatch):
    picture, taps, kernel = RNG.random((3, 70, 50)).astype(np.float32), RNG.random(9), RNG.random((9, 12))
    made = []
    for samples in (1, 1 << 20):
        monkeypatch.setattr(windows, "CACHED_SAMPLES", samples)
        monkeypatch.setattr(convolution, "CACHED_SAMPLES", samples)
        bands = [filter_band(side, taps, "reflect") for side in picture.shape[1:]]
        made.append((apply_bands(picture, *bands), convolve(picture, kernel, "symmetric")))
    np.testing.assert_array_equal(made[0][0], made[1][0])
    np.testing.assert_array_equal(made[0][1], made[1][1])


@pytest.mark.parametrize("boundary", INSIDE)
@pytest.mark.parametrize(
    ("before", "length", "after"), [(0, 5, 4), (3, 5, 0), (4, 5, 4), (7, 5, 12), (2, 1, 3), (0, 6, 0)]
)
def test_margins_hold_what_padding_puts_there(boundary, before, length, after):
    samples = RNG.random((2, length, length)).astype(np.float32)
    for axis in (-2, -1):
        expected = pad(samples, before, after, axis, boundary)
        padded = np.full_like(expected, np.nan)
        np.moveaxis(padded, axis, 0)[before : before + length] = np.moveaxis(samples, axis, 0)
        fill_margins(padded, before, length, axis, boundary)
        np.testing.assert_array_equal(padded, expected)


@pytest.mark.parametrize("kernel", RESIZE_KERNELS)
@pytest.mark.parametrize(("length", "outputs"), [(100, 25), (100, 33), (37, 50), (3, 90), (90, 1), (17, 17)])
def test_resizing_in_blocks_is_resizing_with_the_whole_matrix(kernel, length, outputs):
    band = resize_band(length, outputs, kernel, "symmetric")
    whole = np.zeros((outputs, length))
    for row in range(outputs):
        np.add.at(whole[row], band.indices[row], band.weights[row])
    picture = RNG.random((3, length, 11)).astype(np.float32)
    np.testing.assert_allclose(band.dense(), whole, atol=1e-12)
    np.testing.assert_allclose(apply_bands(picture, band, None), whole @ picture, atol=1e-5)


def test_outputs_that_read_nothing_are_black_whatever_was_in_memory():
    taps = np.zeros(151)
    taps[0] = 1  # reads 75 samples further on
    ruined = [np.full((3, 100, 100), np.nan, np.float32) for _ in range(4)]
    del ruined
    moved = apply_bands(np.ones((3, 100, 100), np.float32), filter_band(100, taps, "zero"), None)
    assert (moved[:, 25:] == 0).all()
    assert (moved[:, :25] == 1).all()


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.4, 0.9])
def test_narrow_gaussians_in_wide_kernels_have_no_denormal_numbers(sigma):
    kernels = [
        blur_kernels.gaussian_taps(sigma, 25),
        blur_kernels.gaussian_taps(sigma, 25, 0.5),
        blur_kernels.gaussian(sigma, 2 * sigma, 30, 25),
        blur_kernels.generalised_gaussian(sigma, sigma, 0, 2.0, 25),
    ]
    for kernel in kernels:
        assert kernel.sum() == pytest.approx(1, abs=1e-12)
        assert kernel[kernel > 0].min() > 1e-13
        assert kernel.shape[0] == 25


@pytest.mark.parametrize("boundary", INSIDE)
def test_zeros_around_a_kernel_change_nothing(boundary):
    picture, kernel = RNG.random((3, 60, 50)).astype(np.float32), RNG.random((5, 7))
    plain = convolve(picture, kernel, boundary)
    np.testing.assert_allclose(convolve(picture, np.pad(kernel, 6), boundary), plain, atol=1e-5)
    assert convolve(picture, np.pad(kernel, 6), "valid").shape == (3, 60 - 16, 50 - 18)
    assert not convolve(picture, np.zeros((5, 5)), boundary).any()


@pytest.mark.parametrize(("boundary", "mode"), [("reflect", "mirror"), ("circular", "wrap"), ("zero", "constant")])
@pytest.mark.parametrize(("shape", "sides"), [((128, 90), (9, 15)), ((128, 90), (15, 60)), ((31, 40), (5, 4))])
def test_small_and_large_kernels_convolve_as_scipy_does(boundary, mode, shape, sides):
    picture, kernel = RNG.random((2, *shape)).astype(np.float32), RNG.random(sides)
    kernel /= kernel.sum()
    expected = [scipy.ndimage.convolve(plane.astype(np.float64), kernel, mode=mode) for plane in picture]
    np.testing.assert_allclose(convolve(picture, kernel, boundary), expected, atol=2e-6)


def test_a_walk_that_ends_on_a_whole_pixel_has_a_kernel():
    for number in range(300):  # a straight one of 13 pixels ends on whole ones, some a rounding outside
        kernel = walk_kernel(generator(1, str(number)), 13, 0.0)
        assert max(kernel.shape) == 13
        assert kernel.min() >= 0
        assert kernel.sum() == pytest.approx(1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_clean_picture_shares_no_memory_with_its_source(dtype):
    samples = RNG.integers(0, 2, (20, 30, 1)).astype(dtype)
    before = samples.copy()
    pair = Recipe("r", GaussianNoise(0.1)).pair(samples, key="a", patch=0, seed=1)
    assert Cut.from_json(pair.parameters["cut"]).height == 20
    pair.clean[:] = 7
    np.testing.assert_array_equal(samples, before)


@pytest.mark.parametrize("shape", [(128, 128, 3), (20, 31, 1)])
def test_a_picture_varies_if_one_of_its_channels_does(shape):
    image = np.full(shape, 0.25, np.float32)
    image[..., -1] += RNG.normal(0, 0.1, shape[:2]).astype(np.float32)
    std = float(image[..., -1].astype(np.float64).std())
    for laid_out in (image, np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)):
        assert varies(laid_out, std - 1e-4)
        assert not varies(laid_out, std + 1e-4)
