"""Uniform blur against SciPy and closed forms, and the recipes that live on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage, signal

from models.degradation import blur_kernels, operator_class
from models.degradation.blur import ComposedBlur, DefocusBlur, GaussianBlur, LinearMotionBlur
from models.degradation.camera_shake import CameraShakeBlur, RandomWalkBlur, shaken_trajectory
from models.degradation.convolution import convolve
from models.degradation.distributions import Uniform, WordChoice
from models.degradation.motion_labels import (
    MotionLabelBlur,
    label_count,
    label_of_motion,
    motion_of_label,
    motion_of_vector,
    motion_vector,
)
from models.recipes import Pair, load_recipe
from transforms.planes.boundary import BOUNDARIES
from transforms.randomness import generator

SCIPY_MODES = {
    "reflect": "mirror",
    "symmetric": "reflect",
    "replicate": "nearest",
    "circular": "wrap",
    "zero": "constant",
}
SHAPE = (48, 56, 3)


@pytest.fixture(scope="module")
def planes() -> np.ndarray:
    return generator(1, "picture").random((3, 48, 56), dtype=np.float32)


def moments(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of columns to the right and rows upwards, about the origin."""
    rows, columns = np.indices(kernel.shape)
    place = np.stack([columns - kernel.shape[1] // 2, kernel.shape[0] // 2 - rows]).reshape(2, -1).astype(np.float64)
    mean = place @ kernel.ravel()
    away = place - mean[:, np.newaxis]
    return mean, (away * kernel.ravel()) @ away.T


def transfer(kernel: np.ndarray, frequency: float) -> complex:
    """The kernel's frequency response along a row, at radians per pixel."""
    columns = np.arange(kernel.shape[1]) - kernel.shape[1] // 2
    return complex(kernel.sum(axis=0) @ np.exp(-1j * frequency * columns))


@pytest.mark.parametrize("boundary", SCIPY_MODES)
@pytest.mark.parametrize("side", [(9, 9), (8, 13), (1, 30), (31, 61)])
def test_blur_is_scipy_s_convolution_at_every_boundary(planes, boundary, side):
    kernel = blur_kernels.normalised(generator(2, str(side)).random(side))
    expected = ndimage.convolve(planes.astype(np.float64), kernel[np.newaxis], mode=SCIPY_MODES[boundary])
    assert_allclose(convolve(planes, kernel, boundary), expected, atol=3e-6)


def test_a_valid_blur_is_the_middle_of_the_others(planes):
    operator = DefocusBlur(3.0, boundary="valid")
    parameters = operator.sample(generator(1, "a"), SHAPE)
    inner = operator.apply(planes, parameters)
    assert inner.shape == (3, 42, 50)
    assert operator.output_shape(SHAPE, parameters) == (42, 50, 3)
    whole = DefocusBlur.apply(planes, {**parameters, "boundary": "zero"})
    assert_allclose(inner, whole[:, 3:-3, 3:-3], atol=2e-6)
    with pytest.raises(ValueError, match="does not fit"):
        operator.output_shape((5, 5, 3), parameters)


@pytest.mark.parametrize("boundary", SCIPY_MODES)
@pytest.mark.parametrize("sigma", [0.4, 1.25, 3])
def test_gaussian_blur_is_scipy_s(planes, boundary, sigma):
    operator = GaussianBlur(sigma, boundary=boundary)
    reach = math.ceil(4 * sigma)
    expected = ndimage.gaussian_filter(
        planes.astype(np.float64), (0, sigma, sigma), mode=SCIPY_MODES[boundary], radius=(0, reach, reach)
    )
    assert_allclose(operator.apply(planes, operator.sample(generator(1, "a"), SHAPE)), expected, atol=2e-6)


def test_gaussian_blur_in_two_passes_is_the_convolution_with_its_kernel(planes):
    for boundary in BOUNDARIES:
        operator = GaussianBlur(1.7, 8, boundary=boundary)
        parameters = operator.sample(generator(1, "a"), SHAPE)
        whole = convolve(planes, operator.kernel(parameters), boundary)
        assert_allclose(operator.apply(planes, parameters), whole, atol=2e-6)


def test_a_gaussian_of_sigma_zero_changes_nothing(planes):
    operator = GaussianBlur(0)
    assert_array_equal(operator.apply(planes, operator.sample(generator(1, "a"), SHAPE)), planes)


@pytest.mark.parametrize("angle", [0, 30, 90, 135, -45])
def test_an_anisotropic_gaussian_has_its_covariance_turned_counter_clockwise(angle):
    kernel = blur_kernels.gaussian(3.0, 1.2, angle)
    turn = np.array(
        [
            [np.cos(np.radians(angle)), -np.sin(np.radians(angle))],
            [np.sin(np.radians(angle)), np.cos(np.radians(angle))],
        ]
    )
    mean, covariance = moments(kernel)
    assert_allclose(mean, 0, atol=1e-12)
    assert_allclose(covariance, turn @ np.diag([9, 1.44]) @ turn.T, atol=0.02)


def test_a_generalised_gaussian_of_beta_one_is_the_gaussian_and_of_large_beta_an_ellipse():
    assert_allclose(blur_kernels.generalised_gaussian(2, 1, 20, 1.0, 15), blur_kernels.gaussian(2, 1, 20, 15))
    flat = blur_kernels.generalised_gaussian(4, 3, 0, 60.0, 15)
    inside = blur_kernels.ellipse(4, 3, 0, 15) < 0.9
    assert np.ptp(flat[inside]) < 0.01 * flat.max()
    assert flat[blur_kernels.ellipse(4, 3, 0, 15) > 1.2].max() < 1e-6


def test_a_plateau_falls_to_half_at_its_ellipse():
    kernel = blur_kernels.plateau(4, 4, 0, 2.0, 21)
    assert kernel[10, 14] / kernel[10, 10] == pytest.approx(0.5)
    assert kernel[10, 18] / kernel[10, 10] == pytest.approx(1 / 17)


def test_the_sinc_passes_what_is_below_its_cutoff_and_stops_the_rest():
    kernel = blur_kernels.circular_sinc(np.pi / 2, 101)
    assert kernel.min() < 0
    for below in (0.0, 0.5, 1.0, 1.3):
        assert abs(transfer(kernel, below)) == pytest.approx(1, abs=0.08)
    for above in (1.9, 2.5, 3.1):
        assert abs(transfer(kernel, above)) < 0.05


@pytest.mark.parametrize("radius", [0.8, 1.0, 2.5, 3.37, 7])
def test_a_defocus_disk_has_the_disk_s_area_and_a_smooth_rim(radius):
    kernel = blur_kernels.disk(radius)
    half, fine = kernel.shape[0] // 2, 64
    steps = (np.arange(kernel.shape[0] * fine) + 0.5) / fine - half - 0.5
    inside = (steps**2 + steps[:, np.newaxis] ** 2 <= radius**2).astype(np.float64)
    share = inside.reshape(kernel.shape[0], fine, kernel.shape[0], fine).mean(axis=(1, 3))
    assert_allclose(kernel * np.pi * radius**2, share, atol=0.01)
    assert_allclose(kernel, kernel.T, atol=1e-15)
    assert_array_equal(kernel, kernel[::-1])
    assert kernel[0].any()  # no empty rows around


def test_the_first_zero_of_a_disk_s_transfer_function_is_where_bessel_has_it():
    kernel = blur_kernels.disk(7)
    assert abs(transfer(kernel, 3.8317 / 7)) < 5e-3
    assert transfer(kernel, 3.3 / 7).real > 0.05
    assert transfer(kernel, 4.4 / 7).real < -0.02


@pytest.mark.parametrize("radius", [0, 0.3, 0.5])
def test_a_disk_within_a_pixel_changes_nothing(planes, radius):
    operator = DefocusBlur(radius)
    assert_array_equal(operator.apply(planes, operator.sample(generator(1, "a"), SHAPE)), planes)


def test_a_kernel_that_a_caller_writes_to_does_not_spoil_the_next():
    for make in (lambda: blur_kernels.disk(2.0), lambda: blur_kernels.line(9, 30)):
        first = make()
        first[:] = 0
        assert make().sum() == pytest.approx(1)


@pytest.mark.parametrize("length", [1, 3, 9, 25])
def test_a_horizontal_motion_of_odd_length_is_a_row_of_equal_taps(length):
    assert_allclose(blur_kernels.line(length, 0), np.full((1, length), 1 / length), atol=1e-12)
    assert_allclose(blur_kernels.line(length, 90), np.full((length, 1), 1 / length), atol=1e-12)


def test_a_diagonal_motion_is_fspecial_s():
    # fspecial('motion', 3, 45) by hand: weight 1 - distance from the line, beyond its ends from the end.
    corner, side = 1 - (math.sqrt(2) - 1), 1 - math.hypot(math.sqrt(0.5), 1 - math.sqrt(0.5))
    expected = np.array([[0, side, corner], [side, 1, side], [corner, side, 0]])
    assert_allclose(blur_kernels.line(3, 45), expected / expected.sum(), atol=1e-12)


@pytest.mark.parametrize("angle", [15.0, 60, 110, 170])
def test_a_motion_points_counter_clockwise_and_has_no_sign(angle):
    kernel = blur_kernels.line(21, angle)
    assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-12)
    assert_allclose(kernel, blur_kernels.line(21, angle + 180), atol=1e-12)
    assert_allclose(kernel[:, ::-1], blur_kernels.line(21, 180 - angle), atol=1e-9)
    _, covariance = moments(kernel)
    axis = np.linalg.eigh(covariance)[1][:, 1]
    assert math.degrees(math.atan2(axis[1], axis[0])) % 180 == pytest.approx(angle, abs=1.5)
    assert covariance.trace() == pytest.approx(21**2 / 12, rel=0.05)


def test_there_are_73_and_361_motion_labels():
    assert label_count(1) == 12 * 6 + 1 == 73
    assert label_count(5) == 12 * 30 + 1 == 361


@pytest.mark.parametrize("rotations", [1, 5])
def test_labels_and_motions_are_one_to_one(rotations):
    motions = [motion_of_label(label, rotations) for label in range(label_count(rotations))]
    assert len(set(motions)) == label_count(rotations)
    assert {length for length, _ in motions} == set(range(1, 26, 2))
    assert [label_of_motion(*motion, rotations) for motion in motions] == list(range(label_count(rotations)))
    for label, motion in enumerate(motions):
        u, v = motion_vector(*motion)
        for sign in (1, -1):  # a motion and its opposite are the same blur
            assert label_of_motion(*motion_of_vector(sign * u, sign * v), rotations) == label
    with pytest.raises(ValueError, match="is not one of"):
        motion_of_label(label_count(rotations), rotations)


def test_the_361_labels_are_the_73_turned_by_multiples_of_6_degrees():
    coarse, fine = ({motion_of_label(label, n) for label in range(label_count(n))} for n in (1, 5))
    turned = {(length, (angle + 6 * k) % 180 if length > 1 else 0.0) for length, angle in coarse for k in range(5)}
    assert turned == fine


def test_all_73_motions_are_different_blurs():
    kernels = [blur_kernels.line(*motion_of_label(label, 1)) for label in range(73)]
    assert len({(kernel.shape, np.round(kernel, 9).tobytes()) for kernel in kernels}) == 73


def test_motion_labels_are_drawn_evenly_and_recorded_with_their_motion():
    operator = MotionLabelBlur()
    rng = generator(1, "labels")
    drawn = [operator.sample(rng, SHAPE) for _ in range(7300)]
    counts = np.bincount([each["label"] for each in drawn], minlength=73)
    assert ((counts - 100) ** 2 / 100).sum() < 117  # chi-square with 72 degrees of freedom: once in 1700 runs
    assert all(motion_of_label(each["label"], 1) == (each["length_px"], each["angle_deg"]) for each in drawn)


def test_camera_shake_leaves_the_picture_where_it_is():
    operator = CameraShakeBlur(anxiety=Uniform(0, 0.1), exposure=Uniform(0.01, 1))
    for number in range(10):
        kernel = operator.kernel(operator.sample(generator(1, "a", number), SHAPE))
        assert kernel.sum() == pytest.approx(1)
        assert kernel.min() >= 0
        assert_allclose(moments(kernel)[0], 0, atol=1e-9)


def test_a_calm_hand_draws_a_straight_line_as_long_as_the_exposure():
    for exposure in (0.25, 1.0):
        operator = CameraShakeBlur(size=64, anxiety=0, exposure=exposure)
        _, covariance = moments(operator.kernel(operator.sample(generator(1, "a"), SHAPE)))
        variances = np.linalg.eigvalsh(covariance)
        assert variances[1] == pytest.approx((60 * exposure) ** 2 / 12, rel=0.03)
        assert variances[0] < 0.3  # the width of a pixel


def test_a_trajectory_has_constant_speed_and_a_restless_hand_stays_nearer():
    paths = {
        anxiety: [shaken_trajectory(generator(1, "a", n), anxiety) for n in range(20)] for anxiety in (0.0, 0.005, 0.1)
    }
    for path in paths[0.1]:
        assert len(path) == 2000
        assert_allclose(np.abs(np.diff(path)), 60 / 1999, rtol=1e-6)
    reach = {anxiety: np.mean([abs(path[-1]) for path in several]) for anxiety, several in paths.items()}
    assert reach[0.0] == pytest.approx(60)
    assert reach[0.0] > reach[0.005] > reach[0.1]


def test_random_walks_have_the_size_that_was_drawn_and_each_patch_its_own():
    operator = RandomWalkBlur(Uniform(5, 21))
    kernels = []
    for number in range(30):
        parameters = operator.sample(generator(1, "a", number), SHAPE)
        kernel = operator.kernel(parameters)
        used = [np.flatnonzero(kernel.any(axis=axis)) for axis in (0, 1)]
        widths = [each[-1] - each[0] + 1 for each in used]
        assert parameters["size"] - 1 <= max(widths) <= parameters["size"] + 2
        mean, _ = moments(kernel)
        assert_allclose(mean, 0, atol=1e-9)  # nothing is displaced
        assert kernel.sum() == pytest.approx(1)
        kernels.append(kernel.tobytes())
    assert len(set(kernels)) == 30


def test_a_walk_that_never_turns_is_a_straight_line():
    operator = RandomWalkBlur(21, turn_deg=0)
    _, covariance = moments(operator.kernel(operator.sample(generator(1, "a"), SHAPE)))
    assert np.linalg.eigvalsh(covariance)[0] < 0.3


def test_a_walk_of_one_pixel_changes_nothing(planes):
    operator = RandomWalkBlur(1)
    assert_array_equal(operator.apply(planes, operator.sample(generator(1, "a"), SHAPE)), planes)


def test_a_composed_blur_has_the_full_convolution_of_its_members_kernels(planes):
    members = (DefocusBlur(2.3, boundary="circular"), RandomWalkBlur(15), GaussianBlur(0.8, 6))
    operator = ComposedBlur(members)
    parameters = operator.sample(generator(1, "a"), SHAPE)
    assert parameters["boundary"] == "circular"
    kernels = [operator_class(name).kernel(own) for step in parameters["members"] for name, own in step.items()]
    kernels[2] = np.pad(kernels[2], ((0, 1), (0, 1)))  # the origin of an even side is the second of its two middles
    expected = signal.convolve2d(signal.convolve2d(kernels[0], kernels[1]), kernels[2])
    assert_allclose(operator.kernel(parameters), expected, atol=1e-12)
    one_by_one = planes
    for step in parameters["members"]:
        ((name, own),) = step.items()
        one_by_one = operator_class(name).apply(one_by_one, {**own, "boundary": "circular"})
    assert_allclose(operator.apply(planes, parameters), one_by_one, atol=3e-6)


def test_a_composed_blur_without_members_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        ComposedBlur(())


def test_a_batch_of_different_boundaries_is_blurred_picture_by_picture(planes):
    operator = LinearMotionBlur(9, 30, boundary=WordChoice(("zero", "circular")))
    drawn = [operator.sample(generator(2, "b", number), SHAPE) for number in range(6)]
    assert len({each["boundary"] for each in drawn}) == 2
    together = operator.apply_each(np.stack([planes] * 6), drawn)
    for result, own in zip(together, drawn, strict=True):
        assert_allclose(result, operator.apply(planes, own), atol=2e-6)


@pytest.mark.parametrize(("name", "radii"), [("text-deblur", (0, 4)), ("text-deblur-slide", (5, 21))])
def test_each_text_patch_has_a_kernel_of_its_own_within_the_paper_s_ranges(photo, name, radii):
    recipe, kernels = load_recipe(name), []
    for patch in range(12):
        pair = recipe.pair(photo, key="page", patch=patch, seed=1)
        assert isinstance(pair, Pair)
        blur, noise, _ = pair.parameters["degradation"]
        defocus, walk = blur["composed_blur"]["members"]
        assert radii[0] <= defocus["defocus_blur"]["radius_px"] <= radii[1]
        assert 5 <= walk["random_walk_blur"]["size"] <= 21
        assert 0 <= noise["gaussian_noise"]["sigma"] <= 7 / 255
        kernel = ComposedBlur.kernel(blur["composed_blur"])
        assert max(kernel.shape) <= 2 * radii[1] + 21
        kernels.append(kernel.tobytes())
    assert len(set(kernels)) == 12


def test_a_motion_patch_carries_its_label_and_shows_its_blur(photo):
    recipe, changed = load_recipe("motion-patches"), []
    for patch in range(20):
        pair = recipe.pair(photo, key="a", patch=patch, seed=1)
        assert isinstance(pair, Pair)
        drawn = pair.parameters["degradation"][0]["motion_label_blur"]
        assert pair.degraded.shape == (30, 30, 3)
        assert motion_of_label(drawn["label"], 1) == (drawn["length_px"], drawn["angle_deg"])
        changed.append((drawn["length_px"] > 1) == (np.abs(pair.degraded - pair.clean).max() > 1 / 255))
    assert all(changed)
