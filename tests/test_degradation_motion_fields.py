"""Fields of motion, moving objects and turbulence against uniform blur, SciPy and theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from models.degradation import Uniform, taps
from models.degradation.blur_kernels import line
from models.degradation.convolution import convolve
from models.degradation.displacement import draw_field
from models.degradation.motion_fields import MotionFieldBlur, camera_motion, smear, smear_adjoint
from models.degradation.object_motion import ObjectMotionBlur, blob, drawn_object, move_object, move_object_adjoint
from models.degradation.turbulence import Turbulence, drawn_air, hufnagel_kernel, hufnagel_otf
from models.degradation.warps import FILLED, warp
from transforms.randomness import generator

SCIPY_MODES = {
    "reflect": "mirror",
    "symmetric": "reflect",
    "replicate": "nearest",
    "circular": "grid-wrap",
    "zero": "grid-constant",
}


def constant(u, v, size):
    return lambda first, last: (np.full((last - first, size[1]), float(u)), np.full((last - first, size[1]), float(v)))


def fixed(u, v):
    return lambda first, last: (u[first:last], v[first:last])


def noise(*shape):
    return np.random.default_rng(1).random(shape, dtype=np.float32)


def smooth(photo, side=128):
    picture = ndimage.gaussian_filter(photo.astype(np.float64) / 255, (2, 2, 0))[:side, 100 : 100 + side]
    return np.ascontiguousarray(picture.transpose(2, 0, 1), dtype=np.float32)


def relative_mismatch(forward, y, x, backward):
    a, b, c, d = (each.astype(np.float64).ravel() for each in (forward, y, x, backward))
    return abs(a @ b - c @ d) / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9)


# --- fields of motion -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", FILLED)
@pytest.mark.parametrize("length", [0, 1, 2.5, 3, 9, 24.3])
@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_a_constant_field_along_an_axis_is_uniform_linear_motion_blur(boundary, length, angle):
    x = noise(3, 40, 50)
    u, v = length * round(math.cos(math.radians(angle))), -length * round(math.sin(math.radians(angle)))
    expected = convolve(x, line(length, angle), boundary)
    np.testing.assert_allclose(smear(x, constant(u, v, (40, 50)), 25, boundary), expected, atol=2e-6)


def test_a_constant_slanting_field_is_close_to_uniform_linear_motion_blur(photo):
    x = smooth(photo)
    for length, angle in ((7, 30), (15, 45), (25, 100)):
        u, v = length * math.cos(math.radians(angle)), -length * math.sin(math.radians(angle))
        blurred = smear(x, constant(u, v, x.shape[1:]), 25, "reflect")
        # fspecial's line is a little wider and ends otherwise; the blur itself is twenty times as large.
        assert np.abs(blurred - convolve(x, line(length, angle), "reflect")).mean() < np.abs(blurred - x).mean() / 20


@pytest.mark.parametrize("boundary", FILLED)
def test_each_pixel_is_the_weighted_mean_of_scipys_samples_where_its_segment_crosses_the_columns(boundary):
    rng = np.random.default_rng(2)
    x, size = noise(1, 17, 23)[0], (17, 23)
    u, v = rng.uniform(-9, 9, size), rng.uniform(-9, 9, size)
    u[0, :5], v[0, :5] = [0, 0.3, 5, -5, 0], [0, 0.9, 5, 5, -7]
    result = smear(x[np.newaxis], fixed(u, v), 13, boundary)[0]
    rows, columns = np.mgrid[: size[0], : size[1]].astype(float)
    flat = abs(u) >= abs(v)
    major = np.where(flat, u, v)
    extent = np.maximum(abs(major), 1)
    safe = np.where(major == 0, 1, major)
    total = np.zeros(size)
    for step in range(-6, 7):
        # The share of the pixel `step` columns away that lies within the segment's extent.
        share = np.clip(np.minimum(step + 0.5, extent / 2) - np.maximum(step - 0.5, -extent / 2), 0, 1) / extent
        at = [rows + np.where(flat, step * v / safe, step), columns + np.where(flat, step, step * u / safe)]
        total += share * ndimage.map_coordinates(x.astype(float), at, order=1, mode=SCIPY_MODES[boundary])
    np.testing.assert_allclose(result, total, atol=2e-6)


def test_each_pixel_is_close_to_the_mean_along_its_segment(photo):
    x = smooth(photo)
    operator = MotionFieldBlur(translation_px=8, angle_deg=35, rotation_deg=8, zoom=0.05, wobble_px=2)
    parameters = operator.sample(generator(1, "a"), (128, 128, 3))
    u, v = operator.arrays((128, 128, 3), parameters)["motion"].astype(np.float64)
    rows, columns = np.mgrid[:128, :128]
    samples = (np.arange(200) + 0.5) / 200 - 0.5
    mean = [
        np.mean(
            [
                ndimage.map_coordinates(c.astype(float), [rows + t * v, columns + t * u], order=1, mode="mirror")
                for t in samples
            ],
            0,
        )
        for c in x
    ]
    blurred = operator.apply(x, parameters)
    assert np.abs(blurred - mean).max() < 0.01
    assert np.abs(blurred - x).max() > 0.1


def test_motion_by_less_than_a_pixel_leaves_the_picture_as_it_is():
    x = noise(3, 30, 30)
    angle = np.linspace(0, 7, 900).reshape(30, 30)
    np.testing.assert_allclose(smear(x, fixed(0.99 * np.cos(angle), 0.99 * np.sin(angle)), 25, "zero"), x, atol=1e-6)


def test_a_flat_picture_stays_flat_under_any_motion():
    flat = np.full((1, 60, 70), 0.7, np.float32)
    operator = MotionFieldBlur(
        translation_px=10, angle_deg=20, rotation_deg=20, zoom=0.2, wobble_px=5, correlation_px=4
    )
    for boundary in ("reflect", "symmetric", "replicate", "circular"):
        parameters = {**operator.sample(generator(1, "a"), (60, 70, 1)), "boundary": boundary}
        np.testing.assert_allclose(operator.apply(flat, parameters), flat, atol=2e-6)


@pytest.mark.parametrize("boundary", FILLED)
@pytest.mark.parametrize(("size", "channels"), [((1, 1), 1), ((1, 40), 3), ((5, 3), 1), ((60, 90), 3)])
def test_the_adjoint_of_a_field_of_motion_is_its_adjoint(boundary, size, channels):
    rng = np.random.default_rng(3)
    u, v = rng.uniform(-15, 15, size), rng.uniform(-15, 15, size)
    x, y = (rng.standard_normal((channels, *size)).astype(np.float32) for _ in range(2))
    backward = smear_adjoint(y, fixed(u, v), 22, boundary)
    assert relative_mismatch(smear(x, fixed(u, v), 22, boundary), y, x, backward) < 1e-6


def test_a_large_picture_is_smeared_in_chunks_with_the_same_result(monkeypatch):
    x, shape = noise(3, 90, 110), (90, 110, 3)
    operator = MotionFieldBlur(translation_px=8, angle_deg=40, rotation_deg=10, wobble_px=3, correlation_px=10)
    parameters = operator.sample(generator(1, "a"), shape)
    whole = operator.apply(x, parameters)
    monkeypatch.setattr(taps, "_CACHED_SAMPLES", 500)
    np.testing.assert_allclose(operator.apply(x, parameters), whole, atol=1e-6)


def test_motion_is_recorded_to_the_right_and_downwards():
    operator = MotionFieldBlur(translation_px=10, angle_deg=30)
    u, v = operator.arrays((20, 30, 3), operator.sample(generator(1, "a"), (20, 30, 3)))["motion"]
    np.testing.assert_allclose(u, 10 * math.cos(math.radians(30)), rtol=1e-6)
    np.testing.assert_allclose(v, -5, rtol=1e-6)  # counter-clockwise is upwards


def test_a_turning_and_zooming_camera_moves_each_pixel_by_its_distance_from_the_centre():
    size = (41, 61)
    y, x = np.mgrid[-20:21, -30:31].astype(float)
    u, v = camera_motion(size, (0, 0), 0.1, 0, 1000)(0, 41)
    np.testing.assert_allclose(np.hypot(u, v), 0.1 * np.hypot(x, y), atol=1e-9)
    np.testing.assert_allclose(u * x + v * y, 0, atol=1e-9)  # at right angles to the radius
    assert v[20, 60] < 0  # counter-clockwise: what is on the right goes up
    u, v = camera_motion(size, (0, 0), 0, 0.05, 1000)(0, 41)
    np.testing.assert_allclose((u, v), (0.05 * x, 0.05 * y), atol=1e-9)
    np.testing.assert_array_equal(camera_motion(size, (3, 4), 0.1, 0.05, 1000)(20, 21)[0][0, 30], 3)


def test_no_motion_is_longer_than_the_bound_and_shorter_ones_are_kept():
    operator = MotionFieldBlur(translation_px=9, angle_deg=10, rotation_deg=30, wobble_px=4, max_length_px=12)
    parameters = operator.sample(generator(1, "a"), (100, 100, 1))
    bounded = operator.arrays((100, 100, 1), parameters)["motion"]
    free = operator.arrays((100, 100, 1), {**parameters, "max_length_px": 1e6})["motion"]
    length = np.hypot(*free)
    assert np.hypot(*bounded).max() <= 12 + 1e-5
    assert 0.2 < (length > 12).mean() < 0.95
    np.testing.assert_allclose(bounded[:, length < 12], free[:, length < 12], rtol=1e-5)
    np.testing.assert_allclose(bounded[0] * free[1], bounded[1] * free[0], atol=1e-3)  # the direction stays


# --- smooth random displacement -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1.0, 3.7, 8.0])
def test_a_smooth_field_has_the_variance_and_correlation_of_filtered_white_noise(sigma):
    side = 160
    fields = np.stack([draw_field(generator(1, f"{i}"), (side, side), sigma).rows(0, side) for i in range(100)])
    assert abs(fields.mean()) < 0.05
    assert fields.var() == pytest.approx(1, abs=0.06)
    for lag in (1, round(sigma), round(2 * sigma)):
        for shifted in (fields[:, lag:] * fields[:, :-lag], fields[:, :, lag:] * fields[:, :, :-lag]):
            assert shifted.mean() == pytest.approx(math.exp(-((lag / sigma) ** 2) / 4), abs=0.06)


@pytest.mark.parametrize("sigma", [1.0, 5.3, 32.0])
def test_the_lattice_of_a_smooth_field_cannot_be_seen(sigma):
    # The covariance itself, from the weights: that of filtered white noise at every pair of places.
    weights = draw_field(np.random.default_rng(1), (1, 200), sigma).columns.dense()
    places = np.arange(200)
    expected = np.exp(-((places[:, None] - places) ** 2) / (4 * sigma**2))
    np.testing.assert_allclose(weights @ weights.T, expected, atol=2e-4)


def test_rows_of_a_smooth_field_do_not_depend_on_which_others_are_asked_for():
    field = draw_field(generator(1, "a"), (70, 90), 6.0)
    np.testing.assert_allclose(field.rows(30, 33), field.rows(0, 70)[30:33], atol=1e-12)


# --- moving objects -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", FILLED)
@pytest.mark.parametrize(("length", "share"), [(Uniform(5, 14), Uniform(0.1, 0.7)), (30, 0.05)])
def test_a_moving_object_is_its_transparency_times_itself_over_the_background(boundary, length, share):
    x, shape = noise(3, 60, 75), (60, 75, 3)
    operator = ObjectMotionBlur(length_px=length, angle_deg=Uniform(0, 180), share=share, boundary=boundary)
    for key in "abcdef":
        parameters = operator.sample(generator(1, key), shape)
        (rows, columns), part, kernel = drawn_object(shape[:2], parameters)
        mask = np.zeros(shape[:2], np.float32)
        mask[rows, columns] = part
        expected = (1 - convolve(mask, kernel, boundary)) * x + convolve(mask * x, kernel, boundary)
        moved = operator.apply(x, parameters)
        np.testing.assert_allclose(moved, expected, atol=3e-6)
        np.testing.assert_allclose(moved, move_object(x, mask, kernel, boundary), atol=3e-6)
        y = noise(3, 60, 75)[::-1]
        back = operator.adjoint(y, parameters, shape)
        np.testing.assert_allclose(back, move_object_adjoint(y, mask, kernel, boundary), atol=3e-6)
        assert relative_mismatch(moved, y, x, back) < 1e-6


def test_what_no_part_of_the_object_passes_stays_as_it_is_and_its_inside_is_blurred_as_a_whole():
    x, shape = noise(3, 120, 120), (120, 120, 3)
    operator = ObjectMotionBlur(length_px=9, angle_deg=0, share=0.3)
    parameters = operator.sample(generator(1, "a"), shape)
    arrays = operator.arrays(shape, parameters)
    moved = operator.apply(x, parameters)
    intact = arrays["mask"] == 255
    assert 0.3 < intact.mean() < 0.7
    np.testing.assert_allclose(moved[:, intact], x[:, intact], atol=1e-3)
    (rows, columns), part, _ = drawn_object(shape[:2], parameters)
    inside = np.zeros(shape[:2], bool)
    inside[rows, columns] = part == 1
    inside = ndimage.binary_erosion(inside, np.ones((1, 11)))
    assert inside.mean() > 0.15
    np.testing.assert_allclose(moved[:, inside], convolve(x, line(9, 0), "reflect")[:, inside], atol=3e-6)
    np.testing.assert_array_equal(arrays["kernel"], line(9, 0).astype(np.float32))


def test_an_object_that_does_not_move_changes_nothing():
    x = noise(3, 50, 50)
    operator = ObjectMotionBlur(length_px=1, angle_deg=77)
    parameters = operator.sample(generator(1, "a"), (50, 50, 3))
    np.testing.assert_allclose(operator.apply(x, parameters), x, atol=1e-6)


@pytest.mark.parametrize(("share", "roughness"), [(0.02, 0.0), (0.1, 0.2), (0.25, 0.3), (0.15, 1.0)])
def test_the_object_covers_the_share_of_the_picture_that_was_asked_for(share, roughness):
    for key in "abcdef":
        place, covered = blob((300, 400), share, roughness, generator(1, key))
        assert covered.shape == tuple(each.stop - each.start for each in place)
        assert covered.sum() == pytest.approx(share * 300 * 400, rel=0.01)
        edges = np.concatenate([covered[0], covered[-1], covered[:, 0], covered[:, -1]])
        assert edges.max() == 0  # nothing is cut off
        assert ndimage.label(covered > 0.5)[1] == 1


def test_a_disk_of_an_object_is_round_and_its_rim_anti_aliased():
    (rows, columns), covered = blob((200, 200), math.pi * 50**2 / 200**2, 0.0, generator(1, "a"))
    middle = np.array(ndimage.center_of_mass(covered))
    distance = np.hypot(*(np.indices(covered.shape) - middle[:, None, None]))
    np.testing.assert_allclose(covered, np.clip(50.5 - distance, 0, 1), atol=0.02)
    assert 50 <= rows.start + middle[0] <= 149
    assert 50 <= columns.start + middle[1] <= 149


# --- turbulence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.00025, 0.001, 0.0025])
def test_the_kernel_of_turbulence_has_hufnagels_transfer_function(strength):
    kernel = hufnagel_kernel(strength)
    assert kernel.sum() == pytest.approx(1)
    side = 480  # so that frequencies count whole waves in the book's picture
    padded = np.zeros((side, side))
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    padded = np.roll(padded, [-(each // 2) for each in kernel.shape], (0, 1))
    response = np.fft.fft2(padded)
    u, v = np.meshgrid(np.arange(200), np.arange(200))
    expected = np.exp(-strength * (u**2 + v**2) ** (5 / 6))
    np.testing.assert_allclose(response.real[:200, :200], expected, atol=0.01)  # the kernel's tails are cut
    np.testing.assert_allclose(response.imag, 0, atol=1e-12)


def test_half_contrast_lies_where_the_book_has_it():
    # exp(-k w^(5/3)) = 1/2 at w = (ln 2 / k)^(3/5) waves per picture of 480 pixels.
    waves = (math.log(2) / 0.0025) ** 0.6
    assert waves == pytest.approx(29.2, abs=0.05)
    assert hufnagel_otf(0.0025, np.array(waves / 480)) == pytest.approx(0.5)


def test_still_air_leaves_the_picture_as_it_is():
    x = noise(3, 40, 60)
    operator = Turbulence(strength=0, tilt_px=0)
    parameters = operator.sample(generator(1, "a"), (40, 60, 3))
    np.testing.assert_allclose(operator.apply(x, parameters), x, atol=1e-6)
    np.testing.assert_allclose(operator.adjoint(x, parameters, (40, 60, 3)), x, atol=1e-6)


def test_turbulence_tilts_then_blurs():
    x, shape = noise(3, 90, 70), (90, 70, 3)
    operator = Turbulence(strength=0.001, tilt_px=2, correlation_px=8, sampling="bicubic")
    parameters = operator.sample(generator(1, "a"), shape)
    arrays = operator.arrays(shape, parameters)
    right, down = arrays["motion"].astype(np.float64)
    places = (np.arange(90)[:, None] + down, np.arange(70) + right)
    tilted = warp(x, lambda a, b: (places[0][a:b].copy(), places[1][a:b].copy()), (90, 70), "reflect", "bicubic")
    expected = convolve(tilted, arrays["kernel"], "reflect")
    np.testing.assert_allclose(operator.apply(x, parameters), expected, atol=1e-5)


def test_the_displacement_has_the_standard_deviation_and_the_width_that_were_drawn():
    operator = Turbulence(strength=0.001, tilt_px=3, correlation_px=10)
    shape = (150, 150, 1)
    drawn = np.stack(
        [operator.arrays(shape, operator.sample(generator(1, f"{i}"), shape))["motion"] for i in range(60)]
    )
    assert drawn.std(axis=(0, 2, 3)) == pytest.approx([3, 3], rel=0.06)
    assert (drawn[:, 0] * drawn[:, 1]).mean() / 9 == pytest.approx(0, abs=0.06)
    assert (drawn[..., 10:] * drawn[..., :-10]).mean() / 9 == pytest.approx(math.exp(-1 / 4), abs=0.06)


def test_uneven_air_blurs_between_its_two_extremes(photo):
    x, shape = smooth(photo), (128, 128, 3)
    operator = Turbulence(strength=0.001, tilt_px=0, unevenness=0.9, correlation_px=10)
    parameters = operator.sample(generator(1, "a"), shape)
    share = drawn_air((128, 128), parameters)[1]
    assert share is not None
    assert share.min() < 0.1
    assert share.max() > 0.9
    assert share.mean() == pytest.approx(0.5, abs=0.1)
    weak, strong = (convolve(x, hufnagel_kernel(k), "reflect") for k in (0.0001, 0.0019))
    np.testing.assert_allclose(operator.apply(x, parameters), (1 - share) * weak + share * strong, atol=1e-5)
    even = {**parameters, "unevenness": 0}
    np.testing.assert_array_equal(operator.arrays(shape, even)["motion"], operator.arrays(shape, parameters)["motion"])


@pytest.mark.parametrize("boundary", ["reflect", "symmetric", "replicate", "circular"])
def test_a_flat_picture_stays_flat_in_any_air(boundary):
    flat = np.full((1, 50, 64), 0.3, np.float32)
    operator = Turbulence(
        strength=0.0025, tilt_px=5, correlation_px=8, unevenness=1, sampling="bicubic", boundary=boundary
    )
    parameters = operator.sample(generator(1, "a"), (50, 64, 1))
    np.testing.assert_allclose(operator.apply(flat, parameters), flat, atol=2e-6)


@pytest.mark.parametrize(
    "operator",
    [
        MotionFieldBlur(translation_px=10, angle_deg=Uniform(0, 360), rotation_deg=10, wobble_px=3),
        ObjectMotionBlur(length_px=12, angle_deg=Uniform(0, 180)),
        Turbulence(strength=0.002, tilt_px=4, correlation_px=8),
        Turbulence(strength=0.002, tilt_px=4, unevenness=0.5, sampling="bicubic"),
    ],
)
@pytest.mark.parametrize("boundary", FILLED)
@pytest.mark.parametrize("shape", [(1, 30, 1), (33, 2, 3), (100, 64, 3)])
def test_the_adjoint_of_a_drawn_operator_is_its_adjoint_for_small_and_oblong_pictures(operator, boundary, shape):
    rng = np.random.default_rng(4)
    for key in "ab":
        parameters = {**operator.sample(generator(1, key), shape), "boundary": boundary}
        x, y = (rng.standard_normal((shape[2], *shape[:2])).astype(np.float32) for _ in range(2))
        assert relative_mismatch(operator.apply(x, parameters), y, x, operator.adjoint(y, parameters, shape)) < 2e-6
