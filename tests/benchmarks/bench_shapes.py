"""The three ways to use the cores of one machine, on the same job with two workers and sessions of one thread.

    python tests/benchmarks/bench_shapes.py --model denoise5-color-25

threads: Beam's FnApiRunner, `multi_threading`, one loaded network for each thread; processes: the same runner, `multi_processing`;
pool: our own worker processes, which is what `conservator restore` does. All run the same units through the same in-worker
pipeline and write the same report. The even job has 8 shards of equal length; the uneven one has six short shards and, at its
end, one with half of all pictures: Beam's static halves give one worker the long shard and a part of the short ones, the pool
begins with the long one. Ratios are to the pool, within a round; the median counts. It has no bar: it is why the pool exists.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from material import model_path, pairs
from measurement import CONSERVATOR, Cost, describe, measure, table

POOL = "pool"
BEAM_MODES = {"threads": "multi_threading", "processes": "multi_processing"}
JOBS = {"even": [1] * 8, "uneven": [1] * 6 + [6]}


def command(shape: str, shards: Path, output: Path, model: Path) -> list[str]:
    job = ["--input", str(shards), "--output", str(output), "--model", str(model)]
    if shape == POOL:
        return [*CONSERVATOR, "restore", *job, "--num_local_workers", "2", "--session_threads", "1", "--quiet"]
    return [sys.executable, str(Path(__file__).with_name("beam_shape.py")), *job, "--mode", BEAM_MODES[shape]]


def compare(shards: Path, scratch: Path, model: Path, rounds: int) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {shape: [] for shape in (*BEAM_MODES, POOL)}
    for number in range(rounds):
        for shape, found in costs.items():
            shutil.rmtree(scratch, ignore_errors=True)
            found.append(measure(command(shape, shards, scratch, model)))
            written = len(list(scratch.glob("*.tar")))
            assert written == len(list(shards.glob("*.tar"))), f"{shape} wrote {written} shards"
            print(f"  round {number + 1}, {shape}: {describe(found[-1])}", flush=True)
    return costs


def report(title: str, costs: dict[str, list[Cost]]) -> None:
    print(f"\n{title}")
    rows = []
    for shape, found in costs.items():
        wall, cpu = (statistics.median(getattr(cost, name) for cost in found) for name in ("wall_s", "cpu_s"))
        to_pool = statistics.median(a.wall_s / b.wall_s for a, b in zip(found, costs[POOL], strict=True))
        rows.append((shape, f"{wall:.1f}", f"{min(cost.wall_s for cost in found):.1f}", f"{cpu:.1f}", f"{to_pool:.2f}"))
    table(("", "wall s", "least s", "CPU s", "time / pool"), rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="denoise5-color-25", help="zoo name or .onnx file")
    parser.add_argument("--pictures", type=int, default=72)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-shapes-") as name:
        for job, sizes in JOBS.items():
            damaged = pairs(Path(name) / job, arguments.pictures, sizes)
            costs = compare(damaged, Path(name) / "restored", model_path(arguments.model), arguments.rounds)
            report(f"{job} job: {arguments.pictures} photographs in {len(sizes)} shards", costs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
