"""Command lines as frozen dataclasses: one class for each verb, one flag for each field.

Both `--snake_case` and `--kebab-case` are understood. A flag that the verb does not know must be one of Beam's.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from models.bounds import Bounds
from transforms.errors import UsageError
from transforms.restoration import DEFAULT_METRICS
from transforms.units import PICTURES_PER_UNIT

OptionsT = TypeVar("OptionsT")
MOST_PROCESSES = 1024  # and threads: more only take the machine down
MOST_IN_A_ROW = 24  # pictures of a contact sheet: WebP ends at 16383 pixels


def flag(
    help_text: str,
    default: Any = dataclasses.MISSING,
    choices: Sequence[str] | None = None,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field that is a flag; without a default it is required.

    Args:
        minimum, maximum: the range of a number, bounds included; every number but a seed has one.
        below: an upper bound that is not allowed itself.
    """
    is_bounded = (minimum, maximum, below) != (None, None, None)
    bounds = Bounds(minimum=minimum, maximum=maximum, below=below, integer=isinstance(default, int))
    metadata = {"help": help_text, "choices": choices, "bounds": bounds if is_bounded else None}
    if default is dataclasses.MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every verb that runs a pipeline takes."""

    input: str = flag("tar shards, folders or pictures: URLs, globs, {000..123} ranges, @list.txt, comma-separated")
    output: str = flag("folder for the results, the ledgers and the report")
    overwrite: bool = flag("do finished units again", False)
    max_failed_ratio: float = flag(
        "exit with 3 when more than this share of the records became dead letters", 0.0, minimum=0, maximum=1
    )
    max_pixels: int = flag("refuse larger pictures as decompression bombs", 300_000_000, minimum=1)
    num_local_workers: int = flag(
        "worker processes on this machine; default: one for each core", 0, minimum=0, maximum=MOST_PROCESSES
    )
    pictures_per_unit: int = flag(
        "loose pictures that are done, committed and retried together, about", PICTURES_PER_UNIT, minimum=1
    )
    io_threads: int = flag("threads in each worker that decode and encode", 2, minimum=1, maximum=MOST_PROCESSES)
    read_ahead_mb: int = flag(
        "decoded pictures that one worker may hold ahead and behind the operator, in MB", 256, minimum=1
    )
    quiet: bool = flag("no progress bar", False)

    def default_local_workers(self, cores: int) -> int:
        return cores

    @property
    def pictures_ahead(self) -> int:
        """Pictures that a worker may hold before and behind the operator, each."""
        return 8


@dataclass(frozen=True, kw_only=True)
class RestoreOptions(RunOptions):
    """`conservator restore`"""

    model: str = flag("zoo name or .onnx file; several, comma-separated, for pictures of different channel counts")
    metrics: str = flag("measured where a clean reference is present, comma-separated", ",".join(DEFAULT_METRICS))
    output_format: str = flag(
        "format of KEY.restored.*; loose pictures keep their own", "png", ("png", "tiff", "webp", "jpeg", "bmp")
    )
    png_level: int = flag("PNG compression: low is quick, high is small", 1, minimum=1, maximum=9)
    jpeg_quality: int = flag("JPEG quality", 95, minimum=1, maximum=100)
    tile: int = flag("largest side of what the network gets at once, in pixels; 0: measured default", 0, minimum=0)
    batch: int = flag("tiles in one call of the network", 4, minimum=1)
    session_threads: int = flag(
        "threads of the network in each worker; default: the cores shared out over the workers",
        0,
        minimum=0,
        maximum=MOST_PROCESSES,
    )
    provider: str = flag("where the network runs", "cpu", ("cpu", "cuda", "tensorrt"))
    allow_cpu_fallback: bool = flag("go on with the CPU where the provider is not to be had", False)

    def default_local_workers(self, cores: int) -> int:
        """One worker for the one accelerator, which its threads keep busy; else one for each core."""
        return cores if self.provider == "cpu" else 1


@dataclass(frozen=True, kw_only=True)
class DegradeOptions(RunOptions):
    """`conservator degrade`"""

    recipe: str = flag("name of a shipped recipe, or a YAML file")
    seed: int = flag("of every random choice", 0)
    patch_size: int = flag("side of the patches in pixels; default: the recipe's", 0, minimum=0)
    patches_per_image: int = flag("default: the recipe's", 0, minimum=0)
    variants: int = flag("independent degradations of each picture or patch", 1, minimum=1)
    whole: bool = flag("whole pictures, whatever the recipe says of patches", False)
    output_format: str = flag(
        "shards of files (tar, parquet), shards of samples to map into memory (arrow), or loose files",
        "tar",
        ("tar", "folder", "parquet", "arrow"),
    )
    clean_format: str = flag(
        "of KEY.clean.*: png, webp (lossless), jpeg, npy (raw); default: png", "", ("", "png", "webp", "jpeg", "npy")
    )
    degraded_format: str = flag(
        "of KEY.degraded.*: png, webp (lossless), jpeg, npy (float32 as computed), npy-rounded (raw integers); "
        "default: the recipe's",
        "",
        ("", "png", "webp", "jpeg", "npy", "npy-rounded"),
    )
    png_level: int = flag("PNG compression: low is quick, high is small", 1, minimum=1, maximum=9)
    jpeg_quality: int = flag("JPEG quality", 95, minimum=1, maximum=100)
    shard_mb: int = flag("begin another shard before one grows beyond, in MB; 0: one for each unit", 0, minimum=0)
    shards: int = flag("about so many shards; exactly so many with --shuffle; 0: as the input is cut", 0, minimum=0)
    validation_share: float = flag(
        "share of the source pictures whose pairs go to validation/, all others to train/; 0: no such folders",
        0.0,
        minimum=0,
        below=1,
    )
    io_threads: int = flag(
        "threads in each worker that make pairs; more than one only helps a single worker",
        1,
        minimum=1,
        maximum=MOST_PROCESSES,
    )
    shuffle: bool = flag(
        "pairs in random order over all shards (by --seed); a picture is decoded for each shard", False
    )

    @property
    def pictures_ahead(self) -> int:
        """Enough to keep the threads busy: there is no batch and no accelerator to wait for."""
        return self.io_threads + 2


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(RunOptions):
    """`conservator evaluate`"""

    reference: str = flag("clean pictures, paired by key; default: the records' own clean.*", "")
    metrics: str = flag("comma-separated", ",".join(DEFAULT_METRICS))


@dataclass(frozen=True, kw_only=True)
class RetryOptions:
    """`conservator retry`"""

    output: str = flag("the output of an earlier run, whose dead letters are driven again")
    max_failed_ratio: float = flag(
        "exit with 3 when more than this share of the records are still dead letters", 0.0, minimum=0, maximum=1
    )
    num_local_workers: int = flag(
        "worker processes on this machine; default: one for each core", 0, minimum=0, maximum=MOST_PROCESSES
    )
    quiet: bool = flag("no progress bar", False)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """`conservator train`"""

    recipe: str = flag("name of a shipped training recipe, or a YAML file")
    data: str = flag("clean pictures, or shards of pairs: folders, tars, globs, comma-separated")
    output: str = flag("folder for checkpoints, log and curve")
    validation: str = flag("clean pictures or pairs to validate on; default: held out from the data by key", "")
    resume: bool = flag("go on from the last checkpoint in the output", False)
    device: str = flag("cpu or cuda; default: cuda where there is one", "")
    threads: int = flag("CPU threads; default: all cores", 0, minimum=0, maximum=MOST_PROCESSES)
    loaders: int = flag(
        "processes that read or make pairs beside the training; 0 does it in between",
        1,
        minimum=0,
        maximum=MOST_PROCESSES,
    )
    synthesis: str = flag(
        "where clean pictures are degraded: in the loaders, or in batches on the device; default: device on a GPU",
        "",
        ("", "loaders", "device"),
    )
    initial_weights: str = flag(
        "folder of another run, whose weights this one begins with, or a model that ships, which it grows from", ""
    )
    steps: int = flag("stop after this many steps, with a checkpoint; default: the recipe's last", 0, minimum=0)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """`conservator export`; with --quantize the int8 or float16 twin of a float32 model"""

    checkpoint: str = flag(
        "folder of a training run, or, comma-separated, of each network of a cascade; with --quantize also an exported .onnx file"
    )
    output: str = flag("the .onnx file to write")
    name: str = flag("of the model in its card; default: the recipe's", "")
    scale: int = flag("which of its scales, for a network that serves several", 0, minimum=0)
    weight_bits: int = flag(
        "significant bits that each weight keeps: 11, as many as float16 has, let the file compress to 60 %",
        24,
        minimum=11,
        maximum=24,
    )
    quantize: str = flag(
        "write a twin instead, if it restores as well: int8 for CPUs with VNNI, float16 for GPUs",
        "",
        ("", "int8", "float16"),
    )
    calibration: str = flag("--quantize int8: clean pictures like those to be restored; they set the ranges", "")
    validation: str = flag("--quantize: clean pictures that float32 and the twin are compared on", "")
    degradation: str = flag("--quantize: recipe that degrades both; default: that of the training's validation", "")
    protocol: str = flag("--quantize: metric that compares, such as psnr[gray,u8]; default: the training's", "")
    quality_loss: float = flag("--quantize: refuse a twin whose mean is lower by more, in dB", 0.1, minimum=0)


@dataclass(frozen=True, kw_only=True)
class ZooOptions:
    """`conservator zoo`"""

    name: str = flag("show one model's whole card", "")


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """`conservator replay`: each pair is the same, the same up to rounding (another kind of CPU), or different (exit 6)."""

    shard: str = flag("shards or folders of pairs: URLs, globs, {000..123} ranges, @list.txt, comma-separated")
    key: str = flag("pairs to make again, comma-separated", "")
    sample: int = flag("instead of --key: so many random pairs", 0, minimum=0)
    seed: int = flag("of the choice of --sample", 0)
    input: str = flag("the clean pictures; default: where the run that made the pairs took them from", "")
    output: str = flag("folder for KEY.clean.png and KEY.degraded.png or .npy, made again", "")


@dataclass(frozen=True, kw_only=True)
class MotionOptions:
    """`conservator motion`"""

    input: str = flag("blurred pictures or shards: URLs, globs, {000..123} ranges, @list.txt, comma-separated")
    output: str = flag("folder for KEY.motion.npy, KEY.confidence.npy and KEY.motion.png")
    model: str = flag("zoo name or .onnx file of a classifier of motion", "motion-patches")
    rotations: int = flag("1: 73 motions, 30 degrees apart; 5: 361, 6 degrees, in five times the time", 1, minimum=1)
    session_threads: int = flag(
        "threads of the network; default: one for each core", 0, minimum=0, maximum=MOST_PROCESSES
    )
    provider: str = flag("where the network runs", "cpu", ("cpu", "cuda", "tensorrt"))


@dataclass(frozen=True, kw_only=True)
class PreviewOptions:
    """`conservator preview`"""

    recipe: str = flag("shipped recipes or YAML files, comma-separated; 'all': every degradation recipe that ships")
    output: str = flag("the sheet to write: .png, .webp or .jpg")
    input: str = flag("a picture; of several the first one; default: one that scikit-image brings along", "")
    columns: int = flag(
        "pictures in a row, the clean one among them; default: 4, or 3 for several recipes",
        0,
        minimum=0,
        maximum=MOST_IN_A_ROW,
    )
    rows: int = flag("rows of each recipe; default: 3, or 1 for several recipes", 0, minimum=0, maximum=MOST_IN_A_ROW)
    seed: int = flag("of every random choice", 0)
    patch_size: int = flag("side of the patch in pixels; default: the recipe's, or what fills a cell", 0, minimum=0)
    whole: bool = flag("the whole picture instead of a patch", False)


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing and leaving: the exit codes are ours."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see '{self.prog} --help'")


def make_parser(options_class: type[Any], verb: str) -> argparse.ArgumentParser:
    """The parser of one verb."""
    parser = _Parser(prog=f"conservator {verb}", allow_abbrev=False)
    hints = typing.get_type_hints(options_class)
    for option in dataclasses.fields(options_class):
        names = [f"--{option.name}"] + ([f"--{option.name.replace('_', '-')}"] if "_" in option.name else [])
        if option.name in ("input", "output"):
            names.insert(0, f"-{option.name[0]}")
        required = option.default is dataclasses.MISSING
        help_text = option.metadata["help"] + _range_and_default(option)
        settings: dict[str, Any] = {"dest": option.name, "help": help_text.replace("%", "%%")}
        if hints[option.name] is bool:
            parser.add_argument(*names, action=argparse.BooleanOptionalAction, default=option.default, **settings)
        else:
            parser.add_argument(
                *names,
                type=_plain_type(hints[option.name]),
                required=required,
                default=None if required else option.default,
                choices=option.metadata["choices"],
                metavar=None
                if not option.metadata["choices"]
                else "{" + ",".join(c for c in option.metadata["choices"] if c) + "}",
                **settings,
            )
    return parser


def _range_and_default(option: dataclasses.Field[Any]) -> str:
    """` (from 1 to 9; default: 1)`, for the help; "" where there is nothing to say."""
    words = []
    if (bounds := option.metadata["bounds"]) is not None:
        words.append(bounds.expectation().removeprefix("a whole number ").removeprefix("a number ").removeprefix("of "))
    if option.default not in (dataclasses.MISSING, "", 0, False):
        words.append(f"default: {option.default}")
    return f" ({'; '.join(words)})" if words else ""


def _plain_type(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def parse(options_class: type[OptionsT], verb: str, arguments: Sequence[str]) -> tuple[OptionsT, list[str]]:
    """Parses a verb's flags; what is left over is for Beam.

    Raises:
        UsageError: a value of the wrong type or outside its range, a missing flag, a stray word.
    """
    try:
        known, rest = make_parser(options_class, verb).parse_known_args(list(arguments))
    except UsageError:
        _suggest(arguments, options_class)  # a misspelt flag is often the reason why a needed one is missing
        raise
    stray = [
        word
        for position, word in enumerate(rest)
        if not word.startswith("-") and (position == 0 or not rest[position - 1].startswith("-"))
    ]
    if stray:
        raise UsageError(f"unexpected {stray[0]!r}: every value needs its flag; see 'conservator {verb} --help'")
    check_ranges(options_class, vars(known))
    return options_class(**vars(known)), rest


def check_ranges(options_class: type[Any], values: Mapping[str, Any]) -> None:
    """Raises UsageError for a number outside the range of its flag, before it can do harm in a worker."""
    for option in dataclasses.fields(options_class):
        bounds: Bounds | None = option.metadata["bounds"]
        if bounds is not None and bounds.complaint(values[option.name]) is not None:
            raise UsageError(f"--{option.name} {values[option.name]}: expected {bounds.expectation()}")


def _suggest(arguments: Sequence[str], options_class: type[Any]) -> None:
    known = [f"--{option.name}" for option in dataclasses.fields(options_class)]
    for word in arguments:
        name = snake_case(word)
        near = difflib.get_close_matches(name, known, n=1)
        if word.startswith("--") and name not in known and near:
            raise UsageError(f"unknown flag {word.partition('=')[0]!r}; did you mean {near[0]}?")


def snake_case(word: str) -> str:
    """The flag of a word in its canonical spelling: `--png-level=3` is `--png_level`."""
    return word.partition("=")[0].replace("-", "_").replace("__", "--", 1)


def refuse_unknown(rest: Sequence[str], verb: str, options_class: type[Any], others: Sequence[str] = ()) -> None:
    """Raises UsageError, with the nearest known flag, for flags that neither the verb nor `others` know."""
    known = [f"--{option.name}" for option in dataclasses.fields(options_class)] + list(others)
    for word in rest:
        name = snake_case(word)
        if not word.startswith("--") or name in known or name.replace("--no_", "--", 1) in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"see 'conservator {verb} --help'"
        raise UsageError(f"unknown flag {word.partition('=')[0]!r}; {remedy}")
