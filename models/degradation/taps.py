"""Linear maps that differ from pixel to pixel: each output pixel is a weighted sum of a few input pixels.

    y(p) = sum_t w_t(p) sum_j x(i_tj(p))        adjoint:  x(q) = sum over all (t, j, p) with i_tj(p) = q of w_t(p) y(p)

Warps, fields of motion and turbulence are such maps. The matrix is never stored: a map tells the taps of a few output rows at a
time, which stay in the cache of the processor, and memory stays linear in the picture. The input is padded first, so that
no tap lies outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from transforms.planes import Planes, like, namespace
from transforms.planes.boundary import fold, pad

Size: TypeAlias = tuple[int, int]  # H, W
_CACHED_SAMPLES = 1 << 14  # of a chunk in NumPy: all arrays of a chunk fit into 1 or 2 MiB of cache
_LAUNCHED_SAMPLES = 1 << 20  # of a chunk on an accelerator, where each operation costs its launch


@dataclass(frozen=True, eq=False)
class Term:
    """Reads of each of n output pixels that share a weight.

    Attributes:
        weights: n, float32.
        reads: pairs of indices (n, not negative) and an offset (not negative) that is added to all of them. Both count
            in the padded picture, row after row. An offset is cheaper than further indices.
    """

    weights: NDArray[np.floating[Any]]
    reads: tuple[tuple[NDArray[np.intp], int], ...]


@dataclass(frozen=True, eq=False)
class Part:
    """All terms of some output pixels.

    Attributes:
        targets: which output pixels, counted row after row, none twice.
        terms: at least one; used once.
    """

    targets: slice | NDArray[np.intp]
    terms: Iterable[Term]


@dataclass(frozen=True, eq=False)
class Taps:
    """A map from pictures of H x W to pictures of H' x W'.

    Attributes:
        size: H, W of the input.
        output_size: H', W' of the output.
        margin: pixels before the first row and column, and after the last, in which taps may lie.
        boundary: what stands there; not "valid".
        parts: the parts of output rows `first` .. `last - 1`, which together cover these rows.
    """

    size: Size
    output_size: Size
    margin: tuple[int, int]
    boundary: str
    parts: Callable[[int, int], Iterable[Part]]


def gather(planes: Planes, taps: Taps) -> Planes:
    """Applies the map to C x H x W planes."""
    xp, (before, after) = namespace(planes), taps.margin
    padded = pad(pad(planes, before, after, -2, taps.boundary), before, after, -1, taps.boundary)
    flat = xp.reshape(padded, (padded.shape[0], -1))
    pixels = taps.output_size[0] * taps.output_size[1]
    result = xp.empty((padded.shape[0], pixels), dtype=planes.dtype, **_device(planes))
    for part in _parts(taps, planes):
        sums: list[Planes] = []
        for term in part.terms:
            weights, reads = _on_device(term, planes)
            for channel in range(flat.shape[0]):
                read = _read(flat[channel], reads)
                read *= weights
                if len(sums) <= channel:
                    sums.append(read)
                else:
                    sums[channel] += read
        targets = part.targets if isinstance(part.targets, slice) else like(part.targets, planes)
        for channel, total in enumerate(sums):
            result[channel, targets] = total
    return xp.reshape(result, (padded.shape[0], *taps.output_size))


def scatter(planes: Planes, taps: Taps) -> Planes:
    """The adjoint of `gather`."""
    xp, (before, after) = namespace(planes), taps.margin
    height, width = taps.size[0] + before + after, taps.size[1] + before + after
    channels = planes.shape[0]
    flat = xp.reshape(planes, (channels, -1))
    spread = xp.zeros((channels, height * width), dtype=planes.dtype, **_device(planes))
    for part in _parts(taps, planes):
        targets = part.targets if isinstance(part.targets, slice) else like(part.targets, planes)
        own = flat[:, targets]
        for term in part.terms:
            weights, reads = _on_device(term, planes)
            for channel in range(channels):
                weighted = own[channel] * weights
                for indices, offset in reads:
                    _add_at(spread[channel], offset, indices, weighted)
    padded = xp.reshape(spread, (channels, height, width))
    return fold(fold(padded, before, after, -1, taps.boundary), before, after, -2, taps.boundary)


def _parts(taps: Taps, planes: Planes) -> Iterator[Part]:
    height, width = taps.output_size
    samples = _CACHED_SAMPLES if isinstance(planes, np.ndarray) else _LAUNCHED_SAMPLES
    rows = max(1, samples // width)
    for first in range(0, height, rows):
        yield from taps.parts(first, min(first + rows, height))


def _on_device(term: Term, planes: Planes) -> tuple[Planes, list[tuple[Any, int]]]:
    return like(term.weights, planes), [(like(indices, planes), offset) for indices, offset in term.reads]


def _read(channel: Planes, reads: list[tuple[Any, int]]) -> Planes:
    """The sum of what the reads find. From an offset on, the padded picture is read as if it began there."""
    indices, offset = reads[0]
    total = _take(channel[offset:], indices)
    for indices, offset in reads[1:]:
        total += _take(channel[offset:], indices)
    return total


def _take(channel: Planes, indices: Any) -> Planes:
    # The margins keep all indices inside; "clip" spares NumPy the check, a fifth of the time of a warp.
    return np.take(channel, indices, mode="clip") if isinstance(channel, np.ndarray) else channel[indices]


def _add_at(channel: Planes, offset: int, indices: Any, values: Planes) -> None:
    if isinstance(channel, np.ndarray):
        np.add.at(channel[offset:], indices, values)
    else:
        channel[offset:].index_add_(0, indices, values)


def _device(planes: Planes) -> dict[str, Any]:
    return {} if isinstance(planes, np.ndarray) else {"device": planes.device}
