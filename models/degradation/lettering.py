"""Text as coverage, drawn with the one font that Pillow carries (Aileron), so that no font of the machine matters.

FreeType, inside Pillow, decides on the exact grey of a glyph's rim: the same bytes need the same Pillow.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_TEXT = (
    "the and of to in that was his with for had you not but her she they from were which have been their said would "
    "when what there could very more some then time little them upon great made over after know good house such long "
    "evening letter years before London 1903 Mr. July write never photograph market"
)
WORDS = tuple(_TEXT.split())
_REMEMBERED_EM = 64  # larger words are few on a page and heavy in memory
MARKS = ("SAMPLE", "PROOF", "Copyright", "PREVIEW", "Archive", "DRAFT", "(c) 2019", "example.org")


@lru_cache(maxsize=32)
def font(pixels: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font with an em of `pixels`."""
    found = ImageFont.load_default(pixels)
    assert isinstance(found, ImageFont.FreeTypeFont)  # with a size, Pillow gives no other
    return found


def word_image(word: str, pixels: int) -> NDArray[np.uint8]:
    """Coverage of a word, as high as a line and as wide as the word."""
    return _remembered(word, pixels) if pixels <= _REMEMBERED_EM else _drawn(word, pixels)


@lru_cache(maxsize=4096)
def _remembered(word: str, pixels: int) -> NDArray[np.uint8]:
    return _drawn(word, pixels)


def _drawn(word: str, pixels: int) -> NDArray[np.uint8]:
    face = font(pixels)
    image = Image.new("L", (math.ceil(face.getlength(word)) + 1, sum(face.getmetrics())))
    ImageDraw.Draw(image).text((0, 0), word, 255, face)
    return np.asarray(image)


def write(coverage: NDArray[np.uint8], words: list[NDArray[np.uint8]], top: int, left: int, space: int) -> None:
    """Sets words beside each other on `coverage`, H x W, in place; what falls outside is cut off."""
    height, width = coverage.shape
    for word in words:
        down, right = max(0, -top), max(0, -left)
        seen = word[down : max(down, height - top), right : max(right, width - left)]
        if seen.size:
            region = coverage[top + down : top + down + seen.shape[0], left + right : left + right + seen.shape[1]]
            np.maximum(region, seen, out=region)
        left += word.shape[1] + space


def phrase(rng: np.random.Generator, count: int, pixels: int) -> list[NDArray[np.uint8]]:
    """Some words of everyday English, drawn."""
    return [word_image(WORDS[index], pixels) for index in rng.integers(len(WORDS), size=count).tolist()]


def text_lines(size: tuple[int, int], lines: int, pixels: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Coverage, H x W, of single lines of two to five words, as far inside the picture as they fit.

    Args:
        size: H, W.
        pixels: the font's em.
    """
    coverage, space = np.zeros(size, np.uint8), _space(pixels)
    for _ in range(lines):
        words = phrase(rng, int(rng.integers(2, 6)), pixels)
        room = size[1] - sum(word.shape[1] + space for word in words) + space
        left = int(rng.integers(min(0, room), max(0, room) + 1))
        write(coverage, words, int(rng.integers(max(1, size[0] - words[0].shape[0] + 1))), left, space)
    return coverage


def text_page(size: tuple[int, int], pixels: int, spacing: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Coverage, H x W, of a page full of text.

    Args:
        size: H, W.
        pixels: the font's em.
        spacing: from line to line, in ems.
    """
    coverage, space = np.zeros(size, np.uint8), _space(pixels)
    top = -float(rng.uniform(0, spacing * pixels))
    while top < size[0]:
        words, left, reach = [], -int(rng.integers(4 * pixels)), 0
        while left + reach < size[1]:
            words += phrase(rng, 1 + size[1] // (3 * pixels), pixels)  # about a line; a word takes some two ems
            reach = sum(word.shape[1] + space for word in words)
        write(coverage, words, round(top), left, space)
        top += spacing * pixels
    return coverage


def _space(pixels: int) -> int:
    return max(1, round(0.25 * pixels))


def tiled_mark(
    size: tuple[int, int], pixels: int, degrees: float, spacing: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Coverage, H x W, of a watermark: one word, turned and repeated on a staggered lattice.

    Args:
        size: H, W.
        pixels: the font's em.
        degrees: counter-clockwise.
        spacing: free space from mark to mark, in ems.
    """
    word = MARKS[int(rng.integers(len(MARKS)))]
    left, top, right, bottom = (round(side) for side in font(pixels).getbbox(word))
    stamp = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(stamp).text((-left, -top), word, 255, font(pixels))
    turned = stamp.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    canvas = Image.new("L", (size[1], size[0]))
    across, down = turned.width + round(spacing * pixels), turned.height + round(spacing * pixels)
    start_x, start_y = int(rng.integers(across)), int(rng.integers(down))
    for row, y in enumerate(range(start_y - 2 * down, size[0], down)):
        for x in range(start_x - 2 * across + (row % 2) * (across // 2), size[1], across):
            canvas.paste(255, (x, y), turned)
    return np.asarray(canvas)
