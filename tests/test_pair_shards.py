"""Shards of pairs: divided, bounded, replaced, retried, cut into slices, and whole whenever a worker dies."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pair_kit import (
    SHARDS,
    WITH_ARRAYS,
    Array,
    broken_archive,
    crops,
    everything_in,
    files_of,
    job_of,
    png,
    records_in,
    repair,
    run,
    small_shards,
    write_tar,
)

from models.training_data import rank
from pipelines.degrade_flags import degrade_job, plan_degradation
from pipelines.options import DegradeOptions
from transforms.dead_letters import failed_name
from transforms.errors import ConfigurationError
from transforms.formats.arrow import read_arrow
from transforms.formats.tar import TarWriter, read_tar, write_record
from transforms.randomness import share_of
from transforms.raw_arrays import npy_bytes
from transforms.record import Record
from transforms.storage import OutputStore, describe_file
from transforms.streaming import StageTimes
from transforms.units import Unit, plan_units

# ---------------------------------------------------------------- size and parts


@pytest.mark.parametrize("kind", SHARDS)
def test_shards_of_bounded_size_hold_the_same_records(
    shard: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(job_of(output_format=kind), shard, tmp_path / "one")
    job = small_shards(job_of(output_format=kind), 20_000)
    ledger = run(job, shard, tmp_path / "many")
    names = [output["path"] for output in ledger["outputs"]]
    assert len(names) > 2
    assert names == [f"s-{number:05d}.{kind}" for number in range(len(names))]
    assert records_in(tmp_path / "many") == records_in(tmp_path / "one")
    assert list(records_in(tmp_path / "many")) == list(records_in(tmp_path / "one"))
    sizes = [(tmp_path / "many" / name).stat().st_size for name in names]
    assert max(sizes) < 20_000 + 12_000  # what a file needs beside its records: a tar rounds up to 10 kB
    assert sum(output["records"] for output in ledger["outputs"]) == 18
    run(job, shard, tmp_path / "again", io_threads=1)
    assert files_of(tmp_path / "again") == files_of(tmp_path / "many")


def test_a_pair_larger_than_a_shard_has_one_of_its_own(shard: Path, tmp_path: Path) -> None:
    ledger = run(small_shards(job_of(), 1), shard, tmp_path / "out")
    assert [output["records"] for output in ledger["outputs"]] == [1] * 18


def test_nothing_of_an_earlier_size_or_format_stays(shard: Path, tmp_path: Path) -> None:
    """The last shards of a finer division would pass for this run's."""
    output = tmp_path / "out"
    variants = [
        small_shards(job_of(), 9_000),
        small_shards(job_of(), 30_000),
        job_of(),
        job_of(output_format="parquet"),
        small_shards(job_of(output_format="arrow"), 20_000),
        job_of(validation_share=0.4),
        job_of(output_format="folder"),
        job_of(output_format="folder", clean_format="webp"),
        job_of(output_format="folder", clean_format="webp", validation_share=0.4),
        small_shards(job_of(), 9_000),
    ]
    for number, job in enumerate(variants):
        run(job, shard, output)
        run(job, shard, tmp_path / f"fresh-{number}")
        assert files_of(output) == files_of(tmp_path / f"fresh-{number}")
    assert not list((output / "_ledger").glob("*.outputs"))


@pytest.mark.parametrize("kind", [*SHARDS, "folder"])
def test_no_source_picture_is_in_both_parts(tmp_path: Path, photo: Array, kind: str) -> None:
    (tmp_path / "in").mkdir()
    for n in range(24):
        (tmp_path / "in" / f"p{n:02d}.png").write_bytes(png(photo[8 * n : 8 * n + 32, :32]))
    job = job_of(output_format=kind, validation_share=0.3)
    ledgers = [run(job, unit, tmp_path / "out") for unit in plan_units(str(tmp_path / "in")).units]
    keys = {
        part: {name.rpartition("/")[2].partition("-p")[0] for name in keys_of(tmp_path / "out" / part, kind)}
        for part in ("train", "validation")
    }
    assert keys["validation"] == {f"p{n:02d}" for n in range(24) if share_of(f"p{n:02d}") < 0.3}
    assert keys["train"] | keys["validation"] == {f"p{n:02d}" for n in range(24)}
    assert not keys["train"] & keys["validation"]
    for part in keys:
        assert sum(ledger["counts"].get(f"records_{part}", 0) for ledger in ledgers) == 3 * len(keys[part])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"train", "validation", "_ledger"}


def keys_of(folder: Path, kind: str) -> set[str]:
    if kind == "folder":
        return {path.name.partition(".")[0] for path in folder.rglob("*.json")}
    return set(records_in(folder))


def test_degrade_and_train_hold_out_the_same_pictures() -> None:
    keys = [f"photos/{n}" for n in range(4000)]
    assert [share_of(key) for key in keys] == [rank(key) for key in keys]
    assert sum(share_of(key) < 0.05 for key in keys) == pytest.approx(200, abs=45)  # three standard deviations


