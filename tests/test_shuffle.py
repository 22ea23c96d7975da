"""Shuffled outputs: the same pairs at other places, made of references, resumed and retried like any other."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray
from pair_kit import png

from pipelines.degrade import DegradeJob
from pipelines.degrade_flags import degrade_job, plan_degradation
from pipelines.main import main
from pipelines.options import DegradeOptions
from transforms.dead_letters import failed_name
from transforms.errors import ConfigurationError
from transforms.formats.shards import read_shard
from transforms.formats.tar import TarWriter, read_tar, write_record
from transforms.ledger import is_done, read_ledger
from transforms.record import Record
from transforms.references import Piece, Source, pack_list, read_references
from transforms.shuffle import PAIRS_PER_SHARD, list_name, shuffled
from transforms.storage import InputFile, OutputStore, describe_file, list_files
from transforms.unit_pipeline import WorkerOptions, process_unit
from transforms.units import Plan, Unit, plan_units

INLINE = ("--runner", "apache_beam.runners.portability.fn_api_runner.FnApiRunner", "--quiet")
Array = NDArray[Any]


def crop(photo: Array, number: int) -> Array:
    return photo[10 * number : 10 * number + 48, 8 * number : 8 * number + 56]


@pytest.fixture
def archive(tmp_path: Path, photo: Array) -> Path:
    """Two tars and a folder of loose pictures, one of them a pair's clean half: 20 pictures in all."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        with TarWriter(folder / f"{number:05d}.tar") as tar:
            for n in range(7):
                key = f"t{number}-{n}"
                write_record(tar, key, {"txt": b"x" * 700, "png": png(crop(photo, 7 * number + n)), "json": b"{}"})
    (folder / "sub").mkdir()
    for n in range(5):
        (folder / "sub" / f"f{n}.png").write_bytes(png(crop(photo, 14 + n)))
    (folder / "sub" / "g.clean.png").write_bytes(png(crop(photo, 19)))
    (folder / "sub" / "g.degraded.png").write_bytes(b"never looked at")
    return folder


def options_for(source: Path, output: Path, **more: Any) -> DegradeOptions:
    asked = {"recipe": "gaussian-25", "patch_size": 24, "patches_per_image": 6, "seed": 4, "shuffle": True, "shards": 4}
    return DegradeOptions(input=str(source), output=str(output), **(asked | more))


def degrade(options: DegradeOptions, units: Sequence[int] | None = None) -> Plan:
    """Runs a plan without an engine, as the driver would; its units in the order of `units`."""
    plan, job, store = plan_degradation(options), degrade_job(options), OutputStore(options.output)
    for name, data in plan.lists.items():
        store.write(name, data)
    for number in units or range(len(plan.units)):
        process_unit(plan.units[number], job, job.load(), store, WorkerOptions())
    return plan


def pairs_in(output: Path) -> dict[str, dict[str, bytes]]:
    """KEY -> fields of all shards; keys must be unique."""
    shards = sorted(path for path in output.rglob("*.*") if path.suffix in (".tar", ".parquet", ".arrow"))
    records = [
        record for path in shards if "_" not in path.relative_to(output).parts[0] for record in read_shard(str(path))
    ]
    found = {record.key: record.fields for record in records}
    assert len(found) == len(records)
    return found


def shards_of(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("*.tar"))}


def test_shuffling_changes_the_places_of_the_pairs_and_nothing_else(archive: Path, tmp_path: Path) -> None:
    plain, mixed = (
        options_for(archive, tmp_path / "plain", shuffle=False, shards=0),
        options_for(archive, tmp_path / "mixed"),
    )
    degrade(plain)
    plan = degrade(mixed)
    assert [unit.name for unit in plan.units] == [f"shuffled-{n:05d}" for n in range(4)]
    expected, found = pairs_in(tmp_path / "plain"), pairs_in(tmp_path / "mixed")
    assert len(expected) == 20 * 6
    assert list(found) != list(expected)
    assert {key: json.loads(fields["json"])["digests"] for key, fields in found.items()} == {
        key: json.loads(fields["json"])["digests"] for key, fields in expected.items()
    }
    assert found == expected  # byte for byte, JSON included
    for path in (tmp_path / "mixed").glob("*.tar"):
        sources = Counter(record.key.partition("-p")[0] for record in read_tar(str(path)))
        assert len(sources) > 10  # every shard holds patches of most pictures


