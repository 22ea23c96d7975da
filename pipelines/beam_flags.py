"""Beam's own flags: handed on in the spelling that Beam understands, and checked before anything is written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from importlib.util import find_spec
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions, TestOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners import create_runner

from pipelines.options import snake_case
from transforms.errors import ConfigurationError, UsageError

DRY_RUN = "--dry_run"


def beam_flag_names() -> list[str]:
    """Every flag that Beam's own option classes declare."""
    names = []
    for options_class in PipelineOptions.__subclasses__():
        parser = _FlagCollector()
        options_class._add_argparse_args(parser)
        names += parser.names
    return names


class _FlagCollector:
    """Stands in for Beam's argument parser and keeps the names of the flags."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def add_argument(self, *names: str, **_: Any) -> None:
        self.names += [snake_case(name) for name in names if name.startswith("--")]

    add_value_provider_argument = add_argument

    def add_mutually_exclusive_group(self, **_: Any) -> _FlagCollector:
        return self


def parse_beam_flags(words: Sequence[str], runner: str | None = None) -> PipelineOptions:
    """Beam's options from the flags that the verb does not know.

    Args:
        runner: to use whatever the flags say.

    Raises:
        UsageError: a value of the wrong type, or a flag without its value.
    """
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            options = PipelineOptions(_spelled(words))
            options.get_all_options()
    except SystemExit as error:
        lines = complaint.getvalue().strip().splitlines() or ["the flags cannot be read"]
        raise UsageError(f"Beam refuses its flags: {lines[-1].partition('error: ')[2] or lines[-1]}") from error
    if runner is not None:
        options.view_as(StandardOptions).runner = runner
    return options


def _spelled(words: Sequence[str]) -> list[str]:
    """Beam drops kebab-case flags without a word, and wants a value after `--dry_run`."""
    flags = [
        snake_case(word) + word[len(word.partition("=")[0]) :] if word.startswith("--") else word for word in words
    ]
    bare = [flag == DRY_RUN and after.startswith("--") for flag, after in zip(flags, [*flags[1:], "--"], strict=False)]
    return [f"{flag}=True" if alone else flag for flag, alone in zip(flags, bare, strict=True)]


def is_dry_run(options: PipelineOptions) -> bool:
    return bool(options.view_as(TestOptions).dry_run)


def open_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """An empty pipeline on the runner that the options name.

    Raises:
        ConfigurationError: there is no such runner, its package is absent, or it refuses the options.
    """
    name = options.view_as(StandardOptions).runner
    try:
        runner = create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigurationError(f"runner {name!r} is not to be had: {error}") from error
    if submits_to_dataflow(options, runner):
        _refuse_what_dataflow_lacks(options, runner)
    try:
        return beam.Pipeline(runner=runner, options=options)
    except ValueError as error:
        raise ConfigurationError(f"runner {name!r} refuses its flags: {error}") from error


def submits_to_dataflow(options: PipelineOptions, runner: Any) -> bool:
    """Whether the job goes to the Dataflow service, whose runner checks a pipeline without running it on a dry run."""
    return bool(PipelineOptionsValidator(options, runner).is_service_runner())


def _refuse_what_dataflow_lacks(options: PipelineOptions, runner: Any) -> None:
    """Without a usable location Beam would make a bucket of its own, or wait for the network for minutes."""
    if find_spec("google.cloud.dataflow") is None:
        raise ConfigurationError("DataflowRunner needs Google's client packages: pip install 'conservator[gcp]'")
    cloud, validator = options.view_as(GoogleCloudOptions), PipelineOptionsValidator(options, runner)
    given = [name for name in ("temp_location", "staging_location") if getattr(cloud, name)]
    wrong = [error for name in given for error in validator.validate_gcs_path(cloud, name)]
    if wrong or not given:
        reason = wrong[0] if wrong else "none is given"
        raise ConfigurationError(f"DataflowRunner needs --temp_location gs://BUCKET/FOLDER: {reason}")
