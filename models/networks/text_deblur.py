"""The text deblurring networks of Hradis, Kotera, Zemcik, Sroubek, "Convolutional neural networks for direct text deblurring",
BMVC 2015: blind deblurring and denoising of document photographs in one pass.

    x = W15 * relu(W14 * ... relu(W1 * (y - 1/2)) ...) + 1/2

Plain convolutions without padding, ReLU after all but the last. L15 has 2.25 million weights only with the grouped
convolutions of layers 8, 9, 11, 12 and 14, which stand in the authors' deployed file and not in the paper; it sees 51 pixels. The
small ones, a tenth-size L10, are what CPU cores can train. In training nothing is padded, so the result is smaller than the
input (200 -> 150 for L15) and no border was ever made up; in use the border pixels are repeated, and the size stays.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from models.networks.network import RestorationNetwork
from models.networks.plain import checked_channels
from transforms.errors import ConfigurationError


@dataclass(frozen=True)
class Layers:
    """Filter sides, output channels (the last layer's are the picture's) and groups of each convolution."""

    sides: tuple[int, ...]
    features: tuple[int, ...]
    groups: tuple[int, ...] = ()


_L10_SIDES = (23, 1, 1, 1, 1, 3, 1, 5, 3, 5)
VARIANTS = {
    "L15": Layers(
        sides=(19, 1, 1, 1, 1, 3, 1, 5, 5, 3, 5, 5, 1, 7, 7),
        features=(128, 320, 320, 320, 128, 128, 512, 128, 128, 128, 128, 128, 256, 64),
        groups=(1, 1, 1, 1, 1, 1, 1, 4, 2, 1, 2, 2, 1, 2, 1),
    ),
    "L10-S": Layers(_L10_SIDES, (128, 320, 320, 320, 128, 128, 512, 48, 96)),
    "L10-M": Layers(_L10_SIDES, (196, 400, 400, 400, 156, 156, 512, 56, 128)),
    "L10-L": Layers(_L10_SIDES, (220, 512, 512, 512, 196, 196, 512, 64, 196)),
    # Ours: a quarter of L10-S's channels.
    "L10-XS": Layers((15, 1, 1, 1, 1, 3, 1, 5, 3, 5), (32, 80, 80, 80, 32, 32, 128, 12, 24)),
}


class TextDeblur(RestorationNetwork):
    """One of `VARIANTS`.

    Args:
        channels: 1 (grey) or 3 (colour).
        layers: the variant's table.
    """

    def __init__(self, channels: int, layers: Layers) -> None:
        super().__init__()
        self.receptive_field = 1 + sum(side - 1 for side in layers.sides)
        widths = [channels, *layers.features, channels]
        groups = layers.groups or (1,) * len(layers.sides)
        stack: list[nn.Module] = []
        for position, (side, group) in enumerate(zip(layers.sides, groups, strict=True)):
            convolution = nn.Conv2d(widths[position], widths[position + 1], side, groups=group)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)
            stack += [convolution, nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*stack[:-1])

    def forward(self, blurred: Tensor) -> Tensor:
        """N x C x H x W in [0, 1] -> the same shape, not clipped; in training `receptive_field - 1` pixels less each way."""
        centred = blurred - 0.5
        if not self.training:
            centred = functional.pad(centred, [self.receptive_field // 2] * 4, mode="replicate")
        restored: Tensor = self.body(centred)
        return restored + 0.5


def text_deblur(channels: int = 3, variant: str = "L15") -> TextDeblur:
    """L15 is the paper's best; L10-XS is ours, for a CPU."""
    if variant not in VARIANTS:
        raise ConfigurationError(f"text_deblur has no variant {variant!r}; expected one of {', '.join(VARIANTS)}")
    return TextDeblur(checked_channels(channels), VARIANTS[variant])
