"""One unit from its records to its committed shard: order, failures, bisection, dead letters, retry."""

from __future__ import annotations

import json
import tarfile
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transforms.dead_letters import failed_name, read_dead_letters
from transforms.errors import Reason, RecordError, UnitError
from transforms.formats.arrow import EqualShapes
from transforms.formats.tar import TarWriter, read_tar, write_record
from transforms.ledger import is_done, ledger_name, read_ledger
from transforms.ordered_sinks import open_sink
from transforms.raw_arrays import npy_bytes
from transforms.record import Record
from transforms.sinks import SinkPlan
from transforms.storage import OutputStore, describe_file, list_files
from transforms.streaming import StageTimes
from transforms.unit_pipeline import WorkerOptions, process_unit
from transforms.units import Unit, plan_units
from transforms.work import Finished, Item, ShardLayout, SinkKind


@dataclass(frozen=True)
class UppercaseJob:
    """Turns text into capitals; some texts are poison in one stage or another."""

    poison: tuple[bytes, ...] = ()
    batch_bytes: int = 40
    verb: str = "restore"
    layout: ShardLayout = field(default_factory=ShardLayout)

    def load(self) -> UppercaseWork:
        return UppercaseWork(self)

    def sink_kind(self, unit: Unit) -> SinkKind:
        return "tar" if unit.kind == "tar" else "folder"

    def fingerprint(self) -> str:
        return "f" * 64

    def describe(self) -> dict[str, Any]:
        return {}


class UppercaseWork:
    def __init__(self, job: UppercaseJob) -> None:
        self.job = job
        self.batches: list[list[str]] = []

    def decode(self, record: Record) -> Item:
        text = record.fields["txt"]
        if text == b"undecodable":
            raise RecordError(Reason.CORRUPT, "no text")
        return Item(record.key, record.index, len(text), text)

    def operate(self, items: Sequence[Item]) -> list[bytes]:
        self.batches.append([item.key for item in items])
        if any(item.payload in self.job.poison for item in items):
            raise ValueError("poison in the batch")
        if any(item.payload == b"huge" for item in items):
            raise MemoryError
        return [item.payload.upper() for item in items]

    def finish(self, item: Item, result: bytes, times: StageTimes) -> Finished:
        if result == b"UNWRITABLE":
            raise RuntimeError("no such format")
        row = {"key": item.key, "index": item.index, "metrics": {}}
        return Finished(item.key, item.index, [(f"{item.key}.txt", result)], [row], 1, 1)

    def counters(self) -> Mapping[str, int]:
        return {"calls": len(self.batches)}


def shard_of(folder: Path, texts: Sequence[bytes]) -> Unit:
    with TarWriter(folder / "in.tar") as shard:
        for number, text in enumerate(texts):
            write_record(shard, f"{number:03d}", {"txt": text})
    return plan_units(str(folder / "in.tar")).units[0]


def run(unit: Unit, store: OutputStore, job: UppercaseJob) -> tuple[UppercaseWork, dict[str, Any]]:
    work = job.load()
    process_unit(unit, job, work, store, WorkerOptions())
    ledger = read_ledger(store, unit.name)
    assert ledger is not None
    return work, ledger


def contents(store: OutputStore, name: str) -> dict[str, bytes]:
    return {record.key: record.fields["txt"] for record in read_tar(store.url(name))}


@pytest.fixture
def store(tmp_path: Path) -> OutputStore:
    return OutputStore(str(tmp_path / "out"))


def test_records_come_out_in_order_with_a_true_ledger(tmp_path: Path, store: OutputStore) -> None:
    texts = [f"text {n}".encode() for n in range(57)]
    unit = shard_of(tmp_path, texts)
    _, ledger = run(unit, store, UppercaseJob())
    assert list(contents(store, "in.tar").items()) == [(f"{n:03d}", text.upper()) for n, text in enumerate(texts)]
    assert ledger["counts"]["records_in"] == ledger["counts"]["records_out"] == 57
    assert ledger["outputs"][0]["bytes"] == describe_file(store.url("in.tar")).size
    sizes = {name: file.size for name, file in list_files(store.root)}
    assert is_done(unit, ledger, "f" * 64, sizes)
    assert not is_done(unit, ledger, "e" * 64, sizes)
    assert not is_done(unit, ledger, "f" * 64, sizes | {"in.tar": 1})
    assert not is_done(unit, ledger, "f" * 64, {})


