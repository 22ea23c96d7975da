"""ScSR: Yang, Wright, Huang, Ma, "Image super-resolution via sparse representation", IEEE TIP 2010, as one graph.

    f = 255 H * y,  u = f / max(|f|, 1)                     4 derivatives at each of the 5 x 5 pixels around a pixel
    a = argmin_a 1/2 |u - D_l a|^2 + lambda |a|_1           by so many steps of FISTA from zero
    x_0 = y + mean of the 25 patches D_h a max(|f|, 1) / 255 that cover a pixel
    x_(k+1) = x_k + G * (y - E S x_k)                       back-projection: S shrinks to half, E enlarges, G smooths

The input y is the luma, enlarged twice by MATLAB's bicubic; so y = E (small picture), and y - E S x_k is the enlarged error that
the paper projects back. D_l and D_h are learned together, without gradients, by `models.dictionaries`. D_h predicts the detail
that enlargement lost (Zeyde, Elad, Protter, "On single image scale-up using sparse-representations", 2010), in the unit of the
derivatives' norm; the paper's predicts the patch without its mean and needs a factor of 1.2 found by hand.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.lista import lipschitz
from models.networks.network import RestorationNetwork
from models.networks.scn import BORDER, GRADIENTS, PATCH, gradient_filters, shrink
from transforms.errors import ConfigurationError
from transforms.planes.resampling import cubic

# One back-projection sees 7 pixels by shrinking and enlarging and 2 by smoothing.
PROJECTION_BORDER = 9


class ScSR(RestorationNetwork):
    """One doubling.

    Args:
        atoms: columns of both dictionaries.
        steps: of FISTA.
        weight: lambda.
        projections: steps of back-projection.
    """

    low: nn.Parameter
    high: nn.Parameter
    bound: Tensor
    filters: Tensor
    places: Tensor
    halve: Tensor
    smooth: Tensor

    def __init__(self, atoms: int, steps: int, weight: float, projections: int) -> None:
        super().__init__()
        self.steps, self.weight, self.projections = steps, weight, projections
        self.receptive_field = 2 * (BORDER + PROJECTION_BORDER * projections) + 1
        low = torch.randn(GRADIENTS, atoms)
        self.low = nn.Parameter(low / low.norm(dim=0), requires_grad=False)
        self.high = nn.Parameter(torch.zeros(PATCH**2, atoms), requires_grad=False)
        self.register_buffer("bound", torch.tensor(lipschitz(self.low)))
        constants = {
            "filters": gradient_filters(),
            "places": torch.eye(PATCH**2).reshape(1, PATCH**2, PATCH, PATCH).flip(2, 3) / PATCH**2,
            "halve": _halving_filter(),
            "smooth": _smoothing_filter(),
        }
        for name, values in constants.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, enlarged: Tensor) -> Tensor:
        """N x 1 x H x W luma in [0, 1], enlarged twice -> the same shape, not clipped."""
        directions, norms = self.features(functional.pad(enlarged, [BORDER] * 4, mode="replicate"))
        patches = functional.conv2d(self.codes(directions), self.high[:, :, None, None]) * (norms / 255)
        restored = enlarged + functional.conv2d(patches, self.places)
        for _ in range(self.projections):
            restored = restored + _filtered(enlarged - self.shrunk_and_enlarged(restored), self.smooth)
        return restored

    def features(self, padded: Tensor) -> tuple[Tensor, Tensor]:
        """u and max(|f|, 1) of a picture that is 4 pixels larger on each side: N x 100 x H x W, N x 1 x H x W."""
        gradients = functional.conv2d(255 * padded, self.filters)
        norms = (gradients * gradients).sum(dim=1, keepdim=True).clamp_min(1.0).sqrt()
        return gradients / norms, norms

    def codes(self, directions: Tensor) -> Tensor:
        """N x 100 x H x W -> N x atoms x H x W: `models.networks.lista.fista` at each pixel."""
        unit = self.weight / self.bound  # codes are computed in this unit, in which the threshold is 1
        momentum = (1 + math.sqrt(5)) / 2  # after the first step, which is taken here
        driven = functional.conv2d(directions, (self.low.T / self.weight)[:, :, None, None])
        identity = torch.eye(self.low.shape[1], dtype=self.low.dtype, device=self.low.device)
        inhibit = (identity - self.low.T @ self.low / self.bound)[:, :, None, None]
        codes = ahead = shrink(driven, 1.0)
        for _ in range(self.steps - 1):
            earlier = codes
            following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            codes = shrink(driven + functional.conv2d(ahead, inhibit), 1.0)
            ahead = codes + (momentum - 1) / following * (codes - earlier)
            momentum = following
        return codes * unit

    def set_low(self, low: Tensor) -> None:
        """Takes a new D_l, 100 x atoms, and its Lipschitz bound."""
        with torch.no_grad():
            self.low.copy_(low)
            self.bound.fill_(lipschitz(self.low))

    def shrunk_and_enlarged(self, pictures: Tensor) -> Tensor:
        """E S x: halved and doubled by MATLAB's bicubic; beyond the border samples repeat.

        S is computed at every pixel and kept at every other one, where the small picture's pixels lie; E is 4 S' inside.
        """
        small = functional.conv2d(functional.pad(pictures, [7] * 4, mode="replicate"), self.halve)
        rows, columns = (1 - torch.arange(side, device=small.device) % 2 for side in small.shape[-2:])
        return functional.conv2d(small * (rows[:, None] * columns), 4 * self.halve)


def scsr(channels: int = 1, atoms: int = 256, steps: int = 20, weight: float = 0.1, projections: int = 4) -> ScSR:
    """The paper: 512 or 1024 atoms, feature-sign search, lambda 0.2, 20 projections; fewer run in seconds."""
    if channels != 1:
        raise ConfigurationError(f"scsr restores luma: channels must be 1, not {channels!r}")
    if atoms < 1 or steps < 1 or projections < 0 or weight <= 0:
        raise ConfigurationError(
            f"scsr needs at least 1 atom and 1 step, 0 projections and a positive weight, not {atoms!r}, {steps!r}, "
            f"{projections!r} and {weight!r}"
        )
    return ScSR(atoms, steps, weight, projections)


def _halving_filter() -> Tensor:
    """What MATLAB's antialiased bicubic weighs to halve a picture: 1 x 1 x 8 x 8."""
    row = cubic((np.arange(8) - 3.5) / 2, -0.5) / 2
    return torch.from_numpy(np.outer(row, row)).float()[None, None]


def _smoothing_filter() -> Tensor:
    """The authors' kernel: a Gaussian of sigma 1 on 5 x 5 pixels, squared, of sum 1."""
    line = torch.exp(-((torch.arange(5.0) - 2) ** 2))
    square = torch.outer(line, line)
    return (square / square.sum())[None, None]


def _filtered(pictures: Tensor, kernel: Tensor) -> Tensor:
    return functional.conv2d(functional.pad(pictures, [kernel.shape[-1] // 2] * 4, mode="replicate"), kernel)
