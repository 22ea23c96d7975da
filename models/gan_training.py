"""Adversarial training, the one loop besides `models.training`: G learns to draw what D takes for a photograph.

    D descends  mean softplus(-D(x)) + mean softplus(D(G(z)))        = -mean log s(D(x)) - mean log(1 - s(D(G(z))))
    G descends  mean softplus(-D(G(z)))                              = -mean log s(D(G(z))), which does not saturate

with D as a logit and s the logistic function. Each step draws a batch of pictures x and of latent vectors z by the step's
number, moves D once, then G once with the same z. Beside G a running mean of its weights and statistics is kept, with a memory
that grows to the recipe's `average`; that mean is the model. A run is a function of its recipe and its pictures, as in
`models.training`: resumed after any step, it ends with the same bits.

Source: Goodfellow et al., "Generative adversarial nets", NIPS 2014, section 3; Radford, Metz, Chintala, ICLR 2016.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from tqdm import tqdm

from models.checkpoint import FILE_NAME, Progress, load_network, load_optimiser, save_checkpoint
from models.gan_pictures import PictureBatches, as_squares, grid, hold_out, latent_vectors
from models.gan_recipe import GanRecipe
from models.networks.dcgan import CHANNELS, SIDE, Discriminator, Generator
from models.training import CHECKPOINT_EVERY_S, TrainingOptions
from models.training_data import CleanPicture, digest, load_pictures
from models.training_log import LOG_NAME, append_line, forget_after
from models.training_setup import choose_device, provenance, resumable, warn_of_slow_precision
from transforms.errors import ConfigurationError

log = logging.getLogger(__name__)

LOG_EVERY = 50  # steps
SHEETS = "sheets"
_SHEET_COLUMNS = 8
_BETA2 = 0.999
_COLLAPSED = 0.05  # of [-1, 1]; a sample of photographs spreads about ten times as much at each pixel
FIGURES = ("loss_discriminator", "loss_generator", "accuracy_photographs", "accuracy_generated")


class Adversaries(nn.Module):
    """All weights of a run: `generator`, `discriminator`, and `average`, the running mean of the former, which is the model."""

    def __init__(self, recipe: GanRecipe) -> None:
        super().__init__()
        self.generator = Generator(recipe.network.features, recipe.network.latent)
        self.discriminator = Discriminator(recipe.network.features)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)

    def follow(self, memory: float) -> None:
        """One step of the running mean:  average <- memory * average + (1 - memory) * generator."""
        with torch.no_grad():
            for mean, latest in zip(_state(self.average), _state(self.generator), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(latest, 1 - memory)
                else:
                    mean.copy_(latest)


def _state(network: nn.Module) -> list[Tensor]:
    return list(network.state_dict().values())


@dataclass
class _Run:
    """One run's moving parts."""

    recipe: GanRecipe
    fingerprint: str
    networks: Adversaries
    optimiser: torch.optim.Optimizer
    device: torch.device
    folder: Path
    facts: dict[str, object]
    step: int = 0
    elapsed_s: float = 0.0

    def save(self, elapsed_s: float) -> None:
        progress = Progress(self.step, self.recipe.to_json(), self.fingerprint, elapsed_s, self.facts)
        save_checkpoint(self.folder, self.networks, self.optimiser, progress)


def train_gan(recipe: GanRecipe, options: TrainingOptions) -> Path:
    """Trains to the recipe's last step; leaves `checkpoint.safetensors`, `log.jsonl` and `sheets/` in the output folder.

    Raises:
        ConfigurationError: unfit data, an output that holds a run which must not or can't be continued, or a loss that is no
            number any more.

    Returns:
        The output folder.
    """
    if options.validation:
        raise ConfigurationError(
            f"a recipe of kind gan-training takes no --validation ({', '.join(options.validation)}): leave it out; held_out "
            "keeps pictures back"
        )
    if options.initial_weights:
        raise ConfigurationError(
            f"a recipe of kind gan-training starts from its own weights: leave out --initial_weights {options.initial_weights}"
        )
    if options.threads:
        torch.set_num_threads(options.threads)
    pictures = load_pictures(options.data, CHANNELS)
    training, _ = hold_out(pictures, recipe.held_out)
    batches = PictureBatches(
        training, batch_size=recipe.batch_size, crop=recipe.crop, side=SIDE, flip=recipe.flip, seed=recipe.seed
    )
    run = _open_run(recipe, pictures, options)
    _loop(run, batches, options)
    return run.folder


def _loop(run: _Run, batches: PictureBatches, options: TrainingOptions) -> None:
    """The whole of training: draw, step; log, draw sheets and checkpoint at their times."""
    recipe, last = run.recipe, min(run.recipe.steps, options.stop_after or run.recipe.steps)
    started, saved, figures = time.monotonic() - run.elapsed_s, time.monotonic(), []
    steps = range(run.step, last)
    run.networks.generator.train()
    run.networks.discriminator.train()
    for step in tqdm(steps, recipe.name, recipe.steps, initial=run.step, unit="step", disable=not sys.stderr.isatty()):
        photographs = torch.from_numpy(batches(step)).to(run.device, memory_format=torch.channels_last)
        figures.append(_descend(run, photographs))
        run.step = step + 1
        if run.step % LOG_EVERY == 0 or run.step == last:
            _log(run, time.monotonic() - started, _means(figures, run.step))
            figures.clear()
        is_sheet_due = run.step % recipe.sheet_every == 0 or run.step == recipe.steps
        is_save_due = run.step == last or time.monotonic() - saved > CHECKPOINT_EVERY_S
        if figures and (is_sheet_due or is_save_due):
            _means(figures, run.step)  # broken weights never replace good ones
        if is_sheet_due:
            _draw_sheet(run)
        if is_save_due:
            run.save(time.monotonic() - started)
            saved = time.monotonic()


