"""Two shards read side by side: restored pictures and their references, joined by key."""

from __future__ import annotations

import tarfile
from collections import defaultdict
from collections.abc import Iterator

from transforms.errors import ConfigurationError
from transforms.formats.tar import StrictHeader, read_tar
from transforms.record import IMAGE_EXTENSIONS, Record, extension, split_member_name
from transforms.storage import open_input


def with_role(field: str, role: str) -> str:
    """The field name of a picture in a given role: `png` becomes `clean.png`."""
    return field if field.partition(".")[0] == role and "." in field else f"{role}.{extension(field)}"


def read_paired_tars(restored_url: str, reference_url: str) -> Iterator[Record]:
    """The records of a restored shard, each with its reference from the other shard as `clean.EXT`; then the
    references left over."""
    references = IndexedTar(reference_url)
    index = 0
    for record in read_tar(restored_url):
        clean = references.take(record.key)
        if clean is not None:
            record.fields = {
                name: data for name, data in record.fields.items() if name.partition(".")[0] != "clean"
            } | clean
        index = record.index + 1
        yield record
    for key in references.left():
        yield Record(key, references.take(key) or {}, index)
        index += 1


class IndexedTar:
    """Finds the reference pictures of a tar by key: one pass over the headers, then single reads.

    Raises:
        ConfigurationError: a compressed tar, which can't be read out of order.
    """

    def __init__(self, url: str) -> None:
        self._stream = open_input(url)
        self._places: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
        try:
            with tarfile.open(fileobj=self._stream, mode="r:", tarinfo=StrictHeader) as archive:
                for info in archive:
                    if info.isfile():
                        key, field = split_member_name(info.name)
                        self._places[key].append((field, info.offset_data, info.size))
        except tarfile.ReadError as error:
            raise ConfigurationError(
                f"references in {url!r} can't be read by key: {error}; give a plain, undamaged .tar"
            ) from error

    def take(self, key: str) -> dict[str, bytes] | None:
        places = [place for place in self._places.pop(key, []) if extension(place[0]) in IMAGE_EXTENSIONS]
        named = [place for place in places if place[0].partition(".")[0] == "clean"] or places
        return {with_role(field, "clean"): self._read(offset, size) for field, offset, size in named} or None

    def left(self) -> list[str]:
        return list(self._places)

    def _read(self, offset: int, size: int) -> bytes:
        self._stream.seek(offset)
        return self._stream.read(size)
