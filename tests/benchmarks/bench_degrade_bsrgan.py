"""Pairs a second of the recipe `bsrgan`, 256 to 64 pixels, against the plain implementation in bsrgan_baseline.py, on one core.

    python tests/benchmarks/bench_degrade_bsrgan.py

Both cut, degrade and hold pairs in memory as float32; neither reads or writes files. They take turns in rounds on the same
pictures, for about the same time each, since a worker too makes many pairs in a row; ratios are taken within a round, so that
a change of the machine's mood touches both; the median over the rounds counts. Bar: the recipe makes at least 10 times as many
pairs. A table says where the recipe's time goes.
"""

from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))  # before NumPy

import argparse
import io
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable

import bsrgan_baseline
import numpy as np
from material import photographs
from measurement import table, verdict
from numpy.typing import NDArray
from PIL import Image

from models.degradation.chains import elementary
from models.degradation.table import operator_class
from models.recipes import load_recipe
from models.recipes.recipe import Pair, Recipe
from transforms.allocator import keep_freed_memory
from transforms.planes import to_planes

BAR, SIZE = 10.0, 256

Picture = NDArray[np.uint8]
Maker = Callable[[int], tuple[NDArray[np.float32], NDArray[np.float32]]]


def seconds(make: Maker, numbers: range) -> float:
    """Processor seconds of this process: what other programs take meanwhile does not count."""
    start = time.process_time()
    for number in numbers:
        clean, degraded = make(number)
        assert clean.shape == (SIZE, SIZE, 3)
        assert degraded.shape == (SIZE // 4, SIZE // 4, 3)
    return time.process_time() - start


def stages(recipe: Recipe, pictures: list[Picture], count: int) -> None:
    """Where the recipe's time goes."""
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for number in range(count):
        start = time.process_time()
        made = recipe.pair(pictures[number % len(pictures)], key="a", patch=number, seed=2)
        spent["all of it"] += time.process_time() - start
        assert isinstance(made, Pair)
        planes = to_planes(made.clean)
        for name, parameters in elementary(made.parameters["degradation"]):
            start = time.process_time()
            planes = operator_class(name).apply(planes, parameters)
            spent[name] += time.process_time() - start
            calls[name] += 1
    spent["cutting, drawing, copying"] = 2 * spent["all of it"] - spent.total()
    rows = [
        (name, f"{1000 * spent[name] / count:.2f}", f"{calls[name] / count:.2f}" if name in calls else "")
        for name, _ in spent.most_common()
    ]
    table(("step", "ms a pair", "calls a pair"), rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--pairs", type=int, default=20, help="of the plain implementation in a round; ten times as many of the recipe"
    )
    arguments = parser.parse_args()
    keep_freed_memory()  # as every worker of `degrade` does; the plain implementation has the good of it too
    files = photographs(arguments.pairs)
    pictures = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _, data in files]
    recipe = load_recipe("bsrgan")

    def ours(number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        made = recipe.pair(pictures[number % len(pictures)], key="a", patch=number, seed=1)
        assert isinstance(made, Pair)
        return made.clean, made.degraded

    def plain(number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return bsrgan_baseline.pair(pictures[number % len(pictures)], SIZE, np.random.default_rng([1, number]))

    seconds(ours, range(10)), seconds(plain, range(2))  # imports, caches
    rates: dict[str, list[float]] = {"recipe": [], "plain": []}
    for turn in range(arguments.rounds):
        for name, make, count in (("recipe", ours, 10 * arguments.pairs), ("plain", plain, arguments.pairs)):
            rates[name].append(count / seconds(make, range(turn * count, (turn + 1) * count)))
        print(
            f"  round {turn + 1}: recipe {rates['recipe'][-1]:.1f}, plain {rates['plain'][-1]:.2f} pairs/s", flush=True
        )
    made = arguments.rounds * arguments.pairs
    print(f"\n{10 * made} pairs of the recipe, {made} of the plain implementation; pairs a second on one core")
    table(
        ("", "median", "best"),
        [(name, f"{statistics.median(each):.2f}", f"{max(each):.2f}") for name, each in rates.items()],
    )
    stages(recipe, pictures, arguments.pairs * 5)
    ratio = statistics.median(a / b for a, b in zip(rates["recipe"], rates["plain"], strict=True))
    return 0 if verdict("pairs of the recipe / of the plain implementation", ratio, BAR, at_most=False) else 1


if __name__ == "__main__":
    sys.exit(main())
