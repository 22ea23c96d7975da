"""The newcomer's first run: a small archive of real pictures is damaged, restored and reported on, with the same
command line that everyone uses. The pictures are those inside the scikit-image wheel.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from pathlib import Path

from pipelines.example_pictures import example_folder
from pipelines.main import main as conservator
from transforms.errors import ConfigurationError

PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
DOCUMENTS = ("page.png", "text.png")
RECIPE = "gaussian-25"
MODELS = "denoise5-color-25,denoise5-gray-25"


def build_archive(folder: Path) -> int:
    """Copies the real pictures into `folder`; returns how many.

    Raises:
        ConfigurationError: scikit-image is not installed.
    """
    data = example_folder()
    for kind, names in (("photographs", PHOTOGRAPHS), ("documents", DOCUMENTS)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(data / name, folder / kind / name)
    return len(PHOTOGRAPHS) + len(DOCUMENTS)


def run(folder: Path) -> int:
    """Builds, damages, restores; returns the exit code of the first step that fails, or 0."""
    archive, damaged, restored = folder / "archive", folder / "damaged", folder / "restored"
    count = build_archive(archive)
    print(f"an archive of {count} real photographs and pages: {archive}")
    steps = (
        f"degrade --input {archive} --recipe {RECIPE} --seed 7 --output_format folder --pictures_per_unit 2 --output {damaged}",
        f"restore --input {damaged} --model {MODELS} --pictures_per_unit 2 --output {restored}",
    )
    for step in steps:
        print(f"\n$ conservator {step}", flush=True)
        code = conservator(shlex.split(step))
        if code:
            return code
    summary = json.loads((restored / "report" / "summary.json").read_text(encoding="utf-8"))
    gain = summary["gains"]["psnr[rgb,u8]"]["mean"]
    print(f"\n{count} pictures, {gain:+.2f} dB on average (psnr[rgb,u8], restored against degraded).")
    print(f"Open {restored / 'report' / 'index.html'} in a browser; the pictures are beside it in {restored}.")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo"))
    try:
        return run(parser.parse_args().folder)
    except ConfigurationError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 5


if __name__ == "__main__":
    sys.exit(main())
