"""The slices of one record, put together in order; what they hold waits in a file, so that memory knows one slice only."""

from __future__ import annotations

import struct
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transforms.ledger_rows import RecordRows
from transforms.work import Finished

_SIZES = struct.Struct("<IQ")  # of a name and of its content


class SpooledOutputs:
    """Outputs `(name, content)` in a nameless file of a folder: it is gone with this object, or with the process."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the next line closes it
        weakref.finalize(self, self._file.close)
        self._end = 0

    def extend(self, outputs: Iterable[tuple[str, bytes]]) -> None:
        """Adds outputs at the end."""
        self._file.seek(self._end)
        for name, data in outputs:
            encoded = name.encode("utf-8", "surrogateescape")
            for part in (_SIZES.pack(len(encoded), len(data)), encoded, data):
                self._end += self._file.write(part)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        position = 0
        while position < self._end:
            self._file.seek(position)
            name_bytes, size = _SIZES.unpack(self._file.read(_SIZES.size))
            name = self._file.read(name_bytes).decode("utf-8", "surrogateescape")
            position += _SIZES.size + name_bytes + size
            yield name, self._file.read(size)


@dataclass
class _Joined(Finished):
    outputs: SpooledOutputs
    rows: RecordRows

    def add(self, following: Finished) -> None:
        self.outputs.extend(following.outputs)
        self.rows.extend(following.rows)
        self.pixels_in += following.pixels_in
        self.pixels_out += following.pixels_out
        self.samples += following.samples
        self.rejected.update(following.rejected)
        self.tallies.update(following.tallies)


def joined(record: Finished, following: Finished, folder: Path) -> Finished:
    """A record, or the part of it that is there, with the slice that follows.

    Args:
        folder: on a disk that has room for the outputs.
    """
    if not isinstance(record, _Joined):
        first = record
        record = _Joined(first.key, first.index, SpooledOutputs(folder), RecordRows(), part=first.part)
        record.add(first)
    record.add(following)
    return record