def test_a_poisoned_record_takes_no_neighbour_along(tmp_path: Path, store: OutputStore) -> None:
    texts = [f"text {n}".encode() for n in range(32)]
    texts[13] = b"poison"
    unit = shard_of(tmp_path, texts)
    work, ledger = run(unit, store, UppercaseJob(poison=(b"poison",), batch_bytes=10**6))
    assert len(contents(store, "in.tar")) == 31
    assert [(d["key"], d["reason"], d["stage"]) for d in ledger["dead_letters"]] == [
        ("013", "operator_failed", "operate")
    ]
    assert len(work.batches) == 1 + 2 * 5  # one batch of 32 is halved five times


def test_every_stage_makes_dead_letters_of_its_failures(tmp_path: Path, store: OutputStore) -> None:
    unit = shard_of(tmp_path, [b"good", b"undecodable", b"huge", b"unwritable", b"fine"])
    _, ledger = run(unit, store, UppercaseJob())
    assert contents(store, "in.tar") == {"000": b"GOOD", "004": b"FINE"}
    assert [(d["key"], d["reason"]) for d in ledger["dead_letters"]] == [
        ("001", "corrupt"), ("002", "out_of_memory"), ("003", "encode_failed"),
    ]  # fmt: skip
    letters = {record.key: record.fields["txt"] for record in read_dead_letters(store.url(failed_name("in")))}
    assert letters == {"001": b"undecodable", "002": b"huge", "003": b"unwritable"}
    with tarfile.open(store.path(failed_name("in"))) as archive:
        described = json.loads(archive.extractfile("000001/001.failure.json").read())  # type: ignore[union-attr]
    assert described["reason"] == "corrupt"


def test_a_unit_whose_records_all_fail_is_still_a_unit(tmp_path: Path, store: OutputStore) -> None:
    _, ledger = run(shard_of(tmp_path, [b"undecodable"] * 3), store, UppercaseJob())
    assert contents(store, "in.tar") == {}
    assert ledger["counts"]["dead_letters"] == 3


def test_retry_puts_recovered_records_where_they_belong(tmp_path: Path, store: OutputStore) -> None:
    texts = [b"a", b"poison", b"c", b"poison2", b"e"]
    unit = shard_of(tmp_path, texts)
    whole = OutputStore(str(tmp_path / "whole"))
    run(unit, whole, UppercaseJob())
    run(unit, store, UppercaseJob(poison=(b"poison", b"poison2")))
    assert len(contents(store, "in.tar")) == 3

    def retry(job: UppercaseJob) -> dict[str, Any]:
        letters = Unit("in", "dead_letters", (describe_file(store.url(failed_name("in"))),))
        return run(letters, store, job)[1]

    ledger = retry(UppercaseJob(poison=(b"poison2",)))
    assert [(d["key"], d["index"]) for d in ledger["dead_letters"]] == [("003", 3)]
    ledger = retry(UppercaseJob())
    assert store.read("in.tar") == whole.read("in.tar")
    assert ledger["dead_letters"] == []
    assert [row["index"] for row in ledger["records"]] == [0, 1, 2, 3, 4]
    assert (ledger["counts"]["records_in"], ledger["counts"]["records_out"], ledger["counts"]["dead_letters"]) == (
        5,
        5,
        0,
    )
    assert is_done(unit, ledger, "f" * 64, {name: file.size for name, file in list_files(store.root)})


def test_a_retry_that_died_before_its_ledger_adds_nothing_twice(tmp_path: Path, store: OutputStore) -> None:
    unit = shard_of(tmp_path, [b"a", b"poison", b"c"])
    run(unit, store, UppercaseJob(poison=(b"poison",)))
    old_ledger, old_letters = store.read("_ledger/in.json"), store.read(failed_name("in"))
    assert old_ledger is not None
    assert old_letters is not None
    letters = Unit("in", "dead_letters", (describe_file(store.url(failed_name("in"))),))
    run(letters, store, UppercaseJob())
    finished = store.read("in.tar")
    store.write("_ledger/in.json", old_ledger)  # as if the retry had been killed after publishing its shard
    store.write(failed_name("in"), old_letters)
    run(letters, store, UppercaseJob())
    assert store.read("in.tar") == finished


def test_an_older_ledger_does_not_vouch_for_newer_bytes(tmp_path: Path, store: OutputStore) -> None:
    """A run that is killed after publishing its shard leaves no ledger, not that of the run before."""
    unit = shard_of(tmp_path, [b"a", b"b"])
    run(unit, store, UppercaseJob())

    class KilledError(Exception):
        pass

    class DyingStore(OutputStore):
        def write(self, name: str, data: bytes) -> None:
            if name == ledger_name("in"):
                raise KilledError
            super().write(name, data)

    with pytest.raises(KilledError):
        process_unit(unit, UppercaseJob(), UppercaseJob().load(), DyingStore(store.root), WorkerOptions())
    assert store.read("in.tar") is not None
    assert read_ledger(store, "in") is None


