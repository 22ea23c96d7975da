"""What a training run is: a YAML file with the network, the pairs to learn from, and the schedule. Free of torch.

kind: training
name: denoise5-gray-25                  the model's name in the zoo
purpose: denoise
command: conservator train --recipe ... the command that made the shipped weights
cost: 45 minutes on one CPU core
reaches: 28.4 dB psnr[gray,u8] on BSD68
network: {name: model3, channels: 1, settings: {layers: 5}}
degradation: gaussian-25-mixed          the recipe that makes the pairs (stored pairs bring their own)
patch_size: 40
batch_size: 8
steps: 40000
seed: 25
precision: bfloat16                     of the layers' arithmetic; weights, loss and optimiser stay float32
learning_rate: {peak: 0.003, warmup_steps: 500, schedule: cosine}
gradient_clip: 0.0001                   each component stays within -+this / learning rate; without: as it is
gradient_norm: 0.05                     the whole gradient is scaled down to this length; without: as it is
objective: mean_squared_error           or mean_absolute_error; or cross_entropy, of the labels that the recipe draws
validation: {protocol: "psnr[gray,u8]", degradation: dncnn-25, every: 2000}

A network that restores enlarged luma says which scales it is for, and how the luma is enlarged before it:

enlarge: {scales: [2, 3, 4], kernel: matlab_bicubic}
enlarge: {scales: [2, 3, 4], factor: 2, kernel: opencv_cubic, shrink: matlab_bicubic}    several times by two, then shrunk
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from models.recipe_kinds import FOR_PEOPLE, fields_for_people, load_kind, plain_json, without
from models.recipes.validation import (
    Definitions,
    Field,
    Integer,
    ListOf,
    Nullable,
    Number,
    Section,
    Text,
    Word,
)
from models.recipes.yaml_nodes import Place, entries_of
from transforms.enlargement import Enlargement
from transforms.errors import ConfigurationError
from transforms.planes.resampling import RESIZE_KERNELS


@dataclass(frozen=True)
class NetworkChoice:
    """A name of `models.networks.NETWORKS` and its settings."""

    name: str
    channels: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def all_settings(self) -> dict[str, Any]:
        """The builder's keywords."""
        return {"channels": self.channels, **self.settings}


@dataclass(frozen=True)
class LearningRate:
    """Learning rate as a function of the step alone, so that a resumed run continues on the same curve.

    Attributes:
        peak: rate after the warm-up, which is linear.
        warmup_steps: length of the warm-up.
        schedule: `cosine` (to zero at the last step) or `steps` (times `factor` at each fraction of the run in `at`).
        at, factor: for `steps`.
    """

    peak: float
    warmup_steps: int = 0
    schedule: str = "cosine"
    at: tuple[float, ...] = ()
    factor: float = 0.2

    def __call__(self, step: int, steps: int) -> float:
        warm = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if self.schedule == "cosine":
            return self.peak * warm * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        passed = sum(step >= fraction * steps for fraction in self.at)
        return self.peak * warm * self.factor**passed


@dataclass(frozen=True)
class Validation:
    """How the run is judged while it goes on.

    Attributes:
        protocol: metric name, such as `psnr[gray,u8]`.
        degradation: the recipe that degrades the validation pictures; empty: the one that the network learns from.
        every: steps between two validations.
        held_out: share of the training pictures, chosen by the hash of their key, that is kept for validation when no
            set is named.
        limit: at most this many pictures, the first by hash of their key.
    """

    protocol: str
    degradation: str = ""
    every: int = 2000
    held_out: float = 0.02
    limit: int = 16


@dataclass(frozen=True)
class EnlargedLuma:
    """How luma becomes what a network was trained on.

    Attributes:
        scales: of the models that the weights may be exported as; 1: luma as it is.
        kernel: that enlarges; one of RESIZE_KERNELS.
        factor: of one pass; None: the scale, in a single pass.
        shrink: kernel that brings several passes to a scale that is no power of the factor.
    """

    scales: tuple[int, ...]
    kernel: str
    factor: int | None = None
    shrink: str | None = None

    def at(self, scale: int) -> Enlargement | None:
        """What the card says of one scale.

        Raises:
            ConfigurationError: the weights are not for this scale.
        """
        if scale not in self.scales:
            known = ", ".join(map(str, self.scales))
            raise ConfigurationError(f"the weights are for the scales {known}, not {scale}; choose one of these")
        if scale == 1:
            return None
        factor = self.factor or scale
        return Enlargement(factor, self.kernel, None if factor ** self.passes(scale) == scale else self.shrink)

    def passes(self, scale: int) -> int:
        """How often the network runs, each time on luma enlarged by the factor, until the scale is reached."""
        passes = 1
        while (self.factor or scale) ** passes < scale:
            passes += 1
        return passes


