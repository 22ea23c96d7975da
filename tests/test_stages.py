"""The Beam stages: exact sums in any grouping, figures that arrive, separate worker processes, Dataflow's own checks."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import PipelineVisitor
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.display import DisplayData
from apache_beam.transforms.environments import ExternalEnvironment
from apache_beam.typehints.decorators import TypeCheckError
from apache_beam.utils import shared
from numpy.typing import NDArray
from pair_kit import png

from pipelines.beam_flags import open_pipeline, parse_beam_flags
from pipelines.driver import build
from pipelines.main import main
from pipelines.options import DegradeOptions, EvaluateOptions, RestoreOptions, RunOptions
from pipelines.run import Run, divide
from pipelines.verbs import job_of
from transforms.formats.tar import TarWriter, write_record
from transforms.ledger import Ledger, read_ledger
from transforms.local_pool import WorkerPool
from transforms.stages import (
    FeedWorkerPoolFn,
    ProcessUnitFn,
    ProcessUnits,
    ReadSummaryFn,
    SummariseAndReport,
    SummaryFn,
    WriteReportFn,
)
from transforms.storage import OutputStore
from transforms.summary import Summary, summarise
from transforms.unit_pipeline import WorkerOptions
from transforms.units import plan_units

OWN_WORKERS = ("--runner", "FnApiRunner")  # no pool of this machine: the engine's own workers do the units


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, photo: NDArray[np.uint8]) -> Path:
    """Four shards of three crops; one record of the second shard is broken."""
    folder = tmp_path_factory.mktemp("archive")
    for shard in range(4):
        with TarWriter(folder / f"{shard:05d}.tar") as tar:
            for n in range(3):
                crop = photo[40 * shard : 40 * shard + 48, 60 * n : 60 * n + 56]
                write_record(tar, f"{shard}-{n}", {"png": b"" if (shard, n) == (1, 1) else png(crop)})
    return folder


def restoring(archive: Path, output: Path, model: Path) -> Run:
    return run_of(RestoreOptions(input=f"{archive}/*.tar", output=str(output), model=str(model)))


def degrading(archive: Path, output: Path) -> Run:
    return run_of(DegradeOptions(input=f"{archive}/*.tar", output=str(output), recipe="gaussian-25"))


def run_of(options: RunOptions) -> Run:
    return Run(job_of(options), plan_units(options.input), OutputStore(options.output), options, OWN_WORKERS)


def carried_out(run: Run, runner: FnApiRunner, *flags: str) -> Any:
    """Builds the pipeline that the command line builds, and runs it here."""
    pipeline = beam.Pipeline(runner=runner, options=PipelineOptions(list(flags)))
    build(pipeline, run, *divide(run))
    result = pipeline.run()
    result.wait_until_finish()
    return result


def shards(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("*.tar"))}


# ---------------------------------------------------------------- summaries


def ledgers(count: int) -> list[dict[str, Any]]:
    """Units with figures whose floating-point sum depends on the order: 1e16, tiny ones, infinities."""
    rng = random.Random(5)
    found = []
    for unit in range(count):
        rows = [
            {
                "key": f"{unit}/{n}", "index": n, "width": 31, "height": 7 + n, "channels": 3, "bits": 8,
                "metrics": {
                    "psnr[rgb,u8]": "inf" if n == 3 else rng.choice([1e16, 1.0, -1e16, 1e-9, 28.13]),
                    "input psnr[rgb,u8]": rng.uniform(15, 25),
                },
                "notes": [f"note {n % 2}"],
            }
            for n in range(5)
        ]  # fmt: skip
        counts = {"records_in": 6, "records_out": 5, "dead_letters": 1}
        letters = [{"key": "x", "index": 5, "reason": "empty", "detail": "", "stage": "decode"}]
        ledger = Ledger(f"{unit:05d}", "restore", "f", [], "tar", [], counts, {"wall": rng.random()}, rows, letters)
        found.append(ledger.to_dict())
    return found


def summary_of(ledger: dict[str, Any]) -> Summary:
    summary = Summary()
    summary.add_ledger(ledger)
    return summary


def figures(summary: Summary) -> str:
    return json.dumps(summary.to_json(), sort_keys=True)


GROUPINGS: dict[str, Callable[[], beam.PTransform]] = {
    "all at once": lambda: beam.CombineGlobally(SummaryFn()),
    "fanned out": lambda: beam.CombineGlobally(SummaryFn()).with_fanout(3),
    "one key": lambda: beam.WithKeys(0) | beam.CombinePerKey(SummaryFn()) | beam.Values(),
    "one hot key": lambda: beam.WithKeys(0) | beam.CombinePerKey(SummaryFn()).with_hot_key_fanout(4) | beam.Values(),
    "by parts": lambda: (
        beam.WithKeys(units_modulo_3)
        | beam.CombinePerKey(SummaryFn())
        | beam.Values()
        | beam.CombineGlobally(SummaryFn())
    ),
}


def units_modulo_3(summary: Summary) -> int:
    return summary.counts["records_in"] % 3


def test_any_grouping_and_order_gives_the_very_same_figures() -> None:
    units = ledgers(23)
    expected = figures(summarise(units))
    shuffled = random.Random(2).sample(units, len(units))
    with beam.Pipeline(runner=FnApiRunner(bundle_repeat=1)) as pipeline:  # each bundle twice: no input may be changed
        for order, elements in (("in order", units), ("shuffled", shuffled)):
            summaries = pipeline | order >> beam.Create(elements) | f"{order}, read" >> beam.Map(summary_of)
            for name, grouping in GROUPINGS.items():
                label = f"{name}, {order}"
                merged = summaries | label >> grouping() | f"{label}, figures" >> beam.Map(figures)
                assert_that(merged, equal_to([expected]), f"{label}, compared")


def test_nothing_at_all_still_gives_one_summary() -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        merged = (
            pipeline | beam.Create([], reshuffle=False).with_output_types(Summary) | beam.CombineGlobally(SummaryFn())
        )
        assert_that(merged | beam.Map(figures), equal_to([figures(Summary())]))


# ---------------------------------------------------------------- what travels


def test_every_stage_travels_with_its_job(archive: Path, tmp_path: Path, negative_model: Path) -> None:
    jobs = {
        "restore": restoring(archive, tmp_path, negative_model).job,
        "degrade": degrading(archive, tmp_path).job,
        "evaluate": job_of(EvaluateOptions(input=str(archive), output=str(tmp_path))),
    }
    store, options = OutputStore(str(tmp_path)), WorkerOptions()
    names = beam.pvalue.AsIter(beam.Pipeline(runner=FnApiRunner()) | beam.Create(["a"]))
    for verb, job in jobs.items():
        stages = (
            ProcessUnitFn(job, store, options, shared.Shared()),
            FeedWorkerPoolFn(WorkerPool(job, store, options, 2)),
            ReadSummaryFn(store),
            WriteReportFn(store, job.describe(), None),
            SummaryFn(),
            ProcessUnits(job, store, options),
        )
        for stage in stages:
            assert isinstance(pickler.loads(pickler.dumps(stage)), type(stage))
        assert isinstance(SummariseAndReport(store, job.describe(), names), beam.PTransform)
        travelled = pickle.loads(pickle.dumps(job))
        assert travelled == job
        assert travelled.fingerprint() == job.fingerprint()
        assert travelled.verb == verb
        assert len(pickle.dumps(job)) < 10_000  # a description, and never a model or pictures


def test_stages_describe_themselves(archive: Path, tmp_path: Path) -> None:
    run = degrading(archive, tmp_path)
    for workers, expected in ((0, {}), (3, {"local_workers": 3})):
        stage = beam.ParDo(ProcessUnits(run.job, run.store, WorkerOptions(), workers)._stage())
        shown = {item.key: item.value for item in DisplayData.create_from(stage).items}
        assert shown.items() >= ({"verb": "degrade", "output": str(tmp_path)} | expected).items()


def test_types_are_checked_while_the_pipeline_is_built(archive: Path, tmp_path: Path) -> None:
    run = degrading(archive, tmp_path)
    pipeline = beam.Pipeline(runner=FnApiRunner())
    report = build(pipeline, run, run.plan.units, [])
    assert report.element_type is str
    produced: dict[str, Any] = {}
    pipeline.visit(_OutputTypes(produced))
    assert produced["ProcessUnits/RunUnit"] is produced["ReadSummaries"] is produced["Report/Summarise"] is Summary
    with pytest.raises(TypeCheckError, match="Unit"):
        beam.Pipeline(runner=FnApiRunner()) | beam.Create([1]) | ProcessUnits(run.job, run.store, WorkerOptions())
    names = beam.pvalue.AsIter(pipeline | "Names" >> beam.Create(["a"]))
    with pytest.raises(TypeCheckError, match="Summary"):
        pipeline | "Wrong" >> beam.Create([1]) | SummariseAndReport(run.store, {}, names)


class _OutputTypes(PipelineVisitor):
    """Notes what each step gives."""

    def __init__(self, produced: dict[str, Any]) -> None:
        self._produced = produced

    def enter_composite_transform(self, node: Any) -> None:
        self.visit_transform(node)

    def visit_transform(self, node: Any) -> None:
        for collection in node.outputs.values():
            self._produced[node.full_label] = collection.element_type


def test_no_stage_is_a_leaf_but_the_report(archive: Path, tmp_path: Path) -> None:
    """A worker that is killed in a leaf makes the local runner wait for ever (measured): every stage feeds the report."""
    run = degrading(archive, tmp_path)
    pipeline = beam.Pipeline(runner=FnApiRunner())
    build(pipeline, run, run.plan.units[:2], [unit.name for unit in run.plan.units[2:]])
    components = pipeline.to_runner_api().components
    leaves = [t for t in components.transforms.values() if not t.subtransforms]
    consumed = {name for transform in leaves for name in transform.inputs.values()}
    last = [t.unique_name for t in leaves if not consumed & set(t.outputs.values())]
    assert last == ["Report/WriteReport"]


# ---------------------------------------------------------------- runs


def metrics_of(result: Any) -> tuple[dict[str, int], dict[str, Any]]:
    found = result.metrics().query()
    assert {metric.key.metric.namespace for kind in found.values() for metric in kind} <= {"conservator"}
    return (
        {counter.key.metric.name: counter.committed for counter in found["counters"]},
        {distribution.key.metric.name: distribution.committed for distribution in found["distributions"]},
    )


@pytest.fixture(scope="module")
def inline(
    archive: Path, tmp_path_factory: pytest.TempPathFactory, negative_model: Path
) -> tuple[Path, dict[str, int], dict[str, Any]]:
    """An undisturbed run in this process: its output, counters and distributions."""
    output = tmp_path_factory.mktemp("inline")
    result = carried_out(restoring(archive, output, negative_model), FnApiRunner())
    return output, *metrics_of(result)


def test_counters_and_distributions_arrive(inline: tuple[Path, dict[str, int], dict[str, Any]]) -> None:
    output, counters, distributions = inline
    store = OutputStore(str(output))
    committed = [read_ledger(store, f"{shard:05d}") or {} for shard in range(4)]
    total: Counter[str] = Counter()
    for ledger in committed:
        total.update(ledger["counts"])
    assert counters == total
    assert counters["records_in"] == 12
    assert counters["dead_letters"] == 1
    assert counters["pixels_out"] == 11 * 48 * 56
    assert set(distributions) == {f"unit_{stage}_msecs" for ledger in committed for stage in ledger["timings_s"]}
    wall = distributions["unit_wall_msecs"]
    assert wall.count == 4
    assert wall.sum == pytest.approx(sum(1000 * ledger["timings_s"]["wall"] for ledger in committed), abs=4)


def test_this_machines_workers_count_too(
    archive: Path, tmp_path: Path, negative_model: Path, inline: tuple[Path, dict[str, int], dict[str, Any]]
) -> None:
    run = replace(restoring(archive, tmp_path, negative_model), beam_flags=())
    run = replace(run, options=replace(run.options, num_local_workers=1, quiet=True))
    counters, distributions = metrics_of(carried_out(run, FnApiRunner()))
    assert counters == inline[1]
    assert distributions["unit_wall_msecs"].count == 4
    assert shards(tmp_path) == shards(inline[0])


def test_a_bundle_done_twice_changes_nothing(
    archive: Path, tmp_path: Path, negative_model: Path, inline: tuple[Path, dict[str, int], dict[str, Any]]
) -> None:
    carried_out(restoring(archive, tmp_path, negative_model), FnApiRunner(bundle_repeat=2))
    assert shards(tmp_path) == shards(inline[0])
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["counts"] == json.loads((inline[0] / "report" / "summary.json").read_text())["counts"]


class Servicer(BeamFnExternalWorkerPoolServicer):
    """Beam's worker pool; keeps hold of itself, since `start` gives only its address."""

    started: ClassVar[list[Servicer]] = []

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.started.append(self)

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        return list(self._worker_processes.values())