def test_variants_are_shuffled_one_by_one(archive: Path, tmp_path: Path) -> None:
    more = {"variants": 3, "patches_per_image": 2}
    degrade(options_for(archive, tmp_path / "plain", shuffle=False, shards=0, **more))
    degrade(options_for(archive, tmp_path / "mixed", **more))
    found = pairs_in(tmp_path / "mixed")
    assert len(found) == 20 * 6
    assert found == pairs_in(tmp_path / "plain")
    keys = list(found)
    assert (
        sum(a.rpartition("-v")[0] == b.rpartition("-v")[0] for a, b in pairwise(keys)) < 20
    )  # in order 80, by chance 2


def test_the_order_inside_a_shard_is_random_too(archive: Path, tmp_path: Path) -> None:
    degrade(options_for(archive, tmp_path / "out", shards=1, patches_per_image=30))
    keys = list(pairs_in(tmp_path / "out"))
    neighbours = sum(a.partition("-p")[0] == b.partition("-p")[0] for a, b in pairwise(keys))
    assert neighbours < 60  # of 599; by chance 30, in order 580


def test_another_seed_is_another_order(archive: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        degrade(options_for(archive, tmp_path / str(seed), seed=seed))
    assert list(pairs_in(tmp_path / "1")) != list(pairs_in(tmp_path / "2"))
    assert set(pairs_in(tmp_path / "1")) == set(pairs_in(tmp_path / "2"))


@pytest.mark.parametrize("kind", ["tar", "parquet", "arrow"])
def test_every_format_can_be_shuffled_divided_and_bounded(archive: Path, tmp_path: Path, kind: str) -> None:
    common = {"output_format": kind, "validation_share": 0.3}
    degrade(options_for(archive, tmp_path / "plain", shuffle=False, shards=0, **common))
    options = options_for(archive, tmp_path / "mixed", **common)
    plan, store = plan_degradation(options), OutputStore(options.output)
    job = degrade_job(options)
    job = replace(job, layout=replace(job.layout, shard_bytes=60_000))
    for unit in plan.units:
        store.write(list_name(unit.name), plan.lists[list_name(unit.name)])
        process_unit(unit, job, job.load(), store, WorkerOptions())
    assert pairs_in(tmp_path / "mixed") == pairs_in(tmp_path / "plain")
    for part in ("train", "validation"):
        assert set(pairs_in(tmp_path / "mixed" / part)) == set(pairs_in(tmp_path / "plain" / part))
    assert len(list((tmp_path / "mixed" / "train").iterdir())) > 4


def test_same_bytes_in_any_order_of_units_and_for_any_number_of_workers(archive: Path, tmp_path: Path) -> None:
    degrade(options_for(archive, tmp_path / "one"))
    degrade(options_for(archive, tmp_path / "two"), units=[2, 0, 3, 1])
    words = [
        "degrade",
        "--input",
        str(archive),
        "--recipe",
        "gaussian-25",
        "--patch_size",
        "24",
        "--seed",
        "4",
        "--quiet",
    ]
    words += ["--patches_per_image", "6", "--shuffle", "--shards", "4"]
    assert main([*words, "--output", str(tmp_path / "workers"), "--num_local_workers", "2"]) == 0
    assert shards_of(tmp_path / "one") == shards_of(tmp_path / "two") == shards_of(tmp_path / "workers")


def test_a_second_run_does_nothing_and_a_changed_input_is_done_again(
    archive: Path, tmp_path: Path, photo: Array, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = [
        "degrade",
        "--input",
        str(archive),
        "--output",
        str(output),
        "--recipe",
        "gaussian-25",
        "--patch_size",
        "24",
    ]
    words += ["--patches_per_image", "2", "--shuffle", "--shards", "4", *INLINE]

    def units_to_do(*more: str) -> int:
        assert main([*words, *more]) == 0
        return int(capsys.readouterr().err.split("degrade: ")[1].split(" ")[0])

    assert units_to_do() == 4
    assert units_to_do() == 0
    next(iter(output.glob("*.tar"))).unlink()
    assert units_to_do() == 1
    (archive / "sub" / "h.png").write_bytes(png(crop(photo, 20)))  # its two patches fall into two shards
    assert 1 <= units_to_do() <= 2
    before = set(pairs_in(output))
    assert units_to_do("--shards", "2") == 2
    assert set(pairs_in(output)) == before  # nothing is left of the other two shards
    assert sorted(path.name for path in output.glob("*.tar")) == ["shuffled-00000.tar", "shuffled-00001.tar"]
    assert json.loads((output / "report" / "summary.json").read_text())["counts"]["records_out"] == 42


def test_a_shuffled_unit_is_done_only_with_the_same_list(archive: Path, tmp_path: Path) -> None:
    options = options_for(archive, tmp_path / "out")
    plan, store = degrade(options), OutputStore(options.output)
    sizes = {name: file.size for name, file in list_files(store.root)}
    fingerprint = degrade_job(options).fingerprint()
    assert all(is_done(unit, read_ledger(store, unit.name), fingerprint, sizes) for unit in plan.units)
    (archive / "00001.tar").touch()
    again = plan_degradation(options)
    assert not any(is_done(unit, read_ledger(store, unit.name), fingerprint, sizes) for unit in again.units)


def test_a_broken_picture_fails_wherever_it_is_wanted_and_is_retried_to_its_places(
    archive: Path, tmp_path: Path, photo: Array
) -> None:
    degrade(options_for(archive, tmp_path / "whole"))
    good = (archive / "sub" / "f3.png").read_bytes()
    (archive / "sub" / "f3.png").write_bytes(b"broken")
    options = options_for(archive, tmp_path / "out")
    plan, store = degrade(options), OutputStore(options.output)
    ledgers = {unit.name: read_ledger(store, unit.name) or {} for unit in plan.units}
    failed = [name for name, ledger in ledgers.items() if ledger["dead_letters"]]
    assert len(failed) > 1
    assert set(pairs_in(tmp_path / "whole")) - set(pairs_in(tmp_path / "out")) == {f"sub/f3-p{n:05d}" for n in range(6)}
    job = degrade_job(options)
    for name in failed:
        letters = tmp_path / "out" / failed_name(name)
        (record,) = read_tar(str(letters))
        with TarWriter(letters) as archive_of_letters:
            write_record(archive_of_letters, record.key, {"png": good, "failure.json": record.fields["failure.json"]})
        process_unit(
            Unit(name, "dead_letters", (describe_file(str(letters)),)), job, job.load(), store, WorkerOptions()
        )
    assert shards_of(tmp_path / "out") == shards_of(tmp_path / "whole")


def test_rejections_are_counted_once_although_several_shards_want_the_picture(tmp_path: Path, photo: Array) -> None:
    (tmp_path / "in").mkdir()
    for n in range(6):
        (tmp_path / "in" / f"big{n}.png").write_bytes(png(crop(photo, n)))
    (tmp_path / "in" / "small.png").write_bytes(png(photo[:20, :20]))
    (tmp_path / "in" / "flat.png").write_bytes(png(np.full((48, 48, 3), 9, np.uint8)))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "kind: degradation\ndescription: x\nsource: x\nchannels: as_is\n"
        "patches: {size: 24, per_image: 6, minimum_std: 0.01}\ndegradation: round_to_8bit\n"
    )
    counts = []
    for name, more in (("plain", {"shuffle": False, "shards": 0}), ("mixed", {})):
        options = options_for(tmp_path / "in", tmp_path / name, recipe=str(recipe), **more)
        plan, store = degrade(options), OutputStore(options.output)
        total: Counter[str] = Counter()
        for unit in plan.units:
            total.update((read_ledger(store, unit.name) or {})["counts"])
        counts.append({name: count for name, count in total.items() if name.startswith("rejected_")})
    assert counts[0] == counts[1]
    assert set(counts[0]) == {"rejected_too_small", "rejected_flat"}


@pytest.mark.parametrize("trouble", ["twins", "compressed", "damaged", "short", "folder", "many", "parquet"])
def test_what_cannot_be_shuffled_is_refused_before_the_start(archive: Path, tmp_path: Path, trouble: str) -> None:
    more: dict[str, Any] = {}
    tar = archive / "00001.tar"
    if trouble == "twins":
        (archive / "00002.tar").write_bytes(tar.read_bytes())
        message = r"the key 't1-0' stands in 00001 and in 00002"
    elif trouble == "compressed":
        (archive / "z.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
        message = "unpack it with gunzip"
    elif trouble == "damaged":
        tar.write_bytes(tar.read_bytes()[:3000] + b"x" * 5000)
        message = "00001.tar' is damaged"
    elif trouble == "short":
        tar.write_bytes(tar.read_bytes()[: tar.read_bytes().rindex(b"t1-6.png") + 700])
        message = "ends inside of 't1-6.png'"
    elif trouble == "folder":
        more, message = {"output_format": "folder"}, "a folder has none"
    elif trouble == "many":
        more, message = {"shards": 121}, "choose from 1 to 120"
    else:
        (tmp_path / "tables").mkdir()
        (tmp_path / "tables" / "a.parquet").write_bytes(b"")
        archive, message = tmp_path / "tables", "not out of"
    with pytest.raises(ConfigurationError, match=message):
        plan_degradation(options_for(archive, tmp_path / "out", **more))


def sources(count: int) -> Plan:
    from transforms.units import Member, group_members

    members = [Member(f"{n:05d}", "png", f"{n:05d}.png", InputFile(f"/x/{n:05d}.png", 1000, "v")) for n in range(count)]
    return Plan(tuple(group_members(members)))


def test_shards_are_of_about_equal_size_and_of_a_sensible_number(tmp_path: Path) -> None:
    store = OutputStore(str(tmp_path))
    plan = shuffled(sources(2000), store, pairs_each=16, seed=0)
    assert len(plan.units) == 16  # enough for a machine of that many cores
    counted = [len(list(wanted_of(plan, unit))) for unit in plan.units]
    assert sum(counted) == 32_000
    assert max(abs(count - 2000) for count in counted) < 5 * 2000**0.5
    assert len(shuffled(sources(40), store, pairs_each=1, seed=0).units) == 1
    assert len(shuffled(sources(1000), store, pairs_each=100, seed=0).units) == -(-100_000 // PAIRS_PER_SHARD)


def wanted_of(plan: Plan, unit: Unit) -> list[tuple[str, int]]:
    plain = json.loads(gzip.decompress(plan.lists[list_name(unit.name)]))
    return [(row[0], patch) for row in plain["sources"] for patch in row[3]]


def test_lists_are_small_and_every_pair_is_dealt_out_once(tmp_path: Path) -> None:
    plan = shuffled(sources(2000), OutputStore(str(tmp_path)), pairs_each=16, seed=0, shards=100)
    dealt = [pair for unit in plan.units for pair in wanted_of(plan, unit)]
    assert sorted(dealt) == [(f"{n:05d}", patch) for n in range(2000) for patch in range(16)]
    assert sum(map(len, plan.lists.values())) / 32_000 < 30


def test_a_new_picture_moves_no_other_pair_to_another_shard(tmp_path: Path) -> None:
    store = OutputStore(str(tmp_path))
    before, after = (shuffled(sources(count), store, pairs_each=4, seed=0, shards=50) for count in (500, 501))
    same = [a for a, b in zip(before.units, after.units, strict=True) if a == b]
    assert len(same) >= 46


def test_a_picture_is_read_once_for_each_shard(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    file = describe_file(str(tmp_path / "a"))
    entries = [
        (Source("x", "tar", (Piece("png", file, 2, 3),)), {0: 5, 7: 1}),
        (Source("y", None, (Piece("png", file, 0, 10, "sub/y.png"),)), {1: 0}),
    ]
    packed = pack_list(entries)
    (tmp_path / "list").write_bytes(packed.data)
    first, second = read_references(str(tmp_path / "list"))
    assert (first.key, first.fields, first.shard, first.wanted) == ("x", {"png": b"234"}, "tar", {0: 5, 7: 1})
    assert first.name is None
    assert (second.name, second.shard, second.index) == ("sub/y.png", None, 1)
    assert packed.bytes_in == 13
    assert [record.key for record in read_references(str(tmp_path / "list"), only={1})] == ["y"]
    (tmp_path / "a").write_bytes(b"0123")
    assert [record.error is not None for record in read_references(str(tmp_path / "list"))] == [True, True]


def test_references_lead_into_any_store(archive: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in archive.rglob("*.*"):
        memory.pipe_file(f"/{tmp_path.name}/in/{path.relative_to(archive)}", path.read_bytes())
    place = f"memory://{tmp_path.name}"
    options = replace(options_for(archive, tmp_path), input=f"{place}/in", output=f"{place}/out")
    degrade(options)
    degrade(options_for(archive, tmp_path / "local"))
    for name, data in shards_of(tmp_path / "local").items():
        assert memory.cat_file(f"/{tmp_path.name}/out/{name}") == data


def test_dead_letters_remember_what_was_wanted(tmp_path: Path) -> None:
    from transforms.dead_letters import Failure, read_dead_letters, write_dead_letters
    from transforms.errors import Reason

    record = Record("a", {"png": b"x"}, 4, shard="s", wanted={3: 17, 0: 2})
    write_dead_letters(tmp_path / "l.tar", [record], {4: Failure("a", 4, "decode", Reason.CORRUPT, "")})
    (found,) = read_dead_letters(str(tmp_path / "l.tar"))
    assert (found.shard, found.wanted, found.index) == ("s", {0: 2, 3: 17}, 4)


def test_the_job_itself_does_not_know_of_the_shuffle(archive: Path, tmp_path: Path) -> None:
    jobs = [degrade_job(options_for(archive, tmp_path, shuffle=flag, shards=0)) for flag in (True, False)]
    assert jobs[0] == jobs[1]
    assert isinstance(jobs[0], DegradeJob)
    assert plan_units(str(archive)).input_urls
