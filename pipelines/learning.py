"""`conservator train` and `conservator export`: no Beam anywhere."""

from __future__ import annotations

import logging
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

from export.generator import export_generator
from export.onnx_export import Exported, export
from export.twins import Gate, QualityLossError, make_twin
from models.checkpoint import load_progress
from models.dictionaries import learn_dictionaries
from models.dictionary_recipe import is_dictionary_recipe, load_dictionary_recipe
from models.gan_recipe import KIND as GAN_KIND
from models.gan_recipe import is_gan_recipe, load_gan_recipe
from models.gan_training import train_gan
from models.training import TrainingOptions, train
from models.training_recipe import load_training_recipe
from pipelines.options import ExportOptions, TrainOptions
from transforms.errors import ConfigurationError

EXIT_QUALITY = 6


def run_train(options: TrainOptions) -> int:
    """Trains and says where the checkpoint, the log and the curve are."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    training = TrainingOptions(
        output=options.output,
        data=(options.data,),
        validation=(options.validation,) if options.validation else (),
        resume=options.resume,
        device=options.device,
        threads=options.threads,
        loaders=options.loaders,
        synthesis=options.synthesis,
        initial_weights=options.initial_weights,
        stop_after=options.steps or None,
    )
    if is_gan_recipe(options.recipe):
        folder = train_gan(load_gan_recipe(options.recipe), training)
    elif is_dictionary_recipe(options.recipe):
        folder = learn_dictionaries(load_dictionary_recipe(options.recipe), training)
    else:
        folder = train(load_training_recipe(options.recipe), training)
    print(f"in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return 0


def run_export(options: ExportOptions) -> int:
    """Exports, or refuses where PyTorch and ONNX, or float32 and its twin, do not agree."""
    if options.quantize:
        return _run_twin(options)
    first = options.checkpoint.partition(",")[0].strip()
    if load_progress(Path(first)).recipe.get("kind") == GAN_KIND:
        _refuse_restorer_flags(options, f"{first!r} is an adversarial run")
        written = export_generator(options.checkpoint, options.output)
    else:
        written = [_exported(options, options.output)]
    for exported in written:
        print(f"written: {exported.path}, at most {exported.max_abs_error:.1e} from PyTorch")
    return 0


def _refuse_restorer_flags(options: ExportOptions, reason: str) -> None:
    """Those that only the checkpoint of a restoring network heeds."""
    defaults = {each.name: each.default for each in fields(options)}
    for name in ("name", "scale", "weight_bits"):
        if getattr(options, name) != defaults[name]:
            raise ConfigurationError(f"{reason}, for which --{name} says nothing; leave it out")


def _exported(options: ExportOptions, output: str) -> Exported:
    return export(options.checkpoint, output, name=options.name, scale=options.scale, weight_bits=options.weight_bits)


def _run_twin(options: ExportOptions) -> int:
    needed = ("calibration", "validation") if options.quantize == "int8" else ("validation",)
    for name in needed:
        if not getattr(options, name):
            raise ConfigurationError(
                f"--quantize {options.quantize} needs --{name}: clean pictures, none of them in the other set"
            )
    if options.calibration and "calibration" not in needed:
        raise ConfigurationError(f"--quantize {options.quantize} has no ranges to calibrate; leave --calibration out")
    gate = Gate(
        validation=(options.validation,),
        calibration=(options.calibration,) if options.calibration else (),
        degradation=options.degradation,
        protocol=options.protocol,
        loss_db=options.quality_loss,
    )
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        source = options.checkpoint
        if source.endswith(".onnx"):
            _refuse_restorer_flags(options, f"{source!r} is exported already")
        else:
            source = str(Path(folder) / "float32.onnx")
            _exported(options, source)
        try:
            done = make_twin(source, options.output, options.quantize, gate)
        except QualityLossError as error:
            print(f"conservator: {error}", file=sys.stderr)
            return EXIT_QUALITY
    print(f"written: {done.path}, {done.float32:.3f} dB in float32, {done.reduced:.3f} dB in {options.quantize}")
    return 0
