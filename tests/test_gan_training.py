"""Adversarial training: the step is the papers', a run is a function of recipe and pictures, what is exported computes the same."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy import stats
from torch import nn

from export.card import read_card
from export.gan_quality import (
    draw,
    laplacian_pyramid,
    measure_generator,
    measure_into_card,
    patches,
    sliced_wasserstein,
)
from models.checkpoint import FILE_NAME, load_network, load_progress
from models.gan_pictures import PictureBatches, as_planes, as_squares, grid, hold_out, latent_vectors, middle
from models.gan_recipe import GanNetworks, GanRecipe, discriminator_path, is_gan_recipe, load_gan_recipe
from models.gan_training import Adversaries, train_gan
from models.generative import load_generative_prior
from models.networks.dcgan import Discriminator, Generator
from models.recipes import load_recipe, shipped_recipes
from models.training import TrainingOptions
from models.training_data import TrainingPicture, load_pictures
from models.training_log import read_log
from models.training_recipe import load_training_recipe
from models.zoo import MODELS, zoo_path
from pipelines.learning import run_export, run_train
from pipelines.options import ExportOptions, TrainOptions
from transforms.errors import ConfigurationError
from transforms.onnx_contract import read_contract
from transforms.onnx_session import OnnxSession, SessionSettings, read_model

RECIPE = GanRecipe(
    name="tiny-faces",
    purpose="draw faces",
    network=GanNetworks(features=2, latent=5),
    crop=54,
    steps=6,
    batch_size=4,
    held_out=3,
    average=0.9,
    seed=4,
    sheet_every=3,
)


def face(number: int) -> np.ndarray:
    """89 x 109, as the data set's: a bright disc somewhere."""
    random = np.random.Generator(np.random.Philox(key=number))
    down, across = np.mgrid[:109, :89]
    inside = (across - random.uniform(35, 54)) ** 2 + (down - random.uniform(45, 64)) ** 2 < random.uniform(200, 600)
    return np.where(inside[..., None], random.integers(120, 255, 3), random.integers(0, 100, 3)).astype(np.uint8)


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    for number in range(13):
        Image.fromarray(face(number)).save(folder / f"f{number:02d}.png")
    return folder


def options(output: Path, faces: Path, **more: object) -> TrainingOptions:
    return TrainingOptions(str(output), (str(faces),), **{"device": "cpu", "threads": 1, **more})


def identical(one: Path, other: Path) -> bool:
    first, second = load_file(one / FILE_NAME), load_file(other / FILE_NAME)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# Networks


@pytest.mark.parametrize(
    ("features", "generator", "discriminator"), [(64, 5_126_723, 4_315_649), (32, 1_488_163, 1_082_625)]
)
def test_the_networks_have_the_papers_layout(features: int, generator: int, discriminator: int) -> None:
    n = features
    layers = [
        100 * 8 * n * 16 + 16 * n,
        25 * 32 * n * n + 8 * n,
        25 * 8 * n * n + 4 * n,
        25 * 2 * n * n + 2 * n,
        75 * n + 3,
    ]
    assert sum(each.numel() for each in Generator(features).parameters()) == sum(layers) == generator
    layers = [75 * n + n, 25 * 2 * n * n + 4 * n, 25 * 8 * n * n + 8 * n, 25 * 32 * n * n + 16 * n, 8 * n * 16 + 1]
    assert sum(each.numel() for each in Discriminator(features).parameters()) == sum(layers) == discriminator


def test_sides_double_and_halve_from_layer_to_layer() -> None:
    generator, sides = Generator(2, 5).eval(), []
    for layer in generator.body:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda module, given, made: sides.append(tuple(made.shape[1:])))
    pictures = generator(torch.rand(3, 5) * 2 - 1)
    assert sides == [(16, 4, 4), (8, 8, 8), (4, 16, 16), (2, 32, 32), (3, 64, 64)]
    assert pictures.abs().max() <= 1
    assert Discriminator(2).eval()(pictures).shape == (3,)


