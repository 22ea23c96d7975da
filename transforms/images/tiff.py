"""TIFF 6.0 and BigTIFF: header and pixels. Writing is in `tiff_writer`.

tifffile decodes: it keeps 16 bit, releases the GIL, and refuses a strip that is too short, where libtiff fills it up.
libtiff decodes what tifffile does not: YCbCr that is not JPEG, and old-style JPEG.
"""

from __future__ import annotations

import io
import logging
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from transforms.errors import Reason, RecordError
from transforms.images.exif import block_from_directory
from transforms.images.header import Header, Pixels, corrupt, cut, resolve_palette, split_alpha, unsupported, valid_icc
from transforms.images.inks import cmyk_to_rgb
from transforms.images.jpeg import frame_size
from transforms.images.tiff_directories import (
    ICC_PROFILE,
    ORIENTATION,
    XMP,
    Directory,
    Layout,
    TiffError,
    read_directory,
    read_layout,
)
from transforms.images.tiff_writer import encode

__all__ = ["HOLDS_16_BIT", "HOLDS_ALPHA", "HOLDS_GREY", "LARGEST_SIDE", "NAME", "decode", "encode", "read_header"]

NAME = "TIFF"
HOLDS_16_BIT = HOLDS_ALPHA = HOLDS_GREY = True
LARGEST_SIDE = (1 << 31) - 1

