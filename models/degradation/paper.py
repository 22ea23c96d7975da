"""Print and paper: halftone, the back page showing through, fading ink, stains, uneven light, the paper's own texture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.degradation.blur_kernels import gaussian_taps
from models.degradation.distributions import Drawable
from models.degradation.fields import smooth_field
from models.degradation.layers import Gain, size_of, tint
from models.degradation.protocol import Operator, Parameters, Quantity
from transforms.planes import Planes, like, namespace
from transforms.planes.banded import apply_bands, filter_band
from transforms.randomness import from_stream

_LEVELS = 1 << 13  # of the table of thresholds
_ANGLES = {3: (-30.0, 30.0, -45.0), 1: (0.0,)}  # of cyan, magenta and yellow beside black's: 15, 75, 0 and 45 degrees
_BROWN = (0.45, 0.7, 1.0)  # what a stain absorbs of red, green and blue


def halftone_screen(
    size: tuple[int, int], period: float, angle: float, phases: tuple[float, float]
) -> NDArray[np.float32]:
    """Thresholds, H x W, of a clustered-dot screen: F((cos u + cos v) / 2), with u and v across the turned cells.

    F is the distribution function of its argument, so that thresholds are uniform on [0, 1] and a screened grey keeps
    its mean.

    Args:
        period: side of a cell in pixels.
        angle: of the screen, in degrees.
        phases: of u and v, in radians.
    """
    turn, frequency = math.radians(angle), 2 * math.pi / period
    y, x = np.arange(size[0])[:, np.newaxis] * frequency, np.arange(size[1]) * frequency
    spot = np.zeros(size, np.float32)
    # cos(a + b) = cos a cos b - sin a sin b: two products of a column and a row instead of a cosine for each pixel.
    for row, column in (
        (y * math.sin(turn), x * math.cos(turn) + phases[0]),
        (y * math.cos(turn), -x * math.sin(turn) + phases[1]),
    ):
        left = np.concatenate([np.cos(row), -np.sin(row)], axis=1).astype(np.float32)
        spot += left @ np.stack([np.cos(column), np.sin(column)]).astype(np.float32)
    spot += np.float32(2)
    spot *= np.float32((_LEVELS - 1) / 4)
    levels = spot.astype(np.int32)
    thresholds: NDArray[np.float32] = np.take(_thresholds(), levels, mode="clip")  # rounding may leave the table by one
    return thresholds


@cache
def _thresholds() -> NDArray[np.float32]:
    """Distribution function of (cos u + cos v) / 2, u and v uniform, at the middle of each of its levels in [-1, 1]."""
    spots = (2 * (np.arange(_LEVELS) + 0.5) / _LEVELS - 1)[:, np.newaxis]
    others = np.cos(np.pi * (np.arange(256) + 0.5) / 256)
    shares: NDArray[np.float64] = (1 - np.arccos(np.clip(2 * spots - others, -1, 1)) / np.pi).mean(axis=1)
    return shares.astype(np.float32)


def show_through(planes: Planes, strength: float, sigma: float, shift: tuple[int, int]) -> Planes:
    """y = x exp(-s h * (1 - b / w)): the back page b, blurred by the paper, w its white.

    The picture itself, mirrored and shifted around, stands for the back page.
    """
    xp = namespace(planes)
    white = xp.maximum(xp.max(planes, axis=(-2, -1), keepdims=True), like(np.array(1e-3, np.float32), planes))
    ink = xp.roll(xp.flip(planes, axis=-1), shift, axis=(-2, -1)) / white
    if sigma > 0:
        taps = gaussian_taps(sigma)
        ink = apply_bands(ink, *(filter_band(side, taps, "replicate") for side in size_of(planes)))
    ink -= 1
    ink *= strength
    seen = xp.exp(ink)
    seen *= planes
    return seen


def stain_density(
    size: tuple[int, int], count: int, radius: float, tide: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Stains, H x W, from 0 outside: irregular blobs with a darker tide line where the liquid dried.

    Args:
        radius: mean, in pixels.
        tide: strength of the tide line beside the blob's own, 1 - tide.
    """
    density = np.zeros(size, np.float32)
    ragged = np.float32(0.12) * smooth_field(rng, size, max(1.0, 0.45 * radius))
    ragged += np.float32(0.03) * smooth_field(rng, size, max(1.0, 0.12 * radius))
    for _ in range(count):
        reach = radius * float(rng.uniform(0.5, 1.5))
        centre = rng.random(2) * size
        top, left = (max(0, int(middle - 1.6 * reach)) for middle in centre)
        bottom, right = (min(side, int(middle + 1.6 * reach) + 2) for side, middle in zip(size, centre, strict=True))
        rows = ((np.arange(top, bottom) - centre[0]) / reach).astype(np.float32)[:, np.newaxis]
        columns = ((np.arange(left, right) - centre[1]) / reach).astype(np.float32)
        inside = 1 - np.sqrt(rows * rows + columns * columns)  # 1 in the middle, 0 at the rim
        inside += ragged[top:bottom, left:right]
        blob = np.clip(inside * np.float32(12), 0, 1)
        blob *= np.float32(1 - tide)
        inside -= np.float32(0.06)
        inside *= np.float32(1 / 0.05)
        inside *= inside
        np.negative(inside, out=inside)
        blob += np.float32(tide) * np.exp(inside, out=inside)
        blob *= np.float32(rng.uniform(0.4, 1))
        part = density[top:bottom, left:right]
        np.maximum(part, blob, out=part)
    return density


