"""`conservator replay`: makes pairs again from their JSON and the source picture, and compares digests."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from models.degradation import InOrder, operator_class
from models.degradation.chains import elementary
from models.recipes import Recipe
from models.recipes.validation import did_you_mean
from pipelines.options import ReplayOptions
from pipelines.replay_sources import CleanPictures, Run, run_above
from transforms.errors import ConfigurationError, RecordError, UsageError
from transforms.formats.indexed import RecordIndex, index_records
from transforms.formats.parts import Part
from transforms.formats.stored_pair import samples_of
from transforms.pictures import EncodeOptions, Picture, encode
from transforms.randomness import generator
from transforms.raw_arrays import npy_bytes
from transforms.record import clean_field, degraded_field, extension
from transforms.storage import OutputStore, canonical, expand_inputs, lies_in
from transforms.value_range import DIGEST_PREFIX, Samples, from_float, samples_digest
from transforms.version import VERSION

EXIT_SAME, EXIT_DIFFERENT = 0, 6
ROUNDING = (
    1e-5  # of float32 in [0, 1]: libraries for other kinds of CPU add up in another order, and come out 5e-7 away
)
ROUNDED_SHARE = 1 / 1000  # of integers, which are one level away where a value lay half between two
LOSSLESS = frozenset({"png", "webp", "npy"})  # what `degrade` writes into these has the recorded digest
NEAR_KEYS = 500  # in the alphabet, each way, that are looked at for a misspelt one


@dataclass(frozen=True)
class Comparison:
    """What was found when a pair was made again, in words: real differences, and such as rounding explains."""

    differences: tuple[str, ...] = ()
    roundings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecordedPair:
    """A pair as its shard holds it.

    Attributes:
        part: the shard, or the loose files.
        fields: its pictures' fields, `clean` and `degraded` -> name and file.
        details: its JSON.
    """

    part: Part
    key: str
    fields: Mapping[str, tuple[str, bytes]]
    details: Mapping[str, Any]


def run_replay(options: ReplayOptions) -> int:
    """Prints one line for each pair and the counts; 0 if all are the same, perhaps up to rounding, 6 otherwise.

    Raises:
        UsageError: not exactly one of --key and --sample.
        ConfigurationError: a pair, its source, its digests or one of its operators are not to be had.
    """
    if bool(options.key) == bool(options.sample) or options.sample < 0:
        raise UsageError("give either --key KEY[,KEY], or --sample N for N random pairs")
    urls = expand_inputs(options.shard)
    store = _output(options.output, urls) if options.output else None
    index = index_records([options.shard])
    numbers = _sampled(index, options) if options.sample else _named(index, options.key)
    count = different = rounded = 0
    with closing(_Sources(options.input, urls[0])) as sources:
        for pair in (read_pair(index, number) for number in numbers):
            source, run = sources.of(pair)
            rebuilt = rebuild(pair, source)
            found = compared(pair, rebuilt)
            print(_line(pair, found, run))
            count, different = count + 1, different + bool(found.differences)
            rounded += bool(found.roundings and not found.differences)
            if store is not None:
                _write(store, pair, rebuilt, several_shards=len(index.parts) > 1)
    same_up_to_rounding = f"{rounded} same up to rounding, " if rounded else ""
    print(
        f"{count} {'pair' if count == 1 else 'pairs'} made again: {count - different - rounded} same, "
        f"{same_up_to_rounding}{different} different"
    )
    return EXIT_DIFFERENT if different else EXIT_SAME


def _output(output: str, shards: Sequence[str]) -> OutputStore:
    store = OutputStore(output)
    if any(lies_in(canonical(shard), canonical(store.root)) for shard in shards):
        raise ConfigurationError(f"the shard lies in the output {output!r}; pairs made again go beside it, not over it")
    store.check_writable()
    return store


def _named(index: RecordIndex, keys: str) -> list[int]:
    """Numbers of the pairs of some keys, in the order of the shards; of a key that several shards hold, the first."""
    wanted = {key.strip() for key in keys.split(",") if key.strip()}
    found: dict[str, int] = {}
    for number in range(len(index)):
        if (key := index.key(number)) in wanted:
            found.setdefault(key, number)
            if len(found) == len(wanted):
                return list(found.values())
    missing = min(wanted - found.keys())
    known = sorted(index.key(number) for number in range(len(index)))
    place = bisect_left(known, missing)
    near = known[max(0, place - NEAR_KEYS) : place + NEAR_KEYS]
    raise ConfigurationError(f"no pair {missing!r} among the {len(known)} in the shards{did_you_mean(missing, near)}")


def _sampled(index: RecordIndex, options: ReplayOptions) -> list[int]:
    """Numbers of random pairs, each at most once, in the order of the shards."""
    rng = generator(options.seed, "replay")
    chosen = rng.choice(len(index), min(options.sample, len(index)), replace=False)
    return [int(number) for number in np.sort(chosen)]


def read_pair(index: RecordIndex, number: int) -> RecordedPair:
    """A pair with its JSON.

    Raises:
        ConfigurationError: it can't be read, is no pair, or was made before pairs carried digests of this kind.
    """
    part, inside = index.at(number)
    key = str(part.keys[inside])
    try:
        fields = part.read(inside).fields
        details = json.loads(fields["json"])
        names = {"clean": clean_field(fields), "degraded": degraded_field(fields)}
    except (RecordError, ValueError) as error:
        raise ConfigurationError(f"the record {key!r} can't be read: {error}") from error
    except KeyError:
        raise ConfigurationError(f"the record {key!r} has no JSON; 'replay' takes the pairs of 'degrade'") from None
    if not isinstance(details, dict) or "parameters" not in details:
        raise ConfigurationError(f"the JSON of {key!r} holds no parameters; 'replay' takes the pairs of 'degrade'")
    is_complete = all(isinstance(details.get(name), dict) for name in ("digests", "types", "source"))
    if not is_complete or not all(str(each).startswith(DIGEST_PREFIX) for each in details["digests"].values()):
        raise ConfigurationError(
            f"the pair {key!r} was made by a version that wrote no digests of this kind; make the pairs again with {VERSION}"
        )
    pictures = {role: (name, fields[name]) for role, name in names.items() if name is not None}
    return RecordedPair(part, key, pictures, details)


class _Sources:
    """The clean pictures of pairs: those of --input, or of the run that the pair's shard belongs to."""

    def __init__(self, patterns: str, place: str) -> None:
        self._patterns, self._place = patterns, place
        self._runs: dict[str, Run | None] = {}
        self._inputs: dict[str, CleanPictures] = {}

    def of(self, pair: RecordedPair) -> tuple[Picture, Run | None]:
        """The source picture of a pair, and the run that made the pair, where its manifest is still there."""
        place = pair.part.name if "/" in pair.part.name else self._place  # loose files lie where --shard says
        if place not in self._runs:
            self._runs[place] = run_above(place)
        run = self._runs[place]
        patterns = self._patterns or (run.input if run else "")
        if not patterns:
            raise ConfigurationError(
                f"no run is found above {place!r} that would say where its clean pictures lie; name them with --input"
            )
        if patterns not in self._inputs:
            self._inputs[patterns] = CleanPictures(patterns, run.max_pixels) if run else CleanPictures(patterns)
        return self._inputs[patterns].picture(pair.details["source"]), run

    def close(self) -> None:
        for pictures in self._inputs.values():
            pictures.close()


