"""Quantisation against theory, and codecs against Pillow's files and published figures."""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from models.degradation import coding
from models.degradation.coding import DoubleJpeg, Jpeg, Jpeg2000, WebP
from models.degradation.distributions import Uniform, WordChoice
from models.degradation.protocol import Operator
from models.degradation.quantisation import (
    BitDepth,
    Clip,
    RoundTo8Bit,
    Saturation,
    StepQuantisation,
    UniformQuantisation,
)
from transforms.errors import RecordError
from transforms.planes import to_image, to_planes
from transforms.randomness import generator
from transforms.value_range import from_float, to_float

SAMPLES = 1_000_000
LEVELS_8BIT = to_planes(to_float(np.arange(256, dtype=np.uint8).reshape(16, 16, 1)))
CODECS = [Jpeg(30), DoubleJpeg(40, 60), WebP(40), Jpeg2000(32)]


def degrade(operator: Operator, planes: np.ndarray, key: str = "a") -> np.ndarray:
    channels, height, width = planes.shape
    return operator.apply(planes, operator.sample(generator(1, key), (height, width, channels)))


def noise(low: float = 0.0, high: float = 1.0) -> np.ndarray:
    return generator(1, "samples").uniform(low, high, (1, 1000, 1000)).astype(np.float32)


def psnr_db(planes: np.ndarray, reference: np.ndarray) -> float:
    """At most 120 dB, that of pictures that are the same."""
    return float(-10 * np.log10(max(1e-12, np.mean((planes.astype(np.float64) - reference) ** 2))))


def through_a_file(planes: np.ndarray, file_format: str, **options: object) -> np.ndarray:
    """What Pillow writes into a file and reads from it."""
    samples = from_float(to_image(planes), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples).save(buffer, file_format, **options)
    read = np.asarray(Image.open(buffer))
    return to_planes(to_float(read.reshape(*read.shape[:2], -1)))


# --- levels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 5, 8, 16, 256])
@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_quantisation_has_its_levels_and_the_error_of_theory(levels, rounding):
    planes = noise()
    quantised = degrade(UniformQuantisation(levels, rounding), planes)
    found = np.unique(quantised)
    # Only white itself reaches the topmost level by floor, and no sample is quite white.
    np.testing.assert_allclose(found, np.linspace(0, 1, levels)[: len(found)], atol=1e-7)
    assert len(found) == levels - (rounding == "floor")
    error = (quantised.astype(np.float64) - planes).ravel()
    step, mean = 1 / (levels - 1), -1 / (levels - 1) / 2 if rounding == "floor" else 0.0
    assert np.abs(error - mean).max() <= step / 2 + 1e-6
    # Uniform over q: variance q^2 / 12, kurtosis 9/5.
    assert abs(error.mean() - mean) < 5 * step * np.sqrt(1 / 12 / SAMPLES)
    assert abs(error.var() - step**2 / 12) < 5 * step**2 / 12 * np.sqrt(0.8 / SAMPLES)


@pytest.mark.parametrize(
    "operator", [UniformQuantisation(5), BitDepth(3), BitDepth(3, "triangular"), StepQuantisation(0.2), RoundTo8Bit()]
)
def test_quantisation_clips(operator):
    quantised = degrade(operator, noise(-1, 2))
    assert quantised.min() == 0
    assert quantised.max() <= 1


@pytest.mark.parametrize("levels", [2, 4, 16, 18, 52, 86, 256])  # those that have their steps at 8-bit values
def test_floor_keeps_a_value_that_stands_on_a_level(levels):
    values = np.arange(256)
    quantised = degrade(UniformQuantisation(levels, "floor"), LEVELS_8BIT).ravel()
    step = 255 // (levels - 1)
    np.testing.assert_allclose(quantised, values // step * step / 255, atol=1e-6)


def test_floor_leaves_alone_what_floor_has_made():
    for levels in range(2, 300):
        once = degrade(UniformQuantisation(levels, "floor"), LEVELS_8BIT)
        np.testing.assert_array_equal(degrade(UniformQuantisation(levels, "floor"), once), once)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 10, 55, 64, 85, 127, 128, 200, 255])
