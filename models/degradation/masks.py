"""Masks for inpainting: pixels that are missing and known to be missing. y = m x + (1 - m) fill.

Every mask is made again from its parameters, so the record carries numbers, not the mask; `arrays` gives it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.degradation.distributions import Drawable
from models.degradation.layers import Mask
from models.degradation.lettering import text_page
from models.degradation.protocol import Parameters, Quantity
from transforms.randomness import from_stream

_MEAN_TURN, _TURN_RANGE = 2 * math.pi / 5, 2 * math.pi / 15  # of the free-form strokes, as their authors set them
_VERTICES = (4, 12)


def centre_box(size: tuple[int, int], share: float) -> NDArray[np.bool_]:
    """True but in a centred box, whose sides are a share of the picture's."""
    intact = np.ones(size, np.bool_)
    height, width = (round(share * side) for side in size)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    intact[top : top + height, left : left + width] = False
    return intact


def random_boxes(
    size: tuple[int, int], count: int, sides: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """True but in boxes whose sides are independently uniform in `sides`, shares of the picture's; all lie inside."""
    intact = np.ones(size, np.bool_)
    for draws in rng.random((count, 4)):
        height, width = (
            min(side, max(1, round((sides[0] + (sides[1] - sides[0]) * draw) * side)))
            for side, draw in zip(size, draws, strict=False)
        )
        top, left = int(draws[2] * (size[0] - height + 1)), int(draws[3] * (size[1] - width + 1))
        intact[top : top + height, left : left + width] = False
    return intact


def free_form_strokes(
    size: tuple[int, int], count: int, widths: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """True but under zigzag brush strokes with round joints, of widths uniform in `widths`, in pixels."""
    height, width = size
    canvas = Image.new("L", (width, height), 1)
    draw = ImageDraw.Draw(canvas)
    mean_length = math.hypot(height, width) / 8
    for _ in range(count):
        corners = int(rng.integers(*_VERTICES))
        least, most = (_MEAN_TURN + _TURN_RANGE * np.array([-1, 1]) * rng.random(2)).tolist()
        angles = rng.uniform(least, most, corners)
        angles[::2] *= -1  # forth and back: the stroke folds upon itself
        lengths = np.clip(rng.normal(mean_length, mean_length / 2, corners), 0, 2 * mean_length)
        points = [(float(rng.uniform(0, width)), float(rng.uniform(0, height)))]
        for angle, length in zip(angles.tolist(), lengths.tolist(), strict=True):
            x, y = points[-1][0] + length * math.cos(angle), points[-1][1] + length * math.sin(angle)
            points.append((min(max(x, 0.0), width), min(max(y, 0.0), height)))
        brush = max(1, round(widths[0] + (widths[1] - widths[0]) * float(rng.random())))
        draw.line(points, 0, brush)
        for x, y in points:
            draw.ellipse((x - brush / 2, y - brush / 2, x + brush / 2, y + brush / 2), 0)
    mirrored = np.asarray(canvas)[:: 1 - 2 * int(rng.integers(2)), :: 1 - 2 * int(rng.integers(2))]
    return mirrored.astype(np.bool_)


def random_pixels(size: tuple[int, int], missing: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """False with probability `missing`, independently at each pixel."""
    return rng.random(size, dtype=np.float32) >= missing


@dataclass(frozen=True)
class CentreBoxMask(Mask):
    """A centred box is missing; share 0.5 takes 32 x 32 out of 64 x 64.

    Source: Pathak et al., "Context encoders", CVPR 2016; Yeh et al., CVPR 2017 (both share 0.5).
    """

    name: ClassVar[str] = "centre_box_mask"
    share: Annotated[Drawable, Quantity(meaning="side of the box over the picture's side", minimum=0, maximum=1)] = 0.5

    @classmethod
    def intact(cls, size: tuple[int, int], parameters: Parameters) -> NDArray[np.bool_]:
        return centre_box(size, parameters["share"])


@dataclass(frozen=True)
class RandomBoxesMask(Mask):
    """Boxes are missing, each side uniform between two shares of the picture's; they may overlap.

    Source: Iizuka, Simo-Serra and Ishikawa, "Globally and locally consistent image completion", SIGGRAPH 2017 (one box,
    sides 3/8 to 1/2); several smaller ones: Yeh et al., CVPR 2017, "random pattern masks".
    """

    name: ClassVar[str] = "random_boxes_mask"
    noisy: ClassVar[bool] = True
    count: Annotated[Drawable, Quantity(meaning="boxes", minimum=0, maximum=1000, integer=True)] = 2
    smallest: Annotated[Drawable, Quantity(meaning="least side over the picture's", minimum=0, maximum=1)] = 0.1
    largest: Annotated[Drawable, Quantity(meaning="greatest side over the picture's", minimum=0, maximum=1)] = 0.4

    @classmethod
    def intact(cls, size: tuple[int, int], parameters: Parameters) -> NDArray[np.bool_]:
        sides = (parameters["smallest"], parameters["largest"])
        return random_boxes(size, parameters["count"], sides, from_stream(parameters["stream"]))


@dataclass(frozen=True)
class StrokesMask(Mask):
    """Free-form brush strokes are missing: folded zigzags of 4 to 11 corners with round joints, mirrored at random.

    Source: Yu et al., "Free-form image inpainting with gated convolution", ICCV 2019, algorithm 1, with the
    settings of the authors' code: 1 to 3 strokes, 12 to 40 pixels wide in 256 x 256, steps of an eighth of the diagonal.
    """

    name: ClassVar[str] = "strokes_mask"
    noisy: ClassVar[bool] = True
    count: Annotated[Drawable, Quantity(meaning="strokes", minimum=0, maximum=1000, integer=True)] = 2
    thinnest: Annotated[
        Drawable, Quantity(meaning="least width over the picture's shorter side", minimum=0, maximum=1)
    ] = 12 / 256
    thickest: Annotated[
        Drawable, Quantity(meaning="greatest width over the picture's shorter side", minimum=0, maximum=1)
    ] = 40 / 256

    @classmethod
    def intact(cls, size: tuple[int, int], parameters: Parameters) -> NDArray[np.bool_]:
        widths = (parameters["thinnest"] * min(size), parameters["thickest"] * min(size))
        return free_form_strokes(size, parameters["count"], widths, from_stream(parameters["stream"]))


@dataclass(frozen=True)
class RandomPixelsMask(Mask):
    """Each pixel is missing with the same probability, in all channels at once.

    Source: Ulyanov et al., "Deep image prior", CVPR 2018 (0.5; 0.98 for restoration); Yeh et al., CVPR 2017 (0.8).
    """

    name: ClassVar[str] = "random_pixels_mask"
    noisy: ClassVar[bool] = True
    missing: Annotated[Drawable, Quantity(meaning="probability of a pixel to be missing", minimum=0, maximum=1)]

    @classmethod
    def intact(cls, size: tuple[int, int], parameters: Parameters) -> NDArray[np.bool_]:
        return random_pixels(size, parameters["missing"], from_stream(parameters["stream"]))


@dataclass(frozen=True)
class TextMask(Mask):
    """The picture is missing under the letters of a page of text.

    A pixel counts as missing from half coverage on.

    Source: Bertalmio et al., "Image inpainting", SIGGRAPH 2000; Ulyanov et al., CVPR 2018 (text inpainting).
    """

    name: ClassVar[str] = "text_mask"
    noisy: ClassVar[bool] = True
    size: Annotated[Drawable, Quantity(meaning="em of the font in pixels", minimum=4, maximum=2000, integer=True)] = 16
    spacing: Annotated[Drawable, Quantity(meaning="from line to line, in ems", minimum=1, maximum=100)] = 1.5

    @classmethod
    def intact(cls, size: tuple[int, int], parameters: Parameters) -> NDArray[np.bool_]:
        rng = from_stream(parameters["stream"])
        return text_page(size, parameters["size"], parameters["spacing"], rng) < 128
