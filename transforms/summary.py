"""The summary of a run: what its ledgers add up to, as one small state that merges exactly.

A Beam combiner holds it, the report shows it, and `summary.json` is its `to_json()`. The same ledgers give the same summary, bit
for bit, in any order and grouping. Its size depends on the number of metrics, never on the number of pictures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transforms.series import Series, from_fixed_point, to_fixed_point

# What a metric's name has in front where it is not the result that was measured, and what was.
INPUT_PREFIX, BICUBIC_PREFIX = "input ", "bicubic "
BASELINES: Mapping[str, str] = {INPUT_PREFIX: "degraded input", BICUBIC_PREFIX: "bicubic enlargement"}
# Bins of the quantiles: the last digit that anybody prints.
_RESOLUTIONS = {"psnr": 0.01, "ssim": 0.0001}
_RESOLUTION = 0.001
_UNITS = {"psnr": "dB"}
# Notes have few stable wordings. Should one ever hold a number, memory stays bounded: the first wordings in order of the
# alphabet are kept, which is exact under merging, because what ranks first in the whole ranks first in each part.
NOTES_KEPT = 64


def metric_quantity(name: str) -> str:
    """`psnr` of `psnr[rgb,u8]`, `input psnr[rgb,u8]` and `bicubic psnr[rgb,u8]`."""
    return name.partition("[")[0].rpartition(" ")[2]


def is_baseline(name: str) -> bool:
    """Whether a metric's name says that something else than the result was measured."""
    return name.startswith(tuple(BASELINES))


def metric_unit(name: str) -> str:
    return _UNITS.get(metric_quantity(name), "")


def read_figure(value: Any) -> float:
    """A figure as ledgers spell it: a number, "inf", "-inf" or "nan"; null counts as undefined."""
    return math.nan if value is None else float(value)


@dataclass
class Summary:
    """Everything that the report says about pictures, without the pictures.

    Attributes:
        counts, tallies: sums of the ledgers' counts and tallies.
        reasons, stages: dead letters by reason and by stage.
        kinds: records by channels and depth, such as "RGB 8 bit".
        notes: records by note, first wordings only; `notes_total` counts all.
        megapixels: sizes of the records.
        metrics: metric name -> its distribution; "input M" is M of the degraded picture, "bicubic M" that of its enlargement.
        gains: metric name M -> the distribution of M - "input M", or of M - "bicubic M", over the records where both are
            finite.
    """

    units: int = 0
    records: int = 0
    dead_letters: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    tallies: Counter[str] = field(default_factory=Counter)
    timings: dict[str, int] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    notes_total: int = 0
    megapixels: Series = field(default_factory=lambda: Series(_RESOLUTION))
    metrics: dict[str, Series] = field(default_factory=dict)
    gains: dict[str, Series] = field(default_factory=dict)

    def add_ledger(self, ledger: Mapping[str, Any]) -> None:
        """Adds one committed unit."""
        self.units += 1
        self.counts.update(ledger["counts"])
        self.tallies.update(ledger.get("tallies", {}))
        self._add_timings({stage: to_fixed_point(seconds) for stage, seconds in ledger["timings_s"].items()})
        for letter in ledger["dead_letters"]:
            self.dead_letters += 1
            self.reasons[letter["reason"]] += 1
            self.stages[letter.get("stage", "unknown")] += 1
        for row in ledger["records"]:
            self._add_record(row, ledger["unit"])
        self._bound_notes()

    def _add_record(self, row: Mapping[str, Any], unit: str) -> None:
        place = (unit, row["key"], row["index"])
        self.records += 1
        self.kinds[f"{'grey' if row['channels'] == 1 else 'RGB'} {row['bits']} bit"] += 1
        self.megapixels.add(row["width"] * row["height"] / 1e6, place)
        self.notes.update(row.get("notes", ()))
        self.notes_total += len(row.get("notes", ()))
        figures = {name: read_figure(value) for name, value in row.get("metrics", {}).items()}
        for name, value in figures.items():
            _series(self.metrics, name).add(value, place)
            for before in (figures[prefix + name] for prefix in BASELINES if prefix + name in figures):
                if math.isfinite(before) and math.isfinite(value):
                    _series(self.gains, name).add(value - before, place)

    def _add_timings(self, timings: Mapping[str, int]) -> None:
        for stage, seconds in timings.items():
            self.timings[stage] = self.timings.get(stage, 0) + seconds

    def _bound_notes(self) -> None:
        for note in sorted(self.notes)[NOTES_KEPT:]:
            del self.notes[note]

    def merge(self, other: Summary) -> None:
        """Adds another summary; it is left as it was."""
        self.units += other.units
        self.records += other.records
        self.dead_letters += other.dead_letters
        self.counts.update(other.counts)
        self.tallies.update(other.tallies)
        self._add_timings(other.timings)
        self.reasons.update(other.reasons)
        self.stages.update(other.stages)
        self.kinds.update(other.kinds)
        self.notes.update(other.notes)
        self.notes_total += other.notes_total
        self._bound_notes()
        self.megapixels.merge(other.megapixels)
        for name, series in other.metrics.items():
            _series(self.metrics, name).merge(series)
        for name, series in other.gains.items():
            _series(self.gains, name).merge(series)

    @property
    def timings_s(self) -> dict[str, float]:
        """Seconds by stage, summed over units and their threads; `wall` is the sum of the units' own."""
        return {stage: from_fixed_point(total) for stage, total in sorted(self.timings.items())}

    def primary_metric(self) -> str | None:
        """The metric that ranks pictures where nobody says which: the first PSNR, or the first of any kind."""
        names = [name for name in sorted(self.metrics) if not is_baseline(name)]
        return next((name for name in names if metric_quantity(name) == "psnr"), next(iter(names), None))

    def baseline(self) -> str | None:
        """What the names have in front of what the results are compared with; None where there is nothing."""
        return next((prefix for prefix in BASELINES if any(name.startswith(prefix) for name in self.metrics)), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, sorted, the same for the same ledgers."""
        return {
            "units": self.units,
            "records": self.records,
            "counts": _sorted(self.counts),
            "tallies": _sorted(self.tallies),
            "timings_s": self.timings_s,
            "dead_letters": {
                "total": self.dead_letters,
                "by_reason": _sorted(self.reasons),
                "by_stage": _sorted(self.stages),
            },
            "kinds": _sorted(self.kinds),
            "notes": {"total": self.notes_total, "by_wording": _sorted(self.notes)},
            "megapixels": self.megapixels.to_json(),
            "metrics": _figures(self.metrics),
            "gains": _figures(self.gains),
        }


def summarise(ledgers: Iterable[Mapping[str, Any]]) -> Summary:
    """The summary of many ledgers."""
    summary = Summary()
    for ledger in ledgers:
        summary.add_ledger(ledger)
    return summary


def _series(by_name: dict[str, Series], name: str) -> Series:
    if name not in by_name:
        by_name[name] = Series(_RESOLUTIONS.get(metric_quantity(name), _RESOLUTION))
    return by_name[name]


def _figures(by_name: Mapping[str, Series]) -> dict[str, dict[str, Any]]:
    return {name: {"unit": metric_unit(name)} | by_name[name].to_json() for name in sorted(by_name)}


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))
