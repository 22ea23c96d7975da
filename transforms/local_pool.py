"""Worker processes on one machine, fed unit by unit.

Beam's own local runner splits a bundle into fixed halves, does not retry, hangs when a leaf's worker is killed and
leaves orphans behind. Here every free worker takes the next unit; when a worker dies the pool is started anew and the
units under way are tried again; a worker whose driver is gone ends itself within a second.

The workers of the first round may begin before the pool runs (`workers_ahead`): its driver has much to import.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from transforms.allocator import give_back_freed_memory
from transforms.errors import ConservatorError, UnitError
from transforms.progress import ProgressBar
from transforms.storage import OutputStore
from transforms.summary import Summary
from transforms.unit_pipeline import WorkerOptions, process_unit
from transforms.units import Unit
from transforms.work import Job, Work

MAX_ATTEMPTS = 3
ORPHAN_CHECK_S = 0.5
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerPool:
    """Runs units in `workers` fresh (spawned) processes; every one loads the job once."""

    job: Job
    store: OutputStore
    options: WorkerOptions
    workers: int
    show_progress: bool = True

    def run(self, units: Sequence[Unit]) -> Iterator[Summary]:
        """Yields the summary of each unit as it is committed, in any order.

        Raises:
            UnitError: a unit's worker died, or met storage trouble, `MAX_ATTEMPTS` times.
        """
        attempts: Counter[str] = Counter()
        waiting = _longest_first(units)
        barren_rounds = 0
        with ProgressBar(units, enabled=self.show_progress) as bar:
            while waiting:
                lost: list[tuple[Unit, str]] = []
                processes = _ahead.pop(self._name, None) or _Processes(self, len(waiting))
                with _Events(processes, bar) as events:
                    for unit, outcome in processes.run(waiting):
                        if isinstance(outcome, Summary):
                            bar.unit_done(unit)
                            yield outcome
                        else:
                            lost.append((unit, outcome))
                if processes.begun:  # an engine that hands over the units in several bundles asks for the others next
                    _ahead[self._name] = processes
                barren_rounds = barren_rounds + 1 if len(lost) == len(waiting) else 0
                if barren_rounds == MAX_ATTEMPTS:
                    raise UnitError(
                        f"workers failed {MAX_ATTEMPTS} times before any unit was done; the last time {lost[0][1]}"
                    )
                waiting = [unit for unit, trouble in lost if _may_retry(unit, trouble, attempts, events)]

    @property
    def _name(self) -> tuple[str, str]:
        """What tells it from other pools of this process, and is the same after a pickle."""
        return self.job.fingerprint(), self.store.root


class _Processes:
    """One life of a pool's processes."""

    def __init__(self, pool: WorkerPool, units: int) -> None:
        context = multiprocessing.get_context("spawn")
        # A queue of its own for each life: a worker killed inside `put` leaves the old one locked.
        self.queue = context.SimpleQueue()
        self.started: set[str] = set()  # names of units that a worker has begun
        self.begun: dict[str, Future[Summary]] = {}  # units that no `run` has asked for yet
        setup = (pool.job, pool.store, pool.options, self.queue, os.getpid())
        count = min(pool.workers, units)
        self._executor = ProcessPoolExecutor(count, context, initializer=_start_worker, initargs=setup)

    def begin(self, units: Sequence[Unit]) -> None:
        """Hands the units to the workers, in this order; `run` waits for them."""
        with suppress(BrokenProcessPool):  # `run` says of which units that is the trouble
            for unit in units:
                self.begun[unit.name] = self._executor.submit(_run_unit, unit)

    def run(self, units: Sequence[Unit]) -> Iterator[tuple[Unit, Summary | str]]:
        """Every unit's summary, or what kept it from being done. The workers end when nothing is left that was begun."""
        died = "its worker process died (killed, or out of memory)"
        try:
            futures: dict[Future[Summary], Unit] = {}
            for unit in units:
                try:
                    begun = self.begun.pop(unit.name) if unit.name in self.begun else None
                    futures[begun or self._executor.submit(_run_unit, unit)] = unit
                except BrokenProcessPool:
                    yield unit, died
            for future in as_completed(futures):
                unit = futures.pop(future)
                try:
                    yield unit, future.result()
                except BrokenProcessPool:
                    yield unit, died
                except ConservatorError:
                    raise
                except Exception as error:  # noqa: BLE001 - the stores' clients have errors of all kinds; tried again
                    yield unit, f"{type(error).__name__}: {error}"
        finally:
            if not self.begun:
                self.stop()

    def stop(self) -> None:
        """Ends them, whatever they do."""
        processes = list((self._executor._processes or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()


_ahead: dict[tuple[str, str], _Processes] = {}  # processes at work, until their pool takes them


@contextmanager
def workers_ahead(pool: WorkerPool, units: Sequence[Unit]) -> Iterator[None]:
    """While it is open, processes load the pool's job and go through the units. The pool takes them, with what they have done,
    when it runs, also as a copy that came through a pickle, once; if it never does, they end."""
    if min(pool.workers, len(units)) < 1:
        yield
        return
    name = pool._name
    _ahead[name] = processes = _Processes(pool, len(units))
    try:
        processes.begin(_longest_first(units))
        yield
    finally:
        _ahead.pop(name, None)
        processes.stop()


def _longest_first(units: Sequence[Unit]) -> list[Unit]:
    """A long unit that begins last would keep one worker busy while the others have nothing left."""
    return sorted(units, key=_bytes_in, reverse=True)


def _bytes_in(unit: Unit) -> int:
    return unit.bytes_in


def _may_retry(unit: Unit, trouble: str, attempts: Counter[str], events: _Events) -> bool:
    if unit.name not in events.started:
        return True  # it never began: another unit's worker broke the pool
    attempts[unit.name] += 1
    if attempts[unit.name] >= MAX_ATTEMPTS:
        raise UnitError(
            f"unit {unit.name!r} failed {MAX_ATTEMPTS} times; the last time {trouble}. Done units are kept: run again"
        )
    _logger.warning("unit %s: %s; trying again", unit.name, trouble)
    time.sleep(min(2.0 ** attempts[unit.name] / 4, 5.0))
    return True


class _Events:
    """What workers tell the driver: ("unit", name) when one begins, ("progress", records, bytes) on the way."""

    def __init__(self, processes: _Processes, bar: ProgressBar) -> None:
        self.queue, self.started = processes.queue, processes.started
        self._bar = bar
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        while (event := self.queue.get()) is not None:
            if event[0] == "unit":
                self.started.add(event[1])
            else:
                self._bar.advance(event[1], event[2])

    def __enter__(self) -> _Events:
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        # The message may get stuck behind a dead worker's lock; the threads are daemons, and the next round has its own queue.
        threading.Thread(target=self.queue.put, args=(None,), daemon=True).start()
        self._listener.join(1.0)


@dataclass
class _Worker:
    """The state of one worker process."""

    job: Job
    work: Work
    store: OutputStore
    options: WorkerOptions
    queue: Any


_worker: _Worker | None = None  # one per worker process, set once by the pool's initializer


def _start_worker(job: Job, store: OutputStore, options: WorkerOptions, queue: Any, driver: int) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    threading.Thread(target=_end_with_parent, args=(driver,), daemon=True).start()
    _worker = _Worker(job, job.load(), store, options, queue)
    gc.freeze()  # what is there now stays: it need not be looked through again and again


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_S)
    os._exit(1)


def _run_unit(unit: Unit) -> Summary:
    worker = _worker
    assert worker is not None, "the pool's initializer has not run"
    worker.queue.put(("unit", unit.name))
    progress = _Throttled(worker.queue)
    ledger = process_unit(unit, worker.job, worker.work, worker.store, worker.options, progress)
    progress.send()
    give_back_freed_memory()
    summary = Summary()
    summary.add_ledger(ledger.to_dict())
    return summary


class _Throttled:
    """Sends progress a few times a second at most; called from several threads."""

    INTERVAL_S = 0.2

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._records = self._bytes = 0
        self._sent_s = time.monotonic()

    def __call__(self, records: int, input_bytes: int) -> None:
        with self._lock:
            self._records += records
            self._bytes += input_bytes
            due = time.monotonic() - self._sent_s >= self.INTERVAL_S
        if due:
            self.send()

    def send(self) -> None:
        """Reports what has not been reported yet."""
        with self._lock:
            report = ("progress", self._records, self._bytes)
            self._records = self._bytes = 0
            self._sent_s = time.monotonic()
            self._queue.put(report)
