"""The driver: drops the units that are done, runs the Beam pipeline over the rest, and says how it went."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import apache_beam as beam

from pipelines.beam_flags import is_dry_run, open_pipeline, parse_beam_flags, submits_to_dataflow
from pipelines.preparation import LEFTOVERS_AFTER_S, Prepared, prepare, units_to_replace
from pipelines.run import EMBEDDED_RUNNER, Run, divide
from transforms.earlier_outputs import remove_replaced
from transforms.stages import ProcessUnits, ReadSummaryFn, SummariseAndReport
from transforms.summary import BASELINES, is_baseline
from transforms.units import Unit
from transforms.version import VERSION
from transforms.work import DrawingJob

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_DEAD_LETTERS, EXIT_REFUSED, EXIT_INTERRUPTED = 0, 1, 2, 3, 5, 130
_REJECTED = "rejected_"


def execute(run: Run, prepared: Prepared | None = None, *, say: bool = True) -> int:
    """Runs a command to its end and returns the exit code.

    Args:
        prepared: what `prepare` returned, where it was called before.

    Raises:
        ConfigurationError: refused before Beam was started.
    """
    pipeline = open_pipeline(parse_beam_flags(run.beam_flags, EMBEDDED_RUNNER if run.local_workers else None))
    if is_dry_run(pipeline.options):
        return rehearse(run, pipeline, say=say)
    prepared = prepared or prepare(run)
    if say:
        _announce(run, prepared.todo, prepared.done, prepared.replaced)
    about = provenance(run)
    build(pipeline, run, prepared.todo, prepared.done, about, prepared.started_s)
    result = pipeline.run()
    if result is not None:
        result.wait_until_finish()
    report = json.loads(run.store.read("report/summary.json") or b"{}")
    if report.get("job", {}).get("run") != about["run"]:  # a runner that only submits
        if say:
            print("submitted; the report will appear under", run.store.url("report/index.html"))
        if say and prepared.replaced:
            print("what earlier runs left is removed by the same command once more, when this run is done")
        return EXIT_DONE
    _remove_replaced(run)
    run.store.sweep(LEFTOVERS_AFTER_S, time.time())
    return conclude(run, report, time.time() - prepared.started_s, say=say)


def _remove_replaced(run: Run) -> None:
    """Takes away what earlier runs left in the output. Pairs are drawn anew with other options and would mix with these;
    restored pictures whose source left the input are somebody's results."""
    if not run.is_retry and run.job.verb in ("degrade", "restore"):
        remove_replaced(run.store, run.plan.names, run.job.verb, only_recut=run.job.verb == "restore")


def rehearse(run: Run, pipeline: beam.Pipeline, *, say: bool) -> int:
    """`--dry_run`: plans and builds the pipeline, lets the runner check it where it can, and writes nothing."""
    todo, done = divide(run)
    replaced = units_to_replace(run)
    if say:
        _announce(run, todo, done, replaced)
    build(pipeline, run, todo, done)
    if submits_to_dataflow(pipeline.options, pipeline.runner):
        pipeline.run()  # returns before anything is sent
    if say:
        print("dry run: the pipeline is accepted; nothing was done, written or submitted")
    return EXIT_DONE


def build(
    pipeline: beam.Pipeline,
    run: Run,
    todo: Sequence[Unit],
    done: Sequence[str],
    about: dict[str, Any] | None = None,
    started_s: float | None = None,
) -> beam.PCollection[str]:
    """Adds the whole graph to a pipeline; every stage feeds the one report."""
    names = pipeline | "UnitNames" >> beam.Create(run.plan.names)
    fresh = (
        pipeline
        | "UnitsToDo" >> beam.Create(list(todo))
        | "ProcessUnits"
        >> ProcessUnits(run.job, run.store, run.worker_options(), run.local_workers, not run.options.quiet)
    )
    earlier = (
        pipeline | "UnitsDone" >> beam.Create(list(done)) | "ReadSummaries" >> beam.ParDo(ReadSummaryFn(run.store))
    )
    return (
        (fresh, earlier)
        | "AllUnits" >> beam.Flatten()
        | "Report"
        >> SummariseAndReport(
            run.store, about or provenance(run), beam.pvalue.AsIter(names), None if done else started_s or time.time()
        )
    )


