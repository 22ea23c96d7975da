"""One drawn pair, and what is said when draws do not fit together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from transforms.errors import ConfigurationError
from transforms.value_range import Samples, to_float

Floats = NDArray[np.float32]
ATTEMPTS = 100  # patches that may be rejected in a row (flat ones, say) before the data is called unfit


@dataclass(frozen=True)
class DrawnPair:
    """A pair to learn from.

    Attributes:
        key: of the record or picture that it comes from.
        clean, degraded: float32, C x H x W, [0, 1] in principle; both may be written to.
        parameters: how it was degraded, plain JSON; empty if that is not known.
    """

    key: str
    clean: Floats
    degraded: Floats
    parameters: Mapping[str, Any]

    def item(self, *, with_parameters: bool) -> dict[str, Any]:
        """As a data set gives it: tensors `clean` and `degraded`, `key`, and `parameters` on request."""
        item = {"clean": torch.from_numpy(self.clean), "degraded": torch.from_numpy(self.degraded), "key": self.key}
        return item | ({"parameters": dict(self.parameters)} if with_parameters else {})


class PairSource(Protocol):
    """Where pairs come from, by number."""

    def draw(self, number: int) -> DrawnPair:
        """The pair of a number from 0; always the same for the same number."""


def float_planes(samples: Samples) -> Floats:
    """Samples of any type, H x W x C, as float32 planes of their own, C x H x W, [0, 1]."""
    return np.array(np.moveaxis(to_float(samples), 2, 0), order="C")


def refuse_mixed(shapes: Iterable[tuple[int, ...]], what: str) -> None:
    """Raises ConfigurationError unless all pictures of a batch have one shape, C x H x W."""
    found = sorted(set(shapes))
    if len(found) > 1:
        named = ", ".join(f"{channels} x {height} x {width}" for channels, height, width in found[:4])
        raise ConfigurationError(
            f"{what} have several shapes in one batch ({named}{', ...' if len(found) > 4 else ''}) and can't be stacked; "
            "set a patch size, choose a recipe whose results have one size, or take batches of 1"
        )
