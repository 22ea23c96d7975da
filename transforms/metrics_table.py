"""`metrics.parquet`: one row for every record, written while ledgers pass by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.errors import ConservatorError
from transforms.summary import read_figure

# Memory depends on this many rows, never on the number of records. As objects a row takes ten times as much as in Arrow's columns:
# only so many wait as such.
ROWS_PER_GROUP, _ROWS_PER_BATCH = 4096, 512
# Columns that say the same again and again. A dictionary of keys or figures makes the file larger, and its writer take 8 MiB more.
_REPEATING = ("unit", "notes.list.element")
_NUMBERS = {"index": pa.int64(), "width": pa.int32(), "height": pa.int32(), "channels": pa.int8(), "bits": pa.int8()}


class MetricsTable:
    """Writes the table to a local file, row group by row group.

    Columns: unit, key, index, width, height, channels, bits, one float64 column for each metric under its protocol name (infinite
    and NaN as such, null where the record has no such figure), and notes (list of strings).
    """

    def __init__(self, path: Path, metric_names: Sequence[str]) -> None:
        self._metric_names = frozenset(metric_names)
        fields = [("unit", pa.string()), ("key", pa.string()), *_NUMBERS.items()]
        fields += [(name, pa.float64()) for name in sorted(metric_names)]
        self._schema = pa.schema([*fields, ("notes", pa.list_(pa.string()))])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", use_dictionary=list(_REPEATING))
        self._pending: list[dict[str, Any]] = []
        self._batches: list[pa.RecordBatch] = []
        self.rows = 0

    def add_ledger(self, ledger: Mapping[str, Any]) -> None:
        """Adds the records of one unit.

        Raises:
            ConservatorError: a record has a metric that the table does not know.
        """
        for record in ledger["records"]:
            self._pending.append(self._row(record, ledger["unit"]))
            if len(self._pending) == _ROWS_PER_BATCH:
                self._pack()
                if len(self._batches) * _ROWS_PER_BATCH >= ROWS_PER_GROUP:
                    self._flush()

    def _row(self, record: Mapping[str, Any], unit: str) -> dict[str, Any]:
        figures = record.get("metrics", {})
        if not self._metric_names.issuperset(figures):
            unknown = sorted(set(figures) - self._metric_names)
            where = f"record {record['key']!r} of unit {unit!r}"
            raise ConservatorError(f"{where} has figures {unknown} that the summary lacks; run the command again")
        row = {
            "unit": encodable(unit),
            "key": encodable(record["key"]),
            "notes": [encodable(note) for note in record.get("notes", ())],
        }
        row |= {name: record[name] for name in _NUMBERS}
        row |= {name: read_figure(value) for name, value in figures.items()}
        self.rows += 1
        return row

    def _pack(self) -> None:
        if self._pending:
            self._batches.append(pa.RecordBatch.from_pylist(self._pending, schema=self._schema))
            self._pending.clear()

    def _flush(self) -> None:
        """Writes a row group."""
        if self._batches:
            self._writer.write_table(pa.Table.from_batches(self._batches).combine_chunks())
            self._batches.clear()

    def __enter__(self) -> MetricsTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._pack()
            self._flush()
        self._writer.close()


def encodable(text: str) -> str:
    """Text as UTF-8 can hold it: bytes of a member name that were no UTF-8 are shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
