"""The work of `restore`: a degraded picture in, a restored one out, measured where a clean reference is at hand."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from transforms.enlargement import CHROMA_KERNEL
from transforms.errors import Reason, RecordError
from transforms.interpolation import InterpolatedRows
from transforms.metrics import Readable, parse_metric
from transforms.pictures import EncodeOptions, Picture, Samples, decode, encode, from_float
from transforms.plain_json import plain_json
from transforms.record import Record, clean_field, degraded_field
from transforms.restorer import Restored, Restorer, RestorerFactory
from transforms.samples import crop_for_report
from transforms.streaming import StageTimes
from transforms.summary import BICUBIC_PREFIX, INPUT_PREFIX
from transforms.units import Unit
from transforms.version import VERSION
from transforms.work import Finished, Item, Sample, ShardLayout, SinkKind

DEFAULT_METRICS = ("psnr[rgb,u8]", "ssim[rgb,u8]")
# What one call of the restorer gets: enough small pictures to fill a batch of tiles, and never two large ones.
BATCH_BYTES = 4 * 2**20


@dataclass(frozen=True)
class RestoreJob:
    """Configuration of a restoration.

    Attributes:
        output_format: of KEY.restored.EXT; loose pictures keep their own format.
    """

    restorer: RestorerFactory
    metrics: tuple[str, ...] = DEFAULT_METRICS
    output_format: str = "png"
    encoding: EncodeOptions = field(default_factory=EncodeOptions)
    max_pixels: int = 300_000_000
    batch_bytes: int = BATCH_BYTES
    verb: str = "restore"
    layout: ShardLayout = field(default_factory=ShardLayout)

    def load(self) -> RestoreWork:
        return RestoreWork(self, self.restorer.load())

    def sink_kind(self, unit: Unit) -> SinkKind:
        return "folder" if unit.kind == "folder" else "tar"

    def fingerprint(self) -> str:
        decisive = {
            "version": VERSION,
            "restorer": self.restorer.fingerprint(),
            "metrics": self.metrics,
            "output_format": self.output_format,
            "encoding": repr(self.encoding),
            "max_pixels": self.max_pixels,
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {"restorer": self.restorer.describe(), "metrics": list(self.metrics)}


@dataclass
class _Task:
    """A decoded record: the picture to restore, its reference, and what is known about its damage."""

    picture: Picture
    field: str
    clean: Samples | None
    parameters: Mapping[str, Any]
    name: str | None


class RestoreWork:
    """A loaded restoration. Decoding and finishing are thread-safe; the restorer is used from one thread at a time."""

    def __init__(self, job: RestoreJob, restorer: Restorer) -> None:
        self._job = job
        self._restorer = restorer
        self._metrics = [parse_metric(name) for name in job.metrics]
        self._provenance = job.restorer.fingerprint()

    def decode(self, record: Record) -> Item:
        field, clean_name = degraded_field(record.fields), clean_field(record.fields)
        # Encoded pictures leave the record as they are decoded: the readers still hold it, and large ones count.
        picture = decode(record.fields.pop(field), field, max_pixels=self._job.max_pixels)
        clean = None
        if clean_name is not None:
            clean = decode(record.fields.pop(clean_name), clean_name, max_pixels=self._job.max_pixels).samples
            self._check_sizes(picture.samples, clean)
        parameters = read_parameters(record.fields)
        held = picture.samples.nbytes + (0 if clean is None else clean.nbytes)
        return Item(record.key, record.index, held, _Task(picture, field, clean, parameters, record.name))

    def _check_sizes(self, degraded: Samples, clean: Samples) -> None:
        expected = tuple(math.floor(side * self._restorer.scale) for side in degraded.shape[:2])
        if expected != clean.shape[:2]:
            raise RecordError(
                Reason.SIZE_MISMATCH,
                f"the degraded picture is {degraded.shape[1]}x{degraded.shape[0]}, the model enlarges by {self._restorer.scale}, "
                f"but the clean one is {clean.shape[1]}x{clean.shape[0]}",
            )

    def operate(self, items: Sequence[Item]) -> list[Restored]:
        return self._restorer.restore(
            [item.payload.picture.samples for item in items], [item.payload.parameters for item in items]
        )

    def finish(self, item: Item, result: Restored, times: StageTimes) -> Finished:
        task: _Task = item.payload
        samples = _storable(result.samples, task.clean)
        with times.measure("measure"):
            metrics = self._measure(samples, task.picture.samples, task.clean)
            sample = self._sample(item.key, metrics, task.picture.samples, samples, task.clean)
        degraded_shape = task.picture.samples.shape
        restored = replace(task.picture, samples=samples, alpha=_resize_alpha(task.picture.alpha, samples))
        # The pipeline still holds the item: what has been measured goes before the encoder needs room.
        task.picture, task.clean = restored, None
        kind = restored.kind if task.name is not None else self._job.output_format
        with times.measure("encode"):
            data, encoder_notes = encode(restored, kind, self._job.encoding)
        notes = [*restored.notes, *encoder_notes]
        row = describe_samples(samples) | {"key": item.key, "index": item.index, "metrics": metrics, "notes": notes}
        image_name = task.name or f"{item.key}.restored.{kind}"
        details = {
            "key": item.key,
            "field": task.field,
            "restorer": self._provenance,
            "restoration": result.notes,
            "metrics": metrics,
            "notes": notes,
        } | describe_samples(samples)
        if task.parameters:
            details["degradation"] = task.parameters
        outputs = [(image_name, data), (f"{item.key}.json", _to_json(details))]
        return Finished(
            item.key,
            item.index,
            outputs,
            [row],
            pixels_in=degraded_shape[0] * degraded_shape[1],
            pixels_out=samples.shape[0] * samples.shape[1],
            samples=[sample],
        )

    def _measure(self, restored: Samples, degraded: Samples, clean: Samples | None) -> dict[str, float]:
        if clean is None:
            return {}
        figures = {metric.name: metric(restored, clean) for metric in self._metrics}
        before: Readable
        if degraded.shape[:2] == clean.shape[:2]:
            prefix, before = INPUT_PREFIX, _storable(degraded, clean)
        elif self._restorer.scale > 1:  # computed as it is read: as a whole it would weigh as much as the result
            depth, size = _stored_depth(degraded, clean), (clean.shape[0], clean.shape[1])
            prefix, before = BICUBIC_PREFIX, InterpolatedRows(degraded, size, CHROMA_KERNEL, depth)
        else:
            return figures
        return figures | {prefix + metric.name: metric(before, clean) for metric in self._metrics}

    def _sample(
        self, key: str, metrics: Mapping[str, float], degraded: Samples, restored: Samples, clean: Samples | None
    ) -> Sample:
        crops = {"degraded": crop_for_report(degraded, self._restorer.scale), "restored": crop_for_report(restored)}
        if clean is not None:
            crops["clean"] = crop_for_report(clean)
        return Sample(key, metrics.get(self._metrics[0].name) if self._metrics else None, crops)

    def counters(self) -> Mapping[str, int]:
        return self._restorer.counters


def read_parameters(fields: Mapping[str, bytes]) -> Mapping[str, Any]:
    """The degradation's parameters from a record's `json` field, empty where there is none.

    Raises:
        RecordError: `BAD_METADATA` if the field is not a JSON object.
    """
    if "json" not in fields:
        return {}
    try:
        described = json.loads(fields["json"])
    except ValueError as error:
        raise RecordError(Reason.BAD_METADATA, f"the record's json field can't be read: {error}") from error
    if not isinstance(described, dict):
        raise RecordError(
            Reason.BAD_METADATA, f"the record's json field is a {type(described).__name__}, expected an object"
        )
    parameters = described.get("parameters", {})
    return parameters if isinstance(parameters, dict) else {}


def _storable(samples: Samples, clean: Samples | None) -> Samples:
    """Float results become integers of the reference's depth, 8 bit without one: no format that we write holds
    floats."""
    return samples if samples.dtype != np.float32 else from_float(samples, _stored_depth(samples, clean))


def _stored_depth(samples: Samples, clean: Samples | None) -> np.dtype[Any]:
    if samples.dtype != np.float32:
        return samples.dtype
    return clean.dtype if clean is not None and clean.dtype != np.float32 else np.dtype(np.uint8)


def _resize_alpha(alpha: Samples | None, samples: Samples) -> Samples | None:
    if alpha is None or alpha.shape == samples.shape[:2]:
        return alpha
    height, width = samples.shape[:2]
    resized = Image.fromarray(alpha.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    rounded: Samples = np.clip(np.rint(np.asarray(resized)), 0, np.iinfo(alpha.dtype).max).astype(alpha.dtype)
    return rounded


def describe_samples(samples: Samples) -> dict[str, int]:
    """Size, channels and bits of a picture, for ledger rows and record JSON."""
    height, width, channels = samples.shape
    return {"width": width, "height": height, "channels": channels, "bits": 8 * samples.dtype.itemsize}


def _to_json(details: Mapping[str, Any]) -> bytes:
    return plain_json(details)
