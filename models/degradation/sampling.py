"""Down- and up-sampling as degradations; the kernels themselves are in `transforms.planes.resampling`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.degradation.blur_kernels import gaussian_taps
from models.degradation.distributions import Drawable, DrawableWord
from models.degradation.protocol import LinearOperator, Operator, Parameters, Quantity, Shape, Wording
from transforms.planes import Planes
from transforms.planes.banded import Band, apply_bands, apply_bands_adjoint, filter_band
from transforms.planes.boundary import BOUNDARIES
from transforms.planes.resampling import (
    BORDERS,
    MATLAB_KERNELS,
    RESIZE_KERNELS,
    resize_planes,
    resize_planes_8bit,
    resize_planes_adjoint,
    resized,
)

RELATIONS = ("current", "clean")
OFFSETS = ("first", "centre", "middle")
SCALE = Quantity(meaning="output pixels per pixel, of both sides: 1/2 halves the picture", above=0)
RELATIVE_TO = Wording(
    meaning="current: scale times the size here; clean: times the size before the whole chain, which says where to end",
    options=RELATIONS,
)
BORDER = Wording(
    meaning="what MATLAB's kernels read outside: symmetric as today, replicate as until 2014; no other kernel looks",
    options=BORDERS,
)


def _target(parameters: Parameters) -> dict[str, Any]:
    """Size, or the scale where MATLAB's kernels step by exactly 1 / scale."""
    exact = parameters["relative_to"] == "current" and parameters["kernel"] in MATLAB_KERNELS
    return {"scale": parameters["scale"]} if exact else {"size": tuple(parameters["size"])}


@dataclass(frozen=True)
class Resizing(Operator):
    """Base of `resize` and `resize_8bit`: which size, by which kernel.

    Sides are rounded up by MATLAB's kernels, to the nearest by all others; `size` in the parameters is H, W of the
    result. With `relative_to: clean` a chain of random resizes ends at an exact fraction of the clean picture.
    """

    scale: Annotated[Drawable, SCALE]
    kernel: Annotated[DrawableWord, Wording(meaning="named interpolation", options=RESIZE_KERNELS)] = "matlab_bicubic"
    relative_to: Annotated[DrawableWord, RELATIVE_TO] = "current"
    border: Annotated[DrawableWord, BORDER] = "symmetric"

    def sample(self, rng: np.random.Generator, shape: Shape, clean_shape: Shape | None = None) -> Parameters:
        drawn = super().sample(rng, shape, clean_shape)
        before = shape if drawn["relative_to"] == "current" else clean_shape or shape
        return {**drawn, "size": [resized(side, drawn["scale"], drawn["kernel"]) for side in before[:2]]}

    @staticmethod
    def output_shape(shape: Shape, parameters: Parameters) -> Shape:
        height, width = parameters["size"]
        return height, width, shape[2]


