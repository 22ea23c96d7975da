"""What a recipe lets us expect of its draws: how often each operator happens, and how its numbers and words are spread.

Every setting gets a few bins that follow from the recipe alone, each with its exact probability. Workers count into
them, and counts add up exactly in any order and grouping. The description is plain JSON, so that whoever shows counts
beside probabilities need not know what a degradation is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from models.degradation.chains import InOrder, Maybe, OneOf, Shuffle
from models.degradation.distributions import (
    TRUNCATION,
    Choice,
    Constant,
    Distribution,
    LogUniform,
    Normal,
    Uniform,
    WordChoice,
)
from models.degradation.protocol import Degradation, Operator, Quantity, Wording, settings

MOST_BINS = 24  # of a discrete setting; more values share bins
_CONTINUOUS_BINS = 20


@dataclass(frozen=True)
class Bins:
    """Bins of one number or word, with the probability of each.

    Attributes:
        expected: probability of each bin; they add up to 1.
        options: one bin for each of these values; empty if there are `edges`.
        edges: bin i is [edges[i], edges[i + 1]), the last one with its upper edge. The edges of whole numbers lie between
            them.
        logarithmic: whether an axis should be.
        whole: whether all values are whole numbers.
    """

    expected: tuple[float, ...]
    options: tuple[float | str, ...] = ()
    edges: tuple[float, ...] = ()
    logarithmic: bool = False
    whole: bool = False

    @property
    def constant(self) -> bool:
        """Whether there is only one value."""
        return len(self.options) == 1

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        ways = {"options": list(self.options)} if self.options else {"edges": list(self.edges)}
        shares = [float(f"{share:.10g}") for share in self.expected]  # without the dust of subtractions
        return {"expected": shares, "logarithmic": self.logarithmic, "whole": self.whole} | ways


@dataclass(frozen=True)
class Place:
    """One operator where it stands in a recipe.

    Attributes:
        operator: the member itself.
        paths: the chains around it with the member's number, such as "sequence 2 › one_of 1", empty at the top. There are
            several only if Python code put the same object into a chain more than once: then draws cannot tell them apart.
        share: how often a pair has it, on average: a probability if there is one path.
        bins: setting, or another number that the operator draws -> bins of what is drawn for it.
    """

    operator: Operator
    paths: tuple[str, ...]
    share: float
    bins: dict[str, Bins]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the meaning of each setting for a person."""
        meanings = {name: setting.meaning for name, setting in settings(type(self.operator)).items()}
        meanings |= {name: quantity.meaning for name, (quantity, _) in self.operator.further_draws().items()}
        parameters = [{"name": name, "meaning": meanings[name]} | one.to_json() for name, one in self.bins.items()]
        about = {"operator": self.operator.name, "paths": list(self.paths), "share": self.share}
        return about | {"parameters": parameters}


def places_of(degradation: Degradation) -> list[Place]:
    """The operators of a recipe in the order in which they are written, one place for each time that it names one."""
    found: dict[int, Place] = {}
    for operator, path, share in _walk(degradation, (), 1.0):
        known = found.get(id(operator)) or Place(operator, (), 0.0, dict(_bins_of_settings(operator)))
        found[id(operator)] = replace(known, paths=(*known.paths, " › ".join(path)), share=known.share + share)
    return list(found.values())


def _walk(
    degradation: Degradation, path: tuple[str, ...], share: float
) -> Iterator[tuple[Operator, tuple[str, ...], float]]:
    if isinstance(degradation, Operator):
        yield degradation, path, share
        for number, part in enumerate(composed(degradation), start=1):
            yield from _walk(part, (*path, f"{degradation.name} {number}"), share)
        return
    for number, (member, probability) in enumerate(_members(degradation), start=1):
        step = degradation.name if isinstance(degradation, Maybe) else f"{degradation.name} {number}"
        yield from _walk(member, (*path, step), share * probability)


def composed(operator: Operator) -> tuple[Operator, ...]:
    """The operators that one operator is made of (`composed_blur`): it draws all of them, as `members` in this order."""
    members: tuple[Operator, ...] = getattr(operator, "members", ())
    return members


def _members(chain: Degradation) -> list[tuple[Degradation, float]]:
    """The members of a chain, each with its probability of happening when the chain happens."""
    if isinstance(chain, InOrder | Shuffle):
        return [(member, 1.0) for member in chain.members]
    if isinstance(chain, OneOf):
        return [
            (member, weight / sum(chain.weights)) for member, weight in zip(chain.members, chain.weights, strict=True)
        ]
    if isinstance(chain, Maybe):
        return [(chain.member, chain.probability)]
    raise TypeError(f"{type(chain).__name__} says nowhere how often its members happen; add it to this function")


def _bins_of_settings(operator: Operator) -> Iterator[tuple[str, Bins]]:
    for name, setting in settings(type(operator)).items():
        if isinstance(setting, Quantity):
            yield name, bins_of_numbers(getattr(operator, name), whole=setting.integer)
        elif isinstance(setting, Wording):
            yield name, bins_of_words(getattr(operator, name))
    for name, (quantity, distribution) in operator.further_draws().items():
        yield name, bins_of_numbers(distribution, whole=quantity.integer)


def bins_of_words(choice: WordChoice) -> Bins:
    """A bin for each word."""
    return _options(choice.options, choice.weights)


