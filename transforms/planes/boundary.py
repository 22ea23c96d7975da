"""What lies beyond the border of a picture: a named and recorded choice.

reflect     d c b | a b c d | c b a     about the outermost pixel
symmetric   c b a | a b c d | d c b     about the border
replicate   a a a | a b c d | d d d
circular    b c d | a b c d | a b c
zero        0 0 0 | a b c d | 0 0 0
valid       nothing: the result is smaller
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.planes import Planes, like, namespace

BOUNDARIES = ("reflect", "symmetric", "replicate", "circular", "zero", "valid")
OUTSIDE = -1


def source_index(positions: NDArray[Any], length: int, boundary: str) -> NDArray[np.int64]:
    """Which sample of 0 .. length - 1 stands at each position; OUTSIDE where there is none.

    Raises:
        ValueError: an unknown boundary, or "valid" for a position outside.
    """
    inside = np.asarray(positions, dtype=np.int64)
    if boundary == "circular":
        return inside % length
    if boundary == "replicate":
        return np.clip(inside, 0, length - 1)
    if boundary == "symmetric":
        folded = inside % (2 * length)
        return np.where(folded < length, folded, 2 * length - 1 - folded)
    if boundary == "reflect":
        if length == 1:
            return np.zeros_like(inside)
        folded = inside % (2 * length - 2)
        return np.where(folded < length, folded, 2 * length - 2 - folded)
    outside = (inside < 0) | (inside >= length)
    if boundary == "zero":
        return np.where(outside, OUTSIDE, inside)
    if boundary == "valid" and not outside.any():
        return inside
    raise ValueError(f"boundary {boundary!r} has no samples outside; expected one of {', '.join(BOUNDARIES)}")


def pad(planes: Planes, before: int, after: int, axis: int, boundary: str) -> Planes:
    """Lengthens an axis (-2: rows, -1: columns) by `before` and `after` samples."""
    if not (before or after) or boundary == "valid":
        return planes
    length = planes.shape[axis]
    index = source_index(np.arange(-before, length + after), length, boundary)
    padded = namespace(planes).take(planes, like(np.maximum(index, 0), planes), axis=axis)
    if boundary == "zero":
        shape = (-1, 1) if axis == -2 else (-1,)
        padded = padded * like((index != OUTSIDE).astype(np.float32).reshape(shape), planes)
    return padded


def fold(planes: Planes, before: int, after: int, axis: int, boundary: str) -> Planes:
    """The adjoint of `pad`: each padded sample is added to the one that it was copied from."""
    if not (before or after) or boundary == "valid":
        return planes
    length = planes.shape[axis] - before - after
    rows = (Ellipsis, slice(before, before + length)) + ((slice(None),) if axis == -2 else ())
    folded = namespace(planes).asarray(planes[rows], copy=True)
    margins = [*range(-before, 0), *range(length, length + after)]
    for position, target in zip(margins, source_index(np.array(margins), length, boundary).tolist(), strict=True):
        if target == OUTSIDE:
            continue
        if axis == -2:
            folded[..., target, :] += planes[..., position + before, :]
        else:
            folded[..., target] += planes[..., position + before]
    return folded
