"""DAE: the denoising auto-encoder of Bigdeli and Zwicker, "Image restoration using autoencoding priors", 2017 (DAEP), and
Bigdeli, Jin, Favaro, Zwicker, "Deep mean-shift priors for image restoration", NIPS 2017 (DMSP).

    x = y + f(y)      f: conv c->64, ReLU, (layers - 2) x [conv 64->64, batch norm without scale and offset, ReLU], conv 64->c

The last layer begins small, so that x is about y at first. Ours: `affine` batch norms, with which the network can grow from
one that ships; scale and offset are folded into the convolutions either way.

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
        affine: batch norms with scale and offset, which the papers' have not.
    """

    residual = 1

    def __init__(self, channels: int, layers: int, *, affine: bool) -> None:
        super().__init__()
        self.receptive_field = 2 * layers + 1
        stack: list[nn.Module] = [nn.Conv2d(channels, FEATURES, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(layers - 2):
            stack.append(nn.Conv2d(FEATURES, FEATURES, 3, padding=1))
            stack.append(nn.BatchNorm2d(FEATURES, affine=affine))
            stack.append(nn.ReLU(inplace=True))
        last = nn.Conv2d(FEATURES, channels, 3, padding=1)
        stack.append(last)
        self.body = nn.Sequential(*stack)
        for module in self.body:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(last.weight, std=1e-3)

    def forward(self, noisy: Tensor) -> Tensor:
        """N x C x H x W in [0, 1] (noise may exceed it) -> the same shape, not clipped."""
        residual: Tensor = self.body(noisy)
        return noisy + residual


def dae(channels: int = 3, layers: int = 20, affine: bool = False) -> DAE:
    """20 layers as published; fewer, and `affine`, for the light one."""
    if layers < 3:
        raise ConfigurationError(f"dae needs at least 3 layers, not {layers!r}; 20 is the published depth")
    return DAE(checked_channels(channels), layers, affine=affine)
