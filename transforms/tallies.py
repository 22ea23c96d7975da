"""Tallies in a ledger: counts with names such as "3.sigma.7", written as one list for each numbered family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def packed_tallies(tallies: Mapping[str, int]) -> dict[str, Any]:
    """Counts by name, the numbered ones as lists, which takes a third of the room.

    Example:
        >>> packed_tallies({"pairs": 9, "3": 8, "3.sigma.0": 5, "3.sigma.2": 3})
        {'pairs': 9, '3': 8, '3.sigma': [5, 0, 3]}
    """
    packed: dict[str, Any] = {}
    for name, count in tallies.items():
        family, _, number = name.rpartition(".")
        if family and number.isdecimal():
            counts = packed.setdefault(family, [])
            counts.extend([0] * (int(number) + 1 - len(counts)))
            counts[int(number)] = count
        else:
            packed[name] = count
    return packed


def unpacked_tallies(packed: Mapping[str, Any]) -> dict[str, int]:
    """What `packed_tallies` was given, but for counts of 0."""
    tallies: dict[str, int] = {}
    for name, counts in packed.items():
        if isinstance(counts, list):
            tallies |= {f"{name}.{number}": count for number, count in enumerate(counts) if count}
        else:
            tallies[name] = counts
    return tallies
