"""Enlarged pictures that are never whole in memory: any window of one is computed when it is asked for.

The networks of super-resolution that restore an enlarged picture want it large before they see it (SRCNN, VDSR, SCN). A
window equals the same part of the picture resized as a whole, border included: its rows and columns of the resizing matrices
are those of the whole picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.planes import to_planes
from transforms.planes.banded import Band, apply_bands
from transforms.planes.resampling import RESIZE_KERNELS, resize_band
from transforms.tiling import reflected
from transforms.value_range import luma_bt601, to_float

CHROMA_KERNEL = "matlab_bicubic"
BORDER = "symmetric"  # what MATLAB's kernels read outside; the others have rules of their own
Size = tuple[int, int]


@dataclass(frozen=True)
class Enlargement:
    """What a network for enlarged luma wants done before it runs; `conservator.enlarge` in a model's metadata.

    Attributes:
        factor: by which the luma is enlarged. (Chroma is brought to the final size by `matlab_bicubic`.)
        kernel: by which; one of RESIZE_KERNELS.
        shrink: kernel that brings the result to the size of the model's scale where it is larger: three is two times two,
            shrunk.
    """

    factor: int
    kernel: str
    shrink: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.factor, int) or isinstance(self.factor, bool) or self.factor < 1:
            raise ValueError(f"factor is {self.factor!r}, expected a whole number of at least 1")
        for kernel in (self.kernel, self.shrink or self.kernel):
            if kernel not in RESIZE_KERNELS:
                raise ValueError(f"no kernel is called {kernel!r}, expected one of {', '.join(RESIZE_KERNELS)}")

    @classmethod
    def from_json(cls, value: Any) -> Enlargement:
        """Reads `{"factor": 3, "kernel": "matlab_bicubic"}`.

        Raises:
            ValueError: another kind of value, an unknown or missing entry, a factor, number or kernel out of range.
        """
        known = [each.name for each in fields(cls)]
        if not isinstance(value, Mapping) or not {"factor", "kernel"} <= set(value) <= set(known):
            raise ValueError(f"expected an object with factor and kernel, and no others than {', '.join(known)}")
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        """The metadata's value: what is not the default."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}


class Resized:
    """A picture in another size, window by window.

    Args:
        samples: H x W x C; uint8, uint16, or float32 in [0, 1].
        size: H' and W' of the result.
        kernel: one of RESIZE_KERNELS.
        luma: make one plane of a colour picture, Y / 255 of BT.601; a grey picture is its own luma.
    """

    def __init__(self, samples: NDArray[Any], size: Size, kernel: str, *, luma: bool = False) -> None:
        self.samples, self.size = samples, size
        self._luma = luma and samples.shape[2] == 3
        # Not from the cache: that would keep the matrices of many pictures.
        build = resize_band.__wrapped__
        self._whole = [build(samples.shape[axis], size[axis], kernel, BORDER) for axis in (0, 1)]
        self._parts: dict[tuple[int, int, int], tuple[int, Band]] = {}

    def window(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """C x h x w of a part of the result, float32, neither clipped nor rounded; reflected beyond its end."""
        (top, down), (left, across) = self._part(0, rows), self._part(1, columns)
        part = to_float(self.samples[top : top + down.length, left : left + across.length])
        planes = luma_bt601(part)[np.newaxis] if self._luma else to_planes(part)
        resized: NDArray[np.float32] = apply_bands(planes, down, across)
        return resized

    def _part(self, axis: int, outputs: slice) -> tuple[int, Band]:
        """The first sample that some outputs read, and their rows of the matrix."""
        place = (axis, outputs.start, outputs.stop)
        if place not in self._parts:
            whole = self._whole[axis]
            chosen = reflected(outputs.start, outputs.stop, whole.outputs)
            indices = whole.indices[chosen]
            first = int(indices.min())
            self._parts[place] = first, Band(int(indices.max()) + 1 - first, indices - first, whole.weights[chosen])
        return self._parts[place]


def enlarged_size(samples: NDArray[Any], factor: int | Fraction) -> Size:
    """Height and width, rounded down and at least 1."""
    height, width = (max(1, math.floor(side * factor)) for side in samples.shape[:2])
    return height, width
