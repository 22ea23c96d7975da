"""Quality figures against a reference. A metric's name is its whole protocol: `psnr[y,border=4,u8]`.

    QUANTITY[CHANNEL, border=N, DEPTH]

    psnr     10 log10(peak^2 / MSE) in dB, from the exact sum of squared errors; identical pictures: infinity
    ssim     Wang et al. 2004: 11 x 11 Gaussian window, sigma 1.5, K1 = 0.01, K2 = 0.03, complete windows, population covariance
    rgb      all channels together; a grey picture counts as R = G = B
    gray     pictures with one channel; colour has no value here (which weights would be a guess: say `y`)
    y        luma as MATLAB's rgb2ycbcr (BT.601, studio swing), rounded to the depth; grey pictures as they are
    border=N leaves out N pixels at each side; without it nothing is left out
    u8, u16  both pictures rounded to 8 or 16 bit first, peak 255 or 65535
    f32      samples in [0, 1] as they are, peak 1

Where a protocol has no value for a picture (SSIM below 11 pixels, `gray` of colour, a border that leaves nothing) the figure is
NaN: reports count it as undefined and never average it. Memory does not grow with the picture.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, cast, get_args

import numpy as np

from transforms.errors import ConfigurationError, Reason, RecordError
from transforms.structural_similarity import WINDOW_PX, Band, mean_structural_similarity
from transforms.value_range import Samples, from_float, luma_bt601, to_float, to_u8

Quantity = Literal["psnr", "ssim"]
Channel = Literal["rgb", "gray", "y"]
Depth = Literal["u8", "u16", "f32"]

PEAK = {"u8": 255, "u16": 65535, "f32": 1}
UNIT = {"psnr": "dB", "ssim": ""}
# Samples of one band when errors are summed: small enough that temporaries stay in a core's cache.
_BAND_SAMPLES = 3 << 14


class ComputedPicture(Protocol):
    """A picture whose rows are computed when they are read."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, W, C."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice) -> Samples: ...


Readable: TypeAlias = Samples | ComputedPicture


@dataclass(frozen=True)
class Metric:
    """One figure with its protocol; call it with two pictures.

    Example:
        >>> parse_metric("psnr[rgb,u8]")(np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8))
        0.0
    """

    quantity: Quantity
    channel: Channel
    depth: Depth
    border: int = 0

    @property
    def name(self) -> str:
        """The canonical spelling."""
        border = f"border={self.border}," if self.border else ""
        return f"{self.quantity}[{self.channel},{border}{self.depth}]"

    @property
    def unit(self) -> str:
        return UNIT[self.quantity]

    @property
    def higher_is_better(self) -> bool:
        return True

    def __call__(self, restored: Readable, reference: Samples) -> float:
        """The figure of `restored` (H x W x C samples as decoded, or as they are computed) against `reference` of the same
        height and width.

        Raises:
            RecordError: `SIZE_MISMATCH`; `NON_FINITE` if float samples hold NaN or infinity.
        """
        if isinstance(restored, np.ndarray) and self._is_plain(restored, reference):
            return _decibels(_squared_error_of_pictures(restored, reference), PEAK["u8"], restored.size)
        pair = _Pair(self, restored, reference)
        if not pair.is_measurable:
            return math.nan
        if self.quantity == "ssim":
            return mean_structural_similarity(pair.read, pair.shape, PEAK[self.depth])
        return _psnr_db(pair, PEAK[self.depth])

    def _is_plain(self, restored: Samples, reference: Samples) -> bool:
        """Whether the figure is the PSNR of all samples as they lie in memory: what `degrade` asks for with each patch."""
        return (
            (self.quantity, self.channel, self.depth, self.border) == ("psnr", "rgb", "u8", 0)
            and restored.shape == reference.shape
            and restored.dtype == reference.dtype == np.uint8
            and restored.flags.c_contiguous
            and reference.flags.c_contiguous
            and restored.size > 0
        )


