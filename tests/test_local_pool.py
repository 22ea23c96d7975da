"""What the pool does when workers or units keep failing: it ends, and says why; and workers that start before there is work.

Killed workers: test_resume.
"""

from __future__ import annotations

import multiprocessing
import pickle
import time
from pathlib import Path

import pytest
from PIL import Image

from models.recipes import load_recipe
from pipelines.degrade import DegradeJob
from transforms.errors import ConfigurationError, UnitError
from transforms.local_pool import WorkerPool, workers_ahead
from transforms.restoration import RestoreJob
from transforms.restorer import RestorerFactory
from transforms.storage import InputFile, OutputStore
from transforms.unit_pipeline import WorkerOptions
from transforms.units import Unit, plan_units


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


def a_shard(folder: Path) -> list[Unit]:
    (folder / "in").mkdir()
    Image.new("RGB", (40, 30), "olive").save(folder / "in" / "a.png")
    return list(plan_units(str(folder / "in")).units)


def worker_ids() -> set[int | None]:
    return {child.pid for child in multiprocessing.active_children()}


def test_a_pool_takes_the_workers_that_have_loaded_ahead(tmp_path: Path) -> None:
    units, before = a_shard(tmp_path), worker_ids()
    pool = pool_of(DegradeJob(load_recipe("gaussian-25")), tmp_path)
    with workers_ahead(pool, units):
        ahead = worker_ids() - before
        assert len(ahead) == 1  # as many as there are units
        copy: WorkerPool = pickle.loads(pickle.dumps(pool))  # as it comes out of the pipeline
        for summary in copy.run(units):
            assert summary.records == 1
            assert worker_ids() - before == ahead
    assert not worker_ids() - before


def test_units_are_done_before_the_pool_runs(tmp_path: Path) -> None:
    """While the driver imports Beam."""
    units = a_shard(tmp_path)
    pool = pool_of(DegradeJob(load_recipe("gaussian-25")), tmp_path)
    with workers_ahead(pool, units):
        ledger = tmp_path / "out" / "_ledger" / f"{units[0].name}.json"
        for _ in range(600):
            if ledger.exists():
                break
            time.sleep(0.1)
        written = ledger.stat().st_mtime_ns
        assert [summary.records for summary in pool.run(units)] == [1]
        assert ledger.stat().st_mtime_ns == written  # it was not done again


def test_units_begun_may_be_asked_for_in_several_bundles(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (40, 30), "olive").save(tmp_path / "in" / f"{name}.png")
    units, before = list(plan_units(str(tmp_path / "in"), pictures_per_unit=1).units), worker_ids()
    pool = pool_of(DegradeJob(load_recipe("gaussian-25")), tmp_path)
    with workers_ahead(pool, units):
        ahead = worker_ids() - before
        assert len(ahead) == len(units) == 2
        assert [summary.records for summary in pool.run(units[1:])] == [1]
        assert worker_ids() - before == ahead
        assert [summary.records for summary in pool.run(units[:1])] == [1]
    assert not worker_ids() - before


def test_workers_ahead_end_where_the_run_is_refused(tmp_path: Path) -> None:
    before = worker_ids()
    pool = pool_of(DegradeJob(load_recipe("gaussian-25")), tmp_path)

    def refuse() -> None:
        with workers_ahead(pool, [missing_unit(tmp_path, name) for name in "abcde"]):
            assert len(worker_ids() - before) == 2
            raise ConfigurationError("the output can't be written")

    with pytest.raises(ConfigurationError, match="can't be written"):
        refuse()
    assert not worker_ids() - before


def test_workers_ahead_of_another_output_are_left_alone(tmp_path: Path) -> None:
    units, before = a_shard(tmp_path), worker_ids()
    job = DegradeJob(load_recipe("gaussian-25"))
    with workers_ahead(pool_of(job, tmp_path / "other"), units):
        ahead = worker_ids() - before
        assert [summary.records for summary in pool_of(job, tmp_path).run(units)] == [1]
        assert worker_ids() - before == ahead
    assert not worker_ids() - before


def test_a_worker_that_cannot_load_ahead_is_one_failed_round(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from models.zoo import zoo_path
    from transforms.onnx_restorer import OnnxRestorerFactory

    model = tmp_path / "model.onnx"
    model.write_bytes(zoo_path("denoise5-gray-25").read_bytes())
    factory: RestorerFactory = OnnxRestorerFactory(str(model))
    pool = pool_of(RestoreJob(factory), tmp_path)
    pool.job.fingerprint()
    model.unlink()
    units = [missing_unit(tmp_path, "a"), missing_unit(tmp_path, "b")]
    with workers_ahead(pool, units):
        for worker in multiprocessing.active_children():
            worker.join(60)
        with pytest.raises(UnitError, match="workers failed 3 times before any unit was done"):
            list(pool.run(units))
    assert "model.onnx" in capfd.readouterr().err
