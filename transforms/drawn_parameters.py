"""What a run drew, beside what its recipe says: counts of the ledgers against probabilities known before the start.

The recipe's side is plain JSON, one entry for each place where an operator stands:
`{"operator", "paths", "share", "parameters": [{"name", "meaning", "expected": [...], "options" or "edges": [...]}]}`.
The run's side is counts by name: "pairs", "3" (pairs in which the operator of place 3 happened), "3.sigma.7" (of these,
sigma in bin 7) and "3.sigma.other" (sigma where the recipe cannot draw it). What has only one bin is counted where it is
another. Nothing here knows what a degradation is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transforms.goodness_of_fit import chance_of

# A report tests some hundred distributions: one in ten thousand reports raises a flag by chance.
FLAG_BELOW = 1e-6


def compare_with_recipe(places: Sequence[Mapping[str, Any]], tallies: Mapping[str, int]) -> dict[str, Any]:
    """Observed and expected side by side, plain JSON, as `summary.json` holds them and the page shows them.

    Returns:
        `pairs`, `flag_below`, `deviating` (how many shares and distributions have a `chance` below that) and `operators`:
        for each place what the recipe says of it and `applied`, `chance` of such a count (None where a place stands for
        several), `follows`; for each of its parameters `count`, `other` (how many lie where the recipe cannot draw them),
        `observed` by bin, `chance`, `follows`.
    """
    pairs = tallies.get("pairs", 0)
    operators = [_compare_place(place, str(index), pairs, tallies) for index, place in enumerate(places)]
    tested = [one for operator in operators for one in (operator, *operator["parameters"])]
    return {
        "pairs": pairs,
        "flag_below": FLAG_BELOW,
        "deviating": sum(not one["follows"] for one in tested),
        "operators": operators,
    }


def _compare_place(place: Mapping[str, Any], index: str, pairs: int, tallies: Mapping[str, int]) -> dict[str, Any]:
    applied, share = tallies.get(index, 0), place["share"]
    chance = chance_of([applied, pairs - applied], [share, 1 - share]) if len(place["paths"]) == 1 else None
    parameters = [
        _compare_parameter(parameter, applied, f"{index}.{parameter['name']}", tallies)
        for parameter in place["parameters"]
    ]
    found = {"applied": applied, "chance": chance, "follows": chance is None or chance >= FLAG_BELOW}
    return {**place, **found, "parameters": parameters}


def _compare_parameter(
    parameter: Mapping[str, Any], applied: int, prefix: str, tallies: Mapping[str, int]
) -> dict[str, Any]:
    other, bins = tallies.get(f"{prefix}.other", 0), len(parameter["expected"])
    observed = [tallies.get(f"{prefix}.{number}", 0) for number in range(bins)] if bins > 1 else [applied - other]
    chance = 0.0 if other else chance_of(observed, parameter["expected"])
    figures = {"count": sum(observed) + other, "other": other, "observed": observed}
    return {**parameter, **figures, "chance": chance, "follows": chance >= FLAG_BELOW}


def format_number(value: Any) -> str:
    """A number with three digits that count, a word as it is: 0.098, 25, 1,230, 1.2e-05."""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−", 1) if value < 0 else text
