"""The channels that a recipe makes of a clean picture."""

from __future__ import annotations

import numpy as np

from transforms.value_range import Samples, luma_bt601, to_u8

CHANNELS = ("as_is", "gray", "luma", "rgb")

# MATLAB's rgb2gray (ITU-R BT.601 luma, full swing). BSD68 is exactly this of CBSD68: no sample of 68 pictures differs.
# The studio-swing luma of MATLAB's rgb2ycbcr, which the super-resolution papers measure on, is up to 20 levels away.
_GRAY = np.array([0.298936021293775, 0.587043074451121, 0.114020904255103])


def with_channels(samples: Samples, channels: str) -> Samples:
    """Converts samples, H x W x C with C of 1 or 3, to "gray", "luma" or "rgb", or leaves them "as_is".

    Gray is  Y = 0.2989 R + 0.5870 G + 0.1140 B  on the samples' own scale, rounded half up for integers, as the grey
    test sets were made. Luma is  Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255  on the 8-bit scale, what super-resolution
    is trained and measured on; a grey picture is taken as it is. Rgb repeats grey three times.

    Source: MATLAB `rgb2gray` (the first row of the inverse NTSC matrix) and `rgb2ycbcr` (ITU-R BT.601).

    Raises:
        ValueError: not H x W x C with C of 1 or 3.
    """
    if samples.ndim != 3 or samples.shape[2] not in (1, 3):
        raise ValueError(f"samples have the shape {samples.shape}; expected H x W x 1 or H x W x 3")
    if channels == "gray" and samples.shape[2] == 3:
        return _gray(samples)
    if channels == "luma" and samples.shape[2] == 3:
        return luma_bt601(to_u8(samples) if samples.dtype == np.uint16 else samples)[..., np.newaxis]
    if channels == "rgb" and samples.shape[2] == 1:
        return np.repeat(samples, 3, axis=2)
    return samples


def _gray(rgb: Samples) -> Samples:
    luma = (rgb @ _GRAY)[..., np.newaxis]
    gray: Samples = np.floor(luma + 0.5) if np.issubdtype(rgb.dtype, np.integer) else luma
    return gray.astype(rgb.dtype)
