"""Tiling: where the windows of a large picture lie, and how their results become one picture again. Sizes first, arrays last.

A window lies fully inside the (padded) picture and its *core* is what is kept of its result. The cores partition the picture. A
core keeps a halo's distance from every edge of its window that is not an edge of the picture, and border windows abut the border:
so every kept value saw just what it would have seen in the whole picture, the network's own padding at the border included.

All windows of a picture have one size as far as possible (the last ones are shifted inwards, not cut), and that size is chosen so
that little is computed twice: 481 pixels in windows of at most 256 become two of 248.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Span:
    """One axis of a window, in pixels of the padded picture: it reads [start, stop) and answers for [core_start, core_stop)."""

    start: int
    stop: int
    core_start: int
    core_stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class AxisRules:
    """What decides the windows along one axis, in pixels.

    Attributes:
        tile: largest window.
        halo: what a window needs beyond its core; for overlap-blend, half the overlap.
        size_multiple: every size that the network gets is a multiple of it.
        period: the network commutes with shifts by multiples of it.
        min_size: smallest size that the network takes.
        fixed: the only size that the network takes, or None.
        quantum: windows of a tiled picture are rounded up to multiples of about this size, so that few shapes occur.
    """

    tile: int
    halo: int
    size_multiple: int = 1
    period: int = 1
    min_size: int = 1
    fixed: int | None = None
    quantum: int = 8

    def __post_init__(self) -> None:
        if self.fixed is None and self.tile < self.smallest_tile:
            raise ValueError(
                f"tile {self.tile} has no room for a halo of {self.halo} on both sides: at least {self.smallest_tile} is needed"
            )
        if self.fixed is not None and _stride(self.fixed, self) < self.step:
            raise ValueError(f"a window of {self.fixed} has no room for a halo of {self.halo} on both sides")

    @property
    def step(self) -> int:
        """Windows start at multiples of it, and those that end inside the picture have a multiple of it as size."""
        return math.lcm(self.size_multiple, self.period)

    @property
    def smallest_tile(self) -> int:
        """The smallest window that moves forward at all, and that the network takes, also when the last one is shorter."""
        forward = 2 * round_up(self.halo, self.step) + self.step
        return round_up(max(forward, self.min_size + self.step - self.size_multiple), self.step)


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is not below `value`."""
    return -(-value // multiple) * multiple


def round_down(value: int, multiple: int) -> int:
    """The largest multiple that is not above `value`."""
    return value // multiple * multiple


def padded_length(length: int, rules: AxisRules) -> int:
    """The length that a picture is extended to (by reflection at its end), so that the network takes it."""
    if rules.fixed is None:
        return round_up(max(length, rules.min_size), rules.size_multiple)
    return rules.fixed + round_up(max(0, length - rules.fixed), rules.step)


def plan_axis(length: int, rules: AxisRules) -> tuple[Span, ...]:
    """The windows along one axis, in order.

    Args:
        length: of the picture before padding, at least 1.

    Example:
        >>> [(span.start, span.stop, span.core_start, span.core_stop) for span in plan_axis(481, AxisRules(tile=256, halo=5))]
        [(0, 248, 0, 240), (233, 481, 240, 481)]
    """
    padded = padded_length(length, rules)
    window = _window_size(padded, rules)
    if padded <= window:
        return (Span(0, padded, 0, padded),)
    starts = _starts(padded, window, rules)
    stops = [start + window for start in starts[:-1]] + [padded]
    edges = [round_down((start + stop) // 2, rules.step) for start, stop in zip(starts[1:], stops, strict=False)]
    return tuple(map(Span, starts, stops, [0, *edges], [*edges, padded]))


def _stride(window: int, rules: AxisRules) -> int:
    return round_down(window - 2 * round_up(rules.halo, rules.step), rules.step)


def _count(padded: int, window: int, rules: AxisRules) -> int:
    return 1 + -(-max(0, padded - window) // _stride(window, rules))


def _window_size(padded: int, rules: AxisRules) -> int:
    """The smallest window that needs no more windows than the largest would."""
    if rules.fixed is not None:
        return rules.fixed
    largest = round_down(rules.tile, rules.step)
    if padded <= rules.tile:
        return padded
    count = _count(padded, largest, rules)
    quantum = round_up(rules.quantum, rules.step)
    candidates = range(round_up(rules.smallest_tile, quantum), largest, quantum)
    return next((window for window in candidates if _count(padded, window, rules) == count), largest)


def _starts(padded: int, window: int, rules: AxisRules) -> list[int]:
    """Evenly spread starts; the last window ends at the border, and is shorter by less than a step where it has to be."""
    count = _count(padded, window, rules)
    last = round_up(padded - window, rules.step)
    return [round_down(index * last // (count - 1), rules.step) for index in range(count - 1)] + [last]


def scaled(span: Span, scale: int | Fraction) -> Span:
    """The same span in pixels of the result."""
    return Span(*(int(edge * scale) for edge in (span.start, span.stop, span.core_start, span.core_stop)))


def blend_weights(spans: Sequence[Span]) -> list[NDArray[np.float32]]:
    """Raised-cosine weights of overlapping windows, one array of the window's size each; they add up to 1 everywhere.

    Over an overlap of n pixels a window rises as 1/2 - cos(pi (k + 1/2) / n) / 2 while its neighbour falls.
    """
    raw = [np.ones(span.stop - span.start) for span in spans]
    for left, right, before, after in zip(spans, spans[1:], raw, raw[1:], strict=False):
        overlap = left.stop - right.start
        ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(overlap) + 0.5) / overlap)
        before[-overlap:] *= ramp[::-1]
        after[:overlap] *= ramp
    total = np.zeros(spans[-1].stop)
    for span, weights in zip(spans, raw, strict=True):
        total[span.start : span.stop] += weights
    return [
        (weights / total[span.start : span.stop]).astype(np.float32) for span, weights in zip(spans, raw, strict=True)
    ]


def reflected(start: int, stop: int, length: int) -> NDArray[np.intp]:
    """Indices into an axis of `length` that continue it by reflection about its last pixel (numpy's mode `reflect`).

    Example:
        >>> reflected(1, 6, 3).tolist()
        [1, 2, 1, 0, 1]
    """
    period = max(1, 2 * (length - 1))
    index = np.arange(start, stop) % period
    return np.minimum(index, period - index) if length > 1 else index


def cut(samples: NDArray[Any], rows: Span, columns: Span) -> NDArray[Any]:
    """The window of a picture H x W x C: a view where it lies inside, a copy continued by reflection where it does not."""
    height, width = samples.shape[:2]
    if rows.stop <= height and columns.stop <= width:
        return samples[rows.start : rows.stop, columns.start : columns.stop]
    picked: NDArray[Any] = samples[
        np.ix_(reflected(rows.start, rows.stop, height), reflected(columns.start, columns.stop, width))
    ]
    return picked
