"""Drawn parameters as a person reads them: what is usual, random or long is left out, numbers are rounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from models.degradation.chains import elementary
from models.degradation.protocol import Parameters, Step, defaults, written
from models.degradation.table import OPERATORS, operator_class

LONGEST_WORD, LONGEST_LIST = 24, 4  # what is longer is an array, a stream key or an encoded file


def short_form(steps: Sequence[Step]) -> tuple[tuple[str, str], ...]:
    """(operator, its parameters) for each drawn step.

    Example:
        >>> short_form([{"speckle_noise": {"sigma": 0.0980392, "stream": "00f3"}}])
        (('speckle_noise', 'sigma 0.098'),)
    """
    return tuple((name, spell(unusual(name, parameters))) for name, parameters in elementary(steps))


def unusual(operator: str, parameters: Parameters) -> dict[str, Any]:
    """The parameters of an operator without those that are what they are when a recipe says nothing."""
    usual = _usual(operator)
    return {each: value for each, value in parameters.items() if each not in usual or usual[each] != value}


@cache
def _usual(operator: str) -> Mapping[str, Any]:
    return {setting: written(value) for setting, value in defaults(operator_class(operator)).items()}


def spell(parameters: Mapping[str, Any]) -> str:
    """Drawn parameters in one line: numbers rounded; streams, arrays and encoded files left out.

    Example:
        >>> spell({"sigma": 0.0980392, "boundary": "reflect", "stream": "00f3"})
        'sigma 0.098, boundary reflect'
    """
    return ", ".join(f"{name} {value}" for name, value in _short(parameters))


def _short(parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in parameters.items():
        if name in OPERATORS and isinstance(value, Mapping):  # a member of a composed blur
            yield name, spell(unusual(name, value))
        elif isinstance(value, Mapping):
            yield from _short(value)
        elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            for each in value:
                yield from _short(each)
        elif name != "stream" and (word := _word(value)) is not None:
            yield name, word


def _word(value: Any) -> str | None:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: None}[value]
    if isinstance(value, int | float):
        return str(value) if isinstance(value, int) else f"{value:.3g}"
    if isinstance(value, str):
        return value if len(value) <= LONGEST_WORD else None
    if not value or len(value) > LONGEST_LIST or not all(isinstance(each, int | float) for each in value):
        return None
    return f"[{' '.join(str(_word(each)) for each in value)}]"
