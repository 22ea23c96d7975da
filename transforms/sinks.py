"""Where a unit's results go: shards (tar, Parquet, Arrow), single files, or nowhere (a run that only measures).

FolderSink     loose files
ShardSink      builds a unit's shards in local files: one, or one for each part (train, validation) and so many bytes
`transforms.ordered_sinks` puts records in order before a ShardSink, and opens the sink of a unit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from transforms.errors import RecordError
from transforms.formats.shards import Fields, ShardForm, ShardWriter, shard_form
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
    outputs = iter(finished.outputs)
    output = next(outputs, None)
    for row in finished.rows:
        prefix, fields = f"{row['key']}.", []
        while output is not None and output[0].startswith(prefix):
            fields.append((output[0][len(prefix) :], output[1]))
            output = next(outputs, None)
        yield OutputRecord(row["key"], row["index"], finished.part, fields)
    if output is not None:
        raise ValueError(f"output {output[0]!r} belongs to no row of {[row['key'] for row in finished.rows]}")


class ShardSink:
    """The shards of one unit, built in local files and published when all are complete: UNIT.tar, or UNIT-00000.tar,
    UNIT-00001.tar, ... where their size is bounded, each in the sub-folder of its part."""

    def __init__(self, plan: SinkPlan, store: OutputStore, folder: Path) -> None:
        self._plan, self._store, self._folder = plan, store, folder
        self.form: ShardForm = shard_form(plan.kind, plan.about or {})
        self._has_admitted = False
        self._series: dict[str, _Series] = {}
        # A tar may well be empty; the columns of the other formats are known with the first record only.
        self._may_be_empty = plan.plain_name is not None and plan.kind == "tar"

    def write(self, finished: Finished) -> None:
        self.admit(records_of(finished))
        for record in records_of(finished):
            self.add(record)

    def admit(self, records: Iterable[OutputRecord]) -> None:
        """Raises RecordError if one does not fit to what was admitted before, or to another of them: none is admitted."""
        some = False
        try:
            for record in records:
                self.form.admit(record.key, record.fields)
                some = True
        except RecordError:
            if not self._has_admitted:  # what was learned of the refused ones must not bind those that follow
                self.form = shard_form(self._plan.kind, self._plan.about or {})
            raise
        self._has_admitted |= some

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

    def _shards(self) -> list[Shard]:
        return [shard for part in sorted(self._series) for shard in self._series[part].finished()]

    def close(self) -> None:
        for series in self._series.values():
            series.finished()


@dataclass
class Shard:
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
        self._shards: list[Shard] = []

    def begin(self) -> Shard:
        """Begins the next shard."""
        self.finished()
        count = f"-{len(self._shards):05d}" if self._limit else ""
        path = self._folder / f"shard-{self._number}-{len(self._shards):05d}"
        shard = Shard(path, f"{self._stem}{count}{self._form.suffix}", self._part, self._form.open(path))
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

    def finished(self) -> list[Shard]:
        """All shards, closed."""
        if self._shards:
            self._shards[-1].writer.close()  # those before it were closed when the next one began
        return self._shards
