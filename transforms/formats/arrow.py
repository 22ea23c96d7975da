"""Arrow shards of pairs, for trainers: samples as they lie in memory, mapped without a copy.

An Arrow IPC file, uncompressed. Columns: key (string), clean (fixed-shape tensor, uint8, H x W x C), degraded (fixed-shape
tensor, uint8 or float32), json (string), arrays (map from field name, `kernel.npy`, to bytes); metadata as in
`transforms.formats.parquet`. All pairs of a file have one shape. What is mapped is paged in as it is touched, so that
a trainer may draw pairs at random from files larger than memory.

Example:
    shard = open_arrow("pairs/00000.arrow")
    clean, degraded = shard.pictures(0)         # N x H x W x C, views of the mapped file
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.errors import Reason, RecordError
from transforms.formats.columns import ARRAYS, PICTURES, ColumnWriter, damaged, field_names, record_of
from transforms.raw_arrays import npy_array, npy_bytes
from transforms.record import Record
from transforms.storage import open_input

_PLAIN = {"key": pa.string(), "json": pa.string(), ARRAYS: pa.map_(pa.string(), pa.binary())}
_ORDER = ("key", *PICTURES, "json", ARRAYS)


class EqualShapes:
    """Refuses pairs that do not fit into the columns that the first pair made."""

    def __init__(self) -> None:
        self._expected: dict[str, str] = {}

    def admit(self, key: str, fields: Sequence[tuple[str, bytes]]) -> None:
        """Raises RecordError: `SIZE_MISMATCH`: shape or type of a picture is not that of the pairs before; the pair then
        binds none that follow."""
        shapes = dict(self._expected)
        for name, data in fields:
            column = name.partition(".")[0]
            if column not in PICTURES:
                continue
            samples = npy_array(data)
            found = f"{'x'.join(map(str, samples.shape))} {samples.dtype}"
            expected = shapes.setdefault(column, found)
            if found != expected:
                raise RecordError(
                    Reason.SIZE_MISMATCH,
                    f"the {column} picture of {key!r} is {found}, those before it are {expected}, and an Arrow shard "
                    "holds one shape: cut patches of one size, let the recipe say 'channels: rgb' or 'gray', "
                    "or write parquet or tar",
                )
        self._expected = shapes


class ArrowWriter(ColumnWriter):
    """Writes one file, record batch by record batch; see `ColumnWriter`.

    The pictures come as npy files. `EqualShapes` has to be asked before.
    """

    def _write_group(self) -> None:
        columns = [
            _tensors(self._columns.values(name))
            if name in PICTURES
            else pa.array(self._columns.values(name), _PLAIN[name])
            for name in _ORDER
        ]
        if self._writer is None:
            types = [(name, column.type) for name, column in zip(_ORDER, columns, strict=True)]
            self._schema = pa.schema(types, self._columns.metadata(self._about))
            options = pa.ipc.IpcWriteOptions(compression=None)
            self._writer = pa.ipc.new_file(str(self._path), self._schema, options=options)
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))


def _tensors(files: Sequence[bytes]) -> Any:
    samples = np.stack([npy_array(data) for data in files])
    shape = samples.shape[1:]
    kind = pa.from_numpy_dtype(samples.dtype)
    flat = pa.array(samples.reshape(-1), kind)
    storage = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape)))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(kind, shape), storage)


@dataclass(frozen=True)
class ArrowShard:
    """An open shard. Its arrays are views of the file as long as that is local; they keep the map open."""

    file: Any

    @property
    def batches(self) -> int:
        """Number of record batches."""
        return int(self.file.num_record_batches)

    def keys(self, batch: int) -> list[str]:
        """Keys of a batch's pairs."""
        return [str(key) for key in self.file.get_batch(batch).column("key").to_pylist()]

    def pictures(self, batch: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Clean (uint8) and degraded (uint8 or float32) pictures of a batch, N x H x W x C, read only."""
        columns = self.file.get_batch(batch)
        clean, degraded = (_samples(columns.column(name)) for name in PICTURES)
        return clean, degraded


def _samples(column: Any) -> NDArray[Any]:
    flat = column.storage.flatten().to_numpy(zero_copy_only=True)
    samples: NDArray[Any] = flat.reshape(len(column), *column.type.shape)
    return samples


def open_arrow(path: str | Path) -> ArrowShard:
    """Maps a local shard into memory.

    Raises:
        RecordError: `BAD_SHARD`: damaged, or not one of ours.
        OSError: the file can't be opened.
    """
    try:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
    except pa.ArrowInvalid as error:
        raise RecordError(Reason.BAD_SHARD, f"{path} is no Arrow file: {error}") from error
    field_names(file.schema)
    return ArrowShard(file)


def read_arrow(url: str) -> Iterator[Record]:
    """The records of a shard in order, pictures as npy files, one record batch in memory at a time.

    A damaged file, or one that holds no pairs of ours, comes out as a record with `error` set, as in `read_tar`.

    Raises:
        OSError: the file can't be opened or read; the engine retries.
    """
    with open_input(url) as stream:
        index = 0
        try:
            shard = ArrowShard(pa.ipc.open_file(stream))
            names = field_names(shard.file.schema)
            for number in range(shard.batches):
                yield from _records_of(shard, number, names, index)
                index += shard.file.get_batch(number).num_rows
        except (pa.ArrowException, RecordError) as error:
            yield damaged(url, f"row {index}", error)


def _records_of(shard: ArrowShard, number: int, names: Mapping[str, str], index: int) -> Iterator[Record]:
    batch = shard.file.get_batch(number)
    pictures = {name: _samples(batch.column(name)) for name in PICTURES}
    for row in range(batch.num_rows):
        values = {name: batch[name][row].as_py() for name in _PLAIN}
        values |= {name: npy_bytes(samples[row]) for name, samples in pictures.items()}
        yield record_of(values, names, index + row)
