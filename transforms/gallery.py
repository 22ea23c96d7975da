"""The pictures of a report: crops that the units kept beside their ledgers, chosen for the whole run."""

from __future__ import annotations

import base64
import io
import math
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, UnidentifiedImageError

from transforms.ledger import samples_name
from transforms.series import Place, Series
from transforms.storage import OutputStore

_ROLES = ("degraded", "restored", "clean")
_SUFFIX = ".webp"


@dataclass(frozen=True)
class Crop:
    """A small picture, ready to stand in the page."""

    role: str
    width: int
    height: int
    data_url: str


@dataclass(frozen=True)
class Exhibit:
    """One record in a gallery: a left and a right picture under the slider, and the reference where there is one."""

    place: Place
    rank: int
    row: Mapping[str, Any]
    left: Crop | None
    right: Crop
    reference: Crop | None

    @property
    def key(self) -> str:
        return self.place[1]


@dataclass
class Gallery:
    """Collects crops while ledgers pass by, and only those that may be shown.

    Attributes:
        ranking: distribution whose extremes are shown; None shows the first records that have crops.
        size: exhibits in each direction.
    """

    store: OutputStore
    ranking: Series | None
    size: int
    _found: dict[Place, tuple[Mapping[str, Any], dict[str, Crop]]] = field(default_factory=dict)

    def offer(self, ledger: Mapping[str, Any]) -> None:
        """Reads a unit's samples if one of its records may be shown."""
        if not ledger.get("samples"):
            return
        wanted = self._wanted(ledger)
        if not wanted:
            return
        crops = read_samples(self.store, ledger["unit"])
        for row in ledger["records"]:
            place = (ledger["unit"], row["key"], row["index"])
            if row["key"] in crops and (self.ranking is None or place in wanted):
                self._found[place] = row, crops[row["key"]]

    def _wanted(self, ledger: Mapping[str, Any]) -> set[Place]:
        if self.ranking is None:
            rows = ledger["records"] if len(self._found) < 2 * self.size else []
            return {(ledger["unit"], row["key"], row["index"]) for row in rows}
        extremes = [place for _, place in (*self.ranking.worst(), *self.ranking.best())]
        return {place for place in extremes if place[0] == ledger["unit"]}

    def worst(self) -> list[Exhibit]:
        """The lowest figures first; without a ranking, records in order."""
        places = [place for _, place in self.ranking.worst()] if self.ranking else sorted(self._found)
        return self._exhibit(places, set())[: self._share()]

    def best(self) -> list[Exhibit]:
        """The highest figures first, none of them shown among the worst."""
        if self.ranking is None:
            return []
        shown = {exhibit.place for exhibit in self.worst()}
        return self._exhibit([place for _, place in self.ranking.best()], shown)[: self.size]

    def _share(self) -> int:
        if self.ranking is None:
            return 2 * self.size
        return min(self.size, math.ceil(len(self._found) / 2))

    def _exhibit(self, places: Iterable[Place], shown: set[Place]) -> list[Exhibit]:
        exhibits = []
        for rank, place in enumerate(places, start=1):
            if place in self._found and place not in shown:
                row, crops = self._found[place]
                exhibits.append(_exhibit(place, rank, row, crops))
        return exhibits


def _exhibit(place: Place, rank: int, row: Mapping[str, Any], crops: Mapping[str, Crop]) -> Exhibit:
    """Before and after under the slider; where one of them is missing, the reference takes part."""
    present = [crops[role] for role in _ROLES if role in crops]
    if len(present) == 1:
        return Exhibit(place, rank, row, None, present[0], None)
    return Exhibit(place, rank, row, present[0], present[1], present[2] if len(present) == 3 else None)


def read_samples(store: OutputStore, unit_name: str) -> dict[str, dict[str, Crop]]:
    """Record key -> role -> crop, from a unit's samples; empty where they are gone or damaged."""
    data = store.read(samples_name(unit_name))
    found: dict[str, dict[str, Crop]] = {}
    if data is None:
        return found
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                key, _, role = member.name.removesuffix(_SUFFIX).rpartition(".")
                crop = _read_crop(role, content.read()) if content is not None and role in _ROLES else None
                if crop is not None:
                    found.setdefault(key, {})[role] = crop
    except tarfile.TarError:
        return found  # what could be read may be shown: samples only illustrate
    return found


def _read_crop(role: str, data: bytes) -> Crop | None:
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as picture:
            width, height = picture.size
    except (UnidentifiedImageError, OSError):
        return None
    return Crop(role, width, height, "data:image/webp;base64," + base64.b64encode(data).decode())
