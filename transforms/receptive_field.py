"""The receptive field of an unknown network, found by perturbation: change a band of the input, see which outputs move.

Exact tiling needs two numbers of an image-to-image function f:

    halo     outputs further than this from a changed pixel do not move, whatever the change
    period   f(shift(x, period)) = shift(f(x), period): 1 for a plain stack of convolutions, 8 for a net that halves three times

A change of a dead or saturated unit is no change, and the outermost weights of a deep net may be too weak to show in
float32. So the band is filled with NaN (which passes through convolutions, activations and means whatever the weights),
and with random values of two magnitudes (for maxima, which may swallow NaN); every output whose bits differ in any of
these runs has moved. Finally a probe is cut in two and the parts are compared with the whole, which is the promise itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.tiling import round_down, round_up

# N x C x H x W -> N x C x sH x sW, float32; the function that is measured.
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

PROBE_LENGTHS = (64, 128, 256, 512)
PROBE_THICKNESS = 16
THIN = 4
MAGNITUDES = (1.0, 1e30)
LARGEST_PERIOD = 64
# Rounding of two runs of the same arithmetic in another order, in units of float32's epsilon.
ROUNDING = 16


@dataclass(frozen=True)
class ProbeRules:
    """Which inputs the function takes.

    Attributes:
        channels: 1 or 3.
        scale: output pixels per input pixel.
        size_multiple, min_size: of height and width.
        fixed: height and width, where the function takes no others.
        value_range: nominal range of the samples.
        dtype: of the function's own arithmetic, float32 or float16; it bounds magnitudes and sets the tolerance.
        declared_halo: what the function's author says; the probe is made long enough to check it.
    """

    channels: int
    scale: int | Fraction = 1
    size_multiple: int = 1
    min_size: int = 1
    fixed: tuple[int | None, int | None] = (None, None)
    value_range: tuple[float, float] = (0.0, 1.0)
    dtype: str = "float32"
    declared_halo: int = 0


@dataclass(frozen=True)
class Field:
    """What was found.

    Attributes:
        halo: pixels that an output sees beyond itself, or None if a change reached the probe's border.
        period: shifts that the function commutes with are multiples of this.
        obstacle: why tiles can't equal the whole picture, or None.
        seen: the largest reach seen, at most the halo.
    """

    halo: int | None
    period: int = 1
    obstacle: str | None = None
    seen: int = 0


def measure_field(run: Run, rules: ProbeRules) -> Field:
    """Measures both axes.

    Assumes that the function is deterministic and that which pixels an output depends on does not depend on the picture
    (no deformable convolution); the final comparison would show most functions that break this.

    Example:
        >>> measure_field(lambda x: 1 - x, ProbeRules(channels=1))
        Field(halo=0, period=1, obstacle=None, seen=0)
    """
    fields = [_AxisProbe(run, rules, axis).field() for axis in (0, 1)]
    for found in fields:
        if found.obstacle:
            return found
    seen = max(found.seen for found in fields)
    return Field(seen, math.lcm(*(found.period for found in fields)), seen=seen)


class _AxisProbe:
    """Strips along one axis: long where it matters, thin across."""

    def __init__(self, run: Run, rules: ProbeRules, axis: int, thickness: int = PROBE_THICKNESS) -> None:
        self._run = run
        self._rules = rules
        self._axis = axis
        self._fixed = rules.fixed[axis]
        self._thickness = rules.fixed[1 - axis] or round_up(max(thickness, rules.min_size), rules.size_multiple)
        self._rng = np.random.default_rng(0)  # the same probes in every process

    def field(self) -> Field:
        lengths = self._lengths()
        for length in lengths:
            halo = self._reach(length, self._rules.size_multiple)
            if halo is not None and (length == lengths[-1] or not self._reaches_further(lengths[-1], halo)):
                return self._refined(length, halo)
        room = _room(lengths[-1])
        return Field(None, obstacle=f"an output depends on pixels more than {room} away, or on all", seen=room)

    def _lengths(self) -> list[int]:
        if self._fixed is not None:
            return [self._fixed]
        shortest = max(self._rules.min_size, 3 * self._rules.declared_halo)
        return sorted({round_up(max(shortest, length), 8 * self._rules.size_multiple) for length in PROBE_LENGTHS})

    def _reaches_further(self, length: int, halo: int) -> bool:
        """Whether a long thin probe shows more: a lone weight far away (a large dilation) can jump over a short one."""
        reach = _AxisProbe(self._run, self._rules, self._axis, THIN)._reach(length, self._rules.size_multiple, ())
        return reach is None or reach > halo

    def _refined(self, length: int, halo: int) -> Field:
        """Knowing the reach, finds the period; the reach holds for cuts at multiples of it."""
        period = self._period(halo)
        if period is None:
            return Field(halo, obstacle="the result depends on where in the picture a pixel lies", seen=halo)
        step = math.lcm(period, self._rules.size_multiple)
        if step != self._rules.size_multiple:
            aligned = self._reach(self._fixed or round_up(length, 8 * step), step)
            if aligned is None:
                return Field(None, obstacle="the receptive field is larger than the probe", seen=halo)
            halo = aligned
        error = 0.0 if self._fixed else self._cut_error(halo, period)
        if error != 0:
            return Field(halo, period, f"parts of a picture differ by {error:.2g} from the whole", halo)
        return Field(halo, period, seen=halo)

    def _reach(self, length: int, step: int, magnitudes: Sequence[float] = MAGNITUDES) -> int | None:
        """Pixels beyond a changed band [low, high), both multiples of `step`, at which outputs move; None: up to the border."""
        low = round_down(_room(length), step)
        high = min(low + round_up(max(1, length // 4), step), length)
        probe = self._noise(length)
        expected = self._bits(probe)
        moved = np.zeros(len(expected), bool)
        for filling in self._fillings(high - low, magnitudes):
            changed = probe.copy()
            self._view(changed, low, high)[...] = filling
            moved = moved | (self._bits(changed) != expected).any(axis=1)
        where = np.flatnonzero(moved)
        if not where.size:
            return 0
        if where[0] == 0 or where[-1] == moved.size - 1:
            return None
        before = low - Fraction(int(where[0])) / self._rules.scale
        after = Fraction(int(where[-1]) + 1) / self._rules.scale - high
        return max(0, math.ceil(before), math.ceil(after))

    def _fillings(self, width: int, magnitudes: Sequence[float]) -> Iterator[NDArray[np.float32]]:
        band = self._noise(width)
        yield np.full_like(band, np.nan)
        largest = float(np.finfo(self._rules.dtype).max) / 100
        for magnitude in magnitudes:
            yield (self._rng.standard_normal(band.shape) * min(magnitude, largest)).astype(np.float32)

    def _period(self, halo: int) -> int | None:
        """The smallest shift that the function commutes with, far from the borders."""
        multiple, scale = self._rules.size_multiple, self._rules.scale
        enough = 2 * halo + 2 * max(LARGEST_PERIOD, multiple)
        length = self._fixed or round_up(max(enough, self._rules.min_size), multiple)
        # The reach is measured for one position of the cut; for others it may be larger by a part of the unknown period.
        margin = halo + min(8, max(0, length - 2 * halo) // 8)
        shifts = [d for d in _candidate_periods(multiple) if d * scale == int(d * scale) and 2 * margin + d < length]
        if not shifts:
            return None
        signal = self._noise(length + shifts[-1])
        still = self._run(self._view(signal, 0, length))
        for shift in shifts:
            shifted = self._run(self._view(signal, shift, shift + length))
            one = self._view(still, math.ceil((margin + shift) * scale), math.floor((length - margin) * scale))
            other = self._view(shifted, math.ceil(margin * scale), math.floor((length - margin - shift) * scale))
            if self._excess(one, other) == 0:
                return shift
        return None

    def _cut_error(self, halo: int, period: int) -> float:
        """Compares a probe's two parts with the whole: 0 if they agree beyond the halo, up to rounding."""
        step = math.lcm(period, self._rules.size_multiple)
        scale = self._rules.scale
        reach = round_up(halo, step)
        cut = round_up(max(2 * reach + step, self._rules.min_size, PROBE_THICKNESS), step)
        signal = self._noise(2 * cut)
        whole = self._run(signal)
        first = self._run(self._view(signal, 0, cut))
        second = self._run(self._view(signal, cut, 2 * cut))
        kept = int((cut - reach) * scale)
        return max(
            self._excess(self._view(whole, 0, kept), self._view(first, 0, kept)),
            self._excess(
                self._view(whole, int((cut + reach) * scale), int(2 * cut * scale)),
                self._view(second, int(reach * scale), int(cut * scale)),
            ),
        )

    def _excess(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        """The largest difference, or 0 if it is rounding."""
        rounding = ROUNDING * float(np.finfo(np.float32).eps)
        if self._rules.dtype == "float16":
            rounding = float(np.finfo(np.float16).eps)  # the arithmetic is float32 here, only the result is rounded
        magnitude = max(1.0, float(np.max(np.abs(one), initial=0.0)))
        with np.errstate(invalid="ignore"):
            difference = float(np.max(np.abs(one - other), initial=0.0))
        if difference <= rounding * magnitude:
            return 0.0
        return difference if math.isfinite(difference) else math.inf

    def _noise(self, length: int) -> NDArray[np.float32]:
        size = (length, self._thickness) if self._axis == 0 else (self._thickness, length)
        low, high = self._rules.value_range
        return self._rng.uniform(low, high, (1, self._rules.channels, *size)).astype(np.float32)

    def _view(self, images: NDArray[np.float32], start: int, stop: int) -> NDArray[np.float32]:
        return images[:, :, start:stop] if self._axis == 0 else images[:, :, :, start:stop]

    def _bits(self, probe: NDArray[np.float32]) -> NDArray[Any]:
        """The answer as bit patterns (NaN equals itself), the measured axis first."""
        answer = np.ascontiguousarray(self._run(probe)).view(np.uint32)
        return np.moveaxis(answer, 2 + self._axis, 0).reshape(answer.shape[2 + self._axis], -1)


def _room(length: int) -> int:
    """Pixels before the changed band: the longest reach that a probe can show."""
    return 3 * length // 8


def _candidate_periods(multiple: int) -> list[int]:
    """All up to 16, then multiples of 8, and the divisors of what sizes have to be multiples of."""
    divisors = {d for d in range(1, multiple + 1) if multiple % d == 0}
    return sorted({*range(1, 17), *range(24, LARGEST_PERIOD + 1, 8)} | divisors)
