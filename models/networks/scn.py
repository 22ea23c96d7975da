"""SCN: Wang, Liu, Yang, Han, Huang, "Deep networks for image super-resolution with sparse prior", ICCV 2015.

    f = H * y / |H * y|                       100 gradients of the 5x5 patch around each pixel, of unit length
    z = ShLU(S ShLU(W f) + W f)               LISTA: a sparse code of 128 atoms; `stages` of S share their weights
    p = D z / |D z|  |M * y|  1.1             the 5x5 patch of detail, as strong as the one that is there
    x = m * y + sum of the patches that overlap a pixel, each position with its weight

    ShLU(a) = sign(a) max(|a| - 1, 0)         the learnable thresholds are folded into W, S and D

The input y is the luma, enlarged twice by OpenCV's bicubic (a = -0.75; with MATLAB's a = -0.5 the published weights lose 0.35
dB). Larger factors cascade such networks; `CSCN` of the paper. About 43,000 weights, receptive field 13.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.network import RestorationNetwork
from transforms.errors import ConfigurationError

GRADIENTS, ATOMS, PATCH = 100, 128, 5
BORDER = 6  # 4 of the 9 x 9 filters and 2 of the patches that cover a pixel
STRENGTH = 1.1  # the authors' constant: detail patches are made a little stronger than what is there
_FLAT = 1e-4  # a gradient far below one grey level: flat patches have no direction, and theirs would not be smooth
_DERIVATIVES = ((0, -1, 0, 1, 0), (1, 0, -2, 0, 1))  # Yang et al., "Image super-resolution via sparse representation"


class SCN(RestorationNetwork):
    """One doubling of the cascade.

    Args:
        stages: recurrent stages of LISTA; the paper's network has one.
    """

    receptive_field = 2 * BORDER + 1
    min_size = BORDER + 1
    places: Tensor

    def __init__(self, stages: int) -> None:
        super().__init__()
        self.stages = stages
        self.gradients = nn.Conv2d(1, GRADIENTS, 9, bias=False)
        self.encode = nn.Conv2d(GRADIENTS, ATOMS, 1, bias=False)
        self.inhibit = nn.Conv2d(ATOMS, ATOMS, 1, bias=False)
        self.decode = nn.Conv2d(ATOMS, PATCH**2, 1, bias=False)
        self.detail = nn.Conv2d(1, PATCH**2, 9, bias=False)
        self.mean = nn.Conv2d(1, 1, 13, bias=False)
        self.position_weights = nn.Parameter(torch.full((PATCH**2,), 1 / PATCH**2))
        places = torch.eye(PATCH**2).reshape(1, PATCH**2, PATCH, PATCH)
        self.register_buffer("places", places.flip(2, 3), persistent=False)
        self._initialise()

    def forward(self, enlarged: Tensor) -> Tensor:
        """N x 1 x H x W luma in [0, 1], enlarged twice -> the same shape, not clipped; H and W above 6."""
        padded = functional.pad(enlarged, [BORDER] * 4, mode="reflect")
        gradients = self.gradients(padded)
        driven = self.encode(gradients) / _norms(gradients)
        # The same function twice: one is quick to learn with, of the other onnxruntime makes two operators and not seven.
        threshold = functional.softshrink if self.training else shrink
        code = threshold(driven, 1.0)
        for _ in range(self.stages):
            code = threshold(self.inhibit(code) + driven, 1.0)
        patches = self.decode(code)
        patches = patches / _norms(patches) * _norms(self.detail(padded)) * STRENGTH
        weights = self.places * self.position_weights.reshape(1, -1, 1, 1)
        restored: Tensor = self.mean(padded) + functional.conv2d(patches, weights)
        return restored

    def _initialise(self) -> None:
        """Begins with the picture as it is and a random dictionary; a third of a code's 128 atoms are active."""
        nn.init.dirac_(self.mean.weight)
        with torch.no_grad():
            self.gradients.weight.copy_(gradient_filters())
            self.detail.weight.copy_(_mean_removing_filters())
        nn.init.normal_(self.encode.weight)
        nn.init.zeros_(self.inhibit.weight)
        nn.init.normal_(self.decode.weight)


def shrink(values: Tensor, threshold: float) -> Tensor:
    """ShLU(a) = sign(a) max(|a| - t, 0) = a - min(max(a, -t), t)."""
    return values - values.clamp(-threshold, threshold)


def _norms(vectors: Tensor) -> Tensor:
    """sqrt(|v|^2 + flat^2) of N x C x H x W along C, summed in float32: N x 1 x H x W."""
    squares: Tensor = (vectors * vectors).sum(dim=1, keepdim=True, dtype=torch.float32)
    return (squares + _FLAT**2).sqrt().to(vectors.dtype)


def gradient_filters() -> Tensor:
    """First and second derivatives along rows and columns at each of the 5 x 5 places of a patch: 100 x 1 x 9 x 9."""
    filters = torch.zeros(GRADIENTS, 1, 9, 9)
    for number in range(GRADIENTS):
        place, kind = divmod(number, 4)
        row, column = divmod(place, PATCH)
        taps = torch.tensor(_DERIVATIVES[kind // 2], dtype=torch.float32)
        middle = PATCH // 2
        if kind % 2:
            filters[number, 0, row : row + PATCH, column + middle] = taps
        else:
            filters[number, 0, row + middle, column : column + PATCH] = taps
    return filters


def _mean_removing_filters() -> Tensor:
    """Each pixel of a 5 x 5 patch less the patch's mean: 25 x 1 x 9 x 9."""
    inside = torch.eye(PATCH**2) - 1 / PATCH**2
    return functional.pad(inside.reshape(PATCH**2, 1, PATCH, PATCH), [2] * 4)


def scn(channels: int = 1, stages: int = 1) -> SCN:
    """The paper's network for a factor of two."""
    if channels != 1:
        raise ConfigurationError(f"scn restores luma: channels must be 1, not {channels!r}")
    if stages < 0:
        raise ConfigurationError(f"scn needs 0 or more recurrent stages, not {stages!r}")
    return SCN(stages)
