"""One picture on its way through a network: its tiles, and the canvas that their results go to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.restorer import Restored
from transforms.tile_canvas import BlendCanvas, ExactCanvas
from transforms.tiling import AxisRules, Span, cut, plan_axis
from transforms.value_range import to_float


class TiledPicture:
    """The plan for one picture.

    Args:
        samples: H x W x C.
        rules: of the windows along height and width.
        channels: of the network. One for grey gets the channels of a colour picture one by one; one for colour gets a grey picture
            three times over, and the mean of its answer counts.
        scale: output pixels per input pixel.
        exact: put cores side by side; else blend.
    """

    def __init__(
        self,
        samples: NDArray[Any],
        rules: tuple[AxisRules, AxisRules],
        channels: int,
        scale: int | Fraction,
        *,
        exact: bool,
    ) -> None:
        self.samples = samples
        self.channels = channels
        self.too_large = False  # a single tile did not fit into memory: its results are abandoned
        self._exact = exact
        self._rules = rules
        height, width, found = samples.shape
        self._rows, self._columns = plan_axis(height, rules[0]), plan_axis(width, rules[1])
        self._planes = [slice(0, 3)] if channels == 3 else [slice(plane, plane + 1) for plane in range(found)]
        shape = (max(1, math.floor(height * scale)), max(1, math.floor(width * scale)), found)
        self._canvas: ExactCanvas | BlendCanvas = (
            ExactCanvas(shape, samples.dtype, scale)
            if exact
            else BlendCanvas(shape, samples.dtype, scale, self._rows, self._columns)
        )

    @property
    def largest_side(self) -> int:
        """Of the windows, along the axes whose size the network leaves free; 0 if it leaves none."""
        free = [
            spans for spans, rules in zip((self._rows, self._columns), self._rules, strict=True) if rules.fixed is None
        ]
        return max((span.size for spans in free for span in spans), default=0)

    def tiles(self) -> Iterator[Tile]:
        """Row by row, as the canvas wants their results."""
        for rows in self._rows:
            for columns in self._columns:
                for planes in self._planes:
                    yield Tile(self, rows, columns, planes)

    def kept(self, tile: Tile, answer: NDArray[np.float32]) -> NDArray[np.float32]:
        """H x W x C of the part of a tile's answer (C x sH x sW) that counts."""
        inside_rows, inside_columns = self._canvas.kept(tile.rows, tile.columns)
        core = answer[:, inside_rows, inside_columns].transpose(1, 2, 0)
        if core.shape[2] == 3 and self.samples.shape[2] == 1:
            return np.asarray(core.mean(axis=2, keepdims=True), np.float32)
        return core

    def put(self, tile: Tile, core: NDArray[np.float32]) -> None:
        """Takes what `kept` gave."""
        self._canvas.put(tile.rows, tile.columns, tile.planes, core)

    def finish(self, obstacle: str | None) -> Restored:
        """The restored picture, when all its tiles have been put."""
        windows = len(self._rows) * len(self._columns)
        notes: dict[str, Any] = {"tiling": "whole", "tiles": windows * len(self._planes)}
        if windows > 1:
            notes["tiling"] = "exact" if self._exact else "blend"
            notes["tile"] = [self._rows[0].size, self._columns[0].size]
            if not self._exact:
                notes["tiling_reason"] = obstacle or "the network's fixed size has no room for its receptive field"
        return Restored(self._canvas.finish(), notes)


@dataclass(frozen=True, eq=False)
class Tile:
    """One window of one picture."""

    picture: TiledPicture
    rows: Span
    columns: Span
    planes: slice

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.rows.size, self.columns.size

    def pixels(self) -> NDArray[np.float32]:
        """What the network gets: C x H x W, float32."""
        window = to_float(cut(self.picture.samples, self.rows, self.columns)[..., self.planes])
        if window.shape[2] < self.picture.channels:
            window = np.repeat(window, self.picture.channels, axis=2)
        return window.transpose(2, 0, 1)
