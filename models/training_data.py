"""Pairs to learn from: cut on the fly from clean pictures by a degradation recipe, or read as stored pairs.

Every draw is a function of (seed, number of the draw), so that a resumed run sees exactly the patches that an undisturbed
one sees, whatever the number of loading processes. Pictures stay in memory as the integers they came as.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.recipes import Pair, Recipe
from models.recipes.channels import with_channels
from transforms.errors import ConfigurationError, RecordError
from transforms.formats.folder import read_members
from transforms.formats.tar import read_tar
from transforms.pictures import decode
from transforms.randomness import generator
from transforms.record import Record, degraded_field, source_field
from transforms.units import plan_units
from transforms.value_range import Samples, to_float, to_u8

Floats = NDArray[np.float32]
MEMORY_LIMIT_BYTES = (
    8 << 30
)  # clean pictures of the usual training sets take 0.1 GB; beyond this, a machine of this project's size swaps
_CHANNELS = {1: "gray", 3: "rgb"}
ATTEMPTS = 100  # patches that a recipe may reject (flat ones, say) before the data is called unfit


@dataclass(frozen=True)
class TrainingPicture:
    """A clean picture, and its degraded twin if it was stored with one. H x W x C, C as the network wants."""

    key: str
    clean: NDArray[Any]
    degraded: NDArray[Any] | None = None

    def degraded_or_fail(self) -> NDArray[Any]:
        if self.degraded is None:
            raise ConfigurationError(
                f"record {self.key!r} has no degraded picture, but others have; do not mix pairs and clean pictures"
            )
        return self.degraded


class PairSource(Protocol):
    """Where the loop gets its examples."""

    def draw(self, number: int) -> tuple[Floats, Floats]:
        """Clean and degraded patch, each C x P x P; the same for the same number."""


class FreshPairs:
    """Cuts patches from clean pictures, chosen in proportion to their area, and degrades them by a recipe."""

    def __init__(self, pictures: Sequence[TrainingPicture], recipe: Recipe, patch_size: int, seed: int) -> None:
        self._pictures = _large_enough(pictures, patch_size)
        self._recipe, self._patch_size, self._seed = recipe, patch_size, seed
        self._shares = _cumulative_areas(self._pictures)

    def draw(self, number: int) -> tuple[Floats, Floats]:
        rng = generator(self._seed, "training draw", patch=number)
        for attempt in range(ATTEMPTS):
            picture = self._pictures[int(np.searchsorted(self._shares, rng.random(), side="right"))]
            pair = self._recipe.pair(
                picture.clean, key=picture.key, patch=number + (attempt << 40), seed=self._seed, size=self._patch_size
            )
            if isinstance(pair, Pair):
                return _planar(pair.clean), _planar(pair.degraded)
        raise ConfigurationError(
            f"the recipe rejected {ATTEMPTS} patches in a row; lower its rejection threshold or use other pictures"
        )


class StoredPairs:
    """Cuts the same window from both halves of pairs that `degrade` wrote."""

    def __init__(self, pictures: Sequence[TrainingPicture], patch_size: int, seed: int) -> None:
        self._pictures = _large_enough(pictures, patch_size)
        self._patch_size, self._seed = patch_size, seed
        self._shares = _cumulative_areas(self._pictures)

    def draw(self, number: int) -> tuple[Floats, Floats]:
        rng = generator(self._seed, "training draw", patch=number)
        picture = self._pictures[int(np.searchsorted(self._shares, rng.random(), side="right"))]
        height, width = picture.clean.shape[:2]
        top = int(rng.integers(height - self._patch_size + 1))
        left = int(rng.integers(width - self._patch_size + 1))
        window = np.s_[top : top + self._patch_size, left : left + self._patch_size]
        return _planar(to_float(picture.clean[window])), _planar(to_float(picture.degraded_or_fail()[window]))


def pair_source(pictures: Sequence[TrainingPicture], recipe: Recipe, patch_size: int, seed: int) -> PairSource:
    """Stored pairs if the data holds pairs, otherwise fresh ones."""
    if any(picture.degraded is not None for picture in pictures):
        return StoredPairs(pictures, patch_size, seed)
    return FreshPairs(pictures, recipe, patch_size, seed)


def load_pictures(data: Sequence[str], channels: int, scales: Sequence[float] = (1.0,)) -> list[TrainingPicture]:
    """Reads all records of shards and folders into memory.

    Args:
        data: URLs, patterns and `@lists` of tars, folders or pictures.
        channels: 1 turns colour into luma, 3 repeats grey.
        scales: each clean picture is held once per scale, reduced bicubically; stored pairs are taken as they are.

    Raises:
        ConfigurationError: nothing found, a record that can't be read, or more than 8 GB of samples.
    """
    pictures: list[TrainingPicture] = []
    held = 0
    for record in _records(data):
        for picture in _pictures_of(record, channels, scales):
            pictures.append(picture)
            held += picture.clean.nbytes + (picture.degraded.nbytes if picture.degraded is not None else 0)
        if held > MEMORY_LIMIT_BYTES:
            raise ConfigurationError(
                f"the training data exceeds {MEMORY_LIMIT_BYTES >> 30} GB in memory after {len(pictures)} pictures; "
                "name fewer shards in --data"
            )
    return pictures


def split_held_out(
    pictures: Sequence[TrainingPicture], share: float
) -> tuple[list[TrainingPicture], list[TrainingPicture]]:
    """Training and validation pictures by the hash of the key: a new picture never moves another one across."""
    training = [picture for picture in pictures if _rank(picture.key) >= share]
    return training, [picture for picture in pictures if _rank(picture.key) < share]


def first_by_hash(pictures: Sequence[TrainingPicture], limit: int) -> list[TrainingPicture]:
    """At most `limit` pictures, the same ones whatever the order."""
    return sorted(pictures, key=lambda picture: (_rank(picture.key), picture.key))[:limit]


def digest(pictures: Sequence[TrainingPicture]) -> str:
    """Hash of all keys and samples, in order: two runs with the same digest see the same pictures."""
    total = hashlib.blake2b(digest_size=16)
    for picture in pictures:
        for samples in (picture.clean, picture.degraded):
            if samples is not None:
                total.update(f"{picture.key}/{samples.shape}/{samples.dtype}".encode())
                total.update(np.ascontiguousarray(samples).data)
    return total.hexdigest()


def _rank(key: str) -> float:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest(), "big") / 2**48


def _records(data: Sequence[str]) -> Iterator[Record]:
    for pattern in data:
        for unit in plan_units(pattern).units:
            yield from read_tar(unit.files[0].url) if unit.kind == "tar" else read_members(unit.members)


def _pictures_of(record: Record, channels: int, scales: Sequence[float]) -> Iterator[TrainingPicture]:
    try:
        if record.error is not None:
            raise record.error
        source = source_field(record.fields)
        clean = with_channels(_decoded(record.fields, source), _CHANNELS[channels])
        degraded = _stored_degraded(record.fields)
    except RecordError as error:
        raise ConfigurationError(
            f"training record {record.key!r} can't be used: {error}; repair it or leave it out of --data"
        ) from error
    if degraded is not None:
        yield TrainingPicture(record.key, clean, with_channels(degraded, _CHANNELS[channels]))
        return
    for scale in scales:
        yield TrainingPicture(record.key if scale == 1 else f"{record.key}@{scale:g}", _reduced(to_u8(clean), scale))


def _stored_degraded(fields: dict[str, bytes]) -> Samples | None:
    if "degraded.npy" in fields:
        stored: Samples = np.load(io.BytesIO(fields["degraded.npy"]), allow_pickle=False)
        return stored if stored.ndim == 3 else stored[..., None]
    if not any(name.startswith("degraded.") for name in fields):
        return None
    return _decoded(fields, degraded_field(fields))


def _decoded(fields: dict[str, bytes], name: str) -> Samples:
    return decode(fields[name], name).samples


def _reduced(samples: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    if scale == 1:
        return samples
    height, width = (max(1, round(side * scale)) for side in samples.shape[:2])
    planes = [
        Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC) for plane in np.moveaxis(samples, 2, 0)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def _large_enough(pictures: Sequence[TrainingPicture], patch_size: int) -> list[TrainingPicture]:
    kept = [picture for picture in pictures if min(picture.clean.shape[:2]) >= patch_size]
    if not kept:
        raise ConfigurationError(
            f"none of {len(pictures)} pictures is at least {patch_size} pixels wide and high; "
            "lower patch_size or check --data"
        )
    return kept


def _cumulative_areas(pictures: Sequence[TrainingPicture]) -> NDArray[np.float64]:
    areas = np.array([picture.clean.shape[0] * picture.clean.shape[1] for picture in pictures], dtype=np.float64)
    shares: NDArray[np.float64] = np.cumsum(areas / areas.sum())
    shares[-1] = 1.0  # the sum may round below one, and the last draw would fall off the end
    return shares


def _planar(image: Floats) -> Floats:
    return np.ascontiguousarray(np.moveaxis(image, 2, 0), dtype=np.float32)
