"""Counting what was drawn, into the bins that a recipe's own distributions make.

A pair costs a lookup and an addition for each drawn setting. The counts have names such as "3.sigma.7" (place, setting,
bin), so their number depends on the recipe, never on the number of pairs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from models.degradation.chains import DrawnStep
from models.degradation.expectations import Bins, composed, places_of
from models.degradation.protocol import Degradation, Step

PAIRS = "pairs"
OTHER = "other"  # instead of a bin: what the recipe cannot draw
_PLAIN = (float, int, str)

Namer: TypeAlias = Callable[[Any], str]


@dataclass(frozen=True)
class _Counted:
    """What is counted at a place.

    Attributes:
        name: of the count of its steps.
        settings: setting -> what names the count of a value.
        constants: (setting, its only value, name of the count of others): what is always the same is not counted.
        members: the places that it is composed of.
    """

    name: str
    settings: tuple[tuple[str, Namer], ...]
    constants: tuple[tuple[str, Any, str], ...]
    members: tuple[_Counted, ...]

    def add(self, step: Step, counts: Counter[str]) -> None:
        counts[self.name] += 1
        (parameters,) = step.values()
        for setting, name_of in self.settings:
            value = parameters.get(setting)
            if isinstance(value, _PLAIN):
                counts[name_of(value)] += 1
        for setting, only, other in self.constants:
            if parameters.get(setting, only) != only:
                counts[other] += 1
        if self.members:
            for member, drawn in zip(self.members, parameters["members"], strict=True):
                member.add(drawn, counts)


class DrawTally:
    """Counts the drawn steps of pairs by place, setting and bin. Holds no counts of its own, so threads may share it.

    Attributes:
        places: where the recipe's operators stand; a count's name begins with the index into this list.
    """

    def __init__(self, degradation: Degradation) -> None:
        self.places = places_of(degradation)
        numbers = {id(place.operator): number for number, place in enumerate(self.places)}
        self._counted = {key: self._count_at(number, numbers) for key, number in numbers.items()}

    def add(self, steps: Sequence[Step], counts: Counter[str]) -> None:
        """Counts one pair.

        Args:
            steps: as `draw_steps` drew them from the same degradation.

        Raises:
            ValueError: a step that another degradation drew.
        """
        counts[PAIRS] += 1
        for step in steps:
            counted = self._counted.get(id(step.drawn_by)) if isinstance(step, DrawnStep) else None
            if counted is None:
                raise ValueError(f"step {next(iter(step))!r} was not drawn from this recipe, so its place is unknown")
            counted.add(step, counts)

    def describe(self) -> list[dict[str, Any]]:
        """What the counts mean and what to expect of them, plain JSON: one entry for each place."""
        return [place.to_json() for place in self.places]

    def _count_at(self, number: int, numbers: Mapping[int, int]) -> _Counted:
        place = self.places[number]
        prefixes = {name: f"{number}.{name}" for name in place.bins}
        settings = [(name, _namer(prefixes[name], bins)) for name, bins in place.bins.items() if not bins.constant]
        constants = [
            (name, bins.options[0], f"{prefixes[name]}.{OTHER}") for name, bins in place.bins.items() if bins.constant
        ]
        members = [self._count_at(numbers[id(member)], numbers) for member in composed(place.operator)]
        return _Counted(str(number), tuple(settings), tuple(constants), tuple(members))


def _namer(prefix: str, bins: Bins) -> Namer:
    """From a drawn value to the name of its count; all names are made once, here."""
    names = [f"{prefix}.{number}" for number in range(len(bins.expected))]
    other = f"{prefix}.{OTHER}"
    if bins.options:
        by_option: Mapping[Any, str] = dict(zip(bins.options, names, strict=True))
        return lambda value: by_option.get(value, other)
    low, *inner, high = bins.edges

    def name_of(value: Any) -> str:
        return names[bisect_right(inner, value)] if not isinstance(value, str) and low <= value <= high else other

    return name_of
