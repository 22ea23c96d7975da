"""Measures how near a generator's pictures are to photographs that it has never seen, and writes the figure into its card.

    python -m export.gan_quality --model models/zoo/dcgan-faces.onnx --data CelebA10k --set CelebA

The sliced Wasserstein distance: patches of 7 x 7 pixels are drawn from each level of the Laplacian pyramids (64, 32 and 16
pixels) of both sets, each channel brought to mean 0 and variance 1, and projected on random directions; the distance of two
such sets is the mean, over directions, of the mean absolute difference between the sorted projections, times 1000.

Three figures make it readable: generated pictures, pictures of the training set (nothing of this size can be nearer),
and noise with the training set's mean and deviation at each pixel. Source: Karras et al., "Progressive growing of GANs",
ICLR 2018, section 5, at its patch size, number of patches and number of directions. Free of torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy import ndimage

from export.card import Measured, read_card
from export.onnx_file import add_measured
from models.gan_pictures import as_planes, as_squares, hold_out, latent_vectors, middle
from models.gan_recipe import discriminator_path
from models.training_data import CleanPicture, load_pictures
from transforms.errors import ConfigurationError
from transforms.randomness import generator
from transforms.storage import read_bytes

Planes = NDArray[np.float32]
PROTOCOL = "swd[7x7,64-16]"
_SIDE_OF_PATCH, _PATCHES, _DIRECTIONS, _LOWEST = 7, 128, 512, 16
_BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16
_REPEATS = 5  # disjoint samples whose distances are averaged


def laplacian_pyramid(planes: Planes, lowest: int = _LOWEST) -> list[Planes]:
    """Levels from fine to coarse, N x C x H x W each: what the next coarser one lacks, and at last what is left at
    `lowest` pixels."""
    levels = [planes]
    while levels[-1].shape[-1] > lowest:
        finer = levels.pop()
        coarser = _blurred(finer)[..., ::2, ::2]
        enlarged = np.zeros_like(finer)
        enlarged[..., ::2, ::2] = coarser
        levels += [finer - 4 * _blurred(enlarged), coarser]
    return levels


def _blurred(planes: Planes) -> Planes:
    down: Planes = ndimage.convolve1d(planes, _BINOMIAL, -2, mode="mirror")
    both: Planes = ndimage.convolve1d(down, _BINOMIAL, -1, mode="mirror")
    return both


def patches(planes: Planes, each: int, seed: int) -> Planes:
    """`each` patches of 7 x 7 of every picture, at places that follow from the seed, one per row, each channel with mean 0 and
    deviation 1 over all."""
    count, _, height, width = planes.shape
    rng, reach = generator(seed, "swd/patches"), _SIDE_OF_PATCH - 1
    tops, lefts = (rng.integers(0, side - reach, (count, each)) for side in (height, width))
    windows = np.lib.stride_tricks.sliding_window_view(planes, (_SIDE_OF_PATCH, _SIDE_OF_PATCH), (2, 3))
    drawn: Planes = windows[np.arange(count)[:, None], :, tops, lefts].reshape(count * each, planes.shape[1], -1)
    centred = drawn - drawn.mean((0, 2), keepdims=True)
    deviation = centred.std((0, 2), keepdims=True)
    normal: Planes = centred / np.maximum(deviation, 1e-8)
    return normal.reshape(count * each, -1)


def sliced_wasserstein(one: Planes, other: Planes, directions: int = _DIRECTIONS, seed: int = 0) -> float:
    """Mean over random directions of the Wasserstein-1 distance between two projected sets, N x dimensions, of equal size."""
    if one.shape != other.shape:
        raise ConfigurationError(
            f"sets of one shape are compared, not {one.shape} and {other.shape}; draw as many of each"
        )
    drawn = generator(seed, "swd/directions").standard_normal((one.shape[1], directions)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=0)
    distances = []
    for batch in np.array_split(drawn, max(1, directions // 64), axis=1):  # memory
        distances.append(np.abs(np.sort(one @ batch, axis=0) - np.sort(other @ batch, axis=0)).mean(axis=0))
    return float(np.concatenate(distances).mean())


def pyramid_distance(one: Planes, other: Planes, seed: int = 0) -> float:
    """The figure of two sets of pictures, N x C x 64 x 64: mean over the pyramid's levels, times 1000."""
    levels = zip(laplacian_pyramid(one), laplacian_pyramid(other), strict=True)
    distances = [
        sliced_wasserstein(patches(a, _PATCHES, seed), patches(b, _PATCHES, seed + 1), seed=seed) for a, b in levels
    ]
    return 1000 * float(np.mean(distances))


@dataclass(frozen=True)
class GeneratorQuality:
    """Distances to held-out photographs, means over disjoint samples as large as the held-out set.

    Attributes:
        generated: of the generator's pictures.
        photographs: of pictures that it learned from.
        noise: of noise with their mean and deviation at each pixel.
        diversity: mean distance between two generated pictures, as a share of that between two photographs.
        nearest: mean distance from a generated picture to the nearest photograph that it learned from, as a share of that of
            held-out ones: far below 1, the generator repeats what it saw.
        told_apart: share of held-out photographs and generated pictures, as many of each, that the discriminator tells right.
        held_out: pictures.
    """

    generated: float
    photographs: float
    noise: float
    diversity: float
    nearest: float
    told_apart: float
    held_out: int


