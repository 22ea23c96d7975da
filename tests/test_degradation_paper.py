"""Overlays, print and paper against geometry, statistics and closed forms; the recipes of damaged archives and faces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage, stats

from models.degradation import operator_class
from models.degradation.fields import fractal_line, smooth_field, stamp
from models.degradation.layers import COLOURS, LUMA
from models.degradation.lettering import font, tiled_mark, word_image
from models.degradation.paper import halftone_screen
from models.recipes import Pair, load_recipe
from transforms.randomness import generator

STREAM = "0123456789abcdef" * 2
OVERLAYS: dict[str, dict[str, Any]] = {
    "scratches": {"count": 4, "width": 1, "length": 0.6, "tilt": 5, "colour": "white"},
    "dust": {"density": 20, "radius": 0.8, "hairs": 1, "colour": "white"},
    "cracks": {"count": 2, "width": 1.2, "branches": 2, "colour": "ivory"},
    "torn_corners": {"corners": 2, "depth": 0.2, "rim": 3, "paper": "ivory", "behind": "white"},
    "text_overlay": {"lines": 3, "size": 16, "alpha": 0.5, "colour": "white"},
    "watermark": {"size": 16, "alpha": 0.5, "angle": 30, "spacing": 1, "colour": "white"},
}


def picture(height: int = 120, width: int = 150, channels: int = 3) -> np.ndarray:
    return generator(1, "picture").random((channels, height, width), dtype=np.float32)


def flat(value: float, height: int = 256, width: int = 256, channels: int = 1) -> np.ndarray:
    return np.full((channels, height, width), value, np.float32)


def overlaid(name: str, planes: np.ndarray, stream: str = STREAM, **changed: Any) -> tuple[np.ndarray, np.ndarray]:
    """The result, and which pixels are intact."""
    parameters = OVERLAYS[name] | {"stream": stream} | changed
    mask = operator_class(name).arrays((*planes.shape[1:], planes.shape[0]), parameters)["mask"]
    return operator_class(name).apply(planes, parameters), mask == 255


def streams(count: int) -> list[str]:
    return [f"{number:032x}" for number in range(count)]


# --- every overlay --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_changes_what_its_mask_says_and_nothing_else(name, channels):
    planes = picture(channels=channels)
    degraded, intact = overlaid(name, planes)
    assert degraded[:, intact].tobytes() == planes[:, intact].tobytes()
    assert 0.002 < (~intact).mean() < 0.6
    assert (degraded[:, ~intact] != planes[:, ~intact]).any(axis=0).mean() > 0.9


@pytest.mark.parametrize("name", [name for name, each in OVERLAYS.items() if "colour" in each])
def test_an_overlay_moves_each_sample_towards_its_colour_and_not_beyond(name):
    planes = picture()
    degraded, _ = overlaid(name, planes, colour="orange")
    paint = np.array(COLOURS["orange"], np.float32).reshape(3, 1, 1)
    assert ((degraded >= np.minimum(planes, paint) - 1e-6) & (degraded <= np.maximum(planes, paint) + 1e-6)).all()


@pytest.mark.parametrize("name", OVERLAYS)
def test_on_grey_an_overlay_has_the_luma_of_its_colour(name):
    grey = flat(0.4, 90, 100)
    colours = {key: "orange" for key in ("colour", "paper", "behind") if key in OVERLAYS[name]}
    coloured, _ = overlaid(name, np.repeat(grey, 3, axis=0), **colours)
    np.testing.assert_allclose(overlaid(name, grey, **colours)[0][0], np.tensordot(LUMA, coloured, axes=1), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "nothing"),
    [
        ("scratches", {"count": 0}),
        ("dust", {"density": 0, "hairs": 0}),
        ("cracks", {"count": 0}),
        ("torn_corners", {"corners": 0}),
        ("text_overlay", {"lines": 0}),
        ("watermark", {"alpha": 0}),
    ],
)
def test_none_of_an_overlay_leaves_the_picture(name, nothing):
    degraded, intact = overlaid(name, picture(), **nothing)
    np.testing.assert_array_equal(degraded, picture())
    assert intact.all()


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("size", [(1, 1), (5, 300), (300, 5)])
def test_an_overlay_copes_with_thin_pictures(name, size):
    degraded, _ = overlaid(name, picture(*size))
    assert degraded.shape == (3, *size)
    assert np.isfinite(degraded).all()


# --- each overlay ---------------------------------------------------------------------------------------------------


def test_scratches_run_down_the_picture():
    for stream in streams(5):
        lost = ~overlaid("scratches", flat(0), stream, count=2, tilt=3, length=1)[1]
        down, across = (np.abs(np.diff(lost.astype(int), axis=axis)).sum() for axis in (0, 1))
        assert across > 3 * down  # many left and right rims, few ends


def test_dust_has_as_many_specks_as_asked_for():
    found = [
        ndimage.label(~overlaid("dust", flat(0), stream, density=2, radius=0.6, hairs=0)[1], np.ones((3, 3)))[1]
        for stream in streams(20)
    ]
    expected = 2 * 256 * 256 / 10_000
    # Some touch and some fall beside the picture, some of a speck's three discs lie apart.
    assert np.mean(found) == pytest.approx(expected, rel=0.3)
    assert 0.5 < np.var(found) / np.mean(found) < 2.5  # Poisson


def test_cracks_cross_the_picture_and_show_bare_paper():
    reached = 0
    for stream in streams(10):
        degraded, intact = overlaid("cracks", flat(0, channels=3), stream, count=1, branches=0)
        rows, columns = np.nonzero(~intact)
        reached += max(np.ptp(rows), np.ptp(columns)) > 0.5 * 256
        assert (~intact).mean() < 0.05
        np.testing.assert_allclose(degraded[:, ~intact].max(axis=1), COLOURS["ivory"], atol=1e-6)
    assert reached >= 7


@pytest.mark.parametrize("corners", [1, 2, 3, 4])
def test_as_many_corners_are_torn_off_as_asked_for(corners):
    for stream in streams(5):
        degraded, intact = overlaid("torn_corners", flat(0.5, channels=3), stream, corners=corners, behind="black")
        at_corners = intact[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert (~at_corners).sum() == corners
        assert intact[128, 128]
        torn = degraded[:, [0, 0, -1, -1], [0, -1, 0, -1]][:, ~at_corners]
        np.testing.assert_allclose(torn, np.tile(COLOURS["black"], (corners, 1)).T, atol=1e-6)
        assert (np.abs(degraded - np.array(COLOURS["ivory"]).reshape(3, 1, 1)).max(axis=0) < 0.01).any()  # the rim


def test_deeper_tears_take_more():
    lost = [
        np.mean(
            [(~overlaid("torn_corners", flat(0), stream, corners=1, depth=depth)[1]).mean() for stream in streams(20)]
        )
        for depth in (0.05, 0.1, 0.2)
    ]
    assert lost[1] / lost[0] == pytest.approx(4, rel=0.3)  # a triangle of area depth^2 / 2
    assert lost[2] / lost[1] == pytest.approx(4, rel=0.3)
    assert lost[2] == pytest.approx(0.2**2 / 2, rel=0.3)


def test_text_has_the_contrast_of_its_alpha_and_the_shape_of_pillows_letters():
    degraded, _ = overlaid("text_overlay", flat(0.2), alpha=0.5, size=32, lines=2)
    assert degraded.max() == pytest.approx(0.2 + 0.5 * 0.8)
    drawn = Image.new("L", (200, 60))
    ImageDraw.Draw(drawn).text((7, 4), "photograph", 255, font(32))
    word = word_image("photograph", 32)
    np.testing.assert_array_equal(np.asarray(drawn)[4 : 4 + word.shape[0], 7 : 7 + word.shape[1]], word)


def test_a_watermark_repeats_all_over_the_picture():
    for stream in streams(5):
        marked = ~overlaid("watermark", flat(0), stream)[1]
        quarters = marked.reshape(2, 128, 2, 128).mean(axis=(1, 3))
        assert quarters.min() > 0.02


@pytest.mark.parametrize("degrees", [0, 30, -45, 80])
def test_a_watermark_is_turned_counter_clockwise(degrees):
    marks, _ = ndimage.label(
        ndimage.binary_dilation(tiled_mark((900, 900), 20, degrees, 20, generator(1, "a")), iterations=3)
    )
    rows, columns = np.nonzero(marks == np.bincount(marks.ravel())[1:].argmax() + 1)
    along = np.linalg.eigh(np.cov(columns, -rows))[1][:, 1]
    turned = np.degrees(np.arctan2(along[1], along[0])) - degrees
    assert abs((turned + 90) % 180 - 90) < 4


# --- fields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [1, 3.3, 20])
def test_a_smooth_field_has_variance_1_at_each_pixel_and_is_alike_within_a_cell(cell):
    fields = np.stack([smooth_field(generator(1, str(key)), (23, 31), cell) for key in range(3000)])
    assert np.abs(fields.mean(axis=0)).max() < 5 / np.sqrt(3000)
    assert np.abs(fields.var(axis=0) - 1).max() < 5 * np.sqrt(2 / 3000)
    near, far = ((fields[:, 11, 0] * fields[:, 11, lag]).mean() for lag in (1, 30))
    assert near > {1: 0.4, 3.3: 0.9, 20: 0.99}[cell]
    assert abs(far) < (0.1 if cell < 10 else 0.6)


def test_a_disc_has_its_area_and_a_line_its_width():
    coverage = np.zeros((60, 60), np.float32)
    stamp(coverage, *np.array([[30.3], [29.6], [7.5], [1.0]]))
    assert coverage.sum() == pytest.approx(np.pi * 7.5**2, rel=0.02)
    for radius in (0.2, 0.5, 1.4, 3):
        coverage = np.zeros((60, 200), np.float32)
        columns = np.arange(-10, 210, 0.5)
        stamp(coverage, np.full(440, 30.0), columns, np.full(440, radius), np.full(440, 0.8))
        assert coverage[:, 50:150].sum(axis=0) == pytest.approx(0.8 * 2 * radius, rel=0.05)


def test_discs_in_blocks_are_discs_at_once(monkeypatch):
    discs = generator(1, "discs").uniform([[-5], [-5], [0.1], [0]], [[55], [55], [4], [1]], (4, 500))
    whole, parts = np.zeros((50, 50), np.float32), np.zeros((50, 50), np.float32)
    stamp(whole, *discs)
    monkeypatch.setattr("models.degradation.fields._CHUNK", 100)
    stamp(parts, *discs)
    np.testing.assert_array_equal(parts, whole)
    assert 0.5 < whole.max() <= 1


def test_a_fractal_line_halves_its_deviation_with_each_level():
    lines = np.stack([fractal_line(generator(1, str(key)), 65, 0.5) for key in range(2000)])
    assert lines.shape == (2000, 65)
    np.testing.assert_array_equal(lines[:, [0, -1]], 0)
    for level, step in enumerate((32, 16, 8)):
        middle = lines[:, step :: 2 * step] - (lines[:, : -step : 2 * step] + lines[:, 2 * step :: 2 * step]) / 2
        assert middle.std() == pytest.approx(0.5**level, rel=0.1)


# --- print and paper ------------------------------------------------------------------------------------------------


def paper(name: str, planes: np.ndarray, **parameters: Any) -> np.ndarray:
    return operator_class(name).apply(planes, parameters | {"stream": STREAM})


@pytest.mark.parametrize("grey", [0.02, 0.25, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_halftone_keeps_the_mean_of_a_grey(grey, channels):
    printed = paper("halftone", flat(grey, 500, 500, channels), period=6.3, angle=45, softness=0)
    assert set(np.unique(printed).tolist()) == {0, 1}
    np.testing.assert_allclose(printed.mean(axis=(1, 2)), grey, atol=0.006)


def test_halftone_thresholds_are_uniform():
    thresholds = halftone_screen((600, 600), 7.77, 33, (0.3, 1.1)).ravel()
    assert stats.kstest(thresholds, "uniform").statistic < 0.003


@pytest.mark.parametrize(("period", "angle"), [(8, 0), (8, 45), (5, 15)])
def test_halftone_dots_stand_where_period_and_angle_put_them(period, angle):
    screen = halftone_screen((480, 480), period, angle, (0, 0)) - 0.5
    spectrum = np.abs(np.fft.rfft2(screen))
    row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
    frequency = np.hypot(min(row, 480 - row), column) / 480
    assert frequency == pytest.approx(1 / period, abs=1.5 / 480)
    direction = np.degrees(np.arctan2(min(row, 480 - row), column))
    assert min(abs(direction - angle), abs(direction - (90 - angle))) < 2


def test_a_soft_halftone_keeps_the_mean_too_and_has_greys():
    printed = paper("halftone", flat(0.4, 500, 500), period=6.3, angle=45, softness=0.4)
    assert printed.mean() == pytest.approx(0.4, abs=0.006)
    assert ((printed > 0.1) & (printed < 0.9)).mean() > 0.2


def test_a_black_dot_shows_through_mirrored_shifted_and_with_its_density():
    page = flat(0.8, 50, 60)
    page[0, 10, 20] = 0
    seen = paper("bleed_through", page, strength=0.3, sigma=0, down=0.1, across=0.5)
    expected = page.copy()
    expected[0, 15, (59 - 20 + 30) % 60] *= np.exp(-0.3)
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


def test_the_papers_blur_spreads_what_shows_through_and_keeps_its_density():
    page = flat(1, 101, 101)
    page[0, 50, 50] = 0
    density = -np.log(paper("bleed_through", page, strength=0.3, sigma=3, down=0, across=0.3)[0, :, 60:])
    assert density.sum() == pytest.approx(0.3, rel=1e-2)
    assert density.max() == pytest.approx(0.3 / (2 * np.pi * 9), rel=0.02)


def test_an_empty_page_has_an_empty_back():
    np.testing.assert_allclose(
        paper("bleed_through", flat(0.7), strength=0.5, sigma=2, down=0.3, across=0), 0.7, rtol=1e-5
    )


def test_faded_ink_comes_closer_to_the_paper_and_paper_stays():
    page = np.concatenate([flat(0.9, 128), flat(0.1, 128)], axis=1)
    faded = paper("ink_fading", page, fade=0.4, unevenness=0.05, scale=0.05)
    np.testing.assert_array_equal(faded[:, :128], page[:, :128])
    assert faded[:, 128:].mean() == pytest.approx(0.1 + 0.4 * 0.8, abs=0.01)
    assert faded[:, 128:].std() == pytest.approx(0.05 * 0.8, rel=0.2)


def test_stains_are_brown_and_leave_the_rest_of_the_sheet():
    stained = paper("stains", flat(1, channels=3), count=2, radius=0.15, strength=0.4, tide=0.4)
    red, green, blue = stained
    touched = blue < 1
    assert 0.03 < touched.mean() < 0.4
    assert (stained[:, ~touched] == 1).all()
    assert ((red >= green) & (green >= blue))[touched].all()
    assert blue[touched].mean() < green[touched].mean() - 0.01 < red[touched].mean() - 0.02
    assert blue.min() >= 1 - 0.4 - 1e-6


def test_a_stains_rim_is_darker_than_its_middle():
    stained = paper("stains", flat(1, 400, 400, 3), count=1, radius=0.3, strength=0.5, tide=0.5)[2]
    depth = ndimage.distance_transform_edt(stained < 1)
    darkest = stained <= np.quantile(stained, 0.01)
    assert depth[darkest].max() < 0.5 * depth.max()
    assert stained[darkest].max() < np.median(stained[depth > 0.6 * depth.max()]) - 0.02


def test_uneven_light_leaves_the_brightest_place_and_has_its_strength():
    lit = paper("uneven_light", flat(1, 600, 600), strength=0.2, scale=0.03)
    assert lit.max() == 1
    assert np.log(lit).std() == pytest.approx(0.2, rel=0.1)


def test_paper_texture_has_mean_1_and_its_strength():
    grain = paper("paper_texture", flat(1, 600, 600), strength=0.03, scale=1.5)
    assert grain.mean() == pytest.approx(1, abs=0.001)
    assert grain.std() == pytest.approx(0.03, rel=0.05)


# --- recipes --------------------------------------------------------------------------------------------------------


def first_pair(recipe: str, photo: np.ndarray, patch: int = 0) -> Pair:
    pair = load_recipe(recipe).pair(photo, key="astronaut", patch=patch, seed=1)
    assert isinstance(pair, Pair), pair
    return pair


def test_the_five_tasks_of_the_generative_prior_paper(photo):
    pairs = {
        task: first_pair(f"gan-{task}", photo)
        for task in ("inpainting", "colourisation", "super-resolution", "denoising", "quantisation")
    }
    assert {pair.clean.shape for pair in pairs.values()} == {(64, 64, 3)}
    hole = pairs["inpainting"].arrays["mask"] == 0
    assert hole.sum() == 32 * 32
    assert hole[16:48, 16:48].all()
    assert (pairs["inpainting"].degraded[hole] == 0).all()
    assert pairs["colourisation"].degraded.shape == (64, 64, 1)
    assert pairs["super-resolution"].degraded.shape == (16, 16, 3)
    noise = pairs["denoising"].degraded - pairs["denoising"].clean
    assert abs(noise.std() - 0.1) < 5 * 0.1 / np.sqrt(2 * noise.size)
    levels = np.rint(pairs["quantisation"].degraded * 255).astype(int)
    assert set(np.unique(levels).tolist()) <= {0, 55, 110, 165, 220}
    np.testing.assert_array_equal(levels, np.rint(pairs["quantisation"].clean * 255).astype(int) // 55 * 55)


def test_free_form_holes_are_where_the_masks_say(photo):
    for patch in range(4):
        pair = first_pair("inpainting-freeform", photo, patch)
        intact = np.logical_and.reduce([mask == 255 for mask in pair.arrays.values()])
        assert (pair.degraded[~intact] == 0).all()
        assert pair.degraded[intact].tobytes() == pair.clean[intact].tobytes()


@pytest.mark.parametrize("recipe", ["old-photo", "old-document"])
def test_an_old_sheet_has_less_colour_or_contrast_and_still_shows_its_picture(photo, recipe):
    for patch in range(6):
        pair = first_pair(recipe, photo, patch)
        assert pair.degraded.shape == pair.clean.shape == (256, 256, 3)
        clean, old = (each.mean(axis=2).ravel() for each in (pair.clean, pair.degraded))
        assert 0.4 < np.corrcoef(clean, old)[0, 1] < 0.999
        assert old.std() < clean.std() * 1.1
