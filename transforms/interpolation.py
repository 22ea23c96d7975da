"""Enlargement by plain interpolation: a restorer without a network, and what networks of super-resolution are compared with.

All channels are interpolated alike. That is also what becomes of a picture whose luma is enlarged and not restored, since the
interpolation is linear. A few rows are computed at a time: only they are ever float.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from transforms.enlargement import Resized, Size, enlarged_size
from transforms.planes.resampling import RESIZE_KERNELS
from transforms.restorer import Restored
from transforms.value_range import from_float

# Of the result, computed at once: enough for BLAS to be quick, and 3 MB of colour floats.
PIXELS_AT_ONCE = 512 * 512


class InterpolatedRows:
    """A picture in another size, computed as its rows are read; the last ones read are kept.

    Args:
        samples: H x W x C; uint8, uint16, or float32 in [0, 1].
        size: H' and W' of the result.
        kernel: one of RESIZE_KERNELS.
        dtype: of the result: integers are rounded, float32 is neither rounded nor clipped.

    Attributes:
        shape: H', W', C.
        strip: rows that are computed together.
    """

    def __init__(self, samples: NDArray[Any], size: Size, kernel: str, dtype: DTypeLike) -> None:
        self.shape = (*size, samples.shape[2])
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._resized = Resized(samples, size, kernel)
        self.strip = min(size[0], max(1, PIXELS_AT_ONCE // size[1]))
        self._kept: tuple[int, NDArray[Any]] | None = None

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Some rows, h x W' x C; a slice without a step."""
        start, stop, _ = rows.indices(self.shape[0])
        first, last = start // self.strip, max(start, stop - 1) // self.strip
        parts = []
        for number in range(first, last + 1):
            top, strip = self.strip * number, self._at(number)
            parts.append(strip[max(start - top, 0) : max(stop - top, 0)])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _at(self, number: int) -> NDArray[Any]:
        """The strip of that number. The same rows are always computed together, so that their last digits are the same."""
        if self._kept is None or self._kept[0] != number:
            height, width = self.shape[:2]
            top = self.strip * number
            planes = self._resized.window(slice(top, min(top + self.strip, height)), slice(0, width))
            self._kept = number, from_float(planes.transpose(1, 2, 0), self.dtype)
        return self._kept[1]


@dataclass(frozen=True)
class InterpolatorFactory:
    """Configuration of an `Interpolator`.

    Attributes:
        name: as in the zoo.
        kernel: one of RESIZE_KERNELS.
        factor: by which both sides grow.

    Raises:
        ValueError: another kernel, or a factor below 1.
    """

    name: str
    kernel: str
    factor: int

    def __post_init__(self) -> None:
        if self.kernel not in RESIZE_KERNELS or self.factor < 1:
            raise ValueError(
                f"kernel {self.kernel!r}, factor {self.factor}: expected one of {', '.join(RESIZE_KERNELS)}, and at least 1"
            )

    def load(self) -> Interpolator:
        return Interpolator(self.kernel, self.factor)

    def fingerprint(self) -> dict[str, Any]:
        return {"interpolation": self.kernel, "factor": self.factor}

    def describe(self) -> dict[str, Any]:
        """Provenance for the report."""
        return {
            "name": self.name,
            "purpose": f"super-resolution x{self.factor}",
            "interpolation": self.kernel,
            "channels": "any, all alike",
            "scale": float(self.factor),
        }


class Interpolator:
    """Enlarges; looks at no parameters, and keeps nothing between calls."""

    def __init__(self, kernel: str, factor: int) -> None:
        self.scale, self._kernel = factor, kernel
        self.counters: Counter[str] = Counter()

    def restore(self, samples: Sequence[NDArray[Any]], parameters: Sequence[Mapping[str, Any]]) -> list[Restored]:
        """As `Restorer.restore`."""
        return [self._enlarged(each) for each in samples]

    def _enlarged(self, samples: NDArray[Any]) -> Restored:
        rows = InterpolatedRows(samples, enlarged_size(samples, self.scale), self._kernel, samples.dtype)
        result = np.empty(rows.shape, rows.dtype)
        height, step = rows.shape[0], rows.strip
        for top in range(0, height, step):
            result[top : top + step] = rows[top : top + step]
        return Restored(result, {"interpolation": self._kernel})
