"""The pictures of a report: crops that the units kept beside their ledgers, chosen for the whole run."""

from __future__ import annotations

import base64
import io
import json
import math
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, zip_longest
from typing import Any

from PIL import Image, UnidentifiedImageError

from transforms.ledger import samples_name
from transforms.series import Place, Series
from transforms.storage import OutputStore

_ROLES = ("degraded", "restored", "clean")
_SUFFIX, _CAPTION_SUFFIX = ".webp", ".caption.json"
# Without a ranking a few units are as good as all; small pictures fill the page up to these bounds.
_UNITS_WITHOUT_RANKING = 8
_SMALL_SIDE = 192
_MOST_WITHOUT_RANKING, _CHARACTERS_WITHOUT_RANKING = 24, 4_000_000


@dataclass(frozen=True)
class Crop:
    """A small picture, ready to stand in the page."""

    role: str
    width: int
    height: int
    data_url: str


@dataclass(frozen=True)
class Exhibit:
    """One record in a gallery: a left and a right picture under the slider, and the reference where there is one.

    Attributes:
        caption: (name, text) lines that the unit kept with the pictures.
    """

    place: Place
    rank: int
    row: Mapping[str, Any]
    left: Crop | None
    right: Crop
    reference: Crop | None
    caption: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        return self.place[1]

    @property
    def characters(self) -> int:
        """Length of the pictures in the page."""
        return sum(len(crop.data_url) for crop in (self.left, self.right, self.reference) if crop)

    @property
    def zoom(self) -> int:
        """The whole number of times that a small picture is enlarged for the page, by nearest neighbour; 1 for large ones."""
        return max(1, math.ceil(_SMALL_SIDE / max(self.right.width, self.right.height)))


@dataclass
class Kept:
    """What a unit kept of one record: crops by role, and the caption."""

    crops: dict[str, Crop] = field(default_factory=dict)
    caption: tuple[tuple[str, str], ...] = ()


@dataclass
class Gallery:
    """Collects crops while ledgers pass by, and only those that may be shown.

    Attributes:
        ranking: distribution whose extremes are shown; None shows the first records that have crops, from each of a few
            units in turn.
        size: exhibits in each direction.
    """

    store: OutputStore
    ranking: Series | None
    size: int
    _found: dict[Place, tuple[Mapping[str, Any], Kept]] = field(default_factory=dict)
    _units_read: int = 0

    def offer(self, ledger: Mapping[str, Any]) -> None:
        """Reads a unit's samples if one of its records may be shown."""
        if not ledger.get("samples"):
            return
        wanted = self._wanted(ledger)
        if not wanted:
            return
        kept = read_samples(self.store, ledger["unit"])
        self._units_read += 1
        rows = {row["key"]: row for row in ledger["records"] if row["key"] in kept}
        for key in kept:
            place = (ledger["unit"], key, rows[key]["index"]) if key in rows else None
            if place is not None and place in wanted:
                self._found[place] = rows[key], kept[key]

    def _wanted(self, ledger: Mapping[str, Any]) -> set[Place]:
        if self.ranking is None:
            rows = ledger["records"] if self._units_read < _UNITS_WITHOUT_RANKING else []
            return {(ledger["unit"], row["key"], row["index"]) for row in rows}
        extremes = [place for _, place in (*self.ranking.worst(), *self.ranking.best())]
        return {place for place in extremes if place[0] == ledger["unit"]}

    def worst(self) -> list[Exhibit]:
        """The lowest figures first; without a ranking, the first record of each unit, then each one's second, ..."""
        if self.ranking is None:
            return self._unranked()
        return self._exhibit([place for _, place in self.ranking.worst()], set())[: self._share()]

    def _unranked(self) -> list[Exhibit]:
        by_unit: dict[str, list[Place]] = {}
        for place in self._found:
            by_unit.setdefault(place[0], []).append(place)
        in_turn = [place for turn in zip_longest(*by_unit.values()) for place in turn if place is not None]
        exhibits = self._exhibit(in_turn[:_MOST_WITHOUT_RANKING], set())
        weights = accumulate(exhibit.characters for exhibit in exhibits)
        light = sum(reached <= _CHARACTERS_WITHOUT_RANKING for reached in weights)
        return exhibits[: max(light, 2 * self.size)]

    def best(self) -> list[Exhibit]:
        """The highest figures first, none of them shown among the worst."""
        if self.ranking is None:
            return []
        shown = {exhibit.place for exhibit in self.worst()}
        return self._exhibit([place for _, place in self.ranking.best()], shown)[: self.size]

    def _share(self) -> int:
        return min(self.size, math.ceil(len(self._found) / 2))

    def _exhibit(self, places: Iterable[Place], shown: set[Place]) -> list[Exhibit]:
        exhibits = []
        for rank, place in enumerate(places, start=1):
            if place in self._found and place not in shown:
                exhibits.append(_exhibit(place, rank, *self._found[place]))
        return exhibits


def _exhibit(place: Place, rank: int, row: Mapping[str, Any], kept: Kept) -> Exhibit:
    """Before and after under the slider; where one of them is missing, the reference takes part."""
    present = [kept.crops[role] for role in _ROLES if role in kept.crops]
    if len(present) == 1:
        return Exhibit(place, rank, row, None, present[0], None, kept.caption)
    return Exhibit(place, rank, row, present[0], present[1], present[2] if len(present) == 3 else None, kept.caption)


def read_samples(store: OutputStore, unit_name: str) -> dict[str, Kept]:
    """Record key -> its pictures and caption, from a unit's samples; empty where they are gone or damaged."""
    data = store.read(samples_name(unit_name))
    found: dict[str, Kept] = {}
    if data is None:
        return found
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    _add_member(found, member.name, content.read())
    except tarfile.TarError:
        pass  # what could be read may be shown: samples only illustrate
    return {key: kept for key, kept in found.items() if kept.crops}


def _add_member(found: dict[str, Kept], name: str, data: bytes) -> None:
    if name.endswith(_CAPTION_SUFFIX):
        key = name.removesuffix(_CAPTION_SUFFIX)
        found.setdefault(key, Kept()).caption = _read_caption(data)
        return
    key, _, role = name.removesuffix(_SUFFIX).rpartition(".")
    crop = _read_crop(role, data) if role in _ROLES else None
    if crop is not None:
        found.setdefault(key, Kept()).crops[role] = crop


def _read_caption(data: bytes) -> tuple[tuple[str, str], ...]:
    try:
        return tuple((str(name), str(text)) for name, text in json.loads(data))
    except (ValueError, TypeError):
        return ()


def _read_crop(role: str, data: bytes) -> Crop | None:
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as picture:
            width, height = picture.size
    except (UnidentifiedImageError, OSError):
        return None
    return Crop(role, width, height, "data:image/webp;base64," + base64.b64encode(data).decode())
