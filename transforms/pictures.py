"""Pictures: bytes to samples and back.

`decode` and `encode` keep what the formats can hold: grey stays grey, 16 bit stays 16 bit, alpha, ICC profile, EXIF,
XMP and resolution come back, the EXIF orientation is applied once. What can't be kept is said in notes. Both are
thread-safe: no global state of any library is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.errors import ConfigurationError, Reason, RecordError
from transforms.images import bmp, jpeg, npy, png, tiff, webp
from transforms.images.exif import apply_orientation, dots_per_inch, upright, upright_xmp
from transforms.images.header import Format, Header, Pixels, sniff
from transforms.images.options import EncodeOptions
from transforms.images.tiff_directories import TiffError
from transforms.record import extension
from transforms.value_range import Samples, from_float, luma_bt601, to_float, to_u8

__all__ = [
    "FORMATS",
    "KIND_OF_EXTENSION",
    "MAX_PIXELS",
    "EncodeOptions",
    "Picture",
    "Samples",
    "decode",
    "encode",
    "from_float",
    "luma_bt601",
    "to_float",
    "to_u8",
]

MAX_PIXELS = 300_000_000
KIND_OF_EXTENSION = {ending: ending for ending in ("png", "jpeg", "tiff", "webp", "bmp", "npy")} | {
    "jpg": "jpeg",
    "tif": "tiff",
}
FORMATS: dict[str, Format] = {"png": png, "jpeg": jpeg, "tiff": tiff, "webp": webp, "bmp": bmp, "npy": npy}


@dataclass
class Picture:
    """A decoded picture and what belongs to it.

    Attributes:
        samples: H x W x C, C in {1, 3} (grey, RGB), uint8, uint16, or float32 (from npy; nominal range [0, 1]);
            C-contiguous.
        alpha: H x W of the same dtype, or None. Not multiplied into the samples.
        kind: container it came from: png, jpeg, tiff, webp, bmp, npy.
        icc: ICC profile of the samples, which stay in their own colour space.
        exif: TIFF-structured block; its orientation is 1, because the samples are upright.
        dpi: (horizontal, vertical) resolution.
        notes: what was converted or left out while decoding, in stable words.
        xmp: XMP packet.
    """

    samples: Samples
    alpha: NDArray[Any] | None
    kind: str
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    xmp: bytes | None = None


def decode(data: bytes, field: str, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decodes a picture as it is stored, turned upright.

    Args:
        data: the file's bytes.
        field: name of the record's field (`degraded.png`); its ending must agree with the content. An ending that
            names no picture format is not compared.
        max_pixels: budget, compared with the header before any pixel is decoded.

    Raises:
        RecordError: `EMPTY`, `NOT_AN_IMAGE`, `WRONG_EXTENSION`, `TRUNCATED`, `CORRUPT`, `TOO_LARGE`, `UNSUPPORTED`.

    Example:
        >>> decode(b"", "degraded.png")
        Traceback (most recent call last):
        transforms.errors.RecordError: empty: zero bytes
    """
    kind = sniff(data)
    claimed = KIND_OF_EXTENSION.get(extension(field))
    if claimed is not None and claimed != kind:
        raise RecordError(Reason.WRONG_EXTENSION, f"the name says {claimed}, the content is {kind}: rename the file")
    header = FORMATS[kind].read_header(data)
    if header.width * header.height > max_pixels:
        size = f"{header.width} x {header.height} pixels"
        raise RecordError(Reason.TOO_LARGE, f"{size}; the budget is {max_pixels}: raise it if the picture is genuine")
    pixels = _decode_pixels(header, data)
    orientation = _take_orientation(header)
    alpha = None if pixels.alpha is None else apply_orientation(pixels.alpha, orientation)
    samples = apply_orientation(pixels.samples, orientation)
    return Picture(samples, alpha, kind, header.icc, header.exif, header.dpi, tuple(header.notes), header.xmp)


