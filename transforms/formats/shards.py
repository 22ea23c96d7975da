"""The formats of a shard by name: how one is written, read, and what a record takes in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from transforms.formats.tar import TarWriter, read_tar
from transforms.record import Record

Fields = Sequence[tuple[str, bytes]]  # field name and content, in the order to write
_TAR_BLOCK_BYTES = 512


class ShardWriter(Protocol):
    """Writes one local file. After `close`, `sha256` and `bytes_written` describe it."""

    sha256: str

    @property
    def bytes_written(self) -> int: ...

    def write_record(self, key: str, fields: Fields) -> None: ...

    def close(self) -> None: ...


class ShardForm(Protocol):
    """One way of storing records in a file; an instance belongs to one unit."""

    @property
    def suffix(self) -> str:
        """Of file names."""

    def admit(self, key: str, fields: Fields) -> None:
        """Raises RecordError for a record that does not fit to those admitted before."""

    def open(self, path: Path) -> ShardWriter:
        """A new file."""

    def weigh(self, fields: Fields) -> int:
        """Bytes that a record takes, about; the same for the same record."""


@dataclass(frozen=True)
class TarForm:
    """webdataset tars."""

    suffix: str = ".tar"

    def admit(self, key: str, fields: Fields) -> None:
        """Takes all."""

    def open(self, path: Path) -> ShardWriter:
        return TarWriter(path)

    def weigh(self, fields: Fields) -> int:
        return sum(_TAR_BLOCK_BYTES + -(-len(data) // _TAR_BLOCK_BYTES) * _TAR_BLOCK_BYTES for _, data in fields)


@dataclass(frozen=True)
class ParquetForm:
    """Parquet files, one row for each pair."""

    about: Mapping[str, Any]
    suffix: str = ".parquet"

    def admit(self, key: str, fields: Fields) -> None:
        """Takes all."""

    def open(self, path: Path) -> ShardWriter:
        from transforms.formats.parquet import ParquetWriter  # pyarrow takes a second to load

        return ParquetWriter(path, self.about)

    def weigh(self, fields: Fields) -> int:
        return sum(len(data) for _, data in fields)


class ArrowForm:
    """Arrow files of equal shapes."""

    suffix = ".arrow"

    def __init__(self, about: Mapping[str, Any]) -> None:
        from transforms.formats.arrow import EqualShapes

        self._about = about
        self._shapes = EqualShapes()

    def admit(self, key: str, fields: Fields) -> None:
        self._shapes.admit(key, fields)

    def open(self, path: Path) -> ShardWriter:
        from transforms.formats.arrow import ArrowWriter

        return ArrowWriter(path, self._about)

    def weigh(self, fields: Fields) -> int:
        return sum(len(data) for _, data in fields)


def shard_form(kind: str, about: Mapping[str, Any]) -> ShardForm:
    """The form of a sink's kind; `about` is plain JSON that says how the records came to be."""
    if kind == "parquet":
        return ParquetForm(about)
    if kind == "arrow":
        return ArrowForm(about)
    return TarForm()


def read_shard(url: str) -> Iterator[Record]:
    """The records of a shard of any format, told by the file's ending."""
    if url.endswith(".parquet"):
        from transforms.formats.parquet import read_parquet

        return read_parquet(url)
    if url.endswith(".arrow"):
        from transforms.formats.arrow import read_arrow

        return read_arrow(url)
    return read_tar(url)
