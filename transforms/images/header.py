"""What is known of a picture before its pixels, and the seam between `transforms.pictures` and the formats."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from transforms.errors import Reason, RecordError
from transforms.images.options import EncodeOptions

METADATA_LIMIT = 64 << 20  # bytes of one inflated metadata block; profiles are rarely above 2 MB

NOTE_ICC = "ICC profile unreadable, left out"
NOTE_XMP = "XMP unreadable, left out"


@dataclass
class Header:
    """What a file says before its pixels.

    Attributes:
        kind: png, jpeg, tiff, webp, bmp, npy.
        width, height: as stored, before orientation.
        channels: as stored, alpha included; 1 for a palette.
        bits: of one sample.
        icc, exif, xmp, dpi: as in `transforms.pictures.Picture`; EXIF as stored.
        orientation: that the container itself gives (TIFF); 1 where EXIF decides.
        notes: what was converted or left out.
        detail: what only this kind's decoder needs.
    """

    kind: str
    width: int = 0
    height: int = 0
    channels: int = 3
    bits: int = 8
    palette: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    orientation: int = 1
    notes: list[str] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Adds a note once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass
class Pixels:
    """H x W x C with C in {1, 3}, and H x W alpha of the same dtype, or None."""

    samples: NDArray[Any]
    alpha: NDArray[Any] | None = None


class Metadata(Protocol):
    """The blocks that travel with a picture."""

    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    dpi: tuple[float, float] | None


class Format(Protocol):
    """A module that reads and writes one kind of file. The constants say what the format can hold."""

    NAME: str
    HOLDS_16_BIT: bool
    HOLDS_ALPHA: bool
    HOLDS_GREY: bool
    LARGEST_SIDE: int

    def read_header(self, data: bytes) -> Header:
        """Parses the container without decoding pixels. Raises RecordError: `TRUNCATED`, `CORRUPT`, `UNSUPPORTED`."""

    def decode(self, header: Header, data: bytes) -> Pixels:
        """Decodes the pixels as stored; notes conversions in `header`. Whatever it raises means a damaged file."""

    def encode(self, pixels: NDArray[Any], metadata: Metadata, options: EncodeOptions, notes: list[str]) -> bytes:
        """Encodes H x W or H x W x (2..4); appends to `notes` which metadata the format can't hold."""


def cut(what: str) -> RecordError:
    """A dead letter for a file that ends inside `what`."""
    return RecordError(Reason.TRUNCATED, f"the file ends inside {what}")


def corrupt(what: str) -> RecordError:
    """A dead letter for a damaged file."""
    return RecordError(Reason.CORRUPT, what)


def unsupported(what: str) -> RecordError:
    """A dead letter for a file that is whole, but of a kind that is refused; `what` names the remedy."""
    return RecordError(Reason.UNSUPPORTED, what)


def valid_icc(profile: bytes, header: Header) -> bytes | None:
    """The profile if it looks like one (ICC.1 section 7.2: a header of 128 bytes, `acsp` at byte 36), else None
    and a note.
    """
    if len(profile) >= 132 and profile[36:40] == b"acsp":
        return profile
    header.note(NOTE_ICC)
    return None


def inflate(data: bytes) -> bytes | None:
    """Inflates a metadata block; None if it is damaged or absurdly large."""
    engine = zlib.decompressobj()
    try:
        out = engine.decompress(data, METADATA_LIMIT)
    except zlib.error:
        return None
    return out if engine.eof else None


def per_inch(x_per_metre: int, y_per_metre: int) -> tuple[float, float] | None:
    """Dots per inch of whole dots per metre; None unless both are positive.

    Half a dot per metre is 0.0127 per inch: a whole number of dots per inch that near is what was meant.
    """
    if x_per_metre <= 0 or y_per_metre <= 0:
        return None
    x, y = (dots * 0.0254 for dots in (x_per_metre, y_per_metre))
    return (float(round(x)) if abs(x - round(x)) < 0.0128 else x, float(round(y)) if abs(y - round(y)) < 0.0128 else y)


def per_metre(dpi: tuple[float, float]) -> tuple[int, int]:
    """Whole dots per metre of dots per inch."""
    return round(dpi[0] / 0.0254), round(dpi[1] / 0.0254)


def split_alpha(pixels: NDArray[Any]) -> Pixels:
    """Separates colour and alpha of H x W or H x W x (1..4), into contiguous arrays."""
    if pixels.ndim == 2:
        return Pixels(pixels[:, :, None])
    if pixels.shape[2] in (1, 3):
        return Pixels(pixels)
    return Pixels(np.ascontiguousarray(pixels[:, :, :-1]), np.ascontiguousarray(pixels[:, :, -1]))


def is_grey(table: NDArray[Any]) -> bool:
    """Whether all colours of an N x 3 table are grey."""
    return bool((table == table[:, :1]).all())


def resolve_palette(header: Header, pixels: Pixels, table: NDArray[Any]) -> Pixels:
    """Palette pictures become grey if all colours of `table` (N x 3) are, unless an RGB profile belongs to them;
    else RGB.
    """
    grey = is_grey(table) and (header.icc is None or header.icc[16:20] == b"GRAY")
    header.note("palette converted to grey" if grey else "palette converted to RGB")
    return Pixels(np.ascontiguousarray(pixels.samples[:, :, :1]), pixels.alpha) if grey else pixels


_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\x93NUMPY", "npy"),
)
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)
_FOREIGN = (  # pictures, but of kinds that are refused
    (re.compile(rb"GIF8[79]a"), "GIF"),
    (re.compile(rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb"....ftyp(avif|avis)", re.DOTALL), "AVIF"),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a"), "JPEG XL"),
    (re.compile(rb"8BPS\0[\1\2]"), "Photoshop"),
    (re.compile(rb"v/1\x01"), "OpenEXR"),
    (re.compile(rb"#\?(RADIANCE|RGBE)"), "Radiance HDR"),
    (re.compile(rb"P[1-7fF][ \t\r\n]"), "Netpbm"),
    (re.compile(rb"\x8aMNG\r\n|\x8bJNG\r\n"), "MNG"),
    (re.compile(rb"\0\0[\1\2]\0.\0", re.DOTALL), "a Windows icon"),
    (re.compile(rb"%PDF-"), "PDF"),
    (re.compile(rb"DDS \x7c"), "a DirectDraw surface"),
    (re.compile(rb"qoif"), "QOI"),
)


def sniff(data: bytes) -> str:
    """The container's kind by its first bytes.

    Raises:
        RecordError: `EMPTY`, `TRUNCATED` (the data ends inside a signature), `UNSUPPORTED` (a picture of a kind that is
            refused), `NOT_AN_IMAGE`.
    """
    if not data:
        raise RecordError(Reason.EMPTY, "zero bytes")
    head = bytes(data[:32])
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
        if signature.startswith(head):
            raise cut(f"its {kind} signature, after {len(head)} bytes")
    if head[:4] == b"RIFF" and (head[8:12] == b"WEBP" or len(head) < 12):
        if len(head) < 20:
            raise cut(f"its webp header, after {len(head)} bytes")
        return "webp"
    if head[:2] == b"BM" and (len(head) < 18 or struct.unpack("<I", head[14:18])[0] in _BMP_HEADER_SIZES):
        return "bmp"
    for pattern, name in _FOREIGN:
        if pattern.match(head):
            raise unsupported(f"the content is {name}; PNG, JPEG, TIFF, WebP and BMP are read: convert it first")
    raise RecordError(Reason.NOT_AN_IMAGE, f"the content starts with {head[:16]!r}, which is no picture that we know")
