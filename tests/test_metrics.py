"""PSNR and SSIM against scikit-image, closed forms and published figures; names; refusal; memory."""

from __future__ import annotations

import math
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from transforms.errors import ConfigurationError, Reason, RecordError
from transforms.metrics import Metric, parse_metric, parse_metrics
from transforms.structural_similarity import TILE_COLUMNS, TILE_ROWS

Samples = NDArray[Any]
RGB_PICTURES = ("astronaut", "coffee", "chelsea", "rocket")
GREY_PICTURES = ("camera", "page", "text", "coins", "moon")


def picture(name: str) -> Samples:
    samples = getattr(data, name)()
    return np.ascontiguousarray(samples[..., np.newaxis] if samples.ndim == 2 else samples[..., :3])


def noisy(samples: Samples, sigma: float, seed: int = 0) -> Samples:
    """With Gaussian noise of `sigma` on the 8-bit scale, in the samples' own type."""
    top = 1 if samples.dtype == np.float32 else np.iinfo(samples.dtype).max
    values = samples + np.random.default_rng(seed).normal(0, sigma / 255 * top, samples.shape)
    if samples.dtype == np.float32:
        return values.astype(np.float32)
    return np.clip(np.rint(values), 0, top).astype(samples.dtype)


def skimage_ssim(restored: Samples, reference: Samples, peak: float) -> float:
    """In float64 throughout, with exactly the options that make it Wang's; it averages over complete windows only."""
    return float(
        structural_similarity(
            restored.astype(np.float64),
            reference.astype(np.float64),
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            win_size=11,
            use_sample_covariance=False,
            data_range=peak,
        )
    )


def skimage_psnr(restored: Samples, reference: Samples, peak: float) -> float:
    return float(peak_signal_noise_ratio(reference.astype(np.float64), restored.astype(np.float64), data_range=peak))


@pytest.mark.parametrize("sigma", [1, 10, 50])
@pytest.mark.parametrize("name", [*RGB_PICTURES, *GREY_PICTURES])
def test_8_bit_figures_are_scikit_images(name: str, sigma: float) -> None:
    clean = picture(name)
    degraded = noisy(clean, sigma)
    assert parse_metric("psnr[rgb,u8]")(degraded, clean) == pytest.approx(skimage_psnr(degraded, clean, 255), abs=1e-9)
    assert parse_metric("ssim[rgb,u8]")(degraded, clean) == pytest.approx(skimage_ssim(degraded, clean, 255), abs=2e-7)


@pytest.mark.parametrize("depth", ["u16", "f32"])
def test_other_depths_are_scikit_images(depth: str) -> None:
    clean = picture("astronaut").astype(np.uint16) * 257
    clean[1::2, ::3] += 100  # values between those of 8 bit
    clean = clean if depth == "u16" else (clean / 65535).astype(np.float32)
    peak = 65535 if depth == "u16" else 1
    for sigma in (0.05, 20):
        degraded = noisy(clean, sigma)
        psnr, ssim = parse_metric(f"psnr[rgb,{depth}]"), parse_metric(f"ssim[rgb,{depth}]")
        assert psnr(degraded, clean) == pytest.approx(skimage_psnr(degraded, clean, peak), abs=1e-9)
        assert ssim(degraded, clean) == pytest.approx(skimage_ssim(degraded, clean, peak), abs=2e-7)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(11, TILE_ROWS + 30),
    width=st.one_of(st.integers(11, 40), st.integers(TILE_COLUMNS, TILE_COLUMNS + 40)),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**32),
    sigma=st.floats(0, 80),
)
def test_ssim_of_any_size_is_scikit_images(height: int, width: int, channels: int, seed: int, sigma: float) -> None:
    rng = np.random.default_rng(seed)
    clean = np.clip(np.cumsum(rng.normal(0, 6, (height, width, channels)), axis=0) + 128, 0, 255).astype(np.uint8)
    degraded = noisy(clean, sigma, seed)
    assert parse_metric("ssim[rgb,u8]")(degraded, clean) == pytest.approx(skimage_ssim(degraded, clean, 255), abs=1e-6)