@dataclass(frozen=True)
class Halftone(Operator):
    """Clustered-dot halftone, y = clip((x - t) / e + 1/2): dots grow with ink; e = 0 prints paper or ink only.

    t is uniform on [0, 1] over a cell, so a grey keeps its mean. Each colour channel has its own angle, as cyan, magenta,
    yellow and black are printed: 15, 75, 0 and 45 degrees. Period in scans: 4 to 10 pixels.

    Source: Ulichney, "Digital Halftoning", 1987 (clustered-dot ordered dither).
    """

    name: ClassVar[str] = "halftone"
    noisy: ClassVar[bool] = True
    period: Annotated[Drawable, Quantity(meaning="side of a cell in pixels", minimum=2, maximum=1000)] = 6
    angle: Annotated[Drawable, Quantity(meaning="angle of black in degrees; colours keep theirs beside it")] = 45
    softness: Annotated[
        Drawable, Quantity(meaning="e, range of greys that a dot's rim covers", minimum=0, maximum=1)
    ] = 0

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        xp, rng = namespace(planes), from_stream(parameters["stream"])
        phases = rng.uniform(0, 2 * math.pi, (planes.shape[0], 2)).tolist()
        size, angle = size_of(planes), parameters["angle"]
        angles = (angle + offset for offset in _ANGLES[planes.shape[0]])
        screens = [
            halftone_screen(size, parameters["period"], turned, (u, v))
            for turned, (u, v) in zip(angles, phases, strict=True)
        ]
        thresholds = like(np.stack(screens), planes)
        if parameters["softness"] > 0:
            return xp.clip((planes - thresholds) / parameters["softness"] + 0.5, 0, 1)
        return xp.astype(planes > thresholds, planes.dtype)


@dataclass(frozen=True)
class BleedThrough(Operator):
    """The back page shows through thin paper: y = x exp(-s h * (1 - b / w)). Usual: s 0.1 to 0.5, blur 1 to 3 pixels.

    Densities add: the front's, and the light that the back absorbs, blurred by the paper (h, a Gaussian). b is the
    picture itself, mirrored sideways and shifted around; w, its brightest value, is the paper.

    Source: Sharma, "Show-through cancellation in scans of duplex printed documents", TIP 2001 (the linear model in
    density); Moghaddam and Cheriet, "A variational approach to degraded document enhancement", PAMI 2010.
    """

    name: ClassVar[str] = "bleed_through"
    strength: Annotated[Drawable, Quantity(meaning="s, density of the back's black seen from the front", minimum=0)]
    sigma: Annotated[Drawable, Quantity(meaning="blur by the paper in pixels", minimum=0, maximum=1000)] = 2
    down: Annotated[Drawable, Quantity(meaning="shift down over the picture's height", minimum=0, maximum=1)] = 0
    across: Annotated[Drawable, Quantity(meaning="shift right over the picture's width", minimum=0, maximum=1)] = 0

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        height, width = size_of(planes)
        shift = (int(parameters["down"] * height), int(parameters["across"] * width))
        return show_through(planes, parameters["strength"], parameters["sigma"], shift)


