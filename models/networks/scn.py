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
BORDER = 6
STRENGTH = 1.1  # the authors' constant: detail patches are made a little stronger than what is there
_SMALLEST_NORM = 1e-6  # flat patches have no direction


class SCN(RestorationNetwork):
    """One doubling of the cascade.

    Args:
        stages: recurrent stages of LISTA; the paper's network has one.
    """

    receptive_field = 2 * BORDER + 1
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

    def forward(self, enlarged: Tensor) -> Tensor:
        """N x 1 x H x W luma in [0, 1], enlarged twice -> the same shape, not clipped; H and W above 6."""
        padded = functional.pad(enlarged, [BORDER] * 4, mode="reflect")
        features = _unit(self.gradients(padded))
        driven = self.encode(features)
        code = shrink(driven)
        for _ in range(self.stages):
            code = shrink(self.inhibit(code) + driven)
        strength = torch.linalg.vector_norm(self.detail(padded), dim=1, keepdim=True)
        patches = _unit(self.decode(code)) * strength * STRENGTH
        weights = self.places * self.position_weights.reshape(1, -1, 1, 1)
        restored: Tensor = self.mean(padded) + functional.conv2d(patches, weights)
        return restored


def shrink(values: Tensor) -> Tensor:
    """ShLU(a) = sign(a) max(|a| - 1, 0), written with two ReLUs."""
    return functional.relu(values - 1) - functional.relu(-values - 1)


def scn(channels: int = 1, stages: int = 1) -> SCN:
    """The paper's network for a factor of two."""
    if channels != 1:
        raise ConfigurationError(f"scn restores luma: channels must be 1, not {channels!r}")
    if stages < 0:
        raise ConfigurationError(f"scn needs 0 or more recurrent stages, not {stages!r}")
    return SCN(stages)


def _unit(vectors: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / norms.clamp_min(_SMALLEST_NORM)
