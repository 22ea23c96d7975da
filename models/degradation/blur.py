"""Uniform blur: convolution with one point spread function for the whole picture.

    y = k * x          k >= 0 but for the sinc, sum k = 1; the boundary is a named choice

An operator says what its kernel is; `KernelBlur` does the rest. The kernel functions are in
`models.degradation.blur_kernels`. "valid" makes the result smaller, by the kernel's side less one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.degradation import blur_kernels
from models.degradation.blur_kernels import Kernel
from models.degradation.convolution import Kernel as AnyKernel
from models.degradation.convolution import convolve, convolve_adjoint, convolve_all, convolve_each, output_size
from models.degradation.distributions import Drawable, DrawableWord
from models.degradation.protocol import LinearOperator, Parameters, Quantity, Shape, Step, Wording
from models.degradation.table import operator_class
from transforms.planes import Planes
from transforms.planes.banded import Band, apply_bands, apply_bands_adjoint, filter_band
from transforms.planes.boundary import BOUNDARIES

BOUNDARY = Wording(
    meaning="what is read outside the picture; valid: nothing, the result is smaller", options=BOUNDARIES
)
SIZE = Quantity(meaning="side of the kernel in pixels; 0: as far as four sigma", minimum=0, maximum=1001, integer=True)
SIGMA_X = Quantity(meaning="standard deviation along the first axis, in pixels", above=0)
SIGMA_Y = Quantity(meaning="standard deviation along the second axis, in pixels", above=0)
SIGMA_Y_OR_SAME = Quantity(
    meaning="standard deviation along the second axis, in pixels; 0: as along the first", minimum=0
)
ANGLE = Quantity(meaning="direction in degrees, counter-clockwise from the horizontal")


@dataclass(frozen=True)
class KernelBlur(LinearOperator):
    """Base of the uniform blurs: an operator that is its kernel."""

    boundary: Annotated[DrawableWord, BOUNDARY] = field(default="reflect", kw_only=True)

    @staticmethod
    @abstractmethod
    def kernel(parameters: Parameters) -> Kernel:
        """The point spread function: kh x kw, sum 1, its origin at (kh // 2, kw // 2)."""

    @classmethod
    def each_kernel(cls, parameters: Sequence[Parameters]) -> list[Kernel]:
        """`kernel` of each of several parameters, to the last bit."""
        return [cls.kernel(own) for own in parameters]

    @classmethod
    def apply(cls, planes: Planes, parameters: Parameters) -> Planes:
        return convolve(planes, cls.kernel(parameters), parameters["boundary"])

    @classmethod
    def apply_all(cls, pictures: Sequence[Planes], parameters: Sequence[Parameters]) -> list[Planes]:
        return convolve_all(pictures, cls.each_kernel(parameters), [own["boundary"] for own in parameters])

    @classmethod
    def adjoint(cls, planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        return convolve_adjoint(planes, cls.kernel(parameters), parameters["boundary"])

    @classmethod
    def apply_each(cls, batch: Planes, parameters: Sequence[Parameters]) -> Planes:
        boundaries = {own["boundary"] for own in parameters}
        kernels: list[AnyKernel] = [cls.kernel(own) for own in parameters]
        if len(boundaries) > 1 or ("valid" in boundaries and len({each.shape for each in kernels}) > 1):
            return super().apply_each(batch, parameters)
        return convolve_each(batch, kernels, boundaries.pop())

    @classmethod
    def output_shape(cls, shape: Shape, parameters: Parameters) -> Shape:
        if parameters["boundary"] != "valid":
            return shape
        return (*output_size(shape[:2], cls.kernel(parameters).shape, "valid"), shape[2])

    @classmethod
    def arrays(cls, shape: Shape, parameters: Parameters) -> Mapping[str, NDArray[Any]]:
        return {"kernel": cls.kernel(parameters).astype(np.float32)}


@dataclass(frozen=True)
class GaussianBlur(KernelBlur):
    """The same Gaussian in all directions, k ~ exp(-r^2 / (2 sigma^2)): two passes of one dimension. sigma 0: nothing.

    Source: sigma 0.5 to 3 in the super-resolution and deblurring literature; Real-ESRGAN 0.2 to 3, size 7 to 21.
    """

    name: ClassVar[str] = "gaussian_blur"
    sigma: Annotated[Drawable, Quantity(meaning="standard deviation in pixels", minimum=0, maximum=1000)]
    size: Annotated[Drawable, SIZE] = 0

    @staticmethod
    def kernel(parameters: Parameters) -> Kernel:
        taps = blur_kernels.gaussian_taps(parameters["sigma"], parameters["size"])
        return np.outer(taps, taps)

    @classmethod
    def apply(cls, planes: Planes, parameters: Parameters) -> Planes:
        return apply_bands(planes, *_gaussian_bands(planes.shape[-2:], parameters))

    @classmethod
    def apply_all(cls, pictures: Sequence[Planes], parameters: Sequence[Parameters]) -> list[Planes]:
        return [cls.apply(planes, own) for planes, own in zip(pictures, parameters, strict=True)]

    @classmethod
    def adjoint(cls, planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        return apply_bands_adjoint(planes, *_gaussian_bands(shape[:2], parameters))


def _gaussian_bands(size: tuple[int, ...], parameters: Parameters) -> tuple[Band, Band]:
    taps = blur_kernels.gaussian_taps(parameters["sigma"], parameters["size"])
    rows = filter_band(size[0], taps, parameters["boundary"])
    return rows, rows if size[1] == size[0] else filter_band(size[1], taps, parameters["boundary"])


@dataclass(frozen=True)
class AnisotropicGaussianBlur(KernelBlur):
    """A Gaussian of two widths, turned:  k ~ exp(-q^T S^-1 q / 2).

    Source: BSRGAN (Zhang et al., ICCV 2021), section 3.1: size 7 to 25, any angle; Real-ESRGAN (Wang et al., ICCVW
    2021): sigma 0.2 to 3, size 7 to 21.
    """

    name: ClassVar[str] = "anisotropic_gaussian_blur"
    sigma_x: Annotated[Drawable, SIGMA_X]
    sigma_y: Annotated[Drawable, SIGMA_Y]
    angle_deg: Annotated[Drawable, ANGLE]
    size: Annotated[Drawable, SIZE] = 0

    @staticmethod
    def kernel(parameters: Parameters) -> Kernel:
        p = parameters
        return blur_kernels.gaussian(p["sigma_x"], p["sigma_y"], p["angle_deg"], p["size"])


@dataclass(frozen=True)
class ShapedBlur(KernelBlur):
    """Base of the blurs whose profile an exponent shapes; round, unless a second width is given."""

    sigma_x: Annotated[Drawable, SIGMA_X]
    beta: Annotated[
        Drawable, Quantity(meaning="exponent: the larger, the flatter the top and the steeper the flanks", above=0)
    ]
    sigma_y: Annotated[Drawable, SIGMA_Y_OR_SAME] = 0
    angle_deg: Annotated[Drawable, ANGLE] = 0
    size: Annotated[Drawable, SIZE] = 0


@dataclass(frozen=True)
class GeneralisedGaussianBlur(ShapedBlur):
    """A Gaussian with another exponent:  k ~ exp(-(q^T S^-1 q)^beta / 2); beta 1 is the Gaussian itself.

    Source: Liu et al., "Estimating generalized Gaussian blur kernels for out-of-focus image deblurring", TCSVT 2020;
    Real-ESRGAN (Wang et al., ICCVW 2021), section 3.1: beta 0.5 to 4.
    """

    name: ClassVar[str] = "generalised_gaussian_blur"

    @staticmethod
    def kernel(parameters: Parameters) -> Kernel:
        p = parameters
        return blur_kernels.generalised_gaussian(
            p["sigma_x"], p["sigma_y"] or p["sigma_x"], p["angle_deg"], p["beta"], p["size"]
        )


@dataclass(frozen=True)
class PlateauBlur(ShapedBlur):
    """A flat top with soft flanks:  k ~ 1 / (1 + (q^T S^-1 q)^beta).

    Source: Real-ESRGAN (ICCVW 2021), section 3.1: beta 1 to 2.
    """

    name: ClassVar[str] = "plateau_blur"

    @staticmethod
    def kernel(parameters: Parameters) -> Kernel:
        p = parameters
        return blur_kernels.plateau(p["sigma_x"], p["sigma_y"] or p["sigma_x"], p["angle_deg"], p["beta"], p["size"])


@dataclass(frozen=True)
class SincBlur(KernelBlur):
    """The ideal circular low-pass filter, k = w J1(w r) / (2 pi r): rings and overshoots, like an over-sharpened copy.

    Source: Real-ESRGAN (ICCVW 2021), section 3.3: cutoff pi/3 to pi, size 7 to 21.
    """

    name: ClassVar[str] = "sinc_blur"
    cutoff: Annotated[
        Drawable, Quantity(meaning="w, the highest frequency that passes, radians per pixel; pi is the finest", above=0)
    ]
    size: Annotated[
        Drawable, Quantity(meaning="side of the kernel in pixels", minimum=1, maximum=1001, integer=True)
    ] = 21

    @staticmethod
    def kernel(parameters: Parameters) -> Kernel:
        return blur_kernels.circular_sinc(parameters["cutoff"], parameters["size"])


@dataclass(frozen=True)
class DefocusBlur(KernelBlur):
    """A lens out of focus: a uniform disk with an anti-aliased rim. A radius of up to half a pixel changes nothing.

    Source: Hradis et al., "Convolutional neural networks for direct text deblurring", BMVC 2015 (radius 0 to 4);
    Xu et al., "Deep convolutional neural network for image deconvolution", NIPS 2014 (radius 7).
    """

    name: ClassVar[str] = "defocus_blur"
    radius_px: Annotated[Drawable, Quantity(meaning="radius of the disk in pixels", minimum=0, maximum=500)]

    @staticmethod
    def kernel(parameters: Parameters) -> Kernel:
        return blur_kernels.disk(parameters["radius_px"])

    @classmethod
    def each_kernel(cls, parameters: Sequence[Parameters]) -> list[Kernel]:
        return blur_kernels.disks([own["radius_px"] for own in parameters])


@dataclass(frozen=True)
class LinearMotionBlur(KernelBlur):
    """Straight motion at constant speed while the shutter is open: an anti-aliased line. Lengths up to 1: nothing.

    Source: MATLAB's fspecial('motion'), whose kernels these are.
    """

    name: ClassVar[str] = "linear_motion_blur"
    length_px: Annotated[Drawable, Quantity(meaning="length of the motion in pixels", minimum=0, maximum=1000)]
    angle_deg: Annotated[Drawable, ANGLE]

    @staticmethod
    def kernel(parameters: Parameters) -> Kernel:
        return blur_kernels.line(parameters["length_px"], parameters["angle_deg"])


@dataclass(frozen=True)
class ComposedBlur(KernelBlur):
    """`composed_blur: [A, B, ...]`: several blurs as one, whose kernel is the full convolution of theirs.

    The border is met once, with the first member's boundary; two blurs in a row would meet it twice.

    Source: Hradis et al., BMVC 2015: defocus composed with a random motion.

    Raises:
        ValueError: no members.
    """

    name: ClassVar[str] = "composed_blur"
    members: tuple[KernelBlur, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("composed_blur: the list is empty; name at least one blur")
        object.__setattr__(self, "boundary", self.members[0].boundary)
        super().__post_init__()

    def sample(self, rng: np.random.Generator, shape: Shape, clean_shape: Shape | None = None) -> Parameters:
        drawn: list[Step] = [{each.name: each.sample(rng, shape, clean_shape)} for each in self.members]
        return {"members": drawn, "boundary": drawn[0][self.members[0].name]["boundary"]}

    @staticmethod
    def kernel(parameters: Parameters) -> Kernel:
        return reduce(blur_kernels.compose, (_kernels_of([step])[0] for step in parameters["members"]))

    @classmethod
    def each_kernel(cls, parameters: Sequence[Parameters]) -> list[Kernel]:
        if len({len(own["members"]) for own in parameters}) > 1:  # drawn from several recipes
            return super().each_kernel(parameters)
        members = zip(*(own["members"] for own in parameters), strict=True)
        return [reduce(blur_kernels.compose, each) for each in zip(*map(_kernels_of, members), strict=True)]

    def to_json(self) -> Any:
        return [{each.name: each.to_json()} for each in self.members]


def _kernels_of(steps: Sequence[Step]) -> list[Kernel]:
    names = [name for step in steps for name in step]
    if len(set(names)) > 1:
        return [_kernels_of([step])[0] for step in steps]
    operator = operator_class(names[0])
    assert issubclass(operator, KernelBlur)
    return operator.each_kernel([step[names[0]] for step in steps])
