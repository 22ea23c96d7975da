"""Plain enlargement, as a restorer and as what networks are compared with; the oracles are SciPy and the papers' tables."""

from __future__ import annotations

import html
import json
import math
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image
from scipy import ndimage

import transforms.interpolation
from models.zoo import INTERPOLATIONS, MODELS
from pipelines.main import main
from pipelines.options import RestoreOptions
from pipelines.restore import restore_job
from transforms.errors import ConfigurationError
from transforms.interpolation import InterpolatedRows, InterpolatorFactory
from transforms.metrics import parse_metric
from transforms.planes.resampling import resize_planes
from transforms.value_range import from_float

Array = NDArray[Any]
INLINE = ("--runner", "apache_beam.runners.portability.fn_api_runner.FnApiRunner", "--quiet")


def noise(height: int, width: int, channels: int, kind: Any = np.uint8, seed: int = 0) -> Array:
    return from_float(np.random.default_rng(seed).random((height, width, channels), dtype=np.float32), kind)


def enlarged(name: str, picture: Array) -> Array:
    restorer = InterpolatorFactory(name, *INTERPOLATIONS[name]).load()
    result: Array = restorer.restore([picture], [{}])[0].samples
    return result


def run(verb: str, *words: object) -> int:
    return main([verb, *map(str, words), *INLINE])


# ---------------------------------------------------------------- the restorer


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_spline_is_scipy_s_zoom(
    factor: int, channels: int, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = noise(47, 38, channels, np.float32)
    monkeypatch.setattr(transforms.interpolation, "PIXELS_AT_ONCE", rows_at_once * 38 * factor)
    planes = [
        ndimage.zoom(picture[..., plane].astype(np.float64), factor, order=3, mode="reflect", grid_mode=True)
        for plane in range(channels)
    ]
    assert np.abs(enlarged(f"spline-x{factor}", picture) - np.stack(planes, axis=2)).max() < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2)])
def test_the_spline_goes_through_the_samples_of_the_smallest_pictures(size: tuple[int, int]) -> None:
    """(SciPy's own does not there: its recursion begins with a truncated sum.)"""
    picture = noise(*size, 3, np.float32)
    assert np.abs(enlarged("spline-x3", picture)[1::3, 1::3] - picture).max() < 1e-6


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_bicubic_is_that_of_every_channel(channels: int, kind: Any) -> None:
    picture = noise(29, 40, channels, kind)
    scale = 1 if kind == np.float32 else np.iinfo(kind).max
    planes = resize_planes(np.moveaxis(picture / scale, 2, 0), scale=3)
    result = enlarged("bicubic-x3", picture)
    assert result.dtype == kind
    expected = np.moveaxis(planes, 0, 2) if kind == np.float32 else np.clip(np.moveaxis(planes, 0, 2), 0, 1) * scale
    assert np.abs(result - expected).max() < (1e-5 if kind == np.float32 else 0.51)


def test_rows_are_parts_of_the_whole_in_whatever_order_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = noise(31, 20, 3)
    monkeypatch.setattr(transforms.interpolation, "PIXELS_AT_ONCE", 10 * 60)
    whole = enlarged("bicubic-x3", picture)
    rows = InterpolatedRows(picture, (93, 60), "matlab_bicubic", np.uint8)
    assert (rows.shape, rows.strip) == (whole.shape, 10)
    for part in (slice(90, 93), slice(0, 93), slice(9, 10), slice(10, 11), slice(5, 25), slice(88, 400), slice(4, 4)):
        assert np.array_equal(rows[part], whole[part])


def test_configuration_travels_and_decides_the_fingerprint() -> None:
    factory = InterpolatorFactory("spline-x2", "scipy_spline", 2)
    assert pickle.loads(pickle.dumps(factory)) == factory
    assert len({json.dumps(InterpolatorFactory("n", *each).fingerprint()) for each in INTERPOLATIONS.values()}) == 6
    for kernel, factor in (("spline", 2), ("scipy_spline", 0)):
        with pytest.raises(ValueError, match="expected one of"):
            InterpolatorFactory("n", kernel, factor)


