"""What lies beyond the border of a picture: a named and recorded choice.

reflect     d c b | a b c d | c b a     about the outermost pixel
symmetric   c b a | a b c d | d c b     about the border
replicate   a a a | a b c d | d d d
circular    b c d | a b c d | a b c
zero        0 0 0 | a b c d | 0 0 0
valid       nothing: the result is smaller
"""

from __future__ import annotations

from typing import Any, TypeAlias

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


def fill_margins(padded: NDArray[Any], before: int, length: int, axis: int, boundary: str) -> None:
    """Writes what lies beyond `length` samples that stand `before` from the start of an axis (-2 or -1), up to both ends.

    It is what `pad` adds, without a copy of the samples.
    """
    end = before + length
    after = padded.shape[axis] - end
    lead, trail = _margins(before, end, after, boundary)
    for margin, source in ((slice(0, before), lead), (slice(end, end + after), trail)):
        if margin.start < margin.stop:
            values = 0 if source is None else padded[..., source, :] if axis == -2 else padded[..., source]
            padded[(..., margin, slice(None)) if axis == -2 else (..., margin)] = values


_Margin: TypeAlias = slice | NDArray[np.int64] | None  # which padded samples stand there; None: zeros


def _margins(before: int, end: int, after: int, boundary: str) -> tuple[_Margin, _Margin]:
    """Where the samples of both margins are read. Slices, which NumPy copies in a fraction of the time of indices, if they do."""
    length = end - before
    if boundary == "zero":
        return None, None
    if boundary == "replicate":
        return slice(before, before + 1), slice(end - 1, end)
    if boundary == "circular" and max(before, after) <= length:
        return slice(length, end), slice(before, before + after)
    skipped = {"reflect": 1, "symmetric": 0}.get(boundary, length)  # the outermost sample is not repeated, or it is
    if max(before, after) <= length - skipped:
        last = end - 1 - skipped
        return _backwards(before - 1 + skipped + before, before), _backwards(last, after)
    index = source_index(np.arange(-before, length + after), length, boundary) + before
    return index[:before], index[end:]


def _backwards(first: int, count: int) -> slice:
    """`count` samples from `first` on, to the left."""
    return slice(first, first - count if first >= count else None, -1)


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
