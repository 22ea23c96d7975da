"""Blur by measured kernels: .npy, .mat and pictures, through any file system."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar

import fsspec
import numpy as np
import scipy.io
from fsspec.core import url_to_fs
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.degradation.blur import KernelBlur
from models.degradation.blur_kernels import Kernel, normalised, odd_sided
from models.degradation.distributions import DrawableWord
from models.degradation.protocol import Location, Parameters, Shape, Wording

ORIENTATIONS = ("convolution", "correlation")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_LARGEST_SIDE = 1001


@dataclass(frozen=True, eq=False)
class KernelFile:
    """A kernel and where it came from."""

    place: str
    kernel: NDArray[np.float32]


@lru_cache(maxsize=16)
def read_kernels(location: str) -> tuple[KernelFile, ...]:
    """All kernels of a place, each of sum 1, in a stable order; read once in each process.

    Args:
        location: a file, a folder, or a glob pattern, as path or URL. `#NAME` at the end picks a variable of .mat files.
            A file holds one kernel (kh x kw) or several: N x kh x kw in .npy; kh x kw x N or a cell array in .mat.
            Pictures are read as grey values.

    Raises:
        ValueError: nothing there, no kernels in it, more than one variable that could be meant.
    """
    url, _, variable = location.partition("#")
    found = []
    for file, data in _files(url):
        arrays = list(_kernels_of(data, file, variable))
        for number, array in enumerate(arrays):
            place = f"{file}[{number}]" if len(arrays) > 1 else file
            found.append(KernelFile(place, _checked(array, place)))
    return tuple(found)


def _files(url: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file, sorted."""
    if url.startswith("data:"):
        with fsspec.open(url, "rb") as file:
            yield "data:", file.read()
        return
    try:
        fs, path = url_to_fs(url)
        paths = sorted(fs.glob(path)) if any(mark in path for mark in "*?[") else [path]
        if len(paths) == 1 and fs.isdir(paths[0]):
            paths = sorted(each for each in fs.find(paths[0], maxdepth=1) if not each.endswith("/"))
        if not paths:
            raise ValueError(f"no file matches {url!r}; check the path")
        for each in paths:
            yield each.rpartition("/")[2], fs.cat_file(each)
    except OSError as error:
        raise ValueError(f"cannot read kernels from {url!r}: {error}") from error


def _kernels_of(data: bytes, file: str, variable: str) -> Iterator[NDArray[Any]]:
    if data.startswith(b"\x93NUMPY"):
        array = np.load(io.BytesIO(data), allow_pickle=False)
        yield from array if array.ndim == 3 else [array]
    elif data.startswith((b"MATLAB 7.3", _HDF5)):
        yield from _unpacked(_chosen(_matlab_hdf5(data), file, variable))
    elif data.startswith(b"MATLAB"):
        everything = scipy.io.loadmat(io.BytesIO(data))
        named = {name: value for name, value in everything.items() if not name.startswith("__")}
        yield from _unpacked(_chosen(named, file, variable))
    else:
        yield _picture(data, file)


def _matlab_hdf5(data: bytes) -> Mapping[str, NDArray[Any]]:
    """Variables of a MATLAB 7.3 file, which is HDF5 with its axes in the opposite order."""
    try:
        import h5py
    except ImportError as error:
        remedy = "pip install h5py, or save it again with MATLAB's -v7"
        raise ValueError(f"kernels in a MATLAB 7.3 file: {remedy}") from error

    def value_of(dataset: Any) -> Any:
        values = dataset[()]
        if h5py.check_ref_dtype(dataset.dtype) is None:
            return np.asarray(values).T
        cells = np.empty(values.size, dtype=object)
        cells[:] = [value_of(file[reference]) for reference in values.T.ravel(order="F")]
        return cells

    with h5py.File(io.BytesIO(data), "r") as file:
        return {name: value_of(each) for name, each in file.items() if isinstance(each, h5py.Dataset)}


