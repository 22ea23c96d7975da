"""One picture on its way through a network: its tiles, and the canvas that their results go to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.picture_views import PictureView
from transforms.restorer import Restored
from transforms.tile_canvas import BlendCanvas, ExactCanvas
from transforms.tiling import AxisRules, Span, plan_axis


class TiledPicture:
    """The plan for one picture.

    Args:
        view: what the network sees of it, and what becomes of its answers.
        rules: of the windows along height and width.
        scale: output pixels per pixel that the network sees.
        exact: put cores side by side; else blend.
    """

    def __init__(
        self, view: PictureView, rules: tuple[AxisRules, AxisRules], scale: int | Fraction, *, exact: bool
    ) -> None:
        self.view = view
        self.too_large = False  # a single tile did not fit into memory: its results are abandoned
        self._exact = exact
        self._rules = rules
        height, width = view.size
        self._rows, self._columns = plan_axis(height, rules[0]), plan_axis(width, rules[1])
        shape = (max(1, math.floor(height * scale)), max(1, math.floor(width * scale)), view.channels)
        self._canvas: ExactCanvas | BlendCanvas = (
            ExactCanvas(shape, view.dtype, scale)
            if exact
            else BlendCanvas(shape, view.dtype, scale, self._rows, self._columns)
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
                for planes in self.view.planes:
                    yield Tile(self, rows, columns, planes)

    def kept(self, tile: Tile, answer: NDArray[np.float32]) -> NDArray[np.float32]:
        """The part of a tile's answer that counts, C x h x w of C x sH x sW."""
        rows, columns = self._canvas.kept(tile.rows, tile.columns)
        return answer[:, rows, columns]

    def put(self, tile: Tile, core: NDArray[np.float32]) -> None:
        """Takes what `kept` gave."""
        top, left = self._canvas.place(tile.rows, tile.columns)
        self._canvas.put(tile.rows, tile.columns, tile.planes, self.view.completed(core, top, left))

    def finish(self, obstacle: str | None) -> Restored:
        """The restored picture, when all its tiles have been put."""
        windows = len(self._rows) * len(self._columns)
        notes: dict[str, Any] = {"tiling": "whole", "tiles": windows * len(self.view.planes)}
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
        return self.picture.view.shown(self.rows, self.columns, self.planes)
