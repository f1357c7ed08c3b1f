"""How unsure probabilities are, from 0 to 1, and how much of it is that several networks say different things."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def probabilities_of(logits: Tensor, dim: int, *, exclusive: bool, temperature: float = 1.0) -> Tensor:
    """Softmax of logits over an axis of classes that exclude each other; sigmoid where they are regions.

    Args:
        logits: with the outputs along `dim`.
        dim: axis.
        exclusive: whether the classes exclude each other.
        temperature: that the logits are divided by.
    """
    if temperature != 1:
        logits = logits / temperature
    return logits.softmax(dim) if exclusive else logits.sigmoid()


def entropy(probabilities: Tensor, dim: int, *, exclusive: bool) -> Tensor:
    """The entropy as a share of the largest possible one; without the axis `dim`.

    Args:
        probabilities: with the outputs along `dim`.
        dim: axis.
        exclusive: whether the classes exclude each other: then - sum p log p / log K; of regions the mean of their
            binary entropies / log 2.

    Source: Shannon 1948; as the uncertainty of a segmentation: Gal 2016, "Uncertainty in Deep Learning", section 3.3.

    Example:
        >>> entropy(torch.tensor([0.5, 0.5]), 0, exclusive=True)
        tensor(1.)
    """
    own: Tensor = torch.special.entr(probabilities)
    if exclusive:
        return own.sum(dim) / math.log(probabilities.shape[dim])
    other: Tensor = torch.special.entr(1 - probabilities)
    return (own + other).mean(dim) / math.log(2)


def disagreement(mean: Tensor, mean_entropy: Tensor, dim: int, *, exclusive: bool) -> Tensor:
    """The entropy of the mean less the mean entropy, at least 0: how much the members differ, however unsure each is.

    Args:
        mean: of the members' probabilities, with the outputs along `dim`.
        mean_entropy: mean over members of `entropy`.
        dim: axis.
        exclusive: whether the classes exclude each other.

    Source: mutual information (BALD): Houlsby et al. 2011, "Bayesian Active Learning for Classification and Preference
        Learning", eq. 2.
    """
    return (entropy(mean, dim, exclusive=exclusive) - mean_entropy).clamp_min(0)
