"""Lossy coding with the real codecs, in memory: JPEG, JPEG twice, WebP, JPEG 2000.

Codecs take 8 bits: each operator first clips to [0, 1] and rounds, as `round_to_8bit` does, and its result has 256 levels.
Grey pictures are coded as grey ones where the format has such. The codecs are those of imagecodecs (libjpeg-turbo,
libwebp, OpenJPEG): the same bytes as Pillow's, which goes through the same libraries, in a quarter of the time for a patch of
64 pixels. They hold no state, release the interpreter, and run in one thread, so that a picture's bytes depend on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from models.degradation.distributions import Drawable, DrawableWord, Uniform
from models.degradation.protocol import Operator, Parameters, Quantity, Wording
from transforms.errors import Reason, RecordError
from transforms.planes import Planes, like, to_numpy
from transforms.planes.boundary import pad

SUBSAMPLINGS = ("444", "422", "420")
LARGEST_SIDE = {"JPEG": 65500, "WebP": 16383, "JPEG 2000": 1 << 24}

Samples8 = NDArray[np.uint8]  # H x W x C, C of 1 or 3


def jpeg(samples: Samples8, quality: int, subsampling: str) -> Samples8:
    """Samples after a trip through a baseline JPEG file (ITU T.81): libjpeg's tables for `quality`, its exact integer DCT."""
    chroma = None if samples.shape[2] == 1 else subsampling
    coded = imagecodecs.jpeg8_encode(samples, quality, subsampling=chroma)
    decoded: Samples8 = imagecodecs.jpeg8_decode(
        coded, out=_unaligned(samples.squeeze(2) if chroma is None else samples)
    )
    return decoded.reshape(samples.shape)


def _unaligned(like: Samples8) -> Samples8:
    """Room for a picture of this shape that begins off the boundaries of 32 bytes.

    To rows on these boundaries libjpeg-turbo writes past the cache (vmovntdq), which takes a patch three times as long.
    """
    room = np.empty(like.size + 32, np.uint8)
    first = (16 - room.ctypes.data) % 32
    return room[first : first + like.size].reshape(like.shape)


def webp(samples: Samples8, quality: int) -> Samples8:
    """Samples after a trip through a lossy WebP file (RFC 9649, VP8): always in colour, always with halved chroma."""
    colour = samples if samples.shape[2] == 3 else np.repeat(samples, 3, axis=2)
    coded = imagecodecs.webp_encode(colour, quality, lossless=False, numthreads=1)
    decoded: Samples8 = imagecodecs.webp_decode(coded, hasalpha=False)
    return decoded if samples.shape[2] == 3 else decoded[..., 1:2]  # red and blue of a colourless picture stray further


def jpeg2000(samples: Samples8, psnr_db: float) -> Samples8:
    """Samples after a trip through a JPEG 2000 file (ISO 15444-1): irreversible 9/7 wavelets, cut off at a PSNR."""
    resolutions = min(6, min(samples.shape[:2]).bit_length())  # a decomposition halves: no more than fit
    level: Any = psnr_db  # type stubs say int, the codec takes fractions
    coded = imagecodecs.jpeg2k_encode(
        samples, level, codecformat="jp2", reversible=False, resolutions=resolutions, numthreads=1
    )
    decoded: Samples8 = imagecodecs.jpeg2k_decode(coded, numthreads=1)
    return decoded.reshape(samples.shape)


def recode(planes: Planes, codec: Callable[[Samples8], Samples8], file_format: str) -> Planes:
    """Planes through a codec: 8 bits there, [0, 1] back.

    Raises:
        RecordError: a side longer than the format can say.
    """
    height, width = planes.shape[-2:]
    if max(height, width) > LARGEST_SIDE[file_format]:
        detail = f"{width}x{height} pixels do not fit into {file_format}: at most {LARGEST_SIDE[file_format]} a side; cut patches"
        raise RecordError(Reason.OPERATOR_FAILED, detail)
    return like(_from_samples(codec(_to_samples(to_numpy(planes)))), planes)


def _to_samples(planes: NDArray[np.float32]) -> Samples8:
    """The samples of `from_float(planes, uint8)`, interleaved; copying a channel at a time is twice as fast as turning the axes."""
    scaled = planes.clip(0, 1)
    scaled *= np.float32(255)
    whole = np.rint(scaled, out=scaled).astype(np.uint8)
    samples = np.empty((*planes.shape[1:], len(whole)), dtype=np.uint8)
    for channel, values in enumerate(whole):
        samples[..., channel] = values
    return samples