def options(model: str, **changes: Any) -> RestoreOptions:
    return RestoreOptions(input="in", output="out", model=model, **changes)


def test_what_an_interpolation_cannot_be_asked_for_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="name it alone"):
        restore_job(options("denoise5-color-25,bicubic-x2"), 1, 1)
    with pytest.raises(ConfigurationError, match="computed on the CPU"):
        restore_job(options("spline-x2", provider="cuda"), 1, 1)
    with pytest.raises(ConfigurationError, match="did you mean 'bicubic-x4'"):
        restore_job(options("bicubic-4"), 1, 1)
    job = restore_job(options("spline-x2", provider="cuda", allow_cpu_fallback=True), 1, 1)
    assert job.restorer.describe()["interpolation"] == "scipy_spline"


def test_the_zoo_shows_the_interpolations(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo"]) == 0
    table = capsys.readouterr().out
    assert not set(INTERPOLATIONS) & set(MODELS)
    for name in INTERPOLATIONS:
        assert f"\n{name} " in table
    assert main(["zoo", "--name", "spline-x4"]) == 0
    assert json.loads(capsys.readouterr().out)["scale"] == 4


# ---------------------------------------------------------------- what is measured


@pytest.mark.parametrize(
    "name", ["psnr[rgb,u8]", "psnr[y,border=3,u8]", "psnr[y,f32]", "ssim[y,u8]", "ssim[rgb,border=5,u16]"]
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_figure_of_computed_rows_is_that_of_the_whole_picture(
    name: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transforms.interpolation, "PIXELS_AT_ONCE", 11 * 90)
    picture, clean = noise(40, 30, 3, kind), noise(120, 90, 3, kind, seed=1)
    rows = InterpolatedRows(picture, (120, 90), "matlab_bicubic", kind)
    metric = parse_metric(name)
    assert metric(rows, clean) == metric(enlarged("bicubic-x3", picture), clean)


def test_measuring_an_enlargement_holds_some_rows_of_it() -> None:
    picture, clean = noise(600, 800, 3), noise(2400, 3200, 3, seed=1)
    metric = parse_metric("psnr[y,border=4,u8]")
    metric(clean[:64], clean[:64])
    tracemalloc.start()
    try:
        figure = metric(InterpolatedRows(picture, (2400, 3200), "matlab_bicubic", np.uint8), clean)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0 < figure < 20
    assert peak < 20e6  # the result has 23 MB, and 92 MB as floats


@pytest.fixture
def darkening(tmp_path: Path) -> Path:
    """A network for luma that was enlarged three times: it leaves it as it is, and darkens it a little."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "h", "w"]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "c"], ["y"])], "network", ends[:1], ends[1:],
        [helper.make_tensor("c", TensorProto.FLOAT, [1], [0.95])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    said = {"color": "luma", "scale": 3, "enlarge": {"factor": 3, "kernel": "matlab_bicubic"}, "name": "darker"}
    helper.set_model_props(model, {f"conservator.{key}": json.dumps(value) for key, value in said.items()})
    onnx.save(model, tmp_path / "darker.onnx")
    return tmp_path / "darker.onnx"


def pairs_of(photo: Array, folder: Path) -> Path:
    """Two small pictures and what they were three times as large."""
    folder.mkdir()
    for number, (top, kind) in enumerate(((60, "RGB"), (250, "L"))):
        clean = Image.fromarray(photo[top : top + 96, 150:300]).convert(kind)
        clean.save(folder / f"{number}.clean.png")
        planes = np.asarray(clean, np.float64) / 255
        planes = planes[np.newaxis] if kind == "L" else np.moveaxis(planes, 2, 0)
        small = from_float(np.moveaxis(resize_planes(planes, scale=1 / 3), 0, 2).squeeze(), np.uint8)
        Image.fromarray(small).save(folder / f"{number}.degraded.png")
    return folder


def test_a_network_that_enlarges_is_compared_with_the_bicubic(
    darkening: Path, photo: Array, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the table, the summary and on the page; the figures are those that `bicubic-x3` gets by itself."""
    pairs, metrics = pairs_of(photo, tmp_path / "pairs"), ("psnr[y,border=3,u8]", "ssim[rgb,u8]")
    found = {}
    for name, model in (("network", darkening), ("bicubic", "bicubic-x3"), ("spline", "spline-x3")):
        output = tmp_path / name
        assert (
            run("restore", "--input", pairs, "--model", model, "--metrics", ",".join(metrics), "--output", output) == 0
        )
        rows = pq.read_table(output / "report" / "metrics.parquet").to_pylist()
        found[name] = json.loads((output / "report" / "summary.json").read_text()), rows
    assert capsys.readouterr().out.count(", gain over the bicubic enlargement ") == 6
    for metric in metrics:
        alone = [row[metric] for row in found["bicubic"][1]]
        for summary, rows in found.values():
            assert [row[f"bicubic {metric}"] for row in rows] == alone
            gain = summary["gains"][metric]
            assert gain["mean"] == pytest.approx(math.fsum(row[metric] for row in rows) / 2 - math.fsum(alone) / 2)
            assert summary["baseline"] == {"prefix": "bicubic ", "meaning": "bicubic enlargement"}
            assert not any(f"input {metric}" in row for row in rows)
        gains = {name: summary["gains"][metric] for name, (summary, _) in found.items()}
        assert gains["network"]["max"] < 0 < gains["spline"]["mean"]
        assert gains["bicubic"]["min"] == gains["bicubic"]["max"] == 0  # the very same rows
    page = html.unescape((tmp_path / "network" / "report" / "index.html").read_text())
    for words in (
        "over bicubic enlargement</h1>",
        "that of MATLAB's bicubic enlargement,",
        "gain over bicubic enlargement",
    ):
        assert words in page
    assert "degraded input" not in page


def test_a_network_that_keeps_the_size_is_compared_with_its_input(negative_model: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    for role, seed in (("clean", 0), ("degraded", 1)):
        Image.fromarray(noise(20, 30, 3, seed=seed)).save(tmp_path / "pairs" / f"a.{role}.png")
    words = ("--input", tmp_path / "pairs", "--model", negative_model, "--output", tmp_path / "out")
    assert run("restore", *words) == 0
    summary = json.loads((tmp_path / "out" / "report" / "summary.json").read_text())
    assert summary["baseline"] == {"prefix": "input ", "meaning": "degraded input"}
    assert set(summary["metrics"]) == {f"{way}{m}" for way in ("", "input ") for m in ("psnr[rgb,u8]", "ssim[rgb,u8]")}
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "degraded input" in page
    assert "bicubic" not in page


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("data_set", "factor", "published"),
    [
        ("Set5", 2, 33.66), ("Set5", 3, 30.39), ("Set5", 4, 28.42),
        ("Set14", 2, 30.23), ("Set14", 3, 27.54), ("Set14", 4, 26.00),
    ],
)  # fmt: skip
def test_the_bicubic_has_the_papers_figures(
    data_set: str, factor: int, published: float, data_dir: Path, tmp_path: Path
) -> None:
    """Dong et al., TPAMI 2016, table of Set5 and Set14, by the commands that anybody would type."""
    pairs, metric = tmp_path / "pairs", f"psnr[y,border={factor},u8]"
    made = ("--input", data_dir / data_set, "--recipe", f"shrunk-x{factor}", "--whole", "--output", pairs)
    assert run("degrade", *made) == 0
    done = ("--input", pairs, "--model", f"bicubic-x{factor}", "--metrics", metric, "--output", tmp_path / "out")
    assert run("restore", *done) == 0
    summary = json.loads((tmp_path / "out" / "report" / "summary.json").read_text())
    for name in (metric, f"bicubic {metric}"):
        assert summary["metrics"][name]["mean"] == pytest.approx(published, abs=0.01)
