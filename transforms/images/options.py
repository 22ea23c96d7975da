"""How results are compressed."""

from __future__ import annotations

from dataclasses import dataclass

from transforms.errors import ConfigurationError

_RANGES = {"png_level": (1, 9), "jpeg_quality": (1, 100), "webp_quality": (1, 100), "webp_method": (0, 6)}
_CHOICES = {"jpeg_subsampling": ("444", "422", "420"), "tiff_compression": ("deflate", "lzw", "none")}


@dataclass(frozen=True)
class EncodeOptions:
    """How results are compressed. All defaults but JPEG's are lossless.

    Attributes:
        png_level: 1 (default) is run lengths after adaptive filters: on photographs and pages within 5 % of the size of
            zlib's level 6, at four times its speed; 2 to 9 are zlib's levels, 9 the smallest and slowest.
        jpeg_quality: 1 to 100.
        jpeg_subsampling: `444` (default), `422` or `420`.
        tiff_compression: `deflate`, `lzw` or `none`.
        webp_lossless: exact, also under full transparency.
        webp_quality: 1 to 100, for lossy WebP.
        webp_method: 0 (fast) to 6 (small).

    Raises:
        ConfigurationError: a value out of range.
    """

    png_level: int = 1
    jpeg_quality: int = 95
    jpeg_subsampling: str = "444"
    tiff_compression: str = "deflate"
    webp_lossless: bool = True
    webp_quality: int = 90
    webp_method: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ConfigurationError(f"{name} is {value!r}; it must be a whole number from {low} to {high}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")
