"""What the pool does when workers or units keep failing: it ends, and says why. (Killed workers: test_resume.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from models.recipes import load_recipe
from pipelines.degrade import DegradeJob
from transforms.errors import UnitError
from transforms.local_pool import WorkerPool
from transforms.restoration import RestoreJob
from transforms.restorer import RestorerFactory
from transforms.storage import InputFile, OutputStore
from transforms.unit_pipeline import WorkerOptions
from transforms.units import Unit


def pool_of(job: DegradeJob | RestoreJob, folder: Path) -> WorkerPool:
    return WorkerPool(job, OutputStore(str(folder / "out")), WorkerOptions(), 2, show_progress=False)


def missing_unit(folder: Path, name: str) -> Unit:
    return Unit(name, "tar", (InputFile(str(folder / f"{name}.tar"), 10, ""),))


def test_a_shard_that_can_never_be_read_ends_the_run(tmp_path: Path) -> None:
    job = DegradeJob(load_recipe("gaussian-25"))
    with pytest.raises(UnitError, match=r"FileNotFoundError.*gone\.tar"):
        list(pool_of(job, tmp_path).run([missing_unit(tmp_path, "gone")]))


def test_workers_that_cannot_start_end_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A model that vanishes between the driver's check and the workers' start must not restart workers for ever."""
    from models.zoo import zoo_path
    from transforms.onnx_restorer import OnnxRestorerFactory

    model = tmp_path / "model.onnx"
    model.write_bytes(zoo_path("denoise5-gray-25").read_bytes())
    factory: RestorerFactory = OnnxRestorerFactory(str(model))
    job = RestoreJob(factory)
    job.fingerprint()
    model.unlink()
    with pytest.raises(UnitError, match="workers failed 3 times before any unit was done"):
        list(pool_of(job, tmp_path).run([missing_unit(tmp_path, "a"), missing_unit(tmp_path, "b")]))
    assert "model.onnx" in capfd.readouterr().err