def _descend(run: _Run, photographs: Tensor) -> Tensor:
    """One step of D, one of G; what `FIGURES` names, on the device, so that nothing waits for it.

    One Adam holds both networks' parameters: it moves those that have a gradient.
    """
    networks, recipe = run.networks, run.recipe
    z = latent_vectors(recipe.seed, "training", run.step, len(photographs), recipe.network.latent)
    with _precision(run):
        generated = networks.generator(torch.from_numpy(z).to(run.device))
        real, drawn = networks.discriminator(photographs), networks.discriminator(generated.detach())
    real, drawn = real.float(), drawn.float()
    loss_discriminator = softplus(-real).mean() + softplus(drawn).mean()
    _move(run.optimiser, loss_discriminator, networks.discriminator)
    with _precision(run):
        judged = networks.discriminator(generated)
    loss_generator = softplus(-judged.float()).mean()
    _move(run.optimiser, loss_generator, networks.generator)
    networks.follow(min(recipe.average, (1 + run.step) / (10 + run.step)))
    accuracies = (real > 0).float().mean(), (drawn < 0).float().mean()
    return torch.stack([loss_discriminator, loss_generator, *accuracies]).detach()


def _precision(run: _Run) -> torch.autocast:
    return torch.autocast(run.device.type, torch.bfloat16, enabled=run.recipe.precision == "bfloat16")


def _move(optimiser: torch.optim.Optimizer, loss: Tensor, network: nn.Module) -> None:
    """Moves one network down the gradient; all others have none."""
    optimiser.zero_grad()
    torch.autograd.backward(loss, inputs=list(network.parameters()))
    optimiser.step()


def _open_run(recipe: GanRecipe, pictures: Sequence[CleanPicture], options: TrainingOptions) -> _Run:
    """A fresh run, or the one in the output folder if it is to be resumed and has the same fingerprint."""
    device = choose_device(options.device)
    warn_of_slow_precision(recipe.precision, device)
    networks = _initial_networks(recipe)
    networks.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves it out
    parameters = [*networks.generator.parameters(), *networks.discriminator.parameters()]
    optimiser = torch.optim.Adam(parameters, recipe.learning_rate, (recipe.beta1, _BETA2), fused=True)
    deciding = json.dumps({"recipe": recipe.deciding(), "pictures": digest(pictures)}, sort_keys=True)
    fingerprint = hashlib.sha256(deciding.encode()).hexdigest()[:16]
    run = _Run(recipe, fingerprint, networks, optimiser, device, Path(options.output), provenance(options.data))
    (run.folder / SHEETS).mkdir(parents=True, exist_ok=True)
    if (run.folder / FILE_NAME).exists():
        _continue(run, options)
    else:
        (run.folder / LOG_NAME).unlink(missing_ok=True)
    return run


def _initial_networks(recipe: GanRecipe) -> Adversaries:
    """Layers draw their weights from torch's own generator; it is seeded for them, and then put back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        return Adversaries(recipe)


def _continue(run: _Run, options: TrainingOptions) -> None:
    progress = resumable(options.output, run.fingerprint, resume=options.resume)
    load_network(run.folder, run.networks)
    load_optimiser(run.folder, run.optimiser)
    run.step, run.elapsed_s, run.facts = progress.step, progress.elapsed_s, progress.facts
    forget_after(run.folder, run.step)


def _means(figures: Sequence[Tensor], step: int) -> dict[str, float]:
    means: list[float] = torch.stack(list(figures)).mean(0).tolist()
    if not all(map(math.isfinite, means)):
        raise ConfigurationError(
            f"the losses are {means[0]} (discriminator) and {means[1]} (generator) at step {step}: training diverged; lower "
            "learning_rate or use precision: float32"
        )
    return dict(zip(FIGURES, (round(mean, 5) for mean in means), strict=True))


def _log(run: _Run, elapsed_s: float, figures: dict[str, float]) -> None:
    line = {"step": run.step, "elapsed_s": round(elapsed_s, 1), **figures}
    append_line(run.folder, line)
    log.info("%s %s", run.recipe.name, line)


def _draw_sheet(run: _Run) -> None:
    """What the averaged generator makes of the same latent vectors each time; pictures that are all alike are told."""
    z = latent_vectors(run.recipe.seed, "sheet", 0, _SHEET_COLUMNS**2, run.recipe.network.latent)
    with torch.inference_mode():
        pictures = run.networks.average(torch.from_numpy(z).to(run.device)).cpu()
    grid(as_squares(pictures.numpy()), _SHEET_COLUMNS).save(run.folder / SHEETS / f"{run.step:06d}.png")
    spread = pictures.std(dim=0).mean().item()
    if spread < _COLLAPSED:
        log.warning(
            "%s: at step %d the generator draws nearly one picture (standard deviation %.3f between %d of them); if it stays "
            "so, lower learning_rate or name more pictures", run.recipe.name, run.step, spread, len(z)
        )  # fmt: skip
