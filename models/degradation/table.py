"""All elementary degradations by the name that recipes use; a module is imported when a name of it is first used."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from models.degradation.protocol import Operator
from transforms.errors import ConfigurationError

OPERATORS = {
    "gaussian_noise": "models.degradation.noise.GaussianNoise",
    "poisson_noise": "models.degradation.noise.PoissonNoise",
    "speckle_noise": "models.degradation.noise.SpeckleNoise",
    "impulse_noise": "models.degradation.noise.ImpulseNoise",
    "uniform_quantisation": "models.degradation.quantisation.UniformQuantisation",
    "round_to_8bit": "models.degradation.quantisation.RoundTo8Bit",
}


@cache
def operator_class(name: str) -> type[Operator]:
    """The class of an operator.

    Raises:
        ConfigurationError: no operator has this name.
    """
    if name not in OPERATORS:
        raise ConfigurationError(f"no degradation is called {name!r}; known are {', '.join(OPERATORS)}")
    module, _, attribute = OPERATORS[name].rpartition(".")
    found: type[Operator] = getattr(import_module(module), attribute)
    return found
