"""Figures between the text: curves, bars and shaded pictures with labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from reportlab.lib.colors import Color
from reportlab.lib.utils import ImageReader
from reportlab.platypus import Flowable

from models.pages.prose import Prose


class Figure(Flowable):  # type: ignore[misc]  # reportlab has no types
    """Curves, bars, or a shaded picture, in a frame with a label below.

    Args:
        rng, prose: of the page.
        font: of the labels.
        width: in points, of the column.
    """

    def __init__(self, rng: np.random.Generator, prose: Prose, font: str, width: float) -> None:
        super().__init__()
        self.width, self.height = width, float(width * rng.uniform(0.35, 0.6)) + 14
        self._kind = int(rng.integers(3))
        self._font, self._label = font, f"Figure {int(rng.integers(1, 20))}: {prose.title(3)}"
        self._ticks = [prose.number() for _ in range(4)]
        self._inks = [Color(*rng.uniform(0, 0.7, 3)) for _ in range(3)]
        self._curves = rng.random((3, 12))
        self._waves = rng.uniform(0.5, 6, (3, 2))

    def wrap(self, available_width: float, available_height: float) -> tuple[float, float]:
        return self.width, self.height + 8

    def draw(self) -> None:
        canvas, left, bottom = self.canv, 32.0, 24.0
        inside = (self.width - left - 6, self.height - bottom - 6)
        (self._draw_curves, self._draw_bars, self._draw_picture)[self._kind](canvas, (left, bottom), inside)
        canvas.setStrokeColor(Color(0, 0, 0))
        canvas.setFillColor(Color(0, 0, 0))
        canvas.setLineWidth(0.6)
        canvas.rect(left, bottom, *inside)
        canvas.setFont(self._font, 7)
        for place, tick in enumerate(self._ticks):
            canvas.drawRightString(left - 3, bottom + place * inside[1] / 4, tick[:6])
        canvas.setFont(self._font, 8.5)
        canvas.drawString(left, 4, self._label)

    def _draw_curves(self, canvas: Any, corner: tuple[float, float], inside: tuple[float, float]) -> None:
        for ink, curve in zip(self._inks, self._curves, strict=True):
            canvas.setStrokeColor(ink)
            canvas.setLineWidth(1)
            path = canvas.beginPath()
            for position, value in enumerate(curve.tolist()):
                point = corner[0] + inside[0] * position / (len(curve) - 1), corner[1] + inside[1] * value
                path.moveTo(*point) if position == 0 else path.lineTo(*point)
            canvas.drawPath(path)

    def _draw_bars(self, canvas: Any, corner: tuple[float, float], inside: tuple[float, float]) -> None:
        step = inside[0] / self._curves.shape[1]
        for position, value in enumerate(self._curves[0].tolist()):
            canvas.setFillColor(self._inks[position % len(self._inks)])
            canvas.rect(corner[0] + (position + 0.2) * step, corner[1], 0.6 * step, inside[1] * value, stroke=0, fill=1)

    def _draw_picture(self, canvas: Any, corner: tuple[float, float], inside: tuple[float, float]) -> None:
        down, across = np.mgrid[0:1:90j, 0:1:120j]
        planes = [np.sin(2 * np.pi * (first * across + second * down)) / 2 + 0.5 for first, second in self._waves]
        picture = Image.fromarray((255 * np.stack(planes, axis=2)).astype(np.uint8))
        canvas.drawImage(ImageReader(picture), *corner, *inside)
