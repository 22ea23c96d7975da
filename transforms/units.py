"""Units of work: one input shard in, one output shard (or one group of loose files) out.

Planning looks at listings only, never at bytes, and does not depend on the number of workers.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from transforms.errors import ConfigurationError, RecordError
from transforms.record import IMAGE_EXTENSIONS, ROLES, extension, split_member_name
from transforms.storage import InputFile, describe_file, expand_inputs, filesystem_of, list_files

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
# Loose files are cut into groups where the hash of a name says so, so that a new file changes one group and not all
# that follow.
PICTURES_PER_UNIT = 8

UnitKind = Literal["tar", "folder", "paired_tars", "dead_letters"]


@dataclass(frozen=True)
class Member:
    """One loose file as field `field` of record `key`; `name` is its path below the input folder."""

    key: str
    field: str
    name: str
    file: InputFile


@dataclass(frozen=True)
class Unit:
    """What one worker takes at a time: small, picklable, retried as a whole.

    Attributes:
        name: of the output shard, without suffix; unique in the run.
        kind: how to read it.
        files: the input files, in order.
        members: for loose files, which record each one belongs to.
    """

    name: str
    kind: UnitKind
    files: tuple[InputFile, ...]
    members: tuple[Member, ...] = ()

    @property
    def bytes_in(self) -> int:
        return sum(file.size for file in self.files)

    def identity(self) -> list[dict[str, Any]]:
        """What has to stay the same for a finished unit to count as done."""
        return [{"url": file.url, "size": file.size, "version": file.version} for file in self.files]


@dataclass(frozen=True)
class Plan:
    """All units of an input.

    Attributes:
        ignored: names of files that are neither pictures nor shards.
        settled: names of units that need no work in this run but belong in its report.
        folders: those of the input that were listed whole.
    """

    units: tuple[Unit, ...]
    ignored: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [*(unit.name for unit in self.units), *self.settled]


def plan_units(patterns: str, *, pictures_per_unit: int = PICTURES_PER_UNIT) -> Plan:
    """Plans the units of an input: tars one by one, loose pictures in groups.

    Raises:
        ConfigurationError: nothing to do, or two shards would write the same output.
    """
    tars: list[InputFile] = []
    listed: list[tuple[str, InputFile]] = []
    named: list[InputFile] = []
    folders: list[str] = []
    for url in expand_inputs(patterns):
        if url.endswith(TAR_SUFFIXES):
            tars.append(describe_file(url))
        elif _is_folder(url):
            folders.append(url)
            for name, file in list_files(url):
                if _is_bookkeeping(name):
                    continue
                if name.endswith(TAR_SUFFIXES):
                    tars.append(file)
                else:
                    listed.append((name, file))
        else:
            named.append(describe_file(url))
    listed += zip(_short_names([file.url for file in named]), named, strict=True)
    members, ignored = assign_members(listed)
    units = [*_tar_units(tars), *group_members(members, pictures_per_unit)]
    if not units:
        raise ConfigurationError(
            f"the input {patterns!r} holds no tar shard and no picture ({', '.join(sorted(IMAGE_EXTENSIONS))}); check the path"
        )
    _refuse_twins(units)
    return Plan(tuple(units), tuple(ignored), folders=tuple(folders))


def _is_folder(url: str) -> bool:
    fs, path = filesystem_of(url)
    return bool(fs.isdir(path))


def _is_bookkeeping(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return (parts[0] == "report" and len(parts) > 1 and parts[-1] in REPORT_FILES) or any(
        part.startswith(("_", ".")) for part in parts
    )


REPORT_FILES = frozenset({"index.html", "summary.json", "metrics.parquet"})


def _tar_units(tars: Sequence[InputFile]) -> list[Unit]:
    names = _short_names([_without_tar_suffix(file.url) for file in tars])
    for name, file in zip(names, tars, strict=True):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"the shard name {file.url!r} is not UTF-8: rename it") from error
    return [Unit(name, "tar", (file,)) for name, file in zip(names, tars, strict=True)]


def _short_names(urls: Sequence[str]) -> list[str]:
    """Base names where these are unique, otherwise with as many parent folders as all of them need."""
    for depth in range(1, 64):
        names = ["/".join(PurePosixPath(url.split("://")[-1]).parts[-depth:]) for url in urls]
        if len(set(names)) == len(set(urls)):
            return names
    return list(urls)


def _without_tar_suffix(url: str) -> str:
    for suffix in TAR_SUFFIXES:
        if url.endswith(suffix):
            return url.removesuffix(suffix)
    return url


def assign_members(files: Iterable[tuple[str, InputFile]]) -> tuple[list[Member], list[str]]:
    """Decides which loose files make up one record.

    Files called KEY.clean.EXT, KEY.degraded.EXT or KEY.restored.EXT belong to record KEY, with KEY.json and
    KEY.WHAT.npy beside them. Any other picture is a record of its own, whatever dots its name has: its key is the
    path without the last extension, or with it where two pictures would share the key.

    Returns:
        The members sorted by key and field, and the names of the files that belong to no record.
    """
    files = list(files)
    grouped: dict[str, list[tuple[str, str, InputFile]]] = defaultdict(list)
    singles: list[tuple[str, InputFile]] = []
    for name, file in files:
        key, field = _split_or_none(name)
        if field.partition(".")[0] in ROLES and "." in field:
            grouped[key].append((field, name, file))
        else:
            singles.append((name, file))
    members, ignored = [], []
    stems = Counter(_stem(name) for name, _ in singles if extension(name) in IMAGE_EXTENSIONS)
    for name, file in singles:
        key, field = _split_or_none(name)
        if extension(name) in IMAGE_EXTENSIONS:
            own_key = _stem(name) if stems[_stem(name)] == 1 and _stem(name) not in grouped else name
            members.append(Member(own_key, extension(name), name, file))
        elif key in grouped:
            grouped[key].append((field, name, file))
        else:
            ignored.append(name)
    members += [Member(key, field, name, file) for key, fields in grouped.items() for field, name, file in fields]
    return sorted(members, key=_member_order), sorted(ignored)


def _member_order(member: Member) -> tuple[str, str]:
    return member.key, member.field


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _split_or_none(name: str) -> tuple[str, str]:
    try:
        return split_member_name(name)
    except RecordError:
        return name, ""


def group_members(members: Sequence[Member], pictures_per_unit: int = PICTURES_PER_UNIT) -> list[Unit]:
    """Cuts loose files, sorted by key, into units of about `pictures_per_unit` records."""
    groups: list[list[Member]] = []
    keys_in_group = 0
    previous = None
    for member in members:
        if member.key != previous:
            if (
                not groups
                or keys_in_group >= 4 * pictures_per_unit
                or (keys_in_group and _starts_a_group(member.key, pictures_per_unit))
            ):
                groups.append([])
                keys_in_group = 0
            keys_in_group += 1
            previous = member.key
        groups[-1].append(member)
    return [
        Unit(f"files-{number:05d}", "folder", tuple(m.file for m in group), tuple(group))
        for number, group in enumerate(groups)
    ]


def _starts_a_group(key: str, pictures_per_unit: int) -> bool:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % pictures_per_unit == 0


def _refuse_twins(units: Sequence[Unit]) -> None:
    counted = Counter(unit.name for unit in units)
    twins = sorted(name for name, count in counted.items() if count > 1)
    if twins:
        urls = [unit.files[0].url for unit in units if unit.name == twins[0]]
        raise ConfigurationError(
            f"the inputs {urls} would all write the output {twins[0]!r}; rename one, or run them into two outputs"
        )
