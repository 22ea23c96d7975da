"""DAE: the denoising auto-encoder of Bigdeli and Zwicker, "Image restoration using autoencoding priors", 2017 (DAEP), and
Bigdeli, Jin, Favaro, Zwicker, "Deep mean-shift priors for image restoration", NIPS 2017 (DMSP).

    x = y + f(y)      f: conv c->64, ReLU, (layers - 2) x [conv 64->64, batch norm without scale and offset, ReLU], conv 64->c

Its residual x - y is sigma^2 times the gradient of the logarithm of the smoothed image density: the prior of DAEP and DMSP.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.networks.network import RestorationNetwork
from models.networks.plain import checked_channels
from transforms.errors import ConfigurationError

FEATURES = 64


class DAE(RestorationNetwork):
    """Twenty layers in the papers; receptive field 2 * layers + 1.

    Args:
        channels: 1 (grey) or 3 (colour).
        layers: number of convolutions.
    """

    residual = 1

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.receptive_field = 2 * layers + 1
        stack: list[nn.Module] = [nn.Conv2d(channels, FEATURES, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(layers - 2):
            stack.append(nn.Conv2d(FEATURES, FEATURES, 3, padding=1))
            stack.append(nn.BatchNorm2d(FEATURES, affine=False))
            stack.append(nn.ReLU(inplace=True))
        stack.append(nn.Conv2d(FEATURES, channels, 3, padding=1))
        self.body = nn.Sequential(*stack)
        for module in self.body:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, noisy: Tensor) -> Tensor:
        """N x C x H x W in [0, 1] (noise may exceed it) -> the same shape, not clipped."""
        residual: Tensor = self.body(noisy)
        return noisy + residual


def dae(channels: int = 3, layers: int = 20) -> DAE:
    """20 layers as published; fewer for the light one."""
    if layers < 3:
        raise ConfigurationError(f"dae needs at least 3 layers, not {layers!r}; 20 is the published depth")
    return DAE(checked_channels(channels), layers)
