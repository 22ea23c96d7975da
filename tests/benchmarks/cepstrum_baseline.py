"""Linear motion from the cepstrum of a patch: what the classifier of motion is measured against.

    c = F^-1 log |F (w y)|^2        w a Hann window, the mean of y removed, the three channels' logarithms averaged

A motion of l pixels multiplies the spectrum by |sin(pi l f) / (pi l f)|, with zeros every 1/l along its direction; so the
cepstrum gets a negative peak l pixels from the origin in that direction, and smaller ones at its multiples.

`by_peak` takes the label at whose place the cepstrum is lowest, in standard deviations of the cepstra of sharp pictures there,
and label 0 if none is low enough. `by_match` compares the whole neighbourhood: the label whose kernel's own expected cepstrum,
found by blurring white noise, is nearest to the patch's in the same standard deviations.

Source: Cannon, "Blind deconvolution of spatially invariant image blurs with phase", IEEE Trans. ASSP 24(1), 1976; Rom, "On the
cepstrum of two-dimensional functions", IEEE Trans. Information Theory 21(2), 1975.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.degradation.blur_kernels import line
from models.degradation.convolution import convolve
from models.degradation.motion_labels import label_count, label_vectors, motion_of_label

Array = NDArray[np.floating]
SIDE = 64  # of the Fourier transform; patches are padded with zeros
REACH = 27  # pixels from the origin that are compared
NOISE_PATCHES = 64
FLOOR = 1e-6  # of the power: below 8-bit quantisation


def cepstra(patches: Array) -> Array:
    """N x C x H x W -> N x 55 x 55, the origin in the middle."""
    height, width = patches.shape[2:]
    window = np.hanning(height + 2)[1:-1, np.newaxis] * np.hanning(width + 2)[1:-1]
    centred = patches - patches.mean((2, 3), keepdims=True)
    power = np.abs(np.fft.fft2(centred * window, (SIDE, SIDE))) ** 2
    logarithm = np.log(power + FLOOR * power.mean((2, 3), keepdims=True) + 1e-12).mean(1)
    whole = np.fft.fftshift(np.fft.ifft2(logarithm).real, (1, 2))
    middle = SIDE // 2
    return whole[:, middle - REACH : middle + REACH + 1, middle - REACH : middle + REACH + 1]


class CepstrumBaseline:
    """Both ways; calibrated on sharp patches and, for label 0, on blurred ones, none of the test's pictures among them."""

    def __init__(self, sharp: Array, blurred: Array, labels: NDArray[np.int64]) -> None:
        found = cepstra(sharp)
        self._mean, self._std = found.mean(0), found.std(0) + 1e-9
        self._templates = self._expected()
        depths = self._depths(blurred)
        self._threshold = _best_threshold(depths, labels)

    def by_peak(self, patches: Array) -> NDArray[np.int64]:
        """N labels."""
        depths = self._depths(patches)
        return np.where(depths.max(1) < self._threshold, 0, 1 + depths.argmax(1))

    def by_match(self, patches: Array) -> NDArray[np.int64]:
        """N labels."""
        change = ((cepstra(patches) - self._mean) / self._std).reshape(len(patches), -1)
        distance = (self._templates**2).sum(1) - 2 * change @ self._templates.T
        return distance.argmin(1)

    def _depths(self, patches: Array) -> Array:
        """N x 72: how low the cepstrum is at each moving label's place, in standard deviations."""
        change = (cepstra(patches) - self._mean) / self._std
        places = label_vectors(1)[1:, ::-1].T + REACH  # rows, columns
        return np.stack([-ndimage.map_coordinates(each, places, order=1) for each in change])

    def _expected(self) -> Array:
        """73 x 55 * 55: what each kernel does to the cepstrum of white noise, in standard deviations of sharp pictures."""
        rng = np.random.Generator(np.random.Philox(key=1))
        noise = rng.normal(0.5, 0.2, (NOISE_PATCHES, 1, 30 + 26, 30 + 26)).astype(np.float32)
        rounding = rng.uniform(-0.5, 0.5, (NOISE_PATCHES, 1, 30, 30)) / 255
        means = []
        for label in range(label_count(1)):
            blurred = convolve(noise, line(*motion_of_label(label, 1)), "circular")[..., 13:-13, 13:-13]
            means.append(cepstra(blurred + rounding).mean(0))
        return ((np.stack(means) - means[0]) / self._std).reshape(len(means), -1)


def _best_threshold(depths: Array, labels: NDArray[np.int64]) -> float:
    """The depth below which label 0 is the better answer, by the share of right answers."""
    candidates = np.quantile(depths.max(1), np.linspace(0, 1, 101))
    answers = 1 + depths.argmax(1)
    right = [(np.where(depths.max(1) < each, 0, answers) == labels).mean() for each in candidates]
    return float(candidates[int(np.argmax(right))])