def _decode_pixels(header: Header, data: bytes) -> Pixels:
    try:
        pixels = FORMATS[header.kind].decode(header, data)
    except (RecordError, MemoryError):
        raise
    except Exception as error:  # decoders raise what they like on damage
        message = str(error).strip() or type(error).__name__
        raise RecordError(Reason.CORRUPT, f"the {header.kind} decoder refuses the content: {message[:200]}") from error
    height, width = pixels.samples.shape[:2]
    if (width, height) != (header.width, header.height):
        expected = f"the header says {header.width} x {header.height}"
        raise RecordError(Reason.CORRUPT, f"{width} x {height} pixels were decoded, {expected}")
    return pixels


def _take_orientation(header: Header) -> int:
    """The orientation to apply, 1 to 8. The header's blocks are set to upright, its resolution is turned along.

    EXIF counts before XMP, as in other readers; in TIFF both are the container's own tag.
    """
    orientation = header.orientation
    if header.exif is not None:
        try:
            header.exif, found = upright(header.exif)
            orientation = found if header.kind != "tiff" else orientation
        except TiffError:
            header.note("EXIF unreadable, kept as it is")
        header.dpi = header.dpi or dots_per_inch(header.exif)
    if header.xmp is not None:
        header.xmp, found = upright_xmp(header.xmp)
        orientation = found if orientation == 1 and header.exif is None and header.kind != "tiff" else orientation
    if not 0 <= orientation <= 8:
        header.note("orientation is none of 1 to 8, taken as upright")
        orientation = 1
    if orientation >= 5 and header.dpi is not None:
        header.dpi = header.dpi[::-1]
    return orientation or 1  # 0 is what many cameras write for "not known"


def encode(picture: Picture, kind: str, options: EncodeOptions) -> tuple[bytes, tuple[str, ...]]:
    """Encodes a picture; the same picture gives the same bytes.

    Args:
        picture: what to write; `picture.kind` and `picture.notes` are not looked at.
        kind: png, jpeg, tiff, webp, bmp or npy; also the endings jpg and tif.
        options: see `EncodeOptions`.

    Returns:
        The file, and notes on what the format could not hold.

    Raises:
        RecordError: `ENCODE_FAILED`: the picture is too large for the format.
        ConfigurationError: unknown kind.
    """
    known = KIND_OF_EXTENSION.get(kind)
    if known is None:
        raise ConfigurationError(f"output format {kind!r} is unknown; choose one of {', '.join(FORMATS)}")
    form, notes = FORMATS[known], list[str]()
    height, width = picture.samples.shape[:2]
    if max(height, width) > form.LARGEST_SIDE:
        limit = f"{form.NAME} holds at most {form.LARGEST_SIDE} pixels a side; choose png or tiff"
        raise RecordError(Reason.ENCODE_FAILED, f"{width} x {height} pixels: {limit}")
    pixels = _storable(picture, form, notes)
    try:
        data = form.encode(pixels, picture, options, notes)
    except (RecordError, MemoryError):
        raise
    except Exception as error:
        raise RecordError(
            Reason.ENCODE_FAILED, f"{form.NAME} refuses {pixels.shape} {pixels.dtype}: {error}"
        ) from error
    return data, tuple(notes)


def _storable(picture: Picture, form: Format, notes: list[str]) -> NDArray[Any]:
    """The array that the format stores: its depth, alpha as last channel, H x W for plain grey."""
    samples, alpha = _storable_depth(picture.samples, form, notes), picture.alpha
    if alpha is not None and not form.HOLDS_ALPHA:
        notes.append(f"alpha dropped: {form.NAME} has none")
        alpha = None
    if samples.shape[2] == 1 and not form.HOLDS_GREY:
        notes.append(f"grey stored as RGB: {form.NAME} has none")
        samples = np.repeat(samples, 3, axis=2)
    if alpha is not None:
        return np.concatenate([samples, _storable_depth(alpha, form, [])[:, :, None]], axis=2)
    return np.ascontiguousarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)


def _storable_depth(samples: NDArray[Any], form: Format, notes: list[str]) -> NDArray[Any]:
    if form is npy:
        return to_float(samples)
    if samples.dtype == np.float32:
        notes.append(f"float samples stored as {16 if form.HOLDS_16_BIT else 8} bit")
        return from_float(samples, np.uint16 if form.HOLDS_16_BIT else np.uint8)
    if samples.dtype == np.uint16 and not form.HOLDS_16_BIT:
        notes.append(f"16 bit reduced to 8: {form.NAME} has none")
        return to_u8(samples)
    return samples
