"""What the int8 twins gain and lose: those that ship, or SRCNN 9-5-5, VDSR and DnCNN with the weights published with the papers.

    python tests/benchmarks/bench_int8.py [--models srcnn-x3 vdsr-x3 dncnn-gray-25]
    python tests/benchmarks/bench_int8.py --models --data ../shared/data

Of models that ship, the loss is the larger one of their cards. Each published network is exported and quantised with T91 as
calibration set. Both networks are run in turn, in one process, on one thread; what counts is the least CPU time of each. The bar
is 2.2 times the float32 rate on a core with AVX512-VNNI, and a loss of 0.1 dB. Times of a busy machine are worth little: the memory
between the layers is shared. The published weights are for measuring only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from measurement import table, verdict

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from test_published_weights import dncnn_with, srcnn_with, vdsr_with

from export.card import ModelCard, read_card
from export.onnx_export import fold_batch_norm, to_onnx
from export.onnx_file import set_card, write_model
from export.twins import Gate, make_twin
from models.zoo import INT8, zoo_path

RATE_BAR, LOSS_BAR_DB = 2.2, 0.1
ZOO = ["srcnn-x3", "vdsr-x3", "dncnn-gray-25"]
SRCNN_FILE = Path("SRCNN_official", "9-5-5(ImageNet)", "x3.mat")
# name: network with the weights of a folder; recipe, test set, protocol, color of the card
NETWORKS = {
    "srcnn-x3": (
        lambda weights: srcnn_with(weights / SRCNN_FILE, (9, 5, 5)),
        "enlarged-x3",
        "Set5",
        "y,border=3",
        "luma",
    ),
    "vdsr-x3": (vdsr_with, "enlarged-x3", "Set5", "y,border=3", "luma"),
    "dncnn-gray-25": (dncnn_with, "dncnn-25", "Set12", "gray", "gray"),
}


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def least_cpu_s(sessions: Sequence[onnxruntime.InferenceSession], side: int, rounds: int) -> list[float]:
    """Of one square picture, the sessions in turn."""
    picture = np.random.default_rng(0).random((1, 1, side, side), np.float32)
    least = [float("inf")] * len(sessions)
    for number in range(rounds + 1):
        for position, each in enumerate(sessions):
            start = time.thread_time()
            each.run(None, {"degraded": picture})
            if number:  # the first round only warms up
                least[position] = min(least[position], time.thread_time() - start)
    return least


@dataclass(frozen=True)
class Result:
    """Megapixels a second in float32 and in int8, and what int8 loses."""

    name: str
    before: float
    after: float
    lost_db: float


def rates(plain: Path, twin: Path, side: int, rounds: int) -> tuple[float, float]:
    before, after = least_cpu_s([session(plain), session(twin)], side, rounds)
    return side**2 / 1e6 / before, side**2 / 1e6 / after


def of_the_zoo(name: str, side: int, rounds: int) -> Result:
    plain, twin = zoo_path(name), zoo_path(f"{name}{INT8}")
    figures = {}
    for path in (plain, twin):
        for entry in read_card(str(path)).card["measured"]:
            figures.setdefault((entry["data_set"], entry["protocol"]), []).append(entry["value"])
    lost = max(both[0] - both[1] for both in figures.values() if len(both) == 2)
    return Result(name, *rates(plain, twin, side, rounds), lost)


def published(name: str, data: Path, side: int, rounds: int) -> Result:
    load, recipe, data_set, protocol, color = NETWORKS[name]
    with tempfile.TemporaryDirectory(prefix="bench-int8-") as folder:
        plain, twin = Path(folder) / f"{name}.onnx", Path(folder) / f"{name}-int8.onnx"
        network = load(data / "weights")
        model = to_onnx(fold_batch_norm(network), 1)
        set_card(model, ModelCard(name, "measuring", 1, color, 1, 1, network.receptive_field))
        write_model(model, str(plain))
        gate = Gate([str(data / data_set)], [str(data / "T91")], recipe, f"psnr[{protocol},u8]", loss_db=float("inf"))
        done = make_twin(str(plain), str(twin), "int8", gate)
        return Result(name, *rates(plain, twin, side, rounds), done.float32 - done.reduced)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=ZOO, help="of the zoo, without -int8")
    parser.add_argument(
        "--data", type=Path, help="folder of the development images and weights: the published networks too"
    )
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--side", type=int, default=256, help="of the picture that is timed")
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    results = [of_the_zoo(name, given.side, given.rounds) for name in given.models]
    if given.data:
        results += [published(name, given.data, given.side, given.rounds) for name in given.networks]
    rows = [
        (each.name, f"{each.before:.3f}", f"{each.after:.3f}", f"{each.after / each.before:.2f}", f"{each.lost_db:.3f}")
        for each in results
    ]
    table(("", "float32 MPix/s", "int8 MPix/s", "ratio", "dB lost"), rows)
    met = [
        verdict(f"{each.name}, int8 / float32", each.after / each.before, RATE_BAR, at_most=False)
        & verdict(f"{each.name}, dB lost", each.lost_db, LOSS_BAR_DB, at_most=True)
        for each in results
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
