"""Randomness that knows no order: every draw follows from (seed, record key, patch number, step) alone.

A counter-based generator is keyed by a hash of the four, so any one patch can be made again alone, and its bytes do
not depend on the runner, the number of workers or a retry. Nothing here touches global state.

A *stream* is the key of such a generator written as 32 hex digits. A degradation draws one while it samples its
parameters, so that the noise itself can be made again from the parameters' JSON.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox 4x64-10).
"""

from __future__ import annotations

import hashlib
from typing import cast

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike, NDArray

_PERSON = b"conservator/rng1"  # another project hashing the same four values gets other streams
_WORD = 0xFFFF_FFFF_FFFF_FFFF


def generator(seed: int, key: str, patch: int = 0, step: int = 0) -> np.random.Generator:
    """The generator of one step of one patch of one record.

    Args:
        seed: the run's seed, any integer.
        key: the record's key.
        patch: number of the patch in its record.
        step: which of the patch's independent draws (where it is cut, how it is degraded, ...).

    Example:
        >>> float(generator(1, "photos/a", patch=7).random()) == float(generator(1, "photos/a", patch=7).random())
        True
    """
    # The key comes last, because it is the only one of the four that may hold any character.
    text = f"{seed:d}/{patch:d}/{step:d}/{key}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, person=_PERSON).digest()
    return _philox(int.from_bytes(digest, "big"))


def share_of(key: str) -> float:
    """A number in [0, 1) that follows from the key alone, to split records by: below 0.05 lies a twentieth of all keys,
    and a new record never moves another one across."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def stream_key(rng: np.random.Generator) -> str:
    """Draws the key of a new, independent stream: 32 hex digits (a JSON number would lose bits in many readers)."""
    high, low = rng.bit_generator.random_raw(2).tolist()
    return f"{high:016x}{low:016x}"


def from_stream(stream: str) -> np.random.Generator:
    """The generator of a stream, at its beginning.

    Raises:
        ValueError: `stream` is not 32 hex digits.
    """
    if len(stream) != 32:
        raise ValueError(f"stream {stream!r} has {len(stream)} characters; expected the 32 hex digits of stream_key")
    return _philox(int(stream, 16))


class _PhiloxKey(ISeedSequence):
    """Hands Philox its key as it is.

    `Philox(key=...)` gives the same numbers, but first asks the system for entropy and drops it: three times slower.
    """

    def __init__(self, key: int) -> None:
        self.words = np.array([key & _WORD, key >> 64], dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint32) -> NDArray[np.uint64]:
        return self.words


def _philox(key: int) -> np.random.Generator:
    words = cast(
        "np.random.SeedSequence", _PhiloxKey(key)
    )  # numpy takes any ISeedSequence, its type stubs do not say so
    return np.random.Generator(np.random.Philox(words))
