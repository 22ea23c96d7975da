"""Blur kernels out of files: .npy, .mat of both kinds, pictures; folders, patterns, remote stores; Levin's measured ones."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
import scipy.io
from numpy.testing import assert_allclose
from PIL import Image
from scipy import ndimage

from models.degradation.convolution import convolve
from models.degradation.file_blur import FileBlur, read_kernels
from models.recipes import Recipe, load_recipe
from transforms.randomness import generator

SHAPE = (48, 56, 3)
KERNELS = [np.outer([1.0, 2, 1], [1.0, 3, 1]), np.array([[0.0, 1, 5], [0, 1, 0]]), np.eye(5)]


@pytest.fixture(scope="module")
def planes() -> np.ndarray:
    return generator(1, "picture").random((3, 48, 56), dtype=np.float32)


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_kernels_come_from_npy_files_in_folders_patterns_and_remote_stores(tmp_path):
    (tmp_path / "b.npy").write_bytes(saved(np.stack([np.eye(3), np.ones((3, 3))])))
    (tmp_path / "a.npy").write_bytes(saved(KERNELS[0]))
    assert [each.place for each in read_kernels(str(tmp_path))] == ["a.npy", "b.npy[0]", "b.npy[1]"]
    assert [each.place for each in read_kernels(str(tmp_path / "b*"))] == ["b.npy[0]", "b.npy[1]"]
    with fsspec.open("memory://kernels-of-a-test/k.npy", "wb") as file:
        file.write(saved(KERNELS[1]))
    (found,) = read_kernels("memory://kernels-of-a-test/k.npy")
    assert_allclose(found.kernel, KERNELS[1] / 7)


def test_kernels_come_from_cell_arrays_and_stacks_of_matlab(tmp_path):
    cells = np.empty((1, 3), dtype=object)
    cells[0, :] = KERNELS
    scipy.io.savemat(tmp_path / "one.mat", {"kernels": cells, "note": "three"})
    for found, kernel in zip(read_kernels(str(tmp_path / "one.mat")), KERNELS, strict=True):
        assert_allclose(found.kernel, kernel / kernel.sum(), rtol=1e-6)
    stack = np.arange(1.0, 31).reshape(5, 3, 2)
    scipy.io.savemat(tmp_path / "two.mat", {"k": stack, "other": np.eye(3)})
    with pytest.raises(ValueError, match=r"which variable holds the kernels.*k, other"):
        read_kernels(str(tmp_path / "two.mat"))
    first, second = read_kernels(f"{tmp_path}/two.mat#k")
    assert_allclose(first.kernel, stack[..., 0] / stack[..., 0].sum(), rtol=1e-6)
    assert second.place == "two.mat[1]"


def test_kernels_come_from_matlab_7_3_files_with_their_axes_the_right_way(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "new.mat", "w") as file:
        cells = file.create_dataset("kernels", (2, 1), dtype=h5py.ref_dtype)
        for number, kernel in enumerate(KERNELS[:2]):
            cells[number, 0] = file.create_dataset(f"#refs#/{number}", data=kernel.T).ref
    found = read_kernels(str(tmp_path / "new.mat"))
    assert [each.kernel.shape for each in found] == [(3, 3), (2, 3)]
    assert_allclose(found[1].kernel, KERNELS[1] / 7, rtol=1e-6)


def test_kernels_come_from_pictures(tmp_path):
    picture = np.array([[0, 128, 0], [64, 255, 64]], np.uint8)
    Image.fromarray(picture).save(tmp_path / "k.png")
    (found,) = read_kernels(str(tmp_path / "k.png"))
    assert_allclose(found.kernel, picture / picture.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (saved(np.zeros((3, 3))), "sum 0"),
        (saved(np.ones(4)), "is no kernel"),
        (saved(np.full((3, 3), np.nan)), "sum nan"),
        (b"hello", "expected kernels in"),
        (None, "cannot read"),
    ],
)
def test_a_file_without_kernels_is_refused_when_the_recipe_is_read(tmp_path, content, complaint):
    path = tmp_path / "k.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        FileBlur(str(path))


def test_a_pair_is_made_again_when_the_kernel_file_is_gone(tmp_path, planes):
    path = tmp_path / "k.npy"
    path.write_bytes(saved(np.stack([np.eye(5), KERNELS[2][::-1] + np.eye(5)])))
    operator = FileBlur(str(path))
    parameters = operator.sample(generator(1, "a"), SHAPE)
    first = operator.apply(planes, parameters)
    path.unlink()
    read_kernels.cache_clear()
    assert FileBlur.apply(planes, json.loads(json.dumps(parameters))).tobytes() == first.tobytes()


@pytest.mark.parametrize("side", [(3, 3), (4, 6), (5, 2)])
def test_kernels_kept_for_correlation_are_turned(tmp_path, planes, side):
    kernel = generator(3, str(side)).random(side)
    (tmp_path / "k.npy").write_bytes(saved(kernel))
    operator = FileBlur(str(tmp_path / "k.npy"), "correlation", boundary="zero")
    expected = ndimage.correlate(planes.astype(np.float64), kernel[np.newaxis] / kernel.sum(), mode="constant")
    assert_allclose(operator.apply(planes, operator.sample(generator(1, "a"), SHAPE)), expected, atol=3e-6)


@pytest.mark.data
def test_levin_s_kernels_are_kept_for_correlation(data_dir: Path):
    pytest.importorskip("h5py")
    kernels = read_kernels(str(data_dir / "Levin09" / "Levin09.mat"))
    assert [each.kernel.shape[0] for each in kernels] == [19, 17, 15, 27, 13, 21, 23, 23]

    def grey(name: str) -> np.ndarray:
        return np.array(Image.open(data_dir / "Levin09" / name).convert("L"), dtype=np.float32)[np.newaxis] / 255

    clean = grey("gt/im1.png")
    for number in (4, 6, 7, 8):
        photographed = grey(f"im1_kernel{number}_img.png")[:, 30:-30, 30:-30]
        kernel = kernels[number - 1].kernel
        errors = {}
        for orientation, turned in (("correlation", kernel[::-1, ::-1]), ("convolution", kernel)):
            blurred = convolve(clean, turned, "symmetric")
            shifted = [  # the photographs were taken one by one and lie a few pixels apart
                blurred[:, 30 + down : 225 + down, 30 + right : 225 + right]
                for down in range(-5, 6)
                for right in range(-5, 6)
            ]
            errors[orientation] = min(float(np.square(each - photographed).mean()) for each in shifted) ** 0.5
        assert errors["correlation"] < 0.012
        assert errors["correlation"] < errors["convolution"] / 3


@pytest.mark.data
def test_the_twelve_kernels_of_kair_are_read(data_dir: Path):
    kernels = read_kernels(str(data_dir / "kernels_KAIR" / "kernels_12.mat"))
    assert [each.kernel.shape for each in kernels] == [(25, 25)] * 12
    assert all(each.kernel.sum() == pytest.approx(1, abs=1e-5) for each in kernels)


def test_a_changed_kernel_file_makes_another_recipe_and_no_path_is_in_the_pair(tmp_path):
    def recipe_with(folder: Path, kernel: np.ndarray) -> Recipe:
        folder.mkdir()
        np.save(folder / "k.npy", kernel)
        return Recipe("a", FileBlur(str(folder / "k.npy")))

    kernel = np.ones((3, 5))
    one, other = recipe_with(tmp_path / "a", kernel), recipe_with(tmp_path / "c", np.eye(3))
    assert one.fingerprint() != other.fingerprint()
    parameters = one.pair(np.zeros((9, 9, 1), np.uint8), key="a", patch=0, seed=1).parameters
    assert parameters["degradation"][0]["file_blur"]["file"] == "k.npy"


def test_kernels_are_found_beside_the_recipe_and_travel_with_it(tmp_path, monkeypatch):
    recipes = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "k.npy", np.ones((3, 5)))
        (tmp_path / folder / "r.yaml").write_text(
            "kind: degradation\ndescription: d\nsource: s\ndegradation: {file_blur: {kernels: k.npy}}\n", "utf-8"
        )
        monkeypatch.chdir(tmp_path)
        recipes.append(load_recipe(f"{folder}/r.yaml"))
    assert recipes[0].fingerprint() == recipes[1].fingerprint()  # where a file lies decides nothing
    packed = pickle.dumps(recipes[0])
    for folder in ("a", "b"):
        (tmp_path / folder / "k.npy").unlink()
    pair = pickle.loads(packed).pair(np.zeros((9, 9, 1), np.uint8), key="a", patch=0, seed=1)
    assert pair.parameters["degradation"][0]["file_blur"]["shape"] == [3, 5]
