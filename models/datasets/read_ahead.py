"""Batches made in a thread, ahead of the training that wants them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Numbered(Protocol[T_co]):
    """Something with an item for each number."""

    def __getitem__(self, number: int, /) -> T_co: ...


def read_ahead(items: Numbered[T], numbers: Iterable[int], ahead: int = 2) -> Iterator[T]:
    """The items of some numbers, in order; a thread makes up to `ahead` of them while the taker is busy.

    A thread and not a process, since what it makes may lie on a device. What an item raises is raised here in its turn.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(1, "read-ahead")
    try:
        for number in numbers:
            waiting.append(pool.submit(items.__getitem__, number))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
