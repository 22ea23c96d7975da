"""Geometry of the charts that show counts beside their probabilities: plain numbers that the page's template draws as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transforms.charts import Tick, round_step
from transforms.drawn_parameters import format_number

WIDTH, HEIGHT = 320, 118
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 14, 8, 20
_PLOT_WIDTH, _PLOT_HEIGHT = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_DEVIATIONS = 1.96  # 95 of 100 counts lie within so many standard deviations
_LABEL_CHARACTERS = 34  # of all labels and the gaps between them that fit below the chart


@dataclass(frozen=True)
class Interval:
    """A stretch of an axis, in the chart's own unit."""

    start: float
    length: float


@dataclass(frozen=True)
class ComparedBin:
    """One bin on the page.

    Attributes:
        across: its place along the axis of the values.
        observed: bar of the share that was drawn.
        chance: where that share lies in 95 of 100 runs that follow the recipe.
        text: value, count and shares for a person.
    """

    across: Interval
    observed: Interval
    chance: Interval
    text: str


@dataclass(frozen=True)
class ComparisonChart:
    """Columns: bars of what was drawn, and an outline of what the recipe says.

    Attributes:
        outline: path of the recipe's shares, as SVG writes it.
    """

    bins: tuple[ComparedBin, ...]
    outline: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class WordRow:
    """One word of a choice. All lengths are in percent of the row's width.

    Attributes:
        expected: where the mark of the recipe's share stands.
    """

    word: str
    observed: float
    expected: float
    chance: Interval
    share: float
    text: str


def draw_columns(parameter: Mapping[str, Any]) -> ComparisonChart:
    """The chart of a number: `observed`, `expected`, `count` and `options` or `edges`, as `compare_with_recipe` gives them."""
    shares, bands = _shares(parameter), _bands(parameter)
    axis = _axis(parameter)
    step = round_step(max(*shares, *parameter["expected"], *(high for _, high in bands)) / 2)
    top = max(*shares, *parameter["expected"], *(high for _, high in bands), step) * 1.06

    def height(share: float) -> float:
        return round(_PLOT_HEIGHT * share / top, 2)

    bins = []
    for across, share, (low, high), text in zip(axis.bins, shares, bands, _texts(parameter), strict=True):
        observed = Interval(round(_TOP + _PLOT_HEIGHT - height(share), 2), height(share))
        chance = Interval(round(_TOP + _PLOT_HEIGHT - height(high), 2), max(height(high - low), 1.0))
        bins.append(ComparedBin(across, observed, chance, text))
    levels = [round(_TOP + _PLOT_HEIGHT - height(share), 2) for share in parameter["expected"]]
    ticks = tuple(
        Tick(round(_TOP + _PLOT_HEIGHT - height(number * step), 2), format_share(number * step))
        for number in range(math.floor(top / step + 1e-9) + 1)
    )
    return ComparisonChart(tuple(bins), _outline(axis, levels), axis.ticks, ticks)


def _outline(axis: _ValueAxis, levels: Sequence[float]) -> str:
    """A staircase over neighbouring bins, or a short line over each of those that stand apart."""
    ends = [(bar.start, round(bar.start + bar.length, 2)) for bar in axis.bins]
    if axis.stands_apart:
        return " ".join(f"M{start} {level}H{end}" for (start, end), level in zip(ends, levels, strict=True))
    steps = " ".join(f"V{level}H{end}" for (_, end), level in zip(ends, levels, strict=True))
    bottom = _TOP + _PLOT_HEIGHT
    return f"M{ends[0][0]} {bottom}{steps}V{bottom}"


def draw_words(parameter: Mapping[str, Any]) -> tuple[WordRow, ...]:
    """The rows of a choice of words, the recipe's order."""
    shares, bands, expected = _shares(parameter), _bands(parameter), parameter["expected"]
    widest = max(*shares, *expected, *(high for _, high in bands))

    def width(share: float) -> float:
        return round(100 * share / widest, 2)

    return tuple(
        WordRow(str(word), width(share), width(mean), Interval(width(low), width(high - low)), share, text)
        for word, share, mean, (low, high), text in zip(
            parameter["options"], shares, expected, bands, _texts(parameter), strict=True
        )
    )


