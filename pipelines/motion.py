"""`conservator motion`: the motion that blurred each picture, as an array and as a picture with lines. No Beam, no torch."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.motion_classifier import MotionClassifier
from models.motion_field import MotionField, estimate_motion
from models.recipes.channels import with_channels
from models.training_data import CHANNELS
from models.zoo import zoo_path
from pipelines.options import MotionOptions
from transforms.errors import ConfigurationError, RecordError
from transforms.formats.indexed import index_records
from transforms.onnx_session import SessionSettings, read_model
from transforms.pictures import decode
from transforms.record import Record, degraded_field
from transforms.storage import OutputStore
from transforms.value_range import Samples, to_float, to_u8

EXIT_FAILED_RECORDS = 3
SPACING_PX = 16  # between the lines
_LINE, _DOT, _BACKGROUND = (255, 210, 0), (230, 60, 0), 0.55


def run_motion(options: MotionOptions) -> int:
    """Writes KEY.motion.npy (2 x H x W, float32: right and down, pixels), KEY.confidence.npy (H x W, float32) and
    KEY.motion.png for each picture.

    Raises:
        ConfigurationError: no input, or a model that does not classify motion.
    """
    path = options.model if options.model.endswith(".onnx") else str(zoo_path(options.model))
    settings = SessionSettings(options.provider, options.session_threads)  # 0 threads: onnxruntime takes all cores
    classifier = MotionClassifier(read_model(path), settings)
    store, failed = OutputStore(options.output), 0
    for record in _records(options.input):
        try:
            samples = _samples(record)
            planes = np.moveaxis(to_float(with_channels(samples, CHANNELS[classifier.channels])), 2, 0)
            field = estimate_motion(classifier, planes, options.rotations)
        except (RecordError, ConfigurationError) as error:
            print(f"{record.key}: {error}", file=sys.stderr)
            failed += 1
            continue
        for name, array in (("motion", field.motion), ("confidence", field.confidence)):
            store.write(f"{record.key}.{name}.npy", _npy(array))
        store.write(f"{record.key}.motion.png", _png(draw_motion(samples, field)))
        print(f"{record.key}: {describe(field)}")
    return EXIT_FAILED_RECORDS if failed else 0


def describe(field: MotionField) -> str:
    """One line for a person."""
    lengths = np.hypot(*field.motion)
    return (
        f"{lengths.shape[1]}x{lengths.shape[0]}, motion of {np.median(lengths):.0f} pixels (median), "
        f"{(field.labels == 0).mean():.0%} sharp, mean confidence {field.confidence.mean():.2f}"
    )


def draw_motion(samples: Samples, field: MotionField) -> Image.Image:
    """The picture, darkened, with the path of every sixteenth pixel as a line; a dot where it stands still."""
    rgb = to_u8(to_float(with_channels(samples, "rgb")) * np.float32(_BACKGROUND))
    picture = Image.fromarray(rgb)
    pen = ImageDraw.Draw(picture)
    height, width = field.labels.shape
    for row in range(min(SPACING_PX, height) // 2, height, SPACING_PX):
        for column in range(min(SPACING_PX, width) // 2, width, SPACING_PX):
            u, v = (float(each) / 2 for each in field.motion[:, row, column])
            if field.labels[row, column] == 0:
                pen.point((column, row), fill=_DOT)
            else:
                pen.line((column - u, row - v, column + u, row + v), fill=_LINE)
    return picture


def _records(patterns: str) -> Iterator[Record]:
    index = index_records([patterns])
    for number in range(len(index)):
        part, inside = index.at(number)
        yield part.read(inside)


def _samples(record: Record) -> Samples:
    if record.error is not None:
        raise record.error
    name = degraded_field(record.fields)
    return decode(record.fields[name], name).samples


def _npy(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
