"""Clean pictures to learn from: in memory as the 8-bit samples they came as, or on disk where they would not fit.

Free of torch. The pairs that are made of them, and stored pairs, are in `models.datasets`.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.recipes.channels import with_channels
from transforms.errors import ConfigurationError, RecordError
from transforms.formats.folder import read_members
from transforms.formats.indexed import RecordIndex, index_records
from transforms.formats.tar import read_tar
from transforms.images.header import sniff
from transforms.pictures import FORMATS, decode
from transforms.randomness import share_of
from transforms.record import Record, source_field
from transforms.units import plan_units
from transforms.value_range import to_u8

log = logging.getLogger(__name__)

MEMORY_LIMIT_BYTES = 8 << 30  # clean pictures of the usual training sets take 0.1 GB
CHANNELS = {0: "as_is", 1: "gray", 3: "rgb"}  # a network's channels as a recipe says them
# What a key has on top of the key of the picture that it was cut from or reduced from.
_CUT_OR_REDUCED = re.compile(r"(@[\d.]+)?(-p\d{5,})?(-v\d+)?$")


class CleanPicture(Protocol):
    """A clean picture, wherever its samples are."""

    @property
    def key(self) -> str:
        """Unique inside the data set."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, known without the samples."""

    @property
    def clean(self) -> NDArray[np.uint8]:
        """Samples, H x W x C, C as the network wants."""

    def identity(self) -> Iterator[bytes | memoryview]:
        """What a digest needs of it."""


P = TypeVar("P", bound=CleanPicture)


@dataclass(frozen=True)
class TrainingPicture:
    """A clean picture in memory. H x W x C, C as the network wants."""

    key: str
    clean: NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.clean.shape[:2]
        return height, width

    def identity(self) -> Iterator[bytes | memoryview]:
        yield f"{self.key}/{self.clean.shape}/{self.clean.dtype}".encode()
        yield np.ascontiguousarray(self.clean).data


@dataclass(frozen=True)
class PictureOnDisk:
    """A clean picture that is read and decoded when its samples are asked for.

    Attributes:
        size: as stored; a picture that is turned upright on reading has the two exchanged.
        number: of the record.
        scale: of its reduction.
    """

    key: str
    size: tuple[int, int]
    number: int
    scale: float
    source: PicturesOnDisk = field(repr=False, compare=False)

    @property
    def clean(self) -> NDArray[np.uint8]:
        return self.source.samples(self.number, self.scale)

    def identity(self) -> Iterator[bytes | memoryview]:
        yield f"{self.key}/{self.size}/{self.source.digest}".encode()


class PicturesOnDisk:
    """Decodes the pictures of an index; those used last are kept, up to `kept_bytes` in each process."""

    def __init__(self, index: RecordIndex, channels: int, kept_bytes: int) -> None:
        self.index, self.digest = index, index.digest()
        self._channels, self._kept_bytes = channels, kept_bytes
        self._kept: OrderedDict[tuple[int, float], NDArray[np.uint8]] = OrderedDict()
        self._held = 0

    def pictures(self, scales: Sequence[float]) -> Iterator[PictureOnDisk]:
        """All of them, after a look at each header."""
        for number in range(len(self.index)):
            record = _read(self.index, number)
            with _Blame(record.key):
                data = record.fields[source_field(record.fields)]
                header = FORMATS[sniff(data)].read_header(data)
            for scale in scales:
                size = _scaled(header.height, header.width, scale)
                yield PictureOnDisk(_scaled_key(record.key, scale), size, number, scale, self)

    def samples(self, number: int, scale: float) -> NDArray[np.uint8]:
        """One picture's samples, H x W x C."""
        place = (number, scale)
        if (kept := self._kept.get(place)) is not None:
            self._kept.move_to_end(place)
            return kept
        samples = _reduced(_clean_samples(_read(self.index, number), self._channels), scale)
        self._kept[place] = samples
        self._held += samples.nbytes
        while self._held > self._kept_bytes:
            self._held -= self._kept.popitem(last=False)[1].nbytes
        return samples

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_kept": OrderedDict(), "_held": 0}


