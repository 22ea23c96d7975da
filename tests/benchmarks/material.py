"""Input for the benchmarks: tars of real photographs, damaged by `conservator degrade`, and a network of almost no weight."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from measurement import CONSERVATOR, measure
from onnx import TensorProto, helper
from PIL import Image

from models.zoo import zoo_path
from transforms.formats.tar import TarWriter, read_tar, write_record
from transforms.record import Record

RECIPE = "gaussian-25"
_CROP_HEIGHT, _CROP_WIDTH = 321, 481  # the size of the Berkeley photographs


def photographs(count: int) -> list[tuple[str, bytes]]:
    """Names and files of real photographs: the Berkeley training set, or crops of those in scikit-image where that is absent."""
    folder = Path(os.environ.get("CONSERVATOR_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    files = sorted((folder / "BSDS200_train").glob("*.jpg"))[:count]
    if len(files) == count:
        print(f"{count} photographs of {folder / 'BSDS200_train'}")
        return [(file.name, file.read_bytes()) for file in files]
    print(f"{count} crops of the photographs in scikit-image: no {folder / 'BSDS200_train'}")
    crops = _crops()
    return [next(crops) for _ in range(count)]


def _crops() -> Iterator[tuple[str, bytes]]:
    """Overlapping crops without end; `offset` moves on when all pictures have been cut."""
    from skimage import data

    pictures = {name: getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
    for offset in range(97):
        for name, picture in pictures.items():
            picture = np.pad(picture, ((0, _CROP_HEIGHT), (0, _CROP_WIDTH), (0, 0)), mode="reflect")
            top, left = 37 * offset % (picture.shape[0] - _CROP_HEIGHT), 59 * offset % (picture.shape[1] - _CROP_WIDTH)
            buffer = io.BytesIO()
            Image.fromarray(picture[top : top + _CROP_HEIGHT, left : left + _CROP_WIDTH]).save(buffer, "PNG")
            yield f"{name}-{offset:02d}.png", buffer.getvalue()


def pairs(folder: Path, count: int, sizes: Sequence[int]) -> Path:
    """Tars of clean and degraded PNGs, made once.

    Args:
        sizes: relative numbers of pictures in the shards: `[1] * 8` are eight equal ones.
    """
    damaged = folder / "pairs"
    if damaged.exists():
        return damaged
    files, clean = photographs(count), folder / "clean"
    clean.mkdir(parents=True)
    edges = [round(sum(sizes[:n]) * count / sum(sizes)) for n in range(len(sizes) + 1)]
    for number, (start, stop) in enumerate(pairwise(edges)):
        with TarWriter(clean / f"{number:05d}.tar") as shard:
            for name, data in files[start:stop]:
                shard.write(name, data)
    degrade = ["degrade", "--input", str(clean), "--output", str(damaged), "--recipe", RECIPE, "--whole", "--quiet"]
    measure([*CONSERVATOR, *degrade])
    return damaged


def without_reference(damaged: Path, folder: Path) -> Path:
    """The same shards with nothing but the degraded picture in each record, made once."""
    if not folder.exists():
        folder.mkdir(parents=True)
        for tar in sorted(damaged.glob("*.tar")):
            with TarWriter(folder / tar.name) as shard:
                for record in read_tar(str(tar)):
                    shard.write(f"{record.key}.png", record.fields["degraded.png"])
    return folder


def repeated(damaged: Path, folder: Path, times: int) -> Path:
    """Shards that are `times` as long, the same pictures under new keys, made once."""
    if not folder.exists():
        folder.mkdir(parents=True)
        for tar in sorted(damaged.glob("*.tar")):
            with TarWriter(folder / tar.name) as shard:
                for turn in range(times):
                    for record in read_tar(str(tar)):
                        write_record(shard, f"{turn:02d}/{record.key}", _pictures(record))
    return folder


def _pictures(record: Record) -> dict[str, bytes]:
    return {name: data for name, data in record.fields.items() if name != "json"}


def model_path(name: str) -> Path:
    """A zoo name or a path, as `--model` takes them."""
    return Path(name if name.endswith(".onnx") else zoo_path(name))


def light_network(path: Path, channels: int) -> Path:
    """One 3x3 binomial blur for each channel: real tiling with a halo of one pixel, next to no arithmetic."""
    taps = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16
    weights = helper.make_tensor("w", TensorProto.FLOAT, (channels, 1, 3, 3), np.tile(taps.ravel(), channels))
    shape = ["n", channels, "h", "w"]
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=channels)
    graph = helper.make_graph(
        [node],
        "blur",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path
