"""Networks one after the other, each on the enlarged result of the one before: Wang et al., "Deep networks for image
super-resolution with sparse prior", ICCV 2015, section 4 (CSCN).

    x = f_n(E f_{n-1}(... E f_1(y)))        E: enlargement by OpenCV's bicubic (a = -0.75, border repeated)

The input y is enlarged already, as for a single network. E is part of the network, so that a tile carries one halo for all. It
is a convolution with a filter for each of the pixels that one becomes, many times faster than onnxruntime's own Resize.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.network import RestorationNetwork
from transforms.planes.resampling import resize_band

KERNEL = "opencv_cubic"
_TAPS = 2  # of the bicubic to each side


class Enlarge(nn.Module):
    """N x 1 x H x W -> N x 1 x fH x fW by `opencv_cubic`, which is also torch's bicubic."""

    filters: Tensor

    def __init__(self, factor: int) -> None:
        super().__init__()
        side = 2 * _TAPS + 1
        middle = slice(_TAPS * factor, (_TAPS + 1) * factor)
        taps = resize_band(side, side * factor, KERNEL, "replicate").dense()[middle]
        filters = np.einsum("ay,bx->abyx", taps, taps).reshape(factor**2, 1, side, side)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        self.shuffle = nn.PixelShuffle(factor)

    def forward(self, small: Tensor) -> Tensor:
        padded = functional.pad(small, [_TAPS] * 4, mode="replicate")
        enlarged: Tensor = self.shuffle(functional.conv2d(padded, self.filters))
        return enlarged


class Cascade(RestorationNetwork):
    """Networks that keep the size, with an enlargement between each two.

    Args:
        stages: in their order; the same network may stand there several times.
        factor: of each enlargement.
    """

    def __init__(self, stages: Sequence[RestorationNetwork], factor: int = 2) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.enlarge = Enlarge(factor)
        self.scale = factor ** (len(stages) - 1)
        self.min_size = max(stage.min_size for stage in stages)
        reach, *earlier = (stage.receptive_field // 2 for stage in reversed(stages))
        for halo in earlier:  # from the result back to the input
            reach = halo + _TAPS + -(-reach // factor)
        self.receptive_field = 2 * reach + 1

    def forward(self, enlarged: Tensor) -> Tensor:
        """N x 1 x H x W luma in [0, 1], enlarged once -> N x 1 x sH x sW, not clipped, s = factor^(stages - 1)."""
        restored: Tensor = self.stages[0](enlarged)
        for stage in self.stages[1:]:
            restored = stage(self.enlarge(restored))
        return restored
