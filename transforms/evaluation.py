"""The work of `evaluate`: restored pictures against their references, paired by key and never by position."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transforms.errors import ConfigurationError, Reason, RecordError
from transforms.formats.paired import with_role
from transforms.metrics import parse_metric
from transforms.pictures import Samples, decode
from transforms.record import IMAGE_EXTENSIONS, Record, clean_field, extension, image_fields
from transforms.restoration import DEFAULT_METRICS, describe_samples
from transforms.samples import crop_for_report
from transforms.streaming import StageTimes
from transforms.units import PICTURES_PER_UNIT, Member, Plan, Unit, group_members, plan_units
from transforms.version import VERSION
from transforms.work import Finished, Item, Sample, ShardLayout, SinkKind


@dataclass(frozen=True)
class EvaluateJob:
    """Configuration of an evaluation."""

    metrics: tuple[str, ...] = DEFAULT_METRICS
    max_pixels: int = 300_000_000
    batch_bytes: int = 1
    verb: str = "evaluate"
    layout: ShardLayout = field(default_factory=ShardLayout)

    def load(self) -> EvaluateWork:
        return EvaluateWork(self)

    def sink_kind(self, unit: Unit) -> SinkKind:
        return "none"

    def fingerprint(self) -> str:
        decisive = {"version": VERSION, "metrics": self.metrics, "max_pixels": self.max_pixels, "verb": self.verb}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {"metrics": list(self.metrics)}


class EvaluateWork:
    """Measures pairs. There is no operator: everything happens in the threads."""

    def __init__(self, job: EvaluateJob) -> None:
        self._job = job
        self._metrics = [parse_metric(name) for name in job.metrics]

    def decode(self, record: Record) -> Item:
        restored_name, clean_name = paired_fields(record)
        restored = decode(record.fields[restored_name], restored_name, max_pixels=self._job.max_pixels).samples
        clean = decode(record.fields[clean_name], clean_name, max_pixels=self._job.max_pixels).samples
        return Item(record.key, record.index, restored.nbytes + clean.nbytes, (restored, clean))

    def operate(self, items: Sequence[Item]) -> list[None]:
        return [None] * len(items)

    def finish(self, item: Item, result: None, times: StageTimes) -> Finished:
        restored, clean = item.payload
        with times.measure("measure"):
            metrics = {metric.name: metric(restored, clean) for metric in self._metrics}
        row = describe_samples(restored) | {"key": item.key, "index": item.index, "metrics": metrics, "notes": []}
        pixels = restored.shape[0] * restored.shape[1]
        crops: dict[str, Samples] = {"restored": crop_for_report(restored), "clean": crop_for_report(clean)}
        sample = Sample(item.key, metrics[self._metrics[0].name], crops)
        return Finished(item.key, item.index, [], [row], pixels_in=pixels, pixels_out=pixels, samples=[sample])

    def counters(self) -> Mapping[str, int]:
        return {}


def paired_fields(record: Record) -> tuple[str, str]:
    """The restored and the reference field of a record.

    Raises:
        RecordError: `UNPAIRED` if one is missing, `AMBIGUOUS` if it is not clear which field is the restored one.
    """
    clean = clean_field(record.fields)
    candidates = [name for name in image_fields(record.fields) if name != clean]
    named = [name for name in candidates if name.partition(".")[0] == "restored"] or candidates
    if clean is None or not named:
        missing = "reference" if clean is None else "restored picture"
        raise RecordError(Reason.UNPAIRED, f"no {missing} for key {record.key!r}; pairs are found by key")
    if len(named) > 1:
        raise RecordError(Reason.AMBIGUOUS, f"several pictures {named} could be the restored one; name it 'restored.*'")
    return named[0], clean


def plan_evaluation(restored: str, reference: str | None, *, pictures_per_unit: int = PICTURES_PER_UNIT) -> Plan:
    """Pairs the units of the restored pictures with those of the references, by listing only.

    Without a reference, the records bring their own `clean.*`.

    Raises:
        ConfigurationError: tars on one side and loose files on the other, or tars whose names do not match.
    """
    plan = plan_units(restored, pictures_per_unit=pictures_per_unit)
    if reference is None:
        return plan
    references = plan_units(reference)
    kinds = {unit.kind for unit in plan.units} | {unit.kind for unit in references.units}
    if kinds == {"folder"}:
        return _pair_folders(plan, references, pictures_per_unit)
    if kinds == {"tar"}:
        return Plan(tuple(_pair_tars(plan.units, references.units)), plan.ignored)
    raise ConfigurationError(
        f"--input {restored!r} and --reference {reference!r} must both be tars or both be folders of loose files; "
        f"found {sorted(kinds)}"
    )


def _pair_folders(restored: Plan, references: Plan, pictures_per_unit: int) -> Plan:
    fields: dict[str, list[Member]] = defaultdict(list)
    for role, plan in (("restored", restored), ("clean", references)):
        members = [
            member for unit in plan.units for member in unit.members if extension(member.field) in IMAGE_EXTENSIONS
        ]
        named = {member.key for member in members if member.field.partition(".")[0] == role}
        for member in members:
            if member.key not in named or member.field.partition(".")[0] == role:
                fields[member.key].append(replace(member, field=with_role(member.field, role)))
    paired = [member for key in sorted(fields) for member in fields[key]]
    return Plan(tuple(group_members(paired, pictures_per_unit)), restored.ignored)


def _pair_tars(restored: Sequence[Unit], references: Sequence[Unit]) -> Iterator[Unit]:
    by_name = {unit.name: unit for unit in references}
    if len(restored) == len(references) == 1:
        by_name = {restored[0].name: references[0]}
    missing = [unit.name for unit in restored if unit.name not in by_name]
    if missing:
        raise ConfigurationError(
            f"no reference shard called {missing[0]!r}; shards are paired by name and their records by key "
            f"(references: {sorted(by_name)[:5]})"
        )
    for unit in restored:
        url = by_name[unit.name].files[0].url
        if not url.endswith(".tar"):
            raise ConfigurationError(
                f"references are read by key, which the compressed {url!r} does not allow: unpack it"
            )
        yield replace(unit, kind="paired_tars", files=(*unit.files, *by_name[unit.name].files))
