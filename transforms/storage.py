"""Paths: every one is a URL that fsspec understands, local paths included.

Reading expands patterns; writing publishes whole files only, under their final name or not at all.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from transforms.errors import ConfigurationError

# Read-ahead of remote inputs. Members are read once and in order, so a larger block means fewer requests.
READ_BLOCK_BYTES = 8 * 2**20
REQUESTS_AT_ONCE = 32
TEMPORARY_FOLDER = "_tmp"
T = TypeVar("T")
_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")


def filesystem_of(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path inside it.

    Raises:
        ConfigurationError: unknown protocol, or its package is not installed.
    """
    try:
        return cast("tuple[Any, str]", url_to_fs(url))
    except (ValueError, ImportError) as error:
        raise ConfigurationError(
            f"cannot open {url!r}: {error}; local paths, memory://, gs:// and s3:// (extra 's3') are known"
        ) from error


def expand_braces(pattern: str) -> list[str]:
    """`{000..123}` ranges (zeros kept) and `{a,b}` lists, as a shell and webdataset expand them.

    Example:
        >>> expand_braces("s-{08..10}.tar")
        ['s-08.tar', 's-09.tar', 's-10.tar']
    """
    found = _BRACES.search(pattern)
    if not found:
        return [pattern]
    inside = found.group(1)
    numbers = _NUMBERS.fullmatch(inside)
    if numbers:
        first, last = numbers.groups()
        step = 1 if int(last) >= int(first) else -1
        choices = [str(n).zfill(len(first)) for n in range(int(first), int(last) + step, step)]
    else:
        choices = inside.split(",")
    tails = expand_braces(pattern[found.end() :])
    return [pattern[: found.start()] + choice + tail for choice, tail in itertools.product(choices, tails)]


@dataclass(frozen=True, order=True)
class InputFile:
    """One input file and what identifies its content: size, and the store's own version mark."""

    url: str
    size: int
    version: str


def expand_inputs(patterns: str) -> list[str]:
    """Expands comma-separated patterns, `@list.txt`, braces and globs into URLs of files or folders, in the order
    given.

    Raises:
        ConfigurationError: a list can't be read, or a pattern matches nothing.
    """
    lines: list[str] = []
    for pattern in split_patterns(patterns):
        lines += _read_list(pattern[1:]) if pattern.startswith("@") else [pattern]
    for fs in {filesystem_of(line)[0] for line in lines}:
        fs.invalidate_cache()  # an earlier plan of this process may have listed what has changed since
    urls = list(dict.fromkeys(url for line in lines for url in _expand_one(line)))
    for url, found in zip(urls, in_parallel(_exists, urls), strict=True):
        if not found:
            raise ConfigurationError(f"input {url!r} does not exist")
    return urls


def absolute_patterns(patterns: str) -> str:
    """The same patterns with the working folder before every local path, for whoever reads them elsewhere."""
    return ",".join(_absolute(pattern) for pattern in split_patterns(patterns))


def _absolute(pattern: str) -> str:
    mark, path = ("@", pattern[1:]) if pattern.startswith("@") else ("", pattern)
    return mark + (path if "://" in path else os.path.abspath(path))


def in_parallel(function: Callable[[str], T], urls: Sequence[str]) -> list[T]:
    """Asks a store about many files at once: thousands of shards one by one would take minutes."""
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return list(pool.map(function, urls))


def _exists(url: str) -> bool:
    fs, path = filesystem_of(url)
    return bool(fs.exists(path))


def split_patterns(patterns: str) -> list[str]:
    """The parts between commas, none of them expanded."""
    parts = re.split(r",(?![^{]*\})", patterns)  # a comma inside braces belongs to the braces
    return [part.strip() for part in parts if part.strip()]


def _read_list(url: str) -> list[str]:
    try:
        with fsspec.open(url, "rt", encoding="utf-8") as lines:
            found = [line.strip() for line in lines]
    except OSError as error:
        raise ConfigurationError(f"cannot read the list {url!r}: {error}") from error
    return [line for line in found if line and not line.startswith("#")]


def _expand_one(pattern: str) -> Iterator[str]:
    for url in expand_braces(pattern):
        fs, path = filesystem_of(url)
        if any(mark in url for mark in "*?["):
            matches = sorted(fs.glob(path))
            if not matches:
                raise ConfigurationError(
                    f"the pattern {url!r} matches no file; check the path, or quote it against your shell"
                )
            yield from (unstrip(fs, match) for match in matches)
        else:
            yield unstrip(fs, path)


def unstrip(fs: Any, path: str) -> str:
    """A full URL for a path of a file system; local paths stay plain paths."""
    return path if isinstance(fs, LocalFileSystem) else cast("str", fs.unstrip_protocol(path))


def canonical(url: str) -> str:
    """One spelling for each place: absolute, links followed, no slash at the end."""
    fs, path = filesystem_of(url)
    return os.path.realpath(path) if isinstance(fs, LocalFileSystem) else unstrip(fs, path.rstrip("/"))


def lies_in(inner: str, outer: str) -> bool:
    """Whether a place is another one or below it; both canonical."""
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def describe_file(url: str, info: dict[str, Any] | None = None) -> InputFile:
    """Size and version of a file, from the store's own listing.

    The version is the first of ETag (S3), generation (Google, whose ETag changes with an object's labels too), checksum,
    modification time that the store offers.
    """
    fs, path = filesystem_of(url)
    info = info or fs.info(path)
    for name in ("ETag", "generation", "etag", "md5Hash", "mtime", "LastModified", "updated", "created"):
        if info.get(name) is not None:
            return InputFile(url, int(info["size"]), f"{name}:{info[name]}")
    return InputFile(url, int(info["size"]), "")


