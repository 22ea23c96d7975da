"""Measures an ONNX file on a set of clean pictures and writes the figure into its card.

    python -m export.quality --model models/zoo/denoise5-gray-25.onnx --data BSD68 --set BSD68 --recipe dncnn-25 \\
        --protocol 'psnr[gray,u8]' --published DnCNN-17=29.23 --published BM3D=28.57

The noise is that of the recipe, drawn by the keyed generator: the same figure every time. Free of torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from export.card import Measured, read_card
from export.onnx_file import add_measured
from models.recipes import Pair, load_recipe
from models.training_data import CleanPicture, load_pictures
from transforms.errors import ConfigurationError
from transforms.metrics import parse_metric
from transforms.onnx_restorer import OnnxRestorerFactory
from transforms.planes import to_image, to_planes
from transforms.planes.resampling import resize_planes
from transforms.value_range import from_float, to_u8


def measure(
    model: str, pictures: Sequence[CleanPicture], recipe: str, protocol: str, *, seed: int = 0
) -> tuple[float, float]:
    """Mean of a metric over whole pictures, restored as `conservator restore` does it.

    Args:
        model: path or URL of an ONNX file.
        pictures: clean, with the channels that the recipe makes its pairs of.
        recipe: name or path of the degradation. Its result goes into the network as it is: not clipped or rounded unless
            the recipe says so.
        protocol: metric name, such as `psnr[gray,u8]`; restored pictures are clipped and rounded to 8 bit.
        seed: of the noise.

    Returns:
        The figure of the restored and of the degraded pictures. (The latter are clipped and rounded for it, and enlarged by
        MATLAB's bicubic where they are smaller.)
    """
    restorer = OnnxRestorerFactory(model).load()
    metric, whole = parse_metric(protocol), replace(load_recipe(recipe), patches=None)
    figures = []
    for picture in pictures:
        pair = whole.pair(picture.clean, key=picture.key, patch=0, seed=seed)
        if not isinstance(pair, Pair):
            raise ConfigurationError(f"recipe {recipe!r} rejects picture {picture.key!r} ({pair.detail}); leave it out")
        (restored,) = restorer.restore([pair.degraded], [{}])
        images = (restored.samples, _as_large(pair.degraded, pair.clean.shape[:2]))
        figures.append([metric(from_float(image, np.uint8), to_u8(pair.clean)) for image in images])
    means = np.mean(figures, axis=0)
    return float(means[0]), float(means[1])


def _as_large(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return image if image.shape[:2] == size else to_image(resize_planes(to_planes(image), size=size))


def measure_into_card(
    model: str, data: Sequence[str], data_set: str, recipe: str, protocol: str, published: Mapping[str, float]
) -> Measured:
    """Measures, and keeps the figure in the model's card."""
    card = read_card(model)
    pictures = load_pictures(data, 0 if card.color == "luma" else card.channels)  # a grey picture is its own luma
    value, degraded = measure(model, pictures, recipe, protocol)
    measured = Measured(data_set, protocol, recipe, round(value, 4), round(degraded, 4), len(pictures), dict(published))
    add_measured(model, [measured])
    return measured


def main() -> None:
    """Measures a model and writes the figure into its card."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, nargs="+")
    parser.add_argument("--set", required=True, dest="data_set", help="the data set's name in the card")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--protocol", required=True)
    parser.add_argument("--published", action="append", default=[], metavar="NAME=VALUE")
    given = vars(parser.parse_args())
    published = {name: float(value) for name, _, value in (each.partition("=") for each in given.pop("published"))}
    sys.stdout.write(f"{measure_into_card(**given, published=published)}\n")


if __name__ == "__main__":
    main()
