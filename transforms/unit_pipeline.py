"""The in-worker pipeline: read -> decode -> batch -> operate -> measure -> encode -> write, then commit.

Memory depends on the bounds and on the largest picture, never on the shard. The commit order is outputs, dead letters,
samples, ledger: whatever moment a worker dies at, a unit without its ledger is done again and gives the same bytes.
A retry changes the dead letters last: it can be repeated until then.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from transforms.dead_letters import Failure, failed_name, read_dead_letters, write_dead_letters
from transforms.earlier_outputs import EarlierOutputs
from transforms.errors import Reason, RecordError, UnitError
from transforms.formats.folder import read_members
from transforms.formats.paired import read_paired_tars
from transforms.formats.shards import read_shard
from transforms.ledger import Ledger, ledger_name, read_ledger, samples_name
from transforms.ledger_rows import RecordRows
from transforms.ordered_sinks import open_sink
from transforms.ordered_slices import joined
from transforms.picture_size import estimate_decoded_bytes
from transforms.record import IMAGE_EXTENSIONS, Record
from transforms.references import read_references
from transforms.samples import SampleKeeper
from transforms.sinks import LOOSE_KINDS, SHARD_KINDS, Sink, SinkPlan
from transforms.storage import OutputStore
from transforms.streaming import Bounds, StageTimes, ordered_map
from transforms.units import Unit
from transforms.work import PARTS, Finished, Item, Job, SinkKind, Work

T = TypeVar("T")
_RESULT_FIELDS = tuple(f"restored.{ending}" for ending in sorted(IMAGE_EXTENSIONS))
# (records finished, input bytes read) since the last call
ProgressListener = Callable[[int, int], None]


def ignore_progress(records: int, input_bytes: int) -> None:
    """The listener of those who do not watch."""


@dataclass(frozen=True)
class WorkerOptions:
    """How one worker runs; nothing here changes the output bytes."""

    io_threads: int = 2
    bounds: Bounds = field(default_factory=Bounds)


def read_unit(unit: Unit, only: Container[int] | None = None) -> Iterator[Record]:
    """The records of a unit, in order; with `only`, at least those at these positions."""
    url = unit.files[0].url
    if unit.kind == "folder":
        return read_members(unit.members)
    if unit.kind == "paired_tars":
        return read_paired_tars(url, unit.files[1].url)
    if unit.kind == "dead_letters":
        return read_dead_letters(url)
    if unit.kind == "references":
        return read_references(url, only)
    return (replace(record, shard=unit.name) for record in read_shard(url))


def process_unit(
    unit: Unit,
    job: Job,
    work: Work,
    store: OutputStore,
    options: WorkerOptions,
    progress: ProgressListener = ignore_progress,
) -> Ledger:
    """Runs one unit and commits it.

    Raises:
        OSError: storage trouble, for the engine to retry. Nothing of the unit is then half-written under a final name.
    """
    start = time.perf_counter()
    counters_before = dict(work.counters())
    retried = _ledger_to_extend(unit, job, store) if unit.kind == "dead_letters" else None
    plan = _sink_plan(unit, job, retried)
    ledger = Ledger(unit.name, job.verb, job.fingerprint(), retried["input"] if retried else unit.identity(), plan.kind)
    keeper = SampleKeeper()
    earlier = EarlierOutputs(store, unit.name, plan.plain_name) if retried is None else None
    if earlier is not None:
        earlier.begin()
    with store.scratch() as folder, closing(open_sink(plan, store, folder, retried)) as sink:
        run = UnitRun(work, options, job.batch_bytes, progress, folder)
        totals = _consume(run, _records(unit, retried), sink, ledger, keeper)
        with run.times.measure("write"):
            if earlier is not None and plan.kind in SHARD_KINDS:
                earlier.announce(sink.names())
            ledger.outputs = sink.publish()
        if earlier is not None:
            earlier.remove_replaced([output["path"] for output in ledger.outputs], _loose_keys(plan.kind, ledger))
        if plan.kind in LOOSE_KINDS:
            store.remove(_outdated_names(unit, plan.kind, run.failures))
        ledger.dead_letters = [run.failures[index].to_json() for index in sorted(run.failures)]
        if retried is None:
            _publish_dead_letters(unit, store, folder, run.failures)
        if retried is None and keeper.write(folder / "samples.tar"):
            store.publish(folder / "samples.tar", samples_name(unit.name))
            ledger.samples = samples_name(unit.name)
        totals["bytes_in"] = unit.bytes_in
        totals["bytes_out"] = sum(output["bytes"] for output in ledger.outputs)
        totals["dead_letters"] = len(run.failures)
        totals["records_in"] += len(run.failures)
        for name, value in work.counters().items():
            totals[name] += value - counters_before.get(name, 0)
        ledger.counts = dict(totals)
        ledger.timings_s = {"wall": time.perf_counter() - start} | run.times.seconds
        if retried is not None:
            _add_earlier_results(ledger, retried)
        store.write(ledger_name(unit.name), ledger.to_json())
        if earlier is not None:
            earlier.forget()
        if retried is not None:  # until here they are the only copy of what the shard did not have
            _publish_dead_letters(unit, store, folder, run.failures)
    return ledger


def _sink_plan(unit: Unit, job: Job, retried: Mapping[str, Any] | None) -> SinkPlan:
    kind = retried["sink"] if retried else job.sink_kind(unit)
    return SinkPlan(kind, unit.name, job.layout, ordered=unit.kind == "references", about=job.describe())


def _loose_keys(sink_kind: SinkKind, ledger: Ledger) -> set[str] | None:
    """Keys, in all the places where they may stand, of the records that loose files were written of."""
    if sink_kind != "folder":
        return None
    keys = {row["key"] for row in ledger.records}
    return keys | {f"{part}/{key}" for part in PARTS for key in keys}


def _ledger_to_extend(unit: Unit, job: Job, store: OutputStore) -> dict[str, Any]:
    ledger = read_ledger(store, unit.name)
    if ledger is None or ledger["fingerprint"] != job.fingerprint():
        trouble = "can't be read" if ledger is None else "is of another version, model or recipe"
        raise UnitError(f"the ledger of unit {unit.name!r} {trouble}: run the first command again instead of 'retry'")
    return ledger


def _records(unit: Unit, retried: Mapping[str, Any] | None) -> Iterator[Record]:
    """The records to process. Letters that the ledger does not know went through in a retry that died after its ledger."""
    if retried is None:
        return read_unit(unit)
    open_letters = {letter["index"] for letter in retried["dead_letters"]}
    return (record for record in read_unit(unit) if record.index in open_letters)


def _consume(run: UnitRun, records: Iterator[Record], sink: Sink, ledger: Ledger, keeper: SampleKeeper) -> Counter[str]:
    totals: Counter[str] = Counter(records_in=0, records_out=0, pixels_in=0, pixels_out=0)
    tallies: Counter[str] = Counter()
    for finished in run.results(records):
        try:
            with run.times.measure("write"):
                sink.write(finished)
        except RecordError as error:  # it does not fit to the records before it
            run.failures[finished.index] = failure_of(finished.key, finished.index, "write", error, error.reason)
            continue
        totals["records_in"] += 1
        totals["records_out"] += len(finished.rows)
        totals["pixels_in"] += finished.pixels_in
        totals["pixels_out"] += finished.pixels_out
        totals.update({f"rejected_{reason}": count for reason, count in finished.rejected.items()})
        if finished.part:
            totals[f"records_{finished.part}"] += len(finished.rows)
        ledger.records.extend(finished.rows)
        for sample in finished.samples:
            keeper.offer(sample)
        tallies.update(finished.tallies)
        del finished
    ledger.tallies = dict(tallies)
    return totals


def _outdated_names(unit: Unit, sink_kind: SinkKind, failures: Mapping[int, Failure]) -> set[str]:
    """Loose results that an earlier run may have made of records that fail now: they would pass for this run's."""
    prefix = f"{unit.name}/" if sink_kind == "subfolder" else ""
    keys = {failure.key for failure in failures.values()}
    names = {f"{prefix}{key}.{field}" for key in keys for field in ("json", *_RESULT_FIELDS)}
    return names | {member.name for member in unit.members if member.key in keys and member.field in IMAGE_EXTENSIONS}


