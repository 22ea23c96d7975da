"""What a network takes and gives: declared in the model's metadata (`conservator.*`), checked by running it, probed where silent.

Each value of the metadata is JSON:

    name            string
    channels        1 or 3
    scale           output pixels per input pixel along one axis: 2, or 0.5; with `enlarge`, of all of it together
    size_multiple   height and width have to be multiples of it
    receptive_field input pixels along one axis that an output pixel depends on (11 for five 3x3 convolutions);
                    null: the whole picture
    value_range     [low, high] of the samples inside the network; [0, 1] if absent
    color           "gray", "rgb" or "bgr"; "luma": the Y of BT.601 in [16/255, 235/255], chroma is left or interpolated
    enlarge         what is done to luma before the network sees it, if anything (`transforms.enlargement`):
                    {"factor": 3, "kernel": "matlab_bicubic"}; with "shrink", a kernel that brings the result to `scale`
    bytes_per_pixel what the network's tensors take at the most while it runs, over the pixels of its input; may be
                    absent
    purpose         string, for people: "denoise sigma 25"
    card            object, for people: training recipe, measured quality, ...
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

import numpy as np

from transforms.enlargement import Enlargement
from transforms.errors import ConfigurationError
from transforms.onnx_session import OnnxRunError, OnnxSession
from transforms.tiling import round_up

METADATA_PREFIX = "conservator."
ELEMENT_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
# Sizes to begin with: multiples of many numbers, small first; one of them suits every usual network.
PROBE_SIZES = (48, 64, 96, 128, 240, 336, 256, 512)


@dataclass(frozen=True)
class Declared:
    """The model's own words; None where it says nothing."""

    name: str | None = None
    channels: int | None = None
    scale: int | Fraction | None = None
    size_multiple: int | None = None
    receptive_field: int | None = None
    whole_picture: bool = False
    value_range: tuple[float, float] = (0.0, 1.0)
    color: str | None = None
    enlarge: Enlargement | None = None
    bytes_per_pixel: int | None = None
    purpose: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contract:
    """What holds for a loaded model.

    Attributes:
        declared: what its metadata says.
        dtype: of the input, float32 or float16.
        batch: the only batch size it takes, or None.
        fixed: the only height and width it takes, or None for each.
        channels, scale, size_multiple: of the network itself, checked by running.
        min_size: smallest height and width it takes.
        color: "gray", "luma", "rgb" or "bgr".
        total_scale: output pixels per pixel of the picture, enlargement included.
    """

    declared: Declared
    dtype: str
    batch: int | None
    fixed: tuple[int | None, int | None]
    channels: int
    scale: int | Fraction
    size_multiple: int
    min_size: int
    color: str
    total_scale: int | Fraction

    @property
    def is_half(self) -> bool:
        """Whether the network computes in float16: its input says so, or its card, where only what is inside is float16."""
        said = self.declared.card.get("quantisation")
        return self.dtype == "float16" or (isinstance(said, Mapping) and said.get("arithmetic") == "float16")


def read_contract(session: OnnxSession, model: str) -> Contract:
    """Reads a model's metadata, and runs the model to check it and to find what it does not say.

    Args:
        session: on the CPU.
        model: its name in messages.

    Raises:
        ConfigurationError: the model is not image-to-image, or does not do what it declares.
    """
    declared = parse_metadata(session.metadata, model)
    return _Prober(session, declared, model).contract()


def parse_metadata(metadata: Mapping[str, str], model: str) -> Declared:
    """The `conservator.*` entries of a model's metadata.

    Raises:
        ConfigurationError: an unknown entry, or a value that is not what the module's table says.
    """
    values: dict[str, Any] = {}
    for key, text in metadata.items():
        if not key.startswith(METADATA_PREFIX):
            continue
        name = key.removeprefix(METADATA_PREFIX)
        if name not in _READERS:
            near = get_close_matches(name, _READERS, n=1)
            hint = f"did you mean {METADATA_PREFIX}{near[0]}?" if near else f"known: {', '.join(_READERS)}"
            raise ConfigurationError(f"model {model!r} has the unknown metadata {key!r}: {hint}")
        try:
            value = json.loads(text)
            values[name] = _READERS[name](value)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"model {model!r}: metadata {key} is {text!r}, {error}; write it anew with the right value"
            ) from error
    whole_picture = "receptive_field" in values and values["receptive_field"] is None
    return Declared(whole_picture=whole_picture, **values)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a JSON string")
    return value