def _chosen(variables: Mapping[str, NDArray[Any]], file: str, wanted: str) -> NDArray[Any]:
    """The variable that holds kernels: the wanted one, or the only one that can."""
    candidates = {name: value for name, value in variables.items() if _may_hold_kernels(value)}
    if wanted and wanted in candidates:
        return candidates[wanted]
    if len(candidates) == 1 and not wanted:
        return next(iter(candidates.values()))
    names = ", ".join(candidates) or "none"
    raise ValueError(f"{file}: which variable holds the kernels? Add #NAME to the path; possible are: {names}")


def _may_hold_kernels(value: Any) -> bool:
    if not isinstance(value, np.ndarray) or not value.size:
        return False
    if value.dtype == object:
        return all(isinstance(each, np.ndarray) and each.dtype.kind in "fiu" and each.ndim == 2 for each in value.flat)
    return value.dtype.kind in "fiu" and value.ndim in (2, 3) and min(value.shape[:2]) > 1


def _unpacked(value: NDArray[Any]) -> Iterator[NDArray[Any]]:
    if value.dtype == object:
        yield from value.ravel(order="F")
    else:
        yield from np.moveaxis(value, 2, 0) if value.ndim == 3 else [value]


def _picture(data: bytes, file: str) -> NDArray[np.float64]:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            wide = picture.mode in ("I", "F") or picture.mode.startswith("I;16")
            return np.asarray(picture if wide else picture.convert("L"), dtype=np.float64)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{file}: expected kernels in .npy, .mat or a picture ({error})") from error


def _checked(array: NDArray[Any], place: str) -> NDArray[np.float32]:
    if array.ndim != 2 or max(array.shape) > _LARGEST_SIDE or array.dtype.kind not in "fiu":
        expected = f"kh x kw numbers, at most {_LARGEST_SIDE} a side"
        raise ValueError(f"{place}: an array of {array.shape} {array.dtype} is no kernel; expected {expected}")
    try:
        return normalised(array.astype(np.float64)).astype(np.float32)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


@dataclass(frozen=True)
class FileBlur(KernelBlur):
    """Convolution with a kernel out of a file, scaled to sum 1; of several, each as likely.

    The kernel itself goes into the parameters, turned already where the file keeps it for correlation: a pair is made
    again without the file.

    Source: Levin et al., "Understanding and evaluating blind deconvolution algorithms", CVPR 2009: eight kernels of
    camera shake, 13 to 27 pixels, kept for correlation in Levin09.mat.

    Raises:
        ValueError: the kernels cannot be read.
    """

    name: ClassVar[str] = "file_blur"
    _read: ClassVar[tuple[KernelFile, ...]] = ()  # each instance has its own
    kernels: Annotated[
        str,
        Location(meaning="file, folder or pattern of .npy, .mat or picture kernels; #NAME picks a variable of .mat"),
    ]
    orientation: Annotated[
        DrawableWord,
        Wording(
            meaning="what the files keep kernels for; those for correlation are turned by 180 degrees",
            options=ORIENTATIONS,
        ),
    ] = "convolution"

    def __post_init__(self) -> None:
        super().__post_init__()
        # Pickled with the operator: a worker on another machine does not need the files.
        object.__setattr__(self, "_read", read_kernels(self.kernels))

    def sample(self, rng: np.random.Generator, shape: Shape, clean_shape: Shape | None = None) -> Parameters:
        drawn = super().sample(rng, shape, clean_shape)
        chosen = self._read[int(rng.integers(len(self._read)))]
        kernel = odd_sided(chosen.kernel)[::-1, ::-1] if drawn["orientation"] == "correlation" else chosen.kernel
        coded = base64.b64encode(np.ascontiguousarray(kernel, dtype="<f4").tobytes()).decode("ascii")
        return {**drawn, "file": PurePosixPath(chosen.place).name, "kernel": coded, "shape": list(kernel.shape)}

    def content_digest(self) -> str:
        digest = hashlib.sha256()
        for each in self._read:
            digest.update(f"{PurePosixPath(each.place).name} {each.kernel.shape}".encode())
            digest.update(np.ascontiguousarray(each.kernel, dtype="<f8").tobytes())
        return digest.hexdigest()

    @staticmethod
    def kernel(parameters: Parameters) -> Kernel:
        values = np.frombuffer(base64.b64decode(parameters["kernel"]), dtype="<f4")
        return values.reshape(parameters["shape"]).astype(np.float64)
