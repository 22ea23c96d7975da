"""CMYK to RGB."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from transforms.images.header import NOTE_ICC, Header

_BAND_ROWS = 256  # rows at a time, so that no second whole picture exists
_PLAIN = "CMYK converted to RGB without a profile"
_MANAGED = "CMYK converted to sRGB through its ICC profile"


def cmyk_to_rgb(header: Header, cmyk: NDArray[Any]) -> NDArray[Any]:
    """8-bit CMYK (0 is no ink), H x W x 4, to RGB: through the embedded profile to sRGB, else R = (1 - C)(1 - K) and
    so on.

    Notes the conversion in `header`, and takes the profile off it: that described inks, not the RGB picture.
    """
    convert = _conversion(header)
    header.icc = None
    rgb = np.empty((*cmyk.shape[:2], 3), np.uint8)
    for top in range(0, len(cmyk), _BAND_ROWS):
        band = np.ascontiguousarray(cmyk[top : top + _BAND_ROWS])
        size = (band.shape[1], band.shape[0])
        rgb[top : top + _BAND_ROWS] = convert(Image.frombuffer("CMYK", size, band, "raw", "CMYK", 0, 1))
    return rgb


def _conversion(header: Header) -> Callable[[Image.Image], Image.Image]:
    def naive(band: Image.Image) -> Image.Image:
        return band.convert("RGB")

    if header.icc is None or header.icc[16:20] != b"CMYK":
        header.note(_PLAIN)
        return naive
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(header.icc))
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "CMYK", "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        header.note(_PLAIN)
        header.note(NOTE_ICC)
        return naive

    def managed(band: Image.Image) -> Image.Image:
        return transform.apply(band)

    header.note(_MANAGED)
    return managed