def _positive(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("expected a whole number of at least 1")
    return value


def _channels(value: Any) -> int:
    if value not in (1, 3) or isinstance(value, bool):
        raise ValueError("expected 1 or 3")
    return int(value)


def _scale(value: Any) -> int | Fraction:
    if isinstance(value, (int, float)) and value > 0:
        ratio = Fraction(value).limit_denominator(64)
        if ratio.denominator == 1:
            return ratio.numerator
        if ratio.numerator == 1:
            return ratio
    raise ValueError("expected a whole number or 1/k, such as 2 or 0.5")


def _field(value: Any) -> int | None:
    return None if value is None else _positive(value)


def _range(value: Any) -> tuple[float, float]:
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(v, (int, float)) for v in value)
        and value[0] < value[1]
    ):
        return float(value[0]), float(value[1])
    raise ValueError("expected [low, high] with low < high")


def _color(value: Any) -> str:
    if value not in ("gray", "luma", "rgb", "bgr"):
        raise ValueError('expected "gray", "luma", "rgb" or "bgr"')
    return str(value)


def _card(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


_READERS: dict[str, Callable[[Any], Any]] = {
    "name": _text,
    "channels": _channels,
    "scale": _scale,
    "size_multiple": _positive,
    "receptive_field": _field,
    "value_range": _range,
    "color": _color,
    "enlarge": Enlargement.from_json,
    "bytes_per_pixel": _positive,
    "purpose": _text,
    "card": _card,
}


class _Prober:
    """Runs a model on zeros of many sizes."""

    def __init__(self, session: OnnxSession, declared: Declared, model: str) -> None:
        self._session = session
        self._declared = declared
        self._model = model
        self._last_failure = ""
        self._dtype, self._shape = self._input()
        self._fixed = (_number(self._shape[2]), _number(self._shape[3]))
        self._batch = _number(self._shape[0])

    def contract(self) -> Contract:
        channels, size, scale = self._first_answer()
        self._compare("channels", self._declared.channels, channels)
        total = self._total_scale(scale)
        multiple = self._size_multiple(channels, size, scale)
        color = self._declared.color or ("gray" if channels == 1 else "rgb")
        if (color in ("gray", "luma")) != (channels == 1):
            raise ConfigurationError(
                f"model {self._model!r} declares color {color!r} but takes {channels} channels: correct its metadata"
            )
        if self._declared.enlarge is not None and color != "luma":
            raise ConfigurationError(
                f"model {self._model!r} declares {METADATA_PREFIX}enlarge and the color {color!r}, but only luma is "
                'enlarged: declare the color "luma"'
            )
        min_size = self._min_size(channels, size, multiple, scale)
        return Contract(
            self._declared, self._dtype, self._batch, self._fixed, channels, scale, multiple, min_size, color, total
        )

    def _total_scale(self, scale: int | Fraction) -> int | Fraction:
        """The declared scale, compared with what running the network shows and what is enlarged before it."""
        declared, enlarge = self._declared.scale, self._declared.enlarge
        if enlarge is None:
            self._compare("scale", declared, scale)
            return scale
        made = enlarge.factor * scale
        if declared is None or declared == made or (declared < made and enlarge.shrink is not None):
            return declared or made
        shows = f"enlarging by {enlarge.factor} and running it makes {made}"
        raise self._contradicted(
            "scale", declared, shows if declared > made else f"{shows}, and no kernel shrinks that"
        )

    def _input(self) -> tuple[str, list[Any]]:
        inputs = self._session.inputs
        if len(inputs) != 1:
            raise self._refused(
                f"it has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}), expected one image"
            )
        if inputs[0].type not in ELEMENT_TYPES:
            raise self._refused(f"its input is {inputs[0].type}, expected float32 or float16")
        shape = list(inputs[0].shape)
        if len(shape) != 4:
            raise self._refused(f"its input has the shape {shape}, expected N x C x H x W")
        if _number(shape[1]) not in (None, 1, 3):
            layout = " (N x H x W x C is not supported: transpose inside the model)" if shape[3] in (1, 3) else ""
            raise self._refused(f"its input has {shape[1]} channels in the shape {shape}, expected 1 or 3{layout}")
        return ELEMENT_TYPES[inputs[0].type], shape

    def _refused(self, why: str) -> ConfigurationError:
        purpose = f"; its purpose is {self._declared.purpose!r}" if self._declared.purpose else ""
        return ConfigurationError(f"model {self._model!r} is not image-to-image: {why}{purpose}")

    def _compare(self, what: str, declared: Any, found: Any) -> None:
        if declared is not None and declared != found:
            raise self._contradicted(what, declared, f"running it shows {found}")

    def _contradicted(self, what: str, declared: Any, why: str) -> ConfigurationError:
        key = METADATA_PREFIX + what
        return ConfigurationError(f"model {self._model!r} declares {key} {declared}, but {why}: correct its metadata")

    def _first_answer(self) -> tuple[int, int, int | Fraction]:
        """Channels, a size that works along dynamic axes, and the scale."""
        for size in self._sizes():
            for channels in self._channel_choices():
                shape = self._answer(channels, size)
                if shape is not None:
                    return channels, size, self._scale_of(channels, size, shape)
        raise self._refused(f"it failed on all sizes tried; the last failure: {self._last_failure}")

    def _sizes(self) -> Iterator[int]:
        multiple = self._declared.size_multiple or 1
        yield from dict.fromkeys(round_up(size, multiple) for size in PROBE_SIZES)

    def _channel_choices(self) -> list[int]:
        known = _number(self._shape[1]) or self._declared.channels
        return [known] if known else [3, 1]

    def _answer(self, channels: int, size: int) -> tuple[int, ...] | None:
        """The output's shape for an input of this size (where it is free), or None where the model fails."""
        height, width = self._fixed[0] or size, self._fixed[1] or size
        try:
            return self._session.run(np.zeros((self._batch or 1, channels, height, width), np.float32)).shape
        except OnnxRunError as error:
            self._last_failure = str(error)
            return None

    def _scale_of(self, channels: int, size: int, shape: tuple[int, ...]) -> int | Fraction:
        height, width = self._fixed[0] or size, self._fixed[1] or size
        if len(shape) != 4 or shape[1] != channels:
            raise self._refused(
                f"{channels} x {height} x {width} gives the shape {list(shape)}, expected N x {channels} x H x W"
            )
        ratio = Fraction(shape[2], height)
        if ratio != Fraction(shape[3], width) or (ratio.numerator != 1 and ratio.denominator != 1) or ratio == 0:
            raise self._refused(
                f"{height} x {width} pixels give {shape[2]} x {shape[3]}, expected a whole multiple or fraction of both; "
                "convolutions have to be padded inside the model"
            )
        return ratio.numerator if ratio.denominator == 1 else ratio

    def _accepts(self, channels: int, size: int, scale: int | Fraction) -> bool:
        shape = self._answer(channels, size)
        height, width = self._fixed[0] or size, self._fixed[1] or size
        return shape is not None and shape[1:] == (channels, height * scale, width * scale)

    def _size_multiple(self, channels: int, size: int, scale: int | Fraction) -> int:
        """The smallest divisor d of a size that works such that size + d works too."""
        if None not in self._fixed:
            return Fraction(scale).denominator
        declared = self._declared.size_multiple
        if declared is not None:
            if not self._accepts(channels, size + declared, scale):
                why = f"it fails on {size + declared} pixels ({self._last_failure})"
                raise self._contradicted("size_multiple", declared, why)
            return math.lcm(declared, Fraction(scale).denominator)
        divisors = (
            d for d in range(Fraction(scale).denominator, size) if size % d == 0 and (d * scale) == int(d * scale)
        )
        return next((d for d in divisors if self._accepts(channels, size + d, scale)), size)

    def _min_size(self, channels: int, size: int, multiple: int, scale: int | Fraction) -> int:
        """The first of m, 2m, 4m, 8m, ... that works."""
        smallest = multiple
        while smallest < size and None in self._fixed and not self._accepts(channels, smallest, scale):
            smallest *= 2
        return min(smallest, size)


def _number(dimension: Any) -> int | None:
    """A fixed dimension; None for a symbol, for nothing, and for -1."""
    return dimension if isinstance(dimension, int) and dimension > 0 else None
