"""How a picture's channels reach a network of one or three channels, and how its answers become them again.

ChannelsView    the samples as they are: one plane after the other, or red, green and blue together
LumaView        the luma alone, enlarged where the network wants it; chroma is enlarged by an interpolation

The luma's answer Y' replaces the luma of the interpolated picture:

    RGB' = RGB + 255/219 (Y' - Y(RGB))

This keeps Cb and Cr exactly: adding the same to red, green and blue moves neither (each has weights of sum 0), and Y by
219/255 of it. So no other conversion of colours is needed.

Source: ITU-R BT.601 (studio swing); Dong et al., "Image super-resolution using deep convolutional networks", TPAMI 2016,
section 4.1 (only luma is restored, chroma is interpolated).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from transforms.enlargement import CHROMA_KERNEL, Enlargement, Resized, Size, enlarged_size
from transforms.tiling import Span, cut
from transforms.value_range import LUMA_SWING, from_float, luma_bt601, to_float

Floats = NDArray[np.float32]
STRIP = 256  # rows that are finished at a time


class PictureView(Protocol):
    """One picture, as a network is to see it.

    Attributes:
        size: height and width of what the network sees.
        planes: which channels of the result each run of the network makes.
        channels, dtype: of the result.
    """

    size: Size
    planes: Sequence[slice]
    channels: int
    dtype: DTypeLike

    def shown(self, rows: Span, columns: Span, planes: slice) -> Floats:
        """What the network gets of a window: C x h x w, float32, [0, 1], continued by reflection beyond the picture."""
        ...

    def completed(self, answer: Floats, top: int, left: int) -> Floats:
        """A part of the network's answer, C x h x w from row `top` and column `left` of the result, as h x w x channels."""
        ...


class ChannelsView:
    """The samples as they are.

    Args:
        samples: H x W x C.
        network_channels: one for grey gets the channels of a colour picture one by one; one for colour gets a grey
            picture three times over, and the mean of its answer counts.
    """

    def __init__(self, samples: NDArray[Any], network_channels: int) -> None:
        self._samples, self._network_channels = samples, network_channels
        self.size: Size = samples.shape[:2]
        self.channels: int = samples.shape[2]
        self.dtype: DTypeLike = samples.dtype
        self.planes: Sequence[slice] = (
            [slice(0, 3)] if network_channels == 3 else [slice(plane, plane + 1) for plane in range(self.channels)]
        )

    def shown(self, rows: Span, columns: Span, planes: slice) -> Floats:
        """See `PictureView`."""
        window = to_float(cut(self._samples, rows, columns)[..., planes])
        if window.shape[2] < self._network_channels:
            window = np.repeat(window, self._network_channels, axis=2)
        return window.transpose(2, 0, 1)

    def completed(self, answer: Floats, top: int, left: int) -> Floats:
        """See `PictureView`."""
        image = answer.transpose(1, 2, 0)
        if image.shape[2] == 3 and self.channels == 1:
            return np.asarray(image.mean(axis=2, keepdims=True), np.float32)
        return image


class Colours:
    """What a picture has besides luma, in the result's size: the interpolated picture, computed where it is wanted.

    Args:
        samples: H x W x C, of any size; C of 1 has none.
        size: of the result.

    Attributes:
        channels, dtype: of `samples`.
    """

    def __init__(self, samples: NDArray[Any], size: Size) -> None:
        self.size, self.channels = size, samples.shape[2]
        self.dtype: np.dtype[Any] = samples.dtype
        self._interpolated = Resized(samples, size, CHROMA_KERNEL) if self.channels == 3 else None

    def added(self, luma: Floats, top: int, left: int) -> Floats:
        """1 x h x w luma from row `top` and column `left` of the result, as h x w x channels."""
        if self._interpolated is None:
            return luma.transpose(1, 2, 0)
        height, width = luma.shape[1:]
        inside = self._interpolated.window(slice(top, top + height), slice(left, left + width)).transpose(1, 2, 0)
        change = (luma[0] - luma_bt601(inside)) / np.float32(LUMA_SWING)
        coloured: Floats = inside + change[..., np.newaxis]
        return coloured


class LumaView:
    """The luma, enlarged.

    Args:
        samples: H x W x C; a grey picture is its own luma.
        enlarge: what is done before the network; its factor may be 1.
        colours: what the answer goes into; None: it stays one plane of float32.
    """

    def __init__(self, samples: NDArray[Any], enlarge: Enlargement, colours: Colours | None) -> None:
        self.size = enlarged_size(samples, enlarge.factor)
        self._luma = Resized(samples, self.size, enlarge.kernel, luma=True)
        self._colours = colours
        self.channels = 1 if colours is None else colours.channels
        self.dtype: DTypeLike = np.float32 if colours is None else colours.dtype
        self.planes: Sequence[slice] = [slice(0, self.channels)]

    def shown(self, rows: Span, columns: Span, planes: slice) -> Floats:
        """See `PictureView`."""
        return self._luma.window(slice(rows.start, rows.stop), slice(columns.start, columns.stop))

    def completed(self, answer: Floats, top: int, left: int) -> Floats:
        """See `PictureView`."""
        return answer.transpose(1, 2, 0) if self._colours is None else self._colours.added(answer, top, left)


def shrunk(luma: Floats, kernel: str, colours: Colours) -> NDArray[Any]:
    """Luma that is larger than wanted, H x W x 1, as a picture with these colours and of their size and kind of samples."""
    smaller = Resized(luma, colours.size, kernel)
    height, width = colours.size
    result = np.empty((height, width, colours.channels), colours.dtype)
    for top in range(0, height, STRIP):
        rows = slice(top, min(top + STRIP, height))
        strip = smaller.window(rows, slice(0, width))
        result[rows] = from_float(colours.added(strip, top, 0), colours.dtype)
    return result
