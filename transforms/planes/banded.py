"""Separable linear maps: a matrix for the rows and one for the columns, each row of which has few neighbours.

    Y = R X C^T                      adjoint:  X = R^T Y C

Resampling, separable blur, and every boundary condition of them are such matrices. A matrix is kept as taps, indices and
weights of each output sample, and multiplied in dense blocks of a few outputs: BLAS makes short work of these, and memory
stays linear in the side of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from transforms.planes import Planes, like, namespace
from transforms.planes.boundary import BOUNDARIES, OUTSIDE, source_index
from transforms.planes.windows import Reach, filtered

# Outputs of a block: fewer keep BLAS waiting, more are mostly zeros. Measured for blurs of 7 to 25 taps, and for resizing by 1/4
# to 1.6. A tensor may be on an accelerator, which is slow to start.
BLOCK, TENSOR_BLOCK = 16, 32

Block: TypeAlias = tuple[slice, slice, NDArray[Any]]  # output rows, input columns, matrix


@dataclass(frozen=True, eq=False)
class Band:
    """A matrix, outputs x length, given by its taps.

    Attributes:
        length: samples of the input.
        indices: outputs x taps; OUTSIDE for a tap that counts nothing.
        weights: outputs x taps, float64.
    """

    length: int
    indices: NDArray[np.int64]
    weights: NDArray[np.float64]
    _cast: dict[str, tuple[list[Block], list[Block]]] = field(init=False, repr=False, default_factory=dict)

    @property
    def outputs(self) -> int:
        return len(self.indices)

    def dense(self) -> NDArray[np.float64]:
        """The whole matrix, for tests and small pictures."""
        matrix = np.zeros((self.outputs, self.length))
        for rows, columns, block in self.blocks(BLOCK):
            matrix[rows, columns] += block
        return matrix

    def blocks(self, size: int) -> list[Block]:
        """Dense blocks of at most `size` outputs, in order; those of the same outputs are added up. No output is without one."""
        count = -(-self.outputs // size)
        chosen = np.minimum(np.arange(count * size), self.outputs - 1)
        indices, weights = (each[chosen].reshape(count, -1) for each in (self.indices, self.weights))
        if indices.min() == OUTSIDE:  # such taps read any sample, and count nothing
            outside, nearest = indices == OUTSIDE, indices.max(axis=1, keepdims=True)
            indices, weights = np.where(outside, np.maximum(nearest, 0), indices), np.where(outside, 0.0, weights)
        low = indices.min(axis=1)
        width = int((indices.max(axis=1) - low).max()) + 1
        starts = range(0, self.outputs, size)
        # A circular boundary reaches both ends: such blocks are cut in two, so that none becomes the whole matrix.
        if width > max(64, 2 * size * self.length // self.outputs + 2 * self.indices.shape[1]):
            return [block for start in starts for block in self._spanned(slice(start, min(start + size, self.outputs)))]
        low = np.minimum(low, self.length - width)
        cells = indices.reshape(count * size, -1) + np.arange(count * size)[:, np.newaxis] * width
        cells.reshape(count, -1)[...] -= low[:, np.newaxis]
        matrices = np.bincount(cells.ravel(), weights.ravel(), count * size * width).reshape(count, size, width)
        return [
            (slice(start, min(start + size, self.outputs)), slice(first, first + width), matrix[: self.outputs - start])
            for start, first, matrix in zip(starts, low.tolist(), matrices, strict=True)
        ]

    def every(self, kept: range) -> Band:
        """Only some of the outputs, at equal steps."""
        chosen = slice(kept.start, kept.stop, kept.step)
        return Band(self.length, self.indices[chosen], self.weights[chosen])

    def _spanned(self, rows: slice) -> Iterator[Block]:
        """The blocks of some outputs, one for each span of columns that they read."""
        places, weights = self.indices[rows].ravel(), self.weights[rows].ravel()
        outputs = np.repeat(np.arange(rows.stop - rows.start), self.indices.shape[1])
        if places.min() == OUTSIDE:
            counts = places != OUTSIDE
            places, weights, outputs = places[counts], weights[counts], outputs[counts]
        for low, high in _spans(places):
            size = (rows.stop - rows.start, high - low)
            inside = (places >= low) & (places < high)
            cells = outputs[inside] * size[1] + (places[inside] - low)
            yield rows, slice(low, high), np.bincount(cells, weights[inside], size[0] * size[1]).reshape(size)

    def blocks_for(self, planes: Planes, *, turned: bool) -> list[tuple[slice, slice, Any]]:
        """Blocks of the planes' kind and type and of a size that suits them, each matrix transposed if `turned`."""
        if not isinstance(planes, np.ndarray):
            blocks = self.blocks(TENSOR_BLOCK)
            return [(rows, columns, like(block.T if turned else block, planes)) for rows, columns, block in blocks]
        if planes.dtype.str not in self._cast:
            blocks = self.blocks(BLOCK)
            self._cast[planes.dtype.str] = _both_ways(blocks, planes.dtype)
        return self._cast[planes.dtype.str][turned]


