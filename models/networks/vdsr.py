"""VDSR: Kim, Lee, Lee, "Accurate image super-resolution using very deep convolutional networks", CVPR 2016.

    x = y + f(y)          f: conv 1->64, ReLU, (layers - 2) x [conv 64->64, ReLU], conv 64->1;  3x3, padded with zeros

The input y is the luma, already enlarged by MATLAB's bicubic; one network serves all scales. 20 layers have 664,704
weights, 1,217 biases and a receptive field of 41 pixels. He initialisation, as in the paper.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.networks.network import RestorationNetwork
from transforms.errors import ConfigurationError


class VDSR(RestorationNetwork):
    """Predicts the detail that enlargement lost.

    Args:
        layers: number of convolutions; the receptive field is 2 * layers + 1 pixels.
        features: channels between the layers.
    """

    residual = 1

    def __init__(self, layers: int, features: int) -> None:
        super().__init__()
        self.receptive_field = 2 * layers + 1
        stack: list[nn.Module] = []
        for position in range(layers):
            inputs = 1 if position == 0 else features
            outputs = 1 if position == layers - 1 else features
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)
            stack += [convolution] if position == layers - 1 else [convolution, nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*stack)

    def forward(self, enlarged: Tensor) -> Tensor:
        """N x 1 x H x W luma in [0, 1], enlarged -> the same shape, not clipped."""
        detail: Tensor = self.body(enlarged)
        return enlarged + detail


def vdsr(channels: int = 1, layers: int = 20, features: int = 64) -> VDSR:
    """20 layers of 64 features are the paper's; 10 of 32 are what a CPU core can train in an hour."""
    if channels != 1:
        raise ConfigurationError(f"vdsr restores luma: channels must be 1, not {channels!r}")
    if layers < 2 or features < 1:
        raise ConfigurationError(f"vdsr needs at least 2 layers and 1 feature, not {layers!r} and {features!r}")
    return VDSR(layers, features)
