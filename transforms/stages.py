"""The Beam stages: units in, ledgers and one report out. Pixels never pass between stages.

units --> ProcessUnits --> Summarise --> WriteReport
earlier ledgers --> ReadSummaries --^

Types are declared by decorators: Beam does not read annotations that are strings.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.typehints import with_input_types, with_output_types
from apache_beam.utils import shared
from apache_beam.utils.windowed_value import WindowedValue

from transforms.ledger import read_ledger, read_ledgers
from transforms.local_pool import WorkerPool
from transforms.report import write_report
from transforms.storage import OutputStore
from transforms.summary import Summary
from transforms.unit_pipeline import WorkerOptions, process_unit
from transforms.units import Unit
from transforms.work import Job, Work

NAMESPACE = "conservator"


def count_summary(summary: Summary) -> None:
    """Hands a unit's figures to Beam's own metrics."""
    for name, value in summary.counts.items():
        Metrics.counter(NAMESPACE, name).inc(int(value))
    for stage, seconds in summary.timings_s.items():
        Metrics.distribution(NAMESPACE, f"unit_{stage}_msecs").update(int(seconds * 1000))


@dataclass
class LoadedWork:
    """The one work of a worker process, shared by its threads; the operator runs for one of them at a time."""

    work: Work
    lock: threading.Lock


@with_input_types(Unit)
@with_output_types(Summary)
class ProcessUnitFn(beam.DoFn):
    """Runs a whole unit inside one `process` call: for engines that bring their own workers."""

    def __init__(self, job: Job, store: OutputStore, options: WorkerOptions, handle: shared.Shared) -> None:
        self._job = job
        self._store = store
        self._options = options
        self._handle = handle

    def setup(self) -> None:
        self._loaded = self._handle.acquire(self._load, tag=self._job.fingerprint())

    def _load(self) -> LoadedWork:
        return LoadedWork(self._job.load(), threading.Lock())

    def process(self, unit: Unit) -> Iterator[Summary]:
        with self._loaded.lock:
            ledger = process_unit(unit, self._job, self._loaded.work, self._store, self._options)
        summary = Summary()
        summary.add_ledger(ledger.to_dict())
        count_summary(summary)
        yield summary

    def display_data(self) -> dict[str, Any]:
        return {"verb": self._job.verb, "output": self._store.root}


@with_input_types(Unit)
@with_output_types(Summary)
class FeedWorkerPoolFn(beam.DoFn):
    """Collects a bundle's units and runs them in worker processes of this machine."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._units: list[Unit] = []

    def start_bundle(self) -> None:
        self._units = []

    def process(self, unit: Unit) -> None:
        self._units.append(unit)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for summary in self._pool.run(self._units):
            count_summary(summary)
            yield WindowedValue(summary, GlobalWindow().max_timestamp(), [GlobalWindow()])

    def display_data(self) -> dict[str, Any]:
        return {"verb": self._pool.job.verb, "output": self._pool.store.root, "local_workers": self._pool.workers}


@dataclass
class ProcessUnits(beam.PTransform[beam.PCollection[Unit], beam.PCollection[Summary]]):
    """Units -> the summary of each committed unit.

    Attributes:
        local_workers: processes to start on this machine; 0 leaves the work to the engine's own workers.
    """

    job: Job
    store: OutputStore
    options: WorkerOptions
    local_workers: int = 0
    show_progress: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, units: beam.PCollection[Unit]) -> beam.PCollection[Summary]:
        return units | "Spread" >> beam.Reshuffle() | "RunUnit" >> beam.ParDo(self._stage())

    def _stage(self) -> beam.DoFn:
        if self.local_workers:
            return FeedWorkerPoolFn(
                WorkerPool(self.job, self.store, self.options, self.local_workers, self.show_progress)
            )
        return ProcessUnitFn(self.job, self.store, self.options, shared.Shared())


@with_input_types(str)
@with_output_types(Summary)
class ReadSummaryFn(beam.DoFn):
    """Unit name -> the summary of its ledger, for units that were done before this run."""

    def __init__(self, store: OutputStore) -> None:
        self._store = store

    def process(self, unit_name: str) -> Iterator[Summary]:
        ledger = read_ledger(self._store, unit_name)
        if ledger is not None:
            summary = Summary()
            summary.add_ledger(ledger)
            yield summary


@with_input_types(Summary)
@with_output_types(Summary)
class SummaryFn(beam.CombineFn):
    """Merges summaries exactly: any order and grouping gives the same figures."""

    def create_accumulator(self) -> Summary:
        return Summary()

    def add_input(self, accumulator: Summary, element: Summary) -> Summary:
        accumulator.merge(element)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Summary]) -> Summary:
        merged = Summary()
        for accumulator in accumulators:
            merged.merge(accumulator)
        return merged

    def extract_output(self, accumulator: Summary) -> Summary:
        return accumulator


@with_input_types(Summary, Iterable[str])
@with_output_types(str)
class WriteReportFn(beam.DoFn):
    """The whole run's summary -> the report, with the rows read from the ledgers."""

    def __init__(self, store: OutputStore, provenance: dict[str, Any], started_s: float | None) -> None:
        self._store = store
        self._provenance = provenance
        self._started_s = started_s

    def process(self, summary: Summary, unit_names: Iterable[str]) -> Iterator[str]:
        ledgers = read_ledgers(self._store, sorted(unit_names))
        job = dict(self._provenance)
        if self._started_s is not None:
            job["wall_s"] = time.time() - self._started_s
        write_report(self._store, summary, job, ledgers)
        yield self._store.url("report/index.html")


@dataclass
class SummariseAndReport(beam.PTransform[beam.PCollection[Summary], beam.PCollection[str]]):
    """Summaries of units -> the URL of the report.

    Attributes:
        provenance: what the report says about how the results came to be.
        unit_names: all units of the run, those done before included.
        started_s: when the run began, if this run made all of the results; without it the report states no rate.
    """

    store: OutputStore
    provenance: dict[str, Any]
    unit_names: beam.pvalue.AsIter
    started_s: float | None = None

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, summaries: beam.PCollection[Summary]) -> beam.PCollection[str]:
        return (
            summaries
            | "Summarise" >> beam.CombineGlobally(SummaryFn())
            | "WriteReport" >> beam.ParDo(WriteReportFn(self.store, self.provenance, self.started_s), self.unit_names)
        )
