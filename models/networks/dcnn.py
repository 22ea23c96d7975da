"""DCNN and ODCNN: Xu, Ren, Liu, Jia, "Deep convolutional neural network for image deconvolution", NIPS 2014.

Both undo one known blur k. Its pseudo-inverse is almost separable, and so becomes the first weights of a network:

    F(w) = conj F(k) / (|F(k)|^2 + q),   w ~ sum_j s_j u_j v_j^T         q: noise to signal
    h1 = tanh(A * y)                     A: 121 x 1, one filter u_j for each map
    h2 = tanh(B * h1)                    B: 1 x 121, v_j from map j to map j and zero between maps, until training fills it
    x  = c^T h2                          c: the s_j

ODCNN rejects outliers (saturated pixels, JPEG blocks) behind it. Its first kernels take all maps, as c and they are both linear:

    r1 = relu((K c^T + R) * h2)          512 kernels of 16 x 16 x 38; K: 16 x 16, R: what training adds
    r2 = relu(C * r1)                    512 of 1 x 1
    x  = D * r2                          8 x 8

The paper's sizes are the defaults. It prints "SNR = 1e-4" for q. Ours: the ReLU (the paper's outlier layers are not at hand), the
sum K c^T + R, and first weights with which two features carry +-c^T h2 through, so that ODCNN begins as the DCNN that it is given.

In training nothing is padded and the result is smaller (184 -> 42 for ODCNN); in use border pixels are repeated.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.degradation.blur_kernels import disk
from models.networks.network import RestorationNetwork
from transforms.errors import ConfigurationError

INITIAL = ("pseudo-inverse", "random")
_FFT_SIDE = 512  # of the plane on which the inverse is computed; it has decayed long before
_SPREAD = 0.2  # of the hidden layers at first: tanh bends such values by about 1 %
_CORRELATION, _CONTRAST = 0.97, 0.25  # of neighbouring pixels; standard deviation of a picture


def pseudo_inverse(kernel: NDArray[np.floating], taps: int, noise_to_signal: float) -> NDArray[np.float64]:
    """The middle of w = F^-1{conj F(k) / (|F(k)|^2 + q)}.

    Cutting takes low frequencies away (the sum of 121 x 121 for a disk of radius 7 is -2), so a constant is added that makes the
    sum what it was, 1 / (1 + q) for a kernel of sum 1.

    Args:
        kernel: kh x kw, its origin at (kh // 2, kw // 2).
        taps: side of the result, odd.
        noise_to_signal: q > 0.

    Returns:
        taps x taps, to be convolved with; origin in the middle.
    """
    whole = whole_pseudo_inverse(kernel, noise_to_signal)
    middle: NDArray[np.float64] = np.roll(whole, (taps // 2, taps // 2), (0, 1))[:taps, :taps]
    middle += (whole.sum() - middle.sum()) / taps**2
    return middle


def whole_pseudo_inverse(
    kernel: NDArray[np.floating], noise_to_signal: float, size: tuple[int, ...] = (_FFT_SIDE, _FFT_SIDE)
) -> NDArray[np.float64]:
    """The periodic inverse on height x width, its origin at (0, 0)."""
    plane = np.zeros(size)
    plane[: kernel.shape[0], : kernel.shape[1]] = kernel
    spectrum = np.fft.fft2(np.roll(plane, [-(length // 2) for length in kernel.shape], (0, 1)))
    inverse: NDArray[np.float64] = np.fft.ifft2(spectrum.conj() / (np.abs(spectrum) ** 2 + noise_to_signal)).real
    return inverse


class DCNN(RestorationNetwork):
    """Deconvolution for one disk, plane by plane.

    Args:
        taps: length of the one-dimensional filters, odd.
        maps: how many of them.
        initial: "pseudo-inverse" or "random" (Glorot).
        radius_px: of the disk whose inverse it begins with.
        noise_to_signal: q of that inverse.
    """

    def __init__(self, taps: int, maps: int, initial: str, radius_px: float, noise_to_signal: float) -> None:
        super().__init__()
        self.receptive_field = taps
        self.training_border = taps // 2
        self.columns = nn.Conv2d(1, maps, (taps, 1))
        self.rows = nn.Conv2d(maps, maps, (1, taps))
        self.combine = nn.Conv2d(maps, 1, 1)
        for layer in (self.columns, self.rows, self.combine):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if initial == "pseudo-inverse":
            self.set_separable(pseudo_inverse(disk(radius_px), taps, noise_to_signal))

    @torch.no_grad()
    def set_separable(self, inverse: NDArray[np.float64], spread: float = _SPREAD) -> None:
        """Sets the weights to the largest singular vectors of a kernel, taps x taps.

        What the network then computes differs from the convolution by the rank that is left out, and by the bend of tanh, a part of
        order spread^2.

        Args:
            inverse: to be convolved with, origin in the middle.
            spread: standard deviation of h1 and h2 for the usual model of pictures, neighbours correlated by 0.97.
        """
        left, values, right = np.linalg.svd(inverse[::-1, ::-1])  # layers correlate
        maps, places = self.columns.out_channels, np.arange(len(values))
        pictures = _CORRELATION ** np.abs(places[:, np.newaxis] - places)
        gains = [np.sqrt(np.einsum("ti,ij,tj->t", each, pictures, each)) for each in (left.T[:maps], right[:maps])]
        columns = left.T[:maps] * (spread / (_CONTRAST * gains[0]))[:, np.newaxis]
        rows = right[:maps] / gains[1][:, np.newaxis]
        combine = values[:maps] * _CONTRAST * gains[0] * gains[1] / spread
        for layer in (self.columns, self.rows, self.combine):
            layer.weight.zero_()
        self.columns.weight[:, 0, :, 0] = torch.from_numpy(columns)
        self.rows.weight[range(maps), range(maps), 0] = torch.from_numpy(rows).to(self.rows.weight.dtype)
        self.combine.weight[0, :, 0, 0] = torch.from_numpy(combine)

    def forward(self, blurred: Tensor) -> Tensor:
        """N x 1 x H x W in [0, 1] -> the same shape, not clipped; in training without a border of `training_border`."""
        restored: Tensor = self.combine(self.maps(blurred))
        return restored + 0.5

    def maps(self, blurred: Tensor) -> Tensor:
        """h2, N x maps x H' x W'."""
        centred = blurred - 0.5
        if not self.training:
            centred = functional.pad(centred, [self.training_border] * 4, mode="replicate")
        maps: Tensor = torch.tanh(self.rows(torch.tanh(self.columns(centred))))
        return maps


class ODCNN(DCNN):
    """DCNN with outlier rejection.

    Args:
        features: of the outlier rejection's two hidden layers.
        sides: of its first and last kernels; their sum is even.
        others: as for `DCNN`.
    """

    def __init__(
        self, taps: int, maps: int, initial: str, radius_px: float, noise_to_signal: float,
        features: int, sides: tuple[int, int],
    ) -> None:  # fmt: skip
        super().__init__(taps, maps, initial, radius_px, noise_to_signal)
        self.receptive_field = taps + sum(sides) - 2
        self.training_border = self.receptive_field // 2
        self.reject = nn.Conv2d(1, features, sides[0])
        self.correction = nn.Parameter(torch.zeros(features, maps, sides[0], sides[0]))
        self.mix = nn.Conv2d(features, features, 1)
        self.gather = nn.Conv2d(features, 1, sides[1])
        self._carry_through(sides)

    @torch.no_grad()
    def _carry_through(self, sides: tuple[int, int]) -> None:
        """relu(a) - relu(-a) = a: features 0 and 1 carry the DCNN's result, all others begin without a say in the output."""
        first = sides[0] // 2
        last = (sum(sides) - 2) // 2 - first
        for layer in (self.reject, self.mix):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for layer in (self.reject, self.mix, self.gather):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.gather.weight)
        for feature, sign in ((0, 1.0), (1, -1.0)):
            self.reject.weight[feature] = 0
            self.reject.weight[feature, 0, first, first] = sign
            self.mix.weight[feature] = 0
            self.mix.weight[feature, feature] = 1
            self.gather.weight[0, feature, last, last] = sign

    def merged_kernels(self) -> Tensor:
        """K c^T + R: features x maps x side x side."""
        merged: Tensor = self.reject.weight * self.combine.weight + self.correction
        return merged

    def merged_bias(self) -> Tensor:
        """What the bias of c^T h2 adds to each feature, with its own bias."""
        assert self.reject.bias is not None
        assert self.combine.bias is not None
        return self.reject.bias + self.combine.bias * self.reject.weight.sum((1, 2, 3))

    def forward(self, blurred: Tensor) -> Tensor:
        """N x 1 x H x W in [0, 1] -> the same shape, not clipped; in training without a border of `training_border`."""
        rejected = functional.relu(functional.conv2d(self.maps(blurred), self.merged_kernels(), self.merged_bias()))
        restored: Tensor = self.gather(functional.relu(self.mix(rejected)))
        return restored + 0.5


