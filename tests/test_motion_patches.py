"""The classifiers of linear motion: their layouts, what they learn from, their export, and the field that they give."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from export.onnx_export import export
from models import motion_field
from models.checkpoint import load_progress
from models.datasets import FreshBatches, FreshPairs, LoadedBatches
from models.degradation import InOrder
from models.degradation.motion_labels import (
    MotionLabelBlur,
    drawn_motion,
    end_point_error,
    label_of_motion,
    label_shares,
    label_vectors,
    motion_of_label,
)
from models.degradation.quantisation import RoundTo8Bit
from models.motion_classifier import MotionClassifier
from models.motion_field import combined, estimate_motion, turned
from models.networks import build_network
from models.objectives import CrossEntropy, MeanSquaredError, objective_named
from models.recipes import load_recipe
from models.training import TrainingOptions, train
from models.training_data import TrainingPicture
from models.training_log import read_log
from models.training_recipe import LearningRate, NetworkChoice, TrainingRecipe, Validation
from models.validation import ValidationPair
from pipelines.main import main
from transforms.errors import ConfigurationError
from transforms.onnx_session import read_model

RECIPE = TrainingRecipe(
    name="tiny",
    purpose="classify linear motion, for `conservator motion`",
    network=NetworkChoice("motion_spectrum", 3, {"widths": [16, 16]}),
    degradation="motion-patches",
    steps=4,
    batch_size=8,
    patch_size=30,
    learning_rate=LearningRate(3e-3),
    validation=Validation("top1[label]", every=2, held_out=0),
    objective="cross_entropy",
    command="conservator train --recipe tiny",
)
NETWORKS = [("motion_patches", {"variant": "small"}), ("motion_patches", {"channels": 1}), ("motion_spectrum", {})]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory, photo: NDArray[np.uint8]) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number, (top, left) in enumerate([(40, 130), (200, 60)]):
        Image.fromarray(photo[top : top + 120, left : left + 140]).save(folder / f"p{number}.png")
    return folder


def options(output: Path, data: Path, **more: object) -> TrainingOptions:
    return TrainingOptions(str(output), (str(data),), **{"device": "cpu", "loaders": 0, "threads": 1, **more})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    folder = train(RECIPE, options(tmp_path_factory.mktemp("run"), photographs))
    return Path(export(str(folder), str(folder / "tiny.onnx")).path)


# Networks


def test_the_papers_layout_has_4_x_4_x_256_before_the_connected_layers() -> None:
    network = build_network("motion_patches", {"variant": "paper"}).eval()
    seen = []
    connected = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][2]
    connected.register_forward_hook(lambda _, given, made: seen.append((given[0].shape, made.shape)))
    assert network(torch.rand(2, 3, 30, 30)).shape == (2, 73, 1, 1)
    assert seen == [((2, 256, 4, 4), (2, 1024, 1, 1))]
    weights = 3 * 7 * 7 * 96 + 96 * 5 * 5 * 256 + 4 * 4 * 256 * 1024 + 1024 * 73
    assert sum(each.numel() for each in network.parameters()) == weights + 96 + 256 + 1024 + 73


@pytest.mark.parametrize(("name", "settings"), NETWORKS)
def test_a_picture_gives_the_answers_of_all_its_windows(name: str, settings: dict[str, object]) -> None:
    network = build_network(name, settings).eval()
    picture = torch.rand(1, int(settings.get("channels", 3)), 47, 58)
    answers = network(picture)
    assert answers.shape == (1, 73, 5, 8)
    assert torch.allclose(answers.sum(1), torch.ones(1, 5, 8), atol=1e-5)
    for row, column in ((0, 0), (2, 3), (4, 7)):
        window = picture[:, :, 4 * row : 4 * row + 30, 4 * column : 4 * column + 30]
        assert torch.allclose(answers[:, :, row, column], network(window)[:, :, 0, 0], atol=1e-6)


def test_log_spectra_are_those_of_numpy() -> None:
    patches = torch.rand(2, 3, 30, 30)
    found = build_network("motion_spectrum", {}).log_spectra(patches)
    window = np.outer(np.hanning(32)[1:-1], np.hanning(32)[1:-1])
    centred = patches.double().numpy() - patches.double().mean((2, 3), keepdim=True).numpy()
    power = np.abs(np.fft.rfft2(centred * window, (32, 32))) ** 2
    expected = np.log(power + 1e-4).mean(1).transpose(0, 2, 1).reshape(2, -1)
    np.testing.assert_allclose(found.numpy()[:, :, 0, 0], expected, atol=2e-5)


def test_spectra_are_in_float32_in_a_training_in_bfloat16() -> None:
    network, patches = build_network("motion_spectrum", {}), torch.rand(2, 3, 30, 30)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network.log_spectra(patches), build_network("motion_spectrum", {}).log_spectra(patches))
        assert network.log_spectra(patches).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("motion_patches", {"variant": "large"}, "no variant 'large'; expected one of paper, small"),
        ("motion_spectrum", {"widths": [8]}, r"two widths of at least 1, not \[8\]"),
        ("motion_spectrum", {"channels": 2}, "channels must be 1"),
    ],
)
def test_wrong_settings_are_refused(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_network(name, settings)


# What is learned


def test_the_loss_is_the_mean_of_minus_log_of_the_right_labels_share() -> None:
    network, scores, labels = build_network("motion_spectrum", {}), torch.randn(3, 73, 2, 1), torch.tensor([0, 7, 72])
    target = functional.one_hot(labels, 73).float()
    loss = CrossEntropy("top1[label]").loss(network, torch.rand(3, 3, 34, 30), scores, target)
    shares = torch.softmax(scores.double(), 1)
    expected = -torch.stack([shares[n, label].log() for n, label in enumerate(labels)]).mean()
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)


def test_a_network_that_makes_pictures_learns_no_labels() -> None:
    network, patches = build_network("model3", {"channels": 3}), torch.rand(2, 3, 30, 30)
    with pytest.raises(ConfigurationError, match=r"makes 2 x 3 x 30 x 30 of 2 x 3 x 30 x 30, expected N x 73 x h x w"):
        CrossEntropy("top1[label]").loss(network, patches, network(patches), torch.rand(2, 73))


def test_an_angle_between_two_labels_is_shared_out() -> None:
    for label in range(73):
        assert label_shares(*motion_of_label(label, 1))[label] == 1
    shares = label_shares(9, 168.0)  # 18 degrees beyond 150, 12 short of 180, which is 0
    assert shares[label_of_motion(9, 150, 1)] == pytest.approx(0.4)
    assert shares[label_of_motion(9, 0, 1)] == pytest.approx(0.6)
    assert shares.sum() == pytest.approx(1)


def test_batches_carry_the_labels_that_blurred_them(photo: NDArray[np.uint8]) -> None:
    pictures = [TrainingPicture("a", photo[:200, :200])]
    source = FreshPairs(pictures, load_recipe("motion-patches"), 30, seed=3)
    targets = CrossEntropy("top1[label]").targets()
    degraded, shares = LoadedBatches(source, 5, targets)[1]
    expected = [
        source.draw(number).parameters["degradation"][0]["motion_label_blur"]["label"] for number in range(5, 10)
    ]
    assert shares.argmax(1).tolist() == expected
    assert (shares.max(1).values == 1).all()
    together, again = FreshBatches(pictures, source.recipe, 5, 30, 3, targets=targets)[1]
    assert torch.equal(again, shares)
    assert torch.allclose(degraded, together, atol=1.01 / 255)  # rounding to 8 bit


def test_pairs_without_a_motion_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no step 'motion_label_blur', so it has no label"):
        drawn_motion({"degradation": [{"gaussian_noise": {"sigma": 1}}]})


def test_objectives_and_their_protocols_are_known_by_name() -> None:
    assert isinstance(objective_named("mean_squared_error", "psnr[gray,u8]"), MeanSquaredError)
    with pytest.raises(
        ConfigurationError, match="expected one of mean_squared_error, mean_absolute_error, cross_entropy"
    ):
        objective_named("hinge", "top1[label]")
    with pytest.raises(
        ConfigurationError, match=r"cross_entropy has no protocol 'psnr\[gray,u8\]'; expected top1\[label\]"
    ):
        objective_named("cross_entropy", "psnr[gray,u8]")
    with pytest.raises(ConfigurationError, match="top1"):
        objective_named("mean_squared_error", "top1[label]")


def test_the_choice_of_an_objective_leaves_earlier_fingerprints_alone() -> None:
    plain = replace(RECIPE, objective="mean_squared_error")
    assert "objective" not in plain.deciding()
    assert RECIPE.deciding() == {**plain.deciding(), "objective": "cross_entropy"}


class Always(torch.nn.Module):
    """The same answer to everything."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return functional.one_hot(torch.full((len(patches),), self.label), 73).float()[:, :, None, None]


