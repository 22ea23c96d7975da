"""What a command costs: wall and CPU seconds from process start to exit, and the memory of its whole process tree."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SAMPLES_PER_S = 20
MIB = 2**20
CONSERVATOR = (str(Path(sys.executable).with_name("conservator")),)


@dataclass
class Cost:
    """What one command took. `cpu_s` counts every process below it that it waited for, user and system.

    Attributes:
        others: cores that everything else on the machine kept busy meanwhile; much above 0.1, and times mean little.
        driver_mib: the largest resident set that the command's first process ever had (the kernel's own high-water mark).
        worker_mib: the same of its largest worker.
        tree_mib: the largest sum of resident sets of all processes at one moment; pages that processes share, such as those
            of libraries, are counted once for each, so it errs upwards.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    others: float = 0.0
    driver_mib: float = 0.0
    worker_mib: float = 0.0
    tree_mib: float = 0.0
    output: str = field(default="", repr=False)


def measure(command: Sequence[str], *, memory: bool = False) -> Cost:
    """Runs a command to its end.

    Args:
        memory: watch the process tree; costs about 6 % of a core, so not where times are compared.

    Raises:
        RuntimeError: the command failed.
    """
    own, all_of_it, start = _seconds_of_children(), _busy_s(), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    watch = _MemoryWatch(process.pid) if memory else None
    output, _ = process.communicate()
    wall_s, cpu_s = time.perf_counter() - start, _seconds_of_children() - own
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{output[-3000:]}")
    cost = Cost(wall_s, cpu_s, max(0.0, _busy_s() - all_of_it - cpu_s) / wall_s, output=output)
    if watch is not None:
        cost.driver_mib, cost.worker_mib, cost.tree_mib = watch.stop()
    return cost


def _seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _busy_s() -> float:
    """CPU seconds that the whole machine has worked; stolen ones count, another guest used them."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


class _MemoryWatch:
    """Samples a process tree in a thread of its own."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._peaks: dict[int, float] = {}
        self._workers: set[int] = set()
        self._tree_mib = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(1 / SAMPLES_PER_S):
            with suppress(psutil.NoSuchProcess):
                self._tree_mib = max(self._tree_mib, sum(map(self._resident_mib, self._tree())))

    def _tree(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def _resident_mib(self, process: psutil.Process) -> float:
        with suppress(psutil.Error, OSError):
            now, peak = _resident_mib(process.pid)
            self._peaks[process.pid] = max(peak, self._peaks.get(process.pid, 0.0))
            if process.pid not in self._workers and any("spawn_main" in word for word in process.cmdline()):
                self._workers.add(process.pid)
            return now
        return 0.0

    def stop(self) -> tuple[float, float, float]:
        self._ended.set()
        self._thread.join()
        workers = max((self._peaks[pid] for pid in self._workers), default=0.0)
        return self._peaks.get(self._root.pid, 0.0), workers, self._tree_mib


def _resident_mib(pid: int) -> tuple[float, float]:
    """Resident set now and at its highest; the kernel keeps the latter, so that no peak falls between two samples."""
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    now, peak = (
        fields.get(name, "0 kB").split()[0] for name in ("VmRSS", "VmHWM")
    )  # a process that has ended has none
    return float(now) / 1024, float(peak) / 1024


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints columns: the first to the left, figures to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        print("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))))
    print(flush=True)


def verdict(what: str, figure: float, bar: float, *, at_most: bool) -> bool:
    """Prints a figure beside its bar; whether it is met."""
    met = figure <= bar if at_most else figure >= bar
    side, word = "most" if at_most else "least", "met" if met else "MISSED"
    print(f"{what}: {figure:.4g} (bar: at {side} {bar:g}) {word}", flush=True)
    return met


def describe(cost: Cost) -> str:
    busy = f"others kept {cost.others:.2f} of {os.cpu_count()} cores busy"
    return f"{cost.wall_s:.1f} s wall, {cost.cpu_s:.1f} s CPU ({busy})"
