"""Training: a network learns  min_f  mean |f(y) - x|^2, or another objective, over pairs (x, y) from a recipe.

A run is a function of its recipe and its pictures: patches are drawn by number, the learning rate follows from the step,
and nothing else is random. So a run that was interrupted at any step and resumed ends with the same bits as an undisturbed
one (on one kind of CPU and with the same number of threads; a GPU adds up in another order each time).

Source: Zhang et al., "Beyond a Gaussian denoiser", TIP 2017, equation 1; the error of the restored picture is that of the
noise.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from models.checkpoint import (
    FILE_NAME,
    Progress,
    load_network,
    load_optimiser,
    save_checkpoint,
)
from models.datasets import FreshBatches, FreshPairs, LoadedBatches, PairShards, holds_pairs, read_ahead
from models.initial_weights import begin_with, digest_of
from models.networks import build_network
from models.networks.network import RestorationNetwork
from models.objectives import Objective, objective_named
from models.recipes import Recipe, load_recipe
from models.training_data import CleanPicture, digest, first_by_hash, load_pictures, split_held_out
from models.training_log import LOG_NAME, append_line, draw_curve, forget_after
from models.training_recipe import TrainingRecipe
from models.training_setup import choose_device, provenance, resumable, warn_of_slow_precision
from models.validation import ValidationPair, stored_validation_pairs
from transforms.errors import ConfigurationError

log = logging.getLogger(__name__)

LOG_EVERY = 100  # steps
CHECKPOINT_EVERY_S = 60.0
_FIRST_PATCHES = 64


@dataclass(frozen=True)
class TrainingOptions:
    """Where a run happens; none of it enters the fingerprint.

    Attributes:
        output: folder for checkpoint, log and curve.
        data: URLs and patterns of clean pictures, or of pairs.
        validation: URLs and patterns of the validation set; empty: a share of the data is held out.
        resume: continue from the checkpoint in `output`.
        device: `cpu`, `cuda`, ...; empty: a GPU if there is one.
        loaders: processes that read or make pairs beside the training; 0 does it in between.
        synthesis: where fresh pairs are made: `loaders`, or `device`, in batches, by a thread of the training's own process;
            empty: on a GPU if the training runs on one. The device's arithmetic rounds in its own way.
        threads: of torch on the CPU; 0: its default, one per core.
        initial_weights: folder of another run, whose weights this one begins with, or an `.onnx` file or a model that ships, whose
            layers it grows from; the weights enter the fingerprint, the place does not.
        stop_after: ends (with a checkpoint) at this step, as if interrupted.
    """

    output: str
    data: tuple[str, ...]
    validation: tuple[str, ...] = ()
    resume: bool = False
    device: str = ""
    loaders: int = 1
    synthesis: str = ""
    threads: int = 0
    initial_weights: str = ""
    stop_after: int | None = None


@dataclass
class _Run:
    """One run's moving parts."""

    recipe: TrainingRecipe
    fingerprint: str
    network: RestorationNetwork
    optimiser: torch.optim.Optimizer
    device: torch.device
    folder: Path
    objective: Objective
    step: int = 0
    elapsed_s: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, elapsed_s: float) -> None:
        progress = Progress(self.step, self.recipe.to_json(), self.fingerprint, elapsed_s, self.facts)
        save_checkpoint(self.folder, self.network, self.optimiser, progress)


