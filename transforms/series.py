"""Figures of many pictures as one small state that merges exactly: any order and any grouping gives the same bits."""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# Every finite float is a whole multiple of 2**-1074, so a sum in that unit is a sum of integers, and its squares' in 2**-2148.
_FRACTION_BITS = 1074
KEPT_EACH_WAY = 24
# Bins are whole numbers up to this size; no real figure comes near.
_LAST_BIN = 10**9

# Where a figure comes from: unit, key, position in the unit.
Place = tuple[str, str, int]


def to_fixed_point(value: float) -> int:
    """A finite float as a whole number of 2**-1074, without rounding."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_FRACTION_BITS - denominator.bit_length() + 1)


def from_fixed_point(total: int, count: int = 1) -> float:
    """total * 2**-1074 / count, rounded once."""
    return total / (count << _FRACTION_BITS)


@dataclass
class Series:
    """Distribution of one figure.

    Infinities and undefined values (NaN) are counted apart and enter nothing else.

    Attributes:
        resolution: width of the bins that quantiles and charts come from.
        total, squares: exact sums of x and x^2 in units of 2**-1074 and 2**-2148.
        bins: floor(x / resolution) -> count.
        lowest, highest: the extreme values with their places, ties in the order of the places.
    """

    resolution: float
    count: int = 0
    infinite: int = 0
    undefined: int = 0
    below_zero: int = 0
    total: int = 0
    squares: int = 0
    bins: Counter[int] = field(default_factory=Counter)
    lowest: list[tuple[float, Place]] = field(default_factory=list)
    highest: list[tuple[float, Place]] = field(default_factory=list)  # values negated, so that both lists sort alike

    def add(self, value: float, place: Place) -> None:
        if value == math.inf:
            self.infinite += 1
            return
        if not math.isfinite(value):
            self.undefined += 1
            return
        fixed = to_fixed_point(value)
        self.count += 1
        self.below_zero += value < 0
        self.total += fixed
        self.squares += fixed * fixed
        self.bins[math.floor(max(-_LAST_BIN, min(_LAST_BIN, value / self.resolution)))] += 1
        _keep_first(self.lowest, (value, place))
        _keep_first(self.highest, (-value, place))

    def merge(self, other: Series) -> None:
        self.count += other.count
        self.infinite += other.infinite
        self.undefined += other.undefined
        self.below_zero += other.below_zero
        self.total += other.total
        self.squares += other.squares
        self.bins.update(other.bins)
        self.lowest = sorted([*self.lowest, *other.lowest])[:KEPT_EACH_WAY]
        self.highest = sorted([*self.highest, *other.highest])[:KEPT_EACH_WAY]

    @property
    def mean(self) -> float | None:
        return from_fixed_point(self.total, self.count) if self.count else None

    @property
    def standard_deviation(self) -> float | None:
        """Of the sample: the sum of squared deviations over n - 1; None below two values."""
        if self.count < 2:
            return None
        deviations = self.count * self.squares - self.total * self.total
        # The root is taken of a whole number with 128 more bits: a variance may not fit into a float where its root does.
        root = math.isqrt((deviations << 128) // (self.count * (self.count - 1)))
        return root / (1 << (_FRACTION_BITS + 64))

    @property
    def minimum(self) -> float | None:
        return self.lowest[0][0] if self.lowest else None

    @property
    def maximum(self) -> float | None:
        return -self.highest[0][0] if self.highest else None

    def quantile(self, share: float) -> float | None:
        """The value below which `share` of the values lie (nearest rank), to half a bin."""
        if self.minimum is None or self.maximum is None:
            return None
        remaining = max(1, math.ceil(share * self.count))
        for number in sorted(self.bins):
            remaining -= self.bins[number]
            if remaining <= 0:
                middle = (number + 0.5) * self.resolution
                return min(max(middle, self.minimum), self.maximum)
        raise AssertionError("bins and count disagree")

    def worst(self) -> list[tuple[float, Place]]:
        return list(self.lowest)

    def best(self) -> list[tuple[float, Place]]:
        return [(-negated, place) for negated, place in self.highest]

    def to_json(self) -> dict[str, Any]:
        """All figures, as the report shows them."""
        deviation = self.standard_deviation
        return {
            "count": self.count,
            "infinite": self.infinite,
            "undefined": self.undefined,
            "below_zero": self.below_zero,
            "mean": self.mean,
            "std": deviation,
            "standard_error": None if deviation is None else deviation / math.sqrt(self.count),
            "min": self.minimum,
            "p05": self.quantile(0.05),
            "median": self.quantile(0.5),
            "p95": self.quantile(0.95),
            "max": self.maximum,
            "quantile_resolution": self.resolution,
            "lowest": _places_to_json(self.worst()),
            "highest": _places_to_json(self.best()),
        }


def _keep_first(ranked: list[tuple[float, Place]], entry: tuple[float, Place]) -> None:
    if len(ranked) < KEPT_EACH_WAY or entry < ranked[-1]:
        insort(ranked, entry)
        del ranked[KEPT_EACH_WAY:]


def _places_to_json(ranked: Iterable[tuple[float, Place]]) -> list[dict[str, Any]]:
    return [{"value": value, "unit": unit, "key": key, "index": index} for value, (unit, key, index) in ranked]
