"""Losses on the statistics of vectors: that they vary, and that their components do not repeat each other."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from torch import Tensor

_LEAST = 1e-4


def too_little_variance(vectors: Tensor) -> Tensor:
    """How far the standard deviation of each component of vectors (N, D) is below 1, on average; 0 for one vector.

    Source: Bardes et al., VICReg, 2022, equation 1.
    """
    if len(vectors) < 2:
        return vectors.sum() * 0.0
    return F.relu(1 - (vectors.float().var(0) + _LEAST).sqrt()).mean()


def covariance(vectors: Tensor) -> Tensor:
    """The sum of the squared covariances of different components of vectors (N, D), divided by D; 0 for one vector.

    Source: Bardes et al., VICReg, 2022, equation 4.
    """
    if len(vectors) < 2:
        return vectors.sum() * 0.0
    with torch.autocast(vectors.device.type, enabled=False):
        centred = vectors.float() - vectors.float().mean(0)
        matrix = centred.T @ centred / (len(vectors) - 1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / vectors.shape[1]


def without_mean(vectors: Tensor) -> Tensor:
    """Vectors (N, D) without their mean, scaled such that the mean of their squares is their unbiased variance."""
    return (vectors - vectors.mean(0)) * math.sqrt(len(vectors) / max(1, len(vectors) - 1))


def among(vectors: Tensor, earlier: Tensor) -> Tensor:
    """Vectors (N, D) with earlier ones (M, D), through which no gradient flows, for statistics over both.

    The gradient of the N is raised by (N + M) / N: it stands in for that of all, so that a mean over more vectors does
    not make the few that are learnt from count less.
    """
    scale = (len(vectors) + len(earlier)) / len(vectors)
    values = vectors.detach()
    return torch.cat([values + scale * (vectors - values), earlier.detach().to(vectors.dtype)])