def train(recipe: TrainingRecipe, options: TrainingOptions) -> Path:
    """Trains to the recipe's last step; leaves `checkpoint.safetensors`, `log.jsonl` and `curve.png` in the output folder.

    Raises:
        ConfigurationError: unfit data, or an output that holds a run which must not or can't be continued.

    Returns:
        The output folder.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    data = _read_data(recipe, options)
    run = _open_run(recipe, data, options)
    _loop(run, data, options)
    if run.step >= recipe.steps:
        draw_curve(run.folder, decibel=run.objective.targets() is None)
    return run.folder


def _loop(run: _Run, data: _Data, options: TrainingOptions) -> None:
    """The whole of training: draw, step; log, validate and checkpoint at their times."""
    recipe, last = run.recipe, min(run.recipe.steps, options.stop_after or run.recipe.steps)
    batches = _batches(run, data, options, range(run.step, last))
    started, saved, losses = time.monotonic() - run.elapsed_s, time.monotonic(), []
    bar = tqdm(batches, recipe.name, recipe.steps, initial=run.step, unit="step", disable=not sys.stderr.isatty())
    run.network.train()
    for degraded, target in bar:
        loss = _descend(run, _on(degraded, run.device), _on(target, run.device))
        losses.append(loss)
        run.step += 1
        elapsed_s = time.monotonic() - started
        if run.step % LOG_EVERY == 0 or run.step == last:
            mean = _finite(torch.stack(losses).mean().item(), run.step)
            _log(run, elapsed_s, loss=mean, learning_rate=recipe.rate_at(run.step))
            losses.clear()
        if data.validation and (run.step % recipe.validation.every == 0 or run.step == recipe.steps):
            figures = run.objective.figures(run.network, data.validation, run.device)
            bar.set_postfix({name: f"{value:.2f}" for name, value in figures.items()})
            _log(run, elapsed_s, **figures)
        if run.step == last or time.monotonic() - saved > CHECKPOINT_EVERY_S:
            _finite(loss.item(), run.step)  # broken weights never replace good ones
            run.save(time.monotonic() - started)
            saved = time.monotonic()


def _batches(run: _Run, data: _Data, options: TrainingOptions, steps: range) -> Iterable[tuple[Tensor, Tensor]]:
    """Degraded pictures, N x C x h x w, and what to make of them: clean ones, N x C x H x W, or N targets."""
    source, size, targets = data.source, run.recipe.batch_size, run.objective.targets()
    on_device = options.synthesis == "device" or (not options.synthesis and run.device.type == "cuda")
    if on_device and isinstance(source, FreshPairs):
        made = FreshBatches(
            source.pictures, source.recipe, size, source.patch_size, source.seed, run.device, targets=targets
        )
        return read_ahead(made, steps)
    return DataLoader(
        LoadedBatches(source, size, targets), batch_size=None, sampler=steps,
        num_workers=options.loaders, prefetch_factor=8 if options.loaders else None,
        pin_memory=run.device.type == "cuda", generator=torch.Generator(),
    )  # fmt: skip


def _descend(run: _Run, degraded: Tensor, target: Tensor) -> Tensor:
    """One step down the gradient of the objective; the loss stays on the device, so that nothing waits for it."""
    rate = run.recipe.rate_at(run.step)
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.recipe.precision == "bfloat16"):
        answer = run.network(degraded)
    loss = run.objective.loss(run.network, degraded, answer.float(), target)
    run.optimiser.zero_grad()
    torch.autograd.backward(loss)
    if run.recipe.gradient_clip is not None:
        nn.utils.clip_grad_value_(run.network.parameters(), run.recipe.gradient_clip / rate)
    if run.recipe.gradient_norm is not None:
        nn.utils.clip_grad_norm_(run.network.parameters(), run.recipe.gradient_norm)
    run.optimiser.step()
    return loss.detach()


@dataclass(frozen=True)
class _Data:
    """Pairs to learn from and to be judged by, and the hash of all that decides the weights."""

    source: FreshPairs | PairShards
    validation: list[ValidationPair]
    fingerprint: str


def _read_data(recipe: TrainingRecipe, options: TrainingOptions) -> _Data:
    """Stored pairs if the data holds pairs, otherwise fresh ones."""
    degradation = load_recipe(recipe.degradation)
    source, validation, content = (_stored if holds_pairs(options.data) else _fresh)(recipe, degradation, options)
    _refuse_other_channels(source, recipe)
    if options.validation:
        validation = _named_validation(recipe, degradation, options)
    deciding = {"recipe": recipe.deciding(), "degradation": degradation.fingerprint(), "pictures": content}
    if options.initial_weights:
        deciding["initial_weights"] = digest_of(options.initial_weights)
    return _Data(source, validation, hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16])


def _refuse_other_channels(source: FreshPairs | PairShards, recipe: TrainingRecipe) -> None:
    """Draws one pair, so that what does not fit is told here and not by a loading process."""
    found, wanted = source.draw(0).degraded.shape[0], recipe.network.channels
    if found != wanted:
        raise ConfigurationError(
            f"the recipe {recipe.degradation!r} makes patches of {found} channel{'s' if found > 1 else ''}, the network takes "
            f"{wanted}; choose another recipe, or set network.channels"
        )


_Read = tuple[FreshPairs | PairShards, list[ValidationPair], str]  # what to learn from, what was held out, a digest


def _fresh(recipe: TrainingRecipe, degradation: Recipe, options: TrainingOptions) -> _Read:
    pictures: Sequence[CleanPicture] = load_pictures(
        options.data, _channels_to_load(recipe, degradation), recipe.scales
    )
    judged: Sequence[CleanPicture] = ()
    if not options.validation:
        pictures, judged = split_held_out(pictures, recipe.validation.held_out)
    source = FreshPairs(pictures, degradation, recipe.patch_size, recipe.seed)
    return source, _judged(judged, recipe, degradation), digest(pictures)


def _stored(recipe: TrainingRecipe, degradation: Recipe, options: TrainingOptions) -> _Read:
    pairs = PairShards(
        options.data, channels=recipe.network.channels, patch_size=recipe.patch_size, seed=recipe.seed, shuffle=True,
        with_parameters=_objective(recipe).targets() is not None,
    )  # fmt: skip
    judged: list[ValidationPair] = []
    if not options.validation:
        pairs, held_out = pairs.split_held_out(recipe.validation.held_out)
        if not len(pairs):
            raise ConfigurationError(
                f"all {len(held_out)} pairs are held out for validation; name more in --data, or a set in --validation"
            )
        judged = stored_validation_pairs(held_out.first_by_hash(recipe.validation.limit))
    return pairs, judged, pairs.digest()


def _named_validation(recipe: TrainingRecipe, degradation: Recipe, options: TrainingOptions) -> list[ValidationPair]:
    channels = recipe.network.channels
    if holds_pairs(options.validation):
        with_parameters = _objective(recipe).targets() is not None
        pairs = PairShards(options.validation, channels=channels, with_parameters=with_parameters)
        return stored_validation_pairs(pairs.first_by_hash(recipe.validation.limit))
    return _judged(load_pictures(options.validation, _channels_to_load(recipe, degradation)), recipe, degradation)


def _channels_to_load(recipe: TrainingRecipe, degradation: Recipe) -> int:
    """Luma is made by the degradation recipe, of colour; all else is converted once, while loading."""
    return 3 if degradation.channels == "luma" else recipe.network.channels


def _judged(pictures: Sequence[CleanPicture], recipe: TrainingRecipe, degradation: Recipe) -> list[ValidationPair]:
    judge = load_recipe(recipe.validation.degradation) if recipe.validation.degradation else degradation
    return _objective(recipe).judged(first_by_hash(pictures, recipe.validation.limit), judge, recipe.seed)


def _objective(recipe: TrainingRecipe) -> Objective:
    return objective_named(recipe.objective, recipe.validation.protocol)


def _open_run(recipe: TrainingRecipe, data: _Data, options: TrainingOptions) -> _Run:
    """A fresh run, or the one in the output folder if it is to be resumed and has the same fingerprint."""
    device = choose_device(options.device)
    warn_of_slow_precision(recipe.precision, device)
    network = _initial_network(recipe)
    facts = provenance(options.data)
    if isinstance(data.source, FreshPairs):  # stored pairs bring their own
        facts["degradation_sha256"] = data.source.recipe.fingerprint()
    if options.initial_weights:
        facts["initial_weights"] = begin_with(options.initial_weights, network, _first_patches(data.source))
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves it out
    optimiser = torch.optim.Adam(network.parameters(), recipe.learning_rate.peak, fused=True)
    run = _Run(
        recipe, data.fingerprint, network, optimiser, device, Path(options.output), _objective(recipe), facts=facts
    )
    run.folder.mkdir(parents=True, exist_ok=True)
    if (run.folder / FILE_NAME).exists():
        _continue(run, options)
    else:
        (run.folder / LOG_NAME).unlink(missing_ok=True)
    return run


def _first_patches(source: FreshPairs | PairShards) -> Tensor:
    """N x C x h x w degraded ones, the first that are drawn."""
    return torch.stack([torch.from_numpy(source.draw(number).degraded) for number in range(_FIRST_PATCHES)])


def _initial_network(recipe: TrainingRecipe) -> RestorationNetwork:
    """Layers draw their weights from torch's own generator; it is seeded for them, and then put back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        return build_network(recipe.network.name, recipe.network.all_settings())


def _continue(run: _Run, options: TrainingOptions) -> None:
    progress = resumable(options.output, run.fingerprint, resume=options.resume)
    load_network(run.folder, run.network)
    load_optimiser(run.folder, run.optimiser)
    run.step, run.elapsed_s, run.facts = progress.step, progress.elapsed_s, progress.facts
    forget_after(run.folder, run.step)


def _on(batch: Tensor, device: torch.device) -> Tensor:
    layout = torch.channels_last if batch.dim() == 4 else torch.preserve_format
    return batch.to(device, non_blocking=True, memory_format=layout)


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise ConfigurationError(
            f"the loss is {loss} at step {step}: training diverged; lower learning_rate.peak or use precision: float32"
        )
    return loss


def _log(run: _Run, elapsed_s: float, **figures: float) -> None:
    line = {"step": run.step, "elapsed_s": round(elapsed_s, 1), **figures}
    append_line(run.folder, line)
    log.info("%s %s", run.recipe.name, line)
