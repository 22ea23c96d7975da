"""Warps against SciPy and scikit-image; lenses, fisheyes and jitter against closed forms, and back again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage import transform

from models.degradation import Uniform, taps
from models.degradation.distributions import Normal
from models.degradation.geometry import AffineJitter, Geometry, affine_matrix, homography, reading_of
from models.degradation.lenses import (
    PROJECTIONS,
    Fisheye,
    LensDistortion,
    bend,
    distorted,
    unbend,
    undistorted,
    widest_radius,
)
from models.degradation.perspective import PerspectiveJitter, _homography, quadrilateral_matrix, turned_plane_matrix
from models.degradation.warps import FILLED, SAMPLINGS, warp, warp_adjoint
from transforms.randomness import generator

SCIPY_MODES = {
    "reflect": "mirror",
    "symmetric": "reflect",
    "replicate": "nearest",
    "circular": "grid-wrap",
    "zero": "grid-constant",
}

GEOMETRIES: list[Geometry] = [
    LensDistortion(k1=Uniform(-0.12, 0.2), p1=Uniform(-0.004, 0.004), p2=Uniform(-0.004, 0.004)),
    LensDistortion(k1=-0.2, k2=0.15, k3=0.05),
    *(Fisheye(field_of_view_deg=110, projection=each) for each in PROJECTIONS),
    AffineJitter(rotation_deg=Normal(0, 5), scale=Uniform(0.9, 1.1), shear=Uniform(-0.1, 0.1), shift_x_px=3.4),
    PerspectiveJitter(pitch_deg=Normal(0, 4), yaw_deg=Normal(0, 4), roll_deg=Normal(0, 1), corner_shift=0.05),
]


def label(operator: Geometry) -> str:
    return f"{operator.name}-{getattr(operator, 'projection', '')}"


def fixed(rows, columns):
    """Places as a reading of rows."""
    return lambda first, last: (rows[first:last].copy(), columns[first:last].copy())


def smooth_photo(photo, side=256):
    picture = ndimage.gaussian_filter(photo.astype(np.float64) / 255, (2, 2, 0))[:side, 40 : 40 + side]
    return np.ascontiguousarray(picture.transpose(2, 0, 1), dtype=np.float32)


# --- reading between the pixels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", FILLED)
def test_bilinear_reading_is_scipys_however_far_outside(boundary):
    rng = np.random.default_rng(1)
    x = rng.random((2, 13, 21), dtype=np.float32)
    rows, columns = rng.uniform(-70, 90, (30, 40)), rng.uniform(-90, 110, (30, 40))
    rows[0, :4], columns[0, :4] = [-1, -0.5, 12, 12.5], [20, 20.5, 21, -1]
    expected = [
        ndimage.map_coordinates(c.astype(np.float64), [rows, columns], order=1, mode=SCIPY_MODES[boundary]) for c in x
    ]
    np.testing.assert_allclose(warp(x, fixed(rows, columns), (30, 40), boundary, "bilinear"), expected, atol=1e-6)


@pytest.mark.parametrize("boundary", FILLED)
def test_bicubic_reading_is_keys_convolution_of_the_lengthened_picture(boundary):
    rng = np.random.default_rng(2)
    x = rng.random((9, 11))
    rows, columns = rng.uniform(-8, 16, (20, 25)), rng.uniform(-10, 20, (20, 25))
    mode = {"reflect": "reflect", "symmetric": "symmetric", "replicate": "edge", "circular": "wrap", "zero": "constant"}
    wide = np.pad(x, 16, mode=mode[boundary])

    def keys(d):
        d = abs(d)
        near = 1.5 * d**3 - 2.5 * d**2 + 1
        return np.where(d <= 1, near, np.where(d <= 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))

    at = np.arange(wide.shape[0]) - 16, np.arange(wide.shape[1]) - 16
    expected = np.einsum("abi,ij,abj->ab", keys(rows[..., None] - at[0]), wide, keys(columns[..., None] - at[1]))
    result = warp(x[np.newaxis].astype(np.float32), fixed(rows, columns), (20, 25), boundary, "bicubic")[0]
    np.testing.assert_allclose(result, expected, atol=2e-6)


@pytest.mark.parametrize(("sampling", "order"), [("bilinear", 1), ("bicubic", 3)])
def test_an_affine_warp_is_scikit_images(photo, sampling, order):
    x = smooth_photo(photo, 96)
    operator = AffineJitter(rotation_deg=12, scale=1.1, shear=0.07, shift_x_px=2.3, shift_y_px=-4.1, sampling=sampling)
    parameters = operator.sample(generator(1, "a"), (96, 96, 3))
    matrix = affine_matrix(12, 1.1, 0.07, (2.3, -4.1))
    to_centre = np.array([[1, 0, 47.5], [0, 1, 47.5], [0, 0, 1]])
    inverse = to_centre @ np.linalg.inv(matrix) @ np.linalg.inv(to_centre)
    expected = transform.warp(x.transpose(1, 2, 0).astype(np.float64), inverse, order=order).transpose(2, 0, 1)
    inner = np.s_[:, 20:-20, 20:-20]  # outside, scikit-image fills and rounds in its own way
    np.testing.assert_allclose(operator.apply(x, parameters)[inner], expected[inner], atol=2e-6)


@pytest.mark.parametrize("boundary", FILLED)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(("size", "channels"), [((1, 1), 1), ((1, 9), 3), ((2, 3), 1), ((37, 20), 3), ((150, 230), 1)])
def test_the_adjoint_of_a_warp_is_its_adjoint(boundary, sampling, size, channels):
    rng = np.random.default_rng(3)
    output = (size[0] + 3, size[1] + 1)
    rows, columns = rng.uniform(-1.5 * size[0], 2.5 * size[0], output), rng.uniform(-6, size[1] + 6, output)
    x = rng.standard_normal((channels, *size)).astype(np.float32)
    y = rng.standard_normal((channels, *output)).astype(np.float32)
    forward = warp(x, fixed(rows, columns), output, boundary, sampling).astype(np.float64)
    backward = warp_adjoint(y, fixed(rows, columns), size, boundary, sampling).astype(np.float64)
    scale = np.linalg.norm(forward) * np.linalg.norm(y) + 1e-9
    assert abs(np.vdot(forward, y) - np.vdot(x, backward)) / scale < 1e-6


def test_the_adjoint_of_a_warp_is_the_transposed_matrix():
    rng = np.random.default_rng(4)
    rows, columns = rng.uniform(-3, 9, (4, 5)), rng.uniform(-3, 9, (4, 5))
    reading = fixed(rows, columns)
    matrix = np.stack([warp(e.reshape(1, 6, 7), reading, (4, 5), "reflect", "bicubic").ravel() for e in np.eye(42)], 1)
    adjoint = np.stack(
        [warp_adjoint(e.reshape(1, 4, 5), reading, (6, 7), "reflect", "bicubic").ravel() for e in np.eye(20)], 1
    )
    np.testing.assert_allclose(adjoint, matrix.T, atol=1e-7)


def test_a_large_picture_is_warped_in_chunks_with_the_same_result(monkeypatch):
    x = np.random.default_rng(5).random((3, 200, 300), dtype=np.float32)
    for operator in GEOMETRIES:
        parameters = operator.sample(generator(2, "a"), (200, 300, 3))
        results = []
        for samples in (300, 7000, 1 << 20):
            monkeypatch.setattr(taps, "_CACHED_SAMPLES", samples)
            results.append((operator.apply(x, parameters), operator.adjoint(x, parameters, (200, 300, 3))))
        for forward, backward in results[1:]:
            np.testing.assert_allclose(forward, results[0][0], atol=1e-6)
            np.testing.assert_allclose(backward, results[0][1], atol=1e-5)


def test_an_unknown_boundary_or_sampling_is_named():
    x = np.zeros((1, 4, 4), np.float32)
    for boundary, sampling in (("valid", "bilinear"), ("reflect", "nearest")):
        with pytest.raises(ValueError, match=f"{boundary}.*{sampling}.*expected"):
            warp(x, fixed(np.zeros((4, 4)), np.zeros((4, 4))), (4, 4), boundary, sampling)


# --- all geometries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(
    "operator",
    [
        lambda **s: LensDistortion(k1=0, **s),
        lambda **s: AffineJitter(**s),
        lambda **s: PerspectiveJitter(**s),
    ],
)
def test_a_geometry_without_distortion_leaves_every_sample_as_it_is(operator, sampling):
    x = np.random.default_rng(6).random((3, 31, 44), dtype=np.float32)
    plain = operator(sampling=sampling)
    parameters = plain.sample(generator(1, "a"), (31, 44, 3))
    np.testing.assert_allclose(plain.apply(x, parameters), x, atol=1e-6)
    assert plain.valid_mask(parameters, (31, 44, 3)).all()
    assert (plain.arrays((31, 44, 3), parameters)["mask"] == 255).all()


@pytest.mark.parametrize("operator", GEOMETRIES, ids=label)
@pytest.mark.parametrize("size", [(120, 200), (64, 64), (90, 31)])
def test_there_and_back_are_the_same_coordinates(operator, size):
    for key in "abcdef":
        parameters = operator.sample(generator(3, key), (*size, 3))
        source, target = operator.source(parameters, size), operator.target(parameters, size)
        x, y = np.meshgrid(np.arange(size[1]) - (size[1] - 1) / 2, np.arange(size[0]) - (size[0] - 1) / 2)
        for there, back in ((source, target), (target, source)):
            u, v = there(x, y)
            inside = (abs(u) <= size[1] / 2) & (abs(v) <= size[0] / 2)
            assert inside.any()
            again = back(u[inside], v[inside])
            np.testing.assert_allclose(again, (x[inside], y[inside]), atol=1e-6)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("operator", GEOMETRIES, ids=label)
def test_the_inverse_finds_the_picture_again_where_the_mask_is_valid(photo, operator, sampling):
    x = smooth_photo(photo)
    shape = (256, 256, 3)
    parameters = {**operator.sample(generator(4, "a"), shape), "sampling": sampling, "boundary": "zero"}
    again = operator.inverse(operator.apply(x, parameters), parameters, shape)
    valid = operator.valid_mask(parameters, shape)
    assert 0.5 < valid.mean() <= 1
    # A valid pixel next to the edge may have been read half from outside; that is zero here.
    valid = ndimage.binary_erosion(valid, iterations=2)
    valid[:3] = valid[-3:] = valid[:, :3] = valid[:, -3:] = False
    error = np.mean((again - x)[:, valid].astype(np.float64) ** 2)
    assert -10 * math.log10(error) >= 40
    assert -10 * math.log10(np.mean((operator.apply(x, parameters) - x) ** 2)) < 30  # it had moved


@pytest.mark.parametrize("operator", GEOMETRIES, ids=label)
def test_the_mask_of_the_record_is_where_a_white_picture_stays_white_on_black(operator):
    shape = (80, 100, 1)
    parameters = {**operator.sample(generator(5, "b"), shape), "boundary": "zero", "sampling": "bilinear"}
    shown = operator.arrays(shape, parameters)["mask"]
    np.testing.assert_array_equal(
        shown == 255, operator.apply(np.ones((1, 80, 100), np.float32), parameters)[0] > 1 - 1e-5
    )


# --- affine ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_a_quarter_turn_is_rot90(sampling, quarters):
    x = np.random.default_rng(7).random((3, 41, 41), dtype=np.float32)
    operator = AffineJitter(rotation_deg=90 * quarters, sampling=sampling)
    turned = operator.apply(x, operator.sample(generator(1, "a"), (41, 41, 3)))
    np.testing.assert_allclose(turned, np.rot90(x, quarters, axes=(1, 2)), atol=1e-6)


def test_a_whole_shift_moves_the_samples_to_the_right_and_downwards():
    x = np.random.default_rng(8).random((3, 30, 40), dtype=np.float32)
    operator = AffineJitter(shift_x_px=5, shift_y_px=-3, boundary="circular")
    moved = operator.apply(x, operator.sample(generator(1, "a"), (30, 40, 3)))
    np.testing.assert_array_equal(moved, np.roll(x, (-3, 5), axis=(1, 2)))


def test_the_affine_matrix_shears_then_scales_then_turns_then_moves():
    def turn(t):
        return np.array([[math.cos(t), math.sin(t), 0], [-math.sin(t), math.cos(t), 0], [0, 0, 1]])

    expected = (
        np.array([[1, 0, 7], [0, 1, 9], [0, 0, 1]])
        @ turn(math.radians(30))
        @ np.diag([1.2, 1.2, 1])
        @ np.array([[1, 0.3, 0], [0, 1, 0], [0, 0, 1]])
    )
    np.testing.assert_allclose(affine_matrix(30, 1.2, 0.3, (7, 9)), expected * [[1], [1], [1]], atol=1e-12)


# --- perspective ----------------------------------------------------------------------------------------------------


def test_moved_corners_land_where_scikit_image_puts_them():
    corners = np.array([[0.05, -0.02], [-0.04, 0.06], [0.01, 0.03], [-0.07, -0.05]])
    size = (81, 121)
    frame = np.array([[-60, -40], [60, -40], [60, 40], [-60, 40]], float)
    moved = frame + corners * [120, 80]
    matrix = quadrilateral_matrix(size, corners)
    reference = transform.ProjectiveTransform.from_estimate(frame, moved)
    np.testing.assert_allclose(matrix / matrix[2, 2], reference.params / reference.params[2, 2], atol=1e-9)
    x, y = homography(matrix)(frame[:, 0], frame[:, 1])
    np.testing.assert_allclose(np.stack([x, y], 1), moved, atol=1e-9)


def test_a_turned_page_is_seen_as_a_pinhole_camera_sees_it():
    size, view = (60, 80), 50.0
    pitch, yaw, roll = 20.0, -15.0, 7.0
    a, b, c = (math.radians(each) for each in (pitch, yaw, roll))
    focal = 50 / math.tan(math.radians(view) / 2)
    about_x = np.array([[1, 0, 0], [0, math.cos(a), math.sin(a)], [0, -math.sin(a), math.cos(a)]])
    about_y = np.array([[math.cos(b), 0, -math.sin(b)], [0, 1, 0], [math.sin(b), 0, math.cos(b)]])
    about_z = np.array([[math.cos(c), math.sin(c), 0], [-math.sin(c), math.cos(c), 0], [0, 0, 1]])
    rng = np.random.default_rng(9)
    x, y = rng.uniform(-40, 40, 20), rng.uniform(-30, 30, 20)
    points = about_x @ about_y @ about_z @ np.stack([x, y, 0 * x])
    expected = points[:2] * focal / (focal + points[2])
    np.testing.assert_allclose(homography(turned_plane_matrix(size, pitch, yaw, roll, view))(x, y), expected, atol=1e-9)


def test_the_side_that_goes_away_becomes_smaller():
    def sides(**turn):
        operator = PerspectiveJitter(**turn)
        parameters = operator.sample(generator(1, "a"), (101, 101, 1))
        x, y = operator.target(parameters, (101, 101))(np.array([-50.0, 50, 50, -50]), np.array([-50.0, -50, 50, 50]))
        return np.hypot(np.diff([*x, x[0]]), np.diff([*y, y[0]]))  # top, right, bottom, left

    top, _, bottom, _ = sides(pitch_deg=20)
    assert top < 0.9 * bottom
    _, right, _, left = sides(yaw_deg=20)
    assert right < 0.9 * left


def test_corners_move_by_up_to_the_share_that_was_drawn_and_evenly():
    operator = PerspectiveJitter(corner_shift=0.1)
    drawn = np.array([operator.sample(generator(1, f"{i}"), (64, 64, 3))["corners"] for i in range(2000)])
    assert drawn.shape == (2000, 4, 2)
    assert np.abs(drawn).max() <= 0.1
    assert drawn.std() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize(
    "settings",
    [
        {"pitch_deg": 60, "field_of_view_deg": 60},
        {"pitch_deg": Normal(0, 12), "yaw_deg": 45},
        {"yaw_deg": -50, "field_of_view_deg": 100},
    ],
)
def test_a_page_that_may_reach_the_cameras_plane_is_refused_before_anything_is_drawn(settings):
    with pytest.raises(ValueError, match=r"pitch_deg, yaw_deg.*camera's plane.*narrow the turns"):
        PerspectiveJitter(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"yaw_deg": 43, "pitch_deg": -20, "corner_shift": 0.1},
        {"field_of_view_deg": 100, "yaw_deg": 23, "corner_shift": 0.1},
    ],
)
def test_the_steepest_page_that_is_allowed_has_an_inverse_everywhere_in_the_frame(settings):
    operator = PerspectiveJitter(**settings, roll_deg=Uniform(0, 360))
    rng = np.random.default_rng(10)
    frame = np.array([[-31.5, -47.5, 1], [31.5, -47.5, 1], [31.5, 47.5, 1], [-31.5, 47.5, 1]]).T
    for key in range(300):
        parameters = operator.sample(generator(1, f"{key}"), (96, 64, 3))
        if key % 2:  # corners of the range, too
            parameters = {**parameters, "corners": (0.1 * rng.choice([-1, 1], (4, 2))).tolist()}
        matrix = _homography(parameters, (96, 64))
        inverse = np.linalg.inv(matrix)
        for each in (matrix, inverse / inverse[2, 2]):
            assert (each @ frame)[2].min() > 0.02


# --- lenses ---------------------------------------------------------------------------------------------------------


def test_distortion_is_browns_formula():
    rng = np.random.default_rng(11)
    x, y = rng.uniform(-1, 1, 50), rng.uniform(-1, 1, 50)
    k1, k2, k3, p1, p2 = lens = (-0.11, 0.03, -0.01, 0.004, -0.003)
    r2 = x**2 + y**2
    scale = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    expected = (x * scale + 2 * p1 * x * y + p2 * (r2 + 2 * x**2), y * scale + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y)
    np.testing.assert_allclose(distorted(x, y, lens), expected, atol=1e-14)


@pytest.mark.parametrize(
    "lens",
    [
        (-0.14, 0.0, 0.0, 0.0, 0.0),
        (-0.11, 0.0, 0.0, 0.01, -0.01),
        (0.5, 0.0, 0.0, 0.02, 0.02),
        (10.0, 10.0, 10.0, 0.0, 0.0),
        (-0.3, 0.2, 0.1, 0.005, 0.0),
        (0.3, -0.1, 0.0, 0.0, 0.01),
    ],
)
def test_the_inverse_of_distortion_is_exact_to_rounding_over_the_whole_frame(lens):
    x, y = np.meshgrid(np.linspace(-0.8, 0.8, 161), np.linspace(-0.6, 0.6, 121))  # the corners have radius 1
    widest = widest_radius(*lens[:3], math.hypot(*lens[3:]))
    u, v = undistorted(x, y, lens, widest)
    np.testing.assert_allclose(distorted(u, v, lens), (x, y), atol=1e-11)
    assert np.hypot(u, v).max() <= widest
    seen = distorted(x, y, lens)
    framed = np.hypot(*seen) <= 1
    again = undistorted(seen[0][framed], seen[1][framed], lens, widest)
    np.testing.assert_allclose(again, (x[framed], y[framed]), atol=1e-9)


def test_a_negative_k1_is_a_barrel_and_a_positive_one_a_pincushion():
    across, down = np.array([-90.0, 0, 90]), np.full(3, -60.0)  # a straight line in the upper half
    for k1, bulges in ((-0.1, True), (0.1, False)):
        operator = LensDistortion(k1=k1)
        _, rows = operator.target(operator.sample(generator(1, "a"), (200, 200, 1)), (200, 200))(across, down)
        assert (rows[1] < rows[0]) == bulges  # the middle lies further out


def test_radius_one_is_the_corner_of_pictures_of_any_shape():
    for size in ((300, 400), (40, 30), (50, 50)):
        operator = LensDistortion(k1=-0.1)
        corner = (np.array([size[1] / 2]), np.array([size[0] / 2]))
        x, y = operator.target(operator.sample(generator(1, "a"), (*size, 1)), size)(*corner)
        np.testing.assert_allclose((x[0], y[0]), (0.9 * size[1] / 2, 0.9 * size[0] / 2))


@pytest.mark.parametrize(
    "settings",
    [
        {"k1": -0.2},
        {"k1": Uniform(-0.15, 0.1)},
        {"k1": 0.0, "k3": -0.2},
        {"k1": -0.13, "p1": 0.05},
        {"k1": 1.0, "k2": -0.9},
    ],
)
def test_a_distortion_that_folds_over_is_refused_before_anything_is_drawn(settings):
    with pytest.raises(ValueError, match="fold the picture"):
        LensDistortion(**settings)


def test_no_lens_that_is_allowed_folds_anywhere_in_the_frame():
    rng = np.random.default_rng(12)
    x, y = np.meshgrid(np.linspace(-1, 1, 81), np.linspace(-1, 1, 81))
    inside = np.hypot(x, y) <= 1
    allowed = 0
    for _ in range(400):
        lens = (*rng.uniform(-0.4, 0.4, 3), *rng.uniform(-0.03, 0.03, 2))
        try:
            widest = widest_radius(*lens[:3], math.hypot(*lens[3:]))
        except ValueError:
            continue
        allowed += 1
        u, v = undistorted(x[inside], y[inside], lens, widest)
        h = 1e-5
        right, left = distorted(u + h, v, lens), distorted(u - h, v, lens)
        down, up = distorted(u, v + h, lens), distorted(u, v - h, lens)
        determinant = (right[0] - left[0]) * (down[1] - up[1]) - (right[1] - left[1]) * (down[0] - up[0])
        assert determinant.min() > 0
        np.testing.assert_allclose(distorted(u, v, lens), (x[inside], y[inside]), atol=1e-10)
    assert allowed > 100


# --- fisheye --------------------------------------------------------------------------------------------------------

RADIUS_OF_ANGLE = {
    "equidistant": lambda a: a,
    "stereographic": lambda a: 2 * np.tan(a / 2),
    "equisolid": lambda a: 2 * np.sin(a / 2),
    "orthographic": np.sin,
}


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_fisheye_bends_by_the_law_of_its_projection(projection):
    angle = np.concatenate([[1e-9], np.linspace(0.01, 1.48, 100)])
    radius, tangent = RADIUS_OF_ANGLE[projection](angle), np.tan(angle)
    np.testing.assert_allclose(bend(projection, tangent**2) * tangent, radius, rtol=1e-10)
    np.testing.assert_allclose(unbend(projection, radius**2) * radius, tangent, rtol=1e-10)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_fisheye_leaves_centre_and_corners_and_keeps_circles_round(projection):
    size = (150, 200)  # half the diagonal is 125 pixels
    operator = Fisheye(field_of_view_deg=100, projection=projection)
    target = operator.target(operator.sample(generator(1, "a"), (*size, 3)), size)
    np.testing.assert_allclose(
        target(np.array([0.0, 100, -100]), np.array([0.0, 75, 75])), ([0, 100, -100], [0, 75, 75])
    )
    turn = np.linspace(-3, 3, 60)
    focal = 125 / math.tan(math.radians(50))
    fisheye_focal = 125 / RADIUS_OF_ANGLE[projection](math.radians(50))
    for radius in (1.0, 30.0, 100.0):
        x, y = target(radius * np.cos(turn), radius * np.sin(turn))
        np.testing.assert_allclose(
            np.hypot(x, y), fisheye_focal * RADIUS_OF_ANGLE[projection](math.atan(radius / focal))
        )
        np.testing.assert_allclose(np.arctan2(y, x), turn, atol=1e-9)


def test_the_stereographic_fisheye_keeps_every_angle_and_the_equisolid_one_every_solid_angle():
    # On the sphere about the camera, a picture's point at tangent t has the scale 1 / (1 + t^2) along its radius and
    # 1 / sqrt(1 + t^2) across; a projection is conformal or equal-area if it undoes the ratio or the product of these.
    t = np.linspace(0.05, 2, 50)
    h = 1e-6
    for projection, quantity in (("stereographic", "ratio"), ("equisolid", "product")):

        def radius(tangent, projection=projection):
            return bend(projection, tangent**2) * tangent

        along = (radius(t + h) - radius(t - h)) / (2 * h) * (1 + t**2)
        across = radius(t) / t * np.sqrt(1 + t**2)
        np.testing.assert_allclose(along / across if quantity == "ratio" else along * across, 1, rtol=1e-6)


def test_a_fisheye_fills_its_frame_from_inside_the_picture():
    operator = Fisheye(field_of_view_deg=160, projection="stereographic")
    shape = (120, 90, 1)
    parameters = operator.sample(generator(1, "a"), shape)
    assert (operator.arrays(shape, parameters)["mask"] == 255).all()
    assert not operator.valid_mask(parameters, shape)[60, 0]  # the middle of a side has left the frame


def test_a_map_reads_rows_and_columns_about_the_centre():
    rows, columns = reading_of(lambda x, y: (2 * x + 0 * y, 0 * x - y), (5, 7))(1, 3)
    np.testing.assert_array_equal(rows[:, 0], [3, 2])
    np.testing.assert_array_equal(columns[0], [-3, -1, 1, 3, 5, 7, 9])
