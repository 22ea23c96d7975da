"""The classifier of linear motion of Sun, Cao, Xu and Ponce, "Learning a convolutional neural network for non-uniform motion
blur removal", CVPR 2015: which of 73 motions blurred a patch of 30 x 30 pixels.

    30 x 30 x 3 -> 7x7 convolution, ReLU, 2x2 maximum -> 5x5 convolution, ReLU, 2x2 maximum (4 x 4 x 256)
    -> fully connected, ReLU -> fully connected, softmax

The fully connected layers are convolutions of 4x4 and 1x1, so that a larger picture gives the answers for all its windows of
30 x 30 pixels, 4 apart, in one pass: the same numbers as window by window.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from models.degradation.motion_labels import label_count
from models.networks.network import RestorationNetwork
from models.networks.plain import checked_channels
from transforms.errors import ConfigurationError

WINDOW = 30  # pixels
STRIDE = 4  # between two windows: the two maxima


@dataclass(frozen=True)
class Widths:
    """Features of the two convolutions and of the first fully connected layer; whether each is normalised over the batch."""

    first: int
    second: int
    connected: int
    normalised: bool


VARIANTS = {
    "paper": Widths(96, 256, 1024, normalised=False),
    "small": Widths(48, 96, 256, normalised=True),  # ours, for a CPU
}


class MotionPatches(RestorationNetwork):
    """N x C x H x W in [0, 1], H and W at least 30 -> N x 73 x h x w, h = (H - 30) // 4 + 1: confidences of the labels of
    `models.degradation.motion_labels` (73) for the window whose first pixel is (4 i, 4 j); in training their logarithms up to a
    constant.

    Args:
        channels: 1 (grey) or 3 (colour).
        widths: the variant's.
    """

    receptive_field = WINDOW
    min_size = WINDOW
    output_name = "confidences"

    def __init__(self, channels: int, widths: Widths) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for side, features, shrinks in (
            (7, widths.first, True),
            (5, widths.second, True),
            (4, widths.connected, False),
        ):
            convolution = nn.Conv2d(inputs, features, side, bias=not widths.normalised)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [convolution, *([nn.BatchNorm2d(features)] if widths.normalised else []), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)] if shrinks else []
            inputs = features
        self.body = nn.Sequential(*layers, nn.Conv2d(inputs, label_count(rotations=1), 1))

    def forward(self, blurred: Tensor) -> Tensor:
        """See the class."""
        scores: Tensor = self.body(blurred - 0.5)
        return scores if self.training else functional.softmax(scores, 1)


def motion_patches(channels: int = 3, variant: str = "small") -> MotionPatches:
    """`paper`: 4.9 million weights; `small`: 0.5 million, with batch normalisation."""
    if variant not in VARIANTS:
        raise ConfigurationError(f"motion_patches has no variant {variant!r}; expected one of {', '.join(VARIANTS)}")
    return MotionPatches(checked_channels(channels), VARIANTS[variant])
