"""The rate of every degradation recipe that ships, on one core, without reading and writing files.

    python tests/benchmarks/bench_recipes.py            prints them
    python tests/benchmarks/bench_recipes.py --write    and puts them into the recipes' heads

Pairs are made of photographs in memory, one after the other, for a second of processor time; the best of three counts. Recipes
of whole pictures are given in megapixels of the clean picture.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded

import numpy as np
from material import photographs
from numpy.typing import NDArray
from PIL import Image

from models.recipes import Pair, Recipe, load_recipe, shipped_recipes
from models.recipes.loader import FOLDER
from transforms.allocator import keep_freed_memory

SECONDS, ROUNDS = 1.0, 3


def pictures() -> list[NDArray[np.uint8]]:
    return [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _, data in photographs(8)]


def rate(recipe: Recipe, sources: list[NDArray[np.uint8]]) -> float:
    """Pairs, or megapixels of whole pictures, per second of processor time."""
    best = 0.0
    for number in range(ROUNDS):
        done, patch, start = 0.0, 0, time.process_time()
        while (spent := time.process_time() - start) < SECONDS:
            pair = recipe.pair(sources[patch % len(sources)], key="a", patch=patch, seed=number)
            if isinstance(pair, Pair):
                done += 1 if recipe.patches else pair.clean.shape[0] * pair.clean.shape[1] / 1e6
            patch += 1
        best = max(best, done / spent)
    return best


def rounded(value: float) -> str:
    """Two digits: 17,000, 380, 4.5."""
    digits = 1 - int(np.floor(np.log10(value)))
    return f"{round(value, digits):,.{max(0, digits)}f}"


def processor() -> str:
    names = (
        re.findall(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        if Path("/proc/cpuinfo").exists()
        else []
    )
    return re.sub(r"\(R\)|\(TM\)| Processor|\s+@.*", "", names[0]).strip() if names else "unknown processor"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the rates into the recipes' heads")
    parser.add_argument("--only", nargs="*", default=[], help="recipes")
    arguments = parser.parse_args()
    keep_freed_memory()
    sources = pictures()
    for name in arguments.only or shipped_recipes():
        recipe = load_recipe(name)
        unit = "patches/s" if recipe.patches else "megapixels/s"
        line = (
            f"{rounded(rate(recipe, sources))} {unit} on one core ({processor()}), without reading and writing files."
        )
        print(f"{name}: {line}", flush=True)
        if arguments.write:
            file = FOLDER / f"{name}.yaml"
            text = re.sub(r"^# Rate: .*$", f"# Rate: {line}", file.read_text("utf-8"), count=1, flags=re.MULTILINE)
            file.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
