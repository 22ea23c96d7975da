"""Geometry of the charts that show counts beside their probabilities: plain numbers that the page's template draws as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from transforms.charts import Tick, round_step
from transforms.drawn_parameters import format_number

WIDTH, HEIGHT = 320, 118
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 14, 8, 20
_PLOT_WIDTH, _PLOT_HEIGHT = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_DEVIATIONS = 1.96  # 95 of 100 counts lie within so many standard deviations
_HEADROOM, _THINNEST = 1.06, 1.0  # over the highest bar, relative; of what chance allows, on the page
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


@dataclass(frozen=True)
class _Compared:
    """Shares of the bins: drawn, said by the recipe, and between which ones a share falls by chance."""

    drawn: list[float]
    recipe: list[float]
    chance: list[tuple[float, float]]
    texts: list[str]

    @property
    def highest(self) -> float:
        return max(*self.drawn, *self.recipe, *(high for _, high in self.chance))


def _compare(parameter: Mapping[str, Any]) -> _Compared:
    total, recipe = parameter["count"], list(parameter["expected"])
    drawn = [count / total if total else 0.0 for count in parameter["observed"]]
    # The count of a bin is binomial.
    reaches = [_DEVIATIONS * math.sqrt(share * (1 - share) / total) if total else 0.0 for share in recipe]
    chance = [(max(share - reach, 0.0), min(share + reach, 1.0)) for share, reach in zip(recipe, reaches, strict=True)]
    texts = [
        f"{name}: {count:,} drawn, {format_share(share)}; recipe {format_share(said)}"
        for name, count, share, said in zip(_names(parameter), parameter["observed"], drawn, recipe, strict=True)
    ]
    return _Compared(drawn, recipe, chance, texts)


def draw_columns(parameter: Mapping[str, Any]) -> ComparisonChart:
    """The chart of a number: `observed`, `expected`, `count` and `options` or `edges`, as `compare_with_recipe` gives them."""
    compared, axis, bottom = _compare(parameter), _axis(parameter), _TOP + _PLOT_HEIGHT
    step = round_step(compared.highest / 2)
    top = max(compared.highest, step) * _HEADROOM

    def height(share: float) -> float:
        return round(_PLOT_HEIGHT * share / top, 2)

    def y(share: float) -> float:
        return round(bottom - height(share), 2)

    bins = tuple(
        ComparedBin(
            across, Interval(y(share), height(share)), Interval(y(high), max(height(high - low), _THINNEST)), text
        )
        for across, share, (low, high), text in zip(
            axis.bins, compared.drawn, compared.chance, compared.texts, strict=True
        )
    )
    levels = [step * number for number in range(math.floor(top / step + 1e-9) + 1)]
    y_ticks = tuple(Tick(y(level), format_share(level)) for level in levels)
    return ComparisonChart(bins, _outline(axis, [y(share) for share in compared.recipe]), axis.ticks, y_ticks)


def _outline(axis: _ValueAxis, levels: Sequence[float]) -> str:
    """A staircase over neighbouring bins, or a short line over each of those that stand apart."""
    ends = [(bar.start, round(bar.start + bar.length, 2)) for bar in axis.bins]
    if axis.stands_apart:
        return " ".join(f"M{start} {level}H{end}" for (start, end), level in zip(ends, levels, strict=True))
    steps = " ".join(f"V{level}H{end}" for (_, end), level in zip(ends, levels, strict=True))
    bottom = _TOP + _PLOT_HEIGHT
    return f"M{ends[0][0]} {bottom}{steps}V{bottom}"


def draw_words(parameter: Mapping[str, Any]) -> tuple[WordRow, ...]:
    """The rows of a choice of words, in the recipe's order."""
    compared = _compare(parameter)

    def width(share: float) -> float:
        return round(100 * share / compared.highest, 2)

    return tuple(
        WordRow(str(word), width(share), width(said), Interval(width(low), width(high - low)), share, text)
        for word, share, said, (low, high), text in zip(
            parameter["options"], compared.drawn, compared.recipe, compared.chance, compared.texts, strict=True
        )
    )


def _names(parameter: Mapping[str, Any]) -> list[str]:
    """What each bin holds."""
    if "options" in parameter:
        return [format_number(value) for value in parameter["options"]]
    edges = parameter["edges"]
    if not parameter["whole"]:
        return [f"{format_number(low)} to {format_number(high)}" for low, high in pairwise(edges)]
    ends = [(math.ceil(low), math.floor(high)) for low, high in pairwise(edges)]
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

    bins = tuple(Interval(x(low), round(x(high) - x(low), 2)) for low, high in pairwise(edges))
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
