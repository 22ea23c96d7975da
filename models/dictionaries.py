"""Learns the two dictionaries of ScSR, without gradients: what `conservator train` does with a recipe of kind dictionaries.

    min_(D, Z)  sum 1/2 |X - D Z|^2 + lambda |Z|_1         X: patches' derivatives and lost detail, each of unit variance

alternately: codes Z by FISTA from the last ones, atoms by least squares (method of optimal directions), atoms that no
patch uses replaced by patches. The derivatives' rows of D, of unit length, are D_l. D_h is the ridge regression of the lost
detail on the codes that the network itself finds from the derivatives alone.

Source: Yang et al., IEEE TIP 2010, section III; Engan, Aase, Husoy, "Method of optimal directions", ICASSP 1999; Zeyde et al.,
2010.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from models.checkpoint import FILE_NAME, Progress, save_checkpoint
from models.dictionary_recipe import KIND, DictionaryRecipe
from models.networks.lista import lipschitz, soft_threshold
from models.networks.scn import PATCH
from models.networks.scsr import ScSR, scsr
from models.recipes import Pair, load_recipe
from models.training import TrainingOptions
from models.training_data import CleanPicture, digest, load_pictures
from models.training_log import LOG_NAME, append_line
from models.training_setup import provenance
from transforms.errors import ConfigurationError
from transforms.planes import to_planes
from transforms.randomness import generator

log = logging.getLogger(__name__)

RIDGE = 1e-3  # share of the mean squared code
CODED_TOGETHER = 2048  # patches: their codes stay in a core's cache from step to step


def learn_dictionaries(recipe: DictionaryRecipe, options: TrainingOptions) -> Path:
    """Learns all rounds and leaves `checkpoint.safetensors` and `log.jsonl` in the output folder.

    Raises:
        ConfigurationError: an option that has no meaning here, an output that holds a run, or too few patches.

    Returns:
        The output folder.
    """
    _refuse(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    started, folder = time.perf_counter(), Path(options.output)
    network = scsr(**recipe.network_settings())
    pictures = load_pictures(options.data, 3)
    directions, norms, details = training_patches(network, pictures, recipe)
    log.info("%d patches of %d pictures", len(directions), len(pictures))
    low, errors = joint_dictionary(directions, details / norms, network.low.shape[1], recipe)
    network.set_low(low)
    with torch.no_grad():
        network.high.copy_(high_dictionary(network, directions, norms, details))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOG_NAME).unlink(missing_ok=True)
    for step, error in enumerate(errors, 1):
        append_line(folder, {"step": step, "elapsed_s": time.perf_counter() - started, "loss": error})
    facts = {**provenance(options.data), "patches": len(directions)}
    elapsed_s, fingerprint = time.perf_counter() - started, _fingerprint(recipe, pictures)
    progress = Progress(recipe.rounds, recipe.to_json(), fingerprint, elapsed_s, facts)
    save_checkpoint(folder, network, torch.optim.SGD(network.parameters()), progress)
    return folder


def _refuse(options: TrainingOptions) -> None:
    """What an iterative training has, and this has not."""
    given = {
        "--resume": options.resume,
        "--validation": options.validation,
        "--initial_weights": options.initial_weights,
        "--steps": options.stop_after,
        "--device": options.device not in ("", "cpu"),
    }
    for flag in (flag for flag, value in given.items() if value):
        raise ConfigurationError(
            f"a recipe of kind {KIND} takes no {flag}: it learns all its rounds in one go, on the CPU, and validates nothing"
        )
    if (Path(options.output) / FILE_NAME).exists():
        raise ConfigurationError(f"{options.output!r} already holds a run; choose another --output")


def _fingerprint(recipe: DictionaryRecipe, pictures: Sequence[CleanPicture]) -> str:
    """Of all that decides the weights."""
    degradation = load_recipe(recipe.degradation).to_json()
    decisive = {"recipe": recipe.deciding(), "degradation": degradation, "pictures": digest(pictures)}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def training_patches(
    network: ScSR, pictures: Sequence[CleanPicture], recipe: DictionaryRecipe
) -> tuple[Tensor, Tensor, Tensor]:
    """At random places: derivatives of unit length, P x 100, their norms, P x 1, and the lost detail in grey levels, P x 25."""
    whole = replace(load_recipe(recipe.degradation), patches=None)
    drawn: list[tuple[Tensor, Tensor, Tensor]] = []
    for picture in pictures:
        pair = whole.pair(picture.clean, key=picture.key, patch=0, seed=recipe.seed)
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
        steep = torch.nonzero(norms > recipe.least_norm).flatten()
        order = generator(recipe.seed, picture.key).permutation(len(steep))[: recipe.patches_per_picture]
        chosen = steep[torch.from_numpy(order)]
        drawn.append((features[0].flatten(1).T[chosen], norms[chosen, None], lost[chosen]))
    if not drawn:
        raise ConfigurationError("no picture is 9 pixels large and fits the recipe; name others with --data")
    directions, lengths, details = (torch.cat(parts).clone() for parts in zip(*drawn, strict=True))
    return directions, lengths, details


def joint_dictionary(
    directions: Tensor, details: Tensor, atoms: int, recipe: DictionaryRecipe
) -> tuple[Tensor, list[float]]:
    """D_l, 100 x atoms of unit length, and the mean cost per patch after each round.

    Raises:
        ConfigurationError: fewer patches than atoms.
    """
    joint = torch.cat([part / part.square().sum(1).mean().sqrt() for part in (directions, details)], dim=1)
    joint = joint / joint.norm(dim=1, keepdim=True)
    if len(joint) < atoms:
        raise ConfigurationError(f"{len(joint)} patches for {atoms} atoms; name more pictures with --data")
    rng = generator(recipe.seed, "dictionary")
    dictionary = _unit(joint[torch.from_numpy(rng.permutation(len(joint))[:atoms])].T.clone())
    codes = torch.zeros(len(joint), atoms)
    errors = []
    for _ in range(recipe.rounds):
        codes = _coded(joint, dictionary, codes, recipe)
        cost = 0.5 * (joint - codes @ dictionary.T).square().sum() + recipe.weight * codes.abs().sum()
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


def _coded(signals: Tensor, dictionary: Tensor, codes: Tensor, recipe: DictionaryRecipe) -> Tensor:
    """A few steps of ISTA from the codes of the last round."""
    bound = lipschitz(dictionary)
    gram, threshold = dictionary.T @ dictionary / bound, recipe.weight / bound
    parts = []
    for start in range(0, len(signals), CODED_TOGETHER):
        some, part = (each[start : start + CODED_TOGETHER] for each in (signals, codes))
        driven = some @ dictionary / bound
        for _ in range(recipe.coding_steps):
            part = soft_threshold(part - part @ gram + driven, threshold)
        parts.append(part)
    return torch.cat(parts)


def _unit(dictionary: Tensor) -> Tensor:
    lengths: Tensor = dictionary.norm(dim=0)
    return dictionary / lengths.clamp_min(1e-6)
