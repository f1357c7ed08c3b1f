"""Losses that compare vectors of images with each other, and numbers that tell whether the vectors still differ."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from torch import Tensor


class Contrast(NamedTuple):
    """Loss and accuracy of a comparison.

    Args:
        loss: mean over what is asked, in nats.
        accuracy: share of it that is answered rightly, of a contrastive comparison the queries whose most similar key
            is a positive one; without gradient.
    """

    loss: Tensor
    accuracy: Tensor


def contrast(
    queries: Tensor, keys: Tensor, positive: Tensor, temperature: float, usable: Tensor | None = None
) -> Contrast:
    """The multi-positive InfoNCE of queries against keys.

    Args:
        queries: (N, D); normalised here.
        keys: (K, D); normalised here.
        positive: bool (N, K), which keys each query should be similar to; a query without any is left out.
        temperature: that similarities, cosines, are divided by.
        usable: bool (N, K), which keys are compared at all; positives always are. None: all.

    Returns:
        Zero where no query has a positive key.

    Source: He et al., Momentum Contrast, 2020, equation 1, for one positive key; several are averaged outside of the
    logarithm: Khosla et al., Supervised Contrastive Learning, 2020, equation 2.
    """
    # autocast would round the cosines to bfloat16, so that many are equal
    with torch.autocast(queries.device.type, enabled=False):
        similar = F.normalize(queries.float(), dim=1) @ F.normalize(keys.float(), dim=1).T / temperature
    if usable is not None:
        similar = similar.masked_fill(~(usable | positive), -torch.inf)
    known = positive.any(1)
    if not bool(known.any()):
        return Contrast(queries.sum() * 0.0, queries.new_zeros(()))
    similar, positive = similar[known], positive[known]
    shares = F.log_softmax(similar, 1).masked_fill(~positive, 0.0)
    loss = -(shares.sum(1) / positive.sum(1)).mean()
    best = similar.detach().argmax(1)
    return Contrast(loss, positive.gather(1, best[:, None]).float().mean())


def two_views(first: Tensor, second: Tensor, temperature: float, usable: Tensor | None = None) -> Contrast:
    """The contrast of two views of each image of a batch: each view's positive is the other, all else is negative.

    Args:
        first: (B, D).
        second: (B, D), view by view of the same images.
        temperature: as in `contrast`.
        usable: bool (B, B), which images are negatives of which; None: all.

    Source: Chen et al., SimCLR, 2020, equation 1 (NT-Xent).
    """
    count = len(first)
    vectors = torch.cat([first, second])
    itself = torch.eye(2 * count, dtype=torch.bool, device=first.device)
    others = ~itself if usable is None else usable.repeat(2, 2) & ~itself
    return contrast(vectors, vectors, itself.roll(count, 1), temperature, others)


def in_order(numbers: Tensor, known: Tensor) -> Contrast:
    """How well numbers rise along sequences: the cross entropy of which of two comes first, over all pairs in one.

    Args:
        numbers: (N, S), one a member of each sequence, in their true order.
        known: bool (N, S), which members are asked for.

    Returns:
        The accuracy is 0.5 by chance, equal numbers being half right; loss and accuracy are zero without any pair.

    Source: Burges et al., Learning to Rank using Gradient Descent, 2005, equation 3, the logistic of the difference.
    """
    first, second = torch.triu_indices(numbers.shape[1], numbers.shape[1], 1, device=numbers.device)
    numbers = numbers.float()
    rises = (numbers[:, second] - numbers[:, first])[known[:, first] & known[:, second]]
    count = max(1, len(rises))
    return Contrast(F.softplus(-rises).sum() / count, (rises.detach().sign() + 1).sum() / (2 * count))


def spread(vectors: Tensor) -> Tensor:
    """How far vectors (N, D) point in different directions: 0 where all point the same way, 1 on average at random.

    NaN for a single vector.

    Source: Chen and He, SimSiam, 2021, section 4.1, take the mean over the axes of the standard deviation of
    normalised vectors, times sqrt(D). Our choice is the root of the unbiased variances' sum, which has the same
    limits and expects 1 from any number of vectors: of two, theirs gives 0.56.
    """
    if len(vectors) < 2:
        return vectors.new_full((), torch.nan, dtype=torch.float32)
    return F.normalize(vectors.float(), dim=1).var(0).sum().sqrt()