def test_steps_of_8_bit_values_are_exactly_those_of_whole_numbers(step):
    values = np.arange(256)
    floored = degrade(StepQuantisation(step / 255), LEVELS_8BIT).ravel()
    np.testing.assert_array_equal(np.rint(floored * 255), values // step * step)
    nearest = degrade(StepQuantisation(step / 255, "nearest"), LEVELS_8BIT).ravel()
    expected = np.minimum(np.rint(values / step), 255 // step) * step
    decided = 2 * values % (2 * step) != step  # a value halfway between two levels may go to either
    np.testing.assert_array_equal(np.rint(nearest * 255)[decided], expected[decided])


def test_a_step_of_55_leaves_the_five_levels_of_the_generative_prior_paper():
    quantised = degrade(StepQuantisation(55 / 255), noise())
    np.testing.assert_allclose(np.unique(quantised) * 255, [0, 55, 110, 165, 220], atol=1e-4)


@pytest.mark.parametrize("bits", [1, 3, 8, 16])
def test_bit_depth_without_dither_is_quantisation_to_two_to_the_bits(bits):
    planes = noise()
    assert degrade(BitDepth(bits), planes).tobytes() == degrade(UniformQuantisation(1 << bits), planes).tobytes()


@pytest.mark.parametrize(("dither", "fraction"), [("uniform", 0.25), ("uniform", 0.5), ("triangular", 0.1)])
def test_dither_keeps_the_mean_and_has_the_variance_of_theory(dither, fraction):
    step = 1 / 15
    value = float(np.float32((7 + fraction) * step))
    dithered = degrade(BitDepth(4, dither), np.full((1, 1000, 1000), value, np.float32)).astype(np.float64)
    share = value / step - 7
    variance = step**2 * (share * (1 - share) if dither == "uniform" else 0.25)
    assert abs(dithered.mean() - value) < 5 * np.sqrt(variance / SAMPLES) + 1e-8
    assert abs(((dithered - value) ** 2).mean() - variance) < 5 * variance * np.sqrt(2 / SAMPLES)


def test_round_to_8bit_is_what_storing_as_8_bit_does():
    image = np.random.default_rng(1).uniform(-0.2, 1.2, (200, 200, 3)).astype(np.float32)
    rounded = to_image(degrade(RoundTo8Bit(), to_planes(image)))
    stored = from_float(image, np.uint8)
    assert rounded.tobytes() == to_float(stored).tobytes()
    np.testing.assert_array_equal(from_float(rounded, np.uint8), stored)


def test_round_to_8bit_rounds_halves_to_even_and_keeps_its_levels():
    np.testing.assert_array_equal(degrade(RoundTo8Bit(), LEVELS_8BIT), LEVELS_8BIT)
    halves = np.array([[[0.5 / 255], [2.5 / 255], [254.5 / 255]]], np.float32)
    expected = np.rint(halves * np.float32(255)) / np.float32(255)
    np.testing.assert_array_equal(degrade(RoundTo8Bit(), halves), expected)


def test_saturation_brightens_and_loses_what_is_above_its_ceiling():
    planes = np.array([[[-0.1, 0.0, 0.25, 0.5, 0.9]]], np.float32)
    np.testing.assert_allclose(degrade(Saturation(2.0), planes), [[[-0.2, 0, 0.5, 1, 1]]], atol=1e-7)
    np.testing.assert_allclose(degrade(Saturation(2.0, 0.8), planes), [[[-0.2, 0, 0.5, 0.8, 0.8]]], atol=1e-7)


def test_clip_has_the_bounds_that_it_says():
    planes = noise(-1, 2)
    np.testing.assert_array_equal(degrade(Clip(), planes), planes.clip(0, 1))
    np.testing.assert_array_equal(degrade(Clip(0.2, 0.7), planes), planes.clip(np.float32(0.2), np.float32(0.7)))


# --- codecs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [1, 30, 75, 100])
@pytest.mark.parametrize(("subsampling", "pillow"), [("444", "4:4:4"), ("422", "4:2:2"), ("420", "4:2:0")])
@pytest.mark.parametrize("size", [(64, 64), (75, 101)])
def test_jpeg_is_a_trip_through_a_file(photo, quality, subsampling, pillow, size):
    planes = to_planes(to_float(photo[100 : 100 + size[0], 150 : 150 + size[1]]))
    expected = through_a_file(planes, "JPEG", quality=quality, subsampling=pillow)
    np.testing.assert_array_equal(degrade(Jpeg(quality, subsampling), planes), expected)


@pytest.mark.parametrize("subsampling", ["444", "420"])
def test_a_grey_picture_becomes_a_grey_jpeg(photo, subsampling):
    planes = to_planes(to_float(photo[:90, :77, 1:2]))
    np.testing.assert_array_equal(degrade(Jpeg(25, subsampling), planes), through_a_file(planes, "JPEG", quality=25))


def test_a_jpeg_is_decoded_to_where_libjpeg_does_not_bypass_the_cache():
    for shape in ((64, 64, 3), (1, 1, 3), (31, 64)):
        for _ in range(8):
            room = coding._unaligned(np.empty(shape, np.uint8))
            assert room.shape == shape
            assert room.ctypes.data % 32 == 16
            assert room.flags.c_contiguous


@pytest.mark.parametrize("quality", [10, 60, 95])
def test_webp_is_a_trip_through_a_file(photo, quality):
    planes = to_planes(to_float(photo[60:188, 90:200]))
    np.testing.assert_array_equal(degrade(WebP(quality), planes), through_a_file(planes, "WEBP", quality=quality))


@pytest.mark.parametrize("codec", CODECS, ids=lambda each: each.name)
def test_a_codec_sees_the_picture_rounded_to_8_bit(photo, codec):
    planes = to_planes(to_float(photo[:64, :64])) + generator(1, "a").uniform(-0.3, 0.3, (3, 64, 64)).astype(np.float32)
    coded = degrade(codec, planes)
    np.testing.assert_array_equal(coded, degrade(codec, degrade(RoundTo8Bit(), planes)))
    np.testing.assert_array_equal(coded, degrade(RoundTo8Bit(), coded))


@pytest.mark.parametrize("operator", [Jpeg, WebP], ids=lambda each: each.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_better_quality_is_closer_to_the_picture(photo, operator, channels):
    planes = to_planes(to_float(photo[:256, :256, :channels]))
    found = [psnr_db(degrade(operator(quality), planes), planes) for quality in (5, 20, 50, 80, 95)]
    assert (np.diff(found) > 0.7).all()
    assert found[0] > 20


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("target", [28, 34.5, 41])
def test_jpeg2000_comes_close_to_the_psnr_asked_for(photo, channels, target):
    planes = to_planes(to_float(photo[:256, :256, :channels]))
    assert psnr_db(degrade(Jpeg2000(target), planes), planes) == pytest.approx(target, abs=1.2)


@pytest.mark.parametrize("codec", CODECS, ids=lambda each: each.name)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 2), (8, 8), (33, 31)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_any_size_go_through(photo, codec, size, channels):
    planes = to_planes(to_float(photo[: size[0], : size[1], :channels]))
    coded = degrade(codec, planes)
    assert coded.shape == planes.shape
    assert psnr_db(coded, planes) > 25


def test_subsampling_blurs_colour_and_keeps_light():
    """Red and green columns of one luma: with halved chroma they run together into one colour."""
    stripes = np.zeros((3, 32, 32), np.float32)
    stripes[0, :, ::2], stripes[1, :, 1::2] = 0.8, 0.8 * 0.299 / 0.587
    contrast = {}
    for subsampling in ("444", "422", "420"):
        coded = degrade(Jpeg(100, subsampling), stripes)
        contrast[subsampling] = np.abs(np.diff(coded[0], axis=1)).mean()
        luma = np.tensordot([0.299, 0.587, 0.114], coded, axes=1)
        assert np.abs(np.diff(luma, axis=1)).mean() < 0.02
    assert contrast["444"] > 0.75
    assert max(contrast["422"], contrast["420"]) < 0.05


def block_edges(planes: np.ndarray, axis: int) -> int:
    """Where, modulo 8, neighbouring pixels differ most: the position of the block grid."""
    steps = np.abs(np.diff(planes.astype(np.float64), axis=axis)).mean(axis=tuple({0, 1, 2} - {axis}))
    return int(np.argmax([steps[phase - 1 :: 8].mean() for phase in range(1, 9)])) % 8 + 1


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (3, 5), (7, 1)])
def test_the_second_grid_of_double_jpeg_lies_where_the_record_says(photo, rows, columns):
    planes = to_planes(to_float(photo[:256, :256, 1:2]))
    coded = degrade(DoubleJpeg(100, 4, rows=rows, columns=columns), planes)
    assert coded.shape == planes.shape
    assert block_edges(coded, 1) % 8 == -rows % 8
    assert block_edges(coded, 2) % 8 == -columns % 8


