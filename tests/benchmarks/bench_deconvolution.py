"""Deconvolution of one known blur, with saturated lights: Wiener, pseudo-inverse, DCNN, ODCNN on the same pictures.

    python tests/benchmarks/bench_deconvolution.py --data ../shared/data/BSD100 ../shared/data/Set14 \\
        --model random=runs/dcnn-disk7-random DCNN=runs/dcnn-disk7 ODCNN=odcnn-disk7

Protocol: grey pictures, degraded whole by the recipe deconvolution-disk7 (seed 0); kept are those of which 2 to 5 % of the pixels
are saturated after the blur. psnr[gray,u8] and ssim[gray,u8] of whole pictures, means over pictures. A model is a zoo name, an
.onnx file or a training run's folder; of run folders the validation figures by step are printed too.
Bars, for models of these names: ODCNN 2 dB above Wiener, and not below DCNN; DCNN not below the pseudo-inverse, and 1 dB above
random, which is a run of train-dcnn-disk7-random, the same steps from random weights.

Wiener is scikit-image's, on pictures that are mirrored at the border, with its Laplacian as the model of pictures and with a
constant (then it is the whole pseudo-inverse), each with the balance of a grid that is best for these very pictures; the better one
counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from material import model_path
from measurement import table, verdict
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import fftconvolve
from skimage.restoration import wiener

from models.checkpoint import load_network, load_progress
from models.degradation.blur_kernels import disk
from models.degradation.chains import replay
from models.networks import build_network
from models.networks.dcnn import pseudo_inverse
from models.recipes import Pair, load_recipe
from models.training_data import load_pictures
from models.training_log import LOG_NAME
from transforms.metrics import parse_metric
from transforms.planes import to_planes
from transforms.value_range import from_float

Plane = NDArray[np.floating]
Restore = Callable[[Plane], Plane]
RECIPE, KERNEL, BORDER = "deconvolution-disk7", disk(7), 128
METRICS = tuple(parse_metric(name) for name in ("psnr[gray,u8]", "ssim[gray,u8]"))
BALANCES = 10.0 ** np.arange(-3, 0.6, 0.25)
IDENTITY = np.pad([[1.0]], 1)
PSEUDO_INVERSE = "pseudo-inverse, 121 x 121, 1e-4"


@dataclass(frozen=True)
class Case:
    key: str
    clean: Plane
    degraded: Plane
    saturated: float  # share of the pixels


def cases(data: list[str], share: tuple[float, float]) -> list[Case]:
    recipe, found = replace(load_recipe(RECIPE), patches=None), []
    for picture in load_pictures(data, 1):
        pair = recipe.pair(picture.clean, key=picture.key, patch=0, seed=0)
        assert isinstance(pair, Pair), pair.detail
        light = replay(to_planes(pair.clean).copy(), pair.parameters["degradation"][:2])  # highlights, blur
        saturated = float(np.mean(light >= 1))
        if share[0] <= saturated <= share[1]:
            found.append(Case(picture.key, pair.clean[..., 0], pair.degraded[..., 0], saturated))
    return found


def mirrored(restore: Restore) -> Restore:
    def on_larger(blurred: Plane) -> Plane:
        return restore(np.pad(blurred, BORDER, mode="symmetric"))[BORDER:-BORDER, BORDER:-BORDER]

    return on_larger


def scikit_wiener(prior: Plane | None) -> Callable[[float], Restore]:
    def with_balance(balance: float) -> Restore:
        return mirrored(lambda blurred: wiener(blurred.astype(np.float64), KERNEL, balance, reg=prior, clip=False))

    return with_balance


def cut_inverse(noise_to_signal: float) -> Restore:
    inverse = pseudo_inverse(KERNEL, 121, noise_to_signal)
    return mirrored(lambda blurred: fftconvolve(blurred, inverse, "same"))


def network(model: str) -> Restore:
    if Path(model).is_dir():
        choice = load_progress(Path(model)).recipe["network"]
        found = build_network(choice["name"], {"channels": choice["channels"], **choice["settings"]}).eval()
        load_network(Path(model), found)

        def restore(blurred: Plane) -> Plane:
            with torch.inference_mode():
                return found(torch.from_numpy(np.ascontiguousarray(blurred))[None, None])[0, 0].numpy()

        return restore
    session = onnxruntime.InferenceSession(str(model_path(model)), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda blurred: session.run(None, {name: np.ascontiguousarray(blurred)[None, None]})[0][0, 0]


def quality(restored: Iterable[Plane], all_cases: list[Case]) -> NDArray[np.float64]:
    """Means of psnr and ssim."""
    rounded = [from_float(np.asarray(each, np.float32)[..., None], np.uint8) for each in restored]
    references = [from_float(case.clean[..., None], np.uint8) for case in all_cases]
    found = [
        [metric(image, reference) for metric in METRICS] for image, reference in zip(rounded, references, strict=True)
    ]
    return np.mean(found, axis=0)


def best(make: Callable[[float], Restore], grid: NDArray[np.float64], all_cases: list[Case]) -> tuple[float, Restore]:
    """The setting with the highest mean psnr."""
    figures = [quality(map(make(value), (case.degraded for case in all_cases)), all_cases)[0] for value in grid]
    chosen = float(grid[int(np.argmax(figures))])
    return chosen, make(chosen)


def by_step(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / LOG_NAME).read_text().splitlines()]
    return {line["step"]: value for line in lines for name, value in line.items() if name.startswith("psnr[")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="folders of clean pictures")
    parser.add_argument("--model", nargs="*", default=[], metavar="NAME=MODEL")
    parser.add_argument("--share", nargs=2, type=float, default=(0.02, 0.05), help="of saturated pixels")
    parser.add_argument("--limit", type=int, help="pictures at most")
    parser.add_argument("--sheet", help="PNG of the first picture: clean, degraded, and what each made of it")
    arguments = parser.parse_args()
    models = dict(each.split("=", 1) for each in arguments.model)
    chosen = cases(arguments.data, tuple(arguments.share))[: arguments.limit]
    if not chosen:
        raise SystemExit(f"no picture has a share of saturated pixels in {arguments.share}")
    laplacian, smooth = best(scikit_wiener(None), BALANCES, chosen)
    constant, flat = best(scikit_wiener(IDENTITY), BALANCES, chosen)
    methods: dict[str, Restore] = {
        "blurred": lambda blurred: blurred,
        f"Wiener, Laplacian, {laplacian:.2g}": smooth,
        f"Wiener, constant, {constant:.2g}": flat,
        PSEUDO_INVERSE: cut_inverse(1e-4),
        **{name: network(model) for name, model in models.items()},
    }
    results = {name: [method(case.degraded) for case in chosen] for name, method in methods.items()}
    figures = {name: quality(restored, chosen) for name, restored in results.items()}
    wiener_db = max(psnr for name, (psnr, _) in figures.items() if name.startswith("Wiener"))
    share = np.mean([case.saturated for case in chosen])
    print(f"{len(chosen)} pictures, {share:.1%} of their pixels saturated: {', '.join(case.key for case in chosen)}\n")
    rows = [(name, f"{psnr:.2f}", f"{psnr - wiener_db:+.2f}", f"{ssim:.4f}") for name, (psnr, ssim) in figures.items()]
    table(("", METRICS[0].name, "to Wiener", METRICS[1].name), rows)
    logs = {name: by_step(Path(model)) for name, model in models.items() if (Path(model) / LOG_NAME).is_file()}
    if logs:
        steps = sorted(set.intersection(*(set(each) for each in logs.values())))
        print("\nvalidation of the training runs, by step")
        table(("step", *logs), [(str(step), *(f"{each[step]:.2f}" for each in logs.values())) for step in steps])
    if arguments.sheet:
        row = [chosen[0].clean, *(restored[0] for restored in results.values())]
        Image.fromarray(np.hstack([from_float(np.asarray(each, np.float32), np.uint8) for each in row])).save(
            arguments.sheet
        )
    return 0 if meets_bars({name: psnr for name, (psnr, _) in figures.items()}, wiener_db) else 1


def meets_bars(psnr: dict[str, float], wiener_db: float) -> bool:
    """Of those models that were measured."""
    met = []
    if "ODCNN" in psnr:
        met.append(verdict("ODCNN above Wiener, dB", psnr["ODCNN"] - wiener_db, 2.0, at_most=False))
    for better, worse, gain in (("ODCNN", "DCNN", 0.0), ("DCNN", PSEUDO_INVERSE, 0.0), ("DCNN", "random", 1.0)):
        if better in psnr and worse in psnr:
            met.append(verdict(f"{better} above {worse}, dB", psnr[better] - psnr[worse], gain, at_most=False))
    return all(met)


if __name__ == "__main__":
    sys.exit(main())