def test_figures_of_a_known_answer() -> None:
    label = label_of_motion(5, 90, 1)
    drawn = [(5, 90.0), (9, 90.0), (5, 0.0), (1, 0.0)]
    pairs = [
        ValidationPair(
            np.zeros((30, 30, 3), np.uint8),
            np.zeros((3, 30, 30), np.float32),
            {
                "degradation": [
                    {
                        "motion_label_blur": {
                            "label": label_of_motion(*motion, 1), "length_px": motion[0], "angle_deg": motion[1], "rotations": 1
                        }
                    }
                ]
            },
        )
        for motion in drawn
    ]  # fmt: skip
    figures = CrossEntropy("top1[label]").figures(Always(label), pairs, torch.device("cpu"))
    assert figures["top1[label]"] == 0.25
    assert figures["end_point_error[px]"] == pytest.approx((0 + 4 + math.hypot(5, 5) + 5) / 4)


def test_the_end_point_error_forgets_the_sign() -> None:
    vectors = label_vectors(5)
    assert len(vectors) == 361
    assert not vectors[0].any()
    assert end_point_error(vectors, -vectors) == pytest.approx(np.zeros(361))
    along, back = label_vectors(1)[label_of_motion(7, 0, 1)], label_vectors(1)[label_of_motion(7, 150, 1)]
    assert end_point_error(along, back) == pytest.approx(2 * 7 * math.sin(math.radians(15)))  # 30 degrees apart


