"""The text deblurring networks of Hradis, Kotera, Zemcik, Sroubek, "Convolutional neural networks for direct text deblurring",
BMVC 2015: blind deblurring and denoising of document photographs in one pass.

    x = W15 * relu(W14 * ... relu(W1 * (y - 1/2)) ...) + 1/2

Plain convolutions without padding, ReLU after all but the last. L15 has 2.25 million weights only with the grouped
convolutions of layers 8, 9, 11, 12 and 14, which stand in the authors' deployed file and not in the paper; it sees 51 pixels.
In training nothing is padded, so the result is smaller than the input (200 -> 150 for L15) and no border was ever made up; in
use the border pixels are repeated, and the size stays.

R18, ours, is what CPU cores can train: eighteen layers on blocks of 4 x 4 pixels, which see 156 pixels at a sixteenth of the
positions. White paper is zero, pairs of layers add to what they get, and all of it adds to the input:

    h0 = relu(W1 * unshuffle(y - 0.95)),  hk = hk-1 + Wb * relu(Wa * hk-1),  k = 1 ... 8,  x = y + shuffle(W18 * h8)

R28, ours too, is R18 with ten more layers at half its resolution, where a position sees whole letters: after the fourth pair

    g0 = relu(D * h4),  gj = gj-1 + Wb * relu(Wa * gj-1),  j = 1 ... 4,  h4' = h4 + U * g4

with D of 2 x 2 and stride 2, U its transpose. U begins as zero, so that R18's weights in R28 compute the same.

Both pad their layers with zeros, paper, in training too: what the border loses is less than the context that wide blur asks for.

Source of the blocks: Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel convolutional
neural network", CVPR 2016; of the pairs: Lim et al., "Enhanced deep residual networks for single image super-resolution",
CVPRW 2017; of the second resolution: Ronneberger, Fischer, Brox, "U-Net: convolutional networks for biomedical image
segmentation", MICCAI 2015.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
}
R18, R28, BLOCK, PAPER = "R18", "R28", 4, 0.95


class TextDeblur(RestorationNetwork):
    """One of `VARIANTS`.

    Args:
        channels: 1 (grey) or 3 (colour).
        layers: the variant's table.
    """

    def __init__(self, channels: int, layers: Layers) -> None:
        super().__init__()
        self.receptive_field = 1 + sum(side - 1 for side in layers.sides)
        self.training_border = self.receptive_field // 2
        widths = [channels, *layers.features, channels]
        groups = layers.groups or (1,) * len(layers.sides)
        stack: list[nn.Module] = []
        for position, (side, group) in enumerate(zip(layers.sides, groups, strict=True)):
            stack += [_convolution(widths[position], widths[position + 1], side, groups=group), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*stack[:-1])

    def forward(self, blurred: Tensor) -> Tensor:
        """N x C x H x W in [0, 1] -> the same shape, not clipped; in training `2 * training_border` pixels less each way."""
        centred = blurred - 0.5
        if self.training:
            _refuse_small(blurred, self.training_border)
        else:
            centred = functional.pad(centred, [self.training_border] * 4, mode="replicate")
        restored: Tensor = self.body(centred)
        return restored + 0.5


class BlockTextDeblur(RestorationNetwork):
    """R18 and R28, as in the module's equations.

    Args:
        channels: 1 (grey) or 3 (colour).
        features: channels inside.
        pairs: of layers between the first and the last.
        coarse_features: channels at half the resolution.
        coarse_pairs: of layers there, in the middle of the others; none makes R18.
    """

    def __init__(
        self, channels: int, *, features: int = 128, pairs: int = 8, coarse_features: int = 192, coarse_pairs: int = 0
    ) -> None:
        super().__init__()
        self.receptive_field = BLOCK * (5 + 4 * pairs + 2)
        self.first = _convolution(channels * BLOCK**2, features, 5, padding=2)
        self.pairs = nn.ModuleList(_pair(features) for _ in range(pairs))
        self.coarse: nn.Module | None = None
        if coarse_pairs:
            self.coarse = _Coarse(features, coarse_features, coarse_pairs)
            self.receptive_field += BLOCK * (2 * 4 * coarse_pairs + 1)
        self.last = _convolution(features, channels * BLOCK**2, 3, padding=1, gain=0.05)  # at first close to the input

    def forward(self, blurred: Tensor) -> Tensor:
        """N x C x H x W in [0, 1] -> the same shape, not clipped."""
        multiple = BLOCK if self.coarse is None else 2 * BLOCK
        white = functional.pad(blurred - PAPER, [0, multiple - 1, 0, multiple - 1], mode="replicate")
        height, width = white.shape[-2:]  # whole blocks, the last one filled up
        white = white[..., : height // multiple * multiple, : width // multiple * multiple]
        hidden = functional.relu(self.first(functional.pixel_unshuffle(white, BLOCK)))
        for number, pair in enumerate(self.pairs, 1):
            hidden = hidden + pair(hidden)
            if self.coarse is not None and number == len(self.pairs) // 2:
                hidden = hidden + self.coarse(hidden)
        correction = functional.pixel_shuffle(self.last(hidden), BLOCK)
        return blurred + correction[..., : blurred.shape[-2], : blurred.shape[-1]]


class _Coarse(nn.Module):
    """What R28 adds, from `features` to `features` channels, at half the resolution between."""

    def __init__(self, features: int, coarse_features: int, pairs: int) -> None:
        super().__init__()
        self.down = _convolution(features, coarse_features, 2, stride=2)
        self.pairs = nn.ModuleList(_pair(coarse_features) for _ in range(pairs))
        self.up = nn.ConvTranspose2d(coarse_features, features, 2, stride=2)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, hidden: Tensor) -> Tensor:
        coarse = functional.relu(self.down(hidden))
        for pair in self.pairs:
            coarse = coarse + pair(coarse)
        addition: Tensor = self.up(coarse)
        return addition


def _pair(features: int) -> nn.Sequential:
    """What a pair of layers adds."""
    return nn.Sequential(
        _convolution(features, features, 3, padding=1),
        nn.ReLU(inplace=True),
        _convolution(features, features, 3, padding=1, gain=0.3),
    )


def _refuse_small(patch: Tensor, border: int) -> None:
    if min(patch.shape[-2:]) <= 2 * border:
        raise ConfigurationError(
            f"nothing is left of {patch.shape[-2]} x {patch.shape[-1]} pixels without padding; patch_size must be more than "
            f"{2 * border}"
        )


def _convolution(
    inputs: int, outputs: int, side: int, *, groups: int = 1, stride: int = 1, padding: int = 0, gain: float = 1.0
) -> nn.Conv2d:
    """With He's initialisation times `gain`."""
    convolution = nn.Conv2d(inputs, outputs, side, groups=groups, stride=stride, padding=padding)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    with torch.no_grad():
        convolution.weight.mul_(gain)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def text_deblur(channels: int = 3, variant: str = "L15") -> RestorationNetwork:
    """L15 is the paper's best; R18 and R28 are ours, for a CPU."""
    if variant in (R18, R28):
        return BlockTextDeblur(checked_channels(channels), coarse_pairs=4 if variant == R28 else 0)
    if variant not in VARIANTS:
        raise ConfigurationError(
            f"text_deblur has no variant {variant!r}; expected one of {', '.join([*VARIANTS, R18, R28])}"
        )
    return TextDeblur(checked_channels(channels), VARIANTS[variant])
