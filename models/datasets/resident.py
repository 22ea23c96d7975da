"""Clean pictures that stay on a device as 8-bit samples, and patches that are cut there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.recipes import Cut
from models.recipes.channels import with_channels
from models.training_data import CleanPicture, TrainingPicture
from transforms.errors import ConfigurationError

_SHARE_OF_FREE_MEMORY = 0.5  # the rest is the network's


class ResidentPictures:
    """Pictures of any sizes in one flat uint8 tensor, H x W x C each.

    A mirrored and turned rectangle of a picture is three strides and an offset, so that all patches of a batch are one gather.

    Args:
        channels: what the recipe makes of a picture before all else; pixel by pixel, so it may come before the cut.

    Raises:
        ConfigurationError: pictures with several numbers of channels.
    """

    def __init__(self, pictures: Sequence[CleanPicture], channels: str, device: torch.device) -> None:
        samples = [with_channels(picture.clean, channels) for picture in pictures]
        depths = {each.shape[2] for each in samples}
        if len(depths) != 1:
            raise ConfigurationError(
                f"the pictures have {sorted(depths)} channels; a batch needs one number of channels"
            )
        self._channels = depths.pop()
        self._widths = [each.shape[1] for each in samples]
        self._starts = np.cumsum([0, *(each.size for each in samples)]).tolist()
        self._samples = torch.empty(self._starts[-1], dtype=torch.uint8, device=device)
        for each, start in zip(samples, self._starts, strict=False):
            flat = np.array(each).reshape(-1)  # a copy: torch takes no read-only array without a warning
            self._samples[start : start + flat.size] = torch.from_numpy(flat).to(device)

    @staticmethod
    def fit(pictures: Sequence[CleanPicture], channels: str, device: torch.device) -> bool:
        """Whether they are held in memory as uint8, and a device has room for them."""
        if device.type != "cuda" or not all(isinstance(picture, TrainingPicture) for picture in pictures):
            return False
        if any(picture.clean.dtype != np.uint8 for picture in pictures):
            return False
        depth = {"gray": 1, "rgb": 3}
        needed = sum(height * width * depth.get(channels, 3) for height, width in (each.size for each in pictures))
        free, _ = torch.cuda.mem_get_info(device)
        return needed < _SHARE_OF_FREE_MEMORY * free

    def cut(self, places: Sequence[tuple[int, Cut]]) -> Tensor:
        """Patches of one size, N x C x H x W float32, [0, 1], as `Cut.crop` and `Cut.turn` make them."""
        described = [self._described(which, cut) for which, cut in places]
        (height, width) = {(high, wide) for high, wide, *_ in described}.pop()
        table = torch.tensor([each[2:] for each in described], dtype=torch.int64).to(
            self._samples.device, non_blocking=True
        )
        start, down, right = table.view(-1, 3, 1, 1, 1).unbind(1)
        rows, columns, planes = (
            torch.arange(count, device=self._samples.device).view(shape)
            for count, shape in ((height, (-1, 1)), (width, (1, -1)), (self._channels, (-1, 1, 1)))
        )
        chosen = self._samples[start + rows * down + columns * right + planes]
        # Divided by a tensor: by a plain number, CUDA multiplies with its rounded reciprocal.
        return chosen.to(torch.float32) / torch.full((1,), 255.0, device=self._samples.device)

    def _described(self, which: int, cut: Cut) -> tuple[int, int, int, int, int]:
        """Height and width of the turned patch, place of its first sample, and the steps down and to the right."""
        row = self._widths[which] * self._channels
        first = self._starts[which] + cut.top * row + cut.left * self._channels
        last_row, last_column = (cut.height - 1) * row, (cut.width - 1) * self._channels
        corners = np.array([[0, last_column], [last_row, last_row + last_column]])[..., None]
        (start, right), (down, _) = cut.turn(corners)[..., 0].tolist()
        height, width = (cut.width, cut.height) if cut.rotation % 2 else (cut.height, cut.width)
        return height, width, first + start, (down - start) // max(1, height - 1), (right - start) // max(1, width - 1)
