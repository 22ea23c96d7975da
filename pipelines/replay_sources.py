"""Where the clean pictures of a run lie, and how one of them is read without reading the others."""

from __future__ import annotations

import gzip
import json
import tarfile
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from transforms.errors import ConfigurationError, Reason, RecordError
from transforms.formats.folder import read_members
from transforms.formats.indexed import index_records
from transforms.formats.tar import StrictHeader
from transforms.ledger import MANIFEST
from transforms.pictures import MAX_PIXELS, Picture, decode
from transforms.record import source_field, split_member_name
from transforms.storage import OutputStore, filesystem_of, open_input, unstrip
from transforms.units import Member, plan_units

OPEN_SHARDS = 64
HELD_BYTES = 256 << 20  # of decoded pictures


@dataclass(frozen=True)
class Run:
    """What a run's manifest says: `input` are the patterns of its clean pictures."""

    input: str
    version: str
    max_pixels: int


def run_above(url: str) -> Run | None:
    """The run that a file or folder of its output belongs to: the nearest folder with a manifest, from there upwards."""
    fs, path = filesystem_of(url)
    place = PurePosixPath(path)
    for folder in (place, *place.parents) if fs.isdir(path) else place.parents:
        data = OutputStore(unstrip(fs, str(folder))).read(MANIFEST)
        if data is not None:
            manifest = json.loads(data)
            options = manifest["options"]
            patterns = manifest.get("input", options.get("input", ""))
            return Run(patterns, manifest["version"], options.get("max_pixels", MAX_PIXELS))
    return None


class CleanPictures:
    """The clean pictures of an input, found by what a pair says of its source.

    Raises:
        ConfigurationError: the input holds nothing.
    """

    def __init__(self, patterns: str, max_pixels: int = MAX_PIXELS) -> None:
        self._patterns, self._max_pixels = patterns, max_pixels
        self._plan = plan_units(patterns)
        self._shards = {unit.name: unit for unit in self._plan.units if unit.kind != "folder"}
        self._opened: dict[str, SearchedTar | SearchedTable] = {}
        self._decoded: dict[tuple[str | None, str], Picture] = {}

    def picture(self, source: Mapping[str, Any]) -> Picture:
        """The picture that a pair was cut from; the last ones are kept, since many pairs come from one.

        Args:
            source: `key` and `field` of its record, and `unit`, the shard, or None for a loose picture.

        Raises:
            ConfigurationError: there is none, there are several, or it can't be decoded.
        """
        name = source["unit"], source["key"]
        if name not in self._decoded:
            try:
                field, data = self._find(*name, source["field"])
                decoded = decode(data, field, max_pixels=self._max_pixels)
            except RecordError as error:
                raise ConfigurationError(f"the source {name[1]!r} in {self._patterns!r}: {error}") from error
            while self._decoded and decoded.samples.nbytes + self._held_bytes() > HELD_BYTES:
                self._decoded.pop(next(iter(self._decoded)))
            self._decoded[name] = decoded
        return self._decoded[name]

    def _held_bytes(self) -> int:
        return sum(picture.samples.nbytes for picture in self._decoded.values())

    def _find(self, unit: str | None, key: str, field: str) -> tuple[str, bytes]:
        """Name and content of the source's file."""
        found = dict(self._places(unit, key, field))
        if not found and len(self._loose) == 1 and not self._shards:  # a picture that was named on the command line
            fields = self._loose_fields(next(iter(self._loose)))
            return source_field(fields), fields[source_field(fields)]
        if len(found) > 1:
            places = ", ".join(map(repr, list(found)[:3]))
            raise ConfigurationError(f"the source {key!r} is in {places}; name the right one with --input")
        if not found:
            raise ConfigurationError(
                f"the source {key!r} ({field}){f' of shard {unit!r}' if unit else ''} is not in {self._patterns!r}; name "
                "the folder, shard or picture that holds it with --input"
            )
        return field, next(iter(found.values()))

    def _places(self, unit: str | None, key: str, field: str) -> Iterator[tuple[str, bytes]]:
        """Where the field is: in its shard; as a loose file; or in archives that have other names by now."""
        if unit in self._shards:
            names = [unit]
        elif key in self._loose:
            names = []
            if (data := self._loose_fields(key).get(field)) is not None:
                yield key, data
        else:
            names = list(self._shards)
        for name in names:
            if (data := self._searched(name).find(key, field)) is not None:
                yield name, data

    @cached_property
    def _loose(self) -> dict[str, tuple[Member, ...]]:
        members = (member for unit in self._plan.units if unit.kind == "folder" for member in unit.members)
        return {key: tuple(group) for key, group in groupby(members, key=lambda member: member.key)}

    def _loose_fields(self, key: str) -> dict[str, bytes]:
        (record,) = read_members(self._loose[key])
        if record.error is not None:
            raise record.error
        return record.fields

    def _searched(self, name: str) -> SearchedTar | SearchedTable:
        if name not in self._opened:
            if len(self._opened) == OPEN_SHARDS:
                self._opened.pop(next(iter(self._opened))).close()
            unit = self._shards[name]
            self._opened[name] = (SearchedTar if unit.kind == "tar" else SearchedTable)(unit.files[0].url)
        return self._opened[name]

    def close(self) -> None:
        """Closes the shards that were searched."""
        while self._opened:
            self._opened.popitem()[1].close()


class SearchedTable:
    """Finds fields of a Parquet or Arrow shard by the keys of its rows."""

    def __init__(self, url: str) -> None:
        (self._part,) = index_records([url]).parts
        self._numbers = {key: number for number, key in enumerate(self._part.keys)}

    def find(self, key: str, field: str) -> bytes | None:
        """The field of a record, or None."""
        return self._part.read(self._numbers[key]).fields.get(field) if key in self._numbers else None

    def close(self) -> None:
        """Nothing is open here: the readers of such shards close what they have not used for long."""


class SearchedTar:
    """Finds members of a tar by name, and reads no further than to the one that is looked for.

    Headers are read in order and remembered, contents only when they are asked for. Of a compressed tar all that
    stands before the member has to be unpacked.
    """

    def __init__(self, url: str) -> None:
        self._file = self._stream = open_input(url)
        compressed = self._file.read(2) == b"\x1f\x8b"
        self._file.seek(0)
        if compressed:
            self._stream = cast("BinaryIO", gzip.GzipFile(fileobj=self._file))
        self._headers = self._walk()
        self._known: dict[tuple[str, str], tuple[int, int]] = {}

    def find(self, key: str, field: str) -> bytes | None:
        """The field of a record, or None.

        Raises:
            RecordError: `BAD_SHARD`: the tar is damaged before the member.
        """
        while (key, field) not in self._known:
            header = next(self._headers, None)
            if header is None:
                return None
            self._known.setdefault(*header)
        offset, size = self._known[key, field]
        self._stream.seek(offset)
        return self._stream.read(size)

    def close(self) -> None:
        """Closes the file."""
        self._headers.close()
        self._stream.close()
        self._file.close()

    def _walk(self) -> Generator[tuple[tuple[str, str], tuple[int, int]]]:
        try:
            with tarfile.open(fileobj=self._stream, mode="r:", tarinfo=StrictHeader) as archive:
                for info in archive:
                    archive.members = []  # type: ignore[attr-defined]  # else every header is kept
                    with suppress(RecordError):  # a name that is no key
                        if info.isfile():
                            yield split_member_name(info.name), (info.offset_data, info.size)
        except (tarfile.ReadError, EOFError, zlib.error) as error:
            raise RecordError(Reason.BAD_SHARD, f"the shard is damaged before it: {error}") from error