_WHITE_IS_ZERO, _PALETTE, _INKS, _YCBCR = 0, 3, 5, 6
_COLOURS = {_WHITE_IS_ZERO: 1, 1: 1, 2: 3, _PALETTE: 1, _INKS: 4, _YCBCR: 3}  # samples without the extra ones
_REFUSED = {4: "mask", 8: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab", 32803: "camera raw", 32844: "LogL", 32845: "LogLuv"}
_REFUSED_SAMPLES = {2: "signed", 3: "float", 5: "complex", 6: "complex"}
_OLD_JPEG, _JPEG = 6, 7
_NEEDED_TAGS = frozenset({256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 320, 322, 323, 324, 325, 332, 338, 339})
_READ_AHEAD = 1 << 24  # bytes of strips that tifffile copies at a time; its default of 256 MiB is half a large picture
# Raw, fax, LZW, JPEG, deflate, PackBits, LZMA, Zstandard: whose decoders can't write more than a strip holds.
_COMPRESSIONS = (1, 2, 3, 4, 5, _OLD_JPEG, _JPEG, 8, 32773, 32946, 34925, 50000)

# What counts in a directory is checked here; tifffile's log would repeat it in its own words for each damaged file.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def read_header(data: bytes) -> Header:
    """Reads the first directory, and checks that all strips or tiles exist and lie inside the file.

    Raises:
        RecordError: `TRUNCATED`, `CORRUPT`, `UNSUPPORTED` (several pages, float or 32-bit samples, Lab, raw, ...).
    """
    try:
        layout = read_layout(data)
        directory = read_directory(data, layout, layout.first)
    except TiffError as error:
        raise RecordError(Reason.TRUNCATED if error.ends_early else Reason.CORRUPT, str(error)) from None
    if directory.following is None or directory.lost & _NEEDED_TAGS:
        raise cut("its directory")
    header = Header("tiff", directory.integer(256, 0), directory.integer(257, 0))
    if header.width <= 0 or header.height <= 0:
        raise corrupt(f"size {header.width} x {header.height}")
    _read_colours(header, directory)
    _check_segments(header, directory, data)
    _check_pages(header, data, layout, directory.following)
    _read_metadata(header, data, layout, directory)
    return header


def _read_colours(header: Header, directory: Directory) -> None:
    photometric = directory.integer(262, 1)
    depths, formats = set(directory.integers(258)) or {1}, set(directory.integers(339)) or {1}
    if photometric not in _COLOURS:
        raise unsupported(
            f"TIFF in {_REFUSED.get(photometric, f'photometric {photometric}')}: convert it to grey or RGB"
        )
    for refused in formats - {1, 4}:
        name = _REFUSED_SAMPLES.get(refused, "unknown")
        raise unsupported(f"TIFF with {name} samples: unsigned 8 or 16 bit are read")
    if len(depths) != 1 or not depths <= {1, 2, 4, 8, 16}:
        raise unsupported(f"TIFF with {sorted(depths)} bits a sample: 1, 2, 4, 8 or 16 are read")
    if directory.integer(259, 1) not in _COMPRESSIONS:
        raise unsupported(f"TIFF with compression {directory.integer(259, 1)}: store it with deflate or LZW")
    if directory.integer(32997, 1) != 1 or (photometric == _INKS and directory.integer(332, 1) != 1):
        raise unsupported("TIFF of volumes, or with inks other than CMYK: convert it to grey or RGB")
    header.bits, header.channels, header.palette = depths.pop(), directory.integer(277, 1), photometric == _PALETTE
    header.detail.update(photometric=photometric, colours=_COLOURS[photometric], extra=directory.integers(338))
    header.detail.update(compression=directory.integer(259, 1), separate=directory.integer(284, 1) == 2)
    header.detail["map"] = directory.integers(320)
    _check_colours(header)


def _check_colours(header: Header) -> None:
    colours, photometric = header.detail["colours"], header.detail["photometric"]
    if header.channels < colours:
        raise corrupt(f"{header.channels} samples a pixel, expected {colours}")
    if header.palette and (header.bits > 8 or len(header.detail["map"]) < 3 << header.bits):
        raise corrupt("a palette picture without a whole colour map")
    if header.bits < 8 and (header.channels > 1 or colours > 1):
        raise unsupported(f"TIFF with {header.channels} samples of {header.bits} bits: convert it to 8 bit")
    if header.bits == 16 and photometric in (_INKS, _YCBCR):
        raise unsupported("TIFF with 16-bit CMYK or YCbCr: convert it to RGB")


def _check_segments(header: Header, directory: Directory, data: bytes) -> None:
    """All strips or tiles are inside the file: decoders fill the missing ones with black."""
    offsets, counts = (
        directory.integers(273) or directory.integers(324),
        directory.integers(279) or directory.integers(325),
    )
    if header.detail["compression"] == _OLD_JPEG and not offsets:
        return  # it has tags of its own, and libtiff to understand them
    if header.detail["compression"] == 1 and not counts and len(offsets) == 1:
        counts = (max(0, len(data) - offsets[0]),)
    if not offsets or len(counts) != len(offsets) or 0 in offsets or 0 in counts:
        raise corrupt("strips or tiles without a place or a length")
    if any(offset + count > len(data) for offset, count in zip(offsets, counts, strict=True)):
        raise cut("its pixels")
    expected = _segments(header, directory)
    if len(offsets) < expected:
        raise corrupt(f"{len(offsets)} strips or tiles, expected {expected}")
    if header.detail["compression"] == _JPEG:
        _check_jpeg_sizes(header, directory, data, offsets)


def _check_jpeg_sizes(header: Header, directory: Directory, data: bytes, offsets: tuple[int, ...]) -> None:
    """A JPEG strip says its own size, and its decoder believes it: no larger than the strip or tile, rounded up to
    16.
    """
    width = directory.integer(322, 0) or header.width
    height = directory.integer(323, 0) or directory.integer(278, 0) or header.height
    for offset in offsets:
        found = frame_size(data, offset)
        if found is None or found[0] > -(-width // 16) * 16 or found[1] > -(-height // 16) * 16:
            raise corrupt(f"a JPEG strip of {found} for strips of {(width, height)}")


def _segments(header: Header, directory: Directory) -> int:
    """How many strips or tiles the picture needs."""
    planes = header.channels if header.detail["separate"] else 1
    if 324 not in directory.entries:
        rows = directory.integer(278, header.height) or header.height
        return -(-header.height // rows) * planes
    width, height = directory.integer(322, 0), directory.integer(323, 0)
    if width <= 0 or height <= 0 or width * height > max(1 << 24, 16 * header.width * header.height):
        raise corrupt(f"tiles of {width} x {height} for a picture of {header.width} x {header.height}")
    return -(-header.width // width) * -(-header.height // height) * planes


def _check_pages(header: Header, data: bytes, layout: Layout, following: int) -> None:
    """Further pages are refused, unless they are thumbnails or masks of the first (tags 254 and 255)."""
    seen: set[int] = set()
    while following and following not in seen:
        seen.add(following)
        try:
            page = read_directory(data, layout, following)
        except TiffError as error:
            raise RecordError(Reason.TRUNCATED if error.ends_early else Reason.CORRUPT, str(error)) from None
        if not page.integer(254, 0) & 5 and page.integer(255, 1) != 2:
            raise unsupported("TIFF with several pages: store each as a picture of its own")
        header.note("TIFF thumbnail or mask left out")
        following = page.following or 0


def _read_metadata(header: Header, data: bytes, layout: Layout, directory: Directory) -> None:
    header.dpi, header.orientation = directory.dots_per_inch(), directory.integer(ORIENTATION, 1)
    if ICC_PROFILE in directory.entries:
        header.icc = valid_icc(directory.entries[ICC_PROFILE].raw, header)
    if XMP in directory.entries:
        header.xmp = directory.entries[XMP].raw
    header.exif, notes = block_from_directory(data, layout, directory)
    for note in notes:
        header.note(note)
    header.detail["orientation_entry"] = directory.entries.get(ORIENTATION)
    header.detail["byte_order"] = "little" if layout.order == "<" else "big"


def decode(header: Header, data: bytes) -> Pixels:
    """See `Format.decode`."""
    compression = header.detail["compression"]
    if compression == _OLD_JPEG or (header.detail["photometric"] == _YCBCR and compression != _JPEG):
        return _by_libtiff(header, data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        stored = file.pages[0].asarray(maxworkers=1, buffersize=_READ_AHEAD)
    if header.detail["separate"] and stored.ndim == 3:
        stored = np.moveaxis(stored, 0, 2)
    if header.palette:
        return _look_up(header, stored)
    return _colours(header, _full_range(header, stored))


def _by_libtiff(header: Header, data: bytes) -> Pixels:
    """RGB through libtiff's RGBA interface. That turns pictures upright, which is done elsewhere: the file says 1
    here.
    """
    entry = header.detail["orientation_entry"]
    if header.orientation != 1 and entry is not None:
        one = (1).to_bytes(len(entry.raw), header.detail["byte_order"])
        data = data[: entry.offset] + one + data[entry.offset + len(one) :]
    header.note("YCbCr converted to RGB")
    return Pixels(np.ascontiguousarray(imagecodecs.tiff_decode(data, asrgb=True)[:, :, :3]))


def _full_range(header: Header, stored: NDArray[Any]) -> NDArray[Any]:
    """8 or 16 bit in native byte order, black at 0."""
    if header.bits < 8:
        header.note(f"{header.bits} bit widened to 8")
        stored = stored.astype(np.uint8) * np.uint8(255 // ((1 << header.bits) - 1))
    if stored.dtype.itemsize > 2 or stored.dtype.kind != "u":
        raise unsupported(f"TIFF with {stored.dtype} samples: unsigned 8 or 16 bit are read")
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if header.detail["photometric"] == _WHITE_IS_ZERO:
        colour = stored[..., 0] if stored.ndim == 3 else stored
        stored = np.array(stored)
        (stored[..., 0] if stored.ndim == 3 else stored)[:] = np.iinfo(stored.dtype).max - colour
    return stored


def _colours(header: Header, stored: NDArray[Any]) -> Pixels:
    pixels = split_alpha(stored) if stored.ndim == 2 else _separate_extra(header, stored)
    if header.detail["photometric"] == _INKS:
        return Pixels(cmyk_to_rgb(header, pixels.samples), pixels.alpha)
    return pixels


def _separate_extra(header: Header, stored: NDArray[Any]) -> Pixels:
    """Separates the extra samples (tag 338): 1 alpha already multiplied in, 2 alpha, 0 unknown: alpha if it is the
    only one.
    """
    colours = header.detail["colours"]
    count = stored.shape[2] - colours
    meanings = (*header.detail["extra"], *[0] * count)[:count]
    place = next((n for n, meaning in enumerate(meanings) if meaning in (1, 2)), 0 if count == 1 else None)
    if count > (place is not None):
        header.note("extra channels left out")
    samples = np.ascontiguousarray(stored[:, :, :colours])
    if place is None:
        return Pixels(samples)
    alpha = np.ascontiguousarray(stored[:, :, colours + place])
    if meanings[place] == 1:
        header.note("premultiplied alpha divided out")
        _divide_alpha(samples, alpha)
    return Pixels(samples, alpha)


def _divide_alpha(samples: NDArray[Any], alpha: NDArray[Any]) -> None:
    """samples = min(round(samples * top / alpha), top) in place, row by row; 0 where alpha is 0."""
    top = np.iinfo(samples.dtype).max
    for row, opacity in zip(samples, alpha, strict=True):
        quotient = row * (top / np.maximum(opacity, 1).astype(np.float64))[:, None]
        row[:] = np.where(opacity[:, None] > 0, np.rint(np.minimum(quotient, top)), 0)


def _look_up(header: Header, stored: NDArray[Any]) -> Pixels:
    """Colours of palette indices. The map holds 16 bits, all reds first; writers store x * 257 or x * 256, so the high
    byte counts, and careless ones x.
    """
    table = np.array(header.detail["map"][: 3 << header.bits], np.uint16).reshape(3, -1).T
    colours = np.ascontiguousarray(table >> 8 if table.max() > 255 else table).astype(np.uint8)
    indices = (stored if stored.ndim == 2 else stored[:, :, 0]).astype(np.uint8, copy=False)
    return resolve_palette(header, Pixels(colours[indices]), colours)
