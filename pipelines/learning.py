"""`conservator train` and `conservator export`: no Beam anywhere."""

from __future__ import annotations

import logging

from export.onnx_export import export
from models.training import TrainingOptions, train
from models.training_recipe import load_training_recipe
from pipelines.options import ExportOptions, TrainOptions


def run_train(options: TrainOptions) -> int:
    """Trains and says where the checkpoint, the log and the curve are."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = load_training_recipe(options.recipe)
    folder = train(
        recipe,
        TrainingOptions(
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
        ),
    )
    print(f"in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return 0


def run_export(options: ExportOptions) -> int:
    """Exports, or refuses where PyTorch and ONNX do not agree."""
    exported = export(options.checkpoint, options.output)
    print(f"written: {exported.path}, at most {exported.max_abs_error:.1e} from PyTorch")
    return 0
