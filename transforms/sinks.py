"""Where a unit's results go: shards (tar, Parquet, Arrow), single files, or nowhere (a run that only measures).

ShardSink      builds a unit's shards in local files: one, or one for each part (train, validation) and so many bytes
OrderedSink    puts the records of a shuffled unit where the shuffle wants them, before a ShardSink
MergingSink    adds recovered records to the shards of an earlier run
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any, Protocol

from transforms.errors import UnitError
from transforms.formats.shards import Fields, ShardForm, ShardWriter, read_shard, shard_form
from transforms.storage import OutputStore
from transforms.work import Finished, ShardLayout, SinkKind

SHARD_KINDS = ("tar", "parquet", "arrow")
LOOSE_KINDS = ("folder", "subfolder")


class Sink(Protocol):
    """Takes finished records in order; `publish` puts everything under its final name."""

    def write(self, finished: Finished) -> None:
        """Raises RecordError for a record that doesn't fit; nothing of it is then written."""

    def names(self) -> list[str]:
        """Final names of what `publish` will publish; nothing can be written any more."""

    def publish(self) -> list[dict[str, Any]]:
        """Returns path, bytes and sha256 of each output; of a shard also the number of its records and the position of
        the first among the records of the unit."""

    def close(self) -> None:
        """Lets go of local files, published or not."""


@dataclass(frozen=True)
class SinkPlan:
    """How the results of a unit are to be stored.

    Attributes:
        layout: how large shards may grow, and whether they are divided into parts.
        ordered: records come in another order than that of their rows' `index`, which is the one to write.
        about: plain JSON for the metadata of formats that have some.
    """

    kind: SinkKind
    unit_name: str
    layout: ShardLayout = field(default_factory=ShardLayout)
    ordered: bool = False
    about: Mapping[str, Any] | None = None

    @property
    def plain_name(self) -> str | None:
        """Of the unit's one shard; None where there may be another number of them."""
        if self.kind not in SHARD_KINDS or self.layout != ShardLayout():
            return None
        return f"{self.unit_name}.{self.kind}"


def open_sink(plan: SinkPlan, store: OutputStore, folder: Path, retried: Mapping[str, Any] | None) -> Sink:
    """Opens a sink; `retried` is the ledger of a unit whose dead letters are being driven again."""
    if plan.kind == "none":
        return NullSink()
    if plan.kind in LOOSE_KINDS:
        prefix = f"{plan.unit_name}/" if plan.kind == "subfolder" else ""
        return FolderSink(store, prefix, list(retried["outputs"]) if retried else [])
    shards = ShardSink(plan, store, folder)
    if retried is not None:
        return MergingSink(plan, shards, store, folder, retried)
    return OrderedSink(shards, folder) if plan.ordered else shards


class NullSink:
    def write(self, finished: Finished) -> None:
        pass

    def names(self) -> list[str]:
        return []

    def publish(self) -> list[dict[str, Any]]:
        return []

    def close(self) -> None:
        pass


