"""The command line: `conservator VERB --flag value`."""

from __future__ import annotations

import difflib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NoReturn

from pipelines.options import (
    DegradeOptions,
    EvaluateOptions,
    ExportOptions,
    MotionOptions,
    PreviewOptions,
    ReplayOptions,
    RestoreOptions,
    RetryOptions,
    TrainOptions,
    ZooOptions,
    make_parser,
    parse,
    refuse_unknown,
)
from transforms.errors import ConfigurationError, ConservatorError, UsageError
from transforms.version import VERSION

USAGE = f"""conservator {VERSION}: restores image archives in bulk

  conservator degrade   clean pictures -> pairs, by a recipe
  conservator restore   degraded pictures -> restored ones, measured where a reference is present
  conservator evaluate  restored pictures and references -> metrics and report
  conservator retry     drive the dead letters of a run again
  conservator train     clean pictures or pairs -> checkpoint
  conservator export    checkpoint -> ONNX with its card, only if parity holds
  conservator zoo       the models that ship, with their measured quality
  conservator replay    makes pairs again from their JSON and the clean picture, and compares
  conservator preview   what a recipe does to a picture, as a contact sheet
  conservator motion    blurred pictures -> the motion that blurred each pixel

'conservator VERB --help' lists the flags; those it does not know go on to Beam (--runner, --project, ...).
Exit codes: 0 done, 1 failed, 2 usage, 3 too many dead letters, 5 refused before start, 6 quality gate, 130 interrupted.
"""
BEAM_ANNOTATION = " [while running '"  # what Beam appends to the message of a stage's exception
EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 5, 130
AFTER_AN_INTERRUPT = {
    **dict.fromkeys(
        ("degrade", "restore", "evaluate", "retry"), "finished units are kept, the same command goes on from here"
    ),
    "train": "the same command with --resume goes on from the last checkpoint, where there is one",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if words else EXIT_USAGE
    if words[0] in ("-V", "--version"):
        print(VERSION)
        return 0
    _set_up_logs()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _verb(words[0])(words[1:])
    except UsageError as error:
        return _complain(error, EXIT_USAGE)
    except ConfigurationError as error:
        return _complain(error, EXIT_REFUSED)
    except KeyboardInterrupt:
        return _leave_at_once(words[0])
    except Exception as error:
        # Beam wraps what its threads raise: Ctrl-C too comes out as a RuntimeError.
        if "KeyboardInterrupt" in str(error):
            return _leave_at_once(words[0])
        cause = _expected_cause(error)
        if cause is None:
            raise
        return _complain(cause, EXIT_FAILED)


def _expected_cause(error: BaseException | None) -> Exception | None:
    """The error of ours, or of the store, behind an engine's exception; None for a defect, which keeps its traceback."""
    while error is not None:
        if isinstance(error, ConservatorError | OSError):
            return error
        error = error.__cause__ or (error.__context__ if BEAM_ANNOTATION in str(error) else None)
    return None


def _set_up_logs() -> None:
    """Our warnings are shown; Beam's chatter, on its own logger and on the root while it is imported, is for its developers."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger().addFilter(_is_serious)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # prints what it raises all the same


def _is_serious(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _complain(error: Exception, code: int) -> int:
    print(f"conservator: {str(error).partition(BEAM_ANNOTATION)[0]}", file=sys.stderr)
    return code


def _leave_at_once(verb: str) -> int:
    """Everything on disk is whole at any moment, so there is nothing to wait for; workers end with their parent."""
    what_now = f"; {AFTER_AN_INTERRUPT[verb]}" if verb in AFTER_AN_INTERRUPT else ""
    print(f"conservator: interrupted{what_now}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(EXIT_INTERRUPTED)


def _verb(name: str) -> Callable[[Sequence[str]], int]:
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1)
        raise UsageError(
            f"unknown verb {name!r}; " + (f"did you mean {near[0]!r}?" if near else "see 'conservator --help'")
        )
    return VERBS[name]


def _parsed(options_class: type[Any], verb: str, words: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    if any(word in ("-h", "--help") for word in words):
        make_parser(options_class, verb).print_help()
        raise SystemExit(0)
    options, rest = parse(options_class, verb, words)
    return options, tuple(rest)


def _without_beam(options_class: type[Any], verb: str, words: Sequence[str]) -> Any:
    options, rest = _parsed(options_class, verb, words)
    refuse_unknown(rest, verb, options_class)
    return options


def degrade(words: Sequence[str]) -> int:
    options, rest = _parsed(DegradeOptions, "degrade", words)
    from pipelines.verbs import run_degrade

    return run_degrade(options, rest)


def restore(words: Sequence[str]) -> int:
    options, rest = _parsed(RestoreOptions, "restore", words)
    from pipelines.verbs import run_restore

    return run_restore(options, rest)


def evaluate(words: Sequence[str]) -> int:
    options, rest = _parsed(EvaluateOptions, "evaluate", words)
    from pipelines.verbs import run_evaluate

    return run_evaluate(options, rest)


def retry(words: Sequence[str]) -> int:
    options, rest = _parsed(RetryOptions, "retry", words)
    from pipelines.verbs import run_retry

    return run_retry(options, rest)


def _need_torch(verb: str) -> None:
    if find_spec("torch") is None:
        raise ConfigurationError(f"'{verb}' needs PyTorch, which is not installed; pip install '.[train]'")


def train(words: Sequence[str]) -> int:
    options = _without_beam(TrainOptions, "train", words)
    _need_torch("train")
    from pipelines.learning import run_train

    return run_train(options)


def export(words: Sequence[str]) -> int:
    options = _without_beam(ExportOptions, "export", words)
    _need_torch("export")
    from pipelines.learning import run_export

    return run_export(options)


def zoo(words: Sequence[str]) -> int:
    options = _without_beam(ZooOptions, "zoo", words)
    from pipelines.zoo import show_zoo

    return show_zoo(options)


def replay(words: Sequence[str]) -> int:
    options = _without_beam(ReplayOptions, "replay", words)
    from pipelines.replay import run_replay

    return run_replay(options)


def preview(words: Sequence[str]) -> int:
    options = _without_beam(PreviewOptions, "preview", words)
    from pipelines.preview import show_preview

    return show_preview(options)


def motion(words: Sequence[str]) -> int:
    options = _without_beam(MotionOptions, "motion", words)
    from pipelines.motion import run_motion

    return run_motion(options)


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "degrade": degrade,
    "restore": restore,
    "evaluate": evaluate,
    "retry": retry,
    "train": train,
    "export": export,
    "zoo": zoo,
    "replay": replay,
    "preview": preview,
    "motion": motion,
}

if __name__ == "__main__":
    sys.exit(main())