def test_units_of_about_the_asked_number(tmp_path: Path, photo: Array) -> None:
    (tmp_path / "in").mkdir()
    for n in range(300):
        (tmp_path / "in" / f"{n}.png").write_bytes(b"x")
    assert 10 <= len(plan_units(str(tmp_path / "in"), units=20).units) <= 30
    assert len(plan_units(str(tmp_path / "in"), units=300).units) == 300
    with pytest.raises(ConfigurationError, match="at most"):
        plan_units(str(tmp_path / "in"), units=301)
    write_tar(tmp_path / "t.tar", {"a.png": b"x"})
    with pytest.raises(ConfigurationError, match="--shuffle"):
        plan_units(f"{tmp_path}/in,{tmp_path}/t.tar", units=2)


# ---------------------------------------------------------------- retry


@pytest.mark.parametrize("kind", SHARDS)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_retry_merges_what_was_recovered(tmp_path: Path, photo: Array, kind: str, share: float) -> None:
    job = job_of(output_format=kind, validation_share=share)
    run(job, broken_archive(tmp_path / "whole-in", photo, ()), tmp_path / "whole")
    ledger = run(job, broken_archive(tmp_path / "in", photo, ("00", "03", "07")), tmp_path / "out")
    assert len(ledger["dead_letters"]) == 3
    repair(tmp_path / "out", photo)
    letters = Unit("s", "dead_letters", (describe_file(str(tmp_path / "out" / failed_name("s"))),))
    ledger = run(job, letters, tmp_path / "out")
    assert ledger["dead_letters"] == []
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert [row["index"] for row in ledger["records"]] == sorted(3 * list(range(8)))


@pytest.mark.parametrize("kind", SHARDS)
def test_retry_of_bounded_shards_keeps_each_record_at_its_place(tmp_path: Path, photo: Array, kind: str) -> None:
    job = small_shards(job_of(output_format=kind), 20_000)
    run(job, broken_archive(tmp_path / "whole-in", photo, ()), tmp_path / "whole")
    run(job, broken_archive(tmp_path / "in", photo, ("00", "03", "07")), tmp_path / "out")
    repair(tmp_path / "out", photo)
    letters = Unit("s", "dead_letters", (describe_file(str(tmp_path / "out" / failed_name("s"))),))
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "_failed").iterdir()}
    old_ledger = (tmp_path / "out" / "_ledger" / "s.json").read_bytes()
    run(job, letters, tmp_path / "out")
    assert records_in(tmp_path / "out") == records_in(tmp_path / "whole")
    assert list(records_in(tmp_path / "out")) == list(records_in(tmp_path / "whole"))
    finished = files_of(tmp_path / "out")
    # A retry that died after publishing its shards, before its ledger:
    (tmp_path / "out" / "_ledger" / "s.json").write_bytes(old_ledger)
    for path, data in before.items():
        path.write_bytes(data)
    run(job, letters, tmp_path / "out")
    assert files_of(tmp_path / "out") == finished


def test_what_is_recovered_has_to_fit_into_the_arrow_shard(tmp_path: Path, photo: Array) -> None:
    job = job_of(output_format="arrow")
    run(job, broken_archive(tmp_path / "in", photo, ("03",)), tmp_path / "out")
    letters = tmp_path / "out" / "_failed" / "s.tar"
    (record,) = read_tar(str(letters))
    with TarWriter(letters) as archive:
        grey = png(crops(photo, 8)["03"][..., 0])
        write_record(archive, record.key, {"png": grey, "failure.json": record.fields["failure.json"]})
    ledger = run(job, Unit("s", "dead_letters", (describe_file(str(letters)),)), tmp_path / "out")
    assert [letter["reason"] for letter in ledger["dead_letters"]] == ["size_mismatch"]
    assert len(list(read_arrow(str(tmp_path / "out" / "s.arrow")))) == 21


# ---------------------------------------------------------------- many pairs of one picture


@pytest.mark.parametrize("kind", [*SHARDS, "folder"])
@pytest.mark.parametrize(("share", "shard_bytes"), [(0.0, 0), (0.5, 0), (0.0, 20_000)])
def test_slices_change_no_byte(
    tmp_path: Path, photo: Array, monkeypatch: pytest.MonkeyPatch, kind: str, share: float, shard_bytes: int
) -> None:
    if kind == "folder" and shard_bytes:
        pytest.skip("a folder has no shards")
    source = broken_archive(tmp_path / "in", photo, ("03",))
    job = job_of(output_format=kind, validation_share=share, variants=2, recipe="text-deblur")
    job = small_shards(job, shard_bytes)
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for name, size in (("whole", 2**30), ("sliced", 1), ("halved", 8_000)):
        monkeypatch.setattr("pipelines.degrade.SLICE_BYTES", size)
        monkeypatch.setattr("pipelines.degrade.BLOCK_BYTES", size)
        run(job, source, tmp_path / name)
        repair(tmp_path / name, photo)
        letters = Unit("s", "dead_letters", (describe_file(str(tmp_path / name / failed_name("s"))),))
        first = everything_in(tmp_path / name)
        run(job, letters, tmp_path / name)
        found.append((first, everything_in(tmp_path / name)))
    assert found[0] == found[1] == found[2]
    assert len(found[0][1]["_ledger/s.json"]["records"]) == 48


