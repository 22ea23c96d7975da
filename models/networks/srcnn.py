"""SRCNN: Dong, Loy, He, Tang, "Image super-resolution using deep convolutional networks", IEEE TPAMI 2016.

    x = W3 * relu(W2 * relu(W1 * y))        W1: f1 x f1, 1 -> 64    W2: f2 x f2, 64 -> 32    W3: f3 x f3, 32 -> 1

The input y is the luma, already enlarged by MATLAB's bicubic. Every layer repeats the border pixels, as the authors' test
code does, so that the result keeps the size. Weights without biases: 9-1-5 8,032, 9-3-5 24,416, 9-5-5 57,184; receptive
fields 13, 15, 17.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from models.networks.network import RestorationNetwork
from transforms.errors import ConfigurationError

FEATURES = (64, 32)


class SRCNN(RestorationNetwork):
    """Patch extraction, non-linear mapping, reconstruction.

    Args:
        filters: f1, f2, f3: odd sides of the filters.
    """

    def __init__(self, filters: Sequence[int]) -> None:
        super().__init__()
        first, second, third = filters
        self.receptive_field = first + second + third - 2
        self.body = nn.Sequential(
            _convolution(1, FEATURES[0], first),
            nn.ReLU(inplace=True),
            _convolution(FEATURES[0], FEATURES[1], second),
            nn.ReLU(inplace=True),
            _convolution(FEATURES[1], 1, third),
        )

    def forward(self, enlarged: Tensor) -> Tensor:
        """N x 1 x H x W luma in [0, 1], enlarged -> the same shape, not clipped."""
        restored: Tensor = self.body(enlarged)
        return restored


def srcnn(channels: int = 1, filters: Sequence[int] = (9, 5, 5)) -> SRCNN:
    """9-1-5, 9-3-5 and 9-5-5 are the published sizes; any three odd sides are built."""
    if channels != 1:
        raise ConfigurationError(f"srcnn restores luma: channels must be 1, not {channels!r}")
    if len(filters) != 3 or any(side < 1 or side % 2 == 0 for side in filters):
        raise ConfigurationError(f"srcnn has three filters with odd sides, such as [9, 5, 5], not {list(filters)!r}")
    return SRCNN(filters)


def _convolution(inputs: int, outputs: int, side: int) -> nn.Conv2d:
    """He initialisation: the paper's N(0, 0.001^2) needs its 8 * 10^8 steps of plain gradient descent."""
    convolution = nn.Conv2d(inputs, outputs, side, padding=side // 2, padding_mode="replicate")
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution
