"""Random access to records: where each one begins is found once, its bytes are read when they are asked for.

Of each record one or a few numbers and its key are kept: a million pairs take about 40 MB. No picture is held; what is
read often stays in the system's page cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from transforms.formats.open_files import OpenFiles
from transforms.formats.parts import FolderPart, Part
from transforms.formats.stored_pair import StoredPair
from transforms.formats.tar_index import TarPart
from transforms.record import ROLE_EXTENSIONS, extension
from transforms.storage import expand_inputs, list_files
from transforms.units import TAR_SUFFIXES, Member, is_bookkeeping, plan_units

SAMPLED_RECORDS = 32  # of each shard, whose content enters the digest
TABLE_SUFFIXES = (".arrow", ".parquet")


@dataclass
class RecordIndex:
    """The records of several parts under one numbering, from 0."""

    parts: Sequence[Part]
    _ends: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._ends = np.cumsum([len(part.keys) for part in self.parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def at(self, number: int) -> tuple[Part, int]:
        """The part that holds a record, and its number there."""
        which = int(np.searchsorted(self._ends, number, side="right"))
        return self.parts[which], number - (int(self._ends[which - 1]) if which else 0)

    def key(self, number: int) -> str:
        """A record's key."""
        part, inside = self.at(number)
        return str(part.keys[inside])

    def pair(self, number: int, *, with_details: bool = False) -> StoredPair:
        """See `Part.pair`."""
        part, inside = self.at(number)
        return part.pair(inside, with_details=with_details)

    def paired(self) -> NDArray[np.bool_]:
        """Which records have a degraded picture."""
        return np.concatenate([part.paired for part in self.parts]) if self.parts else np.zeros(0, np.bool_)

    def digest(self) -> str:
        """Hash of all keys and sizes, and of the content of `SAMPLED_RECORDS` records of each part.

        To read a million pairs at each start would take minutes. What this can't see is a change of single records that
        leaves all sizes as they were.
        """
        total = hashlib.blake2b(digest_size=16)
        for part in self.parts:
            total.update(part.identity())
            count = len(part.keys)
            for number in np.unique(np.linspace(0, count - 1, min(count, SAMPLED_RECORDS)).astype(int)).tolist():
                for name, data in part.read(number).fields.items():
                    total.update(f"{part.keys[number]}/{name}/{len(data)}".encode("utf-8", "surrogateescape"))
                    total.update(data)
        return total.hexdigest()


def index_records(data: Sequence[str]) -> RecordIndex:
    """Finds the records of tars, Arrow and Parquet shards, folders and pictures, in the order of the plan.

    Args:
        data: URLs, patterns and `@lists`, as every verb takes them.

    Raises:
        ConfigurationError: nothing found, or a shard that can't be indexed.
    """
    files, parts, loose = OpenFiles(), list[Part](), list[Member]()
    for pattern in data:
        tables = find_tables(pattern)
        parts += _table_parts(tables, files)
        if tables and not _holds_others(pattern):
            continue
        for unit in plan_units(pattern).units:
            if unit.kind == "tar":
                parts.append(TarPart(unit.files[0].url, files))
            else:
                loose += unit.members
    if loose:
        parts.append(FolderPart(loose))
    return RecordIndex([part for part in parts if len(part.keys)])


def find_tables(pattern: str) -> list[str]:
    """The Arrow and Parquet shards of an input.

    Raises:
        ConfigurationError: the pattern matches nothing.
    """
    return [url for url in _files(pattern) if url.endswith(TABLE_SUFFIXES)]


def _holds_others(pattern: str) -> bool:
    return any(url.endswith(TAR_SUFFIXES) or extension(url) in ROLE_EXTENSIONS for url in _files(pattern))


def _files(pattern: str) -> list[str]:
    """All files of an input, without the bookkeeping of a run."""
    found: list[str] = []
    for url in expand_inputs(pattern):
        inside = [file.url for name, file in list_files(url) if not is_bookkeeping(name)]
        found += inside or [url]
    return list(dict.fromkeys(found))


def _table_parts(urls: Sequence[str], files: OpenFiles) -> list[Part]:
    if not urls:
        return []
    from transforms.formats.arrow_index import ArrowPart, mapped_shards  # pyarrow takes a second to load
    from transforms.formats.parquet_index import ParquetPart, open_tables

    mapped, tables = mapped_shards(), open_tables()
    return [ArrowPart(url, mapped) if url.endswith(".arrow") else ParquetPart(url, files, tables) for url in urls]