@dataclass(frozen=True)
class TrainingRecipe:
    """A training run; see the module's example.

    `gradient_clip` is the adjustable clipping of Kim et al., "Accurate image super-resolution using very deep convolutional
    networks", CVPR 2016, section 3.2: a step of plain descent moves no weight by more than it. `gradient_norm` is that of Pascanu,
    Mikolov, Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, section 3.2, for layers without norms.
    """

    name: str
    purpose: str
    network: NetworkChoice
    degradation: str
    steps: int
    batch_size: int
    patch_size: int
    learning_rate: LearningRate
    validation: Validation
    precision: str = "float32"
    seed: int = 0
    scales: tuple[float, ...] = (1.0,)
    gradient_clip: float | None = None
    gradient_norm: float | None = None
    enlarge: EnlargedLuma | None = None
    objective: str = "mean_squared_error"
    command: str = ""
    cost: str = ""
    reaches: str = ""

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        return self.learning_rate(step, self.steps)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with every default written out."""
        return plain_json(self)

    def deciding(self) -> dict[str, Any]:
        """What decides the weights, as JSON: neither what is for a person, nor how they are judged and used."""
        held_out = self.validation.held_out  # these pictures are missing in the training
        plain = without(self.to_json(), FOR_PEOPLE | {"validation", "enlarge"})
        for later in ("objective", "gradient_norm"):
            if plain[later] == getattr(TrainingRecipe, later):
                del plain[later]  # runs from before there was a choice go on
        return {**plain, "validation": {"held_out": held_out}}


def load_training_recipe(name_or_path: str) -> TrainingRecipe:
    """Loads a training recipe that ships, by name (`train-denoise5-gray-25`), or any by path or URL.

    Raises:
        ConfigurationError: no such recipe, or one line `FILE:LINE: PATH: what is wrong` for each mistake in it.
    """
    return load_kind(name_or_path, "training", _RECIPE)


@dataclass(frozen=True)
class _Settings:
    """The network's own keywords: its builder checks them."""

    def read(self, node: yaml.Node, place: Place) -> dict[str, Any]:
        return {name: yaml.safe_load(yaml.serialize(value)) for name, (value, _) in entries_of(node, place).items()}

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"type": "object"}


def _recipe(kind: str, **values: Any) -> TrainingRecipe:
    return TrainingRecipe(**values)


_COUNT = Integer(minimum=1)
_NETWORK = Section(
    {
        "name": Field(Text(), "as in models.networks.NETWORKS"),
        "channels": Field(Integer(minimum=1, maximum=3), "1 for grey, 3 for colour"),
        "settings": Field(_Settings(), "keywords of the network's builder", {}),
    },
    NetworkChoice,
)
_LEARNING_RATE = Section(
    {
        "peak": Field(Number(above=0), "after the warm-up"),
        "warmup_steps": Field(Integer(minimum=0), "length of the linear warm-up", 0),
        "schedule": Field(Word("cosine", "steps"), "to zero along a cosine, or in steps", "cosine"),
        "at": Field(ListOf(Number(above=0, below=1)), "fractions of the run at which the rate drops", ()),
        "factor": Field(Number(above=0, maximum=1), "what it is multiplied with there", 0.2),
    },
    LearningRate,
)
_VALIDATION = Section(
    {
        "protocol": Field(Text(), "metric with its protocol: psnr[gray,u8]"),
        "degradation": Field(Text(), "recipe for the validation pictures, if not that of the training", ""),
        "every": Field(_COUNT, "steps between two validations", 2000),
        "held_out": Field(
            Number(minimum=0, below=1), "share of the pictures kept back when no validation set is named", 0.02
        ),
        "limit": Field(_COUNT, "pictures at most", 16),
    },
    Validation,
)
_ENLARGE = Section(
    {
        "scales": Field(ListOf(Integer(minimum=1)), "of the models that the weights may be exported as"),
        "kernel": Field(Word(*RESIZE_KERNELS), "that enlarges the luma"),
        "factor": Field(Nullable(Integer(minimum=2)), "of one pass; without: the scale, in a single pass", None),
        "shrink": Field(Nullable(Word(*RESIZE_KERNELS)), "for scales that are no power of the factor", None),
    },
    EnlargedLuma,
)
_RECIPE = Section(
    {
        **fields_for_people("training", "denoise, ..."),
        "network": Field(_NETWORK),
        "objective": Field(
            Word("mean_squared_error", "mean_absolute_error", "cross_entropy"),
            "as in models.objectives",
            TrainingRecipe.objective,
        ),
        "degradation": Field(Text(), "the recipe that makes the pairs"),
        "patch_size": Field(_COUNT, "pixels"),
        "batch_size": Field(_COUNT, "patches per step"),
        "steps": Field(_COUNT, "of the optimiser"),
        "seed": Field(Integer(minimum=0), "of weights and patches", 0),
        "precision": Field(Word("float32", "bfloat16"), "of the layers", "float32"),
        "scales": Field(ListOf(Number(above=0, maximum=1)), "sizes at which each clean picture is used", (1.0,)),
        "learning_rate": Field(_LEARNING_RATE),
        "gradient_clip": Field(
            Nullable(Number(above=0)), "each component of the gradient stays within -+this / learning rate", None
        ),
        "gradient_norm": Field(
            Nullable(Number(above=0)), "a longer gradient is scaled down to this Euclidean norm", None
        ),
        "enlarge": Field(Nullable(_ENLARGE), "for networks that restore enlarged luma", None),
        "validation": Field(_VALIDATION),
    },
    _recipe,
)
