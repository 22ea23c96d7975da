"""Object stores as input and output: servers on this machine that speak the protocols of S3 and Google Cloud Storage."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray
from pair_kit import png
from PIL import Image

from pipelines.main import main
from pipelines.options import RestoreOptions
from pipelines.run import Run
from pipelines.verbs import job_of
from transforms.formats.tar import TarWriter
from transforms.storage import OutputStore, describe_file
from transforms.unit_pipeline import WorkerOptions, process_unit
from transforms.units import plan_units

pytest.importorskip("s3fs", reason="s3fs is not installed (extra 's3')")
moto_server = pytest.importorskip("moto.server", reason="moto's server is not installed (extra 'test')")

INLINE = ("--runner", "apache_beam.runners.portability.fn_api_runner.FnApiRunner", "--quiet")
KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
)


@dataclass
class Bucket:
    """A bucket, looked at with Amazon's own client and not with the code under test."""

    client: Any
    name: str
    endpoint: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        found: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return found

    def objects(self, prefix: str = "") -> dict[str, str]:
        """Key -> ETag."""
        listed = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix).get("Contents", [])
        return {entry["Key"]: entry["ETag"] for entry in listed}

    def shards(self, prefix: str) -> dict[str, str]:
        """Name -> digest of every tar that holds records."""
        names = [key for key in self.objects(prefix) if key.endswith(".tar") and "_ledger" not in key]
        return {key.removeprefix(prefix): hashlib.sha256(self.get(key)).hexdigest() for key in names}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket of its own for each test; fsspec is told of the server as users tell it, by the environment."""
    import boto3

    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    client = boto3.client(
        "s3", endpoint_url=server, aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1"
    )
    name = f"bucket-{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    client.create_bucket(Bucket=name)
    settings = {"FSSPEC_S3_ENDPOINT_URL": server, "FSSPEC_S3_KEY": "key", "FSSPEC_S3_SECRET": "secret"}
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    fsspec.config.set_conf_env(fsspec.config.conf, settings)  # it reads the environment on import, which was before
    yield Bucket(client, name, server)
    fsspec.config.conf.pop("s3")
    client.close()


def shard_of(photo: NDArray[np.uint8], number: int, tmp_path: Path) -> bytes:
    """Three crops, of which one in shard 1 is broken."""
    path = tmp_path / "shard.tar"
    with TarWriter(path) as tar:
        for n in range(3):
            crop = photo[40 * number : 40 * number + 48, 60 * n : 60 * n + 56]
            tar.write(f"{number}-{n}.png", b"" if (number, n) == (1, 1) else png(crop))
    return path.read_bytes()


@pytest.fixture
def archive(bucket: Bucket, photo: NDArray[np.uint8], tmp_path: Path) -> Bucket:
    for number in range(3):
        bucket.put(f"in/{number:05d}.tar", shard_of(photo, number, tmp_path))
    return bucket


def restoring(source: str, output: str, model: Path) -> list[str]:
    return ["restore", "--input", source, "--output", output, "--model", str(model), "--max_failed_ratio", "1"]


def units_to_do(capsys: pytest.CaptureFixture[str]) -> int:
    return int(capsys.readouterr().err.rpartition(" units to do")[0].rpartition(" ")[2])


@pytest.mark.parametrize("pattern", ["in", "in/*.tar", "in/{00000..00002}.tar"])
def test_planning_reads_listings(archive: Bucket, pattern: str) -> None:
    plan = plan_units(f"{archive.url}/{pattern}")
    assert [unit.name for unit in plan.units] == ["00000", "00001", "00002"]
    etags = archive.objects("in/")
    for unit in plan.units:
        (file,) = unit.files
        key = file.url.removeprefix(f"{archive.url}/")
        assert file.version == f"ETag:{etags[key]}"
        assert file.size == len(archive.get(key))


def test_from_bucket_to_bucket_with_the_bytes_of_a_local_run(
    archive: Bucket, negative_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, output = f"{archive.url}/pairs", f"{archive.url}/out"
    degrading = ["degrade", "--input", f"{archive.url}/in/*.tar", "--recipe", "gaussian-25", "--max_failed_ratio", "1"]
    assert main([*degrading, "--output", pairs, *INLINE]) == 0
    assert main([*restoring(f"{pairs}/*.tar", output, negative_model), *INLINE]) == 0
    assert main([*degrading, "--output", str(tmp_path / "pairs"), *INLINE]) == 0
    assert main([*restoring(f"{tmp_path}/pairs/*.tar", str(tmp_path / "out"), negative_model), *INLINE]) == 0
    for name in ("pairs", "out"):
        local = {
            str(path.relative_to(tmp_path / name)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (*(tmp_path / name).glob("*.tar"), *(tmp_path / name).glob("_failed/*.tar"))
        }
        assert archive.shards(f"{name}/") == local
    assert "_failed/00001.tar" in archive.shards("pairs/")
    keys = archive.objects("out/")
    assert {"out/report/index.html", "out/report/summary.json", "out/report/metrics.parquet"} <= set(keys)
    assert not [key for key in keys if "_tmp" in key]
    capsys.readouterr()
    before = archive.objects("out/")
    assert main([*restoring(f"{pairs}/*.tar", output, negative_model), *INLINE]) == 0
    assert units_to_do(capsys) == 0
    after = archive.objects("out/")
    assert {key: tag for key, tag in after.items() if key.endswith("tar") or "_ledger/0" in key} == {
        key: tag for key, tag in before.items() if key.endswith("tar") or "_ledger/0" in key
    }


def test_a_changed_object_is_done_again(
    archive: Bucket, negative_model: Path, photo: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planned twice in one process: fsspec remembered the old listing, and the new object was taken for the old."""
    words = [*restoring(f"{archive.url}/in/*.tar", f"{archive.url}/out", negative_model), *INLINE]
    assert main(words) == 0
    assert units_to_do(capsys) == 3
    before = describe_file(f"{archive.url}/in/00002.tar")
    changed = bytearray(archive.get("in/00002.tar"))
    changed[600] ^= 1  # of the same size
    archive.put("in/00002.tar", bytes(changed))
    assert main(words) == 0
    assert units_to_do(capsys) == 1
    after = plan_units(f"{archive.url}/in/00002.tar").units[0].files[0]
    assert after.size == before.size
    assert after.version != before.version
    archive.put("in/00003.tar", shard_of(photo, 3, tmp_path))
    archive.client.delete_object(Bucket=archive.name, Key="out/00000.tar")
    assert main(words) == 0
    assert units_to_do(capsys) == 2
    summary = json.loads(archive.get("out/report/summary.json"))
    assert summary["units"] == 4