class _Pair:
    """Both pictures under a protocol, converted only as far as rows are read."""

    def __init__(self, metric: Metric, restored: Readable, reference: Samples) -> None:
        if restored.shape[:2] != reference.shape[:2]:
            sizes = [f"{samples.shape[1]}x{samples.shape[0]}" for samples in (restored, reference)]
            raise RecordError(
                Reason.SIZE_MISMATCH,
                f"the picture is {sizes[0]}, its reference {sizes[1]}; {metric.name} needs equal sizes",
            )
        height, width = (max(side - 2 * metric.border, 0) for side in reference.shape[:2])
        self._metric, self._columns = metric, slice(metric.border, metric.border + width)
        self._restored, self._reference = restored, reference
        self._is_grey = restored.shape[2] == reference.shape[2] == 1
        self.shape = (height, width, 3 if metric.channel == "rgb" and not self._is_grey else 1)

    @property
    def is_measurable(self) -> bool:
        smallest = WINDOW_PX if self._metric.quantity == "ssim" else 1
        return min(self.shape[:2]) >= smallest and (self._is_grey or self._metric.channel != "gray")

    def read(self, top: int, bottom: int) -> tuple[Band, Band]:
        """Rows `top` to `bottom` inside the border of both, as rows x width x channels at the metric's depth."""
        rows = slice(self._metric.border + top, self._metric.border + bottom)
        return self._convert(self._restored[rows][:, self._columns]), self._convert(
            self._reference[rows][:, self._columns]
        )

    def _convert(self, band: Samples) -> Band:
        if band.dtype == np.float32 and not np.isfinite(band).all():
            raise RecordError(
                Reason.NON_FINITE, f"the picture holds NaN or infinite samples; {self._metric.name} has no value"
            )
        if not self._is_grey and band.shape[2] == 1:
            band = np.broadcast_to(band, (*band.shape[:2], 3))
        if self._metric.channel == "y" and not self._is_grey:
            return _luma(band, self._metric.depth)
        return _at_depth(band, self._metric.depth)


def _at_depth(band: Samples, depth: Depth) -> Band:
    if depth == "u8":
        return to_u8(band)
    if depth == "f32":
        return to_float(band)
    return band if band.dtype == np.uint16 else from_float(to_float(band), np.uint16)


def _luma(band: Samples, depth: Depth) -> Band:
    """Luma of the samples at that depth, rounded to it, with the channel axis kept."""
    samples = _at_depth(band, depth)
    if depth == "u16":  # in float64: float32 cannot tell neighbouring 16-bit values from ties
        luma = np.floor(luma_bt601(samples / 65535) * 65535 + 0.5).astype(np.uint16)
    else:
        luma = luma_bt601(samples)
    return cast("Band", luma[..., np.newaxis])


def _psnr_db(pair: _Pair, peak: int) -> float:
    """10 log10(peak^2 n / sum of squared errors). Integer samples are summed as integers, so the sum is exact."""
    errors = (_squared_error(restored, reference) for restored, reference in _bands(pair))
    squared_error = math.fsum(errors) if peak == PEAK["f32"] else sum(errors)
    return _decibels(squared_error, peak, math.prod(pair.shape))


def _decibels(squared_error: float, peak: int, count: int) -> float:
    return 10 * math.log10(peak * peak * count / squared_error) if squared_error else math.inf