def measure_generator(model: str, pictures: Sequence[CleanPicture], *, seed: int = 0) -> GeneratorQuality:
    """Compares a generator with photographs of the data set that it learned from; its card says which were held out.

    Raises:
        ConfigurationError: no generator, or none of its pictures were held out.
    """
    card = read_card(model)
    recipe = card.card["training"]["recipe"]
    training, held_out = hold_out(pictures, recipe["held_out"])
    if not held_out:
        raise ConfigurationError(f"{model!r} was trained with held_out: 0, so that there is nothing to compare it with")
    side = card.size_multiple
    known, unseen = (
        as_planes(np.stack([middle(each, recipe["crop"], side) for each in part])) for part in (training, held_out)
    )
    count = len(unseen)
    repeats = min(_REPEATS, len(known) // count)
    order = generator(seed, "swd/training pictures").permutation(len(known))
    sets = [known[order[number * count : (number + 1) * count]] for number in range(repeats)]
    drawn = [draw(model, count, seed=seed, step=number) for number in range(repeats)]
    noises = [_noise_like(known, count, seed, number) for number in range(repeats)]
    generated, photographs, noise = (
        float(np.mean([pyramid_distance(each, unseen) for each in kind])) for kind in (drawn, sets, noises)
    )
    return GeneratorQuality(
        generated,
        photographs,
        noise,
        diversity=_spread(drawn[0]) / _spread(unseen),
        nearest=_nearest(drawn[0], known) / _nearest(unseen, known),
        told_apart=_told_apart(discriminator_path(model), unseen, drawn[0]),
        held_out=count,
    )


def draw(model: str, count: int, *, seed: int, step: int = 0) -> Planes:
    """What a generator draws, rounded to 8 bit as it would be stored: N x 3 x H x W in [-1, 1]."""
    session = onnxruntime.InferenceSession(read_bytes(model), providers=["CPUExecutionProvider"])
    takes = session.get_inputs()[0]
    if takes.name != "z":
        raise ConfigurationError(f"{model!r} takes {takes.name!r}, not a latent vector z: give the generator's file")
    z = latent_vectors(seed, "measured", step, count, takes.shape[1])
    (planes,) = session.run(None, {"z": z})
    return as_planes(as_squares(planes))


def _told_apart(discriminator: str, photographs: Planes, drawn: Planes) -> float:
    session = onnxruntime.InferenceSession(read_bytes(discriminator), providers=["CPUExecutionProvider"])
    real, made = (session.run(None, {"picture": planes})[0] for planes in (photographs, drawn))
    return float(np.mean([*(real > 0), *(made < 0)]))


def _noise_like(known: Planes, count: int, seed: int, step: int) -> Planes:
    noise = generator(seed, "swd/noise", step=step).standard_normal((count, *known.shape[1:])).astype(np.float32)
    return as_planes(as_squares(known.mean(0) + known.std(0) * noise))


def _spread(planes: Planes) -> float:
    """Mean Euclidean distance between different pictures of a set."""
    distances = _distances(planes, planes)
    return float(distances.sum() / (len(planes) * (len(planes) - 1)))


def _nearest(planes: Planes, known: Planes) -> float:
    """Mean Euclidean distance to the nearest picture of another set, mirrored ones included."""
    return float(np.minimum(_distances(planes, known), _distances(planes, known[..., ::-1])).min(axis=1).mean())


def _distances(one: Planes, other: Planes) -> NDArray[np.float64]:
    a, b = (planes.reshape(len(planes), -1).astype(np.float64) for planes in (one, other))
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def measure_into_card(model: str, data: Sequence[str], data_set: str) -> GeneratorQuality:
    """Measures, and keeps the figures in the cards of the generator and of the discriminator beside it."""
    quality = measure_generator(model, load_pictures(data, read_card(model).channels))
    others = {
        "photographs it learned from": round(quality.photographs, 2),
        "diversity": round(quality.diversity, 3),
        "nearest": round(quality.nearest, 3),
    }
    figures = round(quality.generated, 2), round(quality.noise, 2)
    add_measured(model, [Measured(data_set, PROTOCOL, "noise", *figures, quality.held_out, others)])
    told_apart = Measured(
        data_set, "accuracy", "generated pictures", round(quality.told_apart, 4), 0.5, 2 * quality.held_out
    )
    add_measured(discriminator_path(model), [told_apart])
    return quality


def main() -> None:
    """Measures a generator and writes the figures into its card."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, nargs="+")
    parser.add_argument("--set", required=True, dest="data_set", help="the data set's name in the card")
    given = parser.parse_args()
    sys.stdout.write(f"{measure_into_card(given.model, given.data, given.data_set)}\n")


if __name__ == "__main__":
    main()