def test_a_retry_never_mixes_two_jobs(tmp_path: Path, store: OutputStore) -> None:
    unit = shard_of(tmp_path, [b"a", b"poison"])
    run(unit, store, UppercaseJob(poison=(b"poison",)))
    ledger = json.loads(store.read("_ledger/in.json") or b"")
    store.write("_ledger/in.json", json.dumps(ledger | {"fingerprint": "another"}).encode())
    letters = Unit("in", "dead_letters", (describe_file(store.url(failed_name("in"))),))
    with pytest.raises(UnitError, match="another version, model or recipe"):
        run(letters, store, UppercaseJob())


def test_a_retry_refuses_a_shard_that_has_lost_records(tmp_path: Path, store: OutputStore) -> None:
    unit = shard_of(tmp_path, [b"a", b"poison", b"c"])
    run(unit, store, UppercaseJob(poison=(b"poison",)))
    with TarWriter(Path(store.path("in.tar"))) as shard:
        write_record(shard, "000", {"txt": b"A"})
    letters = Unit("in", "dead_letters", (describe_file(store.url(failed_name("in"))),))
    with pytest.raises(UnitError, match=r"lacks 1 records .* '002'"):
        run(letters, store, UppercaseJob())


def test_damaged_dead_letters_are_not_thrown_away(tmp_path: Path, store: OutputStore) -> None:
    run(shard_of(tmp_path, [b"poison" * 2000, b"b", b"poison" * 2000]), store, UppercaseJob(poison=(b"poison" * 2000,)))
    whole = store.read(failed_name("in")) or b""
    store.write(failed_name("in"), whole[:15_000])
    letters = Unit("in", "dead_letters", (describe_file(store.url(failed_name("in"))),))
    with pytest.raises(UnitError, match="damaged"):
        run(letters, store, UppercaseJob())
    assert store.read(failed_name("in")) == whole[:15_000]


def test_loose_files_are_mirrored(tmp_path: Path, store: OutputStore) -> None:
    """Text files are no pictures, so a unit is made by hand here; pictures go through the command line in other tests."""
    from transforms.units import Member

    members = []
    for name in ("x/a", "x/b", "y/a"):
        path = tmp_path / "in" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        members.append(Member(name, "txt", f"{name}.txt", describe_file(str(path))))
    unit = Unit("files-first", "folder", tuple(member.file for member in members), tuple(members))
    _, ledger = run(unit, store, UppercaseJob())
    assert store.read("x/a.txt") == b"X/A"
    assert sorted(output["path"] for output in ledger["outputs"]) == ["x/a.txt", "x/b.txt", "y/a.txt"]


# ---------------------------------------------------------------- records in slices


@dataclass(frozen=True)
class WordsJob(UppercaseJob):
    """Makes an output record of each word; `words_each` of them make a slice, 0: all at once, and no slices."""

    words_each: int = 1

    def load(self) -> WordsWork:
        return WordsWork(self)


class WordsWork(UppercaseWork):
    def __init__(self, job: WordsJob) -> None:
        super().__init__(job)
        self._words_each = job.words_each
        self.most_alive = 0

    def finish(self, item: Item, result: bytes, times: StageTimes) -> Finished | Iterator[Finished]:  # type: ignore[override]
        words = list(enumerate(result.split()))
        return self._slices(item, words) if self._words_each else self._slice(item, words)

    def _slices(self, item: Item, words: list[tuple[int, bytes]]) -> Iterator[Finished]:
        yielded: list[weakref.ref[Finished]] = []
        for start in range(0, len(words), self._words_each):
            made = self._slice(item, words[start : start + self._words_each])
            yielded.append(weakref.ref(made))
            self.most_alive = max(self.most_alive, sum(each() is not None for each in yielded))
            yield made

    def _slice(self, item: Item, words: list[tuple[int, bytes]]) -> Finished:
        if any(word == b"UNWRITABLE" for _, word in words):
            raise RuntimeError("no such format")
        rows = [{"key": f"{item.key}-{n}", "index": item.index, "metrics": {"length": len(word)}} for n, word in words]
        outputs = [(f"{item.key}-{n}.txt", word) for n, word in words]
        made = Finished(item.key, item.index, outputs, rows, int(words[0][0] == 0), len(words))
        made.rejected, made.tallies = Counter(short=1), Counter(words=len(words))
        return made


