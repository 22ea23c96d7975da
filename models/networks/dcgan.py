"""DCGAN for faces of 64 x 64 pixels: Radford, Metz, Chintala, "Unsupervised representation learning with deep convolutional
generative adversarial networks", ICLR 2016, in the layout of Yeh et al., "Image restoration with deep generative models",
ICASSP 2018: the prior of its inpainting, colourisation, super-resolution, denoising and dequantisation.

    G: z, 100 numbers, uniform in [-1, 1] -> 4 x 4 x 8n -> 8 x 8 x 4n -> 16 x 16 x 2n -> 32 x 32 x n -> 64 x 64 x 3, tanh
    D: 64 x 64 x 3 -> 32 x 32 x n -> 16 x 16 x 2n -> 8 x 8 x 4n -> 4 x 4 x 8n -> one number, the logit of "is a photograph"

5 x 5 convolutions of stride 2, in G transposed; batch norm after each layer but G's last and D's first and last; ReLU in G,
leaky ReLU (0.2) in D. The full layer between z and 4 x 4 pixels is a transposed 4 x 4 convolution of one pixel, and D's
last one a 4 x 4 convolution: the same sums. Weights start as N(0, 0.02), gains of batch norms as N(1, 0.02), biases as 0;
a layer before a batch norm has none. n = 64 is the papers' (5,126,723 and 4,315,649 parameters), n = 32 what CPU cores can
train (1,488,163 and 1,082,625). Pictures lie in [-1, 1].
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from transforms.errors import ConfigurationError

SIDE = 64  # pixels
CHANNELS = 3
LATENT = 100
_START = 4  # pixels: the side of G's first layer and of D's last
_INIT_STD = 0.02
_SLOPE = 0.2


class Generator(nn.Module):
    """G: draws a picture from a latent vector.

    Args:
        features: n of the module's table.
        latent: length of z.
        folded: each batch norm is part of the layer before it, which has a bias: for use, not for training.
    """

    def __init__(self, features: int = 64, latent: int = LATENT, *, folded: bool = False) -> None:
        super().__init__()
        self.latent = latent
        widths = _checked_widths(features)[::-1]
        first = nn.ConvTranspose2d(latent, widths[0], _START, bias=folded)
        stack: list[nn.Module] = [first, _norm(widths[0], folded), nn.ReLU(inplace=True)]
        for inputs, outputs in pairwise(widths):
            stack += [_enlarge(inputs, outputs, bias=folded), _norm(outputs, folded), nn.ReLU(inplace=True)]
        stack += [_enlarge(widths[-1], CHANNELS, bias=True), nn.Tanh()]
        self.body = nn.Sequential(*stack)
        _initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        """N x latent, uniform in [-1, 1] -> N x 3 x 64 x 64 in [-1, 1]."""
        picture: Tensor = self.body(z[:, :, None, None])
        return picture


class Discriminator(nn.Module):
    """D: tells photographs from generated pictures.

    Args:
        features: n of the module's table.
        folded: as in `Generator`.
    """

    def __init__(self, features: int = 64, *, folded: bool = False) -> None:
        super().__init__()
        widths = _checked_widths(features)
        stack: list[nn.Module] = [_reduce(CHANNELS, widths[0], bias=True), nn.LeakyReLU(_SLOPE, inplace=True)]
        for inputs, outputs in pairwise(widths):
            stack += [_reduce(inputs, outputs, bias=folded), _norm(outputs, folded), nn.LeakyReLU(_SLOPE, inplace=True)]
        stack.append(nn.Conv2d(widths[-1], 1, _START))
        self.body = nn.Sequential(*stack)
        _initialise(self)

    def forward(self, pictures: Tensor) -> Tensor:
        """N x 3 x 64 x 64 in [-1, 1] -> N logits; the papers' D is their sigmoid."""
        logits: Tensor = self.body(pictures)
        return logits.flatten()


def _checked_widths(features: int) -> tuple[int, int, int, int]:
    if features < 1:
        raise ConfigurationError(f"dcgan needs at least 1 feature, not {features!r}; 64 are the papers', 32 for a CPU")
    return features, 2 * features, 4 * features, 8 * features


def _norm(features: int, folded: bool) -> nn.Module:
    return nn.Identity() if folded else nn.BatchNorm2d(features)


def _enlarge(inputs: int, outputs: int, *, bias: bool) -> nn.ConvTranspose2d:
    """Twice the side; the adjoint of `_reduce`."""
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1, bias=bias)


def _reduce(inputs: int, outputs: int, *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 5, stride=2, padding=2, bias=bias)


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=_INIT_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1.0, std=_INIT_STD)
