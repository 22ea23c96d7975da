"""The pair factory: its rate against decode + crop + encode alone, two workers against one, and memory over many pairs.

    python tests/benchmarks/bench_degrade.py

The recipe is text-deblur with 128 x 128 colour patches, on 200 photographs in 8 tars (photographs are dearer to encode than
pages). For each codec the plain loop (decode, crop, encode each crop twice; `codec_loop.py`) and `conservator degrade` with one
worker take turns; wall seconds go from process start to exit, imports and report included. Ratios are taken within a round, the
median over the rounds counts. Then one worker against two over 50,000 pairs, once, start-up included, and 50,000 pairs
against 1,000: peaks of the largest worker and of the driver, and the hours that a million pairs take on all cores. Last, 4,000
pairs of one picture against 100, raw (npy).
Bars: at least 0.6 of the plain loop's rate with PNG; two workers at least 1.85 times one; memory at most 1.1 times, of one
picture's worker at most 1.25 times.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from material import photographs
from measurement import CONSERVATOR, Cost, describe, measure, table, verdict

from transforms.formats.tar import TarWriter

RECIPE, SIZE = "text-deblur", 128
RATE_BAR, SPEEDUP_BAR, GROWTH_BAR, ONE_PICTURE_BAR = 0.6, 1.85, 1.1, 1.25
MILLION = 1_000_000
CODECS = ("png", "webp", "npy")


def clean_shards(folder: Path, pictures: int, shards: int) -> Path:
    """Tars of photographs as they are (JPEG)."""
    folder.mkdir(parents=True)
    files = photographs(pictures)
    for number in range(shards):
        with TarWriter(folder / f"{number:05d}.tar") as shard:
            for name, data in files[number::shards]:
                shard.write(name, data)
    return folder


def degrade(
    shards: Path, output: Path, patches: int, workers: int, codec: str = "png", *, memory: bool = False
) -> Cost:
    shutil.rmtree(output, ignore_errors=True)
    command = [*CONSERVATOR, "degrade", "--input", str(shards), "--output", str(output), "--recipe", RECIPE]
    command += ["--patch_size", str(SIZE), "--patches_per_image", str(patches), "--num_local_workers", str(workers)]
    command += ["--clean_format", codec, "--degraded_format", codec, "--quiet"]
    return measure(command, memory=memory)


def plain_loop(shards: Path, output: Path, patches: int, codec: str) -> Cost:
    shutil.rmtree(output, ignore_errors=True)
    tars = [str(tar) for tar in sorted(shards.glob("*.tar"))]
    script = str(Path(__file__).with_name("codec_loop.py"))
    options = ["--output", str(output), "--codec", codec, "--patches", str(patches), "--size", str(SIZE)]
    return measure([sys.executable, script, "--input", *tars, *options])


def size_of(folder: Path) -> int:
    return sum(tar.stat().st_size for tar in folder.glob("*.tar"))


def against_codecs(
    shards: Path, scratch: Path, pairs: int, patches: int, rounds: int, codecs: Sequence[str] = CODECS
) -> bool:
    """Prints a table over the codecs; whether PNG, where it is among them, meets its bar."""
    rows, ratios = [], {}
    for codec in codecs:
        loops, jobs = [], []
        for number in range(rounds):
            loops.append(plain_loop(shards, scratch / "loop", patches, codec))
            jobs.append(degrade(shards, scratch / "pairs", patches, 1, codec))
            print(f"  round {number + 1}, {codec}, plain loop: {describe(loops[-1])}")
            print(f"  round {number + 1}, {codec}, degrade: {describe(jobs[-1])}", flush=True)
        ratios[codec] = statistics.median(a.wall_s / b.wall_s for a, b in zip(loops, jobs, strict=True))
        loop_s, job_s = (statistics.median(cost.wall_s for cost in costs) for costs in (loops, jobs))
        kilobytes = size_of(scratch / "pairs") / pairs / 1000
        rows.append(
            (codec, f"{pairs / loop_s:.0f}", f"{pairs / job_s:.0f}", f"{ratios[codec]:.2f}", f"{kilobytes:.1f}")
        )
    print(f"\n{RECIPE}, {SIZE} x {SIZE} colour, {pairs} pairs, one worker, median of {rounds} rounds")
    table(("codec", "loop pairs/s", "degrade pairs/s", "ratio", "kB a pair"), rows)
    if "png" not in ratios:
        return True
    return verdict("rate with PNG / decode + crop + encode alone", ratios["png"], RATE_BAR, at_most=False)


def two_workers(shards: Path, scratch: Path, pictures: int, pairs: int, rounds: int) -> bool:
    speedups, patches = [], pairs // pictures
    for number in range(rounds):
        one, two = (degrade(shards, scratch / "pairs", patches, workers) for workers in (1, 2))
        speedups.append(one.wall_s / two.wall_s)
        print(f"  round {number + 1}, 1 worker: {describe(one)}")
        print(f"  round {number + 1}, 2 workers: {describe(two)}", flush=True)
    what = f"throughput of two workers / one, {patches * pictures} pairs, start-up included"
    return verdict(what, statistics.median(speedups), SPEEDUP_BAR, at_most=False)


def many_pairs(shards: Path, scratch: Path, pictures: int, pairs: int) -> bool:
    workers = os.cpu_count() or 1
    fewer = max(
        1, 1000 * pictures // pairs
    )  # as many patches of each picture, so that only the number of pictures differs
    few = degrade(
        clean_shards(scratch / "few", fewer, min(fewer, workers)),
        scratch / "pairs",
        pairs // pictures,
        workers,
        memory=True,
    )
    many = degrade(shards, scratch / "pairs", pairs // pictures, workers, memory=True)
    rows = [
        (name, f"{cost.wall_s:.0f}", f"{cost.driver_mib:.0f}", f"{cost.worker_mib:.0f}", f"{cost.tree_mib:.0f}")
        for name, cost in (("1000 pairs", few), (f"{pairs} pairs", many))
    ]
    table(("peak resident memory", "wall s", "driver MiB", "worker MiB", "tree MiB"), rows)
    hours = many.wall_s / pairs * MILLION / 3600
    print(
        f"a million pairs on {workers} cores, from {pairs}: {hours:.2f} hours, {size_of(scratch / 'pairs') / pairs / 1e3:.1f} GB"
    )
    growths = [
        verdict(f"growth of the {what}", getattr(many, name) / getattr(few, name), GROWTH_BAR, at_most=True)
        for what, name in (("largest worker", "worker_mib"), ("driver", "driver_mib"))
    ]
    return all(growths)


def one_picture(folder: Path, scratch: Path) -> bool:
    shards = clean_shards(folder / "one", 1, 1)
    costs = {patches: degrade(shards, scratch / "pairs", patches, 1, "npy", memory=True) for patches in (100, 4000)}
    rows = [(f"{patches} pairs", f"{cost.wall_s:.1f}", f"{cost.worker_mib:.0f}") for patches, cost in costs.items()]
    table(("pairs of one picture", "wall s", "worker MiB"), rows)
    growth = costs[4000].worker_mib / costs[100].worker_mib
    return verdict("growth of the worker with the pairs of one picture", growth, ONE_PICTURE_BAR, at_most=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--patches", type=int, default=50, help="for each picture")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker_pairs", type=int, default=50_000, help="of the runs with one and two workers")
    parser.add_argument("--pairs", type=int, default=50_000, help="of the long run")
    parser.add_argument("--only", choices=("codecs", "workers", "memory"), help="one part of the benchmark")
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=CODECS, help="of the first part")
    arguments = parser.parse_args()
    met = []
    with tempfile.TemporaryDirectory(prefix="bench-degrade-") as name:
        folder = Path(name)
        shards = clean_shards(folder / "clean", arguments.pictures, arguments.shards)
        pairs = arguments.pictures * arguments.patches
        if arguments.only in (None, "codecs"):
            met.append(against_codecs(shards, folder, pairs, arguments.patches, arguments.rounds, arguments.codecs))
        if arguments.only in (None, "workers"):
            met.append(two_workers(shards, folder, arguments.pictures, arguments.worker_pairs, 1))
        if arguments.only in (None, "memory"):
            met.append(many_pairs(shards, folder, arguments.pictures, arguments.pairs))
            met.append(one_picture(folder, folder))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
