"""Learns the two dictionaries of ScSR, without gradients: `python -m models.dictionaries --recipe train-scsr-x2 ...`

    min_(D, Z)  sum 1/2 |X - D Z|^2 + lambda |Z|_1         X: patches' derivatives and lost detail, each of unit variance

alternately: codes Z by FISTA from the last ones, atoms by least squares (method of optimal directions), atoms that no
patch uses replaced by patches. The derivatives' rows of D, of unit length, are D_l. D_h is the ridge regression of the lost
detail on the codes that the network itself finds from the derivatives alone.

Source: Yang et al., IEEE TIP 2010, section III; Engan, Aase, Husoy, "Method of optimal directions", ICASSP 1999; Zeyde et al.,
2010.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from models.checkpoint import Progress, save_checkpoint
from models.networks import build_network
from models.networks.lista import lipschitz, soft_threshold
from models.networks.scsr import PATCH, ScSR
from models.recipes import Pair, load_recipe
from models.training_data import CleanPicture, digest, load_pictures
from models.training_log import append_line
from models.training_recipe import TrainingRecipe, load_training_recipe
from models.training_setup import provenance
from transforms.errors import ConfigurationError
from transforms.planes import to_planes
from transforms.randomness import generator

PATCHES_PER_PICTURE = 600
LEARNING_WEIGHT = 0.15  # lambda of the paper's training
SMALLEST_NORM = 50.0  # of a patch's 100 derivatives, in grey levels: the detail of flatter ones is rounding
CODING_STEPS = 10  # from the codes of the last round
RIDGE = 1e-3  # share of the mean squared code


def learn(recipe: TrainingRecipe, data: Sequence[str], output: str) -> Path:
    """Learns for `recipe.steps` rounds and leaves a checkpoint that `conservator export` takes.

    Raises:
        ConfigurationError: another network than scsr, or no patch that is not flat.
    """
    network = build_network(recipe.network.name, recipe.network.all_settings())
    if not isinstance(network, ScSR):
        raise ConfigurationError(f"dictionaries are learned for scsr, not for {recipe.network.name!r}")
    started, folder = time.perf_counter(), Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = load_pictures(data, 3)
    directions, norms, details = training_patches(network, pictures, recipe.degradation, recipe.seed)
    low, errors = joint_dictionary(directions, details / norms, network.low.shape[1], recipe.steps, recipe.seed)
    network.set_low(low)
    with torch.no_grad():
        network.high.copy_(high_dictionary(network, directions, norms, details))
    for step, error in enumerate(errors, 1):
        append_line(folder, {"step": step, "elapsed_s": time.perf_counter() - started, "loss": error})
    facts = {**provenance(data), "patches": len(directions)}
    progress = Progress(recipe.steps, recipe.to_json(), digest(pictures), time.perf_counter() - started, facts)
    save_checkpoint(folder, network, torch.optim.SGD(network.parameters()), progress)
    return folder


def training_patches(
    network: ScSR, pictures: Sequence[CleanPicture], degradation: str, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """At random places: derivatives of unit length, P x 100, their norms, P x 1, and the lost detail in grey levels, P x 25."""
    whole = replace(load_recipe(degradation), patches=None)
    drawn: list[tuple[Tensor, Tensor, Tensor]] = []
    for picture in pictures:
        pair = whole.pair(picture.clean, key=picture.key, patch=0, seed=seed)
        if not isinstance(pair, Pair) or min(pair.clean.shape[:2]) < 9:
            continue
        enlarged, clean = (
            torch.from_numpy(to_planes(each).copy()).float()[None] for each in (pair.degraded, pair.clean)
        )
        with torch.inference_mode():
            features, norms = network.features(enlarged)
            # The 9 x 9 filters leave out 4 pixels, the patches 2.
            lost = functional.unfold((clean - enlarged)[..., 2:-2, 2:-2], PATCH)[0].T * 255
        norms = norms.flatten()
        steep = torch.nonzero(norms > SMALLEST_NORM).flatten()
        order = generator(seed, picture.key).permutation(len(steep))[:PATCHES_PER_PICTURE]
        chosen = steep[torch.from_numpy(order)]
        drawn.append((features[0].flatten(1).T[chosen], norms[chosen, None], lost[chosen]))
    if not drawn:
        raise ConfigurationError("no picture is 9 pixels large and fits the recipe; name others with --data")
    directions, lengths, details = (torch.cat(parts).clone() for parts in zip(*drawn, strict=True))
    return directions, lengths, details


def joint_dictionary(
    directions: Tensor, details: Tensor, atoms: int, rounds: int, seed: int
) -> tuple[Tensor, list[float]]:
    """D_l, 100 x atoms of unit length, and the mean cost per patch after each round.

    Raises:
        ConfigurationError: fewer patches than atoms.
    """
    joint = torch.cat([part / part.square().sum(1).mean().sqrt() for part in (directions, details)], dim=1)
    joint = joint / joint.norm(dim=1, keepdim=True)
    if len(joint) < atoms:
        raise ConfigurationError(f"{len(joint)} patches for {atoms} atoms; name more pictures with --data")
    rng = generator(seed, "dictionary")
    dictionary = _unit(joint[torch.from_numpy(rng.permutation(len(joint))[:atoms])].T.clone())
    codes = torch.zeros(len(joint), atoms)
    errors = []
    for _ in range(rounds):
        codes = _coded(joint, dictionary, codes)
        cost = 0.5 * (joint - codes @ dictionary.T).square().sum() + LEARNING_WEIGHT * codes.abs().sum()
        errors.append(float(cost / len(joint)))
        dictionary = least_squares(joint, codes)
        unused = torch.nonzero(codes.abs().sum(0) < 1e-3 * codes.abs().sum() / atoms).flatten()
        fresh = torch.from_numpy(rng.permutation(len(joint))[: len(unused)])
        dictionary[:, unused] = joint[fresh].T
        lengths = dictionary.norm(dim=0)
        dictionary, codes = dictionary / lengths, codes * lengths
    return _unit(dictionary[: directions.shape[1]]), errors


def high_dictionary(network: ScSR, directions: Tensor, norms: Tensor, details: Tensor) -> Tensor:
    """D_h, 25 x atoms, for the codes of the network: what loses least in grey levels."""
    with torch.inference_mode():
        codes = network.codes(directions.T[None, :, :, None])[0, :, :, 0].T
    return least_squares(details, codes * norms)


def least_squares(signals: Tensor, codes: Tensor) -> Tensor:
    """argmin_D |X - Z D'|^2 + ridge |D|^2 for P x M signals and P x K codes: M x K."""
    gram = codes.T @ codes
    ridge = RIDGE * float(gram.diagonal().mean())
    solved: Tensor = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype), codes.T @ signals)
    return solved.T.contiguous()


def _coded(signals: Tensor, dictionary: Tensor, codes: Tensor) -> Tensor:
    """A few steps of ISTA from the codes of the last round."""
    bound = lipschitz(dictionary)
    gram, driven = dictionary.T @ dictionary / bound, signals @ dictionary / bound
    for _ in range(CODING_STEPS):
        codes = soft_threshold(codes - codes @ gram + driven, LEARNING_WEIGHT / bound)
    return codes


def _unit(dictionary: Tensor) -> Tensor:
    lengths: Tensor = dictionary.norm(dim=0)
    return dictionary / lengths.clamp_min(1e-6)


def main() -> None:
    """Learns the dictionaries of a recipe."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--data", required=True, nargs="+")
    parser.add_argument("--output", required=True)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    sys.stdout.write(f"in {learn(load_training_recipe(given.recipe), given.data, given.output)}\n")


if __name__ == "__main__":
    main()
