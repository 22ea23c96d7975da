"""Contact sheets: rows of small pictures, each with a caption and perhaps a kernel or a mask in its corner.

Nothing here knows what the pictures are. The font is the one inside Pillow, so that a sheet looks alike everywhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from transforms.value_range import Samples, to_u8

PAPER, CARD, RULE = (247, 247, 245), (255, 255, 255), (218, 218, 214)
INK, SOFT_INK, FAINT_INK = (28, 30, 33), (98, 102, 108), (142, 146, 152)
LARGEST_SIDE = 512  # of a picture on the sheet; larger ones are reduced
_MARGIN, _GAP, _PADDING = 24, 12, 8
_TITLE_SIZE, _TEXT_SIZE, _LEADING = 20, 13, 1.36
_BOLD = 0.35  # the font has one weight; an outline of so many pixels makes another
_SMALLEST_CARD = 150  # narrower captions break in every word
_PLAIN = str.maketrans({"×": "x", "–": "-", "—": "-", "−": "-", "’": "'", "σ": "sigma", "λ": "lambda", "µ": "u"})


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet.

    Attributes:
        picture: H x W x C, C of 1 or 3, uint8, uint16 or float32 (clipped to [0, 1]).
        title: first line of the caption.
        lines: what follows, as (name, values): the name is printed darker.
        insets: small uint8 pictures, H x W x C, for the lower right corner.
        height, width: what the picture is shown as large as, by nearest neighbour; default: its own size.
    """

    picture: Samples
    title: str
    lines: tuple[tuple[str, str], ...] = ()
    insets: tuple[NDArray[np.uint8], ...] = ()
    height: int = 0
    width: int = 0


@dataclass(frozen=True)
class Section:
    """A heading and its cells.

    Attributes:
        aside: a few words to the right of the title.
        notes: paragraphs under the title.
    """

    title: str
    aside: str
    notes: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Layout:
    """How cells are laid out.

    Attributes:
        columns: cells in a row.
        side: what small pictures are enlarged to, in pixels, by whole factors.
        widest: sections stand side by side as long as the sheet is not wider than this.
        caption_lines: longer captions end with the number of steps that are left out; 0: all lines.
    """

    columns: int
    side: int = 256
    widest: int = 0
    caption_lines: int = 0


