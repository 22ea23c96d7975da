"""Units of work: one input shard in, one output shard (or one group of loose files) out.

Planning looks at listings only, never at bytes, and does not depend on the number of workers.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from transforms.errors import ConfigurationError, RecordError
from transforms.record import IMAGE_EXTENSIONS, ROLES, extension, is_array, split_member_name
from transforms.storage import InputFile, describe_file, expand_inputs, filesystem_of, in_parallel, list_files

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
COLUMN_SUFFIXES = (".parquet", ".arrow")  # shards of pairs in columns; a folder's own tables may end so too
SHARD_SUFFIXES = (*TAR_SUFFIXES, *COLUMN_SUFFIXES)
# Loose files are cut into groups where the hash of a name says so, so that a new file changes one group and not all
# that follow.
PICTURES_PER_UNIT = 8

UnitKind = Literal["tar", "parquet", "arrow", "folder", "paired_tars", "dead_letters", "references"]


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
        if self.kind == "references":  # the list names every input file with its version; where it lies does not count
            return [{"references": file.version} for file in self.files]
        files = [{"url": file.url, "size": file.size, "version": file.version} for file in self.files]
        for described, member in zip(files, self.members, strict=False):
            described |= {"key": member.key, "field": member.field, "name": member.name}
        return files


@dataclass(frozen=True)
class Plan:
    """All units of an input.

    Attributes:
        ignored: names of files that are neither pictures nor shards.
        settled: names of units that need no work in this run but belong in its report.
        folders: those of the input that were listed whole.
        lists: name in the output -> content of the lists that units of kind "references" read.
        sources: URLs of the input files, where the units' own files are such lists.
    """

    units: tuple[Unit, ...]
    ignored: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    lists: Mapping[str, bytes] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    @property
    def input_urls(self) -> Iterable[str]:
        """Of all files that the run reads."""
        return self.sources or (file.url for unit in self.units for file in unit.files)

    @property
    def names(self) -> list[str]:
        return [*(unit.name for unit in self.units), *self.settled]


def plan_units(patterns: str, *, pictures_per_unit: int = PICTURES_PER_UNIT, units: int = 0) -> Plan:
    """Plans the units of an input: shards one by one, loose pictures in groups.

    Shards of columns (Parquet, Arrow) count where they are named, or stand in a folder without tars and pictures.

    Loose pictures of a folder are called by their path below it. Pictures that are named one by one (lists, globs), and all
    shards, have the shortest names that tell them apart: a twin from another folder gives all of them longer names, which
    makes other keys, other draws and other units.

    Args:
        pictures_per_unit: loose pictures in a group, about.
        units: cut loose pictures into so many groups, about, instead.

    Raises:
        ConfigurationError: nothing to do, two shards would write the same output, or `units` for an input with shards.
    """
    tars: list[InputFile] = []
    listed: list[tuple[str, InputFile]] = []
    named: list[InputFile] = []
    folders: list[str] = []
    urls = expand_inputs(patterns)
    tars += in_parallel(describe_file, [url for url in urls if url.endswith(SHARD_SUFFIXES)])
    for url in urls:
        if url.endswith(SHARD_SUFFIXES):
            continue
        if _is_folder(url):
            folders.append(url)
            shards, others = _sorted_out([each for each in list_files(url) if not is_bookkeeping(each[0])])
            tars += shards
            listed += others
        else:
            named.append(describe_file(url))
    listed += zip(_short_names([file.url for file in named]), named, strict=True)
    listed = _without_doubles(listed)
    members, ignored = assign_members(listed)
    if units:
        pictures_per_unit = _pictures_per_unit(units, len(tars), len({member.key for member in members}))
    planned = [*_shard_units(tars), *group_members(members, pictures_per_unit)]
    if not planned:
        raise ConfigurationError(
            f"the input {patterns!r} holds no tar shard and no picture ({', '.join(sorted(IMAGE_EXTENSIONS))}); check the path"
        )
    _refuse_twins(planned)
    return Plan(tuple(planned), tuple(ignored), folders=tuple(folders))


def _sorted_out(files: Sequence[tuple[str, InputFile]]) -> tuple[list[InputFile], list[tuple[str, InputFile]]]:
    """The shards of a folder, and its other files."""
    tars = [file for name, file in files if name.endswith(TAR_SUFFIXES)]
    others = [(name, file) for name, file in files if not name.endswith(TAR_SUFFIXES)]
    if tars or any(extension(name) in IMAGE_EXTENSIONS for name, _ in others):
        return tars, others
    columns = [file for name, file in others if name.endswith(COLUMN_SUFFIXES)]
    return columns, [(name, file) for name, file in others if not name.endswith(COLUMN_SUFFIXES)]


def _pictures_per_unit(units: int, shards: int, pictures: int) -> int:
    if shards:
        raise ConfigurationError(
            f"--shards {units} can't be had: the input has {shards} shards, and each of them makes one; "
            "leave it out, bound the size of what is written with --shard_mb, or spread the pairs with --shuffle"
        )
    if units < 0 or units > max(pictures, 1):
        raise ConfigurationError(f"--shards {units} can't be had of {pictures} pictures; choose at most so many")
    return max(1, round(pictures / units))


def _without_doubles(files: Iterable[tuple[str, InputFile]]) -> list[tuple[str, InputFile]]:
    """Each file once; two files of one name would write the same output."""
    found: dict[str, InputFile] = {}
    urls: set[str] = set()
    for name, file in files:
        if file.url in urls:
            continue
        urls.add(file.url)
        if name in found:
            raise ConfigurationError(
                f"the inputs {found[name].url!r} and {file.url!r} would both write {name!r}; "
                "give the folder above both, or run them into two outputs"
            )
        found[name] = file
    return list(found.items())


def _is_folder(url: str) -> bool:
    fs, path = filesystem_of(url)
    return bool(fs.isdir(path))


def is_bookkeeping(name: str) -> bool:
    """Our own files in an output that is read as an input."""
    parts = PurePosixPath(name).parts
    return len(parts) > 1 and (parts[0] in BOOKKEEPING or (parts[0] == "report" and parts[-1] in REPORT_FILES))


BOOKKEEPING = frozenset({"_ledger", "_failed", "_tmp"})
REPORT_FILES = frozenset({"index.html", "summary.json", "metrics.parquet"})


def _shard_units(shards: Sequence[InputFile]) -> list[Unit]:
    names = _short_names([_without_suffix(file.url) for file in shards])
    for name, file in zip(names, shards, strict=True):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"the shard name {file.url!r} is not UTF-8: rename it") from error
    return [Unit(name, _shard_kind(file.url), (file,)) for name, file in zip(names, shards, strict=True)]


def _shard_kind(url: str) -> UnitKind:
    if url.endswith(".parquet"):
        return "parquet"
    return "arrow" if url.endswith(".arrow") else "tar"


def _short_names(urls: Sequence[str]) -> list[str]:
    """Base names where these are unique, otherwise with as many parent folders as all of them need.

    So a name depends on the other files that are named: with a twin from another folder, all of them grow a folder longer. A
    folder that is listed whole keeps its own names whatever is added.
    """
    for depth in range(1, 64):
        names = ["/".join(PurePosixPath(url.split("://")[-1]).parts[-depth:]) for url in urls]
        if len(set(names)) == len(set(urls)):
            return names
    return list(urls)


def _without_suffix(url: str) -> str:
    for suffix in SHARD_SUFFIXES:
        if url.endswith(suffix):
            return url.removesuffix(suffix)
    return url


def assign_members(files: Iterable[tuple[str, InputFile]]) -> tuple[list[Member], list[str]]:
    """Decides which loose files make up one record.

    Files called KEY.clean.EXT, KEY.degraded.EXT or KEY.restored.EXT belong to record KEY, with KEY.json and
    KEY.WHAT.npy or KEY.mask.png beside them. Any other picture is a record of its own, whatever dots its name has: its
    key is the path without the last extension and with `_` for the dots, because a key ends at the first dot once it
    stands in a tar. Pictures that would share a key keep their extension in it.

    Returns:
        The members sorted by key and field, and the names of the files that belong to no record.
    """
    grouped: dict[str, list[tuple[str, str, InputFile]]] = defaultdict(list)
    singles: list[tuple[str, InputFile]] = []
    others: list[tuple[str, InputFile]] = []
    for name, file in files:
        key, field = _split_or_none(name)
        if PurePosixPath(name).name.startswith("."):
            others.append((name, file))  # hidden: thumbnails and the like
        elif field.partition(".")[0] in ROLES and "." in field:
            grouped[key].append((field, name, file))
        else:
            (singles if extension(name) in IMAGE_EXTENSIONS and not is_array(field) else others).append((name, file))
    ignored = []
    for name, file in others:
        key, field = _split_or_none(name)
        if key in grouped:
            grouped[key].append((field, name, file))
        elif extension(name) in IMAGE_EXTENSIONS and not PurePosixPath(name).name.startswith("."):
            singles.append((name, file))  # called like a mask, but of no pair
        else:
            ignored.append(name)
    keys = _own_keys([name for name, _ in singles], taken=set(grouped))
    members = [Member(keys[name], extension(name), name, file) for name, file in singles]
    members += [Member(key, field, name, file) for key, fields in grouped.items() for field, name, file in fields]
    return sorted(members, key=_member_order), sorted(ignored)


def _own_keys(names: Sequence[str], taken: set[str]) -> dict[str, str]:
    """A key without dots for each picture that stands alone: short where that is unique, then with extension, then with
    a hash of the name. Which one a picture gets depends on no order."""
    keys: dict[str, str] = {}
    left = list(names)
    for spell in (_short_key, _long_key, _hashed_key):
        counted = Counter(spell(name) for name in left)
        mine = {name: spell(name) for name in left if counted[spell(name)] == 1 and spell(name) not in taken}
        taken = taken | set(counted)
        keys |= mine
        left = [name for name in left if name not in mine]
    return keys | {name: _hashed_key(name) for name in left}


def _without_dots(path: PurePosixPath, base_name: str) -> str:
    return (path.parent / base_name.replace(".", "_")).as_posix()


def _short_key(name: str) -> str:
    path = PurePosixPath(name)
    return _without_dots(path, path.name.rpartition(".")[0])


def _long_key(name: str) -> str:
    path = PurePosixPath(name)
    return _without_dots(path, path.name)


def _hashed_key(name: str) -> str:
    return f"{_long_key(name)}-{_digest(name):016x}"


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


def _member_order(member: Member) -> tuple[str, str]:
    return member.key, member.field


def _split_or_none(name: str) -> tuple[str, str]:
    try:
        return split_member_name(name)
    except RecordError:
        return name, ""


def group_members(members: Sequence[Member], pictures_per_unit: int = PICTURES_PER_UNIT) -> list[Unit]:
    """Cuts loose files, sorted by key, into units of about `pictures_per_unit` records.

    A group begins, and takes its name, where the hash of a key says so: a new file changes the group that it falls into, or
    cuts it in two, and leaves all others as they are.
    """
    groups: list[tuple[str, list[Member]]] = []
    keys_in_group = 0
    previous = None
    for member in members:
        if member.key != previous:
            if not groups:
                groups.append(("first", []))
            elif keys_in_group >= 4 * pictures_per_unit or _digest(member.key) % pictures_per_unit == 0:
                groups.append((f"{_digest(member.key):016x}", []))
                keys_in_group = 0
            keys_in_group += 1
            previous = member.key
        groups[-1][1].append(member)
    return [Unit(f"files-{name}", "folder", tuple(m.file for m in group), tuple(group)) for name, group in groups]


def _refuse_twins(units: Sequence[Unit]) -> None:
    counted = Counter(unit.name for unit in units)
    twins = sorted(name for name, count in counted.items() if count > 1)
    if twins:
        urls = [unit.files[0].url for unit in units if unit.name == twins[0]]
        raise ConfigurationError(
            f"the inputs {urls} would all write the output {twins[0]!r}; rename one, or run them into two outputs"
        )
