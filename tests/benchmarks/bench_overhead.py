"""What everything around the network costs: `conservator restore` against a plain loop, and two workers against one.

    python tests/benchmarks/bench_overhead.py --model denoise5-color-25

The job is 200 photographs in 8 tars of PNGs with Gaussian noise, 8 bits; the network has one thread. Wall seconds go from process
start to exit, imports, model loading and report included. Plain loop, one worker and two workers take turns, and ratios are taken
within a round, so that a change of the machine's mood touches all of them; the median over the rounds counts. Two plain loops at
once, on half of the shards each, show what the machine's second core is worth. Afterwards the pictures of all of them are compared.
Bars: one worker at most 1.15 times the plain loop's time; two workers at least 1.7 times the throughput of one.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from material import model_path, pairs, without_reference
from measurement import CONSERVATOR, Cost, describe, measure, table, verdict

from transforms.formats.tar import read_tar

PLAIN, ONE, TWO, TWO_PLAIN = "plain loop", "1 worker", "2 workers", "2 plain loops"
OVERHEAD_BAR, SPEEDUP_BAR = 1.15, 1.7


def command(case: str, shards: Path, output: Path, model: Path) -> list[str]:
    loop = [
        sys.executable,
        str(Path(__file__).with_name("plain_loop.py")),
        "--output",
        str(output),
        "--model",
        str(model),
    ]
    tars = [str(tar) for tar in sorted(shards.glob("*.tar"))]
    if case == PLAIN:
        return [*loop, "--input", *tars]
    if case == TWO_PLAIN:
        halves = (shlex.join([*loop, "--input", *tars[half::2]]) for half in (0, 1))
        return ["sh", "-c", f"{' & '.join(halves)} & wait"]
    restore = [*CONSERVATOR, "restore", "--input", str(shards), "--output", str(output), "--model", str(model)]
    return [*restore, "--num_local_workers", case.split()[0], "--session_threads", "1", "--quiet"]


def compare(shards: Path, scratch: Path, model: Path, rounds: int) -> dict[str, list[Cost]]:
    """Runs all cases in turn; leaves the last outputs in `scratch`."""
    costs: dict[str, list[Cost]] = {case: [] for case in (PLAIN, ONE, TWO, TWO_PLAIN)}
    for number in range(rounds):
        for case in costs:
            output = scratch / case.replace(" ", "-")
            shutil.rmtree(output, ignore_errors=True)
            cost = measure(command(case, shards, output, model))
            costs[case].append(cost)
            print(f"  round {number + 1}, {case}: {describe(cost)}", flush=True)
    return costs


def stage_times(output: Path) -> Counter[str]:
    """Seconds in each stage, summed over units; stages in threads of their own overlap with the operator."""
    totals: Counter[str] = Counter()
    for ledger in sorted((output / "_ledger").glob("[!.]*.json")):
        totals.update(json.loads(ledger.read_text())["timings_s"])
    return totals


def same_pictures(folder: Path) -> bool:
    """Whether all cases restored every picture to the same file."""
    found = {case.name: [restored(tar) for tar in sorted(case.glob("*.tar"))] for case in folder.iterdir()}
    first = next(iter(found.values()))
    return any(first) and all(pictures == first for pictures in found.values())


def restored(tar: Path) -> dict[str, bytes]:
    return {record.key: record.fields["restored.png"] for record in read_tar(str(tar))}


def ratio(one: Sequence[Cost], other: Sequence[Cost]) -> float:
    return statistics.median(a.wall_s / b.wall_s for a, b in zip(one, other, strict=True))


def report(title: str, costs: dict[str, list[Cost]], stages: Counter[str], count: int) -> bool:
    """Prints one comparison; whether both bars are met."""
    print(f"\n{title}, median of {len(costs[PLAIN])} rounds")
    rows = []
    for case, found in costs.items():
        wall, cpu = (statistics.median(getattr(cost, name) for cost in found) for name in ("wall_s", "cpu_s"))
        least = min(cost.wall_s for cost in found)
        rows.append((case, f"{wall:.1f}", f"{least:.1f}", f"{cpu:.1f}", f"{count / wall:.2f}"))
    table(("", "wall s", "least s", "CPU s", "pictures/s"), rows)
    print("seconds in the stages of one worker (threads overlap):")
    print("  " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in stages.most_common()))
    print(f"throughput of two plain loops / one: {ratio(costs[PLAIN], costs[TWO_PLAIN]):.4g}")
    cheap = verdict("time of one worker / plain loop", ratio(costs[ONE], costs[PLAIN]), OVERHEAD_BAR, at_most=True)
    scales = verdict("throughput of two workers / one", ratio(costs[ONE], costs[TWO]), SPEEDUP_BAR, at_most=False)
    return cheap and scales


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="denoise5-color-25", help="zoo name or .onnx file")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", choices=("with reference", "without reference"), default="", help="one of the two jobs"
    )
    arguments = parser.parse_args()
    model, met = model_path(arguments.model), []
    with tempfile.TemporaryDirectory(prefix="bench-overhead-") as name:
        folder = Path(name)
        damaged = pairs(folder, arguments.pictures, [1] * arguments.shards)
        jobs = {
            "without reference": without_reference(damaged, folder / "degraded-only"),
            "with reference (PSNR and SSIM, before and after)": damaged,
        }
        for title, shards in jobs.items():
            if not title.startswith(arguments.only):
                continue
            costs = compare(shards, folder / "restored", model, arguments.rounds)
            stages = stage_times(folder / "restored" / ONE.replace(" ", "-"))
            assert same_pictures(folder / "restored"), "the plain loop and the pipeline restored different pictures"
            met.append(report(f"{arguments.pictures} photographs {title}", costs, stages, arguments.pictures))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
