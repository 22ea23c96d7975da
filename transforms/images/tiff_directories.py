"""TIFF directories (IFDs), which TIFF files and EXIF blocks share: a header, then tables of tagged values.

Sources: TIFF 6.0 section 2; BigTIFF as libtiff reads it. Damage of one value does not hide the others.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from fractions import Fraction

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, XMP, ICC_PROFILE = 274, 282, 283, 296, 700, 34675
LONG = 4

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes
INTEGER_FORMATS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MOST_ENTRIES = 4096  # more is damage: the standards know some 500 tags


class TiffError(ValueError):
    """A header or directory can't be read. `ends_early` says that it would stand behind the end of the data."""

    def __init__(self, message: str, *, ends_early: bool = False) -> None:
        super().__init__(message)
        self.ends_early = ends_early


@dataclass(frozen=True)
class Layout:
    """Byte order (`<` or `>`), whether it is BigTIFF, and where the first directory stands."""

    order: str
    big: bool
    first: int


@dataclass(frozen=True)
class Entry:
    """One value: its TIFF type, how many, the bytes in the file's order, and where in the file they stand."""

    type: int
    count: int
    raw: bytes
    offset: int


@dataclass
class Directory:
    """Entries by tag; the tags whose values lie outside the data; where the next directory stands: 0 for none,
    None if the data ends before it is said.
    """

    order: str
    entries: dict[int, Entry] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    following: int | None = None

    def integers(self, tag: int) -> tuple[int, ...]:
        """Values of an integer tag; empty if it is missing or of another type."""
        entry = self.entries.get(tag)
        if entry is None or entry.type not in INTEGER_FORMATS:
            return ()
        return struct.unpack(f"{self.order}{entry.count}{INTEGER_FORMATS[entry.type]}", entry.raw)

    def integer(self, tag: int, default: int) -> int:
        """The first value of an integer tag."""
        return (self.integers(tag) or (default,))[0]

    def rational(self, tag: int) -> Fraction | None:
        """The first value of a RATIONAL tag; None if it is missing, of another type, or divides by zero."""
        entry = self.entries.get(tag)
        if entry is None or entry.type not in (5, 10) or not entry.count:
            return None
        numerator, denominator = struct.unpack(self.order + ("II" if entry.type == 5 else "ii"), entry.raw[:8])
        return Fraction(numerator, denominator) if denominator else None

    def dots_per_inch(self) -> tuple[float, float] | None:
        """(horizontal, vertical) resolution, or None if the directory gives none in inches or centimetres."""
        x, y, unit = self.rational(X_RESOLUTION), self.rational(Y_RESOLUTION), self.integer(RESOLUTION_UNIT, 2)
        if x is None or y is None or x <= 0 or y <= 0 or unit not in (2, 3):
            return None
        inch = Fraction(1) if unit == 2 else Fraction(254, 100)
        return float(x * inch), float(y * inch)


def read_layout(data: bytes) -> Layout:
    """Reads the header of a TIFF file or EXIF block.

    Raises:
        TiffError: it is none, or cut off.
    """
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        raise TiffError(f"TIFF header starts with {bytes(data[:4])!r}, expected II or MM")
    if len(data) < 8:
        raise TiffError("TIFF header is cut off", ends_early=True)
    version, first = struct.unpack_from(order + "HI", data, 2)
    if version == 42:
        return Layout(order, False, first)
    if version != 43:
        raise TiffError(f"TIFF version is {version}, expected 42 or 43")
    if len(data) < 16:
        raise TiffError("BigTIFF header is cut off", ends_early=True)
    return Layout(order, True, struct.unpack_from(order + "Q", data, 8)[0])


def read_directory(data: bytes, layout: Layout, offset: int) -> Directory:
    """Reads the directory at `offset`; where a tag stands twice, the first counts.

    Raises:
        TiffError: it lies outside the data, or has an absurd size.
    """
    counter, slot, word = ("Q", "HHQ8s", "Q") if layout.big else ("H", "HHI4s", "I")
    slot_format, word_format = struct.Struct(layout.order + slot), struct.Struct(layout.order + word)
    start = offset + struct.calcsize(layout.order + counter)
    if offset < 8 or start > len(data):
        raise TiffError(f"directory at byte {offset} lies outside the {len(data)} bytes", ends_early=offset >= 8)
    (count,) = struct.unpack_from(layout.order + counter, data, offset)
    if not 0 < count <= _MOST_ENTRIES:
        raise TiffError(f"directory has {count} entries, expected 1 to {_MOST_ENTRIES}")
    after = start + count * slot_format.size
    if after > len(data):
        raise TiffError("directory is cut off", ends_early=True)
    directory = Directory(layout.order)
    for position in range(start, after, slot_format.size):
        tag, kind, items, value = slot_format.unpack_from(data, position)
        size, where = SIZES.get(kind, 0) * items, position + slot_format.size - len(value)
        if size > len(value):
            (where,) = word_format.unpack(value)
        if where + size > len(data):
            directory.lost.add(tag)
        elif tag not in directory.entries:
            directory.entries[tag] = Entry(kind, items if size else 0, data[where : where + size], where)
    if after + word_format.size <= len(data):
        (directory.following,) = word_format.unpack_from(data, after)
    return directory
