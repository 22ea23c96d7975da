"""The seam between the in-worker pipeline and whatever restores: networks today, solvers with the same face later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

from numpy.typing import NDArray

from transforms.errors import ConfigurationError


@dataclass
class Restored:
    """One restored picture.

    Attributes:
        samples: H x W x C, height and width times the restorer's scale, same channels and dtype as the picture given.
        notes: plain JSON on how it was done; stands in the record's JSON (`{"tiling": "exact", "tiles": 12, ...}`).
    """

    samples: NDArray[Any]
    notes: dict[str, Any] = field(default_factory=dict)


class Restorer(Protocol):
    """A loaded restorer. Used from one thread at a time; keeps nothing from one call to the next but its counters."""

    @property
    def scale(self) -> int | Fraction:
        """Output pixels per input pixel along one axis: an integer, or 1/k."""
        ...

    @property
    def counters(self) -> Counter[str]:
        """Totals since loading (`tiles_run`, `oom_splits`, `nonfinite_tiles`, `float32_retries`, ...)."""
        ...

    def restore(self, samples: Sequence[NDArray[Any]], parameters: Sequence[Mapping[str, Any]]) -> list[Restored]:
        """Restores pictures H x W x C (C in {1, 3}, uint8 | uint16 | float32), of any mix of sizes, channels and dtypes.

        Args:
            samples: the degraded pictures.
            parameters: what is known about each one's degradation; networks do not look.

        Raises:
            RecordError: a picture can't be restored; on several pictures the caller bisects.
            MemoryError: not even the smallest tile fits.
        """
        ...


class RestorerFactory(Protocol):
    """Plain, picklable configuration of a restorer."""

    def load(self) -> Restorer:
        """Raises ConfigurationError for anything wrong with the configuration."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What decides the output bytes: the model's digest and options, not threads, batches or providers. Loads nothing."""
        ...

    def describe(self) -> dict[str, Any]:
        """Provenance for the report: name, digest, card, provider really active. May load the model."""
        ...


class ChannelRestorer(Restorer, Protocol):
    """A restorer made for pictures of a certain channel count."""

    @property
    def channels(self) -> int: ...


class ChannelRestorerFactory(RestorerFactory, Protocol):
    """Configuration of a `ChannelRestorer`."""

    def load(self) -> ChannelRestorer: ...


@dataclass(frozen=True)
class PerChannelCount:
    """Two restorers, one for grey and one for colour pictures: each picture goes to the one made for it.

    Args:
        factories: two, in any order; the loaded networks say what they are made for.
    """

    factories: tuple[ChannelRestorerFactory, ...]

    def load(self) -> PerChannelCountRestorer:
        """Loads both.

        Raises:
            ConfigurationError: they are not one for grey and one for colour, or enlarge differently.
        """
        restorers = [factory.load() for factory in self.factories]
        found = sorted(restorer.channels for restorer in restorers)
        if found != [1, 3]:
            raise ConfigurationError(
                f"several models need to be one for grey (1 channel) and one for colour (3); these take {found}"
            )
        if restorers[0].scale != restorers[1].scale:
            scales = " and ".join(str(restorer.scale) for restorer in restorers)
            raise ConfigurationError(
                f"the grey and the colour model enlarge by {scales}: name two models of the same scale"
            )
        return PerChannelCountRestorer({restorer.channels: restorer for restorer in restorers})

    def fingerprint(self) -> dict[str, Any]:
        """Independent of the order that the models were named in."""
        parts = [factory.fingerprint() for factory in self.factories]
        return {"per_channel_count": sorted(parts, key=repr)}

    def describe(self) -> dict[str, Any]:
        parts = [factory.describe() for factory in self.factories]
        return {"name": " + ".join(str(part.get("name")) for part in parts), "per_channel_count": parts}


class PerChannelCountRestorer:
    """Loaded `PerChannelCount`."""

    def __init__(self, restorers: Mapping[int, Restorer]) -> None:
        self._restorers = restorers
        self.scale = restorers[1].scale

    @property
    def counters(self) -> Counter[str]:
        """Sums over both networks."""
        return self._restorers[1].counters + self._restorers[3].counters

    def restore(self, samples: Sequence[NDArray[Any]], parameters: Sequence[Mapping[str, Any]]) -> list[Restored]:
        """As `Restorer.restore`."""
        results: dict[int, Restored] = {}
        for channels, restorer in self._restorers.items():
            mine = [index for index, picture in enumerate(samples) if picture.shape[2] == channels]
            if mine:
                restored = restorer.restore([samples[index] for index in mine], [parameters[index] for index in mine])
                results.update(zip(mine, restored, strict=True))
        return [results[index] for index in range(len(samples))]
