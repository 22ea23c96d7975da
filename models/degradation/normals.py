"""Standard normal numbers, more than twice as fast as NumPy's: noise is the greatest part of many a degradation's time.

    n, n' = r cos a, r sin a          r = sqrt(-2 ln u),  a = 2 pi v,  u uniform in (0, 1], v in [0, 1)

Each pair comes from one 64-bit word of the generator. u has 32 bits, so that no number is beyond 6.8, where a true
one falls once in 10^11. NumPy's float32 logarithm, sine and cosine give the same bits on all x86 processors with FMA.

Source: Box and Muller, "A note on the generation of random normal deviates", Ann. Math. Statist. 1958.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_PAIRS = 1 << 14  # of a block, which stays in the cache; another number makes other noise


def standard_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Independent numbers of N(0, 1)."""
    count = math.prod(shape)
    numbers = np.empty(count + count % 2, dtype=np.float32)
    for start in range(0, len(numbers), 2 * _PAIRS):
        block = numbers[start : start + 2 * _PAIRS]
        pairs = len(block) // 2
        words = np.asarray(rng.bit_generator.random_raw(pairs), dtype="<u8").view("<u4")
        radius, angle = words[:pairs].astype(np.float32), words[pairs:].astype(np.float32)
        radius += np.float32(0.5)
        radius *= np.float32(2**-32)
        np.log(radius, out=radius)
        radius *= np.float32(-2)
        np.sqrt(radius, out=radius)
        angle *= np.float32(2 * math.pi * 2**-32)
        np.multiply(radius, np.cos(angle), out=block[:pairs])
        np.multiply(radius, np.sin(angle), out=block[pairs:])
    return numbers[:count].reshape(shape)
