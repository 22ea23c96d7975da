"""Keyed randomness: the numbers are Philox's, the key is the documented hash, and no order matters."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from scipy import stats

from transforms.randomness import from_stream, generator, stream_key

_MASK = 2**64 - 1


def philox_4x64_10(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """Written from Salmon et al., SC 2011, section 3.3, as an outside reference."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        left, right = c0 * 0xD2E7470EE14C6C93, c2 * 0xCA5A826395121157
        c0, c1, c2, c3 = (right >> 64) ^ c1 ^ k0, right & _MASK, (left >> 64) ^ c3 ^ k1, left & _MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & _MASK, (k1 + 0xBB67AE8584CAA73B) & _MASK
    return c0, c1, c2, c3


def test_the_reference_gives_the_authors_known_answers():
    # kat_vectors of the authors' Random123 library, philox4x64 10
    assert philox_4x64_10((0, 0, 0, 0), (0, 0)) == (
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    )


@pytest.mark.parametrize(
    ("seed", "key", "patch", "step"), [(0, "", 0, 0), (7, "photos/ä 1", 12, 1), (-3, "x" * 500, 1 << 45, 2)]
)
def test_the_numbers_are_philox_of_the_documented_hash(seed, key, patch, step):
    text = f"{seed}/{patch}/{step}/{key}".encode()
    digest = hashlib.blake2b(text, digest_size=16, person=b"conservator/rng1").digest()
    words = (int.from_bytes(digest[8:], "big"), int.from_bytes(digest[:8], "big"))
    expected = philox_4x64_10((1, 0, 0, 0), words) + philox_4x64_10((2, 0, 0, 0), words)
    assert tuple(generator(seed, key, patch, step).bit_generator.random_raw(8).tolist()) == expected


def test_a_stream_begins_where_its_key_says():
    stream = "0123456789abcdef" + "fedcba9876543210"
    expected = philox_4x64_10((1, 0, 0, 0), (0xFEDCBA9876543210, 0x0123456789ABCDEF))
    assert tuple(from_stream(stream).bit_generator.random_raw(4).tolist()) == expected


def test_every_coordinate_matters_and_none_runs_into_the_next():
    numbers = (0, 1, 11, 12, -1)
    names = ("", "1", "1/1", "0/0/", "1/", "/1", "a", "A", "\ud800", "\x00")
    coordinates = list(itertools.product(numbers, names, (0, 1, 11), (0, 1, 11)))
    first = {int(generator(*each).bit_generator.random_raw()) for each in coordinates}
    assert len(first) == len(coordinates)


def test_draws_of_one_patch_do_not_depend_on_draws_of_another():
    alone = generator(5, "a", 7).random(100)
    mixed, other = generator(5, "a", 7), generator(5, "a", 8)
    interleaved = np.concatenate([(other.random(3), mixed.random(10))[1] for _ in range(10)])
    np.testing.assert_array_equal(interleaved, alone)


def test_the_global_state_of_numpy_is_left_alone():
    before = np.random.get_state()  # noqa: NPY002 - to see that nobody touches it
    from_stream(stream_key(generator(1, "a"))).standard_normal(10)
    after = np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    np.testing.assert_array_equal(before[1], after[1])


def test_first_draws_of_successive_patches_are_uniform_and_uncorrelated():
    draws = np.array([generator(1, "picture", patch).random() for patch in range(20_000)])
    assert stats.kstest(draws, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.03  # 4 standard deviations of 20,000 independent pairs


def test_stream_keys_are_32_hex_digits_all_different():
    rng = generator(1, "a")
    keys = [stream_key(rng) for _ in range(1000)]
    assert len(set(keys)) == 1000
    assert all(len(key) == 32 and set(key) <= set("0123456789abcdef") for key in keys)


def test_drawing_a_stream_key_moves_the_generator_on():
    assert stream_key(generator(1, "a")) == stream_key(generator(1, "a"))
    rng = generator(1, "a")
    assert stream_key(rng) != stream_key(rng)


@pytest.mark.parametrize("stream", ["", "12", "0" * 33, "g" * 32])
def test_a_stream_that_is_no_key_is_refused(stream):
    with pytest.raises(ValueError, match=r"32 hex digits|invalid literal"):
        from_stream(stream)
