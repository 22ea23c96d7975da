"""What lies on a picture, or was rubbed off it: scratches, dust, cracks, torn corners, text, watermarks.

y = x + a (c - x) with opacity a and colour c. `arrays` gives the mask of what is intact, where a = 0 and y = x exactly.
Marks are measured in pixels of the picture, damage to the whole sheet in shares of its shorter side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.degradation.distributions import Drawable, DrawableWord
from models.degradation.fields import fractal_line, stamp
from models.degradation.layers import COLOURS, Overlay, tint
from models.degradation.lettering import text_lines, tiled_mark
from models.degradation.protocol import Parameters, Quantity, Wording
from transforms.randomness import from_stream

_CORNER = 1.6  # how much further than the straight tear a jagged one may reach
_STEP = 0.7  # pixels from disc to disc along a line: close enough for a smooth rim
_COLOUR = Wording(meaning="what it is made of", options=tuple(COLOURS))


def scratch_lines(
    size: tuple[int, int], count: int, width: float, length: float, tilt: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Opacity, H x W, of long thin lines, nearly vertical, each of its own strength, which also varies along it.

    Args:
        width: mean of the lines' widths in pixels.
        length: mean of their lengths, over the picture's height.
        tilt: standard deviation of their angles, in degrees.
    """
    parts: list[NDArray[np.float64]] = []
    for _ in range(count):
        extent = min(length * size[0] * float(rng.uniform(0.4, 1.6)), 2 * math.hypot(*size))
        points = 1 + int(extent / _STEP)
        along = np.linspace(-extent / 2, extent / 2, points)
        angle = math.radians(tilt) * float(rng.standard_normal())
        wobble = _resampled(fractal_line(rng, 9, 0.5), points) * extent * 0.004
        patchy = _resampled(rng.uniform(0.2, 1.3, 3 + int(extent / 12)), points)
        centre = rng.uniform(0, 1, 2) * size
        rows = centre[0] + along * math.cos(angle)
        columns = centre[1] + along * math.sin(angle) + wobble
        radius = width / 2 * float(rng.uniform(0.5, 1.5))
        strength = np.clip(patchy * float(rng.uniform(0.3, 1)), 0, 1)
        parts.append(np.stack([rows, columns, np.full(points, radius), strength]))
    return _stamped(size, parts)