def test_an_interrupted_run_ends_with_the_same_weights_and_logs_its_figures(tmp_path: Path, photographs: Path) -> None:
    validation = (str(photographs),)
    train(RECIPE, options(tmp_path / "whole", photographs, validation=validation))
    train(RECIPE, options(tmp_path / "parts", photographs, validation=validation, stop_after=1))
    train(RECIPE, options(tmp_path / "parts", photographs, validation=validation, resume=True))
    one, other = ((tmp_path / name / "checkpoint.safetensors").read_bytes() for name in ("whole", "parts"))
    assert load_progress(tmp_path / "parts").step == RECIPE.steps
    assert one[-4000:] == other[-4000:]
    lines = [line for line in read_log(tmp_path / "whole") if "top1[label]" in line]
    assert [line["step"] for line in lines] == [2, 4]
    assert all(0 <= line["end_point_error[px]"] <= 25 for line in lines)


def test_stored_patches_are_learned_from_with_their_labels(tmp_path: Path, photographs: Path) -> None:
    words = [
        "--recipe",
        "motion-patches",
        "--output_format",
        "arrow",
        "--patches_per_image",
        "8",
        "--num_local_workers",
        "1",
    ]
    assert main(["degrade", "--input", str(photographs), "--output", str(tmp_path / "pairs"), "--quiet", *words]) == 0
    pairs = tmp_path / "pairs"
    train(RECIPE, options(tmp_path / "run", pairs, validation=(str(pairs),)))
    assert all(0 <= line["top1[label]"] <= 1 for line in read_log(tmp_path / "run") if "top1[label]" in line)
    assert load_progress(tmp_path / "run").step == RECIPE.steps