@dataclass(frozen=True)
class InkFading(Operator):
    """Ink faded unevenly: y = x + a (w - x), w the brightest value, a a smooth field about its mean.

    Source: Moghaddam and Cheriet, PAMI 2010 (ink fading as one of the degradations of documents); the field is ours.
    """

    name: ClassVar[str] = "ink_fading"
    noisy: ClassVar[bool] = True
    fade: Annotated[Drawable, Quantity(meaning="mean of a: 0 keeps the ink, 1 leaves none", minimum=0, maximum=1)]
    unevenness: Annotated[Drawable, Quantity(meaning="standard deviation of a", minimum=0, maximum=1)] = 0.1
    scale: Annotated[Drawable, Quantity(meaning="size of the patches over the shorter side", above=0, maximum=10)] = 0.3

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        size = size_of(planes)
        field = smooth_field(from_stream(parameters["stream"]), size, max(1.0, parameters["scale"] * min(size)))
        share = np.clip(parameters["fade"] + parameters["unevenness"] * field, 0, 1).astype(np.float32)
        faded = namespace(planes).max(planes, axis=(-2, -1), keepdims=True) - planes
        faded *= like(share, planes)
        faded += planes
        return faded


@dataclass(frozen=True)
class Stains(Gain):
    """Brown stains, y = (1 - s d) x: irregular blobs d with a dark tide line; s acts most on blue, least on red.

    Many small ones without a tide line are foxing; few large ones are water or tea.

    Source: modelled on stained documents; the darker rim is the coffee ring of Deegan et al., Nature 1997.
    """

    name: ClassVar[str] = "stains"
    noisy: ClassVar[bool] = True
    count: Annotated[Drawable, Quantity(meaning="stains", minimum=0, maximum=10000, integer=True)] = 2
    radius: Annotated[Drawable, Quantity(meaning="mean radius over the shorter side", above=0, maximum=2)] = 0.25
    strength: Annotated[Drawable, Quantity(meaning="s, share of blue absorbed", minimum=0, maximum=1)] = 0.3
    tide: Annotated[Drawable, Quantity(meaning="share of the tide line in it", minimum=0, maximum=1)] = 0.4

    @classmethod
    def gain(cls, size: tuple[int, int], channels: int, parameters: Parameters) -> NDArray[np.float32]:
        drawn = (parameters["count"], parameters["radius"] * min(size), parameters["tide"])
        density = stain_density(size, *drawn, from_stream(parameters["stream"]))
        return 1 - tint(_BROWN, channels) * (np.float32(parameters["strength"]) * density)


@dataclass(frozen=True)
class UnevenLight(Gain):
    """Uneven light, y = x exp(s (f - max f)): a smooth field f of variance 1; the brightest place stays as it was.

    s is 0.02 to 0.1 for a flat sheet, up to 0.3 for a book under a lamp.

    Source: Gonzalez and Woods, "Digital Image Processing" (the illumination-reflectance model: light is a slow factor).
    """

    name: ClassVar[str] = "uneven_light"
    noisy: ClassVar[bool] = True
    strength: Annotated[Drawable, Quantity(meaning="standard deviation of log light", minimum=0, maximum=3)]
    scale: Annotated[
        Drawable, Quantity(meaning="size of bright and dark parts over the shorter side", above=0, maximum=10)
    ] = 0.7

    @classmethod
    def gain(cls, size: tuple[int, int], channels: int, parameters: Parameters) -> NDArray[np.float32]:
        field = smooth_field(from_stream(parameters["stream"]), size, max(1.0, parameters["scale"] * min(size)))
        field -= field.max()
        field *= np.float32(parameters["strength"])
        return np.exp(field)


@dataclass(frozen=True)
class PaperTexture(Gain):
    """The grain of paper, y = (1 + s f) x: f, of variance 1, is fibres of `scale` pixels and flocks of four times that.

    Source: modelled on scans; s 0.01 to 0.05.
    """

    name: ClassVar[str] = "paper_texture"
    noisy: ClassVar[bool] = True
    strength: Annotated[Drawable, Quantity(meaning="s, relative standard deviation", minimum=0, maximum=1)]
    scale: Annotated[Drawable, Quantity(meaning="size of the finest grain in pixels", minimum=1, maximum=1000)] = 1.5

    @classmethod
    def gain(cls, size: tuple[int, int], channels: int, parameters: Parameters) -> NDArray[np.float32]:
        rng, scale, strength = from_stream(parameters["stream"]), parameters["scale"], parameters["strength"]
        gain = smooth_field(rng, size, scale)
        gain *= np.float32(0.8 * strength)
        gain += np.float32(0.6 * strength) * smooth_field(rng, size, 4 * scale)
        gain += np.float32(1)
        return gain
