"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The development images: the folder that CONSERVATOR_DATA names, else shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CONSERVATOR_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no development images at {folder}: set CONSERVATOR_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """A real photograph: 512 x 512 x 3, uint8. Read only, since tests share it."""
    from skimage import data

    picture = np.array(data.astronaut())
    picture.flags.writeable = False
    return picture


@pytest.fixture(scope="session")
def negative_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose answer is known without running it: y = 1 - x, for grey and for colour pictures of any size."""
    import onnx
    from onnx import TensorProto, helper

    shape = ["n", 1, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Sub", ["one", "x"], ["y"])],
        "negative",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("models") / "negative.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def shard(tmp_path: Path, photo: NDArray[np.uint8]) -> Path:
    """A tar of six small pictures, for pairs to be made of."""
    from pair_kit import crops, png, write_tar

    return write_tar(tmp_path / "in" / "s.tar", {f"{key}.png": png(crop) for key, crop in crops(photo, 6).items()})


CHANGES = ("replace", "remove", "unlink")  # of os: how an output on this machine changes


@pytest.fixture(scope="session")
def in_a_fork() -> Callable[..., int]:
    """Runs an action in a forked child, where Beam need not be imported again; returns the wait status."""

    def run(action: Callable[[], object], dies_at: int | None = None, also: tuple[str, ...] = ()) -> int:
        """`dies_at`: the child kills itself right before so many-th change; `also`: other functions of os that count."""
        child = os.fork()
        if child == 0:
            code = 99
            try:
                if dies_at is not None:
                    _die_at(dies_at, (*CHANGES, *also))
                code = int(action() or 0)  # type: ignore[call-overload]
            finally:
                os._exit(code)
        return os.waitpid(child, 0)[1]

    return run


def _die_at(number: int, changes: tuple[str, ...]) -> None:
    left = [number]
    for name in changes:
        original = getattr(os, name)

        def counted(*arguments: Any, _original: Callable[..., Any] = original, **options: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return _original(*arguments, **options)

        setattr(os, name, counted)
