"""Warps: each output pixel reads the picture at a place of its own, between the pixels.

    y(p) = x(place(p)),     x between its pixels = sum over the nearest 2 x 2 or 4 x 4 pixels of  k(row distance) k(column distance)

Places are computed in float64 by NumPy, whatever the picture is kept in, so that an accelerator reads at the same places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.degradation.distributions import DrawableWord
from models.degradation.protocol import Wording
from models.degradation.taps import Part, Size, Taps, Term, gather, scatter
from transforms.planes import Planes
from transforms.planes.boundary import BOUNDARIES

Reals: TypeAlias = NDArray[np.floating[Any]]
Places: TypeAlias = tuple[Reals, Reals]  # rows, columns, float64; the centre of the top left pixel is 0, 0
Reading: TypeAlias = Callable[[int, int], Places]  # (first, last) -> where output rows first .. last - 1 read the input

SAMPLINGS = ("bilinear", "bicubic")  # bicubic: Keys 1981, a = -1/2, MATLAB's; both are exact at the pixels
FILLED = tuple(each for each in BOUNDARIES if each != "valid")

SamplingWord: TypeAlias = Annotated[
    DrawableWord, Wording(meaning="how it is read between the pixels", options=SAMPLINGS)
]
FilledWord: TypeAlias = Annotated[DrawableWord, Wording(meaning="what is read outside the picture", options=FILLED)]

# Places end up at most 2 pixels outside (`near`), and the bicubic kernel reaches 2 further.
_MARGIN = (4, 5)


def warp(planes: Planes, reading: Reading, output_size: Size, boundary: str, sampling: str) -> Planes:
    """y(p) = x(place(p)) for C x H x W planes.

    Args:
        reading: the places of whole rows of the output; its arrays may be overwritten.
        output_size: height and width of the result.
        boundary: what stands outside the picture, one of FILLED.
        sampling: one of SAMPLINGS.
    """
    size = (int(planes.shape[-2]), int(planes.shape[-1]))
    return gather(planes, _taps(reading, size, output_size, boundary, sampling))


def warp_adjoint(planes: Planes, reading: Reading, size: Size, boundary: str, sampling: str) -> Planes:
    """The adjoint of `warp`; `size` is that of the picture that was read."""
    output_size = (int(planes.shape[-2]), int(planes.shape[-1]))
    return scatter(planes, _taps(reading, size, output_size, boundary, sampling))


def inside(reading: Reading, size: Size, output_size: Size) -> NDArray[np.bool_]:
    """Which output pixels read between the pixels of a picture of `size`, and need nothing from outside."""
    result = np.empty(output_size, dtype=np.bool_)
    slack = 1e-6  # a turn by 90 degrees misses whole pixels by a rounding
    for first in range(0, output_size[0], 64):
        last = min(first + 64, output_size[0])
        rows, columns = reading(first, last)
        result[first:last] = (rows >= -slack) & (rows <= size[0] - 1 + slack)
        result[first:last] &= (columns >= -slack) & (columns <= size[1] - 1 + slack)
    return result


def near(places: Reals, length: int, boundary: str) -> Reals:
    """Places at most 2 pixels outside 0 .. length - 1 at which the same is read. Works in place.

    What lies outside repeats or mirrors what lies inside, at fractional places as well.
    """
    if boundary in ("replicate", "zero"):
        # Two pixels away, and further, all that even the bicubic kernel sees is the same.
        return np.clip(places, -2, length + 1, out=places)
    if boundary == "circular":
        if places.min() < 0 or places.max() > length:
            np.mod(places, length, out=places)
        return places
    # Mirrors stand at the pixels' centres (reflect) or at their outer sides (symmetric), half a pixel further out.
    edge = 0.0 if boundary == "reflect" else 0.5
    far = length - 1 + 2 * edge  # distance of the mirrors
    places += edge
    np.abs(places, out=places)
    if places.max() > 2 * far:
        if far == 0:
            places[...] = 0
        else:
            np.mod(places, 2 * far, out=places)
    places -= far
    np.abs(places, out=places)
    return np.subtract(far - edge, places, out=places)


def _taps(reading: Reading, size: Size, output_size: Size, boundary: str, sampling: str) -> Taps:
    if boundary not in FILLED or sampling not in SAMPLINGS:
        expected = f"one of {', '.join(FILLED)} and one of {', '.join(SAMPLINGS)}"
        raise ValueError(f"boundary {boundary!r} and sampling {sampling!r}: expected {expected}")
    weigh = _linear if sampling == "bilinear" else _cubic
    width = size[1] + sum(_MARGIN)

    def parts(first: int, last: int) -> Iterator[Part]:
        shape = (last - first, output_size[1])
        rows, columns = (_full(each, shape) for each in reading(first, last))
        top, down = _split(near(rows, size[0], boundary))
        left, right = _split(near(columns, size[1], boundary))
        row_weights, column_weights = weigh(down), weigh(right)
        lead = _MARGIN[0] - (len(row_weights) // 2 - 1)  # pixels that are read before the place's own
        top *= width
        top += left
        top += lead * (width + 1)
        yield Part(
            slice(first * output_size[1], last * output_size[1]),
            _terms(top.astype(np.intp).reshape(-1), row_weights, column_weights, width),
        )

    return Taps(size, output_size, _MARGIN, boundary, parts)


def _terms(
    base: NDArray[np.intp],
    row_weights: list[Reals],
    column_weights: list[Reals],
    width: int,
) -> Iterator[Term]:
    for down, row_weight in enumerate(row_weights):
        for right, column_weight in enumerate(column_weights):
            yield Term((row_weight * column_weight).reshape(-1), ((base, down * width + right),))


def _full(places: Reals, shape: tuple[int, int]) -> Reals:
    """As an array of all pixels that may be overwritten; a map that leaves rows straight may give H x 1."""
    return places if places.shape == shape else np.broadcast_to(places, shape).copy()


def _split(places: Reals) -> tuple[Reals, Reals]:
    """The whole pixel before each place, and the way from there, 0 to 1."""
    whole = np.floor(places)
    places -= whole
    return whole, places.astype(np.float32)


def _linear(t: Reals) -> list[Reals]:
    """Weights of the pixels at distances t and 1 - t."""
    return [1 - t, t]


def _cubic(t: Reals) -> list[Reals]:
    """Weights of the pixels at -1, 0, 1, 2, for a place at t. Keys, IEEE Trans. ASSP 29(6), 1981, a = -1/2."""
    s = 1 - t
    ts = t * s / 2
    outer, last = -ts * s, -ts * t  # -t (1-t)^2 / 2 and -t^2 (1-t) / 2
    return [outer, s - 2 * outer + last, t - 2 * last + outer, last]
