"""One restoration on Beam's own local workers, two of them; `bench_shapes.py` runs it as a process of its own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils import shared

from pipelines.options import RestoreOptions
from pipelines.restore import restore_job
from pipelines.run import EMBEDDED_RUNNER
from transforms.stages import ProcessUnitFn, SummariseAndReport
from transforms.storage import OutputStore
from transforms.summary import Summary
from transforms.unit_pipeline import WorkerOptions
from transforms.units import plan_units

WORKERS = 2


class OneEach:
    """In place of Beam's process-wide handle, under which the threads of a process would take turns."""

    def acquire(self, load: Callable[[], Any], tag: Any = None) -> Any:
        return load()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("input", "output", "model", "mode"):
        parser.add_argument(f"--{name}")
    arguments = parser.parse_args()
    options = RestoreOptions(input=arguments.input, output=arguments.output, model=arguments.model, session_threads=1)
    job, units, store = (
        restore_job(options, WORKERS, WORKERS),
        plan_units(options.input).units,
        OutputStore(options.output),
    )
    handle = OneEach() if arguments.mode == "multi_threading" else shared.Shared()
    flags = [
        f"--runner={EMBEDDED_RUNNER}",
        f"--direct_running_mode={arguments.mode}",
        f"--direct_num_workers={WORKERS}",
    ]
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        names = pipeline | "UnitNames" >> beam.Create([unit.name for unit in units])
        work = ProcessUnitFn(job, store, WorkerOptions(), handle)
        (
            pipeline
            | "Units" >> beam.Create(units)
            | "Spread" >> beam.Reshuffle()
            | "RunUnit" >> beam.ParDo(work).with_output_types(Summary)
            | "Report" >> SummariseAndReport(store, {"verb": "restore"}, beam.pvalue.AsIter(names))
        )


if __name__ == "__main__":
    main()
