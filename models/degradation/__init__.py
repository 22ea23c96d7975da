"""How pictures get damaged: operators with `sample` and `apply`, and chains of them. NumPy only."""

from models.degradation.chains import (
    Chain,
    InOrder,
    Maybe,
    OneOf,
    Shuffle,
    arrays_of,
    draw_steps,
    replay,
    replay_adjoint,
    replay_all,
    replay_each,
    shape_after,
)
from models.degradation.distributions import Choice, Constant, Distribution, LogUniform, Normal, Uniform, WordChoice
from models.degradation.noise import GaussianNoise, ImpulseNoise, PoissonNoise, SpeckleNoise
from models.degradation.protocol import Degradation, Image, LinearOperator, Operator, Parameters, Shape, Step
from models.degradation.quantisation import RoundTo8Bit, UniformQuantisation
from models.degradation.table import OPERATORS, operator_class

__all__ = [
    "OPERATORS",
    "Chain",
    "Choice",
    "Constant",
    "Degradation",
    "Distribution",
    "GaussianNoise",
    "Image",
    "ImpulseNoise",
    "InOrder",
    "LinearOperator",
    "LogUniform",
    "Maybe",
    "Normal",
    "OneOf",
    "Operator",
    "Parameters",
    "PoissonNoise",
    "RoundTo8Bit",
    "Shape",
    "Shuffle",
    "SpeckleNoise",
    "Step",
    "Uniform",
    "UniformQuantisation",
    "WordChoice",
    "arrays_of",
    "draw_steps",
    "operator_class",
    "replay",
    "replay_adjoint",
    "replay_all",
    "replay_each",
    "shape_after",
]
