"""Where the results of windows become one picture: written side by side, or blended where tiles can't be exact."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from transforms.tiling import Span, blend_weights, scaled
from transforms.value_range import from_float


class ExactCanvas:
    """Puts the cores of windows side by side; each pixel is written once.

    Args:
        shape: H x W x C of the result; windows may reach beyond it (padding), which is cut off.
        dtype: of the samples.
        scale: output pixels per input pixel.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: DTypeLike, scale: int | Fraction) -> None:
        self._scale = scale
        self.samples: NDArray[Any] = np.empty(shape, dtype)

    def kept(self, rows: Span, columns: Span) -> tuple[slice, slice]:
        """Which part of a window's result is used."""
        return self._core(rows, self.samples.shape[0]), self._core(columns, self.samples.shape[1])

    def _core(self, span: Span, length: int) -> slice:
        window = scaled(span, self._scale)
        return slice(window.core_start - window.start, min(window.core_stop, length) - window.start)

    def place(self, rows: Span, columns: Span) -> tuple[int, int]:
        """Row and column of the result at which that part begins."""
        return scaled(rows, self._scale).core_start, scaled(columns, self._scale).core_start

    def put(self, rows: Span, columns: Span, planes: slice, values: NDArray[np.float32]) -> None:
        """Writes the used part of a window's result, H x W x C, float, nominal [0, 1], into some of the planes."""
        top, left = self.place(rows, columns)
        height, width = values.shape[:2]
        self.samples[top : top + height, left : left + width, planes] = from_float(values, self.samples.dtype)

    def finish(self) -> NDArray[Any]:
        return self.samples


class BlendCanvas:
    """Adds overlapping windows with raised-cosine weights. Holds floats for one row of windows, not for the picture.

    Windows have to come row by row, from the top.

    Args:
        shape, dtype, scale: as for `ExactCanvas`.
        rows, columns: all windows' spans.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: DTypeLike,
        scale: int | Fraction,
        rows: Sequence[Span],
        columns: Sequence[Span],
    ) -> None:
        self._scale = scale
        self._samples: NDArray[Any] = np.empty(shape, dtype)
        self._row_weights = _weights(rows, scale)
        self._column_weights = _weights(columns, scale)
        height = max(scaled(span, scale).size for span in rows)
        self._band = np.zeros((height, scaled(columns[-1], scale).stop, shape[2]), np.float32)
        self._top = 0  # the band's first row in the result

    def kept(self, rows: Span, columns: Span) -> tuple[slice, slice]:
        """All of a window is used."""
        return slice(None), slice(None)

    def place(self, rows: Span, columns: Span) -> tuple[int, int]:
        """Row and column of the result at which the window begins."""
        return scaled(rows, self._scale).start, scaled(columns, self._scale).start

    def put(self, rows: Span, columns: Span, planes: slice, values: NDArray[np.float32]) -> None:
        """Adds a window's result."""
        top, left = self.place(rows, columns)
        self._flush(top)
        height, width = values.shape[:2]
        weights = np.outer(self._row_weights[rows.start], self._column_weights[columns.start])
        self._band[:height, left : left + width, planes] += weights[..., None] * values

    def _flush(self, top: int) -> None:
        """Rows above `top` get nothing more: they are rounded and leave the band."""
        done = min(top - self._top, len(self._band))
        if done <= 0:
            return
        kept = max(0, min(done, len(self._samples) - self._top))
        self._samples[self._top : self._top + kept] = from_float(
            self._band[:kept, : self._samples.shape[1]], self._samples.dtype
        )
        self._band[:-done] = self._band[done:].copy() if done < len(self._band) else self._band[:0]
        self._band[-done:] = 0
        self._top = top

    def finish(self) -> NDArray[Any]:
        self._flush(self._top + len(self._band))
        return self._samples


def _weights(spans: Sequence[Span], scale: int | Fraction) -> dict[int, NDArray[np.float32]]:
    """Weights by the window's start in the input."""
    return {
        span.start: weights
        for span, weights in zip(spans, blend_weights([scaled(span, scale) for span in spans]), strict=True)
    }