def test_double_jpeg_on_one_grid_is_jpeg_twice(photo):
    planes = to_planes(to_float(photo[:80, :80]))
    twice = degrade(Jpeg(40), degrade(Jpeg(70), planes))
    np.testing.assert_array_equal(degrade(DoubleJpeg(70, 40, rows=0, columns=0), planes), twice)
    # The same tables on the same grid: the second file finds almost nothing left to round.
    again = degrade(DoubleJpeg(40, 40, "444", 0, 0), planes)
    shifted = degrade(DoubleJpeg(40, 40, "444", 4, 4), planes)
    once = degrade(Jpeg(40, "444"), planes)
    assert psnr_db(again, once) > psnr_db(shifted, once) + 6


def test_double_jpeg_draws_every_shift_from_0_to_7():
    drawn = [DoubleJpeg(50, 50).sample(generator(1, str(key)), (8, 8, 1)) for key in range(300)]
    for name in ("rows", "columns"):
        assert {each[name] for each in drawn} == set(range(8))


def test_a_drawn_quality_is_a_whole_number_and_a_drawn_subsampling_a_word():
    operator = Jpeg(Uniform(1, 100), WordChoice(("444", "420"), (1, 3)))
    drawn = [operator.sample(generator(1, str(key)), (8, 8, 3)) for key in range(2000)]
    assert {each["quality"] for each in drawn} == set(range(1, 101))
    share = np.mean([each["subsampling"] == "420" for each in drawn])
    assert abs(share - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 2000)


