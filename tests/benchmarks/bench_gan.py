"""The generative prior: how far a search for z explains a face with a hole, and what a step of training costs.

    python tests/benchmarks/bench_gan.py models/zoo/dcgan-faces.onnx ../shared/data/CelebA10k [--faces 32] [--steps 300]

For held-out faces x and a hole of 32 x 32 pixels in the middle (mask m = 0 there), Adam moves z from a random start,

    min_z  sum m |G(z) - x|^p / sum m,   z clipped to [-1, 1] after each step,

as in Yeh et al., "Image restoration with deep generative models", ICASSP 2018 (no prior term, no blending). The paper leaves p
open and its code takes p = 1; both are shown. The bar: the squared loss falls by at least 60 % in 300 steps, mean over the
faces. Beside it two references that need no generator, the best constant colour of each face and the mean face of the
training set; and the hole itself, which the search has not seen.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from measurement import table, verdict

from export.card import read_card
from models.gan_pictures import as_planes, hold_out, latent_vectors, middle
from models.gan_recipe import load_gan_recipe
from models.generative import load_generative_prior
from models.networks.dcgan import Discriminator, Generator
from models.training_data import load_pictures

HOLE = slice(16, 48)
LEAST_FALL_PERCENT = 60.0


def hole_mask(side: int = 64) -> torch.Tensor:
    """1 x 1 x side x side: 0 in the hole, 1 elsewhere."""
    mask = torch.ones(1, 1, side, side)
    mask[..., HOLE, HOLE] = 0
    return mask


def losses(pictures: torch.Tensor, faces: torch.Tensor, weights: torch.Tensor, power: int) -> torch.Tensor:
    """Mean over the weighted pixels of |difference|^p, one per face."""
    difference = (pictures - faces).abs() ** power * weights
    return difference.sum((1, 2, 3)) / (weights.sum() * faces.shape[1])


def search(
    generator: Generator, faces: torch.Tensor, mask: torch.Tensor, power: int, steps: int, rate: float
) -> torch.Tensor:
    """z after `steps` of Adam."""
    z = torch.from_numpy(latent_vectors(0, "search", 0, len(faces), generator.latent)).requires_grad_()
    optimiser = torch.optim.Adam([z], rate)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.autograd.backward(losses(generator(z), faces, mask, power).sum())
        optimiser.step()
        with torch.no_grad():
            z.clamp_(-1, 1)
    return z.detach()


def measure_fit(model: str, faces: torch.Tensor, mean_face: torch.Tensor, steps: int, rate: float) -> bool:
    """Prints the losses before and after, for p = 1 and p = 2."""
    generator, mask = load_generative_prior(model).generator, hole_mask()
    start = torch.from_numpy(latent_vectors(0, "search", 0, len(faces), generator.latent))
    rows, met = [], True
    for power in (1, 2):
        began = time.process_time()
        z = search(generator, faces, mask, power, steps, rate)
        seconds = time.process_time() - began
        with torch.inference_mode():
            before, after = generator(start), generator(z)
        constant = (faces * mask).sum((2, 3), keepdim=True) / mask.sum() * torch.ones_like(faces)
        known = [
            losses(each, faces, mask, power).mean().item()
            for each in (before, after, constant, mean_face.expand_as(faces))
        ]
        hole = [
            losses(each, faces, 1 - mask, power).mean().item()
            for each in (before, after, constant, mean_face.expand_as(faces))
        ]
        rows += [
            (
                f"p = {power}, known pixels",
                *(f"{each:.4f}" for each in known),
                f"{100 * (1 - known[1] / known[0]):.1f} %",
            )
        ]
        rows += [
            (f"p = {power}, the hole", *(f"{each:.4f}" for each in hole), f"{100 * (1 - hole[1] / hole[0]):.1f} %")
        ]
        print(f"p = {power}: {1000 * seconds / steps / len(faces):.2f} ms CPU per step and face")
        if power == 2:
            met = verdict(
                "fall of the squared data loss, %", 100 * (1 - known[1] / known[0]), LEAST_FALL_PERCENT, at_most=False
            )
    table(("mean loss", "random z", f"{steps} steps", "one colour", "mean face", "fall"), rows)
    return met


def judge(model: str, faces: torch.Tensor) -> None:
    """What the discriminator says of held-out faces and of generated ones."""
    prior = load_generative_prior(model)
    z = torch.from_numpy(latent_vectors(0, "judged", 0, len(faces), prior.generator.latent))
    with torch.inference_mode():
        real, drawn = prior.discriminator(faces), prior.discriminator(prior.generator(z))
    right = (real > 0).float().mean().item(), (drawn < 0).float().mean().item()
    print(
        f"discriminator: right about {100 * right[0]:.0f} % of held-out faces and {100 * right[1]:.0f} % of generated ones\n"
    )


def measure_step(recipe_name: str, repeats: int = 3) -> None:
    """CPU seconds of the arithmetic of one step: both networks forward and backward as in the training loop."""
    recipe = load_gan_recipe(recipe_name)
    networks = Generator(recipe.network.features), Discriminator(recipe.network.features)
    generator, discriminator = (network.to(memory_format=torch.channels_last) for network in networks)  # type: ignore[call-overload]
    faces = torch.randn(recipe.batch_size, 3, 64, 64).to(memory_format=torch.channels_last)
    z = torch.from_numpy(latent_vectors(0, "timed", 0, recipe.batch_size, recipe.network.latent))
    rows = []
    for enabled in (False, True):
        seconds = []
        for _ in range(repeats + 1):
            began = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                pictures = generator(z)
                told = discriminator(faces).float().mean() - discriminator(pictures.detach()).float().mean()
            torch.autograd.backward(told, inputs=list(discriminator.parameters()))
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                judged = discriminator(pictures).float().mean()
            torch.autograd.backward(judged, inputs=list(generator.parameters()))
            seconds.append(time.process_time() - began)
        rows.append(("bfloat16" if enabled else "float32", f"{min(seconds[1:]):.3f} s"))
    table((f"a step of {recipe.batch_size}, {recipe.network.features} features", "one core"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the generator's .onnx file; the discriminator's is beside it")
    parser.add_argument("data", help="folder of the faces")
    parser.add_argument("--faces", type=int, default=32)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.05)
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipe = read_card(given.model).card["training"]["recipe"]
    training, held_out = hold_out(load_pictures([given.data], 3), recipe["held_out"])
    known, unseen = (
        torch.from_numpy(as_planes(np.stack([middle(each, recipe["crop"], 64) for each in part])))
        for part in (training, held_out)
    )
    judge(given.model, unseen)
    met = measure_fit(given.model, unseen[: given.faces], known.mean(0, keepdim=True), given.steps, given.rate)
    measure_step("train-dcgan-faces")
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()