SETTINGS: dict[str, Callable[[str], dict[str, str]]] = {
    "fsspec": lambda url: {"FSSPEC_S3": json.dumps({"endpoint_url": url, "key": "key", "secret": "secret"})},
    "Amazon": lambda url: {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_worker_processes_reach_the_store_by_the_environment(archive: Bucket, negative_model: Path, name: str) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FSSPEC")}
    words = restoring(f"{archive.url}/in/*.tar", f"{archive.url}/out", negative_model)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.main", *words, "--num_local_workers", "2", "--quiet"],
        env=kept | SETTINGS[name](archive.endpoint), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(archive.shards("out/")) == {"00000.tar", "00001.tar", "00002.tar", "_failed/00001.tar"}


def test_without_an_endpoint_or_bucket_the_run_is_refused(
    bucket: Bucket, negative_model: Path, tmp_path: Path, photo: NDArray[np.uint8], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(png(photo[:48, :48]))
    assert main([*restoring(f"{tmp_path}/a.png", "s3://no-such-bucket/out", negative_model), *INLINE]) == 5
    assert "no-such-bucket" in capsys.readouterr().err
    assert main([*restoring("s3://no-such-bucket/in/*.tar", f"{bucket.url}/out", negative_model), *INLINE]) == 5
    assert "no-such-bucket" in capsys.readouterr().err
    assert bucket.objects() == {}


class Crash(BaseException):
    """Stands for the death of a process: nothing catches it."""


class CrashingStore(OutputStore):
    """Dies right before the `number`-th object is put; everything else is the real store."""

    def __init__(self, root: str, number: int) -> None:
        super().__init__(root)
        object.__setattr__(self, "_left", [number])

    def _count(self) -> None:
        left: list[int] = self.__dict__["_left"]
        left[0] -= 1
        if left[0] < 0:
            raise Crash

    def publish(self, finished: Path, name: str) -> None:
        self._count()
        super().publish(finished, name)

    def write(self, name: str, data: bytes) -> None:
        self._count()
        super().write(name, data)


def test_a_crash_inside_a_unit_leaves_whole_objects_or_none(archive: Bucket, negative_model: Path) -> None:
    options = RestoreOptions(
        input=f"{archive.url}/in/00001.tar", output=f"{archive.url}/whole", model=str(negative_model)
    )
    run = Run(job_of(options), plan_units(options.input), OutputStore(options.output), options)
    (unit,) = run.plan.units
    work = run.job.load()
    process_unit(unit, run.job, work, run.store, WorkerOptions())
    whole = archive.shards("whole/")
    assert set(whole) == {"00001.tar", "_failed/00001.tar"}
    for number in range(4):  # the shard, its dead letters, its samples, its ledger
        prefix = f"crash-{number}/"
        store = CrashingStore(f"{archive.url}/{prefix}", number)
        with pytest.raises(Crash):
            process_unit(unit, run.job, work, store, WorkerOptions())
        assert len(archive.objects(prefix)) == number
        assert archive.shards(prefix).items() <= whole.items()
        assert f"{prefix}_ledger/00001.json" not in archive.objects(prefix)
        process_unit(unit, run.job, work, OutputStore(store.root), WorkerOptions())
        assert archive.shards(prefix) == whole
        assert f"{prefix}_ledger/00001.json" in archive.objects(prefix)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the dead process leaves its file open
def test_a_crash_while_records_are_written_leaves_nothing(archive: Bucket, negative_model: Path) -> None:
    """An exception inside an open remote write would have published the part that was there."""
    options = RestoreOptions(
        input=f"{archive.url}/in/00000.tar", output=f"{archive.url}/out", model=str(negative_model)
    )
    run = Run(job_of(options), plan_units(options.input), OutputStore(options.output), options)
    finished: list[int] = []

    def die_after_two(records: int, input_bytes: int) -> None:
        finished.append(records)
        if len(finished) == 2:
            raise Crash

    with pytest.raises(Crash):
        process_unit(run.plan.units[0], run.job, run.job.load(), run.store, WorkerOptions(io_threads=1), die_after_two)
    assert archive.objects("out/") == {}


def test_loose_objects_are_mirrored(bucket: Bucket, negative_model: Path, photo: NDArray[np.uint8]) -> None:
    names = ("a.png", "deep/b.png", "deep/er/c.png")
    for n, name in enumerate(names):
        bucket.put(f"in/{name}", png(photo[:48, 20 * n : 20 * n + 56]))
    bucket.put("in/deep/broken.png", b"")
    assert main([*restoring(f"{bucket.url}/in", f"{bucket.url}/out", negative_model), *INLINE]) == 0
    objects = bucket.objects("out/")
    assert {key for key in objects if key.endswith(".png")} == {f"out/{name}" for name in names}
    for n, name in enumerate(names):
        restored = np.asarray(Image.open(io.BytesIO(bucket.get(f"out/{name}"))))
        np.testing.assert_array_equal(restored, 255 - photo[:48, 20 * n : 20 * n + 56])


def test_retry_and_evaluate_in_a_bucket(
    archive: Bucket, negative_model: Path, tmp_path: Path, photo: NDArray[np.uint8]
) -> None:
    output = f"{archive.url}/out"
    assert main([*restoring(f"{archive.url}/in/*.tar", output, negative_model), *INLINE]) == 0
    with TarWriter(tmp_path / "mended.tar") as tar:
        tar.write("000001/1-1.png", png(photo[40:88, 60:116]))
        letter = {"key": "1-1", "index": 1, "stage": "decode", "reason": "empty", "detail": "zero bytes"}
        tar.write("000001/1-1.failure.json", json.dumps(letter).encode())
    archive.put("out/_failed/00001.tar", (tmp_path / "mended.tar").read_bytes())
    assert main(["retry", "--output", output, *INLINE]) == 0
    assert not archive.shards("out/_failed/")
    words = [
        "evaluate",
        "--input",
        f"{output}/*.tar",
        "--reference",
        f"{archive.url}/in/*.tar",
        "--output",
        f"{archive.url}/eval",
    ]
    assert main([*words, *INLINE, "--max_failed_ratio", "0.2"]) == 0  # the reference of 1-1 is still broken
    summary = json.loads(archive.get("eval/report/summary.json"))
    assert summary["counts"]["records_out"] == 8
    assert summary["dead_letters"]["by_reason"] == {"empty": 1}


# ---------------------------------------------------------------- Google Cloud Storage


@pytest.fixture
def google() -> Iterator[str]:
    """An emulator in a process of its own, with the bucket `archive`."""
    if find_spec("gcp_storage_emulator") is None:
        pytest.skip("gcp-storage-emulator is not installed (extra 'test')")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = ["-m", "gcp_storage_emulator", "start", f"--port={port}", "--in-memory", "--default-bucket=archive"]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as emulator:
        url = f"http://localhost:{port}"
        try:
            wait_for(f"{url}/storage/v1/b/archive/o")
            yield url
        finally:
            emulator.kill()


def wait_for(url: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_google_cloud_storage_from_bucket_to_bucket(
    google: str, photo: NDArray[np.uint8], tmp_path: Path, negative_model: Path
) -> None:
    for number in range(2):
        data = shard_of(photo, number, tmp_path)
        upload = f"{google}/upload/storage/v1/b/archive/o?uploadType=media&name=in/{number:05d}.tar"
        urllib.request.urlopen(urllib.request.Request(upload, data, {"Content-Type": "application/x-tar"})).close()
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number:05d}.tar").write_bytes(data)
    # gcsfs looks for hierarchical name spaces, which the emulator answers after a minute
    settings = {
        "STORAGE_EMULATOR_HOST": google,
        "FSSPEC_GS_TOKEN": "anon",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    words = restoring("gs://archive/in/{00000..00001}.tar", "gs://archive/out", negative_model)
    for expected in ("2 units to do, 0 done before", "0 units to do, 2 done before"):
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.main", *words, "--num_local_workers", "1", "--quiet"],
            env=os.environ | settings, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert expected in done.stderr
    with urllib.request.urlopen(f"{google}/storage/v1/b/archive/o?prefix=out/") as listing:
        names = {item["name"] for item in json.load(listing)["items"]}
    assert {
        "out/00000.tar",
        "out/00001.tar",
        "out/_failed/00001.tar",
        "out/_ledger/00001.json",
        "out/report/index.html",
    } <= names
    assert not [name for name in names if "_tmp" in name]
    assert main([*restoring(f"{tmp_path}/in", str(tmp_path / "out"), negative_model), *INLINE]) == 0
    for name in ("00000.tar", "00001.tar", "_failed/00001.tar"):
        with urllib.request.urlopen(
            f"{google}/download/storage/v1/b/archive/o/out%2F{name.replace('/', '%2F')}?alt=media"
        ) as stored:
            assert stored.read() == (tmp_path / "out" / name).read_bytes()
