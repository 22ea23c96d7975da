"""Parquet shards of pairs: one row for each pair, its pictures as the bytes of their files.

Columns: key (string), clean and degraded (binary: PNG, WebP, JPEG or npy files), json (string), arrays (map from field
name, `kernel.npy`, to bytes). The schema's metadata say which fields the columns hold (`conservator.fields`, JSON such as
`{"clean": "clean.png", ...}`) and how they came to be (`conservator.run`: recipe and seed).
The same records give the same bytes with the same version of pyarrow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.errors import RecordError
from transforms.formats.columns import ARRAYS, GROUP_BYTES, PICTURES, Columns, damaged, field_names, record_of
from transforms.record import Record
from transforms.storage import open_input

_TYPES = [
    ("key", pa.string()),
    *((name, pa.binary()) for name in PICTURES),
    ("json", pa.string()),
    (ARRAYS, pa.map_(pa.string(), pa.binary())),
]
# Pictures are compressed already, and dictionaries or statistics of them would be copies.
_COMPRESSION = {"key": "zstd", "json": "zstd"} | dict.fromkeys(
    (*PICTURES, f"{ARRAYS}.key_value.key", f"{ARRAYS}.key_value.value"), "none"
)


class ParquetWriter:
    """Writes one file, row group by row group: memory depends on `GROUP_BYTES` and the largest pair.

    Args:
        path: of the local file.
        about: plain JSON for the file's metadata.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path, self._about = path, about
        self._columns = Columns()
        self._writer: Any = None
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

    def _flush(self) -> None:
        if not len(self._columns):
            return
        if self._writer is None:
            schema = pa.schema(_TYPES, self._columns.metadata(self._about))
            self._writer = pq.ParquetWriter(
                self._path, schema, compression=_COMPRESSION, use_dictionary=False, write_statistics=["key"]
            )
        columns = [pa.array(self._columns.values(name), kind) for name, kind in _TYPES]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._writer.schema))
        self._columns.clear()

    def close(self) -> None:
        """Completes the file; a second call does nothing."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            with open(self._path, "rb") as written:
                self.sha256 = hashlib.file_digest(written, "sha256").hexdigest()
            self.bytes_written = self._path.stat().st_size


def read_parquet(url: str) -> Iterator[Record]:
    """The records of a shard in order, one row group in memory at a time.

    A damaged file, or one that holds no pairs of ours, comes out as a record with `error` set, as in `read_tar`.

    Raises:
        OSError: the file can't be opened or read; the engine retries.
    """
    with open_input(url) as stream:
        index = 0
        try:
            file = pq.ParquetFile(stream)
            names = field_names(file.schema_arrow)
            for number in range(file.num_row_groups):
                for batch in file.read_row_group(number, use_threads=False).to_batches():
                    for row in range(batch.num_rows):
                        yield record_of({name: batch[name][row].as_py() for name, _ in _TYPES}, names, index)
                        index += 1
        except (pa.ArrowException, RecordError) as error:
            yield damaged(url, f"row {index}", error)
