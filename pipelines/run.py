"""One command's job over its plan, and what of it there is to do."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipelines.options import RunOptions
from transforms.errors import ConfigurationError
from transforms.ledger import LEDGER_FOLDER, is_done, read_ledgers
from transforms.storage import OutputStore, canonical, lies_in, list_files
from transforms.streaming import Bounds
from transforms.unit_pipeline import WorkerOptions
from transforms.units import Plan, Unit
from transforms.work import Job

# Beam's default runner tries a download first; its embedded one is asked for by name.
EMBEDDED_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


@dataclass(frozen=True)
class Run:
    """One command: a job over a plan into an output.

    Attributes:
        is_retry: it goes on with what another run has planned and noted in its manifest.
    """

    job: Job
    plan: Plan
    store: OutputStore
    options: RunOptions
    beam_flags: tuple[str, ...] = ()
    is_retry: bool = False

    @property
    def local_workers(self) -> int:
        """Worker processes on this machine; 0 where a runner was asked for that brings its own."""
        if any(word.partition("=")[0] == "--runner" for word in self.beam_flags):
            return 0
        return self.options.num_local_workers or self.options.default_local_workers(available_cores())

    def worker_options(self) -> WorkerOptions:
        bounds = Bounds(self.options.pictures_ahead, self.options.read_ahead_mb * 2**20)
        return WorkerOptions(self.options.io_threads, bounds)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def divide(run: Run) -> tuple[list[Unit], list[str]]:
    """Splits the plan into units to do and names of units that are done: same fingerprint, same input, outputs still there."""
    if run.options.overwrite:
        return list(run.plan.units), list(run.plan.settled)
    fingerprint = run.job.fingerprint()
    sizes = {name: file.size for name, file in list_files(run.store.root)}
    known = [unit.name for unit in run.plan.units if f"{LEDGER_FOLDER}/{unit.name}.json" in sizes]
    units = {unit.name: unit for unit in run.plan.units}
    ledgers = read_ledgers(run.store, known)
    done = {ledger["unit"] for ledger in ledgers if is_done(units[ledger["unit"]], ledger, fingerprint, sizes)}
    todo = [unit for unit in run.plan.units if unit.name not in done]
    return todo, [*sorted(done), *run.plan.settled]


def refuse_overlap(plan: Plan, store: OutputStore, *, writes_pictures: bool = True) -> None:
    """Results never overwrite what they came from, and are never taken for input by the next run.

    Raises:
        ConfigurationError: an input lies in the output, or the output in a folder of the input.
    """
    output = canonical(store.root)
    for source in sorted({url.rpartition("/")[0] for url in plan.input_urls}):
        if lies_in(canonical(source), output):
            raise ConfigurationError(
                f"the input {source!r} lies in the output {store.root!r}; results never overwrite their source, "
                "choose another output"
            )
    for folder in plan.folders:
        if writes_pictures and lies_in(output, canonical(folder)):
            raise ConfigurationError(
                f"the output {store.root!r} lies in the input {folder!r}; the next run would take results for input, "
                "choose an output beside it"
            )