def bins_of_numbers(distribution: Distribution, *, whole: bool = False) -> Bins:
    """Bins over all that a distribution can draw; `whole`: as `sample_integer` draws it.

    Few values get a bin each. Ranges are divided evenly, on a logarithmic scale if that is how they are drawn.

    Raises:
        TypeError: a distribution that is not known here.
    """
    if isinstance(distribution, Constant | Choice):
        values = distribution.values()
        weights = distribution.weights if isinstance(distribution, Choice) else None
        return _options([int(value) for value in values] if whole else values, weights, whole)
    if not isinstance(distribution, Uniform | LogUniform | Normal):
        raise TypeError(f"{type(distribution).__name__} has no bins; add it to this function")
    low, high = distribution.values()
    logarithmic = isinstance(distribution, LogUniform)
    if whole:
        return _whole_bins(distribution, *_whole_range(distribution), logarithmic)
    if low == high:
        return Bins((1.0,), options=(low,))
    edges = _spread(low, high, _CONTINUOUS_BINS, logarithmic)
    return Bins(_differences([_reached(distribution, edge) for edge in edges]), edges=edges, logarithmic=logarithmic)


def _options(values: Sequence[Any], weights: Sequence[float] | None, whole: bool = False) -> Bins:
    """A bin for each value; numbers that are too many share bins."""
    totals: dict[Any, float] = {}
    for value, weight in zip(values, weights or [1.0] * len(values), strict=True):
        totals[value] = totals.get(value, 0.0) + weight
    ordered = list(totals) if isinstance(values[0], str) else sorted(totals)
    total = sum(totals.values())
    expected = [totals[value] / total for value in ordered]
    if len(ordered) <= MOST_BINS or isinstance(values[0], str):
        return Bins(tuple(expected), options=tuple(ordered), whole=whole)
    together = math.ceil(len(ordered) / MOST_BINS)
    starts = range(0, len(ordered), together)
    between = [(ordered[start - 1] + ordered[start]) / 2 for start in starts[1:]]
    edges = (float(ordered[0]), *between, float(ordered[-1]))
    return Bins(tuple(sum(expected[start : start + together]) for start in starts), edges=edges, whole=whole)


def _whole_range(distribution: Uniform | LogUniform | Normal) -> tuple[int, int]:
    low, high = distribution.values()
    return (round(low), round(high)) if isinstance(distribution, Normal) else (int(low), int(high))


def _whole_bins(distribution: Uniform | LogUniform | Normal, first: int, last: int, logarithmic: bool) -> Bins:
    if last - first < MOST_BINS:
        cuts = [number - 0.5 for number in range(first, last + 2)]
        expected = _differences([_reached_whole(distribution, cut) for cut in cuts])
        return Bins(expected, options=tuple(range(first, last + 1)), logarithmic=logarithmic, whole=True)
    if logarithmic:
        ends = sorted({round(edge) for edge in _spread(first, last + 1, _CONTINUOUS_BINS, True)})
    else:
        step = math.ceil((last + 1 - first) / MOST_BINS)
        ends = [*range(first, last + 1, step), last + 1]
    cuts = [end - 0.5 for end in ends]
    expected = _differences([_reached_whole(distribution, cut) for cut in cuts])
    return Bins(expected, edges=tuple(cuts), logarithmic=logarithmic, whole=True)


def _spread(low: float, high: float, bins: int, logarithmic: bool) -> tuple[float, ...]:
    if logarithmic:
        inner = [low * (high / low) ** (number / bins) for number in range(1, bins)]
    else:
        inner = [low + (high - low) * number / bins for number in range(1, bins)]
    return (low, *inner, high)


def _differences(reached: Sequence[float]) -> tuple[float, ...]:
    return tuple(after - before for before, after in pairwise(reached))


def _reached(distribution: Uniform | LogUniform | Normal, value: float) -> float:
    """P(a real number drawn is at most `value`)."""
    if isinstance(distribution, Normal):
        deviations = (value - distribution.mean) / distribution.std
        # Phi(z) = (1 + erf(z / sqrt(2))) / 2, cut off on both sides and scaled to 1.
        inside = math.erf(min(max(deviations, -TRUNCATION), TRUNCATION) / math.sqrt(2))
        return 0.5 + 0.5 * inside / math.erf(TRUNCATION / math.sqrt(2))
    low, high = distribution.values()
    if isinstance(distribution, LogUniform):
        return math.log(min(max(value, low), high) / low) / math.log(high / low)
    inside = min(max(value, low), high)
    if distribution.power == 1:
        return (inside - low) / (high - low)
    reached = (inside ** (1 / distribution.power) - distribution.low) / (distribution.high - distribution.low)
    return float(reached if distribution.power > 0 else 1 - reached)


def _reached_whole(distribution: Uniform | LogUniform | Normal, value: float) -> float:
    """P(a whole number drawn is at most `value`), which lies between two whole numbers."""
    if isinstance(distribution, Normal):
        if distribution.std == 0:
            return float(value > distribution.mean)
        return _reached(distribution, value)
    first, last = _whole_range(distribution)
    below = min(max(math.floor(value), first - 1), last)
    if isinstance(distribution, LogUniform):
        return math.log((below + 1) / distribution.low) / math.log((distribution.high + 1) / distribution.low)
    return (below + 1 - first) / (last + 1 - first)