def test_slices_change_no_byte_of_a_shuffled_shard(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("whole", 2**30), ("sliced", 1)):
        monkeypatch.setattr("pipelines.degrade.SLICE_BYTES", size)
        monkeypatch.setattr("pipelines.degrade.BLOCK_BYTES", size)
        asked = {"patch_size": 24, "patches_per_image": 6, "seed": 4, "shuffle": True, "shards": 2}
        options = DegradeOptions(input=str(shard), output=str(tmp_path / name), recipe="gaussian-25", **asked)
        plan, store = plan_degradation(options), OutputStore(options.output)
        for path, data in plan.lists.items():
            store.write(path, data)
        for unit in plan.units:
            run(degrade_job(options), unit, tmp_path / name)
    assert len(records_in(tmp_path / "whole")) == 36
    lists = "_ledger/.shuffle"
    sliced, whole = (everything_in(tmp_path / name) for name in ("sliced", "whole"))
    assert {k: v for k, v in sliced.items() if not k.startswith(lists) and not isinstance(v, dict)} == {
        k: v for k, v in whole.items() if not k.startswith(lists) and not isinstance(v, dict)
    }


def test_memory_does_not_grow_with_the_pairs_of_a_picture(
    tmp_path: Path, photo: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pairs of a picture were once made before the first was written."""
    monkeypatch.setattr("pipelines.degrade.SLICE_BYTES", 2**19, raising=False)
    source = write_tar(tmp_path / "in" / "s.tar", {"a.png": png(photo)})
    job = job_of(patch_size=64, clean_format="npy", degraded_format="npy")
    run(job, source, tmp_path / "warm")
    peaks = []
    for count in (40, 400):  # 2.5 MB of pairs, and 25
        tracemalloc.start()
        ledger = run(
            job_of(patch_size=64, patches_per_image=count, clean_format="npy", degraded_format="npy"),
            source,
            tmp_path / str(count),
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(ledger["records"]) == count
    assert peaks[1] < peaks[0] + 1_500_000


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pairs_weigh_what_their_files_take(tmp_path: Path, photo: Array, dtype: type) -> None:
    """16 bit and float clean halves once weighed as 8 bit."""
    recipe = tmp_path / "warped.yaml"
    recipe.write_text(WITH_ARRAYS)
    pixels = (photo[:120, :120] / (255 if dtype is np.float32 else 1)).astype(dtype)
    record = Record("a", {"clean.npy": npy_bytes(pixels)})
    asked = {"recipe": str(recipe), "patch_size": 64, "patches_per_image": 20}
    work = job_of(**asked, clean_format="npy", degraded_format="npy").load()
    item = work.decode(record)
    taken = sum(len(data) for made in work.finish(item, None, StageTimes()) for _, data in made.outputs)
    assert 0.6 * (item.bytes_held - pixels.nbytes) < taken <= item.bytes_held - pixels.nbytes
    many = job_of(**asked | {"patches_per_image": 10**6}).load()
    assert many.decode(record).bytes_held < pixels.nbytes + 20 * 2**20  # a slice is all that stays in memory


# ---------------------------------------------------------------- death at any moment


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads: the child only runs our action
@pytest.mark.parametrize(
    ("kind", "shard_bytes", "share"), [("parquet", 0, 0.0), ("tar", 20_000, 0.0), ("arrow", 20_000, 0.4)]
)
def test_death_between_any_two_writes_leaves_nothing_half_done(
    tmp_path: Path, photo: Array, in_a_fork: Callable[..., int], kind: str, shard_bytes: int, share: float
) -> None:
    """Over the outputs of a finer division in another format, which have to go in the end."""
    source = broken_archive(tmp_path / "in", photo, ("02",))
    earlier, job = (
        small_shards(job_of(), 15_000),
        small_shards(job_of(output_format=kind, validation_share=share), shard_bytes),
    )
    run(earlier, source, tmp_path / "earlier")
    old = files_of(tmp_path / "earlier")
    run(job, source, tmp_path / "whole")
    expected = files_of(tmp_path / "whole")
    deaths = 0
    for number in range(60):
        output = tmp_path / f"killed-{number}"
        shutil.copytree(tmp_path / "earlier", output)
        status = in_a_fork(lambda output=output: run(job, source, output) and None, dies_at=number)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        deaths += 1
        half = {name: data for name, data in files_of(output).items() if not name.startswith("_tmp")}
        assert half.items() <= old.items() | expected.items(), "something half-written stands under a final name"
        run(job, source, output)
        shutil.rmtree(output / "_tmp", ignore_errors=True)
        assert files_of(output) == expected
        assert not list((output / "_ledger").glob("*.outputs"))
    assert deaths >= 10