@pytest.mark.parametrize(
    "clean",
    [
        np.repeat(np.where(np.arange(400) < 200, 3, 250).astype(np.uint8)[None, :, None], 300, axis=0),
        ((np.indices((300, 400)).sum(axis=0) // 50 % 2) * 255).astype(np.uint8)[..., None],
        np.full((100, 150, 3), 255, np.uint8),
    ],
    ids=["black beside white", "checkerboard", "white"],
)
def test_ssim_keeps_its_digits_where_variances_cancel(clean: Samples) -> None:
    degraded = noisy(clean, 1)
    assert parse_metric("ssim[rgb,u8]")(degraded, clean) == pytest.approx(skimage_ssim(degraded, clean, 255), abs=1e-6)


def test_identical_pictures_have_infinite_psnr_and_ssim_one() -> None:
    clean = picture("coffee")
    assert parse_metric("psnr[rgb,u8]")(clean.copy(), clean) == math.inf
    assert parse_metric("ssim[rgb,u8]")(clean.copy(), clean) == 1.0


@pytest.mark.parametrize(
    ("error", "depth", "dtype", "peak"), [(1, "u8", np.uint8, 255), (200, "u16", np.uint16, 65535)]
)
def test_psnr_of_a_constant_error_is_its_closed_form(error: int, depth: str, dtype: type, peak: int) -> None:
    clean = np.full((33, 47, 3), 17, dtype)
    restored = clean + dtype(error)
    expected = 20 * math.log10(peak / error)
    assert parse_metric(f"psnr[rgb,{depth}]")(restored, clean) == pytest.approx(expected, abs=1e-12)


def test_squared_errors_of_16_bit_do_not_overflow() -> None:
    black, white = np.zeros((300, 300, 3), np.uint16), np.full((300, 300, 3), 65535, np.uint16)
    assert parse_metric("psnr[rgb,u16]")(black, white) == 0.0


def matlab_luma(rgb: Samples, top: int) -> Samples:
    """rgb2ycbcr's Y in whole numbers: round(16 k + (65.481 R + 128.553 G + 24.966 B) / 255) with k = top / 255."""
    whole = rgb.astype(object) @ np.array([65481, 128553, 24966], object)
    doubled = 2 * whole + 2 * 16 * (top // 255) * 255_000 + 255_000
    return (doubled // 510_000).astype(np.float64)


@pytest.mark.parametrize(("depth", "top"), [("u8", 255), ("u16", 65535)])
def test_y_is_matlabs_studio_luma_rounded_to_the_depth(depth: str, top: int) -> None:
    clean = picture("astronaut")[100:200, 100:230].astype(np.uint8 if top == 255 else np.uint16) * (top // 255)
    degraded = noisy(clean, 12)
    luma = [matlab_luma(samples, top)[..., np.newaxis] for samples in (degraded, clean)]
    # One colour in 85,000 lies on a tie, which floating point (MATLAB's too) may round down: 2e-4 dB here.
    assert parse_metric(f"psnr[y,{depth}]")(degraded, clean) == pytest.approx(skimage_psnr(*luma, top), abs=1e-3)
    assert parse_metric(f"ssim[y,{depth}]")(degraded, clean) == pytest.approx(skimage_ssim(*luma, top), abs=1e-5)


def test_y_in_float_is_not_rounded() -> None:
    clean = (picture("coffee")[:64, :80] / 255).astype(np.float32)
    degraded = noisy(clean, 5)
    weights = np.array([65.481, 128.553, 24.966]) / 255
    luma = [(samples.astype(np.float64) @ weights)[..., np.newaxis] for samples in (degraded, clean)]
    assert parse_metric("psnr[y,f32]")(degraded, clean) == pytest.approx(skimage_psnr(*luma, 1), abs=1e-4)


def test_y_of_grey_pictures_is_the_picture() -> None:
    clean = picture("camera")
    degraded = noisy(clean, 20)
    assert parse_metric("psnr[y,u8]")(degraded, clean) == parse_metric("psnr[gray,u8]")(degraded, clean)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (16, 16, 1), (128, 128, 3), (131, 133, 3), (400, 301, 3)])
def test_psnr_of_bytes_is_exact_however_they_lie(shape: tuple[int, int, int]) -> None:
    """The quick way for samples in one piece, and the general one for views of a larger picture."""
    rng, (height, width, channels) = np.random.default_rng(0), shape
    large = rng.integers(0, 256, (2, height + 3, width + 5, channels), dtype=np.uint8)
    views = [each[1 : height + 1, 2 : width + 2] for each in large]
    pieces = [view.copy() for view in views]
    squares = int(np.square(pieces[0].astype(np.int64) - pieces[1]).sum())
    expected = 10 * math.log10(255 * 255 * pieces[0].size / squares)
    metric = parse_metric("psnr[rgb,u8]")
    assert metric(pieces[0], pieces[1]) == metric(views[0], views[1]) == metric(pieces[0], views[1]) == expected


def test_border_leaves_out_every_side() -> None:
    clean, degraded = picture("chelsea"), noisy(picture("chelsea"), 9)
    inside = (slice(7, -7), slice(7, -7))
    for quantity in ("psnr", "ssim"):
        whole = parse_metric(f"{quantity}[rgb,u8]")
        assert parse_metric(f"{quantity}[rgb,border=7,u8]")(degraded, clean) == whole(degraded[inside], clean[inside])


def test_grey_counts_as_equal_channels_in_rgb() -> None:
    grey, colour = picture("camera")[:90, :80], picture("astronaut")[:90, :80]
    as_rgb = np.repeat(grey, 3, axis=2)
    for quantity in ("psnr", "ssim"):
        metric = parse_metric(f"{quantity}[rgb,u8]")
        assert metric(grey, colour) == metric(as_rgb, colour)
        assert metric(colour, grey) == metric(colour, as_rgb)
        assert metric(noisy(grey, 9), grey) == pytest.approx(
            metric(np.repeat(noisy(grey, 9), 3, axis=2), as_rgb), abs=1e-7
        )


def test_depth_decides_not_the_samples() -> None:
    clean = picture("camera")
    degraded = noisy(clean.astype(np.uint16) * 257, 10)
    eight = np.rint(degraded / 257).astype(np.uint8)
    assert parse_metric("psnr[gray,u8]")(degraded, clean) == pytest.approx(skimage_psnr(eight, clean, 255), abs=1e-9)
    widened = clean.astype(np.uint16) * 257
    assert parse_metric("psnr[gray,u16]")(degraded, clean) == pytest.approx(
        skimage_psnr(degraded, widened, 65535), abs=1e-9
    )


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("ssim[rgb,u8]", (10, 200, 3)),
        ("ssim[rgb,border=3,u8]", (16, 16, 3)),
        ("psnr[gray,u8]", (20, 20, 3)),
        ("psnr[rgb,border=10,u8]", (20, 30, 3)),
    ],
)
def test_without_a_value_the_figure_is_nan(name: str, shape: tuple[int, int, int]) -> None:
    clean = np.zeros(shape, np.uint8)
    assert math.isnan(parse_metric(name)(clean, clean))


def test_different_sizes_are_refused() -> None:
    with pytest.raises(RecordError, match="12x10") as refused:
        parse_metric("psnr[rgb,u8]")(np.zeros((10, 12, 3), np.uint8), np.zeros((10, 11, 3), np.uint8))
    assert refused.value.reason == Reason.SIZE_MISMATCH


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["psnr[rgb,u8]", "psnr[y,f32]", "ssim[rgb,f32]"])
def test_samples_that_are_no_numbers_are_refused(name: str, value: float) -> None:
    clean = np.zeros((20, 20, 3), np.float32)
    broken = clean.copy()
    broken[3, 4, 1] = value
    with pytest.raises(RecordError) as refused:
        parse_metric(name)(broken, clean)
    assert refused.value.reason == Reason.NON_FINITE


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("psnr[rgb,u8]", "psnr[rgb,u8]"),
        (" psnr[ u8 , rgb ] ", "psnr[rgb,u8]"),
        ("psnr[u8,border=4,y]", "psnr[y,border=4,u8]"),
        ("ssim[gray,border=0,u16]", "ssim[gray,u16]"),
    ],
)
def test_names_have_one_spelling(written: str, canonical: str) -> None:
    metric = parse_metric(written)
    assert metric.name == canonical
    assert parse_metric(metric.name) == metric
    assert pickle.loads(pickle.dumps(metric)) == metric  # travels to the workers


