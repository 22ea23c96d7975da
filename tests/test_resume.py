"""Whatever moment a run dies at, the same command finishes it with the same bytes, and only what changed is done again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from skimage import data

import pipelines.driver  # noqa: F401 - so that a forked child need not import Beam
from pipelines.main import main
from transforms.formats.tar import TarWriter, write_record

INLINE = ("--runner", "apache_beam.runners.portability.fn_api_runner.FnApiRunner")  # all in this one process


def png(pixels: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of five crops of a real photograph; one member of the second shard is broken."""
    folder = tmp_path_factory.mktemp("archive")
    photo = data.astronaut()
    for shard in range(3):
        with TarWriter(folder / f"{shard:05d}.tar") as tar:
            for n in range(5):
                crop = photo[40 * shard : 40 * shard + 48, 60 * n : 60 * n + 56]
                write_record(tar, f"{shard}-{n}", {"png": b"broken" if (shard, n) == (1, 2) else png(crop)})
    return folder


def command(archive: Path, output: Path, *more: str) -> list[str]:
    words = ["degrade", "--input", f"{archive}/*.tar", "--output", str(output), "--recipe", "gaussian-25", "--quiet"]
    return [*words, "--max_failed_ratio", "1", *more]


def shards(output: Path) -> dict[str, str]:
    found = [*output.glob("*.tar"), *output.glob("_failed/*.tar")]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def results(output: Path) -> dict[str, str]:
    """All that a run makes, but for what holds times: ledgers and the report."""
    files = {str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()}
    kept = {name: path for name, path in files.items() if not name.startswith(("_ledger", "_tmp", "report"))}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in kept.items()}


def degrade_to_tars(archive: Path, output: Path) -> list[str]:
    return command(archive, output, *INLINE)


def degrade_to_files(archive: Path, output: Path) -> list[str]:
    return command(archive, output, "--output_format", "folder", "--input", f"{archive}/00001.tar", *INLINE)


def restore_tars(archive: Path, output: Path) -> list[str]:
    words = ["restore", "--input", f"{archive}/0000[12].tar", "--output", str(output), "--model", "denoise5-color-25"]
    return [*words, "--quiet", "--max_failed_ratio", "1", *INLINE]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads: the child only runs our command
@pytest.mark.parametrize(
    (
        "words_for",
        "records",
        "changes",
    ),  # changes: probe, manifest, each unit's outputs, samples and ledger, letters, report
    [(degrade_to_tars, 15, 20), (degrade_to_files, 5, 20), (restore_tars, 10, 15)],
)
def test_sigkill_between_any_two_writes_changes_nothing(
    archive: Path,
    tmp_path: Path,
    in_a_fork: Callable[..., int],
    words_for: Callable[[Path, Path], list[str]],
    records: int,
    changes: int,
) -> None:
    whole = tmp_path / "whole"
    assert in_a_fork(lambda: main(words_for(archive, whole))) == 0
    expected = results(whole)
    deaths = 0
    for number in range(100):
        output = tmp_path / f"killed-{number}"
        words = words_for(archive, output)
        status = in_a_fork(lambda words=words: main(words), dies_at=number)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        deaths += 1
        assert results(output).items() <= expected.items(), "something half-written stands under a final name"
        assert in_a_fork(lambda words=words: main(words)) == 0
        assert results(output) == expected
        summary = json.loads((output / "report" / "summary.json").read_text())
        assert summary["counts"]["records_in"] == records
        assert summary["counts"]["dead_letters"] == 1
    assert deaths >= changes


