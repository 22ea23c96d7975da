"""Weights published with the papers, loaded into our definitions, give the published figures.

This proves the definitions, the bicubic, the luma and the metrics at once: nobody here wrote the weights or the figures.
Set5, luma, border of `scale` pixels cropped, as in the papers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from transforms.metrics import parse_metric
from transforms.planes.resampling import resize_planes
from transforms.value_range import from_float, to_float

torch = pytest.importorskip("torch")

from models.networks import build_network  # noqa: E402 - needs torch
from models.networks.cascade import Cascade  # noqa: E402
from models.networks.network import RestorationNetwork  # noqa: E402
from pipelines.main import main  # noqa: E402

Plane = NDArray[np.floating[Any]]
SCALES = (2, 3, 4)
pytestmark = pytest.mark.data


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def weights(data_dir: Path) -> Path:
    folder = data_dir / "weights"
    if not folder.is_dir():
        pytest.skip(f"no published weights at {folder}")
    return folder


@pytest.fixture(scope="module")
def set5(data_dir: Path) -> list[NDArray[np.uint8]]:
    """Luma (BT.601, studio swing), rounded to 8 bits, H x W."""
    return [luma(np.asarray(Image.open(path).convert("RGB"))) for path in sorted((data_dir / "Set5").glob("*.bmp"))]


def luma(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.floor(16.5 + rgb @ np.array([65.481, 128.553, 24.966]) / 255).astype(np.uint8)


def put(layer: torch.nn.Module, weight: NDArray[Any], bias: NDArray[Any] | None = None) -> None:
    with torch.no_grad():
        assert layer.weight.shape == weight.shape
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)).float())
        if bias is not None:
            layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias).ravel()).float())


def convolutions(network: RestorationNetwork) -> list[torch.nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]


def run(network: RestorationNetwork, picture: Plane) -> Plane:
    with torch.no_grad():
        tensor = torch.from_numpy(np.ascontiguousarray(picture, dtype=np.float32))
        return network(tensor.reshape(1, -1, *picture.shape[-2:]))[0].numpy().reshape(picture.shape)


def mean_psnr(
    set5: Sequence[NDArray[np.uint8]], scale: int, restore: Callable[[Plane, tuple[int, int]], Plane]
) -> float:
    """Mean PSNR of what `restore` makes of the small pictures."""
    metric = parse_metric(f"psnr[y,border={scale},u8]")
    figures = []
    for whole in set5:
        height, width = (side - side % scale for side in whole.shape)
        clean = whole[:height, :width, None]
        small = resize_planes(to_float(clean)[..., 0].astype(np.float64), scale=1 / scale)
        large = restore(small, (height, width))
        figures.append(metric(from_float(np.float32(large)[..., None], np.uint8), clean))
    return float(np.mean(figures))


def enlarged(small: Plane, size: tuple[int, int]) -> Plane:
    return resize_planes(small, size=size)


@pytest.mark.parametrize(("scale", "published"), list(zip(SCALES, (33.66, 30.39, 28.42), strict=True)))
def test_bicubic(set5, scale, published):
    assert mean_psnr(set5, scale, enlarged) == pytest.approx(published, abs=0.01)


def srcnn_with(path: Path, filters: tuple[int, int, int]) -> RestorationNetwork:
    stored = scipy.io.loadmat(path)
    network = build_network("srcnn", {"filters": filters}).eval()
    shapes = ((64, 1), (32, 64), (1, 32))
    # MATLAB runs through a filter column by column.
    layers = (
        stored["weights_conv1"].T.reshape(64, 1, -1),
        stored["weights_conv2"].transpose(2, 0, 1),
        stored["weights_conv3"].reshape(1, 32, -1),
    )
    for layer, values, shape, side, number in zip(
        convolutions(network), layers, shapes, filters, (1, 2, 3), strict=True
    ):
        put(layer, values.reshape(*shape, side, side).swapaxes(2, 3), stored[f"biases_conv{number}"])
    return network


@pytest.mark.parametrize(
    ("version", "scale", "published"),
    [
        ("9-1-5(91 images)", 2, 36.34),
        ("9-1-5(91 images)", 3, 32.39),
        ("9-1-5(91 images)", 4, 30.08),
        ("9-1-5(ImageNet)", 3, 32.52),
        ("9-3-5(ImageNet)", 3, 32.65),
        ("9-5-5(ImageNet)", 2, 36.66),
        ("9-5-5(ImageNet)", 3, 32.75),
        ("9-5-5(ImageNet)", 4, 30.48),
    ],
)
def test_srcnn(set5, weights, version, scale, published):
    first, second, third = (int(word) for word in version.partition("(")[0].split("-"))
    network = srcnn_with(weights / "SRCNN_official" / version / f"x{scale}.mat", (first, second, third))
    found = mean_psnr(set5, scale, lambda small, size: run(network, enlarged(small, size)))
    assert found == pytest.approx(published, abs=0.02)


def vdsr_with(weights: Path) -> RestorationNetwork:
    stored = scipy.io.loadmat(weights / "VDSR" / "Test" / "VDSR_Official.mat")["model"][0, 0]
    network = build_network("vdsr", {}).eval()
    for layer, weight, bias in zip(
        convolutions(network), stored["weight"].ravel(), stored["bias"].ravel(), strict=True
    ):
        put(layer, weight.reshape(3, 3, layer.in_channels, layer.out_channels).transpose(3, 2, 0, 1), bias)
    return network


@pytest.mark.parametrize(("scale", "published"), list(zip(SCALES, (37.53, 33.66, 31.34), strict=True)))
def test_vdsr(set5, weights, scale, published):
    network = vdsr_with(weights)
    found = mean_psnr(set5, scale, lambda small, size: run(network, enlarged(small, size)))
    assert found == pytest.approx(published, abs=0.02)


def scn_file(weights: Path, number: int) -> Path:
    """52 is the first pass of the cascade, 310 the second."""
    return weights / "SCN" / "model" / f"weights_srnet_x2_{number}.mat"


def scn_with(path: Path) -> RestorationNetwork:
    stored = scipy.io.loadmat(path)["model"][0, 0]
    network = build_network("scn", {}).eval()
    for name, side in (("gradients", 9), ("mean", 13)):
        put(getattr(network, name), stored[{"gradients": "conv", "mean": "mean2"}[name]].T.reshape(-1, 1, side, side))
    put(network.encode, stored["wd"].T[:, :, None, None])
    put(network.inhibit, stored["usd1"].T[:, :, None, None])
    by_rows = np.arange(25).reshape(5, 5).T.ravel()  # the authors count the places of a patch column by column
    put(network.decode, stored["ud"].T[by_rows, :, None, None])
    put(network.detail, stored["diffms"].T.reshape(-1, 1, 9, 9)[by_rows])
    with torch.no_grad():
        network.position_weights.copy_(torch.from_numpy(stored["addp"].ravel()[by_rows]))
    return network


@pytest.mark.parametrize(("scale", "published"), list(zip(SCALES, (36.91, 33.11, 30.86), strict=True)))
def test_scn_and_its_cascade(set5, weights, scale, published):
    networks = [scn_with(scn_file(weights, number)) for number in (52, 310)]

    def cascade(small: Plane, size: tuple[int, int]) -> Plane:
        for network in networks[: math.ceil(math.log2(scale))]:
            small = run(network, resize_planes(small, scale=2, kernel="opencv_cubic"))
        return small if small.shape == size else resize_planes(small, size=size)

    assert mean_psnr(set5, scale, cascade) == pytest.approx(published, abs=0.02)


def cscn(weights: Path, passes: int) -> RestorationNetwork:
    networks = [scn_with(scn_file(weights, number)) for number in (52, 310)[:passes]]
    return Cascade(networks) if passes > 1 else networks[0]


def noisy(clean: NDArray[np.uint8], sigma: float, number: int) -> Plane:
    rng = np.random.default_rng(number)
    return to_float(clean) + np.float32(sigma / 255) * rng.standard_normal(clean.shape, dtype=np.float32)


def dncnn_with(weights: Path) -> RestorationNetwork:
    h5py = pytest.importorskip("h5py")
    network = build_network("dncnn", {"channels": 1, "layers": 17}).eval()
    with h5py.File(weights / "DnCNN" / "specifics" / "sigma=25.mat") as file:
        layers = [file[reference] for reference in file["net"]["layers"][:, 0]]
        stored = [[file[each][()] for each in layer["weights"][()].ravel()] for layer in layers if "pad" in layer]
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for position, (layer, (weight, bias)) in enumerate(zip(convolutions(network), stored, strict=True)):
        weight = weight.reshape(layer.out_channels, layer.in_channels, 3, 3).swapaxes(2, 3)
        put(layer, weight, bias if layer.bias is not None else None)
        if layer.bias is None:  # batch norm is folded into the published convolutions: ours only adds
            norm = norms[position - 1]
            put(norm, np.full(64, math.sqrt(1 + norm.eps)), bias)
    return network


def test_dncnn(data_dir, weights):
    network = dncnn_with(weights)
    metric = parse_metric("psnr[gray,u8]")
    figures = []
    for number, path in enumerate(sorted((data_dir / "Set12").glob("*.png"))):
        clean = np.asarray(Image.open(path).convert("L"))
        restored = run(network, noisy(clean, 25, number))
        figures.append(metric(from_float(restored[..., None], np.uint8), clean[..., None]))
    published = [30.09, 33.03, 30.85, 29.41, 30.32, 29.10, 29.46, 32.41, 29.97, 30.19, 30.10, 30.06]
    assert figures == pytest.approx(
        published, abs=0.25
    )  # each of one noise draw: of House they differ by 0.06 from one to the next
    assert np.mean(figures) == pytest.approx(30.42, abs=0.03)


def test_the_auto_encoder_of_dmsp_removes_the_noise_that_it_was_trained_for(data_dir, weights):
    stored = scipy.io.loadmat(weights / "DMSP" / "matconvnet_std11" / "DAE_sigma11.mat")["net"].ravel()
    layers = [layer["weights"][0, 0][0] for layer in stored if layer["type"][0, 0][0] == "conv"]
    network = build_network("dae", {"channels": 3, "layers": 20}).eval()
    for layer, (weight, bias) in zip(convolutions(network), layers, strict=True):
        put(layer, weight.transpose(3, 2, 0, 1), bias)  # batch norm is folded in, and ours is the identity but for eps
    clean = np.asarray(Image.open(data_dir / "BSD100" / "101085.jpg"))[60:252, 100:292]
    degraded = noisy(clean, 11, 0)
    restored = run(network, np.moveaxis(degraded, 2, 0) * 255) / 255
    metric = parse_metric("psnr[rgb,f32]")
    gain = metric(np.moveaxis(restored, 0, 2), to_float(clean)) - metric(degraded, to_float(clean))
    assert gain > 5.5  # 27.3 to about 33.3 dB; no figure is published for this network alone


INLINE = ("--runner", "apache_beam.runners.portability.fn_api_runner.FnApiRunner", "--quiet")


def exported(network: RestorationNetwork, path: Path, **said: Any) -> Path:
    """An ONNX file of luma with the metadata that tells the restorer what to do around it."""
    import onnx

    from export.onnx_export import to_onnx

    model = to_onnx(network, 1, min_size=network.min_size)
    said = {"color": "luma", "receptive_field": network.receptive_field, **said}
    onnx.helper.set_model_props(model, {f"conservator.{key}": json.dumps(value) for key, value in said.items()})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def small_pictures(data_dir, tmp_path_factory) -> Callable[[int], Path]:
    """Shards of Set5 as the papers test on it: `conservator degrade --recipe shrunk-xN`."""
    made: dict[int, Path] = {}

    def at(scale: int) -> Path:
        if scale not in made:
            made[scale] = tmp_path_factory.mktemp(f"shrunk-x{scale}")
            words = ["--input", f"{data_dir}/Set5/*.bmp", "--recipe", f"shrunk-x{scale}", "--output", str(made[scale])]
            assert main(["degrade", *words, *INLINE]) == 0
        return made[scale]

    return at


@pytest.mark.parametrize(
    ("name", "scale", "published"),
    [("srcnn", 3, 32.75), ("vdsr", 3, 33.66), ("scn", 2, 36.91), ("scn", 3, 33.11), ("scn", 4, 30.86)],
)
def test_restore_gives_the_published_figures(name, scale, published, weights, small_pictures, tmp_path):
    """The whole way: `conservator degrade`, then `conservator restore` with the published weights as an ONNX file."""
    if name == "srcnn":
        network = srcnn_with(weights / "SRCNN_official" / "9-5-5(ImageNet)" / f"x{scale}.mat", (9, 5, 5))
    else:
        network = vdsr_with(weights) if name == "vdsr" else cscn(weights, passes=1 if scale == 2 else 2)
    enlarge: dict[str, Any] = {"factor": scale, "kernel": "matlab_bicubic"}
    if name == "scn":
        enlarge = {"factor": 2, "kernel": "opencv_cubic", "shrink": "matlab_bicubic"}
    model = exported(network, tmp_path / f"{name}-x{scale}.onnx", scale=scale, enlarge=enlarge)
    metric = f"psnr[y,border={scale},u8]"
    words = ["--input", str(small_pictures(scale)), "--model", str(model), "--metrics", metric]
    assert main(["restore", *words, "--output", str(tmp_path / "restored"), *INLINE]) == 0
    summary = json.loads((tmp_path / "restored" / "report" / "summary.json").read_text())
    assert summary["metrics"][metric]["mean"] == pytest.approx(published, abs=0.03)