# The field


class Structure:
    """Answers with the label of 9 pixels along the stripes of each window, by its structure tensor; 30 degrees apart."""

    window, stride = 30, 4

    def confidences(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        windows = np.lib.stride_tricks.sliding_window_view(planes[0, 0], (30, 30))[::4, ::4]
        down, across = np.gradient(windows, axis=(2, 3))
        doubled = np.arctan2(2 * (across * down).mean((2, 3)), (across**2 - down**2).mean((2, 3)))
        stripes = 90 - np.degrees(doubled) / 2  # the gradient's direction, rows downwards, turned by a quarter
        answers = np.zeros((1, 73, *stripes.shape), np.float32)
        for label in range(label_of_motion(9, 0, 1), label_of_motion(9, 0, 1) + 6):
            away = np.radians(stripes - motion_of_label(label, 1)[1])
            answers[0, label] = np.exp(20 * np.cos(2 * away))
        return answers / answers.sum(1, keepdims=True)


def stripes(angle_deg: float, height: int, width: int) -> NDArray[np.float32]:
    """Waves whose crests run at an angle, counter-clockwise from the horizontal."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    angle = math.radians(angle_deg)
    across = columns * math.sin(angle) + rows * math.cos(angle)
    return np.float32(0.5 + 0.4 * np.sin(across / 2.5))[np.newaxis]


@pytest.mark.parametrize("angle", [0, 12, 48, 90, 138, 174])
def test_five_turns_find_angles_six_degrees_apart(angle: int) -> None:
    field = estimate_motion(Structure(), stripes(angle, 70, 90), rotations=5)
    expected = label_of_motion(9, angle, 5)
    middle = field.labels[25:45, 30:60]
    assert (middle == expected).all()
    assert np.allclose(field.motion[:, 35, 45], label_vectors(5)[expected], atol=1e-5)


def test_one_turn_finds_the_nearest_of_six_angles_up_to_the_border() -> None:
    field = estimate_motion(Structure(), stripes(57, 61, 83))
    assert field.labels.shape == field.confidence.shape == (61, 83)
    assert field.motion.shape == (2, 61, 83)
    assert (field.labels == label_of_motion(9, 60, 1)).all()
    assert ((field.confidence > 0) & (field.confidence <= 1)).all()


@pytest.mark.parametrize("rotations", [1, 5])
def test_tiles_do_not_show(rotations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    halves = np.concatenate([stripes(30, 60, 70), stripes(120, 60, 70)], axis=2)
    whole = estimate_motion(Structure(), halves, rotations)
    monkeypatch.setattr(motion_field, "_TILE_CELLS", 8)
    parts = estimate_motion(Structure(), halves, rotations)
    assert (whole.labels == parts.labels).mean() > 0.999  # where two are equally likely, rounding decides
    np.testing.assert_allclose(parts.confidence, whole.confidence, atol=1e-4)


def test_confidences_of_one_turn_stay_what_they_were() -> None:
    given = np.random.default_rng(1).dirichlet(np.ones(73), 6).T.astype(np.float32).reshape(73, 2, 3)
    np.testing.assert_allclose(combined([given]), given, rtol=1e-5)


@pytest.mark.parametrize(("turn", "angle"), [(0, 60), (1, 54), (4, 36)])
def test_an_angle_in_a_turned_picture_is_less_by_the_turn(turn: int, angle: int) -> None:
    each = [np.full((73, 1), 0.001, np.float32) for _ in range(5)]
    each[turn][label_of_motion(9, 60, 1)] = 0.9
    assert combined(each)[:, 0].argmax() == label_of_motion(9, angle, 5)


def test_a_picture_turned_by_a_quarter_is_numpys(photo: NDArray[np.uint8]) -> None:
    planes = np.float32(photo[:60, :80].transpose(2, 0, 1) / 255)
    square = turned(planes, (30, 40), 10, 90.0)
    around = planes[:, 20:41, 30:51]
    np.testing.assert_allclose(square, np.rot90(around, axes=(1, 2))[:, :20, :20], atol=1e-4)
    assert np.array_equal(turned(planes, (30, 40), 10, 0.0), planes[:, 20:40, 30:50])


def test_a_motion_turns_with_its_picture() -> None:
    field = estimate_motion(Structure(), turned(stripes(30, 200, 200), (100, 100), 40, 30.0))
    assert (field.labels[20:60, 20:60] == label_of_motion(9, 60, 1)).all()


def test_unfit_pictures_and_rotations_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="29 x 40 pixels; the classifier needs at least 30"):
        estimate_motion(Structure(), np.zeros((1, 40, 29), np.float32))
    with pytest.raises(ConfigurationError, match="4 is no divisor of 30"):
        estimate_motion(Structure(), np.zeros((1, 40, 40), np.float32), rotations=4)


# The file


def test_the_exported_file_answers_as_the_network_does(exported: Path) -> None:
    classifier = MotionClassifier(read_model(str(exported)))
    assert (classifier.channels, classifier.window, classifier.stride) == (3, 30, 4)
    assert classifier.confidences(np.zeros((2, 3, 30, 71), np.float32)).shape == (2, 73, 1, 11)


def test_restore_refuses_a_classifier_and_says_what_to_use(
    exported: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--input", str(photographs), "--model", str(exported), "--output", str(tmp_path / "out")]
    assert main(["restore", *words]) == 5
    told = capsys.readouterr().err
    assert "is not image-to-image" in told
    assert "its purpose is 'classify linear motion, for `conservator motion`'" in told


def test_a_restorer_is_no_classifier(negative_model: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not classify motion: its metadata does not say"):
        MotionClassifier(read_model(str(negative_model)))


def test_the_verb_writes_field_confidence_and_drawing(
    exported: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "in" / "p0.png").write_bytes((photographs / "p0.png").read_bytes())
    words = ["--input", str(tmp_path / "in"), "--model", str(exported), "--output", str(tmp_path / "out")]
    assert main(["motion", *words]) == 3  # one picture failed
    told = capsys.readouterr()
    assert told.out.startswith("p0: 140x120, motion of ")
    assert told.err.startswith("broken: ")
    motion = np.load(tmp_path / "out" / "p0.motion.npy")
    assert (motion.shape, motion.dtype) == ((2, 120, 140), np.float32)
    assert np.load(tmp_path / "out" / "p0.confidence.npy").shape == (120, 140)
    with Image.open(tmp_path / "out" / "p0.motion.png") as drawn:
        assert drawn.size == (140, 120)


def benchmark(name: str) -> ModuleType:
    path = Path(__file__).parent / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_cepstrum_finds_the_motion_of_white_noise() -> None:
    """Else it were no baseline: the spectrum of noise is flat, but for the motion."""
    picture = TrainingPicture("noise", np.random.default_rng(2).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    recipe = replace(load_recipe("motion-patches"), degradation=InOrder((MotionLabelBlur(), RoundTo8Bit())))
    source = FreshPairs([picture], recipe, 30, seed=1)
    pairs = [source.draw(number) for number in range(400)]
    clean, blurred = (np.stack([getattr(pair, half) for pair in pairs]) for half in ("clean", "degraded"))
    labels = np.array([drawn_motion(pair.parameters)["label"] for pair in pairs])
    baseline = benchmark("cepstrum_baseline").CepstrumBaseline(clean[:200], blurred[:200], labels[:200])
    right = [(find(blurred[200:]) == labels[200:]).mean() for find in (baseline.by_peak, baseline.by_match)]
    assert right[0] > 0.4  # a label drawn at random: 0.014
    assert right[1] > 0.9
