"""Convolution with a point spread function, and its adjoint.

    y(p) = sum_q k(q) x(p - q)          q runs over the kernel, whose origin is its element (kh // 2, kw // 2)

This is true convolution (the kernel is turned by 180 degrees), as SciPy and MATLAB's conv2 do it; neural networks and
OpenCV's filter2D correlate. Sparse kernels (a short line of motion) are added tap by tap, all others go through the FFT,
tile by tile for large pictures, so that beside the picture and the result only a tile is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from models.degradation.blur_kernels import cropped
from transforms.planes import Planes, fft_of, like, namespace
from transforms.planes.boundary import fill_margins, fold, pad, source_index

Kernel = NDArray[np.floating[Any]]  # kh x kw
CACHED_SAMPLES = (
    1 << 17
)  # planes that are larger together are transformed one by one, so that all steps stay in the cache
TILE = 512  # output side of one FFT; larger ones leave the cache
_SIDES_OF_SMALL_KERNELS = 5  # in the side of an FFT: where products of matrices take as long as the FFT of the kernel
SPARSE_TAPS = 12  # so many shifted additions take about as long as the FFT of a 128-pixel patch


def convolve(planes: Planes, kernel: Kernel, boundary: str, scratch: _Scratch | None = None) -> Planes:
    """Convolves ... x H x W planes, all with the same kernel.

    Args:
        planes: ... x H x W.
        kernel: kh x kw.
        boundary: see `transforms.planes.boundary`; with "valid" the result is (H - kh + 1) x (W - kw + 1).
        scratch: empty at first; memory that calls one after the other share, so that it stays in the cache.

    Raises:
        ValueError: "valid" and a kernel larger than the picture.
    """
    kernel = np.asarray(kernel, dtype=np.float64)
    if boundary != "valid":
        kernel = cropped(kernel)
    height, width = output_size(planes.shape[-2:], kernel.shape, boundary)
    if height <= TILE and width <= TILE:
        if isinstance(planes, np.ndarray) and np.count_nonzero(kernel) > SPARSE_TAPS:
            return _axis_by_axis(planes, kernel, boundary, {} if scratch is None else scratch)
        return _valid(_padded(planes, kernel.shape, boundary), kernel)
    result = namespace(planes).empty((*planes.shape[:-2], height, width), dtype=planes.dtype, **_device(planes))
    shifts = (0, 0) if boundary == "valid" else (_before(kernel.shape[0]), _before(kernel.shape[1]))
    for top, bottom in _spans(height):
        rows = _lines(planes, top - shifts[0], bottom - shifts[0] + kernel.shape[0] - 1, -2, boundary)
        for left, right in _spans(width):
            tile = _lines(rows, left - shifts[1], right - shifts[1] + kernel.shape[1] - 1, -1, boundary)
            result[..., top:bottom, left:right] = _valid(tile, kernel)
    return result


def convolve_all(pictures: Sequence[Planes], kernels: Sequence[Kernel], boundaries: Sequence[str]) -> list[Planes]:
    """`convolve` for each of several pictures of any sizes, to the last bit."""
    scratch: _Scratch = {}
    return [
        convolve(planes, kernel, boundary, scratch)
        for planes, kernel, boundary in zip(pictures, kernels, boundaries, strict=True)
    ]


def convolve_adjoint(planes: Planes, kernel: Kernel, boundary: str) -> Planes:
    """The adjoint:  <k * x, y> = <x, adjoint(y)>.  It correlates, and folds what `convolve` had padded."""
    kernel = np.asarray(kernel, dtype=np.float64)
    kh, kw = kernel.shape
    full = planes
    for axis, side in ((-2, kh), (-1, kw)):
        full = pad(full, side - 1, side - 1, axis, "zero")
    full = _valid(full, kernel[::-1, ::-1])
    if boundary == "valid":
        return full
    full = fold(full, _before(kh), kh - 1 - _before(kh), -2, boundary)
    return fold(full, _before(kw), kw - 1 - _before(kw), -1, boundary)


def convolve_each(batch: Planes, kernels: list[Kernel], boundary: str) -> Planes:
    """Convolves each of N x C x H x W pictures with a kernel of its own, in one FFT of the batch."""
    side = (max(k.shape[0] for k in kernels), max(k.shape[1] for k in kernels))
    if boundary == "valid" and any(k.shape != side for k in kernels):
        raise ValueError("boundary 'valid' gives kernels of several sizes results of several sizes; use one size")
    stacked = np.zeros((len(kernels), 1, *side))
    for slot, kernel in zip(stacked, kernels, strict=True):
        top, left = (side[0] // 2 - kernel.shape[0] // 2, side[1] // 2 - kernel.shape[1] // 2)
        slot[0, top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    return _by_fft(_padded(batch, side, boundary), stacked)


def output_size(size: tuple[int, ...], kernel: tuple[int, ...], boundary: str) -> tuple[int, int]:
    """Height and width of the result."""
    height, width = size
    if boundary != "valid":
        return height, width
    if kernel[0] > height or kernel[1] > width:
        raise ValueError(
            f"a kernel of {kernel[1]}x{kernel[0]} does not fit into {width}x{height} pixels; use another boundary than valid"
        )
    return height - kernel[0] + 1, width - kernel[1] + 1


def _before(side: int) -> int:
    """Samples needed before the first: the kernel is turned, so what comes after its origin counts."""
    return side - 1 - side // 2


def _padded(planes: Planes, kernel: tuple[int, ...], boundary: str) -> Planes:
    for axis, side in ((-2, kernel[0]), (-1, kernel[1])):
        planes = pad(planes, _before(side), side - 1 - _before(side), axis, boundary)
    return planes


def _lines(planes: Planes, first: int, last: int, axis: int, boundary: str) -> Planes:
    """Rows or columns first .. last - 1, of which some may lie outside."""
    length = planes.shape[axis]
    inside = slice(max(first, 0), min(last, length))
    if first >= 0 and last <= length:
        return planes[..., inside, :] if axis == -2 else planes[..., inside]
    if boundary == "zero":
        part = planes[..., inside, :] if axis == -2 else planes[..., inside]
        return pad(part, max(0, -first), max(0, last - length), axis, boundary)
    index = source_index(np.arange(first, last), length, boundary)
    return namespace(planes).take(planes, like(index, planes), axis=axis)


def _spans(length: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, TILE):
        yield start, min(start + TILE, length)


def _valid(planes: Planes, kernel: Kernel) -> Planes:
    rows, columns = np.nonzero(kernel)
    if len(rows) <= SPARSE_TAPS:
        return _by_taps(planes, kernel, list(zip(rows.tolist(), columns.tolist(), strict=True)))
    return _by_fft(planes, kernel)


def _by_taps(planes: Planes, kernel: Kernel, taps: list[tuple[int, int]]) -> Planes:
    kh, kw = kernel.shape
    height, width = planes.shape[-2] - kh + 1, planes.shape[-1] - kw + 1
    result = namespace(planes).zeros((*planes.shape[:-2], height, width), dtype=planes.dtype, **_device(planes))
    for row, column in taps:
        top, left = kh - 1 - row, kw - 1 - column
        result += float(kernel[row, column]) * planes[..., top : top + height, left : left + width]
    return result


def _by_fft(planes: Planes, kernel: Kernel) -> Planes:
    kh, kw = kernel.shape[-2:]
    size = tuple(scipy.fft.next_fast_len(side, real=True) for side in planes.shape[-2:])
    fft = fft_of(planes)
    spectrum = fft.rfft2(planes, s=size)
    spectrum *= fft.rfft2(like(kernel, planes), s=size)
    circular = fft.irfft2(spectrum, s=size)
    return circular[..., kh - 1 : planes.shape[-2], kw - 1 : planes.shape[-1]]


def _axis_by_axis(planes: NDArray[Any], kernel: Kernel, boundary: str, scratch: _Scratch) -> NDArray[Any]:
    """What `_padded` and `_by_fft` do, in two thirds of the time for a patch: margins are slices, those above and below are copies
    of rows that are transformed already, transforms along columns are in place, and only rows that stay are transformed back."""
    (kh, kw), (height, width) = kernel.shape, planes.shape[-2:]
    rows, columns = (height, width) if boundary == "valid" else (height + kh - 1, width + kw - 1)
    # Lengths of the factors 2, 3 and 5 alone; those of 7 and 11 take longer than the next without.
    size = scipy.fft.next_fast_len(rows, real=True), scipy.fft.next_fast_len(columns, real=True)
    top, left = (0, 0) if boundary == "valid" else (_before(kh), _before(kw))
    spectrum = _spectrum(kernel, size, np.dtype(np.complex64 if planes.dtype == np.float32 else np.complex128))
    single = planes.reshape(-1, height, width)
    together = min(len(single), max(1, CACHED_SAMPLES // (size[0] * size[1])))
    padded = _borrowed(scratch, (together, height, size[1]), planes.dtype)
    padded[..., columns:] = 0
    transformed = _borrowed(scratch, (together, *spectrum.shape), spectrum.dtype)
    results = []
    for start in range(0, len(single), together):
        part = single[start : start + together]
        some, spectra = padded[: len(part)], transformed[: len(part)]
        some[..., left : left + width] = part
        fill_margins(some[..., :columns], left, width, -1, boundary)
        spectra[:, top : top + height] = scipy.fft.rfft(some, axis=2)
        fill_margins(spectra[:, :rows], top, height, -2, boundary)
        spectra[:, rows:] = 0
        spectra = scipy.fft.fft(spectra, axis=1, overwrite_x=True)
        spectra *= spectrum
        spectra = scipy.fft.ifft(spectra, axis=1, overwrite_x=True)
        results.append(scipy.fft.irfft(spectra[:, kh - 1 : rows], n=size[1], axis=2)[..., kw - 1 : columns])
    result = results[0] if len(results) == 1 else np.concatenate(results)
    return result.reshape(*planes.shape[:-2], *result.shape[1:])


_Scratch: TypeAlias = dict[tuple[tuple[int, ...], np.dtype[Any]], NDArray[Any]]


def _borrowed(scratch: _Scratch, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Memory of any content."""
    if (shape, dtype) not in scratch:
        scratch[shape, dtype] = np.empty(shape, dtype)
    return scratch[shape, dtype]


def _spectrum(kernel: Kernel, size: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`rfft2(kernel, s=size)`; of a small kernel it is two small products, in half the time."""
    height, width = kernel.shape
    if max(height, width) > min(size) // _SIDES_OF_SMALL_KERNELS:
        return np.asarray(scipy.fft.rfft2(kernel.astype(dtype.char.lower()), s=size))
    down, across = _waves(size[0], dtype.str)[:, :height], _waves(size[1], dtype.str)[: size[1] // 2 + 1, :width]
    spectrum: NDArray[Any] = down @ (kernel.astype(dtype) @ across.T)
    return spectrum


@lru_cache(maxsize=32)
def _waves(size: int, dtype: str) -> NDArray[Any]:
    """The columns of the Fourier matrix that belong to a small kernel, exp(-2 pi i f t / size): frequencies x samples."""
    phases = np.outer(np.arange(size), np.arange(size // _SIDES_OF_SMALL_KERNELS)) % size  # without whole turns: exact
    waves: NDArray[Any] = np.exp(-2j * np.pi / size * phases).astype(dtype)
    return waves


def _device(planes: Planes) -> dict[str, Any]:
    return {} if isinstance(planes, np.ndarray) else {"device": planes.device}