@given(
    st.builds(
        Metric,
        st.sampled_from(["psnr", "ssim"]),
        st.sampled_from(["rgb", "gray", "y"]),
        st.sampled_from(["u8", "u16", "f32"]),
        st.integers(0, 999_999),
    )
)
def test_every_metric_is_its_name(metric: Metric) -> None:
    assert parse_metric(metric.name) == metric


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("psnr", "did you mean 'psnr[rgb,u8]'"),
        ("pnsr[rgb,u8]", "did you mean 'psnr[rgb,u8]'"),
        ("psnr[rgb]", "does not say which depth"),
        ("psnr[u8]", "does not say which channel"),
        ("psnr[y,crop=4,u8]", "did you mean 'psnr[y,border=4,u8]'"),
        ("ssim[grey,u8]", "did you mean 'ssim[gray,u8]'"),
        ("psnr[rgb,u8,u16]", "says depth twice"),
        ("psnr[y,border=-1,u8]", "no option is called 'border=-1'"),
        ("psnr[rgb,u8", "no protocol in brackets"),
    ],
)
def test_wrong_names_are_refused_with_the_nearest(wrong: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_metric(wrong)
    assert hint in str(refused.value)
    assert repr(wrong) in str(refused.value)


def test_lists_keep_the_commas_inside_brackets() -> None:
    names = [metric.name for metric in parse_metrics("psnr[y,border=4,u8], ssim[rgb,u8]")]
    assert names == ["psnr[y,border=4,u8]", "ssim[rgb,u8]"]
    for wrong in ("", "psnr[rgb,u8],psnr[u8,rgb]"):
        with pytest.raises(ConfigurationError, match="list without repetition"):
            parse_metrics(wrong)


@pytest.mark.parametrize("name", ["psnr[rgb,u8]", "ssim[rgb,u8]", "ssim[y,u8]"])
def test_memory_does_not_grow_with_the_picture(name: str) -> None:
    tracemalloc.start()
    try:
        peaks = []
        for height in (700, 2800):
            # One stored row stands for all: the pictures themselves take no memory.
            row = np.random.default_rng(1).integers(0, 256, (1, 3000, 3), dtype=np.uint8)
            clean = np.broadcast_to(row, (height, 3000, 3))
            tracemalloc.reset_peak()
            parse_metric(name)(clean[:, ::-1], clean)
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 40e6


def bicubic(luma: Samples, width: int, height: int) -> Samples:
    """Keys' cubic with a = -0.5, antialiased when it shrinks, in floating point: MATLAB's imresize away from the border."""
    resized = Image.fromarray(luma.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, np.float64)


@pytest.mark.data
def test_bicubic_enlargement_of_set5_scores_as_published(data_dir: Path) -> None:
    """Set5 x3 on luma, 3 pixels shaved: 30.39 dB and 0.8682 (SRCNN, VDSR and others)."""
    scores = []
    for path in sorted((data_dir / "Set5").glob("*.bmp")):
        rgb = np.asarray(Image.open(path).convert("RGB"))
        height, width = (side - side % 3 for side in rgb.shape[:2])
        clean = matlab_luma(rgb[:height, :width], 255)
        enlarged = bicubic(bicubic(clean, width // 3, height // 3), width, height)
        restored = np.clip(np.rint(enlarged), 0, 255).astype(np.uint8)[..., np.newaxis]
        reference = clean.astype(np.uint8)[..., np.newaxis]
        scores.append([parse_metric(f"{q}[y,border=3,u8]")(restored, reference) for q in ("psnr", "ssim")])
    assert len(scores) == 5
    psnr_db, ssim = np.mean(scores, axis=0)
    assert psnr_db == pytest.approx(30.39, abs=0.01)
    assert ssim == pytest.approx(0.8682, abs=0.0003)