def draw_sheet(sections: Sequence[Section], layout: Layout) -> Image.Image:
    """Draws sections one below the other, or in several columns where `layout.widest` leaves room for them."""
    drawn = [draw_section(section, layout) for section in sections]
    width = max(each.width for each in drawn)
    columns = min(len(drawn), max(1, (layout.widest - _MARGIN) // (width + _MARGIN)))
    heights = [_MARGIN] * columns
    places = []
    for each in drawn:  # each goes under the column that is shortest so far
        column = heights.index(min(heights))
        places.append((_MARGIN + column * (width + _MARGIN), heights[column]))
        heights[column] += each.height + _MARGIN
    sheet = Image.new("RGB", (_MARGIN + columns * (width + _MARGIN), max(heights)), PAPER)
    for each, place in zip(drawn, places, strict=True):
        sheet.paste(each, place)
    return sheet


def draw_section(section: Section, layout: Layout) -> Image.Image:
    """Draws one section without margins."""
    pictures = [shown(cell, layout.side) for cell in section.cells]
    narrowest = max(_SMALLEST_CARD, layout.side if layout.widest else 0)  # sections beside others line up
    card_width = max(narrowest, *(picture.width for picture in pictures)) + 2 * _PADDING
    width = layout.columns * (card_width + _GAP) - _GAP
    captions = [_Caption(cell, card_width - 2 * _PADDING, layout.caption_lines) for cell in section.cells]
    heading = _Heading(section, width)
    starts = range(0, len(pictures), layout.columns)
    # The cards of a row are equally high: as the highest picture and the longest caption of them.
    picture_heights = [max(each.height for each in pictures[start : start + layout.columns]) for start in starts]
    caption_heights = [max(each.height for each in captions[start : start + layout.columns]) for start in starts]
    card_heights = [sum(both) + 3 * _PADDING for both in zip(picture_heights, caption_heights, strict=True)]
    drawn = Image.new("RGB", (width, heading.height + sum(card_heights) + _GAP * (len(card_heights) - 1)), PAPER)
    pen = ImageDraw.Draw(drawn)
    heading.draw(pen)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(index, layout.columns)
        left, top = column * (card_width + _GAP), heading.height + sum(card_heights[:row]) + _GAP * row
        box = (left, top, left + card_width - 1, top + card_heights[row] - 1)
        pen.rectangle(box, fill=CARD, outline=RULE)
        across, down = left + (card_width - picture.width) // 2, top + _PADDING
        drawn.paste(picture, (across, down))
        pen.rectangle((across - 1, down - 1, across + picture.width, down + picture.height), outline=RULE)
        caption.draw(pen, left + _PADDING, top + picture_heights[row] + 2 * _PADDING)
    return drawn


def shown(cell: Cell, side: int) -> Image.Image:
    """A cell's picture as it stands on the sheet.

    Small pictures are enlarged by a whole factor, nearest neighbour, so that their pixels can be seen; those above
    `LARGEST_SIDE` are reduced.
    """
    height, width = cell.height or cell.picture.shape[0], cell.width or cell.picture.shape[1]
    factor: float = max(1, side // max(height, width))
    if max(height, width) > LARGEST_SIDE:
        factor = LARGEST_SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    picture = _as_rgb(cell.picture)
    is_reduced = size[0] < picture.width or size[1] < picture.height
    resized = picture.resize(size, Image.Resampling.LANCZOS if is_reduced else Image.Resampling.NEAREST)
    _add_insets(resized, cell.insets)
    return resized


def _add_insets(picture: Image.Image, insets: Sequence[NDArray[np.uint8]]) -> None:
    """Puts small pictures into the lower corner, the first one rightmost; those that don't fit are left out."""
    room = min(picture.size) // (4 if len(insets) < 3 else 6)
    right, bottom = picture.width - 4, picture.height - 4
    for inset in insets:
        longest = max(inset.shape[:2])
        size = (max(1, round(room * inset.shape[1] / longest)), max(1, round(room * inset.shape[0] / longest)))
        left, top = right - size[0] - 4, bottom - size[1] - 4
        if left < 0:
            return
        small = _as_rgb(inset).resize(size, Image.Resampling.NEAREST if longest <= room else Image.Resampling.BOX)
        ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill=CARD, outline=FAINT_INK)
        picture.paste(small, (left + 2, top + 2))
        right = left - 4


def kernel_inset(kernel: NDArray[Any]) -> NDArray[np.uint8]:
    """A point spread function as a square picture: its largest value white, nothing black."""
    height, width = kernel.shape
    side, top = max(height, width), float(kernel.max())
    down, across = (side - height) // 2, (side - width) // 2
    square = np.pad(np.clip(kernel, 0, None), ((down, side - height - down), (across, side - width - across)))
    return to_u8((square / (top or 1.0)).astype(np.float32)[:, :, np.newaxis])


def motion_inset(motion: NDArray[Any], longest: float = 0.0) -> NDArray[np.uint8]:
    """A motion field, 2 x H x W, as colours: the direction is the hue, the length the saturation."""
    across, down = motion.astype(np.float64)
    length = np.hypot(across, down)
    saturation = length / (longest or float(length.max()) or 1.0)
    hue = (np.arctan2(down, across) / (2 * np.pi)) % 1.0
    hsv = np.stack([hue, np.clip(saturation, 0, 1), np.ones_like(hue)], axis=2)
    return np.asarray(Image.fromarray(np.rint(hsv * 255).astype(np.uint8), "HSV").convert("RGB"))


def _as_rgb(samples: Samples) -> Image.Image:
    eight = to_u8(samples)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(eight, (*eight.shape[:2], 3))))