def _publish_dead_letters(unit: Unit, store: OutputStore, folder: Path, failures: Mapping[int, Failure]) -> None:
    if not failures:
        store.remove([failed_name(unit.name)])  # of an earlier run
        return
    write_dead_letters(folder / "failed.tar", read_unit(unit, failures), failures)
    store.publish(folder / "failed.tar", failed_name(unit.name))


def _add_earlier_results(ledger: Ledger, earlier: Mapping[str, Any]) -> None:
    """Joins the records of a retry with those that had gone through before."""
    ledger.records = RecordRows(sorted([*earlier["records"], *ledger.records], key=_row_index))
    ledger.samples = earlier["samples"]
    counts = Counter(earlier["counts"])
    counts.update(
        {name: value for name, value in ledger.counts.items() if name not in ("records_in", "bytes_in", "bytes_out")}
    )
    counts["dead_letters"] = ledger.counts["dead_letters"]
    counts["bytes_out"] = ledger.counts["bytes_out"]
    ledger.counts = dict(counts)
    ledger.tallies = dict(Counter(earlier.get("tallies", {})) + Counter(ledger.tallies))
    ledger.timings_s = {
        name: ledger.timings_s.get(name, 0.0) + earlier["timings_s"].get(name, 0.0)
        for name in ledger.timings_s | earlier["timings_s"]
    }


