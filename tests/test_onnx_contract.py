"""The contract of a network: declared, checked, probed. The networks are plain functions behind the session's face."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from transforms.errors import ConfigurationError
from transforms.onnx_contract import Contract, parse_metadata, read_contract
from transforms.onnx_session import OnnxRunError

Images = NDArray[np.float32]


@dataclass
class Port:
    name: str
    type: str
    shape: list[Any]


@dataclass
class FakeSession:
    """What `read_contract` sees of an OnnxSession."""

    function: Callable[[Images], Images]
    shape: list[Any] = field(default_factory=lambda: ["n", "c", "h", "w"])
    type: str = "tensor(float)"
    declared: dict[str, Any] = field(default_factory=dict)
    sizes: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def inputs(self) -> list[Port]:
        return [Port("x", self.type, self.shape)]

    @property
    def metadata(self) -> dict[str, str]:
        return {f"conservator.{name}": json.dumps(value) for name, value in self.declared.items()} | {"other": "{"}

    def run(self, images: Images) -> Images:
        for wanted, given in zip(self.shape, images.shape, strict=True):
            if isinstance(wanted, int) and wanted != given:
                raise OnnxRunError(f"Got invalid dimensions for input: got {given} expected {wanted}")
        self.sizes.append(images.shape)
        return self.function(images)


def contract_of(function: Callable[[Images], Images], **settings: Any) -> Contract:
    return read_contract(FakeSession(function, **settings), "net.onnx")  # type: ignore[arg-type]


def enlarge(scale: int, channels: int = 3, multiple: int = 1, at_least: int = 1) -> Callable[[Images], Images]:
    def run(images: Images) -> Images:
        if images.shape[1] != channels or any(side % multiple or side < at_least for side in images.shape[2:]):
            raise OnnxRunError(f"cannot run on {images.shape}")
        return images.repeat(scale, 2).repeat(scale, 3)

    return run


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_and_scale_are_probed(scale: int, channels: int) -> None:
    contract = contract_of(enlarge(scale, channels))
    assert (contract.channels, contract.scale) == (channels, scale)
    assert (contract.size_multiple, contract.min_size, contract.fixed, contract.batch) == (1, 1, (None, None), None)
    assert contract.color == ("gray" if channels == 1 else "rgb")


@pytest.mark.parametrize("multiple", [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128])
def test_size_multiple_is_probed(multiple: int) -> None:
    contract = contract_of(enlarge(1, multiple=multiple))
    assert (contract.size_multiple, contract.min_size) == (multiple, multiple)


@pytest.mark.parametrize(("at_least", "found"), [(2, 2), (3, 4), (11, 16), (40, 48), (60, 64)])
def test_smallest_size_is_probed_by_doubling(at_least: int, found: int) -> None:
    assert contract_of(enlarge(1, at_least=at_least)).min_size == found


@pytest.mark.parametrize("factor", [2, 4])
def test_a_network_that_shrinks(factor: int) -> None:
    def run(images: Images) -> Images:
        return images[:, :, ::factor, ::factor]

    contract = contract_of(run)
    assert contract.scale == Fraction(1, factor)
    assert contract.size_multiple == factor


def test_fixed_sizes_come_from_the_shape() -> None:
    contract = contract_of(enlarge(3, 1), shape=[1, 1, 64, "w"])
    assert (contract.batch, contract.fixed, contract.scale) == (1, (64, None), 3)


def test_half_precision_is_recognised() -> None:
    assert contract_of(enlarge(1), type="tensor(float16)").dtype == "float16"


def test_what_is_declared_is_taken_over() -> None:
    declared = {
        "name": "denoise5-gray-25",
        "purpose": "denoise",
        "channels": 1,
        "scale": 1,
        "size_multiple": 4,
        "receptive_field": 11,
        "value_range": [0, 255],
        "color": "gray",
        "card": {"psnr": 28.0},
    }
    contract = contract_of(enlarge(1, 1), declared=declared)
    assert contract.size_multiple == 4  # more than it needs: its own business
    assert contract.declared.receptive_field == 11
    assert contract.declared.value_range == (0.0, 255.0)
    assert (contract.declared.name, contract.declared.card) == ("denoise5-gray-25", {"psnr": 28.0})


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"scale": 2}, "scale 2, but running it shows 1"),
        ({"channels": 1}, "it failed on all sizes"),
        ({"size_multiple": 3}, "size_multiple 3, but it fails on"),
        ({"color": "gray"}, "color 'gray' but takes 3 channels"),
    ],
)
def test_what_is_declared_wrongly_is_refused(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        contract_of(enlarge(1, multiple=4), declared=declared)
    assert "net.onnx" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("scale", "1.5", "whole number or 1/k"),
        ("scale", "0", "whole number or 1/k"),
        ("channels", "2", "expected 1 or 3"),
        ("channels", "true", "expected 1 or 3"),
        ("size_multiple", "0", "at least 1"),
        ("receptive_field", '"11"', "at least 1"),
        ("value_range", "[1, 0]", "low < high"),
        ("color", '"ycbcr"', "gray"),
        ("card", "[]", "object"),
        ("name", "denoise", "Expecting value"),
        ("sacle", "2", "did you mean conservator.scale"),
        ("zzz", "2", "known: name, channels"),
    ],
)
def test_metadata_that_is_wrong_in_itself_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_metadata({f"conservator.{name}": text}, "net.onnx")


def test_a_declared_null_field_means_the_whole_picture() -> None:
    assert parse_metadata({"conservator.receptive_field": "null"}, "m").whole_picture
    assert not parse_metadata({}, "m").whole_picture


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (lambda x: x[:, :, 2:-2, 2:-2], {}, "padded inside the model"),
        (lambda x: x.mean(axis=(2, 3)), {}, "gives the shape"),
        (lambda x: x[:, :1], {}, "gives the shape"),
        (lambda x: x.repeat(2, 2), {}, "whole multiple or fraction of both"),
        (lambda x: x, {"shape": ["n", 3, "h"]}, "expected N x C x H x W"),
        (lambda x: x, {"shape": ["n", "h", "w", 3], "type": "tensor(uint8)"}, "expected float32 or float16"),
        (lambda x: x, {"shape": [1, 224, 224, 3]}, "transpose inside the model"),
        (lambda x: x, {"shape": ["n", 4, "h", "w"]}, "expected 1 or 3"),
    ],
)
def test_what_is_not_image_to_image_is_refused(
    function: Callable[[Images], Images], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        contract_of(function, **settings)
