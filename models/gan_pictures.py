"""What a generator learns from: the middles of pictures at the generator's size, in batches by number. Free of torch.

The published faces are cut as 108 x 108 pixels in the middle of 178 x 218 and reduced to 64 x 64; half-size ones have 54.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.training_data import CleanPicture, first_by_hash
from transforms.errors import ConfigurationError
from transforms.randomness import generator


def hold_out(pictures: Sequence[CleanPicture], count: int) -> tuple[list[CleanPicture], list[CleanPicture]]:
    """Pictures to learn from, and `count` others, the first by the hash of their key."""
    held_out = first_by_hash(pictures, count)
    kept_back = {picture.key for picture in held_out}
    return [picture for picture in pictures if picture.key not in kept_back], held_out


def middle(picture: CleanPicture, crop: int, side: int) -> NDArray[np.uint8]:
    """The square of `crop` pixels in the middle, resized with Pillow's bicubic (a = -0.5): side x side x 3. An odd margin
    is cut at half a pixel.

    Raises:
        ConfigurationError: the picture is smaller than the square.
    """
    height, width = picture.clean.shape[:2]
    if min(height, width) < crop:
        raise ConfigurationError(
            f"picture {picture.key!r} has {height} x {width} pixels, less than the crop of {crop}; leave it out of --data, "
            "or lower crop"
        )
    left, top = (width - crop) / 2, (height - crop) / 2
    box = (left, top, left + crop, top + crop)
    image = Image.fromarray(picture.clean)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box))


class PictureBatches:
    """Batches of planes in [-1, 1]. An epoch has all pictures in an order that follows from (seed, epoch), less those that do
    not fill a batch."""

    def __init__(
        self, pictures: Sequence[CleanPicture], *, batch_size: int, crop: int, side: int, flip: bool, seed: int
    ) -> None:
        if len(pictures) < batch_size:
            raise ConfigurationError(
                f"{len(pictures)} pictures do not fill a batch of {batch_size}; name more in --data, or lower batch_size"
            )
        self._pictures, self._size, self._crop, self._side = pictures, batch_size, crop, side
        self._flip, self._seed = flip, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __call__(self, step: int) -> NDArray[np.float32]:
        """The batch of a step from 0: N x 3 x side x side, [-1, 1]."""
        epoch, place = divmod(step, len(self._pictures) // self._size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, generator(self._seed, "order", epoch).permutation(len(self._pictures))
        chosen = self._order[place * self._size : (place + 1) * self._size]
        squares = np.stack([middle(self._pictures[number], self._crop, self._side) for number in chosen])
        if self._flip:
            mirrored = generator(self._seed, "mirrored", step=step).random(self._size) < 0.5
            squares[mirrored] = squares[mirrored, :, ::-1]
        return as_planes(squares)


def as_planes(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    """N x H x W x 3, 8 bit -> N x 3 x H x W, [-1, 1]."""
    planes = np.ascontiguousarray(squares.transpose(0, 3, 1, 2), np.float32)
    return planes / np.float32(127.5) - 1


def as_squares(planes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """N x 3 x H x W, [-1, 1] -> N x H x W x 3, 8 bit, rounded."""
    eight: NDArray[np.uint8] = np.rint((np.clip(planes, -1, 1) + 1) * 127.5).astype(np.uint8)
    return eight.transpose(0, 2, 3, 1)


def latent_vectors(seed: int, name: str, step: int, count: int, length: int) -> NDArray[np.float32]:
    """count x length, uniform in [-1, 1]; follows from (seed, name, step)."""
    return generator(seed, f"latent/{name}", step=step).uniform(-1, 1, (count, length)).astype(np.float32)


def grid(squares: NDArray[np.uint8], columns: int) -> Image.Image:
    """A sheet of pictures N x H x W x 3, row by row; N must be a multiple of `columns`."""
    count, height, width, channels = squares.shape
    rows = squares.reshape(count // columns, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return Image.fromarray(np.ascontiguousarray(rows).reshape(count // columns * height, columns * width, channels))
