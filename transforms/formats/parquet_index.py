"""Random access to the pairs of Parquet shards, without reading a row group for each.

`degrade` stores pictures uncompressed, as PLAIN byte arrays: in the file each picture stands behind its length. So the
pages' headers and the lengths tell where each one begins, and it is read alone.

Source: Apache Parquet format, "Data pages", "Plain encoding"; Apache Thrift, "Compact protocol".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from transforms.errors import ConfigurationError, Reason, RecordError
from transforms.formats.columns import ARRAYS, PICTURES, field_names, record_of
from transforms.formats.open_files import OpenFiles, RecentlyUsed, is_local
from transforms.formats.parts import PackedKeys, Part
from transforms.formats.stored_pair import StoredPair, pair_of
from transforms.record import Record
from transforms.storage import filesystem_of

Read = Callable[[int, int], bytes]
_HEADER_BYTES = 4096  # more than a page header without statistics takes
_DATA_PAGE, _PLAIN = 0, 0
_BOOLEANS, _INTEGERS, _BINARY, _STRUCT = (1, 2), (4, 5, 6), 8, 12  # thrift's types


class ParquetPart(Part):
    """The pairs of one local Parquet shard.

    Raises:
        ConfigurationError: it is remote, damaged, or not as `degrade` writes it.
    """

    def __init__(self, url: str, files: OpenFiles, tables: RecentlyUsed[pq.ParquetFile]) -> None:
        if not is_local(url):
            raise ConfigurationError(f"{url!r}: Parquet shards can't be read at random from afar; copy them here first")
        self.name, self._url, self._files, self._tables = url, url, files, tables
        try:
            table = tables[filesystem_of(url)[1]]
            self._names = field_names(table.schema_arrow)
            self.keys = PackedKeys(table.read(columns=["key"]).column("key").to_pylist())
            self._ends = np.cumsum([table.metadata.row_group(g).num_rows for g in range(table.num_row_groups)])
            self._places = {column: self._found(table, column) for column in PICTURES}
        except (pa.ArrowException, RecordError, struct.error, IndexError) as error:
            detail = error.detail if isinstance(error, RecordError) else str(error)
            raise ConfigurationError(
                f"the shard {url!r} can't be read at random: {detail}; repair it or leave it out"
            ) from error
        self.paired = np.ones(len(self.keys), np.bool_)

    def _found(self, table: pq.ParquetFile, column: str) -> NDArray[np.int64]:
        """Place and length of each picture of a column."""
        found: list[tuple[int, int]] = []
        for number in range(table.num_row_groups):
            group = table.metadata.row_group(number)
            chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column)
            if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page:
                raise RecordError(
                    Reason.BAD_SHARD, f"its column {column!r} is compressed, unlike those that `degrade` writes"
                )
            stop = chunk.data_page_offset + chunk.total_compressed_size
            found += walk_column(self._read, chunk.data_page_offset, stop)
        if len(found) != len(self.keys):
            raise RecordError(Reason.BAD_SHARD, f"{len(self.keys)} rows have {len(found)} {column} pictures")
        return np.array(found, np.int64)

    def _read(self, start: int, size: int) -> bytes:
        return self._files.read(self._url, start, size)

    def _picture(self, column: str, number: int) -> bytes:
        start, size = self._places[column][number].tolist()
        return self._read(start, size)

    def pair(self, number: int, *, with_details: bool = False) -> StoredPair:
        fields = {self._names[column]: self._picture(column, number) for column in PICTURES}
        if with_details:
            fields["json"] = self._row(number, "json").encode()
        return pair_of(self.keys[number], fields)

    def _row(self, number: int, column: str) -> Any:
        """One value of a small column, for which its row group is read."""
        group = int(np.searchsorted(self._ends, number, side="right"))
        row = number - (int(self._ends[group - 1]) if group else 0)
        return self._tables[filesystem_of(self._url)[1]].read_row_group(group, [column]).column(column)[row].as_py()

    def read(self, number: int) -> Record:
        values: dict[str, Any] = {column: self._picture(column, number) for column in PICTURES}
        values |= {"key": self.keys[number], "json": self._row(number, "json"), ARRAYS: self._row(number, ARRAYS)}
        return record_of(values, self._names, number)

    def identity(self) -> bytes:
        return self.keys.tobytes() + b"".join(places.tobytes() for places in self._places.values())


def open_tables() -> RecentlyUsed[pq.ParquetFile]:
    """The shards whose metadata are held at a time, for all parts of an index."""
    return RecentlyUsed(pq.ParquetFile, limit=8)


def walk_column(read: Read, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Place and length of each value of an optional, uncompressed, plain byte array column without nulls.

    Raises:
        RecordError: `BAD_SHARD`: pages of another kind.
    """
    position = start
    while position < stop:
        fields, length = _struct(read(position, _HEADER_BYTES), 0)
        page = fields.get(5, {})
        if fields.get(1) != _DATA_PAGE or page.get(2) != _PLAIN:
            raise RecordError(Reason.BAD_SHARD, f"the page at byte {position} is not as `degrade` writes it")
        position += length
        end = position + fields[3]
        (levels,) = struct.unpack("<I", read(position, 4))  # which values are there: all
        value = position + 4 + levels
        for _ in range(page[1]):
            (size,) = struct.unpack("<I", read(value, 4))
            yield value + 4, size
            value += 4 + size
        if value != end:
            raise RecordError(Reason.BAD_SHARD, f"the page before byte {end} does not hold {page[1]} pictures")
        position = end


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A thrift struct in the compact protocol, field id -> value, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while data[at]:
        kind, step = data[at] & 15, data[at] >> 4
        at += 1
        if step:
            number += step
        else:
            number, at = _zigzag(data, at)
        if kind in _BOOLEANS:
            fields[number] = kind == _BOOLEANS[0]
        elif kind in _INTEGERS:
            fields[number], at = _zigzag(data, at)
        elif kind == _BINARY:
            length, at = _varint(data, at)
            fields[number], at = data[at : at + length], at + length
        elif kind == _STRUCT:
            fields[number], at = _struct(data, at)
        else:
            raise RecordError(Reason.BAD_SHARD, f"a page header has a field of type {kind}")
    return fields, at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 128:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
