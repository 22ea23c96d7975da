"""What the overhead is measured against: one process, one loop, no engine, no threads, no bookkeeping.

Reads tars with `tarfile`, decodes with Pillow, runs the network on whole pictures with onnxruntime, measures with the same metrics,
encodes with the same encoder, writes tars with `tarfile`.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from transforms.metrics import parse_metric
from transforms.pictures import EncodeOptions, Picture, encode

METRICS = [parse_metric(name) for name in ("psnr[rgb,u8]", "ssim[rgb,u8]")]


def records(tar: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    key, fields = "", dict[str, bytes]()
    with tarfile.open(tar) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            name, _, field = member.name.partition(".")
            if name != key and fields:
                yield key, fields
                fields = {}
            key = name
            fields[field] = content.read()
    yield key, fields


def pixels(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


def restore(session: onnxruntime.InferenceSession, degraded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    feed = (degraded.astype(np.float32) / 255).transpose(2, 0, 1)[None]
    answer = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(feed)})[0][0]
    rounded: NDArray[np.uint8] = np.rint(np.clip(answer, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(rounded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, nargs="+", help="tars")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    session = onnxruntime.InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
    arguments.output.mkdir(parents=True, exist_ok=True)
    figures: list[list[float]] = []
    for tar in arguments.input:
        with tarfile.open(arguments.output / tar.name, "w") as shard:
            for key, fields in records(tar):
                degraded = pixels(fields.get("degraded.png") or fields["png"])
                restored = restore(session, degraded)
                if "clean.png" in fields:
                    clean = pixels(fields["clean.png"])
                    figures.append([metric(image, clean) for image in (restored, degraded) for metric in METRICS])
                data, _ = encode(Picture(restored, None, "png"), "png", EncodeOptions())
                info = tarfile.TarInfo(f"{key}.restored.png")
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
    if figures:
        print(" ".join(f"{mean:.4f}" for mean in np.mean(figures, axis=0)))


if __name__ == "__main__":
    main()