@dataclass
class Pool:
    """Separate SDK worker processes over gRPC, as a cluster would have them."""

    address: str
    servicer: Servicer

    def runner(self) -> FnApiRunner:
        return FnApiRunner(default_environment=ExternalEnvironment(self.address))


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    monkeypatch.setenv(
        "PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )  # it spawns a bare `python`
    address, server = Servicer.start(use_process=True)
    servicer = Servicer.started.pop()
    yield Pool(address, servicer)
    for process in servicer.processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    servicer._worker_processes.clear()
    server.stop(0).wait()


def test_two_worker_processes_over_grpc_give_the_same_bytes(
    archive: Path, tmp_path: Path, negative_model: Path, inline: tuple[Path, dict[str, int], dict[str, Any]], pool: Pool
) -> None:
    run = restoring(archive, tmp_path, negative_model)
    result = carried_out(run, pool.runner(), "--direct_num_workers=2")
    assert len({process.pid for process in pool.servicer.processes} - {os.getpid()}) == 2
    assert shards(tmp_path) == shards(inline[0])
    assert (tmp_path / "_failed" / "00001.tar").read_bytes() == (inline[0] / "_failed" / "00001.tar").read_bytes()
    assert metrics_of(result)[0] == inline[1]


@pytest.mark.timeout(90)
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # Beam's own threads lose their peer
def test_a_killed_grpc_worker_is_an_error_and_no_hang(tmp_path: Path, photo: NDArray[np.uint8], pool: Pool) -> None:
    folder, output = tmp_path / "archive", tmp_path / "out"
    folder.mkdir()
    for shard in range(4):
        with TarWriter(folder / f"{shard:05d}.tar") as tar:
            for n in range(4):
                write_record(tar, f"{shard}-{n}", {"png": png(photo)})
    killed_s: list[float] = []

    def kill_one_worker() -> None:
        while not list(output.glob("_ledger/0*.json")):
            time.sleep(0.005)
        pool.servicer.processes[0].kill()
        killed_s.append(time.monotonic())

    threading.Thread(target=kill_one_worker, daemon=True).start()
    run = degrading(folder, output)
    with pytest.raises(RuntimeError):
        carried_out(run, pool.runner(), "--direct_num_workers=2")
    assert time.monotonic() - killed_s[0] < 30
    todo, done = divide(run)
    assert todo
    assert done
    carried_out(run, FnApiRunner())
    carried_out(degrading(folder, tmp_path / "whole"), FnApiRunner())
    assert shards(output) == shards(tmp_path / "whole")


# ---------------------------------------------------------------- Dataflow

DATAFLOW = (
    "--runner",
    "DataflowRunner",
    "--dry_run",
    "--no_auth",
    "--project",
    "project-1",
    "--region",
    "europe-west4",
)
needs_dataflow_client = pytest.mark.skipif(
    find_spec("google.cloud.dataflow") is None, reason="google-cloud-dataflow-client is not installed (extra 'gcp')"
)


@needs_dataflow_client
def test_dataflow_accepts_the_pipeline(archive: Path, tmp_path: Path, negative_model: Path) -> None:
    flags = [*DATAFLOW, "--temp_location", "gs://bucket/tmp", "--sdk_container_image", "registry/conservator:1"]
    run = replace(restoring(archive, tmp_path / "out", negative_model), beam_flags=tuple(flags))
    pipeline = open_pipeline(parse_beam_flags(flags))
    build(pipeline, run, *divide(run))
    job = pipeline.run().job
    steps = {transform.unique_name for transform in job.proto_pipeline.components.transforms.values()}
    assert steps >= {"ProcessUnits/Spread", "ProcessUnits/RunUnit", "ReadSummaries", "AllUnits", "Report/WriteReport"}
    images = {environment.payload for environment in job.proto_pipeline.components.environments.values()}
    assert any(b"registry/conservator:1" in image for image in images)
    pardo = next(
        t for t in job.proto_pipeline.components.transforms.values() if t.unique_name == "ProcessUnits/RunUnit"
    )
    shown = b"".join(item.payload for item in pardo.display_data)
    assert b"restore" in shown


@needs_dataflow_client
@pytest.mark.parametrize("spelling", [["--dry_run"], ["--dry-run"], ["--dry_run=True"], ["--dry_run", "True"]])
def test_the_dry_run_of_the_command_line_writes_nothing(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spelling: list[str]
) -> None:
    words = ["degrade", "--input", str(archive), "--recipe", "gaussian-25", "--output", str(tmp_path / "out")]
    flags = [*(word for word in DATAFLOW if word != "--dry_run"), *spelling, "--temp_location", "gs://bucket/tmp"]
    assert main([*words, *flags]) == 0
    assert "nothing was done, written or submitted" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@needs_dataflow_client
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "none is given"),
        (("--temp_location", "gs://x/tmp"), "gs://x/tmp"),  # Beam alone would wait for the network here
        (("--temp_location", "/tmp/local"), "/tmp/local"),
        (("--temp_location", "gs://bucket/tmp", "--project", "p"), "Invalid Project ID"),
        (("--temp_location", "gs://bucket/tmp", "--num_workers", "few"), "few"),
    ],
)
def test_dataflow_flags_are_checked_before_anything_happens(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    words = ["degrade", "--input", str(archive), "--recipe", "gaussian-25", "--output", str(tmp_path / "out")]
    assert main([*words, *DATAFLOW, *flags]) in (2, 5)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
