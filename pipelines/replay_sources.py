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
from transforms.formats.tar import StrictHeader
from transforms.ledger import MANIFEST
from transforms.pictures import MAX_PIXELS, Picture, decode
from transforms.record import Record, source_field, split_member_name
from transforms.storage import OutputStore, filesystem_of, open_input, unstrip
from transforms.units import Member, Plan, plan_units

OPEN_TARS = 64


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
        self._plan: Plan = plan_units(patterns)
        self._tars = {unit.name: unit.files[0].url for unit in self._plan.units if unit.kind == "tar"}
        self._opened: dict[str, SearchedTar] = {}
        self._last: tuple[tuple[str | None, str], Picture] | None = None

    def picture(self, source: Mapping[str, Any]) -> Picture:
        """The picture that a pair was cut from. The last one is kept: pairs of one picture stand together.

        Args:
            source: `key` and `field` of its record, and `unit`, the shard, or None for a loose picture.

        Raises:
            ConfigurationError: there is none, there are several, or it can't be decoded.
        """
        name = source["unit"], source["key"]
        if self._last is None or self._last[0] != name:
            try:
                field, data = self._find(source)
                self._last = name, decode(data, field, max_pixels=self._max_pixels)
            except RecordError as error:
                raise ConfigurationError(f"the source {name[1]!r} in {self._patterns!r}: {error}") from error
        return self._last[1]

    def _find(self, source: Mapping[str, Any]) -> tuple[str, bytes]:
        unit, key, field = source["unit"], source["key"], source["field"]
        if unit in self._tars:
            found = [(unit, fields)] if (fields := self._tar(unit).find(key, field)) else []
        else:  # a loose picture, or an archive that has been packed or named in another way since
            found = list(self._everywhere(key, field, with_tars=unit is not None))
        if not found and len(self._loose) == 1 and not self._tars:
            found = [("", self._loose_record(next(iter(self._loose))).fields)]
            field = source_field(found[0][1])
        if len(found) > 1:
            places = ", ".join(repr(place) for place, _ in found[:3])
            raise ConfigurationError(f"the source {key!r} is in {places}; name the right one with --input")
        if not found:
            raise ConfigurationError(
                f"the source {key!r}{f' of shard {unit!r}' if unit else ''} is not in {self._patterns!r}; name the folder, "
                "shard or picture that holds it with --input"
            )
        fields = found[0][1]
        if field not in fields:
            raise ConfigurationError(f"the source {key!r} has no field {field!r} any more, only {sorted(fields)}")
        return field, fields[field]

    def _everywhere(self, key: str, field: str, *, with_tars: bool) -> Iterator[tuple[str, dict[str, bytes]]]:
        if key in self._loose:
            yield key, self._loose_record(key).fields
        elif with_tars or not self._loose:
            for unit in self._tars:
                if fields := self._tar(unit).find(key, field):
                    yield unit, fields

    @cached_property
    def _loose(self) -> dict[str, tuple[Member, ...]]:
        members = (member for unit in self._plan.units if unit.kind == "folder" for member in unit.members)
        return {key: tuple(group) for key, group in groupby(members, key=lambda member: member.key)}

    def _loose_record(self, key: str) -> Record:
        (record,) = read_members(self._loose[key])
        if record.error is not None:
            raise record.error
        return record

    def _tar(self, unit: str) -> SearchedTar:
        if unit not in self._opened:
            if len(self._opened) == OPEN_TARS:
                self._opened.pop(next(iter(self._opened))).close()
            self._opened[unit] = SearchedTar(self._tars[unit])
        return self._opened[unit]

    def close(self) -> None:
        """Closes the tars that were searched."""
        while self._opened:
            self._opened.popitem()[1].close()


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

    def find(self, key: str, field: str) -> dict[str, bytes]:
        """The field of a record, by name; empty where the tar has none.

        Raises:
            RecordError: `BAD_SHARD`: the tar is damaged before the member.
        """
        while (key, field) not in self._known:
            header = next(self._headers, None)
            if header is None:
                return {}
            self._known.setdefault(*header)
        offset, size = self._known[key, field]
        self._stream.seek(offset)
        return {field: self._stream.read(size)}

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