class _Heading:
    """Title, aside and notes of a section, over its whole width."""

    def __init__(self, section: Section, width: int) -> None:
        self._title, self._aside, self._width = plain(section.title), plain(section.aside), width
        self._lines = [line for note in section.notes for line in wrapped([(note, SOFT_INK)], width, _TEXT_SIZE)]
        self._notes_top = _line_height(_TITLE_SIZE)
        self.height = self._notes_top + len(self._lines) * _line_height(_TEXT_SIZE) + _GAP

    def draw(self, pen: ImageDraw.ImageDraw) -> None:
        baseline = round(_TITLE_SIZE * 1.05)
        pen.text((0, baseline), self._title, fill=INK, font=_font(_TITLE_SIZE), anchor="ls", stroke_width=_BOLD)
        pen.text((self._width, baseline), self._aside, fill=FAINT_INK, font=_font(_TEXT_SIZE), anchor="rs")
        _draw_lines(pen, self._lines, 0, self._notes_top)


class _Caption:
    """Title and lines under a picture."""

    def __init__(self, cell: Cell, width: int, most: int) -> None:
        lines = list(wrapped([(cell.title, INK)], width, _TEXT_SIZE))
        for index, (name, values) in enumerate(cell.lines):
            added = list(wrapped([(name, INK), (values, SOFT_INK)], width, _TEXT_SIZE))
            is_last = index == len(cell.lines) - 1
            if most and len(lines) + len(added) > most - (not is_last):
                left = len(cell.lines) - index
                lines += wrapped(
                    [(f"and {left} more {'step' if left == 1 else 'steps'}", FAINT_INK)], width, _TEXT_SIZE
                )
                break
            lines += added
        self._lines = lines
        self.height = len(lines) * _line_height(_TEXT_SIZE)

    def draw(self, pen: ImageDraw.ImageDraw, left: int, top: int) -> None:
        _draw_lines(pen, self._lines, left, top)


Line = list[tuple[str, tuple[int, int, int]]]  # words with their colours


def wrapped(texts: Sequence[tuple[str, tuple[int, int, int]]], width: int, size: int) -> Iterator[Line]:
    """Breaks coloured texts into lines of at most `width` pixels; words that are longer are cut."""
    font = _font(size)
    space = font.getlength(" ")
    line: Line = []
    used = 0.0
    for word, colour in ((word, colour) for text, colour in texts for word in plain(text).split()):
        for piece in _pieces(word, width, font):
            needed = font.getlength(piece)
            if line and used + space + needed > width:
                yield line
                line, used = [], 0.0
            used += needed + (space if line else 0.0)
            line.append((piece, colour))
    if line:
        yield line


def _pieces(word: str, width: int, font: ImageFont.FreeTypeFont) -> Iterator[str]:
    while font.getlength(word) > width and len(word) > 1:
        fits = next((n for n in range(len(word) - 1, 1, -1) if font.getlength(word[:n]) <= width), 1)
        yield word[:fits]
        word = word[fits:]
    yield word


def _draw_lines(pen: ImageDraw.ImageDraw, lines: Sequence[Line], left: int, top: int) -> None:
    font = _font(_TEXT_SIZE)
    for number, line in enumerate(lines):
        across, baseline = float(left), top + number * _line_height(_TEXT_SIZE) + _TEXT_SIZE
        for word, colour in line:
            pen.text((across, baseline), word, fill=colour, font=font, anchor="ls")
            across += font.getlength(word) + font.getlength(" ")


def plain(text: str) -> str:
    """A text in the letters that Pillow's own font has: Latin 1, where others can be spelt in it."""
    decomposed = unicodedata.normalize("NFKC", text.translate(_PLAIN))
    return decomposed.encode("latin-1", "replace").decode("latin-1")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # a size was given
    return font


def _line_height(size: int) -> int:
    return round(size * _LEADING)
