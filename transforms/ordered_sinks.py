"""Sinks that put records in order before they go to shards; and which sink a unit has.

OrderedSink    puts the records of a shuffled unit where the shuffle wants them, before a ShardSink
MergingSink    adds recovered records to the shards of an earlier run
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any

from transforms.errors import UnitError
from transforms.formats.shards import read_shard
from transforms.sinks import (
    LOOSE_KINDS,
    FolderSink,
    NullSink,
    OutputRecord,
    Shard,
    ShardSink,
    Sink,
    SinkPlan,
    records_of,
)
from transforms.storage import OutputStore
from transforms.work import Finished


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
        self._shards.admit(records_of(finished))
        for record in records_of(finished):
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
                shards.admit([OutputRecord(record.key, 0, "", list(record.fields.items()))])

    def write(self, finished: Finished) -> None:
        self._new.admit(records_of(finished))
        for record in records_of(finished):
            self._spool.add(record)

    def names(self) -> list[str]:
        return [output["path"] for output in self._old]

    def publish(self) -> list[dict[str, Any]]:
        met: set[str] = set()
        by_part: dict[str, list[dict[str, Any]]] = {}
        for output in self._old:
            by_part.setdefault(output.get("part", ""), []).append(output)
        merged: list[Shard] = []
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

    def _merge(self, name: str, part: str, recovered: Iterator[OutputRecord], met: set[str]) -> Shard:
        path = self._folder / f"merged-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
        shard = Shard(path, name, part, self._new.form.open(path))
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