def dcnn(
    channels: int = 1, taps: int = 121, maps: int = 38, initial: str = "pseudo-inverse",
    radius_px: float = 7, noise_to_signal: float = 1e-4,
) -> DCNN:  # fmt: skip
    """The paper's deconvolution network, for a disk.

    Raises:
        ConfigurationError: more than one channel, an even number of taps, an unknown `initial`, a number that is not positive.
    """
    _check(channels, taps, maps, initial, radius_px, noise_to_signal)
    return DCNN(taps, maps, initial, radius_px, noise_to_signal)


def odcnn(
    channels: int = 1, taps: int = 121, maps: int = 38, initial: str = "pseudo-inverse",
    radius_px: float = 7, noise_to_signal: float = 1e-4,
    features: int = 512, sides: tuple[int, int] = (16, 8),
) -> ODCNN:  # fmt: skip
    """The paper's deconvolution network with outlier rejection, for a disk.

    Raises:
        ConfigurationError: as `dcnn`; fewer than two features, or sides whose sum is odd.
    """
    _check(channels, taps, maps, initial, radius_px, noise_to_signal)
    if features < 2:
        raise ConfigurationError(
            f"odcnn needs 2 or more features, not {features!r}: two carry the deconvolution's result"
        )
    if len(sides) != 2 or min(sides) < 1 or sum(sides) % 2:
        raise ConfigurationError(
            f"odcnn: sides {list(sides)!r}: expected two positive numbers with an even sum, such as [16, 8]"
        )
    return ODCNN(taps, maps, initial, radius_px, noise_to_signal, features, (sides[0], sides[1]))


def _check(channels: int, taps: int, maps: int, initial: str, radius_px: float, noise_to_signal: float) -> None:
    if channels != 1:
        raise ConfigurationError(f"dcnn and odcnn restore plane by plane: channels must be 1, not {channels!r}")
    if initial not in INITIAL:
        raise ConfigurationError(f"initial: {initial!r} is not one of {', '.join(INITIAL)}")
    if taps % 2 == 0 or not 1 <= maps <= taps < _FFT_SIDE:
        raise ConfigurationError(
            f"taps {taps!r}, maps {maps!r}: taps must be odd and below {_FFT_SIDE}, maps from 1 to taps"
        )
    if radius_px <= 0 or noise_to_signal <= 0:
        raise ConfigurationError(f"radius_px {radius_px!r} and noise_to_signal {noise_to_signal!r} must be above 0")
