"""After a run the output holds this run's results and nothing of earlier ones, whatever they were cut, split or written as;
and nothing is deleted that a ledger of ours does not list."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.main import main

INLINE = ("--runner", "apache_beam.runners.portability.fn_api_runner.FnApiRunner", "--quiet")
PLAIN = ("--patches_per_image", "2")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, photo: NDArray[np.uint8]) -> Path:
    """Six crops of a real photograph."""
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(6):
        Image.fromarray(photo[50 * n : 50 * n + 40, 60 * n : 60 * n + 40]).save(folder / f"{'abcdef'[n]}.png")
    return folder


def words_for(pictures: Path, output: Path, *more: str) -> list[str]:
    words = ["degrade", "--input", str(pictures), "--output", str(output), "--recipe", "gaussian-25"]
    return [*words, "--patch_size", "24", "--pictures_per_unit", "2", *more, *INLINE]


def degrade(pictures: Path, output: Path, *more: str) -> None:
    assert main(words_for(pictures, output, *more)) == 0


def results(output: Path) -> dict[str, str]:
    """Digests of all that a run makes, but for what holds times: ledgers and the report."""
    files = {str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()}
    kept = {name: path for name, path in files.items() if not name.startswith(("_ledger", "_tmp", "report"))}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in kept.items()}


def ledger_files(output: Path) -> set[str]:
    found = {str(path.relative_to(output)) for path in (output / "_ledger").rglob("*") if path.is_file()}
    return found - {"_ledger/.run.json"}


WAYS = {
    "plain": PLAIN,
    "divided": (*PLAIN, "--validation_share", "0.5"),
    "three shuffled shards": (*PLAIN, "--shuffle", "--shards", "3"),
    "parquet": (*PLAIN, "--output_format", "parquet"),
    "two shuffled shards": (*PLAIN, "--shuffle", "--shards", "2"),
    "files": (*PLAIN, "--output_format", "folder"),
    "fewer files": ("--patches_per_image", "1", "--output_format", "folder"),
    "bounded shards": (*PLAIN, "--shard_mb", "1"),
    "cut otherwise": (*PLAIN, "--shards", "2"),
    "one unit": (*PLAIN, "--pictures_per_unit", "100"),
}


def test_an_output_that_is_used_again_is_like_a_new_one(pictures: Path, tmp_path: Path) -> None:
    """Train shards once stayed beside shuffled ones, and Parquet files beside tars: a trainer would have mixed them."""
    for name, way in WAYS.items():
        degrade(pictures, tmp_path / "used", *way)
        degrade(pictures, tmp_path / name, *way)
        assert results(tmp_path / "used") == results(tmp_path / name), name
        assert ledger_files(tmp_path / "used") == ledger_files(tmp_path / name), name
        folders = {path.name for path in (tmp_path / "used").iterdir() if path.is_dir()}
        assert folders == {path.name for path in (tmp_path / name).iterdir() if path.is_dir()}, name


def test_pairs_that_a_unit_does_not_make_again_go(pictures: Path, tmp_path: Path) -> None:
    """All *-p00001.* once stayed."""
    degrade(pictures, tmp_path / "out", "--output_format", "folder", "--patches_per_image", "2")
    assert len(list((tmp_path / "out").glob("*-p00001.*"))) == 3 * 6
    degrade(pictures, tmp_path / "out", "--output_format", "folder", "--patches_per_image", "1")
    assert not list((tmp_path / "out").glob("*-p00001.*"))
    assert len(list((tmp_path / "out").glob("*-p00000.*"))) == 3 * 6


def test_pairs_of_a_picture_that_left_the_input_go_and_so_do_its_dead_letters(pictures: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for path in pictures.glob("*.png"):
        (source / path.name).write_bytes(path.read_bytes())
    (source / "broken.png").write_bytes(b"broken")
    words = ("--output_format", "folder", "--max_failed_ratio", "1")
    degrade(source, output, *words)
    assert list(output.glob("_failed/*.tar"))
    (source / "broken.png").unlink()
    (source / "c.png").unlink()
    degrade(source, output, *words)
    degrade(source, tmp_path / "new", *words)
    assert results(output) == results(tmp_path / "new")


def test_nothing_is_deleted_that_no_ledger_lists(pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    degrade(pictures, output, *WAYS["divided"])
    strangers = ["notes.txt", "train/mine.tar", "validation/files-mine.tar", "shuffled-00007.tar", "_failed/mine.tar"]
    strangers += ["_ledger/mine.json", "_ledger/readme.md"]
    for name in strangers:
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_text('{"format": 1, "unit": "another", "verb": "degrade", "records": []}')
    degrade(pictures, output, *WAYS["two shuffled shards"])
    assert all((output / name).exists() for name in strangers)
    assert not list(output.glob("train/files-*.tar"))
    assert len(list(output.glob("*.tar"))) == 3


def test_nothing_goes_before_the_new_run_has_succeeded(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    degrade(pictures, output, *WAYS["plain"])
    before = results(output)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("transforms.storage.OutputStore.publish", full)
        assert main(words_for(pictures, output, *WAYS["two shuffled shards"])) == 1
    assert results(output) == before
    degrade(pictures, output, *WAYS["two shuffled shards"])
    assert set(results(output)) == {"shuffled-00000.tar", "shuffled-00001.tar"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads: the child only runs our command
@pytest.mark.parametrize("way", ["two shuffled shards", "fewer files"])
def test_whatever_moment_it_dies_at_the_same_command_leaves_only_its_own(
    pictures: Path, tmp_path: Path, in_a_fork: Callable[..., int], way: str
) -> None:
    first = ("--patches_per_image", "2", "--output_format", "folder", "--pictures_per_unit", "3")
    assert in_a_fork(lambda: main(words_for(pictures, tmp_path / "whole", *WAYS[way]))) == 0
    expected = results(tmp_path / "whole")
    assert in_a_fork(lambda: main(words_for(pictures, tmp_path / "first", *first))) == 0
    deaths = 0
    for number in range(0, 400, 23):
        output = shutil.copytree(tmp_path / "first", tmp_path / f"killed-{number}")
        words = words_for(pictures, output, *WAYS[way])
        status = in_a_fork(lambda words=words: main(words), dies_at=number, also=("rmdir",))
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        deaths += 1
        assert in_a_fork(lambda words=words: main(words)) == 0
        assert results(output) == expected
        assert ledger_files(output) == ledger_files(tmp_path / "whole")
    assert deaths >= 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_interrupted_change_of_mind_leaves_nothing_behind(
    pictures: Path, tmp_path: Path, in_a_fork: Callable[..., int]
) -> None:
    """A unit that was begun again, and of which the next command knows nothing, once left its old shard."""
    output = tmp_path / "out"
    degrade(pictures, output, *WAYS["plain"])
    for number in range(3, 12, 2):
        words = words_for(pictures, output, *WAYS["plain"], "--seed", str(number))
        in_a_fork(lambda words=words: main(words), dies_at=number, also=("rmdir",))
    degrade(pictures, output, *WAYS["two shuffled shards"])
    assert set(results(output)) == {"shuffled-00000.tar", "shuffled-00001.tar"}


def restore(source: Path, output: Path, model: Path, *more: str) -> int:
    return main(["restore", "--input", str(source), "--output", str(output), "--model", str(model), *more, *INLINE])


def test_restored_pictures_stay_although_their_source_left_the_input(
    pictures: Path, negative_model: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for path in pictures.glob("*.png"):
        (source / path.name).write_bytes(path.read_bytes())
    assert restore(source, output, negative_model, "--pictures_per_unit", "1") == 0
    before = results(output)
    (source / "c.png").unlink()
    assert restore(source, output, negative_model, "--pictures_per_unit", "1") == 0
    assert results(output) == before
    assert restore(source, output, negative_model, "--pictures_per_unit", "100") == 0
    assert results(output) == before
    assert json.loads((output / "report" / "summary.json").read_text())["counts"]["records_out"] == 5


def test_a_restored_folder_that_is_only_cut_otherwise_keeps_no_old_ledgers(
    pictures: Path, negative_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    for each in ("1", "100"):
        assert restore(pictures, output, negative_model, "--pictures_per_unit", each) == 0
    assert restore(pictures, tmp_path / "new", negative_model, "--pictures_per_unit", "100") == 0
    assert results(output) == results(tmp_path / "new")
    assert ledger_files(output) == ledger_files(tmp_path / "new")


@pytest.mark.parametrize("first", ["restore", "degrade"])
def test_the_output_of_another_verb_is_refused(
    pictures: Path, negative_model: Path, tmp_path: Path, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    commands: dict[str, Callable[[], int]] = {
        "restore": lambda: restore(pictures, output, negative_model),
        "degrade": lambda: main(words_for(pictures, output)),
        "evaluate": lambda: main(["evaluate", "--input", str(pictures), "--output", str(output), *INLINE]),
    }
    assert commands[first]() == 0
    before = results(output)
    for verb in sorted(set(commands) - {first}):
        capsys.readouterr()
        assert commands[verb]() == 5
        assert f"holds results of '{first}'" in capsys.readouterr().err
        (output / "_ledger" / ".run.json").rename(tmp_path / "manifest")  # the ledgers say it too
        if verb == "degrade":
            assert main(words_for(pictures, output, "--shuffle")) == 5
        (tmp_path / "manifest").rename(output / "_ledger" / ".run.json")
    assert results(output) == before


def test_it_is_said_beforehand_what_will_go(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    degrade(pictures, output, *WAYS["plain"])
    before = results(output)
    assert "are removed" not in capsys.readouterr().err
    degrade(pictures, output, *WAYS["two shuffled shards"], "--dry_run")
    assert "their pairs are removed when it has succeeded" in capsys.readouterr().err
    assert results(output) == before