@pytest.mark.parametrize("words_each", [1, 2])
def test_a_record_in_slices_is_one_record(tmp_path: Path, store: OutputStore, words_each: int) -> None:
    texts = [b"one two three four five", b"six", b"seven eight nine", b"\xc3\xbc " * 30]
    unit = shard_of(tmp_path, texts)
    whole = OutputStore(str(tmp_path / "whole"))
    _, expected = run(unit, whole, WordsJob(words_each=0))
    progress: Counter[str] = Counter()
    job = WordsJob(words_each=words_each)
    work = job.load()
    process_unit(unit, job, work, store, WorkerOptions(), lambda n, size: progress.update(records=n, bytes=size))
    ledger = read_ledger(store, "in") or {}
    assert store.read("in.tar") == whole.read("in.tar")
    assert progress == {"records": 4, "bytes": sum(map(len, texts))}
    slices = sum(-(-len(text.split()) // words_each) for text in texts)
    assert ledger["counts"] == expected["counts"] | {"rejected_short": slices}
    assert (ledger["counts"]["records_in"], ledger["counts"]["records_out"]) == (4, 39)
    assert list(ledger["records"]) == list(expected["records"])
    assert ledger["tallies"] == expected["tallies"] == {"words": 39}
    assert work.most_alive <= 3  # the one before, until it is written, and the one to write


def test_nothing_stays_of_a_record_whose_last_slice_fails(tmp_path: Path, store: OutputStore) -> None:
    unit = shard_of(tmp_path, [b"one two", b"three four five unwritable", b"six seven"])
    _, ledger = run(unit, store, WordsJob())
    assert contents(store, "in.tar") == {"000-0": b"ONE", "000-1": b"TWO", "002-0": b"SIX", "002-1": b"SEVEN"}
    assert [(d["key"], d["reason"], d["stage"]) for d in ledger["dead_letters"]] == [("001", "encode_failed", "encode")]
    assert [row["index"] for row in ledger["records"]] == [0, 0, 2, 2]
    assert (ledger["counts"]["records_in"], ledger["counts"]["pixels_out"], ledger["tallies"]) == (3, 4, {"words": 4})


def test_a_full_disk_is_no_fault_of_the_record(
    tmp_path: Path, store: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transforms.ordered_slices.SpooledOutputs.extend", full)
    with pytest.raises(OSError, match="No space left"):
        run(shard_of(tmp_path, [b"one two"]), store, WordsJob())


def test_a_record_may_come_in_no_slices_at_all(tmp_path: Path, store: OutputStore) -> None:
    _, ledger = run(shard_of(tmp_path, [b" ", b"one"]), store, WordsJob())
    assert contents(store, "in.tar") == {"001-0": b"ONE"}
    assert (ledger["counts"]["records_in"], ledger["counts"]["records_out"]) == (2, 1)


def test_a_refused_record_binds_no_later_one(tmp_path: Path, store: OutputStore) -> None:
    """It once did where it was the first: its own first pair said what shape a shard of nothing has."""

    def record(key: str, *shapes: tuple[int, ...]) -> Finished:
        pairs = [(f"{key}-{n}", npy_bytes(np.zeros(shape, np.uint8))) for n, shape in enumerate(shapes)]
        outputs = [(f"{name}.{role}.npy", data) for name, data in pairs for role in ("clean", "degraded")]
        return Finished(key, 0, outputs, [{"key": name, "index": 0} for name, _ in pairs])

    (tmp_path / "scratch").mkdir()
    for ordered in (False, True):
        with closing(open_sink(SinkPlan("arrow", "u", ordered=ordered), store, tmp_path / "scratch", None)) as sink:
            sink.write(record("none"))
            for _ in range(2):
                with pytest.raises(RecordError, match="4x4x1 uint8, those before it are 8x8x1"):
                    sink.write(record("a", (8, 8, 1), (4, 4, 1)))
            sink.write(record("b", (8, 8, 3), (8, 8, 3)))
            with pytest.raises(RecordError, match="4x4x1 uint8, those before it are 8x8x3"):
                sink.write(record("c", (8, 8, 3), (4, 4, 1)))
            sink.write(record("d", (8, 8, 3)))
            assert [output["records"] for output in sink.publish()] == [3]


def test_a_refused_pair_leaves_no_shape_behind() -> None:
    shapes = EqualShapes()
    small, large = (npy_bytes(np.zeros((side, side, 1), np.uint8)) for side in (4, 8))
    shapes.admit("a", [("clean.npy", small)])
    with pytest.raises(RecordError, match="the clean picture of 'b'"):
        shapes.admit("b", [("degraded.npy", large), ("clean.npy", large)])
    shapes.admit("c", [("clean.npy", small), ("degraded.npy", small)])
