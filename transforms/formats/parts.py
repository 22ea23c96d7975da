"""The records of one source under numbers: what a tar, a folder or a table of pairs is to a reader at random."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.formats.folder import read_members
from transforms.formats.stored_pair import StoredPair, pair_of
from transforms.record import Record
from transforms.units import Member


class PackedKeys(Sequence[str]):
    """Many short strings in two arrays: small, and quick to hand to another process."""

    def __init__(self, keys: Sequence[str]) -> None:
        encoded = [key.encode("utf-8", "surrogateescape") for key in keys]
        self._ends = np.cumsum([len(each) for each in encoded], dtype=np.int64)
        self._text = np.frombuffer(b"".join(encoded), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        start = int(self._ends[index - 1]) if index else 0
        return self._text[start : int(self._ends[index])].tobytes().decode("utf-8", "surrogateescape")

    def tobytes(self) -> bytes:
        """All of them, for a digest."""
        return self._ends.tobytes() + self._text.tobytes()


class Part(ABC):
    """The records of one source, numbered from 0. It holds places, never pictures.

    Attributes:
        name: for messages.
        keys: of the records.
        paired: which of them have a degraded picture.
    """

    name: str
    keys: PackedKeys
    paired: NDArray[np.bool_]

    @abstractmethod
    def read(self, number: int) -> Record:
        """One record with all its fields.

        Raises:
            RecordError: the record is damaged, or the source has changed since it was indexed.
            OSError: the source can't be read.
        """

    def pair(self, number: int, *, with_details: bool = False) -> StoredPair:
        """The pictures of one record; its JSON too, where that comes for nothing or is asked for.

        Raises:
            RecordError, OSError: as `read`; or one of the two is missing, or can't be decoded.
        """
        record = self.read(number)
        return pair_of(record.key, record.fields)

    @abstractmethod
    def identity(self) -> bytes:
        """Keys and sizes of all records; the same wherever the source lies."""


class FolderPart(Part):
    """The records of loose files; their list is held, their content is not."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.name = "the loose files"
        self._groups = [tuple(group) for _, group in groupby(members, key=lambda member: member.key)]
        self.keys = PackedKeys([group[0].key for group in self._groups])
        self.paired = np.array(
            [any(member.field.startswith("degraded.") for member in group) for group in self._groups], np.bool_
        )

    def read(self, number: int) -> Record:
        (record,) = read_members(self._groups[number])
        if record.error is not None:
            raise record.error
        record.index = number
        return record

    def identity(self) -> bytes:
        described = [f"{each.name}/{each.file.size}" for group in self._groups for each in group]
        return "\n".join(described).encode("utf-8", "surrogateescape")
