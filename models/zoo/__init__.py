"""The models that ship. Each file holds its own card: what it is for, how it was trained, what was measured on it.

Besides, the interpolations that models of super-resolution are compared with: a kernel and a factor, and no file.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from transforms.errors import ConfigurationError

MODELS: dict[str, str] = {
    "denoise5-gray-25": "denoise5-gray-25.onnx",
    "denoise5-color-25": "denoise5-color-25.onnx",
    "dncnn-gray-15": "dncnn-gray-15.onnx",
    "dncnn-gray-25": "dncnn-gray-25.onnx",
    "dncnn-gray-50": "dncnn-gray-50.onnx",
    "dncnn-gray-blind": "dncnn-gray-blind.onnx",
    "dncnn-color-blind": "dncnn-color-blind.onnx",
    "dncnn3": "dncnn3.onnx",
    "dae-11": "dae-11.onnx",
    "dae-25": "dae-25.onnx",
    "dcnn-disk7": "dcnn-disk7.onnx",
    "odcnn-disk7": "odcnn-disk7.onnx",
    "srcnn-x2": "srcnn-x2.onnx",
    "srcnn-x3": "srcnn-x3.onnx",
    "srcnn-x4": "srcnn-x4.onnx",
    "scsr-x2": "scsr-x2.onnx",
    "scn-x2": "scn-x2.onnx",
    "scn-x3": "scn-x3.onnx",
    "scn-x4": "scn-x4.onnx",
    "vdsr-x2": "vdsr-x2.onnx",
    "vdsr-x3": "vdsr-x3.onnx",
    "vdsr-x4": "vdsr-x4.onnx",
    "text-deblur": "text-deblur.onnx",
    "dcgan-faces": "dcgan-faces.onnx",
    "dcgan-faces-discriminator": "dcgan-faces-discriminator.onnx",
    "motion-patches": "motion-patches.onnx",
}
# Twins for CPUs with VNNI, made by `conservator export --quantize int8`.
INT8 = "-int8"
MODELS |= {
    f"{name}{INT8}": f"{name}{INT8}.onnx"
    for name in MODELS
    if name.startswith(("srcnn-", "vdsr-")) or name in ("dncnn-gray-15", "dncnn-gray-25", "dncnn-gray-50")
}

# Name -> kernel of `transforms.planes.resampling`, and factor.
INTERPOLATIONS: dict[str, tuple[str, int]] = {
    f"{name}-x{factor}": (kernel, factor)
    for name, kernel in (("bicubic", "matlab_bicubic"), ("spline", "scipy_spline"))
    for factor in (2, 3, 4)
}


def zoo_path(name: str) -> Path:
    """The file of a model that ships.

    Raises:
        ConfigurationError: no such model, with the nearest name.

    Example:
        >>> zoo_path("denoise5-gray-25").name
        'denoise5-gray-25.onnx'
    """
    if name not in MODELS:
        known = [*MODELS, *INTERPOLATIONS]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the zoo has {', '.join(known)}"
        raise ConfigurationError(f"no model is called {name!r}; {hint} (a file of your own needs its path and .onnx)")
    return Path(__file__).parent / MODELS[name]