def _bands(pair: _Pair) -> Iterator[tuple[Band, Band]]:
    height, width, channels = pair.shape
    rows = max(1, _BAND_SAMPLES // (width * channels))
    for top in range(0, height, rows):
        yield pair.read(top, min(top + rows, height))


def _squared_error(restored: Band, reference: Band) -> int | float:
    if restored.dtype == np.float32:
        return float(np.square(np.subtract(restored, reference, dtype=np.float64)).sum())
    if restored.dtype == np.uint8:
        return _squared_error_of_bytes(restored, reference)
    return int(np.square(np.subtract(restored, reference, dtype=np.int64)).sum())


def _squared_error_of_pictures(restored: Band, reference: Band) -> int:
    """Of 8-bit samples that lie in memory one after the other."""
    first, second = restored.reshape(-1), reference.reshape(-1)
    bands = range(0, first.size, _BAND_SAMPLES)
    return sum(
        _squared_error_of_bytes(first[start : start + _BAND_SAMPLES], second[start : start + _BAND_SAMPLES])
        for start in bands
    )


def _squared_error_of_bytes(restored: Band, reference: Band) -> int:
    """Exact, and faster than in 32-bit integers: 256 squares of at most 255^2 stay below 2^24, where float32 still counts
    every unit."""
    distance = np.maximum(restored, reference)  # in 8 bit: a quarter of the memory of signed integers
    distance -= np.minimum(restored, reference)
    values = distance.reshape(-1).astype(np.float32)
    rows = values[: values.size & ~255].reshape(-1, 1, 256)
    rest = values[rows.size :]
    return int(np.matmul(rows, rows.transpose(0, 2, 1)).sum(dtype=np.float64)) + int(np.dot(rest, rest))


_NAME = re.compile(r"\s*([A-Za-z]+)\s*\[([^\[\]]*)\]\s*")
_BORDER = re.compile(r"border\s*=\s*(\d{1,6})")
_GRAMMAR = "QUANTITY[CHANNEL,border=N,DEPTH] with psnr or ssim; rgb, gray or y; u8, u16 or f32"


def parse_metric(name: str) -> Metric:
    """Reads a metric's name; options may stand in any order, channel and depth must be said.

    Raises:
        ConfigurationError: not a metric, with the nearest one.

    Example:
        >>> parse_metric("ssim[u8, y]").name
        'ssim[y,u8]'
    """
    found = _NAME.fullmatch(name)
    if not found:
        raise _unknown(name, "it has no protocol in brackets")
    quantity, options = found.group(1), [option.strip() for option in found.group(2).split(",")]
    if quantity not in get_args(Quantity):
        raise _unknown(name, f"no quantity is called {quantity!r}")
    chosen: dict[str, Any] = {}
    for option in options:
        part, value = _read_option(name, option)
        if part in chosen:
            raise _unknown(name, f"it says {part} twice")
        chosen[part] = value
    missing = [part for part in ("channel", "depth") if part not in chosen]
    if missing:
        raise _unknown(name, f"it does not say which {' and '.join(missing)}")
    return Metric(cast("Quantity", quantity), **chosen)


def _read_option(name: str, option: str) -> tuple[str, Any]:
    border = _BORDER.fullmatch(option)
    if border:
        return "border", int(border.group(1))
    if option in get_args(Channel):
        return "channel", option
    if option in get_args(Depth):
        return "depth", option
    raise _unknown(name, f"no option is called {option!r}")


def _unknown(name: str, problem: str) -> ConfigurationError:
    known = [Metric(q, c, d).name for q in get_args(Quantity) for c in get_args(Channel) for d in get_args(Depth)]
    known += [Metric(q, "y", "u8", border).name for q in get_args(Quantity) for border in (1, 2, 3, 4, 8)]
    asked = name.lower().replace(" ", "")
    near = difflib.get_close_matches(asked if "[" in asked else f"{asked}[rgb,u8]", known, n=1, cutoff=0.3)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    return ConfigurationError(f"{name!r} is no metric: {problem}{guess} Expected {_GRAMMAR}")


def parse_metrics(text: str) -> tuple[Metric, ...]:
    """Reads a comma-separated list as it stands on the command line; commas inside brackets belong to the names.

    Raises:
        ConfigurationError: one is no metric, one comes twice, or there is none.

    Example:
        >>> [metric.name for metric in parse_metrics("psnr[rgb,u8],ssim[y,u8]")]
        ['psnr[rgb,u8]', 'ssim[y,u8]']
    """
    metrics = tuple(parse_metric(name) for name in re.split(r",(?![^\[]*\])", text) if name.strip())
    names = [metric.name for metric in metrics]
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(
            f"the metrics {text!r} must be a list without repetition, such as 'psnr[rgb,u8],ssim[rgb,u8]'"
        )
    return metrics
