"""What the column formats share: how a record's fields become columns, and a row a record again."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from transforms.errors import Reason, RecordError
from transforms.record import Record

FIELDS, RUN = "conservator.fields", "conservator.run"  # in the schema's metadata
PICTURES = ("clean", "degraded")
ARRAYS = "arrays"
# Pixels of one row group or record batch: what a reader holds at a time, and a writer too.
GROUP_BYTES = 16 * 2**20


class Columns:
    """Rows on their way into a file, by column: key, clean, degraded, json, and all other fields under `arrays`.

    Attributes:
        fields: column -> name of the field that it holds; the same for all rows of a file.
        held_bytes: of all fields.
    """

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.held_bytes = 0
        self._rows: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: str, fields: Sequence[tuple[str, bytes]]) -> None:
        """Adds a row.

        Raises:
            ValueError: a column would hold files of two kinds.
        """
        row: dict[str, Any] = {"key": key, ARRAYS: []}
        for name, data in fields:
            column = name.partition(".")[0]
            if column in PICTURES:
                if self.fields.setdefault(column, name) != name:
                    raise ValueError(f"{key}.{name}: the column holds {self.fields[column]}")
                row[column] = data
            elif name == "json":
                row["json"] = data.decode()
            else:
                row[ARRAYS].append((name, data))
            self.held_bytes += len(data)
        self._rows.append(row)

    def values(self, column: str) -> list[Any]:
        """A column, None where a row has none."""
        return [row.get(column) for row in self._rows]

    def clear(self) -> None:
        """Forgets the rows."""
        self._rows.clear()
        self.held_bytes = 0

    def metadata(self, about: Mapping[str, Any]) -> dict[str, str]:
        """For the schema of a file."""
        return {FIELDS: json.dumps(self.fields, sort_keys=True), RUN: json.dumps(about, sort_keys=True)}


class ColumnWriter(ABC):
    """Writes one file, group of rows by group of rows: memory depends on `GROUP_BYTES` and the largest pair.

    Args:
        path: of the local file.
        about: plain JSON for the file's metadata.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path, self._about = path, about
        self._columns = Columns()
        self._writer: Any = None  # pyarrow's, from the first group on
        self.sha256 = ""
        self.bytes_written = 0

    def write_record(self, key: str, fields: Sequence[tuple[str, bytes]]) -> None:
        """Adds a row.

        Raises:
            ValueError: a column would hold files of two kinds.
        """
        self._columns.add(key, fields)
        if self._columns.held_bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Completes the file; a second call does nothing."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            with open(self._path, "rb") as written:
                self.sha256 = hashlib.file_digest(written, "sha256").hexdigest()
            self.bytes_written = self._path.stat().st_size

    def _flush(self) -> None:
        if len(self._columns):
            self._write_group()
            self._columns.clear()

    @abstractmethod
    def _write_group(self) -> None:
        """Writes the rows that `self._columns` holds; the first time it opens `self._writer`."""


def field_names(schema: pa.Schema) -> dict[str, str]:
    """Column -> field name.

    Raises:
        RecordError: `BAD_SHARD`: the file is none of ours.
    """
    described = (schema.metadata or {}).get(FIELDS.encode())
    if described is None:
        raise RecordError(Reason.BAD_SHARD, f"its metadata lack {FIELDS!r}: it holds no pairs that conservator wrote")
    names: dict[str, str] = json.loads(described)
    return names


def record_of(row: Mapping[str, Any], names: Mapping[str, str], index: int) -> Record:
    """A row as the record that it was: pictures as bytes."""
    fields = {names[column]: row[column] for column in PICTURES if row.get(column) is not None}
    if row.get("json") is not None:
        fields["json"] = row["json"].encode()
    return Record(row["key"], fields | dict(row.get(ARRAYS) or ()), index)


def damaged(url: str, place: str, error: Exception) -> Record:
    """The record that stands for a shard's damage, as `read_tar` reports it."""
    what = error.detail if isinstance(error, RecordError) else f"the shard is damaged after {place}: {error}"
    return Record(url.rpartition("/")[2], error=RecordError(Reason.BAD_SHARD, what))
