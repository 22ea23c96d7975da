"""A run's log: one JSON object per line, and the curve drawn from it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG_NAME = "log.jsonl"
CURVE_NAME = "curve.png"


def append_line(folder: Path, line: Mapping[str, Any]) -> None:
    """Adds a line; each has at least `step` and `elapsed_s`."""
    with open(folder / LOG_NAME, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, in order; a last line that was cut off by a crash is left out."""
    lines = []
    for text in (folder / LOG_NAME).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def forget_after(folder: Path, step: int) -> None:
    """Drops the lines of steps that will be done again, and a line that was cut off."""
    if (folder / LOG_NAME).exists():
        kept = [line for line in read_log(folder) if line["step"] <= step]
        (folder / LOG_NAME).write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


def draw_curve(folder: Path, *, decibel: bool = True) -> Path:
    """Draws the run into `curve.png`: PSNR of the training patches (from the loss), or the loss itself, and the validation's
    figures."""
    from matplotlib.backends.backend_agg import (
        FigureCanvasAgg,
    )  # takes half a second, and only the end of a run needs it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    lines = read_log(folder)
    losses = [
        (line["step"], -10 * math.log10(line["loss"]) if decibel else line["loss"]) for line in lines if "loss" in line
    ]
    label = "training patches, from the loss" if decibel else "loss"
    axes.plot(*zip(*losses, strict=True), color="0.75", linewidth=0.8, label=label)
    for name in sorted({name for line in lines for name in line if "[" in name}):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*points, strict=True), marker=".", label=f"validation {name}")
    axes.set(xlabel="step", ylabel="dB" if decibel else "", title=folder.resolve().name)
    axes.legend(loc="lower right" if decibel else "upper right")
    figure.savefig(folder / CURVE_NAME, dpi=110)
    return folder / CURVE_NAME