@dataclass(frozen=True)
class Resize(Resizing, LinearOperator):
    """Another number of pixels, Y = R X C^T with the matrices of a named kernel; neither clipped nor rounded.

    Source: super-resolution since Dong et al., "Image super-resolution using deep convolutional networks", TPAMI 2016
    (matlab_bicubic, 1/2, 1/3, 1/4); Zhang et al., "Designing a practical degradation model", ICCV 2021 (BSRGAN) and
    Wang et al., "Real-ESRGAN", ICCVW 2021 (random scales from 0.15 to 1.5, random kernels).
    """

    name: ClassVar[str] = "resize"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        kernel, border = parameters["kernel"], parameters["border"]
        return resize_planes(planes, kernel=kernel, border=border, **_target(parameters))

    @staticmethod
    def adjoint(planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        kernel, border, scale = parameters["kernel"], parameters["border"], _target(parameters).get("scale")
        return resize_planes_adjoint(planes, shape[:2], scale=scale, kernel=kernel, border=border)


@dataclass(frozen=True)
class Resize8Bit(Resizing):
    """`resize` as MATLAB's imresize does it to 8-bit files: rounded and clipped after each of the two passes.

    The published low-resolution pictures of the super-resolution test sets were made so (border: replicate). The
    rounding makes it not linear; a solver takes `resize` with the same kernel.

    Source: MATLAB's imresize.m; the data of Huang et al., "Single image super-resolution from transformed
    self-exemplars", CVPR 2015.
    """

    name: ClassVar[str] = "resize_8bit"
    kernel: Annotated[DrawableWord, Wording(meaning="named interpolation", options=MATLAB_KERNELS)] = "matlab_bicubic"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        kernel, border = parameters["kernel"], parameters["border"]
        return resize_planes_8bit(planes, kernel=kernel, border=border, **_target(parameters))


@dataclass(frozen=True)
class GaussianDecimate(LinearOperator):
    """Gaussian blur, then every n-th pixel of every n-th row:  y(i, j) = (g * x)(o + n i, o + n j).

    offset first: o = 0. offset centre: o = n // 2, the middle of each n x n cell (for even n the pixel after it). offset
    middle: o = (n - 1) / 2 exactly, for even n between two pixels, as BSRGAN's shifted kernels do it.

    Source: Zhang et al., "Learning deep CNN denoiser prior for image restoration" (IRCNN), CVPR 2017: sigma 1.6, size
    7, factor 3, centre; Dong et al., TPAMI 2013 (NCSR), for the same setting.
    """

    name: ClassVar[str] = "gaussian_decimate"
    sigma: Annotated[Drawable, Quantity(meaning="standard deviation in pixels", minimum=0)]
    factor: Annotated[Drawable, Quantity(meaning="n: one pixel of n x n is kept", minimum=1, integer=True)]
    size: Annotated[
        Drawable,
        Quantity(meaning="side of the blur kernel in pixels; 0: 4 sigma to each side", minimum=0, integer=True),
    ] = 0
    offset: Annotated[DrawableWord, Wording(meaning="which pixel of each cell is kept", options=OFFSETS)] = "centre"
    boundary: Annotated[
        DrawableWord, Wording(meaning="what the blur reads outside the picture", options=BOUNDARIES)
    ] = "reflect"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return apply_bands(planes, *_decimating(planes.shape[-2:], parameters))

    @staticmethod
    def adjoint(planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        return apply_bands_adjoint(planes, *_decimating(shape[:2], parameters))

    @staticmethod
    def output_shape(shape: Shape, parameters: Parameters) -> Shape:
        reach = len(_taps(parameters)) - 1 if parameters["boundary"] == "valid" else 0
        height, width = (len(_kept(side - reach, parameters)) for side in shape[:2])
        return height, width, shape[2]

    @staticmethod
    def arrays(shape: Shape, parameters: Parameters) -> dict[str, NDArray[Any]]:
        taps = _taps(parameters)
        return {"kernel": np.outer(taps, taps).astype(np.float32)}


def _decimating(size: tuple[int, ...], parameters: Parameters) -> tuple[Band, Band]:
    taps, boundary = _taps(parameters), parameters["boundary"]
    bands = {side: filter_band(side, taps, boundary) for side in size}  # a square's rows and columns share one
    kept = {side: band.every(_kept(band.outputs, parameters)) for side, band in bands.items()}
    return kept[size[0]], kept[size[1]]


def _taps(parameters: Parameters) -> NDArray[np.float64]:
    """The blur; centred between two pixels where the offset is."""
    between = parameters["offset"] == "middle" and parameters["factor"] % 2 == 0
    return gaussian_taps(parameters["sigma"], parameters["size"], 0.5 if between else 0.0)


def _kept(outputs: int, parameters: Parameters) -> range:
    """Which of the blurred pixels stay; a side shorter than the offset keeps its last."""
    if outputs < 1:
        raise ValueError("the blur's kernel does not fit into the picture; use another boundary than valid")
    factor: int = parameters["factor"]
    first = {"first": 0, "centre": factor // 2, "middle": (factor - 1) // 2}[parameters["offset"]]
    return range(min(first, outputs - 1), outputs, factor)
