"""The contract that every operator of the table keeps, whoever wrote it; `operator_examples.yaml` has settings for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from models.degradation import OPERATORS, Operator, operator_class
from models.degradation.blur import KernelBlur
from models.degradation.chains import InOrder, arrays_of, draw_steps, replay_adjoint
from models.degradation.protocol import LinearOperator, settings
from models.recipes.grammar import recipe_section
from models.recipes.validation import read_text
from transforms.planes import to_numpy
from transforms.randomness import generator

EXAMPLES = yaml.safe_load((Path(__file__).parent / "operator_examples.yaml").read_text("utf-8"))
SHAPES = ((40, 52, 3), (64, 33, 1))
# Smaller than most kernels, long and narrow, and larger than the tile of one FFT.
ODD_SHAPES = ((1, 1, 3), (3, 2, 1), (7, 120, 3), (17, 5, 1), (531, 540, 1))
WITHOUT_SOURCE = {"round_to_8bit", "clip"}  # what everybody does needs no paper


def operator_of(example: Any) -> Operator:
    """The operator of an example, read as a recipe reads it."""
    recipe = {"kind": "degradation", "description": "one step", "source": "a test", "degradation": example}
    degradation = read_text(json.dumps(recipe), "example.json", recipe_section()).degradation
    assert isinstance(degradation, Operator)
    return degradation


def name_of(example: Any) -> str:
    return example if isinstance(example, str) else next(iter(example))


def label(example: Any) -> str:
    return json.dumps(example).replace('"', "")[:70]


LINEAR = [each for each in EXAMPLES if issubclass(operator_class(name_of(each)), LinearOperator)]


def picture(shape: tuple[int, int, int], key: str = "picture") -> np.ndarray:
    """Planes with edges, flat places and texture, a little inside [0, 1]."""
    rng = generator(1, key)
    height, width, channels = shape
    rows, columns = np.mgrid[:height, :width]
    waves = 0.5 + 0.2 * np.sin(rows / 5.0) * np.cos(columns / 7.0)
    box = 0.2 * ((rows > height // 3) & (columns > width // 2))
    planes = np.stack([waves + box + 0.02 * channel for channel in range(channels)])
    return (planes + 0.05 * rng.standard_normal(planes.shape)).clip(0, 1).astype(np.float32)


def drawn(example: Any, shape: tuple[int, int, int], key: str) -> tuple[Operator, dict[str, Any]]:
    operator = operator_of(example)
    parameters = operator.sample(generator(7, key), shape, shape)
    return operator, json.loads(json.dumps(parameters, allow_nan=False))  # as it comes out of a record


def test_every_operator_has_an_example():
    assert {name_of(each) for each in EXAMPLES} == OPERATORS.keys()


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_is_called_by_its_own_name_and_says_its_source(name):
    operator = operator_class(name)
    assert operator.name == name
    assert name in WITHOUT_SOURCE or "Source:" in (operator.__doc__ or "")
    assert all(setting.meaning for setting in settings(operator).values())


@pytest.mark.parametrize("example", EXAMPLES, ids=label)
def test_what_was_drawn_is_plain_json_and_gives_the_same_bytes_again(example):
    for number, shape in enumerate(SHAPES):
        planes = picture(shape)
        before = planes.copy()
        operator, parameters = drawn(example, shape, f"record {number}")
        first = operator.apply(planes, parameters)
        np.testing.assert_array_equal(planes, before, err_msg="the input was written to")
        assert not np.shares_memory(first, planes) or first is planes
        assert operator.apply(planes, parameters).tobytes() == first.tobytes()
        assert operator.sample(generator(7, f"record {number}"), shape, shape) == parameters


@pytest.mark.parametrize("example", EXAMPLES, ids=label)
def test_the_result_is_finite_float32_of_the_announced_shape(example):
    for shape in SHAPES:
        operator, parameters = drawn(example, shape, "a")
        degraded = operator.apply(picture(shape), parameters)
        assert degraded.dtype == np.float32
        assert np.isfinite(degraded).all()
        assert (*degraded.shape[1:], degraded.shape[0]) == operator.output_shape(shape, parameters)
        for kind, array in operator.arrays(shape, parameters).items():
            assert kind in ("kernel", "mask", "motion")
            if kind == "kernel":
                assert array.dtype == np.float32
                assert array.sum() == pytest.approx(1, abs=1e-4)
            if kind == "mask":
                assert array.dtype == np.uint8
                assert array.shape == shape[:2]
            if kind == "motion":
                assert array.shape == (2, *shape[:2])
        assert arrays_of(shape, [{operator.name: parameters}]).keys() == operator.arrays(shape, parameters).keys()


@pytest.mark.parametrize("example", EXAMPLES, ids=label)
def test_a_tensor_is_degraded_as_an_array_is(example):
    torch = pytest.importorskip("torch")
    for shape in SHAPES:
        planes = picture(shape)
        operator, parameters = drawn(example, shape, "a")
        expected = operator.apply(planes, parameters)
        tensor = operator.apply(torch.from_numpy(planes.copy()), parameters)
        assert isinstance(tensor, torch.Tensor)
        difference = np.abs(to_numpy(tensor) - expected)
        # Rounding to levels may fall to the other side where the picture stands just between two.
        assert np.quantile(difference, 0.999) < 2e-5
        assert difference.mean() < 2e-5


@pytest.mark.parametrize("example", EXAMPLES, ids=label)
def test_a_batch_with_parameters_of_its_own_for_each_is_the_pictures_one_by_one(example):
    torch = pytest.importorskip("torch")
    shape = SHAPES[0]
    operator, _ = drawn(example, shape, "a")
    pictures = [picture(shape, key) for key in "abc"]
    parameters = [drawn(example, shape, key)[1] for key in "abc"]
    singly = [operator.apply(planes, own) for planes, own in zip(pictures, parameters, strict=True)]
    if len({each.shape for each in singly}) > 1:
        pytest.skip("this draw gives results of several sizes, which no batch can hold")
    for batch in (np.stack(pictures), torch.from_numpy(np.stack(pictures))):
        together = to_numpy(operator.apply_each(batch, parameters))
        assert np.quantile(np.abs(together - np.stack(singly)), 0.999) < 2e-5


@pytest.mark.parametrize("example", EXAMPLES, ids=label)
def test_several_pictures_of_any_shapes_are_each_what_they_are_alone(example):
    shapes = [*SHAPES, SHAPES[0], (24, 31, 3)]
    operator, _ = drawn(example, shapes[0], "a")
    parameters = [drawn(example, shape, key)[1] for shape, key in zip(shapes, "abcd", strict=True)]
    try:
        singly = [
            operator.apply(picture(shape, key), own) for shape, key, own in zip(shapes, "abcd", parameters, strict=True)
        ]
    except ValueError:  # a kernel that is larger than the picture
        assert "valid" in json.dumps(example)
        return
    together = operator.apply_all([picture(shape, key) for shape, key in zip(shapes, "abcd", strict=True)], parameters)
    assert [each.tobytes() for each in together] == [each.tobytes() for each in singly]


@pytest.mark.parametrize(
    "example", [each for each in EXAMPLES if issubclass(operator_class(name_of(each)), KernelBlur)], ids=label
)
def test_kernels_are_each_what_they_are_alone(example):
    operator, _ = drawn(example, SHAPES[0], "a")
    assert isinstance(operator, KernelBlur)
    parameters = [drawn(example, SHAPES[0], f"kernel {number}")[1] for number in range(20)]
    for kernel, own in zip(operator.each_kernel(parameters), parameters, strict=True):
        alone = operator.kernel(own)
        assert kernel.shape == alone.shape
        assert kernel.tobytes() == alone.tobytes()


@pytest.mark.parametrize("example", EXAMPLES, ids=label)
def test_a_recipe_reads_back_what_an_operator_says_of_itself(example):
    operator = operator_of(example)
    again = operator_of({operator.name: operator.to_json()})
    assert again == operator
    shape = SHAPES[0]
    assert draw_steps(again, generator(3, "a"), shape) == draw_steps(operator, generator(3, "a"), shape)


@pytest.mark.parametrize("example", LINEAR, ids=label)
@pytest.mark.parametrize("key", ["a", "b", "c"])
def test_the_adjoint_is_the_adjoint(example, key):
    torch = pytest.importorskip("torch")
    for shape in SHAPES:
        operator, parameters = drawn(example, shape, key)
        assert isinstance(operator, LinearOperator)
        height, width, channels = operator.output_shape(shape, parameters)
        x = generator(1, key).standard_normal((shape[2], *shape[:2]), dtype=np.float32)
        y = generator(2, key).standard_normal((channels, height, width), dtype=np.float32)
        forward, backward = operator.apply(x, parameters), operator.adjoint(y, parameters, shape)
        assert backward.shape == x.shape
        assert backward.dtype == np.float32
        assert relative_mismatch(forward, y, x, backward) < 1e-5
        tensor = operator.adjoint(torch.from_numpy(y.copy()), parameters, shape)
        assert np.abs(to_numpy(tensor) - backward).max() < 1e-4 * max(1, np.abs(backward).max())


@pytest.mark.parametrize("example", LINEAR, ids=label)
@pytest.mark.parametrize("shape", ODD_SHAPES, ids=str)
def test_the_adjoint_is_the_adjoint_at_unusual_sizes(example, shape):
    announced = announced_shape(example, shape)
    if announced is None:  # a kernel that is larger than the picture
        assert "valid" in json.dumps(example)
        return
    operator, parameters = drawn(example, shape, "a")
    height, width, channels = announced
    assert isinstance(operator, LinearOperator)
    x = generator(1, "x").standard_normal((shape[2], *shape[:2]), dtype=np.float32)
    y = generator(2, "y").standard_normal((channels, height, width), dtype=np.float32)
    assert relative_mismatch(operator.apply(x, parameters), y, x, operator.adjoint(y, parameters, shape)) < 1e-5


@pytest.mark.parametrize("example", LINEAR, ids=label)
def test_a_linear_operator_is_linear(example):
    shape = SHAPES[0]
    operator, parameters = drawn(example, shape, "a")
    x, z = (generator(1, key).random((3, *shape[:2]), dtype=np.float32) for key in "ab")
    mixed = operator.apply(2 * x - 3 * z, parameters)
    parts = 2 * operator.apply(x, parameters) - 3 * operator.apply(z, parameters)
    np.testing.assert_allclose(mixed, parts, atol=3e-5 * max(1, np.abs(parts).max()))


def test_the_adjoint_of_a_chain_runs_backwards_through_every_linear_operator():
    shape = SHAPES[0]
    chain = InOrder(tuple(operator_of(each) for each in LINEAR if keeps_shape(each, shape)))
    steps = draw_steps(chain, generator(5, "chain"), shape)
    x = generator(1, "x").standard_normal((3, *shape[:2]), dtype=np.float32)
    forward = chain.apply(x, {"steps": steps})
    y = generator(2, "y").standard_normal(forward.shape, dtype=np.float32)
    assert relative_mismatch(forward, y, x, replay_adjoint(y, steps, shape)) < 1e-5


def announced_shape(example: Any, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """Of the result; None where the operator refuses a picture of this shape."""
    try:
        operator, parameters = drawn(example, shape, "a")
        return operator.output_shape(shape, parameters)
    except ValueError:
        return None


def keeps_shape(example: Any, shape: tuple[int, int, int]) -> bool:
    operator, parameters = drawn(example, shape, "a")
    return operator.output_shape(shape, parameters) == shape


def relative_mismatch(forward: np.ndarray, y: np.ndarray, x: np.ndarray, backward: np.ndarray) -> float:
    """|<A x, y> - <x, A' y>| / (|A x| |y|)."""
    a, b, c, d = (each.astype(np.float64).ravel() for each in (forward, y, x, backward))
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return abs(a @ b - c @ d) / scale if scale else abs(a @ b - c @ d)
