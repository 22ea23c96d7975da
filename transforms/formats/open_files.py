"""Files that stay open while they are used often, and never travel to another process."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

from fsspec.implementations.local import LocalFileSystem

from transforms.storage import filesystem_of

OPEN_FILES = 64
T = TypeVar("T")


class RecentlyUsed(Generic[T]):
    """What was made for a name is kept until too many others were used since.

    A copy that is pickled is empty, so that nothing that is open or mapped travels. A forked process may go on with what it
    inherits. Not for several threads at once.

    Args:
        make, dispose: functions of a module, so that they can be pickled.
    """

    def __init__(
        self, make: Callable[[str], T], dispose: Callable[[T], Any] | None = None, limit: int = OPEN_FILES
    ) -> None:
        self._make, self._dispose, self._limit = make, dispose, limit
        self._kept: OrderedDict[str, T] = OrderedDict()

    def __getitem__(self, name: str) -> T:
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        self._kept[name] = made = self._make(name)
        if len(self._kept) > self._limit:
            self._drop_oldest()
        return made

    def _drop_oldest(self) -> None:
        _, oldest = self._kept.popitem(last=False)
        if self._dispose is not None:
            self._dispose(oldest)

    def close(self) -> None:
        """Lets go of all; what is asked for next is made again."""
        while self._kept:
            self._drop_oldest()

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": OrderedDict()}


class OpenFiles:
    """Reads ranges of files; local ones stay open. No position is kept, so that forked processes do not disturb each other."""

    def __init__(self, limit: int = OPEN_FILES) -> None:
        self._descriptors = RecentlyUsed(_open, os.close, limit)

    def read(self, url: str, start: int, size: int) -> bytes:
        """Bytes start ... start + size - 1 of a file, fewer at its end.

        Raises:
            OSError: the file can't be opened or read.
        """
        if is_local(url):
            return os.pread(self._descriptors[url], size, start)
        fs, path = filesystem_of(url)
        return cast("bytes", fs.cat_file(path, start=start, end=start + size))

    def close(self) -> None:
        """Closes all; the next read opens again."""
        self._descriptors.close()


@lru_cache(maxsize=1 << 14)  # to take a URL apart costs more than to read a small record
def is_local(url: str) -> bool:
    """Whether a file lies in this machine's own file system."""
    return isinstance(filesystem_of(url)[0], LocalFileSystem)


def _open(url: str) -> int:
    return os.open(filesystem_of(url)[1], os.O_RDONLY | os.O_CLOEXEC)
