"""Resizing against MATLAB's published pictures, Pillow, PyTorch and OpenCV; decimation against SciPy."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy import ndimage

from models.degradation.chains import InOrder, draw_steps, replay, shape_after
from models.degradation.distributions import Uniform, WordChoice
from models.degradation.sampling import GaussianDecimate, Resize, Resize8Bit
from models.recipes import Pair, load_recipe
from transforms.planes import to_numpy, to_planes
from transforms.planes.resampling import (
    RESIZE_KERNELS,
    resize_band,
    resize_planes,
    resize_planes_8bit,
    resize_planes_adjoint,
    resized,
)
from transforms.randomness import generator
from transforms.value_range import from_float

SIZES = ((11, 17), (37, 20), (80, 101), (1, 1), (23, 200))
PILLOW = {
    "pillow_bicubic": Image.Resampling.BICUBIC,
    "pillow_bilinear": Image.Resampling.BILINEAR,
    "pillow_box": Image.Resampling.BOX,
    "pillow_hamming": Image.Resampling.HAMMING,
    "pillow_lanczos": Image.Resampling.LANCZOS,
}
TORCH = {
    "torch_antialias_bicubic": {"mode": "bicubic", "antialias": True, "align_corners": False},
    "torch_antialias_bilinear": {"mode": "bilinear", "antialias": True, "align_corners": False},
    "opencv_cubic": {"mode": "bicubic", "align_corners": False},
    "opencv_linear": {"mode": "bilinear", "align_corners": False},
    "area": {"mode": "area"},
    "nearest": {"mode": "nearest-exact"},
}


@pytest.fixture(scope="module")
def planes() -> np.ndarray:
    return generator(1, "picture").random((3, 37, 53), dtype=np.float32)


@pytest.mark.data
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_published_low_resolution_pictures_of_set5_come_out_bit_for_bit(data_dir: Path, factor: int):
    folder = data_dir / "SelfExSR_Set5_LRHR" / f"image_SRF_{factor}"
    pictures = sorted(folder.glob("*_HR.png"))
    assert len(pictures) == 5
    for path in pictures:
        clean = np.array(Image.open(path).convert("RGB"))
        published = np.array(Image.open(str(path).replace("_HR", "_LR")).convert("RGB"))
        small = resize_planes_8bit(
            to_planes(clean / np.float32(255)), scale=1 / factor, kernel="matlab_bicubic", border="replicate"
        )
        differing = np.count_nonzero(np.rint(small * 255).astype(np.uint8) != np.moveaxis(published, 2, 0))
        assert differing == 0, path.name


@pytest.mark.data
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_super_resolution_recipes_make_the_published_pairs(data_dir: Path, factor: int):
    folder = data_dir / "SelfExSR_Set5_LRHR" / f"image_SRF_{factor}"
    for path in sorted(folder.glob("*_HR.png"))[:2]:
        clean, published = (
            np.array(Image.open(each).convert("RGB")) for each in (path, str(path).replace("_HR", "_LR"))
        )
        taller = np.pad(clean, ((0, 1), (0, 1), (0, 0)))  # the recipe crops it away again
        pair = load_recipe(f"sr-x{factor}").pair(taller, key=path.name, patch=0, seed=1)
        assert isinstance(pair, Pair)
        assert_array_equal(from_float(pair.degraded, np.uint8), published)
        assert_array_equal(from_float(pair.clean, np.uint8), clean)


def test_halving_has_the_weights_of_matlab_s_antialiased_cubic():
    band = resize_band(32, 16, "matlab_bicubic", "symmetric").dense()
    assert_allclose(band[8, 13:21] * 256, [-3, -9, 29, 111, 111, 29, -9, -3], atol=1e-12)
    assert not band[8, :13].any()
    assert not band[8, 21:].any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", PILLOW)
def test_the_pillow_kernels_are_pillow_s(planes, kernel, size):
    ours = resize_planes(planes, size=size, kernel=kernel)
    for mine, plane in zip(ours, planes, strict=True):
        assert_allclose(mine, np.array(Image.fromarray(plane).resize(size[::-1], PILLOW[kernel])), atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", TORCH)
def test_the_kernels_that_torch_has_are_torch_s(planes, kernel, size):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.functional.interpolate(torch.from_numpy(planes)[None], size=size, **TORCH[kernel])[0]
    assert_allclose(resize_planes(planes, size=size, kernel=kernel), theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "outputs", "expected"),
    [  # cv2.resize of 0, 1, 4, 9, 16, 25, 36 by OpenCV 5.0.0
        ("opencv_area", 3, [1, 9.571428, 28.428572]),
        ("opencv_cubic", 3, [0.35184997, 9, 29.462965]),
        ("opencv_linear", 3, [0.6666667, 9, 28.666668]),
        ("opencv_area", 10, [0, 0.5714286, 1.4285715, 4, 7.571429, 11, 16, 23.714287, 29.714285, 36]),
    ],
)
def test_the_opencv_kernels_are_opencv_s(kernel, outputs, expected):
    squares = np.arange(7, dtype=np.float32)[np.newaxis, np.newaxis] ** 2
    assert_allclose(resize_planes(squares, size=(1, outputs), kernel=kernel)[0, 0], expected, atol=2e-5)


def test_bicubic_is_four_different_things(planes):
    names = ("matlab_bicubic", "pillow_bicubic", "opencv_cubic")
    small = [resize_planes(planes, scale=0.4, kernel=name)[:, :14, :21] for name in names]
    assert all(np.abs(a - b).max() > 0.01 for a, b in pairwise(small))


@pytest.mark.parametrize("kernel", RESIZE_KERNELS)
@pytest.mark.parametrize("scale", [0.07, 1 / 3, 0.77, 1, 1.31, 4])
def test_a_flat_picture_stays_flat_at_any_scale(kernel, scale):
    flat = np.full((1, 30, 41), 0.625, np.float32)
    result = resize_planes(flat, scale=scale, kernel=kernel)
    assert_allclose(result, 0.625, atol=1e-6)
    assert result.shape[1:] == (resized(30, scale, kernel), resized(41, scale, kernel))


@pytest.mark.parametrize("kernel", RESIZE_KERNELS)
def test_the_same_size_is_the_same_picture(planes, kernel):
    assert_array_equal(resize_planes(planes, scale=1, kernel=kernel), planes)


@pytest.mark.parametrize("kernel", ["matlab_bicubic", "matlab_bilinear", "matlab_lanczos3", "opencv_cubic"])
def test_a_ramp_keeps_its_place_so_that_nothing_is_displaced(kernel):
    ramp = np.tile(np.arange(60, dtype=np.float32), (1, 8, 1))
    small = resize_planes(ramp, scale=0.5, kernel=kernel)
    assert_allclose(small[0, 2, 6:-6], np.arange(30)[6:-6] * 2 + 0.5, atol=0.02)


def test_matlab_s_kernels_round_sides_up_and_the_others_to_the_nearest():
    assert resized(10, 1 / 3, "matlab_bicubic") == 4
    assert resized(10, 1 / 3, "pillow_bicubic") == 3
    assert resized(30, 0.1, "matlab_box") == 3  # 30 * 0.1 is 3.0000000000000004
    assert resized(5, 0.01, "area") == 1


def test_the_two_borders_of_matlab_differ_at_the_border_only(planes):
    symmetric, replicate = (resize_planes(planes, scale=0.5, border=border) for border in ("symmetric", "replicate"))
    assert np.abs(symmetric - replicate)[:, :2].max() > 1e-3
    assert_array_equal(symmetric[:, 3:-3, 3:-3], replicate[:, 3:-3, 3:-3])


def test_the_adjoint_of_resizing_is_the_transpose(planes):
    y = generator(2, "y").standard_normal((3, 13, 18), dtype=np.float32)
    forward = resize_planes(planes, scale=1 / 3)
    backward = resize_planes_adjoint(y, (37, 53), scale=1 / 3)
    assert np.vdot(forward, y) == pytest.approx(np.vdot(planes, backward), rel=1e-4)


def test_8_bit_resizing_rounds_after_each_pass_rows_first(planes):
    dot = np.zeros((1, 8, 8), np.float32)
    dot[0, 3, 3] = 200 / 255
    small = np.rint(resize_planes_8bit(dot, scale=0.5) * 255)
    assert small[0, 1, 1] == np.floor(np.floor(200 * 111 / 256 + 0.5) * 111 / 256 + 0.5)
    assert small.min() == 0  # the negative lobes are clipped
    eight = np.rint(planes * 255) / np.float32(255)
    once = np.floor(resize_planes(eight, scale=0.5) * 255 + 0.5).clip(0, 255)
    assert np.mean(once != np.rint(resize_planes_8bit(eight, scale=0.5) * 255)) > 0.02


def test_8_bit_resizing_of_a_tensor_gives_the_same_bytes(planes):
    torch = pytest.importorskip("torch")
    array = resize_planes_8bit(planes, scale=1 / 3)
    assert array.dtype == np.float32
    assert_array_equal(to_numpy(resize_planes_8bit(torch.from_numpy(planes), scale=1 / 3)), array)


def test_8_bit_resizing_starts_with_the_side_that_shrinks_more(planes):
    taller, wider = resize_planes_8bit(planes, size=(30, 10)), resize_planes_8bit(planes, size=(5, 40))
    swapped = resize_planes_8bit(np.swapaxes(planes, 1, 2).copy(), size=(10, 30))
    assert_array_equal(np.swapaxes(swapped, 1, 2), taller)
    assert wider.shape == (3, 5, 40)


def test_a_chain_of_random_resizes_ends_at_an_exact_fraction_of_the_clean_picture():
    chain = InOrder(
        (
            Resize(Uniform(0.15, 1.5), "area"),
            GaussianDecimate(sigma=0.5, factor=2),
            Resize(0.25, "opencv_cubic", relative_to="clean"),
        )
    )
    for number in range(20):
        steps = draw_steps(chain, generator(1, "a", number), (120, 96, 3), (120, 96, 3))
        assert shape_after((120, 96, 3), steps) == (30, 24, 3)
        assert replay(np.zeros((3, 120, 96), np.float32), json.loads(json.dumps(steps))).shape == (3, 30, 24)


def test_the_kernel_that_was_drawn_is_recorded():
    operator = Resize(0.5, WordChoice(("area", "nearest")))
    drawn = [operator.sample(generator(1, "a", number), (10, 12, 3)) for number in range(20)]
    assert {each["kernel"] for each in drawn} == {"area", "nearest"}
    assert all(each["size"] == [5, 6] for each in drawn)


@pytest.mark.parametrize("kernel", ["bicubic", "pillow_nearest"])
def test_a_kernel_without_a_house_is_refused(kernel):
    with pytest.raises(ValueError, match="not one of"):
        Resize(0.5, kernel)
    with pytest.raises(ValueError, match="expected one of"):
        resize_planes(np.zeros((1, 4, 4), np.float32), scale=0.5, kernel=kernel)


def test_only_matlab_s_kernels_have_an_8_bit_variant():
    with pytest.raises(ValueError, match="not one of"):
        Resize8Bit(0.5, "pillow_bicubic")


def test_a_scale_and_a_size_at_once_are_refused():
    with pytest.raises(ValueError, match="one of them"):
        resize_planes(np.zeros((1, 4, 4), np.float32), scale=0.5, size=(2, 2))
    with pytest.raises(ValueError, match="one of them"):
        resize_planes(np.zeros((1, 4, 4), np.float32))


@pytest.mark.parametrize(
    ("factor", "offset", "first"), [(3, "centre", 1), (2, "centre", 1), (2, "first", 0), (4, "centre", 2)]
)
def test_decimation_is_scipy_s_gaussian_and_every_nth_pixel(planes, factor, offset, first):
    operator = GaussianDecimate(sigma=1.6, factor=factor, offset=offset)
    parameters = operator.sample(generator(1, "a"), (37, 53, 3))
    blurred = ndimage.gaussian_filter(planes.astype(np.float64), (0, 1.6, 1.6), mode="mirror", radius=(0, 7, 7))
    assert_allclose(operator.apply(planes, parameters), blurred[:, first::factor, first::factor], atol=2e-6)
    assert parameters["offset"] == offset


def test_decimation_takes_the_7x7_kernel_of_ircnn():
    parameters = GaussianDecimate(sigma=1.6, factor=3, size=7).sample(generator(1, "a"), (9, 9, 1))
    kernel = GaussianDecimate.arrays((9, 9, 1), parameters)["kernel"]
    assert kernel.shape == (7, 7)
    assert kernel[3, 3] / kernel[3, 4] == pytest.approx(np.exp(1 / (2 * 1.6**2)), rel=1e-5)
    impulse = np.zeros((1, 9, 9), np.float32)
    impulse[0, 4, 4] = 1
    assert GaussianDecimate.apply(impulse, parameters)[0, 1, 1] == pytest.approx(kernel[3, 3], rel=1e-5)


def test_resizing_a_whole_picture_needs_little_memory_beside_it():
    large = np.zeros((1, 3000, 4000), np.float32)
    tracemalloc.start()
    try:
        resize_planes(large, scale=1 / 4)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.6 * large.nbytes


def test_decimation_in_the_very_middle_of_a_cell_reads_between_its_pixels():
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32), (1, 40, 40)).copy()
    drawn = {"sigma": 1.0, "factor": 4, "size": 9, "offset": "middle", "boundary": "reflect"}
    small = GaussianDecimate.apply(ramp, drawn)
    np.testing.assert_allclose(small[0, 3, 2:8], 4 * np.arange(2, 8) + 1.5, atol=1e-3)
    shifted = GaussianDecimate.apply(ramp, drawn | {"offset": "centre"})
    np.testing.assert_allclose(shifted[0, 3, 2:8], 4 * np.arange(2, 8) + 2, atol=1e-3)