def list_files(url: str) -> list[tuple[str, InputFile]]:
    """All files below a folder as (relative path, file), sorted; empty where there is no such folder."""
    fs, root = filesystem_of(url)
    root = root.rstrip("/")
    files = []
    for path, info in fs.find(root, detail=True).items():
        is_link = info.get("type") == "link" or info.get("islink")
        if info.get("type") == "file" or (is_link and fs.isfile(path)):
            described = _describe_target(path) if is_link else describe_file(unstrip(fs, path), info)
            files.append((path[len(root) :].lstrip("/"), described))
    return sorted(files)


def _describe_target(path: str) -> InputFile:
    """A local link is as large and as old as what it points to."""
    target = os.stat(path)
    return InputFile(path, target.st_size, f"mtime:{target.st_mtime}")


def open_input(url: str) -> BinaryIO:
    """Opens a file for one sequential read."""
    fs, path = filesystem_of(url)
    if isinstance(fs, LocalFileSystem):
        return open(path, "rb", buffering=READ_BLOCK_BYTES)
    return cast("BinaryIO", fs.open(path, "rb", block_size=READ_BLOCK_BYTES, cache_type="readahead"))


def read_bytes(url: str) -> bytes:
    fs, path = filesystem_of(url)
    return cast("bytes", fs.cat_file(path))


def read_ranges(ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
    """Bytes start ... start + size - 1 of files, fewer at their ends; an object store is asked for all at once.

    Args:
        ranges: (URL, start, size), all of one store.
    """
    if not ranges:
        return []
    fs = filesystem_of(ranges[0][0])[0]
    paths = [filesystem_of(url)[1] for url, _, _ in ranges]
    starts = [start for _, start, _ in ranges]
    ends = [start + size for _, start, size in ranges]
    return cast("list[bytes]", fs.cat_ranges(paths, starts, ends, on_error="raise"))


@dataclass(frozen=True)
class OutputStore:
    """A folder that whole files are published into.

    A local file is written beside its destination's tree (`_tmp/`), flushed to the disk and renamed. An object store
    gets
    one PUT of a finished local file: an exception inside an open remote write would publish the partial object.
    """

    root: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        fs, path = filesystem_of(self.root)
        return fs, path.rstrip("/")

    def __getstate__(self) -> dict[str, str]:
        return {"root": self.root}  # the live file system object never travels

    def __setstate__(self, state: dict[str, str]) -> None:
        object.__setattr__(self, "root", state["root"])

    @property
    def is_local(self) -> bool:
        return isinstance(self._opened[0], LocalFileSystem)

    def path(self, name: str) -> str:
        return f"{self._opened[1]}/{name}"

    def url(self, name: str) -> str:
        return unstrip(self._opened[0], self.path(name))

    def publish(self, finished: Path, name: str) -> None:
        """Moves a finished local file to its final name, replacing what is there; the local file is gone afterwards."""
        fs, _ = self._opened
        if self.is_local:
            self._rename_into_place(finished, name)
        else:
            fs.put_file(str(finished), self.path(name))
            finished.unlink()

    def write(self, name: str, data: bytes) -> None:
        """Publishes a small file from memory."""
        fs, _ = self._opened
        if not self.is_local:
            fs.pipe_file(self.path(name), data)
            return
        with self.scratch() as folder:
            finished = folder / "file"
            finished.write_bytes(data)
            self._rename_into_place(finished, name)

    def _rename_into_place(self, finished: Path, name: str) -> None:
        destination = Path(self.path(name))
        destination.parent.mkdir(parents=True, exist_ok=True)
        with open(finished, "rb") as written:
            os.fsync(written.fileno())
        os.replace(finished, destination)

    def scratch(self) -> _Scratch:
        """A temporary local folder from which `publish` can rename: on the destination's disk where that is local."""
        if not self.is_local:
            return _Scratch(Path(tempfile.mkdtemp(prefix="conservator-")))
        folder = Path(self.path(TEMPORARY_FOLDER)) / uuid.uuid4().hex
        while True:
            with suppress(FileNotFoundError):  # another worker may take away the empty parent just now
                folder.mkdir(parents=True)
                return _Scratch(folder)

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, or None where there is none."""
        fs, _ = self._opened
        try:
            return cast("bytes", fs.cat_file(self.path(name)))
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        """Names, relative to `folder`, of all files below it."""
        return [name for name, _ in list_files(self.url(folder))]

    def remove(self, names: Iterable[str]) -> None:
        fs, _ = self._opened
        for name in names:
            with suppress(FileNotFoundError):
                fs.rm_file(self.path(name))

    def check_writable(self) -> None:
        """Writes and removes a probe.

        Raises:
            ConfigurationError: the store refuses.
        """
        probe = f"{TEMPORARY_FOLDER}/probe-{uuid.uuid4().hex}"
        try:
            self.write(probe, b"conservator")
            self.remove([probe])
        except Exception as error:
            raise ConfigurationError(
                f"cannot write to the output {self.root!r}: {error}; check the path and your rights"
            ) from error

    def sweep(self, older_than_s: float, now_s: float) -> None:
        """Removes scratch folders that killed runs left behind; younger ones may belong to a run beside this one."""
        folder = Path(self.path(TEMPORARY_FOLDER))
        if not self.is_local or not folder.is_dir():
            return
        for leftover in folder.iterdir():
            with suppress(FileNotFoundError):
                if now_s - leftover.stat().st_mtime > older_than_s:
                    shutil.rmtree(leftover, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()  # only an empty one goes


class _Scratch:
    """A folder that is removed on exit, with its contents."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Path:
        return self._folder

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._folder.parent.name == TEMPORARY_FOLDER:
            with suppress(OSError):
                self._folder.parent.rmdir()  # only an empty one goes
