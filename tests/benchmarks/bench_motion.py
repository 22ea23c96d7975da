"""How often the classifier of linear motion is right, and by how many pixels it is wrong, on pictures it never saw.

    python tests/benchmarks/bench_motion.py --data ../shared/data/BSD100 --calibration ../shared/data/T91

Patches of 30 x 30 pixels are cut, blurred and rounded by the recipe motion-patches, flat ones left out. Figures: the share of
right labels, and the mean end-point error, the length of the difference between the motion vectors up to the sign of either, in
pixels; label 0 is the zero vector. Beside the network stand the cepstrum (see `cepstrum_baseline`, calibrated on the patches of
`--calibration`), a label drawn at random, and the best constant answer. For 361 labels the network classifies the patch turned by
0, 6, ..., 24 degrees, cut from a patch of 46 pixels. `--write` puts the figures of 73 labels into the model's card.
Bars: 45 % of 73 labels right, and no fewer than by the cepstrum, with no larger error than the cepstrum's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from cepstrum_baseline import CepstrumBaseline
from measurement import verdict
from numpy.typing import NDArray

from export.card import Measured, read_card
from export.onnx_file import add_measured
from models.degradation import InOrder
from models.degradation.motion_labels import MotionLabelBlur, drawn_motion, end_point_error, label_vectors
from models.degradation.quantisation import RoundTo8Bit
from models.motion_classifier import MotionClassifier
from models.motion_field import combined, turned
from models.recipes import Pair, Recipe, load_recipe
from models.training_data import load_pictures
from models.zoo import MODELS, zoo_path
from transforms.onnx_session import SessionSettings, read_model

RECIPE, TOP1, END_POINT_ERROR = "motion-patches", "top1[label]", "end_point_error[px]"
TURNED_SIDE = 46  # holds 30 x 30 pixels at 24 degrees, and a spline's reach
ROTATIONS = 5
TOP1_BAR = 0.45
BATCH = 256


class Patches:
    """Blurred patches, N x 3 x S x S, the clean ones, and the labels."""

    def __init__(self, data: Sequence[str], recipe: Recipe, per_image: int, size: int | None = None) -> None:
        made = [
            pair
            for picture in load_pictures(data, 3)
            for pair in recipe.pairs(picture.clean, key=picture.key, seed=1, per_image=per_image, size=size)
            if isinstance(pair, Pair)
        ]
        self.clean = np.stack([np.moveaxis(pair.clean, 2, 0) for pair in made])
        self.blurred = np.stack([np.moveaxis(pair.degraded, 2, 0) for pair in made])
        self.labels = np.array([drawn_motion(pair.parameters)["label"] for pair in made])
        self.pictures = len(load_pictures(data, 3))


def figures(answers: NDArray[np.int64], labels: NDArray[np.int64], rotations: int) -> tuple[float, float]:
    """Share of right labels and mean end-point error in pixels."""
    vectors = label_vectors(rotations)
    return float((answers == labels).mean()), float(end_point_error(vectors[answers], vectors[labels]).mean())


def blind(labels: NDArray[np.int64], rotations: int) -> dict[str, tuple[float, float]]:
    """What is expected of a label drawn at random, and of the one constant answer with the least error."""
    vectors = label_vectors(rotations)
    errors = end_point_error(vectors[:, np.newaxis], vectors[labels]).mean(1)
    best = int(errors.argmin())
    return {
        "a random label": (1 / len(vectors), float(errors.mean())),
        "the best constant": (float((labels == best).mean()), float(errors[best])),
    }


def answers_of(classifier: MotionClassifier, patches: NDArray[np.float32]) -> NDArray[np.int64]:
    found = [
        classifier.confidences(patches[first : first + BATCH])[:, :, 0, 0] for first in range(0, len(patches), BATCH)
    ]
    return np.concatenate(found).argmax(1)


def turned_answers(classifier: MotionClassifier, patches: NDArray[np.float32]) -> NDArray[np.int64]:
    middle, half = (patches.shape[2] // 2,) * 2, classifier.window // 2
    each = []
    for turn in range(ROTATIONS):
        squares = np.stack([turned(patch, middle, half, 30.0 * turn / ROTATIONS) for patch in patches])
        found = [classifier.confidences(squares[first : first + BATCH]) for first in range(0, len(squares), BATCH)]
        each.append(np.concatenate(found)[:, :, 0, 0].T)
    return combined(each).argmax(0)


def show(title: str, rows: dict[str, tuple[float, float]]) -> None:
    print(title)
    for name, (top1, error) in rows.items():
        print(f"  {name:28} top-1 {100 * top1:5.1f} %   end-point error {error:5.2f} px")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="motion-patches", help="zoo name or .onnx file")
    parser.add_argument("--data", required=True, nargs="+", help="pictures that nothing was trained on")
    parser.add_argument("--calibration", required=True, nargs="+", help="other pictures, for the cepstrum")
    parser.add_argument("--patches_per_image", type=int, default=64)
    parser.add_argument("--write", action="store_true", help="put the figures into the model's card")
    arguments = parser.parse_args()
    path = str(zoo_path(arguments.model)) if arguments.model in MODELS else arguments.model
    classifier = MotionClassifier(read_model(path), SessionSettings(threads=1))

    recipe = load_recipe(RECIPE)
    test = Patches(arguments.data, recipe, arguments.patches_per_image)
    other = Patches(arguments.calibration, recipe, arguments.patches_per_image)
    baseline = CepstrumBaseline(other.clean, other.blurred, other.labels)
    rows = {
        "network": figures(answers_of(classifier, test.blurred), test.labels, 1),
        "cepstrum, peak": figures(baseline.by_peak(test.blurred), test.labels, 1),
        "cepstrum, match": figures(baseline.by_match(test.blurred), test.labels, 1),
        **blind(test.labels, 1),
    }
    show(f"73 labels, {len(test.labels)} patches of {test.pictures} pictures", rows)

    finer = replace(recipe, degradation=InOrder((MotionLabelBlur(rotations=ROTATIONS), RoundTo8Bit())))
    many = Patches(arguments.data, finer, max(1, arguments.patches_per_image // 4), TURNED_SIDE)
    found = {"network, turned five times": figures(turned_answers(classifier, many.blurred), many.labels, ROTATIONS)}
    show(f"361 labels, {len(many.labels)} patches", found | blind(many.labels, ROTATIONS))
    if arguments.write:
        write_card(path, Path(arguments.data[0]).name, test.pictures, rows)
    (top1, error), rivals = rows["network"], [row for name, row in rows.items() if name.startswith("cepstrum")]
    met = [
        verdict(
            "share of 73 labels that are right", top1, max(TOP1_BAR, *(rival[0] for rival in rivals)), at_most=False
        ),
        verdict("end-point error, pixels", error, min(rival[1] for rival in rivals), at_most=True),
    ]
    return 0 if all(met) else 1


def write_card(path: str, data_set: str, pictures: int, rows: dict[str, tuple[float, float]]) -> None:
    measured = []
    for column, protocol in enumerate((TOP1, END_POINT_ERROR)):
        value, chance = (round(rows[name][column], 4) for name in ("network", "a random label"))
        others = {name: round(row[column], 4) for name, row in rows.items() if name.startswith("cepstrum")}
        measured.append(Measured(data_set, protocol, RECIPE, value, chance, pictures, others))
    add_measured(path, measured)
    print(f"{read_card(path).name}: {len(measured)} figures written")


if __name__ == "__main__":
    sys.exit(main())
