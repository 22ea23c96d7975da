"""Real pictures that need no download: those inside the scikit-image wheel."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from transforms.errors import ConfigurationError


def example_folder() -> Path:
    """The folder of the wheel's pictures: `astronaut.png`, `page.png`, ...

    Raises:
        ConfigurationError: scikit-image is not installed.
    """
    found = find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError(
            "the example pictures come with scikit-image, which is not installed; run 'make demo', or pip install '.[demo]'"
        )
    return Path(found.submodule_search_locations[0]) / "data"