def _from_samples(samples: Samples8) -> NDArray[np.float32]:
    channels = np.empty((samples.shape[2], *samples.shape[:2]), dtype=np.uint8)
    for channel, values in enumerate(channels):
        values[...] = samples[..., channel]
    scaled: NDArray[np.float32] = np.divide(channels, np.float32(255), dtype=np.float32)
    return scaled


_QUALITY: dict[str, Any] = {"minimum": 1, "maximum": 100, "integer": True}
_SHIFT = Quantity(meaning="shift of the second grid in pixels", minimum=0, maximum=15, integer=True)
_ANY_SHIFT = Uniform(0, 7)
Subsampling = Annotated[
    DrawableWord, Wording(meaning="of chroma: none, halved sideways, halved both ways", options=SUBSAMPLINGS)
]


@dataclass(frozen=True)
class Jpeg(Operator):
    """A trip through a JPEG file; rounds to 8 bit first.

    Blind deblocking takes quality 5 to 95, BSRGAN and Real-ESRGAN 30 to 95; 10 to 40 are the test sets' qualities.

    Source: ITU-T T.81 (1992); Dong et al., "Compression Artifacts Reduction by a Deep Convolutional Network", ICCV 2015.
    """

    name: ClassVar[str] = "jpeg"
    quality: Annotated[Drawable, Quantity(meaning="libjpeg's quality", **_QUALITY)]
    subsampling: Subsampling = "420"

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return recode(planes, lambda samples: jpeg(samples, parameters["quality"], parameters["subsampling"]), "JPEG")


@dataclass(frozen=True)
class DoubleJpeg(Operator):
    """Through a JPEG file twice, the second time on a grid of 8x8 blocks that is shifted: a picture cropped and re-posted.

    The second grid begins `rows` and `columns` pixels above and to the left of the picture: its file gets so many copies
    of the border there, and loses them again. Rounds to 8 bit first.

    Source: Jiang, Zhang and Timofte, "Towards Flexible Blind JPEG Artifacts Removal" (FBCNN), ICCV 2021 (shifts of 0 to
    7, double JPEG that is not aligned).
    """

    name: ClassVar[str] = "double_jpeg"
    first_quality: Annotated[Drawable, Quantity(meaning="libjpeg's quality of the first file", **_QUALITY)]
    second_quality: Annotated[Drawable, Quantity(meaning="libjpeg's quality of the second file", **_QUALITY)]
    subsampling: Subsampling = "420"
    rows: Annotated[Drawable, _SHIFT] = _ANY_SHIFT
    columns: Annotated[Drawable, _SHIFT] = _ANY_SHIFT

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        rows, columns, subsampling = parameters["rows"], parameters["columns"], parameters["subsampling"]
        first = recode(planes, lambda samples: jpeg(samples, parameters["first_quality"], subsampling), "JPEG")
        shifted = pad(pad(first, rows, 0, -2, "replicate"), columns, 0, -1, "replicate")
        second = recode(shifted, lambda samples: jpeg(samples, parameters["second_quality"], subsampling), "JPEG")
        return second[:, rows:, columns:]


@dataclass(frozen=True)
class WebP(Operator):
    """A trip through a lossy WebP file; rounds to 8 bit first. WebP has no grey: a grey picture is coded as a colourless one.

    Source: RFC 9649 (2024).
    """

    name: ClassVar[str] = "webp"
    quality: Annotated[Drawable, Quantity(meaning="libwebp's quality", minimum=0, maximum=100, integer=True)]

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return recode(planes, lambda samples: webp(samples, parameters["quality"]), "WebP")


@dataclass(frozen=True)
class Jpeg2000(Operator):
    """A trip through a lossy JPEG 2000 file, as archives keep their scans; rounds to 8 bit first.

    The file holds as much as it takes for the PSNR asked for, which OpenJPEG estimates in its wavelet domain: the picture's own
    comes within about 1 dB. Heavy loss is 25 to 32 dB, that of mass digitisation 38 to 44.

    Source: ISO/IEC 15444-1 (2000).
    """

    name: ClassVar[str] = "jpeg2000"
    psnr_db: Annotated[Drawable, Quantity(meaning="PSNR to aim at, in dB", minimum=10, maximum=60)]

    @staticmethod
    def apply(planes: Planes, parameters: Parameters) -> Planes:
        return recode(planes, lambda samples: jpeg2000(samples, parameters["psnr_db"]), "JPEG 2000")