def _shares(parameter: Mapping[str, Any]) -> list[float]:
    count = parameter["count"]
    return [observed / count if count else 0.0 for observed in parameter["observed"]]


def _bands(parameter: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Between which shares the count of a bin falls by chance; a bin's count is binomial."""
    bands = []
    for mean in parameter["expected"]:
        reach = _DEVIATIONS * math.sqrt(mean * (1 - mean) / parameter["count"]) if parameter["count"] else 0.0
        bands.append((max(mean - reach, 0.0), min(mean + reach, 1.0)))
    return bands


def _texts(parameter: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {count:,} drawn, {format_share(share)}; recipe {format_share(mean)}"
        for name, count, share, mean in zip(
            _names(parameter), parameter["observed"], _shares(parameter), parameter["expected"], strict=True
        )
    ]


def _names(parameter: Mapping[str, Any]) -> list[str]:
    """What each bin holds."""
    if "options" in parameter:
        return [format_number(value) for value in parameter["options"]]
    edges = parameter["edges"]
    if not parameter["whole"]:
        return [f"{format_number(low)} to {format_number(high)}" for low, high in zip(edges, edges[1:], strict=False)]
    ends = [(math.ceil(low), math.floor(high)) for low, high in zip(edges, edges[1:], strict=False)]
    return [str(first) if first == last else f"{first} to {last}" for first, last in ends]


@dataclass(frozen=True)
class _ValueAxis:
    bins: tuple[Interval, ...]
    ticks: tuple[Tick, ...]
    stands_apart: bool


def _axis(parameter: Mapping[str, Any]) -> _ValueAxis:
    if "options" in parameter:
        return _axis_of_options(parameter["options"])
    edges: list[float] = parameter["edges"]
    scale: Callable[[float], float] = math.log if parameter["logarithmic"] else float
    first, last = scale(edges[0]), scale(edges[-1])

    def x(value: float) -> float:
        return round(_LEFT + _PLOT_WIDTH * (scale(value) - first) / (last - first), 2)

    bins = tuple(Interval(x(low), round(x(high) - x(low), 2)) for low, high in zip(edges, edges[1:], strict=False))
    find = _logarithmic_ticks if parameter["logarithmic"] else _linear_ticks
    return _ValueAxis(bins, tuple(Tick(x(value), label) for value, label in find(edges[0], edges[-1])), False)


def _axis_of_options(options: Sequence[Any]) -> _ValueAxis:
    """Equal columns, whatever the values are; labels under as many as there is room for."""
    pitch = _PLOT_WIDTH / max(len(options), 4)  # two columns are not as wide as the page
    begin = _LEFT + (_PLOT_WIDTH - pitch * len(options)) / 2
    gap = min(0.22 * pitch, 10.0)
    bins = tuple(
        Interval(round(begin + pitch * number + gap / 2, 2), round(pitch - gap, 2)) for number in range(len(options))
    )
    labels = [format_number(value) for value in options]
    labelled = list(zip(bins, labels, strict=True))[:: _thinning(labels)]
    ticks = tuple(Tick(round(bar.start + bar.length / 2, 2), label) for bar, label in labelled)
    return _ValueAxis(bins, ticks, True)


def _linear_ticks(low: float, high: float) -> list[tuple[float, str]]:
    step = round_step((high - low) / 5)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(number * step, f"{number * step:.{digits}f}".replace("-", "−")) for number in numbers]


def _logarithmic_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers: 1, 2 and 5 times a power of ten over a short way, powers alone over a long one."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        values = [factor * 10.0**power for power in powers for factor in factors]
        inside = [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        every = _thinning([format_number(value) for value in inside])
        if every == 1:
            break
    if len(inside) < 2:
        inside, every = [low, high], 1
    return [(value, format_number(value)) for value in inside[::every]]


def _thinning(labels: Sequence[str]) -> int:
    """1 where all labels fit below the chart, 2 where every other one does, ..."""
    return math.ceil(sum(len(label) + 1 for label in labels) / _LABEL_CHARACTERS)


def format_share(share: float) -> str:
    """A share as a percentage with as many digits as it needs: 25 %, 5.3 %, 0.04 %."""
    percent = 100 * share
    digits = f"{percent:.1f}".removesuffix(".0") if percent >= 0.95 else f"{percent:.2g}"
    return f"{digits} %"
