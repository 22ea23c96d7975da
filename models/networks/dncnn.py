"""DnCNN: Zhang, Zuo, Chen, Meng, Zhang, "Beyond a Gaussian denoiser", IEEE TIP 2017.

    x = y - R(y),   R: conv c->64, ReLU, (layers - 2) x [conv 64->64 without bias, batch norm, ReLU], conv 64->c

17 layers for one known noise level (receptive field 35), 20 for a blind range of levels. Initialised as the authors'
PyTorch code: orthogonal weights, batch norm with eps 1e-4 and running statistics that forget 5 % per step.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.networks.network import RestorationNetwork
from models.networks.plain import checked_channels
from transforms.errors import ConfigurationError

FEATURES = 64


class DnCNN(RestorationNetwork):
    """Predicts the noise and subtracts it.

    Args:
        channels: 1 (grey) or 3 (colour).
        layers: number of convolutions; the receptive field is 2 * layers + 1 pixels.
    """

    residual = -1

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.receptive_field = 2 * layers + 1
        stack: list[nn.Module] = [nn.Conv2d(channels, FEATURES, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(layers - 2):
            stack.append(nn.Conv2d(FEATURES, FEATURES, 3, padding=1, bias=False))
            stack.append(nn.BatchNorm2d(FEATURES, eps=1e-4, momentum=0.05))
            stack.append(nn.ReLU(inplace=True))
        stack.append(nn.Conv2d(FEATURES, channels, 3, padding=1))
        self.body = nn.Sequential(*stack)
        for module in self.body:
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, degraded: Tensor) -> Tensor:
        """N x C x H x W in [0, 1] (noise may exceed it) -> the same shape, not clipped."""
        noise: Tensor = self.body(degraded)
        return degraded - noise


def dncnn(channels: int = 1, layers: int = 17) -> DnCNN:
    """17 layers (one noise level) or 20 (blind); any depth from 3 on is built."""
    if layers < 3:
        raise ConfigurationError(f"dncnn needs at least 3 layers, not {layers!r}; 17 and 20 are the published depths")
    return DnCNN(checked_channels(channels), layers)
