"""The models that ship: they are there, they say what they are, and they are as good as they say."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from skimage.data import astronaut

from export.card import read_card
from export.onnx_file import graph_sha256
from export.quality import measure
from models.dictionary_recipe import DictionaryRecipe, is_dictionary_recipe, load_dictionary_recipe
from models.gan_recipe import GanRecipe, is_gan_recipe, load_gan_recipe
from models.pages import PageStyle, write_pages
from models.recipes import load_recipe
from models.training_data import CleanPicture, TrainingPicture, load_pictures
from models.training_recipe import TrainingRecipe, load_training_recipe
from models.training_setup import data_names
from models.zoo import INT8, MODELS, zoo_path
from transforms.errors import ConfigurationError


@pytest.mark.parametrize("name", MODELS)
def test_every_model_ships_with_its_card(name: str) -> None:
    path = zoo_path(name)
    card = read_card(str(path))
    assert card.name == name
    assert card.card["graph_sha256"] == graph_sha256(onnx.load(path))
    assert card.card["measured"]


def test_the_zoo_holds_no_file_that_the_table_does_not_name() -> None:
    folder = zoo_path(next(iter(MODELS))).parent
    assert {path.name for path in folder.glob("*.onnx")} == set(MODELS.values())


def recipe_of_any_kind(name: str) -> TrainingRecipe | DictionaryRecipe | GanRecipe:
    if is_gan_recipe(name):
        return load_gan_recipe(name)
    return load_dictionary_recipe(name) if is_dictionary_recipe(name) else load_training_recipe(name)


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_come_from_the_recipe_that_ships(name: str) -> None:
    training = read_card(str(zoo_path(name))).card["training"]
    recipe = recipe_of_any_kind(f"train-{training['recipe']['name']}")
    shipped = {key: value for key, value in recipe.deciding().items() if key in training["recipe"]}
    assert {key: training["recipe"][key] for key in shipped if key != "validation"} == {
        key: value for key, value in shipped.items() if key != "validation"
    }
    assert training["steps"] == recipe.steps
    assert training["command"] == recipe.command
    if isinstance(recipe, TrainingRecipe):
        assert read_card(str(zoo_path(name))).card["network"] == recipe.deciding()["network"]
        degradation = load_recipe(recipe.degradation).fingerprint()
        assert training.get("degradation_sha256", degradation) == degradation  # older cards have none


@pytest.mark.parametrize("name", MODELS)
def test_the_card_names_the_data_of_its_command(name: str) -> None:
    training = read_card(str(zoo_path(name))).card["training"]
    words = shlex.split(training["command"])
    assert training["data"] == data_names([words[words.index("--data") + 1]])


BARS = [  # model, set, recipe, protocol, dB at least
    ("denoise5-gray-25", "BSD68", "dncnn-25", "psnr[gray,u8]", 28.0),
    ("dncnn-gray-25", "BSD68", "dncnn-25", "psnr[gray,u8]", 28.7),
    ("dae-25", "CBSD68", "cdncnn-25", "psnr[rgb,u8]", 28.5),
    ("denoise5-color-25", "CBSD68", "cdncnn-25", "psnr[rgb,u8]", 26.2),
    ("srcnn-x3", "Set5", "shrunk-x3", "psnr[y,border=3,u8]", 32.2),
    ("scn-x2", "Set5", "shrunk-x2", "psnr[y,border=2,u8]", 36.2),
    ("vdsr-x3", "Set5", "shrunk-x3", "psnr[y,border=3,u8]", 32.4),
    ("scsr-x2", "Set5", "shrunk-x2", "psnr[y,border=2,u8]", 35.0),
]


DENOISERS = [name for name in MODELS if read_card(str(zoo_path(name))).purpose == "denoise"]
CLEANERS = [
    name
    for name in MODELS
    if (card := read_card(str(zoo_path(name)))).color in ("gray", "rgb")
    and "takes" not in card.card
    and name not in ("motion-patches", "text-deblur")
]
ENLARGERS = [name for name in MODELS if read_card(str(zoo_path(name))).enlarge is not None]


@pytest.mark.parametrize("name", DENOISERS)
def test_a_model_gains_at_least_six_decibel_on_a_smooth_picture(name: str) -> None:
    """Without any data set: a shaded disc with noise of the level that the denoiser is for, which ends its name."""
    across, down = np.meshgrid(np.linspace(-1, 1, 96), np.linspace(-1, 1, 96))
    disc = np.where(across**2 + down**2 < 0.5, 0.4 + 0.4 * across, 0.2)
    card = read_card(str(zoo_path(name)))
    rng = np.random.Generator(np.random.Philox(key=3))
    level = int(name.removesuffix(INT8).rpartition("-")[2])
    degraded = disc + rng.normal(0, level / 255, (1, card.channels, 96, 96))
    session = onnxruntime.InferenceSession(str(zoo_path(name)))
    (restored,) = session.run(None, {"degraded": degraded.astype(np.float32)})
    error = [np.mean((image - disc) ** 2) for image in (degraded, restored)]
    assert 10 * np.log10(error[0] / error[1]) > 6


@pytest.mark.parametrize("name", ENLARGERS)
def test_a_model_enlarges_better_than_the_bicubic(name: str) -> None:
    """Without any data set: of a photograph, by 1 dB for a factor of two, by half of that for larger ones."""
    card = read_card(str(zoo_path(name)))
    picture = TrainingPicture("astronaut", astronaut()[:192, 96:288])
    value, bicubic = measure(str(zoo_path(name)), [picture], f"shrunk-x{card.scale}", f"psnr[y,border={card.scale},u8]")
    assert value - bicubic > (1.0 if card.scale == 2 else 0.5)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ENLARGERS)
def test_a_model_enlarges_as_well_as_its_card_says(name: str, data_dir: Path) -> None:
    """On the smallest set of its card, so that all models are checked within minutes."""
    entry = min(read_card(str(zoo_path(name))).card["measured"], key=lambda each: int(each["pictures"]))
    pictures = load_pictures([str(data_dir / entry["data_set"])], 0)
    value, bicubic = measure(str(zoo_path(name)), pictures, entry["recipe"], entry["protocol"])
    assert value == pytest.approx(entry["value"], abs=tolerance_db(name))
    assert bicubic == pytest.approx(entry["degraded"], abs=0.002)
    assert bicubic == pytest.approx(entry["published"]["bicubic"], abs=0.01)


def tolerance_db(name: str) -> float:
    """Kinds of CPU add up integers otherwise: those without VNNI saturate at 16 bit."""
    return 0.1 if name.endswith(INT8) else 0.002


@pytest.mark.parametrize("name", [name for name in MODELS if name.endswith(INT8)])
def test_a_twin_is_that_of_the_model_that_ships_and_loses_a_tenth_of_a_decibel_at_most(name: str) -> None:
    twin, original = (read_card(str(zoo_path(each))).card for each in (name, name.removesuffix(INT8)))
    assert twin["quantisation"]["source_graph_sha256"] == original["graph_sha256"]
    before = {(each["data_set"], each["protocol"]): each["value"] for each in original["measured"]}
    assert twin["measured"]
    for entry in twin["measured"]:
        assert entry["value"] >= before[entry["data_set"], entry["protocol"]] - 0.1


def measured_pictures(name: str, data_set: str, data_dir: Path) -> Sequence[CleanPicture]:
    channels = read_card(str(zoo_path(name))).channels
    if data_set != "CBSD68":
        return load_pictures([str(data_dir / data_set)], channels)
    ids = (data_dir / "CBSD68_ids.txt").read_text().split()
    return load_pictures([str(data_dir / "BSD100" / f"{each}.jpg") for each in ids], channels)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", CLEANERS)
def test_a_model_is_as_good_as_its_card_says(name: str, data_dir: Path) -> None:
    """On the set that its bar is for, or on the smallest of its card, so that all models are checked within minutes."""
    path = str(zoo_path(name))
    psnr = [each for each in read_card(path).card["measured"] if each["protocol"].startswith("psnr")]
    barred = {data_set for model, data_set, *_ in BARS if model == name}
    entry = min(psnr, key=lambda each: (each["data_set"] not in barred, each["pictures"]))
    pictures = measured_pictures(name, entry["data_set"], data_dir)
    assert len(pictures) == entry["pictures"]
    value, degraded = measure(path, pictures, entry["recipe"], entry["protocol"])
    assert value == pytest.approx(entry["value"], abs=tolerance_db(name))
    assert degraded == pytest.approx(entry["degraded"], abs=0.002)


@pytest.mark.parametrize("family", ["dejavu-serif", "stix"])
def test_blurred_text_gains(family: str, tmp_path: Path) -> None:
    """Without any data set: paragraphs drawn in fonts that come with matplotlib."""
    write_pages(str(tmp_path / "slips.tar"), PageStyle((family,), ("paragraph",)), 77, 3)
    pictures = load_pictures([str(tmp_path / "slips.tar")], 3)
    value, blurred = measure(str(zoo_path("text-deblur")), pictures, "text-deblur-test", "psnr[rgb,border=20,u8]")
    assert value > blurred + 2.5


@pytest.mark.parametrize(("name", "data_set", "recipe", "protocol", "bar"), BARS)
def test_a_model_meets_its_bar(name: str, data_set: str, recipe: str, protocol: str, bar: float) -> None:
    entries = read_card(str(zoo_path(name))).card["measured"]
    wanted = (data_set, recipe, protocol)
    (entry,) = [each for each in entries if (each["data_set"], each["recipe"], each["protocol"]) == wanted]
    assert entry["value"] >= bar


def figures_of(name: str) -> dict[tuple[str, str], dict[str, float]]:
    """A card's figures by protocol and by the end of the set's name."""
    entries = read_card(str(zoo_path(name))).card["measured"]
    return {(entry["protocol"], entry["data_set"].rpartition(", ")[2]): entry for entry in entries}


def test_the_text_network_meets_its_bars() -> None:
    figures = figures_of("text-deblur")
    pages = figures["psnr[rgb,border=20,u8]", "the typefaces of the training"]
    assert pages["pictures"] == 100
    assert pages["value"] >= pages["degraded"] + 4
    words = figures["character_error[tesseract]", "typefaces never seen"]
    assert words["value"] <= words["degraded"] / 2


def test_the_classifier_of_motion_is_right_more_often_than_its_bar_and_the_cepstrum() -> None:
    entry = figures_of("motion-patches")["top1[label]", "BSD100"]
    assert entry["value"] >= max(0.45, *entry["published"].values())


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'denoise5-gray-25'"):
        zoo_path("denoise5-grey-25")


def test_finding_a_model_and_reading_its_card_loads_no_torch() -> None:
    program = (
        "import sys; from models.zoo import zoo_path; from export.card import read_card;"
        "read_card(str(zoo_path('denoise5-gray-25'))); assert 'torch' not in sys.modules; assert 'onnx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1])
