"""Colour lost and changed: grey conversion, fading dyes, colour casts, simple changes of tone.

A grey picture counts as one whose red, green and blue are equal, and its result is the luma of theirs. Nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.degradation.distributions import Drawable, DrawableWord
from models.degradation.layers import LUMA, Gain, tint
from models.degradation.protocol import LinearOperator, Operator, Parameters, Quantity, Shape, Wording
from transforms.planes import Planes, like, namespace

GREY_WEIGHTS = {
    "bt601_full": LUMA,  # MATLAB's rgb2gray and Pillow's "L" are this within 1e-4
    "bt709": (0.2126, 0.7152, 0.0722),
    "average": (1 / 3, 1 / 3, 1 / 3),
}
_KEEP = Wording(meaning="whether the grey result has as many channels as the picture", options=("no", "yes"))
_SEPIA = (1.0, 0.890, 0.694)  # (1.351, 1.203, 0.937) / 1.351, the row sums of the common 3 x 3 sepia matrix
_LEAST_LIGHT = 1e-3  # noise may have left [0, 1]; density needs some light


def mix(planes: Planes, matrix: NDArray[np.float64]) -> Planes:
    """y_i(p) = sum_j M_ij x_j(p): C x H x W planes to rows(M) x H x W."""
    flat = planes.reshape(planes.shape[0], -1)
    return namespace(planes).matmul(like(matrix, planes), flat).reshape(len(matrix), *planes.shape[1:])


def fade_dyes(planes: Planes, kept: Sequence[float], black: float, stain: float = 0.0) -> Planes:
    """y = g ((b + (1 - b) x)^k - b) / (1 - b): each dye keeps a share k of its density, b is the print's black.

    Density is the logarithm of reflectance, so a share of it is a power. That holds in linear light and, since powers
    commute, in gamma-encoded samples alike.

    Args:
        planes: 1 or 3 channels.
        kept: k for the cyan dye (which makes red dark), the magenta (green) and the yellow (blue).
        black: encoded value of the print's darkest tone, which is not 0: paper reflects. Full black fades to a grey.
        stain: share of blue that yellowed paper absorbs; g = (1, 1 - 0.3 stain, 1 - stain).
    """
    xp, gains = namespace(planes), (1.0, 1 - 0.3 * stain, 1 - stain)
    light = planes * (1 - black)
    light += black
    xp.clip(light, _LEAST_LIGHT, None, out=light)
    density = xp.log(light, out=light)
    if planes.shape[0] == 3:
        density *= like(np.array(kept, np.float32).reshape(-1, 1, 1), planes)
        faded = xp.exp(density, out=density)
        faded -= black
        faded *= like(np.array(gains, np.float32).reshape(-1, 1, 1) / np.float32(1 - black), planes)
        return faded
    shares = [weight * gain / (1 - black) for weight, gain in zip(LUMA, gains, strict=True)]
    return sum(share * (xp.exp(density * k) - black) for share, k in zip(shares, kept, strict=True))


@dataclass(frozen=True)
class Grayscale(LinearOperator):
    """Grey conversion, y = w_R R + w_G G + w_B B: the task of colourisation. A grey picture stays as it is.

    Weights: `bt601_full` 0.299, 0.587, 0.114; `bt709` 0.2126, 0.7152, 0.0722; `average`. The studio-swing luma of
    MATLAB's rgb2ycbcr is not among them: it adds 16/255, so it is not linear.

    Source: ITU-R BT.601-7, section 2.5.1; Yeh et al., "Image restoration with deep generative models", ICASSP 2018.
    """

    name: ClassVar[str] = "grayscale"
    weights: Annotated[DrawableWord, Wording(meaning="shares of red, green and blue", options=tuple(GREY_WEIGHTS))] = (
        "bt601_full"
    )
    keep_channels: Annotated[DrawableWord, _KEEP] = "no"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        if planes.shape[0] == 1:
            return namespace(planes).asarray(planes, copy=True)
        rows = 3 if parameters["keep_channels"] == "yes" else 1
        return mix(planes, np.tile(GREY_WEIGHTS[parameters["weights"]], (rows, 1)))

    @staticmethod
    def adjoint(planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        if shape[2] == 1:
            return namespace(planes).asarray(planes, copy=True)
        weights = np.array(GREY_WEIGHTS[parameters["weights"]])
        return mix(planes, np.tile(weights[:, np.newaxis], (1, planes.shape[0])))

    @staticmethod
    def output_shape(shape: Shape, parameters: Parameters) -> Shape:
        return (*shape[:2], shape[2] if parameters["keep_channels"] == "yes" else 1)


@dataclass(frozen=True)
class HsvValue(Operator):
    """Value of the HSV model, y = max(R, G, B): a colourisation task that is not linear.

    Source: Smith, "Color gamut transform pairs", SIGGRAPH 1978; Yeh et al., ICASSP 2018, take V from the measurement.
    """

    name: ClassVar[str] = "hsv_value"
    keep_channels: Annotated[DrawableWord, _KEEP] = "no"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        xp = namespace(planes)
        value = xp.max(planes, axis=-3, keepdims=True)
        return xp.concat([value] * planes.shape[0], axis=0) if parameters["keep_channels"] == "yes" else value

    @staticmethod
    def output_shape(shape: Shape, parameters: Parameters) -> Shape:
        return (*shape[:2], shape[2] if parameters["keep_channels"] == "yes" else 1)


def _dye(name: str, light: str) -> Quantity:
    return Quantity(meaning=f"share of the {name} dye's density that is left; it absorbs {light}", above=0, maximum=1)


@dataclass(frozen=True)
class Fading(Operator):
    """An old print's dyes fade, each by its own share, and its white paper yellows:  y = g ((b + (1-b) x)^k - b) / (1-b).

    k is the share of density left, b the print's black, g = (1, 1 - 0.3 s, 1 - s) the yellow stain s. Contrast falls,
    black turns grey, and unequal shares give a cast that grows with density. Colour prints of the 1950s to 1970s in the
    dark: cyan fades most (0.4 to 0.9, a red cast), magenta least; on display magenta goes first; stain 0 to 0.3.

    Source: Wilhelm and Brower, "The Permanence and Care of Color Photographs", 1993 (losses of dye density, yellow
    stain); Chatterjee, Trumpy and Ruedel, "Digital unfading of chromogenic film informed by its spectral densities",
    Heritage 6, 2023 (a dye's density is in proportion to its concentration).
    """

    name: ClassVar[str] = "fading"
    cyan: Annotated[Drawable, _dye("cyan", "red")]
    magenta: Annotated[Drawable, _dye("magenta", "green")]
    yellow: Annotated[Drawable, _dye("yellow", "blue")]
    stain: Annotated[Drawable, Quantity(meaning="share of blue that yellowed paper absorbs", minimum=0, maximum=1)] = 0
    black: Annotated[
        Drawable,
        Quantity(
            meaning="encoded value of the print's black; 0.12 is density 2, a glossy print", minimum=0, maximum=0.5
        ),
    ] = 0.12

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        kept = [parameters[dye] for dye in ("cyan", "magenta", "yellow")]
        return fade_dyes(planes, kept, parameters["black"], parameters["stain"])


@dataclass(frozen=True)
class ColourCast(Gain):
    """A gain for each channel, y_c = g_c x_c: wrong white balance, coloured light, toned paper. Usual: 0.8 to 1.2.

    Source: von Kries, "Chromatic adaptation", 1902 (the diagonal model); Hradis et al., BMVC 2015, for the range.
    """

    name: ClassVar[str] = "colour_cast"
    red: Annotated[Drawable, Quantity(meaning="gain of red", minimum=0)] = 1.0
    green: Annotated[Drawable, Quantity(meaning="gain of green", minimum=0)] = 1.0
    blue: Annotated[Drawable, Quantity(meaning="gain of blue", minimum=0)] = 1.0

    @classmethod
    def gain(cls, size: tuple[int, int], channels: int, parameters: Parameters) -> NDArray[np.float32]:
        return tint((parameters["red"], parameters["green"], parameters["blue"]), channels)


@dataclass(frozen=True)
class Gamma(Operator):
    """Change of tone, y = max(x, 0)^gamma: below 1 brighter, above 1 darker. Usual: 0.6 to 1.8.

    Source: Hradis et al., "Convolutional neural networks for direct text deblurring", BMVC 2015 (range).
    """

    name: ClassVar[str] = "gamma"
    gamma: Annotated[Drawable, Quantity(meaning="exponent", above=0)]

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        toned = namespace(planes).clip(planes, 0, None)
        toned **= parameters["gamma"]
        return toned


@dataclass(frozen=True)
class BrightnessContrast(Operator):
    """y = c (x - 1/2) + 1/2 + b; neither clipped nor, with b or c, linear. Usual: c 0.8 to 1.2, b within 0.1.

    Source: Hendrycks and Dietterich, ICLR 2019 (`brightness`, `contrast`), about mid-grey instead of the mean.
    """

    name: ClassVar[str] = "brightness_contrast"
    brightness: Annotated[Drawable, Quantity(meaning="b, added; white is 1", minimum=-1, maximum=1)] = 0.0
    contrast: Annotated[Drawable, Quantity(meaning="c, about mid-grey", minimum=0)] = 1.0

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        contrast = parameters["contrast"]
        changed = planes * contrast
        changed += 0.5 - 0.5 * contrast + parameters["brightness"]
        return changed


@dataclass(frozen=True)
class Sepia(LinearOperator):
    """Sepia toning, y = (1 - s) x + s t w'x: w is BT.601 luma, t = (1, 0.890, 0.694) the tone that white becomes.

    Divided by its greatest row sum, the sepia matrix that picture editors share is this product within 0.03.

    Source: the filter effects of CSS (W3C, "Filter Effects Module Level 1", feColorMatrix of `sepia`).
    """

    name: ClassVar[str] = "sepia"
    strength: Annotated[
        Drawable, Quantity(meaning="s, 0 leaves the picture, 1 tones it fully", minimum=0, maximum=1)
    ] = 1

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return mix(planes, sepia_matrix(parameters["strength"], planes.shape[0]))

    @staticmethod
    def adjoint(planes: Planes, parameters: Parameters, shape: Shape) -> Planes:
        return mix(planes, sepia_matrix(parameters["strength"], shape[2]).T)


def sepia_matrix(strength: float, channels: int) -> NDArray[np.float64]:
    """The C x C matrix of `Sepia`."""
    toned = np.outer(_SEPIA, LUMA) if channels == 3 else np.array([[np.dot(_SEPIA, LUMA)]])
    return (1 - strength) * np.eye(channels) + strength * toned
