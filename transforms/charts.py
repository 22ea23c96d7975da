"""Geometry of the report's charts: plain numbers that the page's template draws as inline SVG."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transforms.series import Series

WIDTH, HEIGHT = 640, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 14, 16, 34
_BINS = 44
_PLOT_WIDTH, _PLOT_HEIGHT = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM


@dataclass(frozen=True)
class Bar:
    """One bin: its box on the page, and the values and count that it stands for."""

    x: float
    y: float
    width: float
    height: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Layer:
    """The bars of one series, with the place of its mean (None without values)."""

    name: str
    bars: tuple[Bar, ...]
    mean: float | None
    mean_x: float


@dataclass(frozen=True)
class Tick:
    """A labelled position along an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """A chart of one or more series over a common axis.

    Attributes:
        zero_x: where the value 0 is, if it is inside and values lie on both sides of it.
    """

    title: str
    unit: str
    bin_width: float
    layers: tuple[Layer, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    zero_x: float | None

    def to_json(self) -> dict[str, Any]:
        """The counts that the chart shows: layer -> [[lower edge, count], ...]."""
        layers = {layer.name: [[bar.low, bar.count] for bar in layer.bars] for layer in self.layers}
        return {"title": self.title, "unit": self.unit, "bin_width": self.bin_width, "layers": layers}


@dataclass(frozen=True)
class _Axis:
    """Values from `low` to `high` over the plot's width."""

    low: float
    high: float

    def x(self, value: float) -> float:
        return round(_LEFT + _PLOT_WIDTH * (value - self.low) / (self.high - self.low), 2)


def draw_histogram(title: str, unit: str, series: Mapping[str, Series]) -> Histogram | None:
    """Lays out one chart of several series, with bins of a round width; None where none of them has a value."""
    filled = {name: one for name, one in series.items() if one.count}
    if not filled:
        return None
    resolution = next(iter(filled.values())).resolution
    lowest = min(one.minimum for one in filled.values() if one.minimum is not None)
    highest = max(one.maximum for one in filled.values() if one.maximum is not None)
    step = _bins_per_bar(highest - lowest, resolution)
    counted = {name: _rebin(one.bins, step) for name, one in filled.items()}
    numbers = [number for bars in counted.values() for number in bars]
    first, last = min(numbers), max(numbers) + 1
    if last - first < 6:  # a few equal values would be one slab as wide as the page
        first, last = first - 3, last + 3
    width = step * resolution
    axis = _Axis(first * width, last * width)
    tallest = max(count for bars in counted.values() for count in bars.values())
    top = _round_up(tallest)
    layers = tuple(_layer(name, counted[name], filled[name].mean, width, axis, top) for name in filled)
    zero_x = axis.x(0) if lowest < 0 < highest else None
    return Histogram(title, unit, _tidy(width), layers, _x_ticks(axis), _y_ticks(top), zero_x)


def _bins_per_bar(span: float, resolution: float) -> int:
    """How many fine bins make a bar, so that bars have a round width and there are not too many."""
    wanted = max(span / _BINS, resolution) / resolution
    return round(round_step(wanted))


def _rebin(bins: Mapping[int, int], step: int) -> Counter[int]:
    coarse: Counter[int] = Counter()
    for number, count in bins.items():
        coarse[number // step] += count
    return coarse


def _layer(name: str, counted: Mapping[int, int], mean: float | None, width: float, axis: _Axis, top: int) -> Layer:
    bars = []
    for number in sorted(counted):
        low, high = number * width, (number + 1) * width
        height = round(_PLOT_HEIGHT * counted[number] / top, 2)
        box = axis.x(low), round(_TOP + _PLOT_HEIGHT - height, 2), round(axis.x(high) - axis.x(low), 2), height
        bars.append(Bar(*box, _tidy(low), _tidy(high), counted[number]))
    return Layer(name, tuple(bars), mean, axis.x(mean) if mean is not None else 0.0)


def _x_ticks(axis: _Axis) -> tuple[Tick, ...]:
    step = round_step((axis.high - axis.low) / 7)
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return tuple(Tick(axis.x(number * step), f"{number * step:.{digits}f}") for number in range(first, last + 1))


def _y_ticks(top: int) -> tuple[Tick, ...]:
    counts = sorted({0, top // 2, top}) if top % 2 == 0 else [0, top]
    return tuple(Tick(round(_TOP + _PLOT_HEIGHT * (1 - count / top), 2), f"{count:,}") for count in counts)


def _round_up(count: int) -> int:
    step = max(1, round(round_step(count / 4)))
    return step * math.ceil(count / step)


def round_step(value: float) -> float:
    """The least 1, 2 or 5 times a power of ten that is not below `value`."""
    magnitude: float = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return next(magnitude * factor for factor in (1, 2, 5, 10) if magnitude * factor >= value * (1 - 1e-9))


def _tidy(value: float) -> float:
    """Without the last digits of a product such as 3 * 0.1."""
    return round(value, 10)
