"""Where windows lie: properties of all plans, and closed forms for a few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from transforms.tiling import AxisRules, Span, blend_weights, cut, padded_length, plan_axis, reflected, round_up


@st.composite
def axis_rules(draw: st.DrawFn) -> AxisRules:
    halo = draw(st.integers(0, 40))
    multiple = draw(st.sampled_from([1, 1, 1, 2, 3, 4, 8, 12]))
    period = draw(st.sampled_from([1, 1, 1, 2, 3, 4, 8]))
    min_size = multiple * draw(st.integers(1, 4))
    quantum = draw(st.sampled_from([1, 8, 64]))
    fixed = draw(st.one_of(st.none(), st.integers(2 * round_up(halo, period) + period, 300)))
    smallest = AxisRules(10**6, halo, multiple, period, min_size).smallest_tile
    tile = draw(st.integers(smallest, smallest + 300))
    return AxisRules(tile, halo, 1 if fixed else multiple, period, 1 if fixed else min_size, fixed, quantum)


@given(st.integers(1, 3000), axis_rules())
def test_every_pixel_is_covered_once_by_cores_that_saw_enough(length: int, rules: AxisRules) -> None:
    spans = plan_axis(length, rules)
    padded = padded_length(length, rules)
    covered = np.zeros(padded, int)
    for span in spans:
        assert 0 <= span.start <= span.core_start < span.core_stop <= span.stop <= padded  # inside the padded picture
        assert span.start == 0 or span.core_start - span.start >= rules.halo  # a halo, or the border itself
        assert span.stop == padded or span.stop - span.core_stop >= rules.halo
        covered[span.core_start : span.core_stop] += 1
    assert np.all(covered == 1)


@given(st.integers(1, 3000), axis_rules())
def test_windows_have_sizes_that_the_network_takes(length: int, rules: AxisRules) -> None:
    spans = plan_axis(length, rules)
    assert padded_length(length, rules) - length < max(rules.step, rules.min_size, rules.fixed or 0)
    for span in spans:
        assert span.start % rules.step == 0
        assert span.core_start % rules.step == 0
        if rules.fixed is not None:
            assert span.size == rules.fixed
            continue
        assert span.size % rules.size_multiple == 0
        assert span.size >= rules.min_size
        assert span.size <= max(rules.tile, len(spans) == 1 and rules.min_size)
    assert len({span.size for span in spans[:-1]}) <= 1
    assert spans[0].size - spans[-1].size < rules.step


@given(st.integers(1, 3000), st.integers(0, 20), st.integers(64, 512))
def test_windows_of_a_plain_network_all_have_one_size_and_there_are_as_few_as_possible(
    length: int, halo: int, tile: int
) -> None:
    spans = plan_axis(length, AxisRules(tile, halo))
    assert len({span.size for span in spans}) == 1
    fewest = 1 if length <= tile else -(-(length - 2 * halo) // (tile - 2 * halo))
    assert len(spans) == fewest


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (64, [(0, 64, 0, 64)]),  # not larger than the tile: whole
        (65, [(0, 40, 0, 32), (25, 65, 32, 65)]),  # two windows of 40, not of 64
        (481, 9),
    ],
)
def test_plans_known_by_hand(length: int, expected: list[tuple[int, ...]] | int) -> None:
    spans = plan_axis(length, AxisRules(tile=64, halo=5))
    if isinstance(expected, int):
        assert len(spans) == expected  # ceil((481 - 10) / 54)
    else:
        assert [(span.start, span.stop, span.core_start, span.core_stop) for span in spans] == expected


def test_a_tile_without_room_for_the_halo_is_refused() -> None:
    assert AxisRules(tile=41, halo=20).smallest_tile == 41
    with pytest.raises(ValueError, match="at least 41"):
        AxisRules(tile=40, halo=20)
    with pytest.raises(ValueError, match="no room"):
        AxisRules(tile=1, halo=20, fixed=40)


@given(st.integers(1, 12), st.integers(0, 10), st.integers(1, 40))
def test_reflection_is_that_of_numpy(length: int, start: int, size: int) -> None:
    line = np.arange(length)
    expected = np.pad(line, (0, start + size), mode="reflect")[start : start + size]
    np.testing.assert_array_equal(line[reflected(start, start + size, length)], expected)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 9), st.integers(0, 9), st.integers(1, 30))
def test_a_window_is_a_part_of_the_reflected_picture(height: int, width: int, top: int, left: int, size: int) -> None:
    picture = np.arange(height * width * 2).reshape(height, width, 2)
    padded = np.pad(picture, ((0, 40), (0, 40), (0, 0)), mode="reflect")
    window = cut(picture, Span(top, top + size, top, top), Span(left, left + 3, left, left))
    np.testing.assert_array_equal(window, padded[top : top + size, left : left + 3])


def test_a_window_inside_is_not_copied() -> None:
    picture = np.zeros((9, 9, 1))
    assert np.shares_memory(cut(picture, Span(0, 5, 0, 5), Span(4, 9, 4, 9)), picture)


@given(st.integers(1, 2000), axis_rules())
def test_blend_weights_add_up_to_one(length: int, rules: AxisRules) -> None:
    assume(rules.halo > 0)
    spans = plan_axis(length, rules)
    total = np.zeros(padded_length(length, rules))
    for span, weights in zip(spans, blend_weights(spans), strict=True):
        assert weights.min() >= 0
        total[span.start : span.stop] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_blend_weights_are_a_raised_cosine() -> None:
    left, right = Span(0, 8, 0, 6), Span(4, 12, 6, 12)
    before, after = blend_weights([left, right])
    expected = [0.5 - 0.5 * np.cos(np.pi * (k + 0.5) / 4) for k in range(4)]
    np.testing.assert_allclose(after, [*expected, 1, 1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(before, [1, 1, 1, 1, *expected[::-1]], rtol=1e-6)