def dust_specks(
    size: tuple[int, int], specks: int, hairs: int, radius: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Opacity, H x W, of irregular specks and curled hairs.

    Args:
        radius: median radius of a speck in pixels; a few are three times as large.
    """
    blobs = 3  # discs that make a speck irregular
    sizes = radius * np.exp(np.clip(0.5 * rng.standard_normal(specks), -1.5, 1.5))
    centres = rng.random((2, specks)) * np.array(size)[:, np.newaxis]
    spread = rng.standard_normal((2, blobs, specks)) * 0.6 * sizes
    rows, columns = (centres[:, np.newaxis] + spread).reshape(2, -1)
    strengths = np.tile(rng.uniform(0.4, 1, specks), blobs)
    parts = [np.stack([rows, columns, np.tile(0.8 * sizes, blobs), strengths])]
    for _ in range(hairs):
        extent = radius * float(rng.uniform(10, 40))
        points = 1 + int(extent / _STEP)
        bend = rng.uniform(-2, 2) + np.cumsum(rng.normal(0, 2 / math.sqrt(points), points))
        heading = float(rng.uniform(0, 2 * math.pi)) + np.cumsum(bend) / points
        start = rng.random(2) * size
        path = np.stack([start[0] + np.cumsum(np.sin(heading)) * _STEP, start[1] + np.cumsum(np.cos(heading)) * _STEP])
        thin = np.full((2, points), [[max(0.3, radius / 3)], [float(rng.uniform(0.4, 0.9))]])
        parts.append(np.concatenate([path, thin]))
    return _stamped(size, parts)


def crack_lines(
    size: tuple[int, int], count: int, width: float, branches: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Opacity, H x W, of jagged lines from border to border, with thinner branches; the sheet was folded there.

    Args:
        width: mean width in pixels; it varies along the line, and the line may break off.
        branches: mean number for each crack.
    """
    diagonal = math.hypot(*size)
    parts: list[NDArray[np.float64]] = []
    for _ in range(count):
        angle = float(rng.uniform(0, math.pi))
        middle = rng.uniform(0.1, 0.9, 2) * size
        reach = np.array([math.sin(angle), math.cos(angle)]) * diagonal * float(rng.uniform(0.25, 0.7))
        path = _crack(middle - reach, middle + reach, width, rng)
        parts.append(path)
        for _ in range(int(rng.poisson(branches))):
            start = path[:2, int(rng.integers(path.shape[1]))]
            turn = angle + float(rng.choice([-1, 1])) * float(rng.uniform(0.4, 1.2))
            end = start + np.array([math.sin(turn), math.cos(turn)]) * diagonal * float(rng.uniform(-0.3, 0.3))
            parts.append(_crack(start, end, 0.6 * width, rng))
    return _stamped(size, parts)


def _crack(
    start: NDArray[np.float64], end: NDArray[np.float64], width: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Discs, 4 x N, of one jagged line."""
    extent = max(1.0, float(np.hypot(*(end - start))))
    points = int(extent / _STEP) + 2
    offsets = _resampled(fractal_line(rng, points, 0.55), points) * extent * 0.05
    share = np.linspace(0, 1, points)
    across = np.array([start[1] - end[1], end[0] - start[0]]) / extent
    path = start[:, np.newaxis] + (end - start)[:, np.newaxis] * share + across[:, np.newaxis] * offsets
    wear = _resampled(rng.normal(1, 0.6, 3 + int(extent / 10)), points) + 0.3 * rng.standard_normal(points)
    radii = np.clip(wear, 0, 2.5) * width / 2
    return np.concatenate([path, radii[np.newaxis], np.clip(0.4 + wear, 0, 1)[np.newaxis]])


def _stamped(size: tuple[int, int], parts: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    coverage = np.zeros(size, np.float32)
    if parts:
        stamp(coverage, *np.concatenate(parts, axis=1))
    return coverage


def _resampled(values: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    return np.interp(np.linspace(0, len(values) - 1, points), np.arange(len(values)), values)


def torn_corner(
    size: tuple[int, int], depth: float, rim: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The top left corner, torn off along a jagged line.

    Args:
        size: H, W of the picture.
        depth: mean of the two sides that are lost, in pixels.
        rim: mean width of the strip along the tear where only the picture's layer is gone, in pixels.

    Returns:
        Opacities over a part of the picture that begins at its corner: of all that is lost, and of what lies beyond
        the sheet. Both fall from 1 to 0 across one pixel.
    """
    sides = depth * rng.uniform(0.5, 1.5, 2)
    tear = float(np.hypot(*sides))
    rows = np.arange(min(size[0], int(_CORNER * sides[0]) + 8), dtype=np.float32)[:, np.newaxis]
    columns = np.arange(min(size[1], int(_CORNER * sides[1]) + 8), dtype=np.float32)
    beyond = (sides[0] * sides[1] - rows * sides[1] - columns * sides[0]) / tear  # pixels, positive at the corner
    along = (rows * sides[0] - columns * sides[1]) / (2 * _CORNER * tear**2) + 0.5  # 0 to 1 over the part and more
    points = int(2 * _CORNER * tear) + 2
    edge, strip = 0.06 * tear * fractal_line(rng, points, 0.6), rim * (1 + 0.4 * fractal_line(rng, points, 0.8))
    place = np.clip(along * len(edge), 0, len(edge) - 1).astype(np.int64)
    lost = beyond.astype(np.float32) + edge.astype(np.float32)[place]
    outside = lost - np.maximum(strip, 0).astype(np.float32)[place]
    return np.clip(lost + np.float32(0.5), 0, 1), np.clip(outside + np.float32(0.5), 0, 1)


@dataclass(frozen=True)
class Scratches(Overlay):
    """Long thin lines, nearly vertical, of random strength: film through a projector, a print under a brush.

    Source: Kokaram, "Motion Picture Restoration", 1998 (line scratches); synthetic scratches for training:
    Wan et al., "Bringing old photos back to life", CVPR 2020.
    """

    name: ClassVar[str] = "scratches"
    count: Annotated[Drawable, Quantity(meaning="lines", minimum=0, maximum=10000, integer=True)] = 3
    width: Annotated[Drawable, Quantity(meaning="mean width in pixels", above=0, maximum=100)] = 1
    length: Annotated[Drawable, Quantity(meaning="mean length over the picture's height", above=0, maximum=2)] = 0.6
    tilt: Annotated[
        Drawable, Quantity(meaning="standard deviation of the angle to the vertical, degrees", minimum=0)
    ] = 5
    colour: Annotated[DrawableWord, _COLOUR] = "white"

    @classmethod
    def opacity(cls, size: tuple[int, int], parameters: Parameters) -> NDArray[np.float32]:
        count, width, length, tilt = (parameters[each] for each in ("count", "width", "length", "tilt"))
        return scratch_lines(size, count, width, length, tilt, from_stream(parameters["stream"]))


@dataclass(frozen=True)
class Dust(Overlay):
    """Irregular specks, log-normal in size, and curled hairs: white from a negative, dark from a print's own scan.

    Source: Kokaram, "Motion Picture Restoration", 1998 (dirt and sparkle); Wan et al., CVPR 2020.
    """

    name: ClassVar[str] = "dust"
    density: Annotated[Drawable, Quantity(meaning="specks in 10,000 pixels", minimum=0, maximum=1000)] = 3
    radius: Annotated[Drawable, Quantity(meaning="median radius in pixels", above=0, maximum=50)] = 0.8
    hairs: Annotated[Drawable, Quantity(meaning="hairs", minimum=0, maximum=10000, integer=True)] = 1
    colour: Annotated[DrawableWord, _COLOUR] = "white"

    @classmethod
    def opacity(cls, size: tuple[int, int], parameters: Parameters) -> NDArray[np.float32]:
        rng = from_stream(parameters["stream"])
        specks = int(rng.poisson(parameters["density"] * size[0] * size[1] / 10_000))
        return dust_specks(size, specks, parameters["hairs"], parameters["radius"], rng)


@dataclass(frozen=True)
class Cracks(Overlay):
    """Folds and cracks of a print: jagged lines across it, branching, where the bare paper shows.

    Source: modelled on damaged prints; the lines are fractal (Fournier et al., CACM 1982). Wan et al., CVPR 2020, paste
    such textures from scans.
    """

    name: ClassVar[str] = "cracks"
    count: Annotated[Drawable, Quantity(meaning="cracks", minimum=0, maximum=1000, integer=True)] = 2
    width: Annotated[Drawable, Quantity(meaning="mean width in pixels", above=0, maximum=50)] = 1.2
    branches: Annotated[Drawable, Quantity(meaning="mean number for each crack", minimum=0, maximum=100)] = 2
    colour: Annotated[DrawableWord, _COLOUR] = "ivory"

    @classmethod
    def opacity(cls, size: tuple[int, int], parameters: Parameters) -> NDArray[np.float32]:
        count, width, branches = (parameters[each] for each in ("count", "width", "branches"))
        return crack_lines(size, count, width, branches, from_stream(parameters["stream"]))


@dataclass(frozen=True)
class TornCorners(Overlay):
    """Corners torn off along fractal lines: bare paper along the tear, and the scanner's lid beyond it.

    Source: Mandelbrot, Passoja and Paullay, "Fractal character of fracture surfaces", Nature 1984 (why it is a fractal).
    """

    name: ClassVar[str] = "torn_corners"
    corners: Annotated[Drawable, Quantity(meaning="corners that are lost", minimum=0, maximum=4, integer=True)] = 2
    depth: Annotated[Drawable, Quantity(meaning="sides lost over the shorter side, mean", above=0, maximum=0.5)] = 0.12
    rim: Annotated[Drawable, Quantity(meaning="width of the bare paper in pixels", minimum=0, maximum=1000)] = 3
    paper: Annotated[DrawableWord, Wording(meaning="colour of the bare paper", options=tuple(COLOURS))] = "ivory"
    behind: Annotated[DrawableWord, Wording(meaning="colour behind the sheet", options=tuple(COLOURS))] = "white"

    @classmethod
    def opacity(cls, size: tuple[int, int], parameters: Parameters) -> NDArray[np.float32]:
        return _torn(size, parameters)[0]

    @classmethod
    def layer(
        cls, size: tuple[int, int], channels: int, parameters: Parameters
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        paper, behind = (tint(COLOURS[parameters[each]], channels) for each in ("paper", "behind"))
        lost, outside = _torn(size, parameters)
        paint = outside * (behind - paper)
        paint += paper
        return lost, paint


def _torn(size: tuple[int, int], parameters: Parameters) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Opacities, H x W each, of all that is lost and of what lies beyond the sheet."""
    rng = from_stream(parameters["stream"])
    layers = (np.zeros(size, np.float32), np.zeros(size, np.float32))
    for corner in rng.permutation(4)[: parameters["corners"]].tolist():
        parts = torn_corner(size, parameters["depth"] * min(size), parameters["rim"], rng)
        for layer, part in zip(layers, parts, strict=True):
            turned = layer[:: 1 - 2 * (corner // 2), :: 1 - 2 * (corner % 2)]  # a view whose top left corner it is
            region = turned[: part.shape[0], : part.shape[1]]
            np.maximum(region, part, out=region)
    return layers


@dataclass(frozen=True)
class TextOverlay(Overlay):
    """Lines of text lie on the picture, semi-transparent: captions, date stamps. Usual alpha: 0.3 to 0.7, 1 is opaque.

    Source: Dekel et al., "On the effectiveness of visible watermarks", CVPR 2017, equation 1 (the alpha blend).
    """

    name: ClassVar[str] = "text_overlay"
    lines: Annotated[Drawable, Quantity(meaning="lines of text", minimum=0, maximum=1000, integer=True)] = 2
    size: Annotated[Drawable, Quantity(meaning="em of the font in pixels", minimum=4, maximum=2000, integer=True)] = 20
    alpha: Annotated[Drawable, Quantity(meaning="opacity of the letters", minimum=0, maximum=1)] = 0.5
    colour: Annotated[DrawableWord, _COLOUR] = "white"

    @classmethod
    def opacity(cls, size: tuple[int, int], parameters: Parameters) -> NDArray[np.float32]:
        rng = from_stream(parameters["stream"])
        return text_lines(size, parameters["lines"], parameters["size"], rng) * np.float32(parameters["alpha"] / 255)


@dataclass(frozen=True)
class Watermark(Overlay):
    """One word, turned and repeated all over the picture, semi-transparent. Usual alpha: 0.3 to 0.7.

    Source: Dekel et al., "On the effectiveness of visible watermarks", CVPR 2017, equation 1.
    """

    name: ClassVar[str] = "watermark"
    size: Annotated[Drawable, Quantity(meaning="em of the font in pixels", minimum=4, maximum=2000, integer=True)] = 20
    alpha: Annotated[Drawable, Quantity(meaning="opacity of the letters", minimum=0, maximum=1)] = 0.5
    angle: Annotated[Drawable, Quantity(meaning="degrees, counter-clockwise")] = 30
    spacing: Annotated[Drawable, Quantity(meaning="free space from mark to mark, in ems", minimum=0, maximum=100)] = 1
    colour: Annotated[DrawableWord, _COLOUR] = "white"

    @classmethod
    def opacity(cls, size: tuple[int, int], parameters: Parameters) -> NDArray[np.float32]:
        rng = from_stream(parameters["stream"])
        mark = tiled_mark(size, parameters["size"], parameters["angle"], parameters["spacing"], rng)
        return mark * np.float32(parameters["alpha"] / 255)
