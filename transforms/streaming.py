"""Bounded, ordered concurrency for a stream of pictures.

A pull pipeline: the consumer asks for the next result, and each stage keeps a few items ahead in threads. Codecs and
ONNX Runtime release the interpreter lock, so decoding, the operator and encoding overlap in one process.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Bounds:
    """How far a stage may run ahead: a number of items, and bytes held by them."""

    items: int = 8
    bytes: int = 256 * 2**20


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], pool: Executor, bounds: Bounds, weigh: Callable[[T], int]
) -> Iterator[R]:
    """Maps in threads and yields results in the order of the items, never holding more than `bounds` ahead.

    An item heavier than the whole bound is taken alone: everything before it is handed on first, and nothing is pulled
    from upstream until it is done.
    """
    pending: deque[tuple[Future[R], int]] = deque()
    held = 0
    try:
        for item in items:
            weight = weigh(item)
            while pending and (len(pending) >= bounds.items or held + weight > bounds.bytes):
                held -= pending[0][1]
                yield pending.popleft()[0].result()  # no name here keeps a result alive while its taker works on it
            pending.append((pool.submit(_apply, function, [item]), weight))
            del item
            held += weight
            while pending and held > bounds.bytes:
                held -= pending[0][1]
                yield pending.popleft()[0].result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        for future, _ in pending:
            future.cancel()


def _apply(function: Callable[[T], R], box: list[T]) -> R:
    """Calls with the boxed item, which the executor then no longer holds: the function may let go of it half-way."""
    return function(box.pop())


@dataclass
class StageTimes:
    """Seconds spent in each stage, summed over threads."""

    seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + elapsed

    def timed(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        """Passes an iterator through, measuring what its producer takes."""
        while True:
            with self.measure(stage):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item
            del item
