"""Folders of loose images: every file is published on its own, the tree is mirrored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from transforms.errors import Reason, RecordError
from transforms.record import IMAGE_EXTENSIONS, Record
from transforms.storage import read_bytes
from transforms.units import Member


def read_members(members: tuple[Member, ...]) -> Iterator[Record]:
    """Reads the records of a group of loose files, one at a time.

    Raises:
        OSError: a file that was listed can't be read; the engine retries.
    """
    for index, (key, group) in enumerate(groupby(members, key=_key)):
        yield gather(key, index, ((member.field, member.name, read_bytes(member.file.url)) for member in group))


def gather(key: str, index: int, files: Iterable[tuple[str, str, bytes]]) -> Record:
    """The record that loose files, (field, name, content), make up."""
    record = Record(key, index=index)
    for field, name, data in files:
        if not _is_utf8(name):
            record.error = RecordError(Reason.BAD_KEY, f"file name {name!r} is not UTF-8: rename it")
        stored_as = field
        if field in record.fields:
            record.error = RecordError(
                Reason.DUPLICATE, f"record {key!r} has two fields {field!r} ({name!r} is one); keep one"
            )
            stored_as = f"{field}.duplicate-{len(record.fields)}"
        record.fields[stored_as] = data
        if field in IMAGE_EXTENSIONS:  # a picture of its own, not one part of a KEY.ROLE.EXT record
            record.name = name
    return record


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(member: Member) -> str:
    return member.key