def rebuild(pair: RecordedPair, source: Picture) -> dict[str, Samples]:
    """The clean and the degraded samples as `degrade` had them before it coded them, from the JSON alone.

    Raises:
        ConfigurationError: an operator is not known, or its parameters are not understood.
    """
    parameters, types = pair.details["parameters"], pair.details["types"]
    try:
        for name, _ in elementary(parameters["degradation"]):
            operator_class(name)
        made = Recipe(pair.key, InOrder(())).replay(source.samples, parameters)
        return {role: from_float(getattr(made, role), types[role]) for role in ("clean", "degraded")}
    except ConfigurationError as error:
        raise ConfigurationError(f"the pair {pair.key!r} can't be made again: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigurationError(
            f"the pair {pair.key!r} can't be made again, its parameters are not understood: {type(error).__name__}: {error}"
        ) from error


def compared(pair: RecordedPair, rebuilt: Mapping[str, Samples]) -> Comparison:
    """What is not as the pair's JSON says: the pictures that were made again, or those in the shard."""
    found, roundings = [], []
    for role, (name, data) in pair.fields.items():
        recorded, now = pair.details["digests"][role], samples_digest(rebuilt[role])
        stored = None
        try:
            stored = _without_copies(samples_of(data, name), rebuilt[role]) if extension(name) in LOSSLESS else None
        except RecordError as error:
            found.append(f"the shard's {name} can't be read ({error})")
        is_kept = stored is not None and samples_digest(stored) == recorded
        if now != recorded and stored is not None and is_kept and is_rounding(rebuilt[role], stored):
            roundings.append(f"{role}: {distance_between(rebuilt[role], stored)}")
        elif now != recorded:
            distance = "" if stored is None else f", {distance_between(rebuilt[role], stored)}"
            found.append(f"{role} comes out as {now}, recorded is {recorded}{distance}")
        elif stored is not None and not is_kept:
            distance = distance_between(stored, rebuilt[role])
            found.append(f"the shard's {name} is not the picture that was recorded: {distance}")
    return Comparison(tuple(found), tuple(roundings))


