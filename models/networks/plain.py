"""The practice sheet's denoisers: a short stack of 3x3 convolutions, with and without input skip and batch norm.

    model1   x = f(y)               f: conv c->64, ReLU, 3 x (conv 64->64, ReLU), conv 64->c
    model2   x = y + f(y)           the same stack learns the (negative) noise
    model3   x = y + f(y)           and a batch norm before each ReLU

All convolutions have a bias and pad with zeros, so that any picture size works. The sheet's title gives Model3 five
layers, its listing four: five is the default here, four a setting. Trainable parameters in colour: 114 307, 114 307,
114 819 (77 763 with four layers).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from models.networks.network import RestorationNetwork
from transforms.errors import ConfigurationError

FEATURES = 64


class PlainDenoiser(RestorationNetwork):
    """`layers` convolutions with ReLU between, as in the module's table.

    Args:
        channels: 1 (grey) or 3 (colour).
        layers: number of convolutions; the receptive field is 2 * layers + 1 pixels.
        skip: adds the input to the output.
        batch_norm: normalises before each ReLU.
    """

    def __init__(self, channels: int, layers: int, *, skip: bool, batch_norm: bool) -> None:
        super().__init__()
        self.skip, self.residual = skip, int(skip)
        self.receptive_field = 2 * layers + 1
        widths = [channels] + [FEATURES] * (layers - 1)
        stack: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            stack.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            stack += [nn.BatchNorm2d(outputs)] if batch_norm else []
            stack.append(nn.ReLU(inplace=True))
        stack.append(nn.Conv2d(FEATURES, channels, 3, padding=1))
        self.body = nn.Sequential(*stack)
        _initialise(self.body)

    def forward(self, degraded: Tensor) -> Tensor:
        """N x C x H x W in [0, 1] (noise may exceed it) -> the same shape, not clipped."""
        restored: Tensor = self.body(degraded)
        return degraded + restored if self.skip else restored


def model1(channels: int = 3) -> PlainDenoiser:
    """Five plain layers."""
    return PlainDenoiser(checked_channels(channels), 5, skip=False, batch_norm=False)


def model2(channels: int = 3) -> PlainDenoiser:
    """Five layers and the input skip."""
    return PlainDenoiser(checked_channels(channels), 5, skip=True, batch_norm=False)


def model3(channels: int = 3, layers: int = 5) -> PlainDenoiser:
    """Input skip and batch norm; four layers as the sheet prints it, five as its title says."""
    if layers not in (4, 5):
        raise ConfigurationError(f"model3 has 4 or 5 layers, not {layers!r}; dncnn takes deeper ones")
    return PlainDenoiser(checked_channels(channels), layers, skip=True, batch_norm=True)


def checked_channels(channels: int) -> int:
    """1 or 3, or a `ConfigurationError`."""
    if channels not in (1, 3):
        raise ConfigurationError(f"channels must be 1 (grey) or 3 (colour), not {channels!r}")
    return channels


def _initialise(body: nn.Sequential) -> None:
    """He initialisation, and a last layer so small that the network starts close to its skip (or to zero)."""
    convolutions = [module for module in body if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)
    nn.init.normal_(convolutions[-1].weight, std=1e-3)
