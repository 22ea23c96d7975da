"""One unit from its records to its committed shard: order, failures, bisection, dead letters, retry."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from transforms.dead_letters import failed_name, read_dead_letters
from transforms.errors import Reason, RecordError, UnitError
from transforms.formats.tar import TarWriter, read_tar, write_record
from transforms.ledger import is_done, read_ledger
from transforms.record import Record
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
            raise KilledError

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
