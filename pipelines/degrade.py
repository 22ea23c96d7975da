"""`conservator degrade`: clean pictures in, pairs out, each with the JSON that makes it again."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from models.recipes import Pair, Recipe, load_recipe
from pipelines.options import DegradeOptions
from transforms.errors import ConfigurationError
from transforms.ledger import spell_infinities
from transforms.metrics import parse_metric
from transforms.pictures import EncodeOptions, Picture, Samples, decode, encode, from_float
from transforms.record import Record, source_field
from transforms.restoration import describe_samples
from transforms.samples import crop_for_report
from transforms.streaming import StageTimes
from transforms.units import Unit
from transforms.value_range import samples_digest
from transforms.version import VERSION
from transforms.work import Finished, Item, Sample, SinkKind

DAMAGE_METRIC = "psnr[rgb,u8]"


@dataclass(frozen=True)
class DegradeJob:
    """Configuration of a synthesis."""

    recipe: Recipe
    seed: int = 0
    patch_size: int | None = None
    patches_per_image: int | None = None
    output_format: SinkKind = "tar"
    encoding: EncodeOptions = field(default_factory=EncodeOptions)
    max_pixels: int = 300_000_000
    batch_bytes: int = 1
    verb: str = "degrade"

    def load(self) -> DegradeWork:
        return DegradeWork(self)

    def sink_kind(self, unit: Unit) -> SinkKind:
        if self.output_format == "folder" and unit.kind == "tar":
            return "subfolder"
        return self.output_format

    @property
    def makes_patches(self) -> bool:
        """Whether a picture may give more than one pair, so that keys need the pair's number."""
        return bool(self.recipe.patches or self.patch_size or (self.patches_per_image or 1) > 1)

    def fingerprint(self) -> str:
        decisive = {
            "version": VERSION,
            "recipe": self.recipe.fingerprint(),
            "store": self.recipe.store,
            "seed": self.seed,
            "patch_size": self.patch_size,
            "patches_per_image": self.patches_per_image,
            "output_format": self.output_format,
            "encoding": repr(self.encoding),
            "max_pixels": self.max_pixels,
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {"recipe": self.recipe.to_json(), "recipe_fingerprint": self.recipe.fingerprint(), "seed": self.seed}


@dataclass
class _Task:
    """A decoded record and what its pairs say of where they come from: never a path, so that places change no bytes."""

    picture: Picture
    source: Mapping[str, Any]


class DegradeWork:
    """Draws and writes pairs. There is no batched operator: everything happens in the threads, keyed by record and
    patch."""

    def __init__(self, job: DegradeJob) -> None:
        self._job = job
        self._metric = parse_metric(DAMAGE_METRIC)

    def decode(self, record: Record) -> Item:
        field = source_field(record.fields)
        picture = decode(record.fields[field], field, max_pixels=self._job.max_pixels)
        source = {"key": record.key, "field": field, "unit": record.shard}
        return Item(record.key, record.index, picture.samples.nbytes, _Task(picture, source))

    def operate(self, items: Sequence[Item]) -> list[None]:
        return [None] * len(items)

    def finish(self, item: Item, result: None, times: StageTimes) -> Finished:
        job, picture = self._job, item.payload.picture
        finished = Finished(item.key, item.index, [], [], pixels_in=picture.samples.shape[0] * picture.samples.shape[1])
        rejected: Counter[str] = Counter()
        pairs = job.recipe.pairs(
            picture.samples, key=item.key, seed=job.seed, per_image=job.patches_per_image, size=job.patch_size
        )
        for pair in times.timed("operate", iter(pairs)):
            rejected.update(pair.rejected)
            if not isinstance(pair, Pair):
                continue
            self._add(finished, item.payload, pair, times)
        finished.rejected = rejected
        return finished

    def _add(self, finished: Finished, task: _Task, pair: Pair, times: StageTimes) -> None:
        picture, source = task.picture, task.source
        key = f"{finished.key}-p{pair.patch:05d}" if self._job.makes_patches else finished.key
        depth = picture.samples.dtype if picture.samples.dtype != np.float32 else np.dtype(np.uint8)
        clean = from_float(pair.clean, depth)
        with times.measure("encode"):
            clean_png, notes = encode(replace(picture, samples=clean, alpha=None), "png", self._job.encoding)
            degraded, field, degraded_bytes = self._encode_degraded(pair, depth, picture)
        with times.measure("measure"):
            metrics = {self._metric.name: self._metric(degraded, clean)}
        dropped = ["alpha dropped: pairs have none"] if picture.alpha is not None else []
        details = {
            "key": key,
            "source": source,
            "recipe": {"name": self._job.recipe.name, "fingerprint": self._job.recipe.fingerprint()},
            "seed": self._job.seed,
            "patch": pair.patch,
            "parameters": pair.parameters,
            "digests": {"clean": samples_digest(clean), "degraded": samples_digest(degraded)},
            "metrics": metrics,
            "notes": [*picture.notes, *dropped, *notes],
        }
        encoded = json.dumps(spell_infinities(details), sort_keys=True, allow_nan=False).encode()
        finished.outputs += [
            (f"{key}.clean.png", clean_png),
            (f"{key}.{field}", degraded_bytes),
            (f"{key}.json", encoded),
        ]
        row = {"key": key, "index": finished.index, "metrics": metrics, "notes": details["notes"]} | describe_samples(
            clean
        )
        finished.rows.append(row)
        finished.pixels_out += clean.shape[0] * clean.shape[1]
        if finished.sample is None:
            crops = {"degraded": crop_for_report(degraded), "clean": crop_for_report(clean)}
            finished.sample = Sample(key, metrics[self._metric.name], crops)

    def _encode_degraded(self, pair: Pair, depth: np.dtype[Any], picture: Picture) -> tuple[Samples, str, bytes]:
        if self._job.recipe.store == "npy":
            return pair.degraded, "degraded.npy", encode_array(pair.degraded)
        samples = from_float(pair.degraded, depth)
        data, _ = encode(Picture(samples, None, "png", icc=picture.icc), "png", self._job.encoding)
        return samples, "degraded.png", data

    def counters(self) -> Mapping[str, int]:
        return {}


def encode_array(values: Samples) -> bytes:
    """A float32 array in NumPy's own format, without pickle."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def degrade_job(options: DegradeOptions) -> DegradeJob:
    """Reads the recipe and checks everything that can be known before a worker starts."""
    recipe = load_recipe(options.recipe)
    if options.degraded_format:
        recipe = replace(recipe, store=options.degraded_format)
    if options.whole:
        if options.patch_size or options.patches_per_image:
            raise ConfigurationError(
                "--whole makes one pair of each picture: leave out --patch_size and --patches_per_image"
            )
        recipe = replace(recipe, patches=None)
    return DegradeJob(
        recipe,
        options.seed,
        options.patch_size or None,
        options.patches_per_image or None,
        "folder" if options.output_format == "folder" else "tar",
        EncodeOptions(png_level=options.png_level),
        options.max_pixels,
    )
