"""Masks: what is missing, how much of it, and that all else stays bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from models.degradation import operator_class
from models.degradation.masks import free_form_strokes, random_boxes
from transforms.randomness import generator

STREAM = "0123456789abcdef" * 2
MASKS: dict[str, dict[str, Any]] = {
    "centre_box_mask": {"share": 0.5},
    "random_boxes_mask": {"count": 3, "smallest": 0.1, "largest": 0.4, "stream": STREAM},
    "strokes_mask": {"count": 2, "thinnest": 12 / 256, "thickest": 40 / 256, "stream": STREAM},
    "random_pixels_mask": {"missing": 0.5, "stream": STREAM},
    "text_mask": {"size": 16, "spacing": 1.5, "stream": STREAM},
}


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return generator(1, "noise").standard_normal((channels, height, width), dtype=np.float32)


def missing(name: str, sides: tuple[int, int], **changed: Any) -> np.ndarray:
    mask = operator_class(name).arrays((*sides, 3), MASKS[name] | {"fill": 0} | changed)["mask"]
    assert set(np.unique(mask).tolist()) <= {0, 255}
    return mask == 0


# --- every mask -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [0, 0.5])
@pytest.mark.parametrize("name", MASKS)
def test_intact_pixels_stay_bit_for_bit_and_the_others_become_the_fill(name, fill):
    planes, parameters = noise(70, 90), MASKS[name] | {"fill": fill}
    masked = operator_class(name).apply(planes, parameters)
    lost = missing(name, (70, 90))
    assert 0.02 < lost.mean() < 0.8
    assert masked[:, ~lost].tobytes() == planes[:, ~lost].tobytes()
    assert (masked[:, lost] == fill).all()


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_its_own_adjoint_and_masking_twice_is_masking_once(name):
    operator, parameters, planes = operator_class(name), MASKS[name] | {"fill": 0}, noise(70, 90)
    masked = operator.apply(planes, parameters)
    np.testing.assert_array_equal(operator.apply(masked, parameters), masked)
    np.testing.assert_array_equal(operator.adjoint(planes, parameters, (70, 90, 3)), masked)


@pytest.mark.parametrize("name", MASKS)
def test_with_a_fill_the_adjoint_is_that_of_the_linear_part(name):
    operator, parameters = operator_class(name), MASKS[name] | {"fill": 0.7}
    x, y = noise(40, 50), noise(40, 50)[::-1]
    linear = operator.apply(x, parameters) - operator.apply(0 * x, parameters)
    assert np.vdot(linear, y) == pytest.approx(np.vdot(x, operator.adjoint(y, parameters, (40, 50, 3))), rel=1e-4)


@pytest.mark.parametrize("name", [name for name, parameters in MASKS.items() if "stream" in parameters])
def test_another_stream_is_another_mask(name):
    assert not np.array_equal(missing(name, (70, 90)), missing(name, (70, 90), stream=STREAM[::-1]))


# --- boxes ----------------------------------------------------------------------------------------------------------


def test_half_the_side_of_64_takes_the_centre_32_by_32_out():
    lost = np.zeros((64, 64), bool)
    lost[16:48, 16:48] = True
    np.testing.assert_array_equal(missing("centre_box_mask", (64, 64)), lost)


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (1, 63 * 40), (1 / 3, 21 * 13)])
def test_a_centred_box_of_any_share_has_its_area(share, expected):
    assert missing("centre_box_mask", (63, 40), share=share).sum() == expected


def test_boxes_have_sides_of_the_whole_range_and_lie_in_every_part_of_the_picture():
    rng, heights, widths, hits = generator(1, "boxes"), [], [], np.zeros((50, 80))
    for _ in range(2000):
        lost = ~random_boxes((50, 80), 1, (0.1, 0.5), rng)
        rows, columns = (np.nonzero(lost.any(axis=axis))[0] for axis in (1, 0))
        heights.append(len(rows))
        widths.append(len(columns))
        assert lost.sum() == len(rows) * len(columns)
        hits += lost
    assert (min(heights), max(heights)) == (5, 25)
    assert (min(widths), max(widths)) == (8, 40)
    assert np.mean(heights) == pytest.approx(15, abs=5 * 20 / np.sqrt(12 * 2000))
    assert hits[[0, 0, -1, -1], [0, -1, 0, -1]].min() > 0


def test_no_box_is_no_loss():
    assert not missing("random_boxes_mask", (50, 80), count=0).any()


def test_the_boxes_of_a_stream_stay_where_they_were():
    # If this fails, pairs of earlier releases can no longer be made again.
    lost = missing("random_boxes_mask", (50, 80), count=1)
    rows, columns = (np.nonzero(lost.any(axis=axis))[0] for axis in (1, 0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (34, 46, 38, 54)


# --- strokes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("brush", [9, 24, 40])
def test_a_stroke_is_nowhere_thinner_than_its_brush(brush):
    for key in "abcdef":
        lost = ~free_form_strokes((256, 256), 1, (brush, brush), generator(1, key))
        # Opening by a disc a little smaller than the brush must not take anything away but corners at the border.
        radius = brush / 2 - 1.5
        offsets = np.arange(-int(radius), int(radius) + 1)
        disc = np.hypot(offsets[:, np.newaxis], offsets) <= radius
        framed = np.pad(lost, brush, mode="edge")
        opened = ndimage.binary_opening(framed, disc)[brush:-brush, brush:-brush]
        assert (lost & ~opened).sum() <= 0.02 * lost.sum()


def test_strokes_cover_what_the_gated_convolution_paper_covers():
    shares = [
        (~free_form_strokes((256, 256), count, (12, 40), generator(1, f"{count}/{key}"))).mean()
        for count in (1, 2, 3)
        for key in range(60)
    ]
    by_count = np.reshape(shares, (3, 60)).mean(axis=1)
    assert by_count[0] < by_count[1] < by_count[2]
    assert 0.04 < by_count[0] < 0.12
    assert max(shares) < 0.6


def test_strokes_scale_with_the_picture():
    small, large = (missing("strokes_mask", (side, side)).mean() for side in (128, 1024))
    assert small == pytest.approx(large, rel=0.15)


# --- pixels and text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_pixels_are_missing_with_their_probability_and_independently(share):
    lost = missing("random_pixels_mask", (1000, 1000), missing=share)
    assert abs(lost.mean() - share) < 5 * np.sqrt(share * (1 - share) / lost.size)
    neighbours = (lost[1:] & lost[:-1]).mean()
    assert abs(neighbours - share**2) < 5 * np.sqrt(share**2 / lost.size) * 2


@pytest.mark.parametrize(("share", "lost"), [(0, 0), (1, 1)])
def test_no_pixel_or_every_pixel_can_be_missing(share, lost):
    assert missing("random_pixels_mask", (30, 30), missing=share).mean() == lost


@pytest.mark.parametrize("size", [8, 16, 40])
def test_text_covers_the_page_line_by_line(size):
    lost = missing("text_mask", (400, 300), size=size, spacing=2)
    assert 0.05 < lost.mean() < 0.2
    spectrum = np.abs(np.fft.rfft(lost.mean(axis=1) - lost.mean()))
    assert abs(int(spectrum.argmax()) - 400 / (2 * size)) <= 1  # one line in two ems
    quarters = [lost[:200, :150], lost[:200, 150:], lost[200:, :150], lost[200:, 150:]]
    assert min(quarter.mean() for quarter in quarters) > 0.02