def _row_index(row: Mapping[str, Any]) -> int:
    return int(row["index"])


@dataclass
class UnitRun:
    """The stages of one unit. `failures` fills while `results` is consumed; it is complete when `results` ends.

    Attributes:
        folder: for what does not stay in memory.
    """

    work: Work
    options: WorkerOptions
    batch_bytes: int
    progress: ProgressListener
    folder: Path
    times: StageTimes = field(default_factory=StageTimes)
    failures: dict[int, Failure] = field(default_factory=dict)
    _input_bytes: dict[int, int] = field(default_factory=dict)  # of the records under way

    def results(self, records: Iterator[Record]) -> Iterator[Finished]:
        """Streams the finished records in order."""
        with ThreadPoolExecutor(self.options.io_threads) as pool:
            bounds = self.options.bounds
            decoded = ordered_map(self._decode, self.times.timed("read", records), pool, bounds, _decoded_weight)
            operated = self._operate(self._survivors(decoded))
            for finished in self._survivors(ordered_map(self._finish, operated, pool, bounds, _result_weight)):
                yield finished
                del finished

    def _survivors(self, outcomes: Iterator[T | Failure]) -> Iterator[T]:
        """Sorts failures out of the stream, in the consumer's thread."""
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                self._bury(outcome)
            else:
                yield outcome
            del outcome

    def _bury(self, failure: Failure) -> None:
        self.failures[failure.index] = failure
        self._count(failure.index)

    def _count(self, index: int) -> None:
        self.progress(1, self._input_bytes.pop(index, 0))

    def _decode(self, record: Record) -> Item | Failure:
        self._input_bytes[record.index] = sum(len(data) for data in record.fields.values())
        with self.times.measure("decode"):
            try:
                if record.error is not None:
                    raise record.error
                return self.work.decode(record)
            except Exception as error:  # noqa: BLE001 - every failure of one record becomes a dead letter
                return failure_of(record.key, record.index, "decode", error, Reason.CORRUPT)

    def _operate(self, items: Iterator[Item]) -> Iterator[tuple[Item, Any]]:
        for batch in _batches(items, self.batch_bytes):
            with self.times.measure("operate"):
                outcomes = list(self._bisect(batch))
            batch.clear()
            outcomes.reverse()
            while outcomes:
                if isinstance(outcomes[-1][1], Failure):
                    self._bury(outcomes.pop()[1])
                else:
                    yield outcomes.pop()  # no name here keeps the picture alive while it is written

    def _bisect(self, batch: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
        """Runs a batch; one that fails is halved until only the poisoned records fail."""
        try:
            yield from zip(batch, self.work.operate(batch), strict=True)
        except Exception as error:  # noqa: BLE001 - as above; a single record keeps the blame
            if len(batch) == 1:
                yield batch[0], failure_of(batch[0].key, batch[0].index, "operate", error, Reason.OPERATOR_FAILED)
                return
            middle = len(batch) // 2
            yield from self._bisect(batch[:middle])
            yield from self._bisect(batch[middle:])

    def _finish(self, outcome: tuple[Item, Any]) -> Finished | Failure:
        item, result = outcome
        record = Finished(item.key, item.index, [], [])
        for number, piece in enumerate(self._slices(item, result)):
            if isinstance(piece, Failure):
                return piece  # nothing of the record has left this function
            if number == 0:
                record = piece
            else:
                with self.times.measure("write"):  # trouble with the disk is no fault of the record: it is raised
                    record = joined(record, piece, self.folder)
            del piece  # one slice at a time
        self._count(item.index)
        return record

    def _slices(self, item: Item, result: Any) -> Iterator[Finished | Failure]:
        try:
            made = self.work.finish(item, result, self.times)
            if isinstance(made, Finished):
                yield made
            else:
                yield from made
        except Exception as error:  # noqa: BLE001 - as above
            yield failure_of(item.key, item.index, "encode", error, Reason.ENCODE_FAILED)


def failure_of(key: str, index: int, stage: str, error: Exception, otherwise: Reason) -> Failure:
    """The dead letter for an exception; one without a reason of its own gets the stage's."""
    if isinstance(error, RecordError):
        return Failure(key, index, stage, error.reason, error.detail)
    if isinstance(error, MemoryError):
        return Failure(key, index, stage, Reason.OUT_OF_MEMORY, str(error) or "out of memory")
    return Failure(key, index, stage, otherwise, f"{type(error).__name__}: {error}")


def _batches(items: Iterator[Item], batch_bytes: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    held = 0
    for item in items:
        batch.append(item)
        held += item.bytes_held
        del item
        if held >= batch_bytes:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _decoded_weight(record: Record) -> int:
    return sum(len(data) + estimate_decoded_bytes(data, field) for field, data in record.fields.items())


def _result_weight(outcome: tuple[Item, Any]) -> int:
    return 2 * outcome[0].bytes_held
