"""A classifier of linear motion that looks at spectra: ours, for a CPU, in the place of the paper's convolutions on pixels.

    P_c = |F (w (y_c - mean y_c))|^2           of each window of 30 x 30 pixels and channel c; w a Hann window
    s   = mean_c log(P_c + e)                  544 frequencies: half of a transform of 32 x 32
    C   = softmax(W3 relu(W2 relu(W1 s)))      batch normalisation after W1 and W2, and of each frequency before

A motion of l pixels multiplies the spectrum by sin(pi l f) / (pi l f): its zeros are dark stripes in s, across the motion and 1/l
apart, whatever the picture is. Learned from these, 46,000 patches suffice where convolutions on pixels had learned next to
nothing. The transform is two fixed convolutions, along rows and along columns, so that a larger picture gives the answers for
all its windows, 4 pixels apart: the same numbers as window by window.

Labels and patches are those of Sun, Cao, Xu and Ponce, "Learning a convolutional neural network for non-uniform motion blur
removal", CVPR 2015; the stripes those of Cannon, "Blind deconvolution of spatially invariant image blurs with phase", IEEE
Trans. ASSP 24(1), 1976.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.degradation.motion_labels import label_count
from models.networks.motion_patches import STRIDE, WINDOW
from models.networks.network import RestorationNetwork
from models.networks.plain import checked_channels
from transforms.errors import ConfigurationError

SIDE = 32  # of the transform
_FLOOR = 1e-4  # of the power: about that of rounding to 8 bit under the window


class MotionSpectrum(RestorationNetwork):
    """Takes and gives what `models.networks.motion_patches.MotionPatches` does.

    Args:
        channels: 1 (grey) or 3 (colour).
        widths: features of the two hidden layers.
    """

    receptive_field = WINDOW
    min_size = WINDOW
    output_name = "confidences"
    along_rows: Tensor
    along_columns: Tensor
    of_ones: Tensor

    def __init__(self, channels: int, widths: tuple[int, int]) -> None:
        super().__init__()
        self.channels = channels
        along_rows, along_columns, of_ones = _transform()
        for name, fixed in (("along_rows", along_rows), ("along_columns", along_columns), ("of_ones", of_ones)):
            self.register_buffer(name, fixed, persistent=False)
        frequencies = SIDE * (SIDE // 2 + 1)
        layers: list[nn.Module] = [nn.Conv2d(frequencies, frequencies, 1, groups=frequencies, bias=False)]
        nn.init.ones_(layers[0].weight)  # type: ignore[arg-type]  # it only carries the normalisation
        layers += [nn.BatchNorm2d(frequencies)]
        inputs = frequencies
        for width in widths:
            layers += [nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            inputs = width
        self.body = nn.Sequential(*layers, nn.Conv2d(inputs, label_count(rotations=1), 1))

    def forward(self, blurred: Tensor) -> Tensor:
        """N x C x H x W in [0, 1] -> N x 73 x h x w, see `MotionPatches`."""
        scores: Tensor = self.body(self.log_spectra(blurred))
        return scores if self.training else functional.softmax(scores, 1)

    def log_spectra(self, blurred: Tensor) -> Tensor:
        """N x 544 x h x w, in float32 whatever the training's precision: the zeros drown in anything less."""
        if torch.is_autocast_enabled(blurred.device.type):
            with torch.autocast(blurred.device.type, enabled=False):
                return self.log_spectra(blurred.float())
        planes = (blurred - 0.5).reshape(-1, 1, *blurred.shape[2:])
        rows = functional.conv2d(planes, self.along_rows, stride=(1, STRIDE))
        both = functional.conv2d(rows, self.along_columns, stride=(STRIDE, 1), groups=SIDE // 2 + 1)
        mean = functional.avg_pool2d(planes, WINDOW, STRIDE)
        centred = both - mean * self.of_ones
        parts = centred.reshape(centred.shape[0], SIDE // 2 + 1, 2, SIDE, *centred.shape[2:])
        power = (parts[:, :, 0].square() + parts[:, :, 1].square()).flatten(1, 2)
        logarithms = torch.log(power + _FLOOR)
        return logarithms.reshape(-1, self.channels, *logarithms.shape[1:]).mean(1)


def _transform() -> tuple[Tensor, Tensor, Tensor]:
    """Filters of the windowed transform: along rows, 34 x 1 x 1 x 30; along columns, 1088 x 2 x 30 x 1 in 17 groups, each 32 real
    and 32 imaginary parts; and what it makes of ones, 1 x 1088 x 1 x 1."""
    places = torch.arange(WINDOW, dtype=torch.float64)
    hann = torch.sin(math.pi * (places + 1) / (WINDOW + 1)) ** 2
    turns = 2 * math.pi / SIDE * torch.arange(SIDE, dtype=torch.float64)[:, None] * places
    cos, sin = hann * torch.cos(turns), hann * torch.sin(turns)
    half = SIDE // 2 + 1
    along_rows = torch.stack([cos[:half], -sin[:half]], 1).reshape(2 * half, 1, 1, WINDOW)
    real, imaginary = (
        torch.stack([cos, sin], 1),
        torch.stack([-sin, cos], 1),
    )  # (a + ib)(c - is) = ac + bs + i (bc - as)
    along_columns = torch.cat([real, imaginary]).reshape(2 * SIDE, 2, WINDOW, 1).repeat(half, 1, 1, 1)
    rows = functional.conv2d(torch.ones(1, 1, WINDOW, WINDOW, dtype=torch.float64), along_rows)
    of_ones = functional.conv2d(rows, along_columns, groups=half)
    return along_rows.float(), along_columns.float(), of_ones.float()


def motion_spectrum(channels: int = 3, widths: tuple[int, int] = (512, 256)) -> MotionSpectrum:
    """0.43 million weights."""
    if len(widths) != 2 or min(widths) < 1:
        raise ConfigurationError(f"motion_spectrum needs two widths of at least 1, not {list(widths)}")
    return MotionSpectrum(checked_channels(channels), (widths[0], widths[1]))
