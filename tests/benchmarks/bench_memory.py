"""How much memory a restoration takes: whatever the number of pictures, and with a very large one.

    python tests/benchmarks/bench_memory.py

1,000 photographs against 100, in four shards each, with PSNR, SSIM and two workers: the peaks of the largest worker and
of the whole process tree may grow by at most 10 %. Then one picture of 201 megapixels (16384 x 12288, 8 bits,
photographs side by side with Gaussian noise), with one worker: under 2 GiB in any process. Resident sets are sampled 20
times a second, peaks of single processes are the kernel's own. The network is one 3x3 convolution, because a network's
own memory depends on its tiles, not on the picture; `--model denoise5-color-25` runs a real one (ten minutes and more
for the large picture).
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from material import light_network, model_path, pairs, photographs, repeated
from measurement import CONSERVATOR, Cost, describe, measure, table, verdict
from numpy.typing import NDArray
from PIL import Image

from transforms.pictures import EncodeOptions, Picture, encode

GROWTH_BAR, LARGE_BAR_MIB = 1.1, 2048
HEIGHT, WIDTH = 12288, 16384
SIGMA = 25
_BAND_ROWS = 256


def restore(shards: Path, output: Path, model: Path, workers: int) -> Cost:
    shutil.rmtree(output, ignore_errors=True)
    command = [*CONSERVATOR, "restore", "--input", str(shards), "--output", str(output), "--model", str(model)]
    command += ["--num_local_workers", str(workers), "--session_threads", "1", "--quiet"]
    cost = measure(command, memory=True)
    print(f"  {shards.name}: {describe(cost)}", flush=True)
    return cost


def mosaic() -> NDArray[np.uint8]:
    """Photographs side by side, HEIGHT x WIDTH x 3."""
    pictures = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _, data in photographs(40)]
    landscape = [picture[:320, :480] for picture in pictures if picture.shape[1] > picture.shape[0]]
    strips = [np.concatenate(np.roll(landscape, -turn, axis=0), axis=1) for turn in range(len(landscape))]
    canvas = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    for top in range(0, HEIGHT, 320):
        strip = strips[top // 320 % len(strips)]
        columns = np.arange(WIDTH) % strip.shape[1]
        canvas[top : top + 320] = strip[: HEIGHT - top, columns]
    return canvas


def noisy(clean: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With Gaussian noise, rounded and clipped."""
    rng, damaged = np.random.default_rng(25), np.empty_like(clean)
    for top in range(0, len(clean), _BAND_ROWS):
        band = clean[top : top + _BAND_ROWS]
        noise = rng.standard_normal(band.shape, np.float32)
        damaged[top : top + _BAND_ROWS] = np.clip(np.rint(band + SIGMA * noise), 0, 255)
    return damaged


def large_pictures(folder: Path) -> dict[str, Path]:
    """Folders of one 201-megapixel picture each: colour, grey, and colour with its clean reference."""
    folders = {name: folder / name for name in ("colour", "grey", "colour with reference")}
    for path in folders.values():
        path.mkdir(parents=True)
    clean = mosaic()
    damaged = noisy(clean)
    _save(damaged, folders["colour"] / "large.png")
    _save(damaged[..., 1:2], folders["grey"] / "large.png")
    (folders["colour with reference"] / "large.degraded.png").hardlink_to(folders["colour"] / "large.png")
    _save(clean, folders["colour with reference"] / "large.clean.png")
    return folders


def _save(samples: NDArray[np.uint8], path: Path) -> None:
    data, _ = encode(Picture(samples, None, "png"), "png", EncodeOptions())
    path.write_bytes(data)


def show(costs: dict[str, Cost]) -> None:
    rows = [
        (name, f"{cost.wall_s:.1f}", *(f"{peak:.0f}" for peak in (cost.driver_mib, cost.worker_mib, cost.tree_mib)))
        for name, cost in costs.items()
    ]
    table(("peak resident memory", "wall s", "driver MiB", "worker MiB", "tree MiB"), rows)


def many_pictures(folder: Path, count: int, model: str) -> list[bool]:
    damaged = pairs(folder, count, [1] * 4)
    network = model_path(model) if model else light_network(folder / "colour.onnx", 3)
    few = restore(repeated(damaged, folder / f"{count}-pictures", 1), folder / "restored", network, 2)
    many = restore(repeated(damaged, folder / f"{10 * count}-pictures", 10), folder / "restored", network, 2)
    print()
    show({f"{count} pictures": few, f"{10 * count} pictures": many})
    return [
        verdict(f"growth of the {what}", getattr(many, name) / getattr(few, name), GROWTH_BAR, at_most=True)
        for what, name in (("largest worker", "worker_mib"), ("process tree", "tree_mib"))
    ]


def one_large_picture(folder: Path, only: Sequence[str], model: str) -> list[bool]:
    costs = {}
    for name, path in large_pictures(folder / "large").items():
        if only and name not in only:
            continue
        light = light_network(folder / f"{name}.onnx", 1 if name == "grey" else 3)
        costs[name] = restore(path, folder / "restored", model_path(model) if model else light, 1)
    print(f"\none picture of {HEIGHT * WIDTH / 1e6:.0f} megapixels")
    show(costs)
    return [
        verdict(f"largest process, {name}, MiB", max(cost.driver_mib, cost.worker_mib), LARGE_BAR_MIB, at_most=True)
        for name, cost in costs.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100, help="of the smaller job; the other has ten times as many")
    parser.add_argument("--model", default="", help="zoo name or .onnx file instead of the light network")
    parser.add_argument("--only", choices=("many", "large"), help="one half of the benchmark")
    parser.add_argument("--large", nargs="*", default=[], help="which: colour, grey, 'colour with reference'")
    arguments = parser.parse_args()
    met = []
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as name:
        if arguments.only != "large":
            met += many_pictures(Path(name), arguments.pictures, arguments.model)
        if arguments.only != "many":
            met += one_large_picture(Path(name), arguments.large, arguments.model)
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