def _without_copies(stored: Samples, rebuilt: Samples) -> Samples:
    """A grey picture that stands in a format without grey, such as WebP, as the three equal channels that it is read as."""
    is_grey = rebuilt.shape[2] == 1 and stored.shape[2] == 3 and bool((stored == stored[..., :1]).all())
    return stored[..., :1] if is_grey else stored


def is_rounding(one: Samples, other: Samples) -> bool:
    """Whether two pictures differ by no more than another order of the same additions explains.

    Floats: nowhere by more than `ROUNDING`. Integers, and floats of recipes that round them to 8 bits: by one level, in no
    more than `ROUNDED_SHARE` of the samples.
    """
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    distance = np.abs(one.astype(np.float64) - other.astype(np.float64))
    if one.dtype == np.float32:
        if (distance <= ROUNDING).all():  # false for what is no number
            return True
        levels = [each.astype(np.float64) * 255 for each in (one, other)]
        if not all((np.abs(each - np.rint(each)) <= ROUNDING * 255).all() for each in levels):
            return False
        distance = np.rint(distance * 255)
    return bool(distance.max(initial=0) <= 1 and np.count_nonzero(distance) <= ROUNDED_SHARE * distance.size)


def distance_between(one: Samples, other: Samples) -> str:
    """In words: how many samples differ, and by how much."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return " against ".join(f"{'x'.join(map(str, each.shape))} {each.dtype}" for each in (one, other))
    distance = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return f"{np.count_nonzero(distance)} of {distance.size} samples differ, by at most {distance.max(initial=0):.3g}"


def _line(pair: RecordedPair, found: Comparison, run: Run | None) -> str:
    if not found.differences:
        if found.roundings:
            return f"rounding   {pair.key}: same up to rounding ({'; '.join(found.roundings)})"
        return f"same       {pair.key}"
    line = f"DIFFERENT  {pair.key}: {'; '.join((*found.differences, *found.roundings))}"
    if run is not None and run.version != VERSION:
        line += f"; the pair was made by version {run.version}, this is {VERSION}"
    return line


def _write(store: OutputStore, pair: RecordedPair, rebuilt: Mapping[str, Samples], *, several_shards: bool) -> None:
    """Publishes both pictures; keys are unique inside a shard only."""
    shard = PurePosixPath(pair.part.name).name.partition(".")[0]
    folder = f"{shard}/" if several_shards and "/" in pair.part.name else ""
    for role, samples in rebuilt.items():
        if samples.dtype == np.float32:
            store.write(f"{folder}{pair.key}.{role}.npy", npy_bytes(samples))
        else:
            data, _ = encode(Picture(samples, None, "png"), "png", EncodeOptions())
            store.write(f"{folder}{pair.key}.{role}.png", data)