@pytest.mark.parametrize("codec", CODECS, ids=lambda each: each.name)
def test_threads_at_work_together_get_the_bytes_of_one_alone(photo, codec):
    patches = [to_planes(to_float(photo[at : at + 96, at : at + 96])) for at in range(0, 320, 10)]
    alone = [degrade(codec, patch).tobytes() for patch in patches]
    with ThreadPoolExecutor(4) as pool:
        assert [each.tobytes() for each in pool.map(lambda patch: degrade(codec, patch), patches)] == alone


@pytest.mark.parametrize(("codec", "side"), [(Jpeg(50), 65_501), (WebP(50), 16_384)], ids=lambda each: str(each)[:4])
def test_a_picture_that_its_format_cannot_hold_becomes_a_dead_letter(codec, side):
    with pytest.raises(RecordError, match=rf"{side}x1 pixels do not fit into .*: at most {side - 1} a side"):
        degrade(codec, np.zeros((1, 1, side), np.float32))


@pytest.mark.data
@pytest.mark.parametrize(("quality", "published"), [(10, 27.82), (20, 30.12), (30, 31.48), (40, 32.43)])
def test_jpeg_of_classic5_has_the_published_psnr(data_dir, quality, published):
    # The row "JPEG" in the tables of the deblocking literature, such as Jiang et al. (FBCNN), ICCV 2021, table 1.
    found = []
    for file in sorted((data_dir / "classic5").glob("*.bmp")):
        samples = np.asarray(Image.open(file))
        planes = to_planes(to_float(samples.reshape(*samples.shape, 1)))
        found.append(psnr_db(degrade(Jpeg(quality), planes), planes))
    assert len(found) == 5
    assert np.mean(found) == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformQuantisation(1), "levels: expected a whole number from 2 to 65536, got 1"),
        (lambda: UniformQuantisation(2.5), "levels: expected a whole number from 2 to 65536, got 2.5"),
        (lambda: UniformQuantisation(4, "up"), "rounding: 'up' is not one of nearest, floor"),
        (lambda: StepQuantisation(0), "step: expected a number from"),
        (lambda: BitDepth(17), "bits: expected a whole number from 1 to 16, got 17"),
        (lambda: BitDepth(8, "blue"), "dither: 'blue' is not one of none, uniform, triangular"),
        (lambda: Saturation(0), "gain: expected a number above 0, got 0"),
        (lambda: Jpeg(0), "quality: expected a whole number from 1 to 100, got 0"),
        (lambda: Jpeg(Uniform(30, 101)), "quality: expected a whole number from 1 to 100, got 101"),
        (lambda: Jpeg(50, "411"), "subsampling: '411' is not one of 444, 422, 420"),
        (lambda: DoubleJpeg(50, 50, rows=16), "rows: expected a whole number from 0 to 15, got 16"),
        (lambda: WebP(-1), "quality: expected a whole number from 0 to 100, got -1"),
        (lambda: Jpeg2000(90), "psnr_db: expected a number from 10 to 60, got 90"),
    ],
)
def test_a_setting_outside_its_bounds_is_refused_when_the_operator_is_made(make, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        make()