def _both_ways(blocks: list[Block], dtype: np.dtype[Any]) -> tuple[list[Block], list[Block]]:
    """The blocks in another type, and transposed: laid out anew, since BLAS takes twice as long for a small transposed view."""
    matrices = {id(block): block for _, _, block in blocks}  # the inner blocks of a filter are one matrix
    cast = {name: np.ascontiguousarray(block, dtype) for name, block in matrices.items()}
    turned = {name: np.ascontiguousarray(block.T) for name, block in cast.items()}
    plain, other = ([(rows, columns, each[id(block)]) for rows, columns, block in blocks] for each in (cast, turned))
    return plain, other


class _FilterBand(Band):
    """A convolution, or every n-th of its outputs: all have the same weights, so blocks that do not meet the border are alike.

    NumPy planes that are filtered both ways need no more than its `reach`; taps are made when asked for.
    """

    reach: Reach

    def __init__(self, length: int, reach: Reach) -> None:
        for name, value in (("length", length), ("reach", reach), ("_cast", {})):
            object.__setattr__(self, name, value)

    @property
    def outputs(self) -> int:
        return self.reach.outputs

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        reach, side = self.reach, len(self.reach.weights)
        last = reach.first + (reach.outputs - 1) * reach.step + side
        read = source_index(np.arange(reach.first, last), self.length, reach.boundary)
        (item,) = read.strides
        return np.ndarray((reach.outputs, side), read.dtype, read, 0, (reach.step * item, item))

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        return np.broadcast_to(self.reach.weights, (self.outputs, len(self.reach.weights)))

    def every(self, kept: range) -> Band:
        return _FilterBand(self.length, self.reach.every(kept))

    def blocks(self, size: int) -> list[Block]:
        return list(self._blocks(size))

    def _blocks(self, size: int) -> Iterator[Block]:
        side, step = self.indices.shape[1], self.reach.step
        inner = self.reach.matrix(size, np.dtype(np.float64))
        for start in range(0, self.outputs, size):
            rows = slice(start, min(start + size, self.outputs))
            width = (rows.stop - start - 1) * step + side
            low, high = int(self.indices[start, 0]), int(self.indices[rows.stop - 1, -1]) + 1
            if low >= 0 and high - low == width:  # nothing is folded in between
                yield rows, slice(low, high), inner if width == inner.shape[1] else inner[: rows.stop - start, :width]
            else:
                yield from self._spanned(rows)


