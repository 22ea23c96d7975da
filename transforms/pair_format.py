"""How the two pictures of a pair are stored.

png, webp      lossless; samples clipped to [0, 1] and rounded to the depth of the source, WebP to 8 bit
jpeg           the same in 8 bit, then coded with loss: small, where the clean half need not be exact
npy            raw: clean as uint8 or uint16 (float32 if the source is), degraded as float32 as computed, neither clipped
               nor rounded
npy-rounded    degraded only: raw, clipped and rounded as for png
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from transforms.errors import ConfigurationError
from transforms.pictures import FORMATS, EncodeOptions, Picture, Samples, encode, from_float, to_float
from transforms.raw_arrays import npy_bytes

CLEAN_FORMATS = ("png", "webp", "jpeg", "npy")
DEGRADED_FORMATS = (*CLEAN_FORMATS, "npy-rounded")
_EXTENSIONS = {"jpeg": "jpg", "npy-rounded": "npy"}


@dataclass(frozen=True)
class PairFormat:
    """The format of each half.

    Attributes:
        eight_bit: integers are 8 bit whatever the source's depth, for formats that hold arrays of one type.

    Raises:
        ConfigurationError: unknown format.
    """

    clean: str = "png"
    degraded: str = "png"
    encoding: EncodeOptions = field(default_factory=EncodeOptions)
    eight_bit: bool = False

    def __post_init__(self) -> None:
        for name, known in (("clean", CLEAN_FORMATS), ("degraded", DEGRADED_FORMATS)):
            if getattr(self, name) not in known:
                raise ConfigurationError(
                    f"{name}_format {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}"
                )

    @property
    def fields(self) -> tuple[str, str]:
        """Field names of the clean and the degraded half: `clean.png`, ..."""
        return f"clean.{_extension(self.clean)}", f"degraded.{_extension(self.degraded)}"

    def samples(self, clean: Samples, degraded: Samples, source: np.dtype[Any]) -> tuple[Samples, Samples]:
        """The samples of both halves as they go to the encoder, C-contiguous.

        Args:
            clean: H x W x C, float32 or integers.
            degraded: the same; views of planes are welcome.
            source: type of the picture's samples.
        """
        clean_type = source if self.clean == "npy" and not self.eight_bit else self._depth(self.clean, source)
        degraded_type = np.dtype(np.float32) if self.degraded == "npy" else self._depth(self.degraded, source)
        return _interleaved(_as_type(clean, clean_type)), _interleaved(_as_type(degraded, degraded_type))

    def _depth(self, form: str, source: np.dtype[Any]) -> np.dtype[Any]:
        holds_16_bit = form.startswith("npy") or FORMATS[form].HOLDS_16_BIT
        wide = source == np.uint16 and holds_16_bit and not self.eight_bit
        return np.dtype(np.uint16 if wide else np.uint8)

    def encode_clean(self, samples: Samples, source: Picture, *, whole: bool) -> tuple[bytes, Sequence[str]]:
        """The clean half's file, and notes on what of the source could not be kept.

        Args:
            source: whose profile and resolution go along; EXIF and XMP, which are larger than many a patch, only if `whole`.
        """
        notes = _losses(source, samples, self.clean)
        if self.clean == "npy":
            return npy_bytes(samples), notes
        picture = Picture(samples, None, self.clean, _profile(source, samples), None, source.dpi)
        if source.icc is not None and picture.icc is None:
            notes.append("ICC profile dropped: the recipe changes the channels")
        if whole:
            picture.exif, picture.xmp = source.exif, source.xmp
        elif source.exif is not None or source.xmp is not None:
            notes.append("EXIF and XMP left out of patches")
        data, found = encode(picture, self.clean, self.encoding)
        return data, [*notes, *found]

    def encode_degraded(self, samples: Samples, source: Picture) -> bytes:
        """The degraded half's file."""
        if self.degraded.startswith("npy"):
            return npy_bytes(samples)
        picture = Picture(samples, None, self.degraded, _profile(source, samples))
        return encode(picture, self.degraded, self.encoding)[0]


def _as_type(samples: Samples, dtype: np.dtype[Any]) -> Samples:
    return samples if samples.dtype == dtype else from_float(to_float(samples), dtype)


def _interleaved(samples: Samples) -> Samples:
    """C-contiguous samples: four times as fast as NumPy's own copy of a view of planes, which goes pixel by pixel."""
    if samples.flags.c_contiguous or samples.strides[2] == samples.itemsize:
        return np.ascontiguousarray(samples)
    copied = np.empty(samples.shape, samples.dtype)
    for channel in range(samples.shape[2]):
        copied[..., channel] = samples[..., channel]
    return copied


def _extension(form: str) -> str:
    return _EXTENSIONS.get(form, form)


def _profile(source: Picture, samples: Samples) -> bytes | None:
    return source.icc if samples.shape[2] == source.samples.shape[2] else None


def _losses(source: Picture, samples: Samples, form: str) -> list[str]:
    notes = []
    if source.alpha is not None:
        notes.append("alpha dropped: pairs have none")
    if source.samples.dtype == np.uint16 and samples.dtype == np.uint8:
        notes.append(f"16 bit reduced to 8: stored as {form}")
    if form == "npy" and any(block is not None for block in (source.icc, source.exif, source.xmp, source.dpi)):
        notes.append("metadata dropped: npy has none")
    return notes
