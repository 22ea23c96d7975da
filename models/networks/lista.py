"""Sparse coding: ISTA, FISTA, and LISTA, the network that learns to do it in few steps.

    min_a  F(a) = 1/2 |y - D a|^2 + lambda |a|_1,       L >= the largest eigenvalue of D'D

    ISTA     a_(k+1) = h(a_k + D'(y - D a_k) / L)                           F - F* <= L |a_0 - a*|^2 / (2 k)
    FISTA    the same step from  b_(k+1) = a_k + (t_k - 1) / t_(k+1) (a_k - a_(k-1))     <= 2 L |a_0 - a*|^2 / (k + 1)^2
    LISTA    z_0 = h(W y),  z_(k+1) = h(W y + S z_k)                        W, S and the thresholds of h are learned

    h(v) = sign(v) max(|v| - theta, 0)

With W = D'/L, S = I - D'D/L and theta = lambda/L, K stages of LISTA are K + 1 steps of ISTA from zero.

Source: Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm", SIAM J. Imaging Sciences 2009; Gregor and
LeCun, "Learning fast approximations of sparse coding", ICML 2010.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def soft_threshold(values: Tensor, threshold: Tensor | float) -> Tensor:
    """h(v) = sign(v) max(|v| - theta, 0), the proximal map of theta |.|_1."""
    return functional.relu(values - threshold) - functional.relu(-values - threshold)


def lasso(signals: Tensor, dictionary: Tensor, codes: Tensor, weight: float) -> Tensor:
    """F(a) of each of N x M signals with N x K codes in an M x K dictionary: N."""
    residual = signals - codes @ dictionary.T
    return 0.5 * residual.square().sum(1) + weight * codes.abs().sum(1)


def ista(signals: Tensor, dictionary: Tensor, weight: float, steps: int) -> Tensor:
    """N x K codes after `steps` steps from zero; F never rises."""
    bound = lipschitz(dictionary)
    codes = signals.new_zeros(len(signals), dictionary.shape[1])
    for _ in range(steps):
        codes = soft_threshold(codes + (signals - codes @ dictionary.T) @ dictionary / bound, weight / bound)
    return codes


def fista(signals: Tensor, dictionary: Tensor, weight: float, steps: int) -> Tensor:
    """N x K codes after `steps` accelerated steps from zero."""
    bound, momentum = lipschitz(dictionary), 1.0
    codes = signals.new_zeros(len(signals), dictionary.shape[1])
    ahead = codes
    for _ in range(steps):
        earlier = codes
        codes = soft_threshold(ahead + (signals - ahead @ dictionary.T) @ dictionary / bound, weight / bound)
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = codes + (momentum - 1) / following * (codes - earlier)
        momentum = following
    return codes


def lipschitz(dictionary: Tensor) -> float:
    """The largest eigenvalue of D'D."""
    return float(torch.linalg.matrix_norm(dictionary, ord=2)) ** 2


class LISTA(nn.Module):
    """K stages that share W, S and the thresholds.

    Args:
        dictionary: M x K, the one that ISTA would use; the network starts as ISTA.
        weight: lambda.
        stages: applications of S.
    """

    def __init__(self, dictionary: Tensor, weight: float, stages: int) -> None:
        super().__init__()
        atoms, bound = dictionary.shape[1], lipschitz(dictionary)
        self.stages = stages
        self.encode = nn.Parameter(dictionary.T / bound)
        self.inhibit = nn.Parameter(torch.eye(atoms, dtype=dictionary.dtype) - dictionary.T @ dictionary / bound)
        self.threshold = nn.Parameter(torch.full((atoms,), weight / bound, dtype=dictionary.dtype))

    def forward(self, signals: Tensor) -> Tensor:
        """N x M signals -> N x K codes."""
        driven = signals @ self.encode.T
        codes = soft_threshold(driven, self.threshold)
        for _ in range(self.stages):
            codes = soft_threshold(driven + codes @ self.inhibit.T, self.threshold)
        return codes
