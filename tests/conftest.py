"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

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
