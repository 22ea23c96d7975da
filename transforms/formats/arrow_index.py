"""Random access to the pairs of Arrow shards: views of the mapped file, nothing is copied or decoded."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.errors import ConfigurationError, RecordError
from transforms.formats.arrow import ArrowShard, open_arrow
from transforms.formats.columns import ARRAYS, PICTURES, field_names, record_of
from transforms.formats.open_files import RecentlyUsed, is_local
from transforms.formats.parts import PackedKeys, Part
from transforms.formats.stored_pair import StoredPair
from transforms.raw_arrays import npy_bytes
from transforms.record import Record
from transforms.storage import filesystem_of


class MappedShard:
    """A mapped shard with the views of those batches that were asked for; they take no memory of their own."""

    def __init__(self, shard: ArrowShard) -> None:
        self._shard = shard
        self.names = field_names(shard.file.schema)
        self.batch = lru_cache(maxsize=None)(self._batch)

    def _batch(self, number: int) -> tuple[NDArray[Any], NDArray[Any], Any]:
        """Clean and degraded pictures, N x H x W x C, and the batch."""
        return *self._shard.pictures(number), self._shard.file.get_batch(number)


class ArrowPart(Part):
    """The pairs of one local Arrow shard.

    Raises:
        ConfigurationError: it is remote, damaged, or none of ours.
    """

    def __init__(self, url: str, shards: RecentlyUsed[MappedShard]) -> None:
        if not is_local(url):
            raise ConfigurationError(f"{url!r}: Arrow shards are mapped into memory; copy them to this machine first")
        self.name, self._path, self._shards = url, filesystem_of(url)[1], shards
        try:
            shard = open_arrow(self._path)
            keys = [shard.keys(number) for number in range(shard.batches)]
        except RecordError as error:
            raise ConfigurationError(f"{error.detail}; repair it or leave it out") from error
        self._ends: NDArray[np.int64] = np.array(list(accumulate(map(len, keys))), np.int64)
        self.keys = PackedKeys([key for each in keys for key in each])
        self.paired = np.ones(len(self.keys), np.bool_)

    def _at(self, number: int) -> tuple[MappedShard, int, int]:
        batch = int(np.searchsorted(self._ends, number, side="right"))
        return self._shards[self._path], batch, number - (int(self._ends[batch - 1]) if batch else 0)

    def pair(self, number: int, *, with_details: bool = False) -> StoredPair:
        shard, batch, row = self._at(number)
        clean, degraded, columns = shard.batch(batch)
        details = columns.column("json")[row].as_py().encode() if with_details else None
        return StoredPair(self.keys[number], clean[row], degraded[row], details)

    def read(self, number: int) -> Record:
        shard, batch, row = self._at(number)
        *pictures, columns = shard.batch(batch)
        values = {name: columns.column(name)[row].as_py() for name in ("key", "json", ARRAYS)}
        values |= {name: npy_bytes(samples[row]) for name, samples in zip(PICTURES, pictures, strict=True)}
        return record_of(values, shard.names, number)

    def identity(self) -> bytes:
        return self.keys.tobytes()


def mapped_shards() -> RecentlyUsed[MappedShard]:
    """The shards that are mapped at a time, for all parts of an index."""
    return RecentlyUsed(_mapped)


def _mapped(path: str) -> MappedShard:
    return MappedShard(open_arrow(path))