def test_a_generators_layer_is_the_adjoint_of_a_discriminators() -> None:
    """<A x, y> = <x, A^T y> with the same weights: no pixel is shifted on the way up against the way down."""
    reduce = next(layer for layer in Discriminator(2).body if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2))
    enlarge = copy.deepcopy(
        next(
            layer for layer in Generator(2, 5).body if isinstance(layer, nn.ConvTranspose2d) and layer.out_channels == 3
        )
    )
    with torch.no_grad():
        enlarge.weight.copy_(reduce.weight)
    large, small = torch.randn(1, 3, 64, 64, dtype=torch.float64), torch.randn(1, 2, 32, 32, dtype=torch.float64)
    one = (nn.functional.conv2d(large, reduce.weight.double(), None, reduce.stride, reduce.padding) * small).sum()
    up = nn.functional.conv_transpose2d(
        small, enlarge.weight.double(), None, enlarge.stride, enlarge.padding, enlarge.output_padding
    )
    assert one.item() == pytest.approx((large * up).sum().item(), rel=1e-12)


def test_weights_start_as_the_paper_says() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for network in (Generator(16), Discriminator(16)):
            weights = torch.cat(
                [m.weight.flatten() for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
            )
            gains = torch.cat([m.weight for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
            assert weights.std().item() == pytest.approx(0.02, rel=0.02)
            assert gains.mean().item() == pytest.approx(1, abs=0.01)
            assert gains.std().item() == pytest.approx(0.02, rel=0.3)
            assert all(slope.negative_slope == 0.2 for slope in network.modules() if isinstance(slope, nn.LeakyReLU))


def test_a_network_without_features_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 1 feature, not 0"):
        Generator(0)


# Pictures


def test_the_middle_is_cut_at_half_a_pixel() -> None:
    """89 x 109 pixels and a crop of 54: both margins are odd, and what is symmetric stays so."""
    picture = face(3)
    symmetric = np.maximum(picture, picture[:, ::-1])
    symmetric = np.maximum(symmetric, symmetric[::-1])
    cut = middle(TrainingPicture("a", symmetric), 54, 64)
    assert cut.shape == (64, 64, 3)
    assert np.array_equal(cut, cut[:, ::-1])
    assert np.array_equal(cut, cut[::-1])


def test_the_middle_at_full_size_is_a_plain_cut() -> None:
    picture = face(5)
    assert np.array_equal(middle(TrainingPicture("a", picture), 65, 65), picture[22:87, 12:77])
    with pytest.raises(ConfigurationError, match="'a' has 109 x 89 pixels, less than the crop of 90"):
        middle(TrainingPicture("a", picture), 90, 64)


def test_an_epoch_has_every_picture_once_and_a_batch_follows_from_its_step() -> None:
    pictures = [TrainingPicture(f"k{number}", np.full((54, 54, 3), number * 5, np.uint8)) for number in range(14)]

    def batches() -> PictureBatches:
        return PictureBatches(pictures, batch_size=4, crop=54, side=8, flip=False, seed=1)

    drawn = batches()
    epochs = [
        [int(value) for step in range(first, first + 3) for value in as_squares(drawn(step))[:, 0, 0, 0]]
        for first in (0, 3)
    ]
    assert all(len(set(epoch)) == 12 for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert np.array_equal(batches()(4), drawn(4))
    with pytest.raises(ConfigurationError, match="14 pictures do not fill a batch of 20"):
        PictureBatches(pictures, batch_size=20, crop=54, side=8, flip=False, seed=1)


def test_half_of_the_pictures_are_mirrored() -> None:
    ramp = np.repeat(np.arange(54, dtype=np.uint8)[None, :, None], 54, 0).repeat(3, 2)
    pictures = [TrainingPicture(f"k{number}", ramp) for number in range(50)]
    batches = PictureBatches(pictures, batch_size=50, crop=54, side=54, flip=True, seed=1)
    rising = np.mean([(batch[:, 0, 0, -1] > batch[:, 0, 0, 0]).mean() for batch in map(batches, range(20))])
    assert rising == pytest.approx(0.5, abs=0.06)
    batch = batches(0)
    assert batch.dtype == np.float32
    assert batch.min() == -1
    assert batch.max() == pytest.approx(53 / 127.5 - 1)


def test_as_many_pictures_as_named_are_held_out_whatever_their_order() -> None:
    pictures = [TrainingPicture(f"k{number}", np.zeros((2, 2, 3), np.uint8)) for number in range(40)]
    training, held_out = hold_out(pictures, 7)
    assert len(held_out) == 7
    assert {each.key for each in training} | {each.key for each in held_out} == {each.key for each in pictures}
    assert len(training) == 33
    assert hold_out(pictures[::-1], 7)[1] == held_out


def test_planes_and_squares_are_each_others_inverse() -> None:
    squares = np.random.Generator(np.random.Philox(key=1)).integers(0, 256, (2, 4, 5, 3), np.uint8)
    assert np.array_equal(as_squares(as_planes(squares)), squares)
    sheet = np.asarray(grid(np.stack([squares[0], squares[1], squares[1], squares[0]]), 2))
    assert np.array_equal(sheet[4:, :5], squares[1])
    assert np.array_equal(sheet[:4, 5:], squares[1])


# The loop


def test_the_loop_does_what_two_optimisers_and_torchs_cross_entropy_do(tmp_path: Path, faces: Path) -> None:
    """The same two steps, written as the papers have them: labels, one optimiser for each network, D first."""
    train_gan(RECIPE, options(tmp_path / "run", faces, stop_after=2))
    with torch.random.fork_rng():
        torch.manual_seed(RECIPE.seed)
        generator, discriminator = Generator(2, 5), Discriminator(2)
    for network in (generator, discriminator):
        network.to(memory_format=torch.channels_last)  # sums in the same order
    training, _ = hold_out(load_pictures([str(faces)], 3), 3)
    batches = PictureBatches(training, batch_size=4, crop=54, side=64, flip=True, seed=4)
    adam = [torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999)) for network in (generator, discriminator)]
    entropy, photograph, drawn = nn.BCEWithLogitsLoss(), torch.ones(4), torch.zeros(4)
    mean = copy.deepcopy(generator).state_dict()
    for step, memory in enumerate((0.1, 2 / 11)):
        pictures = generator(torch.from_numpy(latent_vectors(4, "training", step, 4, 5)))
        discriminator.zero_grad()
        loss = entropy(discriminator(torch.from_numpy(batches(step))), photograph)
        (loss + entropy(discriminator(pictures.detach()), drawn)).backward()
        adam[1].step()
        generator.zero_grad()
        entropy(discriminator(pictures), photograph).backward()
        adam[0].step()
        mean = {name: memory * mean[name] + (1 - memory) * tensor for name, tensor in generator.state_dict().items()}
    found = load_file(tmp_path / "run" / FILE_NAME)
    for part, state in (
        ("generator", generator.state_dict()),
        ("discriminator", discriminator.state_dict()),
        ("average", mean),
    ):
        for name, tensor in state.items():
            if tensor.is_floating_point() and "num_batches" not in name:
                torch.testing.assert_close(
                    found[f"network.{part}.{name}"], tensor, atol=2e-6, rtol=1e-4, msg=f"{part}.{name}"
                )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop", [1, 4])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, faces: Path, precision: str, stop: int) -> None:
    recipe = replace(RECIPE, precision=precision)
    train_gan(recipe, options(tmp_path / "whole", faces))
    train_gan(recipe, options(tmp_path / "parts", faces, stop_after=stop))
    assert load_progress(tmp_path / "parts").step == stop
    assert not identical(tmp_path / "whole", tmp_path / "parts")
    train_gan(recipe, options(tmp_path / "parts", faces, resume=True))
    assert identical(tmp_path / "whole", tmp_path / "parts")
    sheets = [(tmp_path / run / "sheets" / "000006.png").read_bytes() for run in ("whole", "parts")]
    assert sheets[0] == sheets[1]


def test_without_an_average_the_model_is_the_last_generator(tmp_path: Path, faces: Path) -> None:
    train_gan(replace(RECIPE, average=0.0), options(tmp_path / "run", faces, stop_after=2))
    found = load_file(tmp_path / "run" / FILE_NAME)
    names = [name.removeprefix("network.average.") for name in found if name.startswith("network.average.")]
    assert names
    assert all(torch.equal(found[f"network.average.{name}"], found[f"network.generator.{name}"]) for name in names)


def test_the_run_leaves_a_log_and_sheets_of_the_same_vectors(tmp_path: Path, faces: Path) -> None:
    folder = train_gan(RECIPE, options(tmp_path / "run", faces))
    (line,) = read_log(folder)
    assert line["step"] == 6
    assert line["loss_discriminator"] > 0
    assert line["loss_generator"] > 0
    assert 0 <= line["accuracy_photographs"] <= 1
    assert 0 <= line["accuracy_generated"] <= 1
    assert sorted(path.name for path in (folder / "sheets").iterdir()) == ["000003.png", "000006.png"]
    networks = Adversaries(RECIPE).eval()
    load_network(folder, networks)
    with torch.inference_mode(), Image.open(folder / "sheets" / "000006.png") as sheet:
        made = networks.average(torch.from_numpy(latent_vectors(4, "sheet", 0, 64, 5))).numpy()
        difference = np.asarray(sheet, np.float32)[:64, 64:128] - as_squares(made)[1]
    assert np.abs(difference).max() <= 1  # batches of other sizes may round the other way


def test_a_discriminator_learns_to_tell_faces_from_what_is_drawn(tmp_path: Path, faces: Path) -> None:
    recipe = replace(RECIPE, network=GanNetworks(4, 5), steps=60, learning_rate=2e-3)
    lines = read_log(train_gan(recipe, options(tmp_path / "run", faces)))
    assert lines[-1]["loss_discriminator"] < 2 * np.log(2) - 0.5  # of a coin
    assert lines[-1]["accuracy_photographs"] > 0.8
    assert lines[-1]["accuracy_generated"] > 0.8


def test_a_diverged_run_stops_instead_of_saving_nonsense(tmp_path: Path, faces: Path) -> None:
    with pytest.raises(ConfigurationError, match="training diverged; lower learning_rate"):
        train_gan(replace(RECIPE, learning_rate=1e30), options(tmp_path / "run", faces))
    assert not (tmp_path / "run" / FILE_NAME).exists()


def test_a_generator_that_draws_one_picture_is_told(
    tmp_path: Path, faces: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Small first weights make all pictures alike."""
    with caplog.at_level(logging.WARNING):
        train_gan(replace(RECIPE, sheet_every=1), options(tmp_path / "run", faces, stop_after=1))
    assert "at step 1 the generator draws nearly one picture" in caplog.text


def test_a_run_is_continued_only_with_the_same_recipe_and_pictures(tmp_path: Path, faces: Path) -> None:
    train_gan(RECIPE, options(tmp_path / "run", faces, stop_after=1))
    with pytest.raises(ConfigurationError, match="already holds a run; pass --resume"):
        train_gan(RECIPE, options(tmp_path / "run", faces))
    with pytest.raises(ConfigurationError, match="recipe or its pictures are others"):
        train_gan(replace(RECIPE, held_out=2), options(tmp_path / "run", faces, resume=True))
    with pytest.raises(ConfigurationError, match="recipe or its pictures are others"):
        train_gan(RECIPE, replace(options(tmp_path / "run", faces, resume=True), data=(str(faces / "f0*.png"),)))
    train_gan(replace(RECIPE, sheet_every=2), options(tmp_path / "run", faces, resume=True))  # decides no weight


def test_options_of_the_other_loop_are_refused(tmp_path: Path, faces: Path) -> None:
    with pytest.raises(ConfigurationError, match="takes no --validation"):
        train_gan(RECIPE, options(tmp_path / "run", faces, validation=(str(faces),)))
    with pytest.raises(ConfigurationError, match="leave out --initial_weights"):
        train_gan(RECIPE, options(tmp_path / "run", faces, initial_weights="runs/other"))


def test_training_leaves_the_global_generator_alone(tmp_path: Path, faces: Path) -> None:
    before = torch.random.get_rng_state()
    train_gan(RECIPE, options(tmp_path / "run", faces, stop_after=2))
    assert torch.equal(before, torch.random.get_rng_state())


# Recipes


def test_the_shipped_recipe_is_valid_and_only_its_own_loop_reads_it() -> None:
    assert shipped_recipes("gan-training") == ["train-dcgan-faces"]
    recipe = load_gan_recipe("train-dcgan-faces")
    assert recipe.name == "dcgan-faces"
    assert "--recipe train-dcgan-faces " in recipe.command
    assert (recipe.batch_size, recipe.learning_rate, recipe.beta1, recipe.network.latent) == (64, 2e-4, 0.5, 100)
    assert is_gan_recipe("train-dcgan-faces")
    assert not is_gan_recipe("train-vdsr")
    with pytest.raises(ConfigurationError, match="a recipe of kind training, where kind: gan-training"):
        load_gan_recipe("train-vdsr")
    with pytest.raises(ConfigurationError, match="kind"):
        load_training_recipe("train-dcgan-faces")
    with pytest.raises(ConfigurationError, match="where one for degradation is expected"):
        load_recipe("train-dcgan-faces")


def test_mistakes_in_a_recipe_are_told_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "kind: gan-training\nname: a\npurpose: b\nnetwork: {features: 0}\ncrop: 54\nsteps: 9\nbeta1: 1.5\nbetta: 1\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        load_gan_recipe(str(file))
    assert f"{file}:4: network.features" in str(caught.value)
    assert f"{file}:7: beta1" in str(caught.value)
    assert f"{file}:8: " in str(caught.value)


# Export


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> Path:
    """A tiny run, trained and exported by the commands; the file of its generator."""
    folder = tmp_path_factory.mktemp("exported")
    recipe = (
        "kind: gan-training\nname: tiny-faces\npurpose: draw faces\nnetwork: {features: 2, latent: 5}\ncrop: 54\nsteps: 20\n"
        "batch_size: 4\nheld_out: 3\naverage: 0.5\nlearning_rate: 0.01\n"
    )
    (folder / "tiny.yaml").write_text(recipe)
    run_train(
        TrainOptions(
            recipe=str(folder / "tiny.yaml"), data=str(faces), output=str(folder / "run"), device="cpu", threads=1
        )
    )
    run_export(ExportOptions(checkpoint=str(folder / "run"), output=str(folder / "tiny-faces.onnx")))
    return folder / "tiny-faces.onnx"


def test_flags_of_restoring_networks_are_refused(exported: Path) -> None:
    options = ExportOptions(checkpoint=str(exported.parent / "run"), output=str(exported.with_name("m.onnx")), scale=2)
    with pytest.raises(ConfigurationError, match="adversarial run, for which --scale says nothing"):
        run_export(options)
    assert not exported.with_name("m.onnx").exists()


def test_the_exported_networks_compute_what_was_trained(exported: Path) -> None:
    networks = Adversaries(replace(RECIPE, average=0.5)).eval()
    load_network(exported.parent / "run", networks)
    z = latent_vectors(1, "test", 0, 6, 5)
    with torch.inference_mode():
        pictures = networks.average(torch.from_numpy(z))
        logits = networks.discriminator(pictures)
    (drawn,) = onnxruntime.InferenceSession(exported).run(None, {"z": z})
    (judged,) = onnxruntime.InferenceSession(discriminator_path(str(exported))).run(None, {"picture": pictures.numpy()})
    np.testing.assert_allclose(drawn, pictures.numpy(), atol=1e-5)
    np.testing.assert_allclose(judged, logits.numpy(), atol=1e-4)
    assert drawn.std() > 0.01


def test_the_prior_of_the_files_is_differentiable_and_the_same(exported: Path) -> None:
    prior = load_generative_prior(str(exported))
    z = torch.from_numpy(latent_vectors(1, "test", 0, 3, 5)).requires_grad_()
    pictures = prior.generator(z)
    (drawn,) = onnxruntime.InferenceSession(exported).run(None, {"z": z.detach().numpy()})
    np.testing.assert_allclose(drawn, pictures.detach().numpy(), atol=1e-5)
    (slope,) = torch.autograd.grad(prior.discriminator(pictures).sum(), z)
    step = 1e-3
    probe = torch.zeros_like(z)
    probe[1, 2] = step
    with torch.no_grad():
        ahead, behind = (prior.discriminator(prior.generator(z + sign * probe)).sum() for sign in (1, -1))
    assert slope[1, 2].item() == pytest.approx(((ahead - behind) / (2 * step)).item(), rel=0.05, abs=1e-3)
    assert not any(parameter.requires_grad for parameter in prior.generator.parameters())


def test_the_cards_say_what_goes_in_and_out(exported: Path) -> None:
    card, judge = read_card(str(exported)), read_card(discriminator_path(str(exported)))
    assert (card.name, judge.name) == ("tiny-faces", "tiny-faces-discriminator")
    assert card.card["takes"] == "z, N x 5, uniform in [-1, 1]"
    assert card.card["gives"] == judge.card["takes"] == "picture, N x 3 x 64 x 64 in [-1, 1]"
    assert card.value_range == (-1, 1)
    assert "non-commercial research only" in card.card["licence"]
    assert card.card["training"]["data"] == [card.card["training"]["data"][0]]
    assert str(exported.parent) not in str(card)
    assert card.card["parameters"] == sum(each.numel() for each in Generator(2, 5).parameters())


def test_restoring_with_a_generator_is_refused(exported: Path) -> None:
    for path in (str(exported), discriminator_path(str(exported))):
        with pytest.raises(ConfigurationError, match=r"is not image-to-image.*its purpose is"):
            read_contract(OnnxSession(read_model(path), SessionSettings()), path)


def test_other_models_are_no_generative_prior(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no generator of a generative prior"):
        load_generative_prior("denoise5-gray-25")
    with pytest.raises(ConfigurationError, match="cannot read the generator"):
        load_generative_prior(str(tmp_path / "none.onnx"))


# Measured quality


def test_the_sliced_distance_is_the_mean_of_scipys() -> None:
    random = np.random.Generator(np.random.Philox(key=1))
    one, other = random.normal(0, 1, (200, 6)).astype(np.float32), random.uniform(-1, 3, (200, 6)).astype(np.float32)
    axes = [sliced_wasserstein(one[:, [axis]], other[:, [axis]], directions=8) for axis in range(6)]
    for axis, found in enumerate(axes):  # in one dimension all directions are +-1
        assert found == pytest.approx(stats.wasserstein_distance(one[:, axis], other[:, axis]), rel=1e-5)
    assert sliced_wasserstein(one, one) == 0


def test_the_sliced_distance_of_a_shift_is_known() -> None:
    """Mean |cos| between a fixed and a random direction in three dimensions is 1/2."""
    one = np.random.Generator(np.random.Philox(key=1)).normal(0, 1, (50, 3)).astype(np.float32)
    assert sliced_wasserstein(one, one + np.float32([0, 4, 0]), directions=4096) == pytest.approx(2, rel=0.03)
    with pytest.raises(ConfigurationError, match="sets of one shape"):
        sliced_wasserstein(one, one[:40])


def test_a_pyramid_keeps_constants_in_its_last_level_alone() -> None:
    levels = laplacian_pyramid(np.full((1, 3, 64, 64), 0.25, np.float32))
    assert [level.shape[-1] for level in levels] == [64, 32, 16]
    assert np.abs(levels[0][..., 2:-2, 2:-2]).max() < 1e-6
    assert np.allclose(levels[-1], 0.25, atol=1e-6)


def test_patches_are_normal_in_each_channel() -> None:
    planes = np.random.Generator(np.random.Philox(key=1)).normal(
        [[[3]], [[-2]], [[0]]], [[[1]], [[5]], [[0.1]]], (8, 3, 32, 32)
    )
    found = patches(planes.astype(np.float32), 16, seed=0).reshape(8 * 16, 3, 49)
    np.testing.assert_allclose(found.mean((0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std((0, 2)), 1, atol=1e-4)


def test_photographs_are_nearer_to_photographs_than_noise(exported: Path, faces: Path) -> None:
    quality = measure_generator(str(exported), load_pictures([str(faces)], 3))
    assert quality.held_out == 3
    assert 0 < quality.photographs < quality.noise
    assert quality.photographs < quality.generated
    judge = onnxruntime.InferenceSession(discriminator_path(str(exported)))
    drawn = draw(str(exported), 3, seed=0)
    _, held_out = hold_out(load_pictures([str(faces)], 3), 3)
    unseen = as_planes(np.stack([middle(each, 54, 64) for each in held_out]))
    right = [*(judge.run(None, {"picture": unseen})[0] > 0), *(judge.run(None, {"picture": drawn})[0] < 0)]
    assert quality.told_apart == pytest.approx(np.mean(right))


def test_the_figures_go_into_both_cards(exported: Path, faces: Path, tmp_path: Path) -> None:
    for path in (str(exported), discriminator_path(str(exported))):
        (tmp_path / Path(path).name).write_bytes(Path(path).read_bytes())
    copied = str(tmp_path / exported.name)
    quality = measure_into_card(copied, [str(faces)], "discs")
    (figure,), (judged,) = read_card(copied).card["measured"], read_card(discriminator_path(copied)).card["measured"]
    assert (figure["value"], figure["degraded"]) == (round(quality.generated, 2), round(quality.noise, 2))
    assert (judged["protocol"], judged["value"], judged["degraded"]) == ("accuracy", round(quality.told_apart, 4), 0.5)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("dcgan-faces" not in MODELS, reason="the zoo has no dcgan-faces")
def test_the_shipped_generator_is_as_good_as_its_card_says(data_dir: Path) -> None:
    path = str(zoo_path("dcgan-faces"))
    quality = measure_generator(path, load_pictures([str(data_dir / "CelebA10k")], 3))
    (entry,) = read_card(path).card["measured"]
    assert quality.generated == pytest.approx(entry["value"], abs=0.02)
    assert quality.generated < quality.noise / 2
