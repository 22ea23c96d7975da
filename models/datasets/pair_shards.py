"""Stored pairs as a data set: read from their shards when they are asked for, so that memory does not grow with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from models.datasets.drawn import ATTEMPTS, DrawnPair, Floats, float_planes
from models.recipes.channels import with_channels
from models.training_data import CHANNELS, rank
from transforms.errors import ConfigurationError, RecordError
from transforms.formats.indexed import RecordIndex, find_tables, index_records
from transforms.formats.stored_pair import StoredPair
from transforms.formats.tar import read_tar
from transforms.randomness import generator
from transforms.units import Unit, plan_units
from transforms.value_range import Samples

_ORDER, _PLACE, _INSTEAD = range(3)  # independent draws


class PairShards(Dataset[dict[str, Any]]):
    """Pairs that `conservator degrade` wrote, in any of its formats, local or remote.

    `pairs[number]` is a dictionary: `clean` and `degraded`, float32 tensors, C x H x W, [0, 1] in principle; `key`; and
    `parameters` if asked for. Numbers 0 ... len - 1 are the first epoch; with `patch_size` or `shuffle` they go on, and each
    epoch holds every pair once, in an order and cut at places of its own:

        pairs = PairShards(["pairs"], patch_size=64, shuffle=True, seed=1)
        loader = DataLoader(pairs, batch_size=16, sampler=range(done, 10 * len(pairs)), num_workers=2)

    What is drawn follows from (seed, number) alone. It can be handed to loading processes of any kind: no open file travels.

    Args:
        data: URLs, patterns and `@lists` of shards and folders.
        channels: 1 makes grey of colour, 3 repeats grey, in both pictures; (3, 1) does so in the clean and the degraded one;
            None leaves both.
        patch_size: side of the window, in pixels of the clean picture, that is cut from both at the same place; None for
            whole pictures. Degraded pictures may be smaller by an integer factor. Where a picture is too small for the
            window, another one takes its place.
        shuffle: every epoch in another order.
        with_parameters: items tell how they were degraded; only a collate function that knows dictionaries can batch that.

    Raises:
        ConfigurationError: nothing found, records without a degraded picture, a shard that can't be indexed; while reading, a
            record that can't be used.
    """

    def __init__(
        self,
        data: Sequence[str],
        *,
        channels: int | tuple[int, int] | None = None,
        patch_size: int | None = None,
        seed: int = 0,
        shuffle: bool = False,
        with_parameters: bool = False,
    ) -> None:
        self._index = index_records(data)
        self._channels = channels if isinstance(channels, tuple) else (channels, channels)
        self._patch_size, self._seed, self._shuffle = patch_size, seed, shuffle
        self._with_parameters = with_parameters
        self._chosen: NDArray[np.int64] = np.arange(len(self._index))
        self._orders: dict[int, NDArray[np.int64]] = {}
        _refuse_unpaired(self._index)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.draw(number).item(with_parameters=self._with_parameters)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The first epoch."""
        return (self[number] for number in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_orders": {}}

    def keys(self) -> Iterator[str]:
        """The keys of all pairs, as stored; nothing else is read."""
        return (self._index.key(position) for position in self._chosen.tolist())

    def whole(self, position: int) -> DrawnPair:
        """A pair by its position among the keys, whatever would be cut from it.

        Raises:
            ConfigurationError: it can't be read.
        """
        pair = self._stored(position)
        return self._cut(pair, (0, 0, *pair.clean.shape[:2]), (0, 0, *pair.degraded.shape[:2]))

    def _stored(self, position: int) -> StoredPair:
        number = int(self._chosen[position])
        try:
            return self._index.pair(number, with_details=self._with_parameters)
        except RecordError as error:
            raise ConfigurationError(
                f"training record {self._index.key(number)!r} of {self._index.at(number)[0].name} can't be used: {error}; "
                "repair it or leave it out of --data"
            ) from error

    def subset(self, positions: Sequence[int]) -> PairShards:
        """Some of the pairs, by their positions; they share the index."""
        part = copy(self)
        part._chosen, part._orders = self._chosen[np.asarray(positions, np.int64)], {}
        return part

    def split_held_out(self, share: float) -> tuple[PairShards, PairShards]:
        """Training and validation pairs by the hash of the picture that they were cut from: none is in both."""
        held_out = np.array([rank(key) < share for key in self.keys()], np.bool_)
        training, validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        return self.subset(training.tolist()), self.subset(validation.tolist())

    def first_by_hash(self, limit: int) -> PairShards:
        """At most `limit` pairs, the same ones whatever the order."""
        ranked = sorted((rank(key), key, position) for position, key in enumerate(self.keys()))
        return self.subset([position for _, _, position in ranked[:limit]])

    def digest(self) -> str:
        """Hash of the index (see `RecordIndex.digest`) and of which pairs of it these are."""
        return f"{self._index.digest()}/{hashlib.blake2b(self._chosen.tobytes(), digest_size=8).hexdigest()}"

    def draw(self, number: int) -> DrawnPair:
        """The pair of a number, from 0.

        Raises:
            IndexError: a negative number, or one beyond the first epoch where nothing is random.
            ConfigurationError: a record that can't be used, or none is large enough.
        """
        drawn_at_random = self._shuffle or self._patch_size is not None
        if number < 0 or not len(self) or (number >= len(self) and not drawn_at_random):
            raise IndexError(f"pair {number} of {len(self)}")
        for position in self._positions(number):
            pair = self._stored(position)
            windows = self._windows(pair, number)
            if windows is not None:
                return self._cut(pair, *windows)
        raise ConfigurationError(
            f"none of {ATTEMPTS} pairs is at least {self._patch_size} pixels wide and high; lower patch_size or check --data"
        )

    def _positions(self, number: int) -> Iterator[int]:
        """Where the pair of a number lies, and then those that may take its place."""
        epoch, position = divmod(number, len(self))
        yield int(self._order(epoch)[position]) if self._shuffle else position
        rng = generator(self._seed, "stored pair", number, _INSTEAD)
        for _ in range(ATTEMPTS - 1):
            yield int(rng.integers(len(self)))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            shuffled = generator(self._seed, "order of stored pairs", epoch, _ORDER).permutation(len(self))
            self._orders = {each: self._orders[each] for each in (epoch - 1,) if each in self._orders} | {
                epoch: shuffled
            }
        return self._orders[epoch]

    def _windows(self, pair: StoredPair, number: int) -> tuple[_Window, _Window] | None:
        """What is cut from the clean and the degraded picture; None if they are too small."""
        height, width = pair.clean.shape[:2]
        size = self._patch_size
        if size is None:
            return (0, 0, height, width), (0, 0, *pair.degraded.shape[:2])
        if size > min(height, width):
            return None
        factor = _factor(pair, size)
        rng = generator(self._seed, "stored pair", number, _PLACE)
        top, left = (int(rng.integers((side - size) // factor + 1)) for side in (height, width))
        small = size // factor
        return (top * factor, left * factor, size, size), (top, left, small, small)

    def _cut(self, pair: StoredPair, clean: _Window, degraded: _Window) -> DrawnPair:
        parameters = json.loads(pair.details or b"{}").get("parameters", {}) if self._with_parameters else {}
        return DrawnPair(
            pair.key,
            _planes(pair.clean, clean, self._channels[0]),
            _planes(pair.degraded, degraded, self._channels[1]),
            parameters,
        )


_Window = tuple[int, int, int, int]  # top, left, height, width


def _planes(samples: Samples, window: _Window, channels: int | None) -> Floats:
    top, left, height, width = window
    part = samples[top : top + height, left : left + width]
    return float_planes(part if channels is None else with_channels(part, CHANNELS[channels]))


def _factor(pair: StoredPair, size: int) -> int:
    """How many times smaller the degraded picture is."""
    clean, degraded = pair.clean.shape[:2], pair.degraded.shape[:2]
    factor = clean[0] // degraded[0] if degraded[0] else 0
    if factor < 1 or (degraded[0] * factor, degraded[1] * factor) != clean:
        raise ConfigurationError(
            f"pair {pair.key!r}: the degraded picture's {degraded[1]}x{degraded[0]} pixels are no whole fraction of the clean "
            f"one's {clean[1]}x{clean[0]}, so no window is at the same place in both; leave patch_size out"
        )
    if size % factor:
        raise ConfigurationError(
            f"patch_size {size} is no multiple of {factor}, by which the degraded pictures are smaller; choose another"
        )
    return factor


def holds_pairs(data: Sequence[str]) -> bool:
    """Whether shards and folders hold pairs: told by the first record of each tar, and by the names of files.

    Raises:
        ConfigurationError: nothing found.
    """
    return any(find_tables(pattern) or any(_is_paired(unit) for unit in plan_units(pattern).units) for pattern in data)


def _is_paired(unit: Unit) -> bool:
    if unit.kind != "tar":
        return any(member.field.startswith("degraded.") for member in unit.members)
    first = next(read_tar(unit.files[0].url), None)
    return first is not None and any(name.startswith("degraded.") for name in first.fields)


def _refuse_unpaired(index: RecordIndex) -> None:
    alone = np.flatnonzero(~index.paired())
    if len(alone) == len(index):
        raise ConfigurationError(
            "the data holds no pairs: no record has a degraded picture; run `conservator degrade` first"
        )
    if len(alone):
        raise ConfigurationError(
            f"record {index.key(int(alone[0]))!r} has no degraded picture, but others have; do not mix pairs and clean pictures"
        )
