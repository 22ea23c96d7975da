"""The verbs that run a Beam pipeline: options -> job and plan -> driver."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipelines.options import DegradeOptions, EvaluateOptions, RestoreOptions, RetryOptions, RunOptions, refuse_unknown
from pipelines.preparation import prepare, units_begun
from pipelines.run import Run, available_cores, refuse_overlap
from transforms.dead_letters import failed_name
from transforms.errors import ConfigurationError
from transforms.evaluation import EvaluateJob, plan_evaluation
from transforms.ledger import FAILED_FOLDER, MANIFEST
from transforms.metrics import parse_metrics
from transforms.storage import OutputStore, describe_file
from transforms.units import Plan, Unit, plan_units
from transforms.version import VERSION
from transforms.work import Job

OPTIONS_OF_VERB: dict[str, type[RunOptions]] = {
    "degrade": DegradeOptions,
    "restore": RestoreOptions,
    "evaluate": EvaluateOptions,
}


def _refuse_unknown(beam_flags: Sequence[str], verb: str, options_class: type[Any]) -> None:
    if beam_flags:  # else Beam is not needed yet
        from pipelines.beam_flags import beam_flag_names

        refuse_unknown(beam_flags, verb, options_class, beam_flag_names())


def run_degrade(options: DegradeOptions, beam_flags: tuple[str, ...]) -> int:
    _refuse_unknown(beam_flags, "degrade", DegradeOptions)
    from pipelines.degrade_flags import plan_degradation

    return _run(options, beam_flags, plan_degradation(options))


def run_restore(options: RestoreOptions, beam_flags: tuple[str, ...]) -> int:
    _refuse_unknown(beam_flags, "restore", RestoreOptions)
    return _run(options, beam_flags, plan_units(options.input, pictures_per_unit=options.pictures_per_unit))


def run_evaluate(options: EvaluateOptions, beam_flags: tuple[str, ...]) -> int:
    _refuse_unknown(beam_flags, "evaluate", EvaluateOptions)
    reference = options.reference or None
    return _run(
        options, beam_flags, plan_evaluation(options.input, reference, pictures_per_unit=options.pictures_per_unit)
    )


def _run(options: RunOptions, beam_flags: tuple[str, ...], plan: Plan) -> int:
    store = OutputStore(options.output)
    refuse_overlap(plan, store, writes_pictures=not isinstance(options, EvaluateOptions))
    return _execute(Run(job_of(options), plan, store, options, beam_flags))


def _execute(run: Run) -> int:
    """Runs a command; its workers begin while Beam is imported.

    Raises:
        ConfigurationError: refused before anything was started.
    """
    if run.beam_flags:  # known to Beam only, which must read them before a worker starts: they may ask for a rehearsal
        _import_driver()
        from pipelines.driver import execute

        return execute(run)
    prepared = prepare(run)
    with units_begun(run, prepared.todo):
        _import_driver()
        from pipelines.driver import execute

        return execute(run, prepared)


def _import_driver() -> None:
    """With the garbage collector at rest: what modules are made of is no garbage, and to look through all of Beam again and
    again, and once more at the end of the process, takes 0.6 s."""
    if "pipelines.driver" in sys.modules or not gc.isenabled():
        return
    gc.disable()
    try:
        import pipelines.driver  # noqa: F401 - a part of the application, which needs it next
    finally:
        gc.freeze()
        gc.enable()


def job_of(options: RunOptions) -> Job:
    """The job that a verb's options describe."""
    if isinstance(options, DegradeOptions):
        from pipelines.degrade_flags import degrade_job

        return degrade_job(options)
    if isinstance(options, RestoreOptions):
        from pipelines.restore import restore_job

        cores = available_cores()
        return restore_job(options, options.num_local_workers or options.default_local_workers(cores), cores)
    if isinstance(options, EvaluateOptions):
        return EvaluateJob(tuple(metric.name for metric in parse_metrics(options.metrics)), options.max_pixels)
    raise ConfigurationError(f"no job for {type(options).__name__}")


def run_retry(options: RetryOptions, beam_flags: tuple[str, ...]) -> int:
    """Drives dead letters again with the job of the run that made them.

    Raises:
        ConfigurationError: no run in this output, or its job is not the same any more (another version or model).
    """
    _refuse_unknown(beam_flags, "retry", RetryOptions)
    store = OutputStore(options.output)
    manifest = read_manifest(store)
    if manifest["version"] != VERSION:
        raise ConfigurationError(
            f"the run in {options.output!r} was made by version {manifest['version']}, this is {VERSION}; "
            f"run '{manifest['verb']}' again instead of 'retry'"
        )
    original = OPTIONS_OF_VERB[manifest["verb"]](**manifest["options"])
    original = replace(
        original,
        output=options.output,
        max_failed_ratio=options.max_failed_ratio,
        num_local_workers=options.num_local_workers,
        quiet=options.quiet,
        overwrite=True,
    )
    if (
        isinstance(original, DegradeOptions) and "recipe" in manifest
    ):  # as it was then: the file may be gone, changed, or named from another folder
        original = replace(original, recipe=json.dumps(manifest["recipe"]))
    job = job_of(original)
    if job.fingerprint() != manifest["fingerprint"]:
        raise ConfigurationError(
            f"the run in {options.output!r} was made with another model or recipe; "
            f"run '{manifest['verb']}' again instead of 'retry'"
        )
    return _execute(Run(job, plan_retry(store, manifest["units"]), store, original, beam_flags, is_retry=True))


def read_manifest(store: OutputStore) -> dict[str, Any]:
    data = store.read(MANIFEST)
    if data is None:
        raise ConfigurationError(f"no run in {store.root!r}; --output must name the output of an earlier run")
    manifest: dict[str, Any] = json.loads(data)
    return manifest


def plan_retry(store: OutputStore, unit_names: Sequence[str]) -> Plan:
    """One unit for each tar of dead letters of the run; units without any come along as they are, for the report."""
    failed = {name.removesuffix(".tar") for name in store.names(FAILED_FOLDER)}
    units = [
        Unit(name, "dead_letters", (describe_file(store.url(failed_name(name))),))
        for name in unit_names
        if name in failed
    ]
    return Plan(tuple(units), settled=tuple(name for name in unit_names if name not in failed))