def provenance(run: Run) -> dict[str, Any]:
    """Everything the report says about how the results came to be."""
    drawn = {"expected_draws": run.job.expected_draws()} if isinstance(run.job, DrawingJob) else {}
    return (
        drawn
        | run.job.describe()
        | {
            "verb": run.job.verb,
            "command": shlex.join(["conservator", *sys.argv[1:]]),
            "run": uuid.uuid4().hex,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "fingerprint": run.job.fingerprint(),
            "input": getattr(run.options, "input", ""),
            "output": run.store.root,
            "ignored_files": len(run.plan.ignored),
            "local_workers": run.local_workers,
            "versions": {
                "conservator": VERSION,
                "python": platform.python_version(),
                **{name: _version(name) for name in ("apache-beam", "numpy", "pillow", "onnxruntime")},
            },
        }
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except ImportError:
        return "absent"


def _announce(run: Run, todo: Sequence[Unit], done: Sequence[str], replaced: Sequence[str]) -> None:
    where = f"{run.local_workers} local workers" if run.local_workers else "the runner's own workers"
    print(f"{run.job.verb}: {len(todo)} units to do, {len(done)} done before, on {where}", file=sys.stderr)
    if run.plan.ignored:
        print(
            f"left alone: {len(run.plan.ignored)} files that are no pictures ({', '.join(run.plan.ignored[:3])}, ...)",
            file=sys.stderr,
        )
    if replaced:
        print(
            f"{len(replaced)} units of earlier runs into this output are not in this run ({', '.join(replaced[:3])}, ...): "
            "their pairs are removed when it has succeeded",
            file=sys.stderr,
        )


def conclude(run: Run, summary: dict[str, Any], elapsed_s: float, *, say: bool) -> int:
    """Prints the closing lines and decides the exit code."""
    counts = summary["counts"]
    records, failed = counts.get("records_in", 0), counts.get("dead_letters", 0)
    if say:
        rate = counts.get("pixels_out", 0) / 1e6
        print(
            f"{counts.get('records_out', 0)} records written, {failed} dead letters, {rate:.1f} MPix in {elapsed_s:.1f} s"
        )
        for line in _rejections(run, counts):
            print(line)
        for line in _gains(summary):
            print(line)
        if failed:
            print(
                "dead letters:",
                run.store.url("_failed"),
                "- drive them again with: conservator retry --output",
                run.options.output,
            )
        print("report:", run.store.url("report/index.html"))
    if failed > run.options.max_failed_ratio * max(records, 1):
        return EXIT_DEAD_LETTERS
    return EXIT_DONE


def _rejections(run: Run, counts: Mapping[str, int]) -> list[str]:
    """Places that gave no pair, by reason, the most frequent first; and whether none gave one."""
    if run.job.verb != "degrade":
        return []
    rejected = {name.removeprefix(_REJECTED): count for name, count in counts.items() if name.startswith(_REJECTED)}
    by_count = sorted(rejected.items(), key=_most_first)
    lines = [f"rejected: {', '.join(f'{count} {reason}' for reason, count in by_count)}"] if by_count else []
    if not counts.get("records_out"):
        smaller = "give a smaller --patch_size, or --whole, or " if "too_small" in rejected else ""
        lines.append(f"NO PAIR WAS MADE: {smaller}see the recipe's limits and the dead letters")
    return lines


def _most_first(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]


def _gains(summary: dict[str, Any]) -> list[str]:
    lines = []
    for name, figures in summary["metrics"].items():
        if is_baseline(name) or figures["mean"] is None:
            continue
        line = f"{name}: mean {figures['mean']:.3f}"
        gain = summary["gains"].get(name)
        if gain and gain["mean"] is not None:
            compared = next(meaning for prefix, meaning in BASELINES.items() if prefix + name in summary["metrics"])
            line += f", gain over the {compared} {gain['mean']:+.3f}"
        lines.append(f"{line} {figures['unit']}".rstrip())
    return lines