def load_pictures(
    data: Sequence[str], channels: int, scales: Sequence[float] = (1.0,), limit_bytes: int = MEMORY_LIMIT_BYTES
) -> Sequence[CleanPicture]:
    """The clean pictures of all records of shards and folders: `clean.*`, or a record's only picture.

    Args:
        data: URLs, patterns and `@lists` of tars, folders or pictures.
        channels: 1 turns colour into luma, 3 repeats grey, 0 leaves each picture its own.
        scales: each picture is there once per scale, reduced bicubically.
        limit_bytes: what may be held in memory. Where the samples take more, they stay on disk and each draw decodes a
            picture unless it is among those used last: stored pairs are quicker then.

    Raises:
        ConfigurationError: nothing found, or a record that can't be read.
    """
    pictures: list[TrainingPicture] = []
    held = 0
    for record in _records(data):
        clean = _clean_samples(record, channels)
        for scale in scales:
            pictures.append(TrainingPicture(_scaled_key(record.key, scale), _reduced(clean, scale)))
            held += pictures[-1].clean.nbytes
        if held > limit_bytes:
            log.warning(
                "the pictures exceed %.1f GB after %d of them and stay on disk; `conservator degrade` makes pairs of them "
                "that are read more quickly", limit_bytes / 2**30, len(pictures)
            )  # fmt: skip
            del pictures
            return list(PicturesOnDisk(index_records(data), channels, limit_bytes // 2).pictures(scales))
    return pictures


def split_held_out(pictures: Sequence[P], share: float) -> tuple[list[P], list[P]]:
    """Training and validation pictures by the hash of the key: a new picture never moves another one across, and what was
    reduced from one picture stays together."""
    training = [picture for picture in pictures if rank(picture.key) >= share]
    return training, [picture for picture in pictures if rank(picture.key) < share]


def first_by_hash(pictures: Sequence[P], limit: int) -> list[P]:
    """At most `limit` pictures, the same ones whatever the order."""
    return sorted(pictures, key=lambda picture: (rank(picture.key), picture.key))[:limit]


def rank(key: str) -> float:
    """A number in [0, 1) that follows from a key alone, the same for all that was cut or reduced from one picture."""
    return share_of(_CUT_OR_REDUCED.sub("", key))


def digest(pictures: Sequence[CleanPicture]) -> str:
    """Hash of all keys and samples, in order: two runs with the same digest see the same pictures. Of pictures on disk it is
    the digest of their index."""
    total = hashlib.blake2b(digest_size=16)
    for picture in pictures:
        for part in picture.identity():
            total.update(part)
    return total.hexdigest()


class _Blame:
    """Turns what is wrong with a record into what is wrong with --data."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RecordError):
            raise ConfigurationError(
                f"training record {self._key!r} can't be used: {error}; repair it or leave it out of --data"
            ) from error


def _records(data: Sequence[str]) -> Iterator[Record]:
    for pattern in data:
        for unit in plan_units(pattern).units:
            yield from read_tar(unit.files[0].url) if unit.kind == "tar" else read_members(unit.members)


def _read(index: RecordIndex, number: int) -> Record:
    with _Blame(index.key(number)):
        part, inside = index.at(number)
        return part.read(inside)


def _clean_samples(record: Record, channels: int) -> NDArray[np.uint8]:
    with _Blame(record.key):
        if record.error is not None:
            raise record.error
        name = source_field(record.fields)
        return to_u8(with_channels(decode(record.fields[name], name).samples, CHANNELS[channels]))


def _scaled_key(key: str, scale: float) -> str:
    return key if scale == 1 else f"{key}@{scale:g}"


def _scaled(height: int, width: int, scale: float) -> tuple[int, int]:
    return max(1, round(height * scale)), max(1, round(width * scale))


def _reduced(samples: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    if scale == 1:
        return samples
    height, width = _scaled(samples.shape[0], samples.shape[1], scale)
    planes = [
        Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC) for plane in np.moveaxis(samples, 2, 0)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)
