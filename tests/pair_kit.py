"""Small pictures, tars of them, and pairs made without an engine: what the tests of several files share."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from pipelines.degrade import DegradeJob
from pipelines.degrade_flags import degrade_job
from pipelines.options import DegradeOptions
from transforms.formats.shards import read_shard
from transforms.formats.tar import TarWriter, read_tar, write_record
from transforms.ledger import read_ledger
from transforms.storage import OutputStore
from transforms.unit_pipeline import WorkerOptions, process_unit
from transforms.units import Unit, plan_units

INLINE = ("--runner", "apache_beam.runners.portability.fn_api_runner.FnApiRunner", "--quiet")
SHARDS = ("tar", "parquet", "arrow")
Array = NDArray[Any]
WITH_ARRAYS = """
kind: degradation
description: kernels and masks
source: none
channels: rgb
arrays: [kernel, mask]
patches: {size: 32, per_image: 2}
degradation: {sequence: [{gaussian_blur: {sigma: {uniform: [0.5, 2]}}}, {random_pixels_mask: {missing: 0.3}}]}
"""


def png(pixels: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def crops(photo: Array, count: int) -> dict[str, Array]:
    return {f"{n:02d}": photo[30 * n : 30 * n + 48, 20 * n : 20 * n + 56] for n in range(count)}


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with TarWriter(path) as shard:
        for name, data in members.items():
            shard.write(name, data)
    return path


def job_of(**options: Any) -> DegradeJob:
    asked = {"recipe": "gaussian-25", "patch_size": 24, "patches_per_image": 3, "seed": 4} | options
    return degrade_job(DegradeOptions(input="", output="", **asked))


def run(job: DegradeJob, source: Path | Unit, output: Path, io_threads: int = 2) -> dict[str, Any]:
    """Does one unit, without an engine; its ledger."""
    unit = source if isinstance(source, Unit) else plan_units(str(source)).units[0]
    store = OutputStore(str(output))
    process_unit(unit, job, job.load(), store, WorkerOptions(io_threads))
    ledger = read_ledger(store, unit.name)
    assert ledger is not None
    return ledger


def files_of(output: Path) -> dict[str, bytes]:
    """All but ledgers and samples, which hold times or only illustrate."""
    found = {str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(("_ledger", "report"))}


def records_in(output: Path) -> dict[str, dict[str, bytes]]:
    """KEY -> fields, of all shards of an output in the order of their names."""
    names = sorted(name for name in files_of(output) if name.endswith(SHARDS) and not name.startswith("_"))
    shards = [output / name for name in names]
    return {record.key: record.fields for path in shards for record in read_shard(str(path))}


def described(fields: dict[str, bytes]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fields["json"])
    return found


def small_shards(job: DegradeJob, size: int) -> DegradeJob:
    return replace(job, layout=replace(job.layout, shard_bytes=size))


def broken_archive(folder: Path, photo: Array, broken: tuple[str, ...]) -> Path:
    members = {f"{k}.png": b"broken" if k in broken else png(c) for k, c in crops(photo, 8).items()}
    return write_tar(folder / "s.tar", members)


def repair(output: Path, photo: Array) -> None:
    """What a person does: the broken file is replaced among the dead letters."""
    letters = output / "_failed" / "s.tar"
    records = list(read_tar(str(letters)))
    with TarWriter(letters) as archive:
        for record in records:
            key = record.key.rpartition("/")[2]
            write_record(
                archive, record.key, {"png": png(crops(photo, 8)[key]), "failure.json": record.fields["failure.json"]}
            )


def everything_in(output: Path) -> dict[str, Any]:
    """All files, ledgers without the times."""
    found: dict[str, Any] = {str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()}
    for name, path in found.items():
        found[name] = path.read_bytes()
        if name.startswith("_ledger") and name.endswith(".json"):
            found[name] = {key: value for key, value in json.loads(found[name]).items() if key != "timings_s"}
    return found
