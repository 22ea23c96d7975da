"""Parquet shards of pairs: one row for each pair, its pictures as the bytes of their files.

Columns: key (string), clean and degraded (binary: PNG, WebP, JPEG or npy files), json (string), arrays (map from field
name, `kernel.npy`, to bytes). The schema's metadata say which fields the columns hold (`conservator.fields`, JSON such as
`{"clean": "clean.png", ...}`) and how they came to be (`conservator.run`: recipe and seed).
The same records give the same bytes with the same version of pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.errors import RecordError
from transforms.formats.columns import ARRAYS, PICTURES, ColumnWriter, damaged, field_names, record_of
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


class ParquetWriter(ColumnWriter):
    """Writes one file, row group by row group; see `ColumnWriter`."""

    def _write_group(self) -> None:
        if self._writer is None:
            schema = pa.schema(_TYPES, self._columns.metadata(self._about))
            self._writer = pq.ParquetWriter(
                self._path, schema, compression=_COMPRESSION, use_dictionary=False, write_statistics=["key"]
            )
        columns = [pa.array(self._columns.values(name), kind) for name, kind in _TYPES]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._writer.schema))


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
