"""Pairs to learn from, on one core: stored ones in each format against a plain loop, fresh ones pair by pair and in batches.

    python tests/benchmarks/bench_datasets.py

Stored: pairs of 128x128 colour patches, blurred, noisy, in 8 bit, read by `PairShards` one after the other as float32
tensors. The plain loop is what one would write: `webdataset` reads the tar in order, Pillow decodes, torch converts.
`shuffled` draws in random order, which the plain loop can't. Fresh: patches of `FreshPairs`, and of `FreshBatches` on the CPU.
Rates are for each CPU second of one process with one thread, files in the page cache, so that a busy machine matters less;
ratios are within a round, the median counts.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset
from material import photographs
from measurement import table
from PIL import Image

from models.datasets import FreshBatches, FreshPairs, LoadedBatches, PairShards
from models.recipes import Pair, load_recipe
from models.recipes.channels import with_channels
from models.training_data import TrainingPicture
from transforms.formats.arrow import ArrowWriter
from transforms.formats.parquet import ParquetWriter
from transforms.formats.tar import TarWriter
from transforms.pictures import EncodeOptions, Picture, decode, encode
from transforms.raw_arrays import npy_bytes
from transforms.value_range import from_float

SIDE = 128
PLAIN = "plain loop, tar (png)"


def clean_pictures(count: int) -> list[TrainingPicture]:
    return [TrainingPicture(name.partition(".")[0], decode(data, name).samples) for name, data in photographs(count)]


def write(folder: Path, pictures: list[TrainingPicture], count: int) -> None:
    recipe = load_recipe("text-deblur")
    png, npy = TarWriter(folder / "png.tar"), TarWriter(folder / "npy.tar")
    tables = [ArrowWriter(folder / "pairs.arrow", {}), ParquetWriter(folder / "pairs.parquet", {})]
    for number in range(count):
        picture = pictures[number % len(pictures)]
        pair = recipe.pair(picture.clean, key=picture.key, patch=number, seed=1, size=SIDE)
        if not isinstance(pair, Pair):
            continue
        halves = {"clean": from_float(pair.clean, np.uint8), "degraded": from_float(pair.degraded, np.uint8)}
        coded = {
            f"{role}.png": encode(Picture(half, None, "png"), "png", EncodeOptions())[0]
            for role, half in halves.items()
        }
        raw = {f"{role}.npy": npy_bytes(half) for role, half in halves.items()}
        key, details = f"{picture.key}-p{number:05d}", {"json": b"{}"}
        for shard, fields in ((png, coded), (npy, raw)):
            for name, data in (fields | details).items():
                shard.write(f"{key}.{name}", data)
        for shard, fields in zip(tables, (raw, coded), strict=True):
            shard.write_record(key, list((fields | details).items()))
    for shard in (png, npy, *tables):
        shard.close()


def plain_loop(
    path: Path, of: Callable[[bytes], np.ndarray], ending: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for record in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False):
        clean, degraded = (of(record[f"{role}.{ending}"]) for role in ("clean", "degraded"))
        yield tensor(clean), tensor(degraded)


def tensor(samples: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(samples).permute(2, 0, 1).contiguous().float().div_(255)


def pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.array(picture)


def numpy(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data))


def stored(folder: Path) -> dict[str, Callable[[], object]]:
    ways: dict[str, Callable[[], object]] = {
        PLAIN: lambda: plain_loop(folder / "png.tar", pillow, "png"),
        "plain loop, tar (npy)": lambda: plain_loop(folder / "npy.tar", numpy, "npy"),
    }
    for name, file in (
        ("tar (png)", "png.tar"),
        ("Parquet (png)", "pairs.parquet"),
        ("tar (npy)", "npy.tar"),
        ("Arrow", "pairs.arrow"),
    ):
        in_order = PairShards([str(folder / file)])
        shuffled = PairShards([str(folder / file)], shuffle=True, seed=1)
        ways[f"PairShards, {name}"] = in_order.__iter__
        ways[f"PairShards, {name}, shuffled"] = shuffled.__iter__
    return ways


def rate(make: Callable[[], object]) -> float:
    start, count = time.process_time(), 0
    for _ in make():  # type: ignore[attr-defined]
        count += 1
    return count / (time.process_time() - start)


def compare(title: str, ways: dict[str, Callable[[], object]], rounds: int, unit: str, factor: int = 1) -> None:
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, make in ways.items():
            found[name].append(factor * rate(make))
    base = next(iter(ways))
    print(f"\n{title}; ratio to: {base}")
    rows = []
    for name, rates in found.items():
        ratio = statistics.median(mine / theirs for mine, theirs in zip(rates, found[base], strict=True))
        rows.append((name, f"{statistics.median(rates):.0f}", f"{ratio:.2f}"))
    table(("", unit, "ratio"), rows)


def fresh(name: str, pictures: list[TrainingPicture], batch: int, batches: int, rounds: int) -> None:
    recipe = load_recipe(name)
    assert recipe.patches is not None
    source = LoadedBatches(FreshPairs(pictures, recipe), batch)
    together = FreshBatches(pictures, recipe, batch)
    kept = FreshBatches(pictures, recipe, batch, resident=True)
    numbers = range(batches)
    ways = {
        "FreshPairs": lambda: map(source.__getitem__, numbers),
        "FreshBatches(cpu)": lambda: map(together.__getitem__, numbers),
        "FreshBatches(cpu, resident)": lambda: map(kept.__getitem__, numbers),
    }
    size = recipe.patches.size
    compare(f"{name}, {size}x{size}, batches of {batch}", ways, rounds, "patches/s", batch)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pictures = clean_pictures(arguments.pictures)
    with tempfile.TemporaryDirectory(prefix="bench-datasets-") as name:
        write(Path(name), pictures, arguments.pairs)
        compare(
            f"{arguments.pairs} stored pairs of {SIDE}x{SIDE} colour", stored(Path(name)), arguments.rounds, "pairs/s"
        )
    gray = [TrainingPicture(each.key, with_channels(each.clean, "gray")) for each in pictures]
    for recipe, batch in (("dncnn-25", 128), ("text-deblur", 32)):
        fresh(
            recipe,
            gray if recipe == "dncnn-25" else pictures,
            batch,
            max(1, arguments.pairs // (2 * batch)),
            arguments.rounds,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
