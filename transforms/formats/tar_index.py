"""Where the records of a plain tar lie, found by reading nothing but its headers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transforms.errors import ConfigurationError, Reason, RecordError
from transforms.formats.open_files import OpenFiles, is_local
from transforms.formats.parts import PackedKeys, Part
from transforms.record import Record, split_member_name
from transforms.storage import open_input

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
Read = Callable[[int, int], bytes]  # (start, size) -> so many bytes, fewer at the end of the file


@dataclass(frozen=True)
class TarMember:
    """A file in a tar: its header (with the headers that extend it) begins at `start`, its content at `offset`."""

    name: str
    start: int
    offset: int
    size: int


def walk_tar(read: Read, start: int = 0, stop: int | None = None) -> Iterator[TarMember]:
    """The files of a plain tar (USTAR, pax, GNU) between two headers. `tarfile` takes five times as long for each.

    Raises:
        RecordError: `BAD_SHARD`: what stands at the next place is no header; `BAD_KEY`: a link or a device.
    """
    position, begins, long_name, long_size = start, start, "", -1
    while stop is None or position < stop:
        header = read(position, _BLOCK)
        if header == _ZEROS:
            return
        name, size, kind = _header(header, position)
        content = position + _BLOCK
        if kind in b"xL":
            body = read(content, size)
            long_name, long_size = _pax(body, long_name, long_size) if kind == b"x" else (_text(body.rstrip(b"\0")), -1)
        elif kind in b"0\0":
            size = size if long_size < 0 else long_size
            yield TarMember(long_name or name, begins, content, size)
        elif kind not in b"5g":
            raise RecordError(Reason.BAD_KEY, f"member {long_name or name!r} is a link or device, not a file")
        position = content + -(-size // _BLOCK) * _BLOCK
        if kind not in b"xL":
            begins, long_name, long_size = position, "", -1


def _header(block: bytes, position: int) -> tuple[str, int, bytes]:
    """Name, size and type of a USTAR header."""
    if len(block) < _BLOCK:
        raise RecordError(Reason.BAD_SHARD, f"it ends at byte {position} without its end mark")
    try:
        claimed = int(block[148:156].strip(b" \0"), 8)
        long = block[124] == 0x80  # GNU's spelling of more than 8 GB
        size = int.from_bytes(block[125:136], "big") if long else int(block[124:136].strip(b" \0") or b"0", 8)
    except ValueError:
        claimed = size = -1
    if claimed != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise RecordError(Reason.BAD_SHARD, f"no tar header stands at byte {position}")
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name), size, block[156:157]


def _pax(body: bytes, name: str, size: int) -> tuple[str, int]:
    """Path and size of a pax header's records, `LENGTH KEY=VALUE\\n`; what it does not give stays as it was."""
    while body:
        length, _, _ = body.partition(b" ")
        key, _, value = body[len(length) + 1 : int(length) - 1].partition(b"=")
        if key == b"path":
            name = _text(value)
        elif key == b"size":
            size = int(value)
        body = body[int(length) :]
    return name, size


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def tar_members(url: str, files: OpenFiles) -> Iterator[TarMember]:
    """The files of a plain tar, local or remote.

    Raises:
        ConfigurationError: a compressed tar.
        RecordError: as `walk_tar`.
    """
    if files.read(url, 0, 2) == b"\x1f\x8b":
        raise ConfigurationError(f"{url!r} is compressed and can't be read at random; unpack it with gunzip")
    if is_local(url):
        yield from walk_tar(lambda start, size: files.read(url, start, size))
        return
    with open_input(url) as stream:  # reads ahead: a request for each header would take minutes

        def read(start: int, size: int) -> bytes:
            stream.seek(start, os.SEEK_SET)
            return stream.read(size)

        yield from walk_tar(read)


class TarPart(Part):
    """The records of one plain tar, local or remote.

    Raises:
        ConfigurationError: a compressed or damaged tar.
    """

    def __init__(self, url: str, files: OpenFiles) -> None:
        self.name, self._url, self._files = url, url, files
        keys, starts, paired = list[str](), list[int](), list[bool]()
        end = 0
        try:
            for member in tar_members(url, files):
                key, field = split_member_name(member.name)
                if not keys or keys[-1] != key:
                    keys.append(key)
                    starts.append(member.start)
                    paired.append(False)
                paired[-1] = paired[-1] or field.startswith("degraded.")
                end = member.offset + member.size
            if end and len(self._files.read(url, end - 1, 1)) < 1:
                raise RecordError(Reason.BAD_SHARD, "its last member is cut off")
        except RecordError as error:
            after = f" after record {keys[-1]!r}" if keys else ""
            raise ConfigurationError(
                f"the shard {url!r} is damaged{after}: {error.detail}; repair it or leave it out"
            ) from error
        self.keys, self.paired = PackedKeys(keys), np.array(paired, np.bool_)
        self._starts: NDArray[np.int64] = np.array([*starts, end], np.int64)

    def read(self, number: int) -> Record:
        start, stop = self._starts[number : number + 2].tolist()
        span, key = self._files.read(self._url, start, stop - start), self.keys[number]
        record = Record(key, index=number)
        try:
            members = list(walk_tar(lambda at, size: span[at : at + size], 0, len(span)))
        except RecordError as error:
            raise self._changed() from error
        if not members:
            raise self._changed()
        for member in members:
            owner, field = _split(member.name, key)
            data = span[member.offset : member.offset + member.size]
            if owner != key or len(data) < member.size:
                raise self._changed()
            if field in record.fields:
                raise RecordError(Reason.DUPLICATE, f"record {key!r} has two fields {field!r}; keep one")
            record.fields[field] = data
        return record

    def _changed(self) -> RecordError:
        return RecordError(Reason.BAD_SHARD, f"the shard {self._url!r} has changed since it was indexed; start again")

    def identity(self) -> bytes:
        return self.keys.tobytes() + self._starts.tobytes()


def _split(name: str, key: str) -> tuple[str, str]:
    """As `split_member_name`, without its pains where the name is that of the record."""
    field = name[len(key) + 1 :]
    if name.startswith(f"{key}.") and "/" not in field:
        return key, field.lower()
    return split_member_name(name)