def test_a_second_run_does_nothing_and_reports_everything(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(archive, tmp_path / "out", *INLINE)
    assert main(words) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    assert main(words) == 0
    assert "0 units to do, 3 done before" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")} == before
    assert json.loads((tmp_path / "out" / "report" / "summary.json").read_text())["counts"]["records_in"] == 15


def test_only_what_changed_is_done_again(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "archive"
    copy.mkdir()
    for path in archive.glob("*.tar"):
        (copy / path.name).write_bytes(path.read_bytes())
    words = command(copy, tmp_path / "out", *INLINE)

    def units_to_do(*more: str) -> int:
        assert main([*words, *more]) == 0
        return int(capsys.readouterr().err.split("degrade: ")[1].split(" ")[0])

    assert units_to_do() == 3
    assert units_to_do() == 0
    os.utime(copy / "00001.tar", (1, 1))  # the input is another one, as far as the store can tell
    assert units_to_do() == 1
    (tmp_path / "out" / "00002.tar").unlink()  # an output is gone
    assert units_to_do() == 1
    (tmp_path / "out" / "_ledger" / "00000.json").write_text("{")  # a ledger that can't be read
    assert units_to_do() == 1
    assert units_to_do("--seed", "1") == 3  # other bytes wanted
    assert units_to_do("--seed", "1") == 0
    assert units_to_do("--seed", "1", "--overwrite") == 3
    assert units_to_do("--seed", "1", "--io_threads", "1") == 0  # does not decide the bytes


def test_same_bytes_for_any_number_of_workers_and_order(archive: Path, tmp_path: Path) -> None:
    listing = tmp_path / "shuffled.txt"
    listing.write_text("\n".join(str(archive / f"{shard:05d}.tar") for shard in (2, 0, 1)))
    runs = {
        "inline": command(archive, tmp_path / "inline", *INLINE),
        "one": command(archive, tmp_path / "one", "--num_local_workers", "1"),
        "two": command(archive, tmp_path / "two", "--num_local_workers", "2"),
        "shuffled": [*command(archive, tmp_path / "shuffled", *INLINE), "--input", f"@{listing}"],
    }
    for words in runs.values():
        assert main(words) == 0
    results = {name: shards(tmp_path / name) for name in runs}
    assert results["inline"] == results["one"] == results["two"] == results["shuffled"]


def start(words: list[str]) -> subprocess.Popen[str]:
    """As a terminal does; a shell lets its background jobs, and so a suite that is one, ignore Ctrl-C, and children inherit it."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.main", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=heed_interrupts,
    )  # fmt: skip


def heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def workers_of(driver: subprocess.Popen[str], timeout_s: float = 60) -> list[psutil.Process]:
    """The pool's processes, once they have begun to work."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        children = [
            child for child in psutil.Process(driver.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        if children:
            return children
        time.sleep(0.02)
    raise AssertionError("no worker ever started")


@pytest.fixture(scope="module")
def long_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough work to be interrupted: 12 shards of 20 pictures."""
    folder = tmp_path_factory.mktemp("long")
    photo = png(data.astronaut())
    for shard in range(12):
        with TarWriter(folder / f"{shard:05d}.tar") as tar:
            for n in range(20):
                write_record(tar, f"{shard}-{n}", {"png": photo})
    return folder


def test_a_killed_worker_is_replaced(long_archive: Path, tmp_path: Path) -> None:
    driver = start(command(long_archive, tmp_path / "out", "--num_local_workers", "2"))
    time.sleep(1.0)
    victim = workers_of(driver)[0]
    while not list((tmp_path / "out" / "_ledger").glob("0*.json")) and driver.poll() is None:
        time.sleep(0.01)
    victim.kill()
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, output
    assert len(shards(tmp_path / "out")) == 12


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_orphan_survives_the_driver(long_archive: Path, tmp_path: Path, sent: signal.Signals) -> None:
    words = command(long_archive, tmp_path / "out", "--num_local_workers", "2")
    driver = start(words)
    while not list((tmp_path / "out" / "_ledger").glob("0*.json")) and driver.poll() is None:
        time.sleep(0.01)
    workers = workers_of(driver)
    driver.send_signal(sent)
    output, _ = driver.communicate(timeout=30)
    assert driver.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 130), output
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
    done = len(list((tmp_path / "out" / "_ledger").glob("0*.json")))
    assert 0 < done < 12
    again = start(words)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    assert len(shards(tmp_path / "out")) == 12