class FolderSink:
    """Loose files. Each appears whole as soon as it is finished; the ledger after all of them says that the unit is
    done."""

    def __init__(self, store: OutputStore, prefix: str, outputs: list[dict[str, Any]]) -> None:
        self._store = store
        self._prefix = prefix
        self._outputs = {output["path"]: output for output in outputs}

    def write(self, finished: Finished) -> None:
        part = f"{finished.part}/" if finished.part else ""
        for base_name, data in finished.outputs:
            name = part + self._prefix + base_name
            self._store.write(name, data)
            self._outputs[name] = {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def names(self) -> list[str]:
        return list(self._outputs)

    def publish(self) -> list[dict[str, Any]]:
        return list(self._outputs.values())

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class OutputRecord:
    """One record on its way into a shard.

    Attributes:
        order: its place among the records of its unit; several may share one, and stay as they come.
        part: sub-folder of the output.
    """

    key: str
    order: int
    part: str
    fields: Fields


def records_of(finished: Finished) -> Iterator[OutputRecord]:
    """The output records of a finished one: a row for each, and the outputs `KEY.FIELD` in the order of the rows.

    Raises:
        ValueError: an output that belongs to no row.
    """
    outputs, position = finished.outputs, 0
    for row in finished.rows:
        prefix, fields = f"{row['key']}.", []
        while position < len(outputs) and outputs[position][0].startswith(prefix):
            name, data = outputs[position]
            fields.append((name[len(prefix) :], data))
            position += 1
        yield OutputRecord(row["key"], row["index"], finished.part, fields)
    if position < len(outputs):
        raise ValueError(
            f"output {outputs[position][0]!r} belongs to no row of {[row['key'] for row in finished.rows]}"
        )


class ShardSink:
    """The shards of one unit, built in local files and published when all are complete: UNIT.tar, or UNIT-00000.tar,
    UNIT-00001.tar, ... where their size is bounded, each in the sub-folder of its part."""

    def __init__(self, plan: SinkPlan, store: OutputStore, folder: Path) -> None:
        self._plan, self._store, self._folder = plan, store, folder
        self.form: ShardForm = shard_form(plan.kind, plan.about or {})
        self._series: dict[str, _Series] = {}
        # A tar may well be empty; the columns of the other formats are known with the first record only.
        self._may_be_empty = plan.plain_name is not None and plan.kind == "tar"

    def write(self, finished: Finished) -> None:
        records = list(records_of(finished))
        self.admit(records)
        for record in records:
            self.add(record)

    def admit(self, records: Sequence[OutputRecord]) -> None:
        """Raises RecordError if one does not fit to what was admitted before."""
        for record in records:
            self.form.admit(record.key, record.fields)

    def add(self, record: OutputRecord) -> None:
        """Writes a record that was admitted."""
        self._of_part(record.part).add(record)

    def _of_part(self, part: str) -> _Series:
        if part not in self._series:
            self._series[part] = _Series(self._plan, self.form, part, self._folder, len(self._series))
        return self._series[part]

    def names(self) -> list[str]:
        if self._may_be_empty and not self._series:
            self._of_part("").begin()
        return [shard.name for shard in self._shards()]

    def publish(self) -> list[dict[str, Any]]:
        self.names()
        outputs = []
        for shard in self._shards():
            self._store.publish(shard.path, shard.name)
            outputs.append(shard.to_json())
        return outputs

    def _shards(self) -> list[_Shard]:
        return [shard for part in sorted(self._series) for shard in self._series[part].finished()]

    def close(self) -> None:
        for series in self._series.values():
            series.finished()


@dataclass
class _Shard:
    """One shard under construction."""

    path: Path
    name: str
    part: str
    writer: ShardWriter
    first: int = -1
    records: int = 0
    weight: int = 0

    def to_json(self) -> dict[str, Any]:
        described = {"path": self.name, "bytes": self.writer.bytes_written, "sha256": self.writer.sha256}
        described |= {"records": self.records, "first": self.first}
        return described | ({"part": self.part} if self.part else {})


class _Series:
    """The shards of one part of a unit, one after the other."""

    def __init__(self, plan: SinkPlan, form: ShardForm, part: str, folder: Path, number: int) -> None:
        self._limit, self._form, self._part = plan.layout.shard_bytes, form, part
        self._stem = f"{part}/{plan.unit_name}" if part else plan.unit_name
        self._folder, self._number = folder, number
        self._shards: list[_Shard] = []

    def begin(self) -> _Shard:
        """Begins the next shard."""
        self.finished()
        count = f"-{len(self._shards):05d}" if self._limit else ""
        path = self._folder / f"shard-{self._number}-{len(self._shards):05d}"
        shard = _Shard(path, f"{self._stem}{count}{self._form.suffix}", self._part, self._form.open(path))
        self._shards.append(shard)
        return shard

    def add(self, record: OutputRecord) -> None:
        weight = self._form.weigh(record.fields)
        shard = self._shards[-1] if self._shards else self.begin()
        if self._limit and shard.records and shard.weight + weight > self._limit:
            shard = self.begin()
        shard.writer.write_record(record.key, record.fields)
        shard.first = record.order if shard.first < 0 else shard.first
        shard.weight += weight
        shard.records += 1

    def finished(self) -> list[_Shard]:
        """All shards, closed."""
        if self._shards:
            self._shards[-1].writer.close()  # those before it were closed when the next one began
        return self._shards


class Spool:
    """Records in a local file, to be read in another order than they came in; only their sizes stay in memory."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "w+b")  # noqa: SIM115 - closed by its owner
        self._entries: list[tuple[int, str, str, int, tuple[tuple[str, int], ...]]] = []
        self._end = 0

    def add(self, record: OutputRecord) -> None:
        sizes = tuple((name, len(data)) for name, data in record.fields)
        self._entries.append((record.order, record.key, record.part, self._end, sizes))
        for _, data in record.fields:
            self._end += self._file.write(data)

    def in_order(self, part: str | None = None, start: float = -inf, stop: float = inf) -> Iterator[OutputRecord]:
        """The records of a part (all: None) by their order, from `start` to before `stop`."""
        for order, key, owner, offset, sizes in sorted(self._entries, key=_order_of_entry):
            if part in (None, owner) and start <= order < stop:
                self._file.seek(offset)
                yield OutputRecord(key, order, owner, [(name, self._file.read(size)) for name, size in sizes])

    def parts(self) -> list[str]:
        """The parts that have records."""
        return sorted({part for _, _, part, _, _ in self._entries})

    def close(self) -> None:
        self._file.close()


def _order_of_entry(entry: tuple[int, str, str, int, tuple[tuple[str, int], ...]]) -> int:
    return entry[0]


class OrderedSink:
    """Takes records in any order and hands them on in that of their rows' `index`."""

    def __init__(self, shards: ShardSink, folder: Path) -> None:
        self._shards = shards
        self._spool = Spool(folder / "spool")
        self._handed_on = False

    def write(self, finished: Finished) -> None:
        records = list(records_of(finished))
        self._shards.admit(records)
        for record in records:
            self._spool.add(record)

    def names(self) -> list[str]:
        if not self._handed_on:
            self._handed_on = True
            for record in self._spool.in_order():
                self._shards.add(record)
        return self._shards.names()

    def publish(self) -> list[dict[str, Any]]:
        self.names()
        return self._shards.publish()

    def close(self) -> None:
        self._spool.close()
        self._shards.close()


class MergingSink:
    """Adds recovered records to the shards of an earlier run, each at the place where it would have stood.

    Every shard is written anew on its own, and keeps the records that it had: whatever moment a retry dies at, the next
    one finds each record either in its shard or among the dead letters. So a shard of bounded size may grow beyond it.
    """

    def __init__(
        self, plan: SinkPlan, shards: ShardSink, store: OutputStore, folder: Path, retried: Mapping[str, Any]
    ) -> None:
        self._plan, self._store, self._folder, self._new = plan, store, folder, shards
        self._orders: dict[str, int] = {row["key"]: row["index"] for row in retried["records"]}
        self._old: list[dict[str, Any]] = list(retried["outputs"])
        self._spool = Spool(folder / "recovered")
        for output in self._old[:1]:  # what is recovered has to fit to what is there
            for record in islice(read_shard(store.url(output["path"])), 1):
                shards.form.admit(record.key, list(record.fields.items()))

    def write(self, finished: Finished) -> None:
        records = list(records_of(finished))
        self._new.admit(records)
        for record in records:
            self._spool.add(record)

    def names(self) -> list[str]:
        return [output["path"] for output in self._old]

    def publish(self) -> list[dict[str, Any]]:
        met: set[str] = set()
        by_part: dict[str, list[dict[str, Any]]] = {}
        for output in self._old:
            by_part.setdefault(output.get("part", ""), []).append(output)
        merged: list[_Shard] = []
        for part, shards in sorted(by_part.items()):
            bounds = [-inf, *(shard["first"] for shard in shards[1:]), inf]
            for number, shard in enumerate(shards):
                recovered = self._spool.in_order(part, *bounds[number : number + 2])
                merged.append(self._merge(shard["path"], part, recovered, met))
        lost = set(self._orders) - met
        if lost:
            raise UnitError(
                f"the output of unit {self._plan.unit_name!r} lacks {len(lost)} records that its ledger has, "
                f"{sorted(lost)[0]!r} among them: run the first command again instead of 'retry'"
            )
        without_shard = sorted(set(self._spool.parts()) - set(by_part))
        for part in without_shard:
            for record in self._spool.in_order(part):
                self._new.add(record)
        for finished in merged:
            self._store.publish(finished.path, finished.name)
        return [finished.to_json() for finished in merged] + (self._new.publish() if without_shard else [])

    def _merge(self, name: str, part: str, recovered: Iterator[OutputRecord], met: set[str]) -> _Shard:
        path = self._folder / f"merged-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
        shard = _Shard(path, name, part, self._new.form.open(path))
        try:
            for record in heapq.merge(self._kept(name, met), recovered, key=_order):
                shard.writer.write_record(record.key, record.fields)
                shard.first = record.order if shard.first < 0 else shard.first
                shard.records += 1
        finally:
            shard.writer.close()
        return shard

    def _kept(self, name: str, met: set[str]) -> Iterator[OutputRecord]:
        """The records of a shard that its ledger knows. Another one was recovered by a retry that died before its ledger:
        it is made again."""
        for record in read_shard(self._store.url(name)):
            if record.key in self._orders:
                met.add(record.key)
                yield OutputRecord(record.key, self._orders[record.key], "", list(record.fields.items()))

    def close(self) -> None:
        self._spool.close()
        self._new.close()


def _order(record: OutputRecord) -> int:
    return record.order
