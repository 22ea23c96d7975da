"""`conservator degrade`: clean pictures in, pairs out, each with the JSON that makes it again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from models.degradation.short_form import short_form
from models.degradation.tally import DrawTally
from models.recipes import Cut, Pair, Recipe, Rejection
from models.recipes.channels import with_channels
from transforms.allocator import give_back_freed_memory, keep_freed_memory
from transforms.metrics import parse_metric
from transforms.pair_format import PairFormat
from transforms.pictures import EncodeOptions, Picture, Samples, decode, encode
from transforms.plain_json import spell_infinities
from transforms.randomness import share_of
from transforms.raw_arrays import npy_bytes
from transforms.record import Record, source_field
from transforms.restoration import describe_samples
from transforms.samples import crop_for_report
from transforms.streaming import StageTimes
from transforms.units import Unit
from transforms.value_range import samples_digest
from transforms.version import VERSION
from transforms.work import Finished, Item, Sample, ShardLayout, SinkKind

DAMAGE_METRIC = "psnr[rgb,u8]"
SLICE_BYTES = 2**20  # of files; pairs of one picture that are more go to the disk before they go to a shard
# Of files, some 250 pairs of 128 x 128: what lies free between them then goes back to the system. It costs 3 ms of a second.
GIVE_BACK_EVERY_BYTES = 16 * 2**20
# Of stored samples: so many pairs pass each stage together, so that its code and their samples stay in a core's cache. One by
# one, a pair of 128 x 128 takes a seventh longer.
BLOCK_BYTES = 2**20
# Files of a pair beside those of its two pictures, about: for each pixel of an array, and JSON, headers and a kernel.
_BYTES_OF_A_PIXEL, _BYTES_OF_DETAILS = {"motion": 2 * 4, "mask": 1}, 16 * 2**10
_SAMPLES_OF_A_PICTURE = 4  # that the report may show


@dataclass(frozen=True)
class DegradeJob:
    """Configuration of a synthesis."""

    recipe: Recipe
    seed: int = 0
    patch_size: int | None = None
    patches_per_image: int | None = None
    output_format: SinkKind = "tar"
    format: PairFormat = field(default_factory=PairFormat)
    layout: ShardLayout = field(default_factory=ShardLayout)
    validation_share: float = 0.0
    variants: int = 1
    max_pixels: int = 300_000_000
    batch_bytes: int = 1
    verb: str = "degrade"

    def load(self) -> DegradeWork:
        keep_freed_memory()
        # Each core has its worker already: threads that BLAS starts for small products would only take turns with them.
        threadpool_limits(1, user_api="blas")
        return DegradeWork(self)

    def sink_kind(self, unit: Unit) -> SinkKind:
        if self.output_format == "folder" and unit.kind != "folder":
            return "subfolder"
        return self.output_format

    @property
    def makes_patches(self) -> bool:
        """Whether a picture may give more than one pair, so that keys need the pair's number."""
        return bool(self.recipe.patches or self.patch_size or (self.patches_per_image or 1) > 1)

    @property
    def pairs_per_picture(self) -> int:
        """How many pairs are tried to make of each picture."""
        return self.variants * (self.patches_per_image or (self.recipe.patches.per_image if self.recipe.patches else 1))

    def key_of(self, source: str, patch: int, variant: int) -> str:
        """A pair's own key; one that keeps the picture's where there is but one pair of it."""
        number = f"-p{patch:05d}" if self.makes_patches else ""
        return f"{source}{number}-v{variant}" if self.variants > 1 else f"{source}{number}"

    def number_of(self, patch: int, variant: int = 0) -> int:
        """The number of a pair among those of its picture."""
        return patch * self.variants + variant

    def variants_by_patch(self, numbers: Collection[int] | None) -> dict[int, set[int]] | None:
        """Which variants of which patches some pairs of a picture are; None for all."""
        if numbers is None:
            return None
        wanted: dict[int, set[int]] = {}
        for number in numbers:
            wanted.setdefault(number // self.variants, set()).add(number % self.variants)
        return wanted

    def part_of(self, key: str) -> str:
        """The sub-folder that all pairs of a picture go to."""
        if not self.layout.divided:
            return ""
        return "validation" if share_of(key) < self.validation_share else "train"

    def fingerprint(self) -> str:
        decisive = {
            "version": VERSION,
            "recipe": self.recipe.fingerprint(),
            "name": self.recipe.name,
            "seed": self.seed,
            "patch_size": self.patch_size,
            "patches_per_image": self.patches_per_image,
            "output_format": self.output_format,
            "format": repr(self.format),
            "layout": repr(self.layout),
            "validation_share": self.validation_share,
            "variants": self.variants,
            "max_pixels": self.max_pixels,
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {"recipe": self.recipe.to_json(), "recipe_fingerprint": self.recipe.fingerprint(), "seed": self.seed}

    def expected_draws(self) -> list[dict[str, Any]]:
        """What the tallies of the ledgers count, and what to expect of them."""
        return DrawTally(self.recipe.degradation).describe()


@dataclass
class _Task:
    """A decoded record.

    Attributes:
        source: what its pairs say of where they come from: never a path, so that places change no bytes.
        wanted: number of a pair -> its place in a shuffled shard; None for all pairs.
    """

    picture: Picture
    source: Mapping[str, Any]
    wanted: Mapping[int, int] | None


@dataclass
class _Stored:
    """A pair in the samples that are stored; the float pictures that they come from are gone."""

    clean: Samples
    degraded: Samples
    parameters: dict[str, Any]
    patch: int
    variant: int
    arrays: Mapping[str, NDArray[Any]]


@dataclass
class _Block:
    """Some pairs of a picture, one after the other, and what was rejected between them."""

    pairs: list[_Stored] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    held_bytes: int = 0

    def add(self, pair: _Stored, rejected: Mapping[str, int]) -> None:
        self.pairs.append(pair)
        self.rejected.update(rejected)
        self.held_bytes += pair.clean.nbytes + pair.degraded.nbytes


@dataclass
class _Slice(Finished):
    """Some pairs of a picture, one after the other, under construction; `held_bytes` counts those of the outputs."""

    outputs: list[tuple[str, bytes]]
    rows: list[dict[str, Any]]
    held_bytes: int = 0


class DegradeWork:
    """Draws and writes pairs. There is no batched operator: everything happens in the threads, keyed by record and
    patch."""

    def __init__(self, job: DegradeJob) -> None:
        self._job = job
        self._metric = parse_metric(DAMAGE_METRIC)
        self._made_bytes = 0
        self._tally = DrawTally(job.recipe.degradation)
        self._recipe = {"name": job.recipe.name, "fingerprint": job.recipe.fingerprint()}

    def decode(self, record: Record) -> Item:
        field = source_field(record.fields)
        picture = decode(record.fields[field], field, max_pixels=self._job.max_pixels)
        source = {"key": record.key, "field": field, "unit": record.shard}
        return Item(record.key, record.index, self._bytes_held(picture, record), _Task(picture, source, record.wanted))

    def _bytes_held(self, picture: Picture, record: Record) -> int:
        """Of the picture and of the files of its pairs, about: a slice of them at most waits in memory to be written."""
        recipe, blank = self._job.recipe, np.zeros((1, 1, 3), np.float32)
        count = self._job.pairs_per_picture if record.wanted is None else len(record.wanted)
        size = self._job.patch_size or (recipe.patches.size if recipe.patches else None)
        pixels = size**2 if size else picture.samples[..., 0].size
        halves = sum(half.nbytes for half in self._job.format.samples(blank, blank, picture.samples.dtype))
        arrays = sum(_BYTES_OF_A_PIXEL.get(name, 0) for name in recipe.arrays)
        pair_bytes = pixels * (halves + arrays) + _BYTES_OF_DETAILS
        return picture.samples.nbytes + min(count * pair_bytes, SLICE_BYTES + BLOCK_BYTES + pair_bytes)

    def operate(self, items: Sequence[Item]) -> list[None]:
        return [None] * len(items)

    def finish(self, item: Item, result: None, times: StageTimes) -> Iterator[Finished]:
        job, task = self._job, item.payload
        height, width = task.picture.samples.shape[:2]
        part, made = job.part_of(item.key), 0
        finished = _Slice(item.key, item.index, [], [], pixels_in=height * width, part=part)
        for block in times.timed("operate", self._blocks(item.key, task)):
            if finished.held_bytes >= SLICE_BYTES:
                yield finished
                self._give_back(finished.held_bytes)
                finished = _Slice(item.key, item.index, [], [], part=part)
            self._add(finished, task, block, made, times)
            made += len(block.pairs)
            del block  # before the next one is made
        yield finished
        self._give_back(finished.held_bytes)

    def _give_back(self, made_bytes: int) -> None:
        """Now and then. Several threads count; it does not matter if one is overlooked."""
        self._made_bytes += made_bytes
        if self._made_bytes >= GIVE_BACK_EVERY_BYTES:
            self._made_bytes = 0
            give_back_freed_memory()

    def _blocks(self, key: str, task: _Task) -> Iterator[_Block]:
        """The pairs of a picture."""
        job = self._job
        pairs = job.recipe.pairs(
            task.picture.samples,
            key=key,
            seed=job.seed,
            per_image=job.patches_per_image,
            size=job.patch_size,
            patches=job.variants_by_patch(task.wanted),
            variants=job.variants,
            eight_bit=True,
        )
        block = _Block()
        for pair in pairs:
            if isinstance(pair, Rejection):
                # Once, although several shards may want pairs of this picture or place.
                patch = 0 if pair.reason == "too_small" else pair.patch
                if task.wanted is None or job.number_of(patch) in task.wanted:
                    block.rejected.update(pair.rejected)
                continue
            block.add(_stored(pair, task.picture, job.format), pair.rejected)
            del pair
            if block.held_bytes >= BLOCK_BYTES:
                yield block
                block = _Block()
        yield block

    def _add(self, finished: _Slice, task: _Task, block: _Block, made: int, times: StageTimes) -> None:
        """Measures and encodes the pairs of a block, each stage for all of them."""
        job, keys = self._job, [self._job.key_of(finished.key, pair.patch, pair.variant) for pair in block.pairs]
        finished.rejected.update(block.rejected)
        with times.measure("measure"):
            damages = [self._damage(pair) for pair in block.pairs]
            digests = [(samples_digest(pair.clean), samples_digest(pair.degraded)) for pair in block.pairs]
        with times.measure("encode"):
            files = [self._encode(pair, task.picture) for pair in block.pairs]
        for key, pair, (metrics, unmeasured), digest, (outputs, lost) in zip(
            keys, block.pairs, damages, digests, files, strict=True
        ):
            notes = [*task.picture.notes, *lost, *unmeasured]
            json_file = to_json(self._details(key, task.source, pair, metrics, notes, digest))
            for name, data in (*outputs[:2], ("json", json_file), *outputs[2:]):
                finished.outputs.append((f"{key}.{name}", data))
                finished.held_bytes += len(data)
            index = finished.index if task.wanted is None else task.wanted[job.number_of(pair.patch, pair.variant)]
            row = {"key": key, "index": index, "metrics": metrics, "notes": notes}
            finished.rows.append(row | describe_samples(pair.clean))
            finished.pixels_out += pair.clean.shape[0] * pair.clean.shape[1]
            self._tally.add(pair.parameters["degradation"], finished.tallies)
            if made < _SAMPLES_OF_A_PICTURE:
                finished.samples.append(_sample(key, made, pair))
            made += 1

    def _damage(self, pair: _Stored) -> tuple[dict[str, float], list[str]]:
        """Figures of the degraded half, and notes on what could not be measured."""
        if pair.degraded.shape[:2] != pair.clean.shape[:2]:
            return {}, ["damage not measured: the degraded picture has another size"]
        return {self._metric.name: self._metric(pair.degraded, pair.clean)}, []

    def _encode(self, pair: _Stored, picture: Picture) -> tuple[list[tuple[str, bytes]], Sequence[str]]:
        """Field names and files of both halves and of the arrays, and notes on what was lost."""
        job = self._job
        clean, notes = job.format.encode_clean(pair.clean, picture, whole=not job.makes_patches)
        files = zip(job.format.fields, (clean, job.format.encode_degraded(pair.degraded, picture)), strict=True)
        return [*files, *(encode_array(name, array) for name, array in pair.arrays.items())], notes

    def _details(
        self,
        key: str,
        source: Mapping[str, Any],
        pair: _Stored,
        metrics: Mapping[str, float],
        notes: Sequence[str],
        digests: tuple[str, str],
    ) -> dict[str, Any]:
        """The pair's JSON."""
        return {
            "key": key,
            "source": source,
            "recipe": self._recipe,
            "seed": self._job.seed,
            "patch": pair.patch,
            "variant": pair.variant,
            "parameters": pair.parameters,
            "types": {"clean": _type_name(pair.clean.dtype), "degraded": _type_name(pair.degraded.dtype)},
            "digests": {"clean": digests[0], "degraded": digests[1]},
            "metrics": metrics,
            "notes": notes,
        }

    def counters(self) -> Mapping[str, int]:
        return {}


@lru_cache(maxsize=8)
def _type_name(dtype: np.dtype[Any]) -> str:
    return dtype.name  # NumPy puts it together anew each time, in longer than it takes to copy a patch


def _stored(pair: Pair, picture: Picture, form: PairFormat) -> _Stored:
    clean, degraded = form.samples(_clean_half(pair, picture), pair.degraded, picture.samples.dtype)
    return _Stored(clean, degraded, pair.parameters, pair.patch, pair.variant, pair.arrays)


def _clean_half(pair: Pair, picture: Picture) -> Samples:
    """The clean picture of a pair: where it was not turned, the very integers that it was made from, which is the same."""
    cut = Cut.from_json(pair.parameters["cut"])
    if picture.samples.dtype == np.float32 or cut.flip or cut.rotation or "margin" in pair.parameters:
        return pair.clean
    return with_channels(cut.crop(picture.samples), pair.parameters["channels"])


def _sample(key: str, turn: int, pair: _Stored) -> Sample:
    crops = {
        "degraded": crop_for_report(pair.degraded, Fraction(pair.clean.shape[1], pair.degraded.shape[1])),
        "clean": crop_for_report(pair.clean),
    }
    return Sample(key, None, crops, turn, short_form(pair.parameters["degradation"]))


def encode_array(name: str, array: NDArray[Any]) -> tuple[str, bytes]:
    """Field name and file of an array that a pair carries: masks (uint8, H x W) as PNG, all else as npy."""
    if array.dtype == np.uint8 and array.ndim == 2:
        return f"{name}.png", encode(Picture(array[..., np.newaxis], None, "png"), "png", EncodeOptions())[0]
    return f"{name}.npy", npy_bytes(array)


_JSON = json.JSONEncoder(sort_keys=True, allow_nan=False)


def to_json(details: Mapping[str, Any]) -> bytes:
    """A record's JSON, keys sorted; infinite figures, which are rare, as words."""
    try:
        return _JSON.encode(details).encode()
    except ValueError:
        return _JSON.encode(spell_infinities(details)).encode()