def _spans(used: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Where the columns of a block lie: at both ends for a circular boundary; a single one for outputs that read nothing."""
    if not len(used):
        return [(0, 1)]
    low, high = int(used.min()), int(used.max()) + 1
    if high - low <= max(4 * TENSOR_BLOCK, len(used)):
        return [(low, high)]
    values = np.unique(used)
    gaps = np.nonzero(np.diff(values) > 2 * TENSOR_BLOCK)[0]
    starts = [0, *(gaps + 1).tolist()]
    ends = [*gaps.tolist(), len(values) - 1]
    return [(int(values[a]), int(values[b]) + 1) for a, b in zip(starts, ends, strict=True)]


def filter_band(length: int, taps: NDArray[Any], boundary: str) -> Band:
    """Convolution of `length` samples with `taps`, whose origin is taps[len(taps) // 2]."""
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary {boundary!r}: expected one of {', '.join(BOUNDARIES)}")
    if boundary != "valid":
        taps = _without_zeros_around(taps)
    origin, side = len(taps) // 2, len(taps)
    outputs = length - side + 1 if boundary == "valid" else length
    if outputs < 1:
        raise ValueError(f"a kernel of {side} samples does not fit into {length}; use another boundary than valid")
    first = 0 if boundary == "valid" else origin - side + 1
    return _FilterBand(length, Reach(np.ascontiguousarray(taps[::-1], dtype=np.float64), first, 1, outputs, boundary))


def _without_zeros_around(taps: NDArray[Any]) -> NDArray[Any]:
    """As many are taken off at each side, so that the origin stays in the middle."""
    used, origin = np.flatnonzero(taps), len(taps) // 2
    if not len(used):
        return taps
    reach = max(origin - int(used[0]), int(used[-1]) - origin)
    return taps[origin - reach : origin + reach + 1]


def apply_bands(planes: Planes, rows: Band | None, columns: Band | None) -> Planes:
    """R X C^T for each of ... x H x W planes; None leaves a side as it is. The side that shrinks more goes first."""
    if isinstance(rows, _FilterBand) and isinstance(columns, _FilterBand) and isinstance(planes, np.ndarray):
        return filtered(planes, rows.reach, columns.reach)
    if rows is not None and columns is not None and rows.outputs * columns.length > columns.outputs * rows.length:
        return _rows(_columns(planes, columns), rows)
    halfway = planes if rows is None else _rows(planes, rows)
    return halfway if columns is None else _columns(halfway, columns)


def apply_bands_adjoint(planes: Planes, rows: Band | None, columns: Band | None) -> Planes:
    """R^T Y C."""
    halfway = planes if rows is None else _rows_adjoint(planes, rows)
    return halfway if columns is None else _columns_adjoint(halfway, columns)


def _rows(planes: Planes, band: Band) -> Planes:
    result = _new(planes, (*planes.shape[:-2], band.outputs, planes.shape[-1]))
    begun = None
    for rows, columns, block in band.blocks_for(planes, turned=False):
        _multiply(block, planes[..., columns, :], result[..., rows, :], again=rows == begun)
        begun = rows
    return result


def _columns(planes: Planes, band: Band) -> Planes:
    result = _new(planes, (*planes.shape[:-1], band.outputs))
    begun = None
    for rows, columns, block in band.blocks_for(planes, turned=True):
        _multiply(planes[..., columns], block, result[..., rows], again=rows == begun)
        begun = rows
    return result


def _multiply(left: Planes, right: Planes, part: Planes, *, again: bool) -> None:
    """Writes the product into a part of the result, or adds it to what another block of the same outputs has written there."""
    if again:
        part += namespace(part).matmul(left, right)
    elif isinstance(part, np.ndarray):
        np.matmul(left, right, out=part)
    else:
        part[...] = namespace(part).matmul(left, right)


def _rows_adjoint(planes: Planes, band: Band) -> Planes:
    result = _new(planes, (*planes.shape[:-2], band.length, planes.shape[-1]))
    result[...] = 0
    for rows, columns, block in band.blocks_for(planes, turned=True):
        result[..., columns, :] += namespace(planes).matmul(block, planes[..., rows, :])
    return result


def _columns_adjoint(planes: Planes, band: Band) -> Planes:
    result = _new(planes, (*planes.shape[:-1], band.length))
    result[...] = 0
    for rows, columns, block in band.blocks_for(planes, turned=False):
        result[..., columns] += namespace(planes).matmul(planes[..., rows], block)
    return result


def _new(planes: Planes, shape: tuple[int, ...]) -> Planes:
    device = {} if isinstance(planes, np.ndarray) else {"device": planes.device}
    return namespace(planes).empty(shape, dtype=planes.dtype, **device)
