"""Normal numbers, four times as fast as NumPy's: noise is the greatest part of many a degradation's time.

    n, n' = r cos a, r sin a          r = sqrt(-2 s^2 ln u),  a = 2 pi v,  u uniform in (0, 1], v in [-1/2, 1/2)

Each pair comes from one 64-bit word. u has 32 bits, so that no number is beyond 6.8 s, where a true one falls once in 10^11.
NumPy's float32 logarithm, sine and cosine give the same bits on all x86 processors with FMA.

The words are those of a small generator, SFC64, whose state three words of the given one set: it takes half the time, and
counting, which Philox is for, is not needed within one array.

Source: Box and Muller, "A note on the generation of random normal deviates", Ann. Math. Statist. 1958; Doty-Humphrey,
PractRand, 2010 (SFC64).
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike, NDArray

_PAIRS = 1 << 14  # of a block, which stays in the cache; another number makes other noise
_HALF, _UNIT, _TURN = np.float32(0.5), np.float32(2**-32), np.float32(2 * math.pi * 2**-32)


def standard_normal(rng: np.random.Generator, shape: tuple[int, ...], sigma: float = 1.0) -> NDArray[np.float32]:
    """Independent numbers of N(0, s^2), with the standard deviation s given."""
    count = math.prod(shape)
    numbers = np.empty(count + count % 2, dtype=np.float32)
    bits, scale = _small_generator(rng), np.float32(-2 * sigma**2)
    scratch = np.empty((2, min(_PAIRS, len(numbers) // 2)), dtype=np.float32)
    for start in range(0, len(numbers), 2 * _PAIRS):
        block = numbers[start : start + 2 * _PAIRS]
        pairs = len(block) // 2
        words = np.asarray(bits.random_raw(pairs), dtype="<u8").view("<u4")
        radius, angle = scratch[:, :pairs]
        radius[...] = words[:pairs]
        radius += _HALF
        radius *= _UNIT
        np.log(radius, out=radius)
        radius *= scale
        np.sqrt(radius, out=radius)
        angle[...] = words[pairs:].view("<i4")
        angle *= _TURN
        for wave, part in ((np.cos, block[:pairs]), (np.sin, block[pairs:])):
            wave(angle, out=part)
            part *= radius
    return numbers[:count].reshape(shape)


class _State(ISeedSequence):
    """Hands SFC64 its state as it is; a SeedSequence would hash it, in ten times the time."""

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint32) -> NDArray[np.uint64]:
        return self.words


def _small_generator(rng: np.random.Generator) -> np.random.SFC64:
    words = np.asarray(rng.bit_generator.random_raw(3), dtype=np.uint64)
    return np.random.SFC64(cast("np.random.SeedSequence", _State(words)))
