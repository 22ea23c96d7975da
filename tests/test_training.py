"""Training: draws are functions of their number, an interrupted run ends with the bits of an undisturbed one."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from models.checkpoint import FILE_NAME, load_progress
from models.datasets import FreshPairs
from models.networks import build_network
from models.recipes import load_recipe, shipped_recipes
from models.training import TrainingOptions, train
from models.training_data import TrainingPicture, digest, first_by_hash, load_pictures, split_held_out
from models.training_log import read_log
from models.training_recipe import LearningRate, NetworkChoice, TrainingRecipe, Validation, load_training_recipe
from models.training_setup import data_names
from transforms.errors import ConfigurationError

RECIPE = TrainingRecipe(
    name="tiny",
    purpose="denoise",
    network=NetworkChoice("model3", 1, {"layers": 4}),
    degradation="dncnn-25",
    steps=12,
    batch_size=2,
    patch_size=12,
    learning_rate=LearningRate(1e-3, warmup_steps=3),
    validation=Validation("psnr[gray,u8]", every=5, limit=2),
    seed=4,
)


def picture(number: int, size: int = 32, channels: int = 1) -> np.ndarray:
    """Smooth shapes, so that there is something to learn."""
    random = np.random.Generator(np.random.Philox(key=number))
    across, down = np.meshgrid(np.linspace(0, 6, size), np.linspace(0, 6, size))
    waves = [np.sin(across * random.uniform(0.5, 2) + down * random.uniform(-2, 2)) for _ in range(channels)]
    return np.uint8(127 + 90 * np.stack(waves, axis=2))


def png(samples: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    folder = tmp_path / "clean"
    folder.mkdir()
    for number in range(6):
        (folder / f"p{number}.png").write_bytes(png(picture(number)))
    return folder


def options(output: Path, clean: Path, **more: object) -> TrainingOptions:
    return TrainingOptions(str(output), (str(clean),), **{"device": "cpu", "loaders": 0, "threads": 1, **more})


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / FILE_NAME)


def identical(one: Path, other: Path) -> bool:
    first, second = tensors(one), tensors(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop", [1, 7])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, clean: Path, precision: str, stop: int) -> None:
    recipe = replace(RECIPE, precision=precision)
    train(recipe, options(tmp_path / "whole", clean))
    train(recipe, options(tmp_path / "parts", clean, stop_after=stop))
    assert load_progress(tmp_path / "parts").step == stop
    assert not identical(tmp_path / "whole", tmp_path / "parts")
    train(recipe, options(tmp_path / "parts", clean, resume=True))
    assert load_progress(tmp_path / "parts").step == recipe.steps
    assert identical(tmp_path / "whole", tmp_path / "parts")


def test_loading_processes_change_nothing(tmp_path: Path, clean: Path) -> None:
    train(RECIPE, options(tmp_path / "alone", clean))
    train(RECIPE, options(tmp_path / "helped", clean, loaders=2))
    assert identical(tmp_path / "alone", tmp_path / "helped")


def test_how_often_it_is_judged_changes_nothing(tmp_path: Path, clean: Path) -> None:
    train(RECIPE, options(tmp_path / "seldom", clean))
    often = replace(RECIPE, validation=replace(RECIPE.validation, every=1))
    train(often, options(tmp_path / "often", clean))
    assert identical(tmp_path / "seldom", tmp_path / "often")


def test_a_network_learns_to_remove_noise(tmp_path: Path, clean: Path) -> None:
    recipe = replace(RECIPE, steps=120, batch_size=4, learning_rate=LearningRate(5e-3, warmup_steps=10))
    train(recipe, options(tmp_path / "run", clean, validation=(str(clean),)))
    quality = [line["psnr[gray,u8]"] for line in read_log(tmp_path / "run") if "psnr[gray,u8]" in line]
    noisy_db = 20 * np.log10(255 / 25)
    assert quality[-1] > noisy_db + 3


def test_the_run_leaves_a_log_and_a_curve(tmp_path: Path, clean: Path) -> None:
    folder = train(RECIPE, options(tmp_path / "run", clean, validation=(str(clean),)))
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "psnr[gray,u8]" in line] == [5, 10, 12]
    assert lines[-2]["step"] == 12
    assert lines[-2]["learning_rate"] == pytest.approx(0, abs=1e-9)
    with Image.open(folder / "curve.png") as curve:
        assert curve.width > 400


def test_a_log_that_was_cut_off_is_taken_up_again(tmp_path: Path, clean: Path) -> None:
    validation = (str(clean),)
    train(RECIPE, options(tmp_path / "run", clean, validation=validation, stop_after=7))
    with open(tmp_path / "run" / "log.jsonl", "a") as log:
        log.write('{"step": 8, "loss": 1}\n{"step": 9, "lo')
    train(RECIPE, options(tmp_path / "run", clean, validation=validation, resume=True))
    steps = [line["step"] for line in read_log(tmp_path / "run")]
    assert steps == [5, 7, 10, 12, 12]


def test_a_second_run_does_not_overwrite_the_first(tmp_path: Path, clean: Path) -> None:
    train(RECIPE, options(tmp_path / "run", clean))
    with pytest.raises(ConfigurationError, match="already holds a run; pass --resume"):
        train(RECIPE, options(tmp_path / "run", clean))


def test_another_recipe_or_other_pictures_do_not_continue_a_run(tmp_path: Path, clean: Path) -> None:
    train(RECIPE, options(tmp_path / "run", clean, stop_after=3))
    with pytest.raises(ConfigurationError, match="recipe or its pictures are others"):
        train(replace(RECIPE, batch_size=3), options(tmp_path / "run", clean, resume=True))
    (clean / "p0.png").write_bytes(png(picture(99)))
    with pytest.raises(ConfigurationError, match="recipe or its pictures are others"):
        train(RECIPE, options(tmp_path / "run", clean, resume=True))


def test_a_diverged_run_stops_instead_of_saving_nonsense(tmp_path: Path, clean: Path) -> None:
    wild = replace(RECIPE, network=NetworkChoice("model1", 1), learning_rate=LearningRate(1e30))
    with pytest.raises(ConfigurationError, match="training diverged"):
        train(wild, options(tmp_path / "run", clean))
    assert not (tmp_path / "run" / FILE_NAME).exists()


def test_the_card_gets_names_of_data_sets_not_paths(tmp_path: Path, clean: Path) -> None:
    train(RECIPE, options(tmp_path / "run", clean, stop_after=1))
    assert load_progress(tmp_path / "run").facts["data"] == ["clean"]
    assert str(tmp_path) not in json.dumps(vars(load_progress(tmp_path / "run")))


def test_no_gpu_is_an_error_if_one_is_asked_for(tmp_path: Path, clean: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigurationError, match="sees no GPU"):
        train(RECIPE, options(tmp_path / "run", clean, device="cuda"))


# Draws


def test_a_draw_is_a_function_of_its_number(clean: Path) -> None:
    source = FreshPairs(load_pictures([str(clean)], 1), load_recipe("dncnn-25"), 12, seed=1)
    again = FreshPairs(load_pictures([str(clean)], 1), load_recipe("dncnn-25"), 12, seed=1)
    [again.draw(number) for number in range(5)]  # order has no memory
    one, other = source.draw(7), again.draw(7)
    for half in ("clean", "degraded"):
        assert getattr(one, half).shape == (1, 12, 12)
        assert getattr(one, half).dtype == np.float32
        assert np.array_equal(getattr(one, half), getattr(other, half))
    assert not np.array_equal(one.degraded, source.draw(8).degraded)


def test_fresh_pairs_carry_the_recipes_noise(clean: Path) -> None:
    source = FreshPairs(load_pictures([str(clean)], 1), load_recipe("dncnn-25"), 12, seed=1)
    noise = np.concatenate([(pair.degraded - pair.clean).ravel() for pair in map(source.draw, range(200))])
    assert noise.std() == pytest.approx(25 / 255, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.003)


def test_pictures_are_drawn_in_proportion_to_their_area() -> None:
    dark, bright = np.zeros((20, 20, 1), np.uint8), np.full((60, 20, 1), 255, np.uint8)
    pictures = [TrainingPicture("dark", dark), TrainingPicture("bright", bright)]
    source = FreshPairs(pictures, load_recipe("dncnn-25"), 10, seed=1)
    share = np.mean([source.draw(number).clean.mean() for number in range(1000)])
    assert share == pytest.approx(0.75, abs=0.05)


def test_stored_png_pairs_train_a_network(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    for number in range(4):
        (folder / f"p{number}.clean.png").write_bytes(png(picture(number)))
        (folder / f"p{number}.degraded.png").write_bytes(png(picture(number) // 2))
    train(RECIPE, options(tmp_path / "run", folder, validation=(str(folder),)))
    assert load_progress(tmp_path / "run").step == RECIPE.steps


def test_colour_becomes_grey_and_grey_becomes_colour(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(picture(1, channels=3)))
    (tmp_path / "b.png").write_bytes(png(picture(2)))
    assert [each.clean.shape for each in load_pictures([str(tmp_path)], 1)] == [(32, 32, 1)] * 2
    assert [each.clean.shape for each in load_pictures([str(tmp_path)], 3)] == [(32, 32, 3)] * 2


def test_scales_add_smaller_copies(clean: Path) -> None:
    pictures = load_pictures([str(clean / "p1.png")], 1, (1.0, 0.75, 0.5))
    assert [(each.key, each.clean.shape) for each in pictures] == [
        ("p1", (32, 32, 1)),
        ("p1@0.75", (24, 24, 1)),
        ("p1@0.5", (16, 16, 1)),
    ]


def test_a_new_picture_moves_no_other_between_training_and_validation() -> None:
    pictures = [TrainingPicture(f"k{number}", np.zeros((2, 2, 1), np.uint8)) for number in range(400)]
    training, held_out = split_held_out(pictures, 0.1)
    assert 20 <= len(held_out) <= 60
    fewer_training, fewer_held_out = split_held_out(pictures[::2], 0.1)
    assert {each.key for each in fewer_training} <= {each.key for each in training}
    assert {each.key for each in fewer_held_out} <= {each.key for each in held_out}
    assert first_by_hash(pictures, 5) == first_by_hash(pictures[::-1], 5)


def test_the_digest_sees_every_sample(clean: Path) -> None:
    pictures = load_pictures([str(clean)], 1)
    changed = pictures[3].clean.copy()
    changed[5, 5] ^= 1
    assert digest(pictures) == digest(load_pictures([str(clean)], 1))
    assert digest(pictures) != digest([*pictures[:3], replace(pictures[3], clean=changed), *pictures[4:]])


def test_unfit_data_is_refused_with_the_remedy(tmp_path: Path, clean: Path) -> None:
    with pytest.raises(ConfigurationError, match="none of 6 pictures is at least 64 pixels"):
        FreshPairs(load_pictures([str(clean)], 1), load_recipe("dncnn-25"), 64, seed=1)
    (clean / "p2.png").write_bytes(png(picture(2))[:-40])
    with pytest.raises(ConfigurationError, match="training record 'p2' can't be used"):
        load_pictures([str(clean)], 1)


def test_pairs_and_clean_pictures_do_not_mix(tmp_path: Path, clean: Path) -> None:
    (clean / "p9.clean.png").write_bytes(png(picture(9)))
    (clean / "p9.degraded.png").write_bytes(png(picture(9) // 2))
    with pytest.raises(ConfigurationError, match="'p0' has no degraded picture, but others have; do not mix"):
        train(RECIPE, options(tmp_path / "run", clean))


# Recipes


def test_shipped_training_recipes_are_valid_and_name_recipes_that_ship() -> None:
    names = shipped_recipes("training")
    assert {"train-denoise5-color-25", "train-denoise5-gray-25", "train-dncnn-gray-25"} <= set(names)
    for name in names:
        recipe = load_training_recipe(name)
        assert name == f"train-{recipe.name}"
        assert f"--recipe {name} " in recipe.command
        build_network(recipe.network.name, recipe.network.all_settings())
        for degradation in (recipe.degradation, recipe.validation.degradation or recipe.degradation):
            assert load_recipe(degradation).name == degradation


def test_a_card_names_every_data_set_and_no_folder() -> None:
    assert data_names(["a/T91,b/BSDS200_train", "@lists/faces.txt", "@men.txt", "gs://c/{1,2}.tar"]) == [
        "T91", "BSDS200_train", "faces.txt", "men.txt", "{1,2}.tar",
    ]  # fmt: skip


def test_mistakes_in_a_recipe_are_told_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "kind: training\nname: a\npurpose: denoise\nnetwork: {name: model3, chanels: 1}\ndegradation: dncnn-25\n"
        "patch_size: 0\nbatch_size: 8\nsteps: 10\nlearning_rate: {peak: 1e-3}\nvalidation: {protocol: 'psnr[gray,u8]'}\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        load_training_recipe(str(file))
    assert f"{file}:4: network.chanels" in str(caught.value) or f"{file}:4: network: unknown key" in str(caught.value)
    assert f"{file}:6: patch_size" in str(caught.value)


def test_a_degradation_recipe_is_no_training_recipe() -> None:
    with pytest.raises(ConfigurationError, match="kind: training"):
        load_training_recipe("dncnn-25")


def test_the_cosine_falls_to_zero_after_a_linear_warm_up() -> None:
    rate = LearningRate(0.1, warmup_steps=9)
    assert rate(0, 1000) == pytest.approx(0.01)
    assert rate(500, 1000) == pytest.approx(0.05)
    assert rate(1000, 1000) == pytest.approx(0, abs=1e-12)


def test_the_stepped_rate_drops_at_its_fractions() -> None:
    rate = LearningRate(1.0, schedule="steps", at=(0.5, 0.75), factor=0.1)
    assert [rate(step, 100) for step in (0, 49, 50, 74, 75, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_training_leaves_the_global_generator_alone(tmp_path: Path, clean: Path) -> None:
    before = torch.random.get_rng_state()
    train(RECIPE, options(tmp_path / "run", clean, stop_after=2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_seed_decides_the_first_weights(tmp_path: Path, clean: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(replace(RECIPE, seed=seed), options(tmp_path / name, clean, stop_after=1))
    assert identical(tmp_path / "a", tmp_path / "b")
    assert not identical(tmp_path / "a", tmp_path / "c")


def test_a_run_begins_with_the_weights_of_another(tmp_path: Path, clean: Path) -> None:
    first = train(RECIPE, options(tmp_path / "first", clean))
    still = replace(RECIPE, steps=1, learning_rate=LearningRate(1e-12))
    second = train(still, options(tmp_path / "second", clean, initial_weights=str(first)))
    learnt, kept = tensors(first), tensors(second)
    for name in (name for name in learnt if name.startswith("network.") and name.endswith("weight")):
        assert torch.allclose(learnt[name], kept[name], atol=1e-9)
    facts = load_progress(second).facts["initial_weights"]
    assert facts["fresh"] == []
    assert (
        load_progress(second).fingerprint != load_progress(train(still, options(tmp_path / "third", clean))).fingerprint
    )


def test_weights_of_other_layers_are_refused(tmp_path: Path, clean: Path) -> None:
    first = train(replace(RECIPE, steps=1), options(tmp_path / "first", clean))
    wider = replace(RECIPE, network=NetworkChoice("dncnn", 1, {"layers": 3}))
    with pytest.raises(ConfigurationError, match="do not fit this network"):
        train(wider, options(tmp_path / "second", clean, initial_weights=str(first)))


def moved_by_a_step(folder: Path, clean: Path, monkeypatch: pytest.MonkeyPatch, **bound: float) -> torch.Tensor:
    """By how much one step of plain descent, in Adam's place, moves every weight at a rate of 10."""
    monkeypatch.setattr(torch.optim, "Adam", lambda parameters, rate, fused: torch.optim.SGD(parameters, rate))
    start = replace(RECIPE, steps=1, learning_rate=LearningRate(1e-12))
    steep = replace(start, learning_rate=LearningRate(10.0), **bound)
    before, after = (
        tensors(train(recipe, options(folder / f"{name} {bound}", clean)))
        for name, recipe in (("before", start), ("after", steep))
    )
    weights = [name for name in before if name.startswith("network.") and name.endswith((".weight", ".bias"))]
    return torch.cat([(after[name] - before[name]).double().flatten() for name in weights])


def test_clipping_bounds_what_a_step_does_to_each_weight(
    tmp_path: Path, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No weight moves by more than the bound, at any learning rate."""
    assert moved_by_a_step(tmp_path, clean, monkeypatch).abs().max() > 1e-3
    assert moved_by_a_step(tmp_path, clean, monkeypatch, gradient_clip=1e-4).abs().max() <= 1e-4 * (1 + 1e-3)


def test_a_gradient_of_bounded_length_moves_the_weights_no_further(
    tmp_path: Path, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All weights together move by the bound times the learning rate, and not by less."""
    assert moved_by_a_step(tmp_path, clean, monkeypatch).norm() > 5e-3
    moved = moved_by_a_step(tmp_path, clean, monkeypatch, gradient_norm=1e-4)
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-2)
