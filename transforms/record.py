"""Records: a key and its fields, as webdataset names them.

A member `photos/0001.degraded.png` is field `degraded.png` of record `photos/0001`: the key ends at the first dot of
the base name, and the field is lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from transforms.errors import Reason, RecordError

IMAGE_EXTENSIONS = frozenset({"png", "jpg", "jpeg", "tif", "tiff", "webp", "bmp"})
ROLE_EXTENSIONS = IMAGE_EXTENSIONS | {"npy"}  # an array is a picture only where a role says so
ROLES = frozenset({"clean", "degraded", "restored"})
ARRAYS = frozenset({"kernel", "mask", "motion"})  # what a pair may carry beside its pictures; a mask is a PNG


@dataclass
class Record:
    """One record of a shard.

    Attributes:
        key: unique inside the data set; slashes are allowed.
        fields: field name (`degraded.png`, `json`) -> bytes as stored.
        index: position among the records of the unit, from 0.
        name: for a loose picture, its path below the input folder; the result goes to the same place in the output.
        shard: for a record of a tar, the name of the tar's unit; keys of loose pictures are unique without one.
        wanted: of a picture in a shuffled shard, the pairs to make of it -> their places in the shard; None for all.
        error: what the reader found wrong with it; such a record goes straight to the dead letters.
    """

    key: str
    fields: dict[str, bytes] = field(default_factory=dict)
    index: int = 0
    name: str | None = None
    shard: str | None = None
    wanted: Mapping[int, int] | None = None
    error: RecordError | None = None


def split_member_name(name: str) -> tuple[str, str]:
    """Splits a member name into key and field.

    Raises:
        RecordError: `BAD_KEY` if the name is absolute, leaves its folder, or has no key or no field.

    Example:
        >>> split_member_name("photos/0001.degraded.PNG")
        ('photos/0001', 'degraded.png')
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise RecordError(Reason.BAD_KEY, f"member name {name!r} is absolute or leaves its folder")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise RecordError(Reason.BAD_KEY, f"member name {name!r} is not UTF-8: rename it") from error
    stem, dot, suffix = path.name.partition(".")
    if not stem or not dot or not suffix:
        raise RecordError(Reason.BAD_KEY, f"member name {name!r} is not KEY.FIELD: it needs a key, a dot and a field")
    return (path.parent / stem).as_posix(), suffix.lower()


def extension(field_name: str) -> str:
    """The file type that a field's name claims: `png` for `degraded.png`."""
    return field_name.rpartition(".")[2].lower()


def is_array(field_name: str) -> bool:
    """Whether a field names an array that belongs to a pair: `mask.png`, `kernel2.npy`."""
    return field_name.partition(".")[0].rstrip("0123456789") in ARRAYS


def image_fields(fields: dict[str, bytes]) -> list[str]:
    """Names of the fields that claim to be pictures, sorted; a mask is none beside a picture."""
    found = sorted(name for name in fields if extension(name) in IMAGE_EXTENSIONS)
    return [name for name in found if not is_array(name)] or found


def _role_field(fields: dict[str, bytes], role: str) -> str | None:
    found = [name for name in sorted(fields) if name.partition(".")[0] == role and extension(name) in ROLE_EXTENSIONS]
    if len(found) > 1:
        raise RecordError(Reason.AMBIGUOUS, f"several fields for {role!r}: {found}; keep one")
    return found[0] if found else None


def degraded_field(fields: dict[str, bytes]) -> str:
    """The field that `restore` works on: `degraded.*`, or the record's only picture.

    Raises:
        RecordError: `NO_IMAGE` without any picture, `AMBIGUOUS` with several and none called `degraded.*`.
    """
    return _role_field(fields, "degraded") or _only_image(fields, "degraded")


def clean_field(fields: dict[str, bytes]) -> str | None:
    """The reference `clean.*` of a record, or None."""
    return _role_field(fields, "clean")


def source_field(fields: dict[str, bytes]) -> str:
    """The field that `degrade` works on: `clean.*`, or the record's only picture.

    Raises:
        RecordError: as `degraded_field`.
    """
    return _role_field(fields, "clean") or _only_image(fields, "clean")


def _only_image(fields: dict[str, bytes], role: str) -> str:
    # A picture that is named for another role is never taken for this one: a reference is not a damaged picture.
    found = [name for name in image_fields(fields) if name.partition(".")[0] not in ROLES - {role}]
    if not found:
        raise RecordError(
            Reason.NO_IMAGE,
            f"no picture to work on among the fields {sorted(fields)}; expected {role}.EXT or a single picture, "
            f"with EXT one of {sorted(IMAGE_EXTENSIONS)}",
        )
    if len(found) > 1:
        raise RecordError(
            Reason.AMBIGUOUS, f"several pictures {found} and none called '{role}.*'; rename the one to use"
        )
    return found[0]
