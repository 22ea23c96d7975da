"""Separable linear maps: a matrix for the rows and one for the columns, each row of which has few neighbours.

    Y = R X C^T                      adjoint:  X = R^T Y C

Resampling, separable blur, and every boundary condition of them are such matrices. A matrix is kept as taps, indices and
weights of each output sample, and multiplied in dense blocks of 32 outputs: BLAS makes short work of these, and memory
stays linear in the side of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.degradation.boundary import OUTSIDE, source_index
from models.degradation.planes import Planes, like, namespace

BLOCK = 32  # smaller ones keep BLAS waiting, larger ones are mostly zeros


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

    @property
    def outputs(self) -> int:
        return len(self.indices)

    def dense(self) -> NDArray[np.float64]:
        """The whole matrix, for tests and small pictures."""
        matrix = np.zeros((self.outputs, self.length))
        for rows, columns, block in self.blocks:
            matrix[rows, columns] += block
        return matrix

    @cached_property
    def blocks(self) -> list[tuple[slice, slice, NDArray[np.float64]]]:
        """Dense blocks: output rows, input columns, matrix."""
        return list(self._blocks())

    def _blocks(self) -> Iterator[tuple[slice, slice, NDArray[np.float64]]]:
        for start in range(0, self.outputs, BLOCK):
            rows = slice(start, min(start + BLOCK, self.outputs))
            places, weights = self.indices[rows].ravel(), self.weights[rows].ravel()
            outputs = np.repeat(np.arange(rows.stop - start), self.indices.shape[1])
            if places.min() == OUTSIDE:
                counts = places != OUTSIDE
                places, weights, outputs = places[counts], weights[counts], outputs[counts]
            for low, high in _spans(places):
                inside = (places >= low) & (places < high)
                cells = outputs[inside] * (high - low) + places[inside] - low
                matrix = np.zeros((rows.stop - start, high - low))
                matrix.ravel()[:] = np.bincount(cells, weights[inside], matrix.size)
                yield rows, slice(low, high), matrix


def _spans(used: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Where the columns of a block lie: at both ends for a circular boundary, so that no block becomes the whole matrix."""
    if not len(used):
        return []
    low, high = int(used.min()), int(used.max()) + 1
    if high - low <= max(4 * BLOCK, len(used)):
        return [(low, high)]
    values = np.unique(used)
    gaps = np.nonzero(np.diff(values) > 2 * BLOCK)[0]
    starts = [0, *(gaps + 1).tolist()]
    ends = [*gaps.tolist(), len(values) - 1]
    return [(int(values[a]), int(values[b]) + 1) for a, b in zip(starts, ends, strict=True)]


def filter_band(length: int, taps: NDArray[Any], boundary: str) -> Band:
    """Convolution of `length` samples with `taps`, whose origin is taps[len(taps) // 2]."""
    origin, side = len(taps) // 2, len(taps)
    outputs = length - side + 1 if boundary == "valid" else length
    if outputs < 1:
        raise ValueError(f"a kernel of {side} samples does not fit into {length}; use another boundary than valid")
    first = side - 1 if boundary == "valid" else origin
    positions = np.arange(outputs)[:, np.newaxis] + first - np.arange(side)
    weights = np.broadcast_to(np.asarray(taps, dtype=np.float64), (outputs, side))
    return Band(length, source_index(positions, length, boundary), weights)


def apply_bands(planes: Planes, rows: Band | None, columns: Band | None) -> Planes:
    """R X C^T for each of ... x H x W planes; None leaves a side as it is. The side that shrinks more goes first."""
    if rows is not None and columns is not None and rows.outputs * columns.length > columns.outputs * rows.length:
        return _rows(_columns(planes, columns), rows)
    halfway = planes if rows is None else _rows(planes, rows)
    return halfway if columns is None else _columns(halfway, columns)


def apply_bands_adjoint(planes: Planes, rows: Band | None, columns: Band | None) -> Planes:
    """R^T Y C."""
    halfway = planes if rows is None else _rows_adjoint(planes, rows)
    return halfway if columns is None else _columns_adjoint(halfway, columns)


def _rows(planes: Planes, band: Band) -> Planes:
    result = _zeros(planes, (*planes.shape[:-2], band.outputs, planes.shape[-1]))
    last = None
    for rows, columns, block in band.blocks:
        part = namespace(planes).matmul(like(block, planes), planes[..., columns, :])
        result[..., rows, :] = part if rows != last else result[..., rows, :] + part
        last = rows
    return result


def _columns(planes: Planes, band: Band) -> Planes:
    result = _zeros(planes, (*planes.shape[:-1], band.outputs))
    last = None
    for rows, columns, block in band.blocks:
        part = namespace(planes).matmul(planes[..., columns], like(block.T, planes))
        result[..., rows] = part if rows != last else result[..., rows] + part
        last = rows
    return result


def _rows_adjoint(planes: Planes, band: Band) -> Planes:
    result = _zeros(planes, (*planes.shape[:-2], band.length, planes.shape[-1]))
    for rows, columns, block in band.blocks:
        result[..., columns, :] += namespace(planes).matmul(like(block.T, planes), planes[..., rows, :])
    return result


def _columns_adjoint(planes: Planes, band: Band) -> Planes:
    result = _zeros(planes, (*planes.shape[:-1], band.length))
    for rows, columns, block in band.blocks:
        result[..., columns] += namespace(planes).matmul(planes[..., rows], like(block, planes))
    return result


def _zeros(planes: Planes, shape: tuple[int, ...]) -> Planes:
    device = {} if isinstance(planes, np.ndarray) else {"device": planes.device}
    return namespace(planes).zeros(shape, dtype=planes.dtype, **device)
