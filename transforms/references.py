"""Lists of references: which pairs of which pictures make up one shard of a shuffled output, and at which places.

A list lies in the output, beside the ledgers; a unit of kind "references" reads it, and then nothing but the pictures
in it: loose files whole, members of tars by their range. Gzipped JSON with an entry for each picture; about 25 bytes
for each pair.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transforms.errors import Reason, RecordError
from transforms.formats.folder import gather
from transforms.record import Record
from transforms.storage import InputFile, read_bytes, read_ranges

FORMAT = 1
# What is asked for at once: an object store answers many requests in the time of one.
_BATCH_ITEMS, _BATCH_BYTES = 16, 8 * 2**20


@dataclass(frozen=True)
class Piece:
    """Where a field's bytes lie: in a file of their own, or in a tar from `offset` on.

    Attributes:
        name: of a loose file, its path below the input folder.
    """

    field: str
    file: InputFile
    offset: int
    size: int
    name: str = ""


@dataclass(frozen=True)
class Source:
    """A picture's record: its key, the unit's name of its tar (None: loose files), and the fields that are needed."""

    key: str
    shard: str | None
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class PackedList:
    """A list as it is stored.

    Attributes:
        digest: of all that it says, sizes and versions of the input files included.
        bytes_in: what is read for it.
    """

    data: bytes
    digest: str
    bytes_in: int


def pack_list(entries: Sequence[tuple[Source, Mapping[int, int]]]) -> PackedList:
    """Packs pictures, each with the numbers of its pairs -> their places in the shard, in the order of reading."""
    files: dict[InputFile, int] = {}
    shards: dict[str | None, int] = {}
    rows = []
    for source, places in entries:
        pieces = [
            [piece.field, piece.name, files.setdefault(piece.file, len(files)), piece.offset, piece.size]
            for piece in source.pieces
        ]
        shard = shards.setdefault(source.shard, len(shards))
        rows.append([source.key, shard, pieces, list(places), list(places.values())])
    described = [[file.url, file.size, file.version] for file in files]
    plain = {"format": FORMAT, "files": described, "shards": list(shards), "sources": rows}
    text = json.dumps(plain, separators=(",", ":")).encode()
    bytes_in = sum(piece.size for source, _ in entries for piece in source.pieces)
    return PackedList(gzip.compress(text, 6, mtime=0), hashlib.sha256(text).hexdigest(), bytes_in)


def read_references(url: str, only: Container[int] | None = None) -> Iterator[Record]:
    """The records of a list in its order, a few read ahead.

    Args:
        only: positions of those that are wanted; None for all.

    Raises:
        OSError: a file can't be read; the engine retries.
    """
    plain = json.loads(gzip.decompress(read_bytes(url)))
    batch: list[tuple[int, Any]] = []
    held = 0
    for index, row in enumerate(plain["sources"]):
        if only is not None and index not in only:
            continue
        batch.append((index, row))
        held += sum(size for *_, size in row[2])
        if len(batch) == _BATCH_ITEMS or held >= _BATCH_BYTES:
            yield from _read(plain, batch)
            batch, held = [], 0
    yield from _read(plain, batch)


def _read(plain: Mapping[str, Any], batch: Sequence[tuple[int, Any]]) -> Iterator[Record]:
    ranges = [(plain["files"][file][0], offset, size) for _, row in batch for _, _, file, offset, size in row[2]]
    contents = iter(read_ranges(ranges))
    for index, (key, shard, pieces, numbers, places) in batch:
        files = [(field, name, next(contents)) for field, name, _, _, _ in pieces]
        record = gather(key, index, files)
        record.shard, record.wanted = plain["shards"][shard], dict(zip(numbers, places, strict=True))
        record.name = record.name or None  # a member of a tar has no file of its own
        if any(len(data) < size for (_, _, data), (*_, size) in zip(files, pieces, strict=True)):
            detail = f"{key!r} is shorter than it was when the run was planned: start the command again"
            record.error = RecordError(Reason.BAD_SHARD, detail)
        yield record
