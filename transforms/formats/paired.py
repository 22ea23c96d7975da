"""Two shards read side by side: restored pictures and their references, joined by key."""

from __future__ import annotations

import tarfile
from collections import defaultdict
from collections.abc import Iterator
from typing import BinaryIO

from transforms.errors import Reason, RecordError
from transforms.formats.tar import StrictHeader, read_tar
from transforms.record import IMAGE_EXTENSIONS, Record, extension, split_member_name
from transforms.storage import open_input


def with_role(field: str, role: str) -> str:
    """The field name of a picture in a given role: `png` becomes `clean.png`."""
    return field if field.partition(".")[0] == role and "." in field else f"{role}.{extension(field)}"


def read_paired_tars(restored_url: str, reference_url: str) -> Iterator[Record]:
    """The records of a restored shard, each with its reference from the other shard as `clean.EXT`; then the
    references left over, and what is wrong with the reference shard itself."""
    index = 0
    with open_input(reference_url) as stream:
        references = IndexedTar(stream, reference_url.rpartition("/")[2])
        for record in read_tar(restored_url):
            clean, trouble = references.take(record.key)
            if clean:
                own = {name: data for name, data in record.fields.items() if name.partition(".")[0] != "clean"}
                record.fields = own | clean
            record.error = record.error or trouble
            index = record.index + 1
            yield record
        for record in references.left():
            record.index = index
            index += 1
            yield record


class IndexedTar:
    """Finds the reference pictures of a plain tar by key: one pass over the headers, then single reads."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._places: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        self._troubles: dict[str, RecordError] = {}
        try:
            with tarfile.open(fileobj=stream, mode="r:", tarinfo=StrictHeader) as archive:
                for info in archive:
                    if info.isfile():
                        self._add(info)
        except tarfile.ReadError as error:
            detail = f"references are damaged, those behind the damage are missing: {error}"
            self._troubles[name] = RecordError(Reason.BAD_SHARD, detail)

    def _add(self, info: tarfile.TarInfo) -> None:
        try:
            key, field = split_member_name(info.name)
        except RecordError as error:
            self._troubles[info.name] = error
            return
        if field in self._places[key]:
            detail = f"reference {info.name!r} is there twice; keep one"
            self._troubles[key] = RecordError(Reason.DUPLICATE, detail)
        self._places[key][field] = info.offset_data, info.size

    def take(self, key: str) -> tuple[dict[str, bytes], RecordError | None]:
        """The reference pictures of a key as `clean.EXT`, and what is wrong with them; each key once."""
        pictures = {
            field: place for field, place in self._places.pop(key, {}).items() if extension(field) in IMAGE_EXTENSIONS
        }
        named = {field: place for field, place in pictures.items() if field.partition(".")[0] == "clean"} or pictures
        fields = {with_role(field, "clean"): self._read(*place) for field, place in named.items()}
        return fields, self._troubles.pop(key, None)

    def left(self) -> Iterator[Record]:
        """A record for each reference that nothing was restored from, and for each trouble with the shard."""
        for key in [*self._places, *(name for name in self._troubles if name not in self._places)]:
            fields, trouble = self.take(key)
            yield Record(key, fields, error=trouble)

    def _read(self, offset: int, size: int) -> bytes:
        self._stream.seek(offset)
        return self._stream.read(size)
