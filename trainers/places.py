"""Where the patches of sequences are from, and which of them are alike because of it."""

from __future__ import annotations

from typing import NamedTuple, Self, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from torch import Tensor

from selfcfg.engine.trainer import Batch
from selfcfg.kernels import ranks
from selfcfg.nets.heads import Queue


class Likeness(NamedTuple):
    """When two patches are alike, and when unlike.

    Args:
        steps: along a sequence, up to which its patches are alike.
        within: what the places of patches at the same place differ by at most, in parts of the case.
        apart: what those of unlike patches differ by at least.

    Source: thresholds of position: Zeng et al., Positional Contrastive Learning for Volumetric Medical Image
    Segmentation, 2021; a zone between alike and unlike, and places in the plane, are our choice.
    """

    steps: int
    within: float
    apart: float


class Places(NamedTuple):
    """Where the patches of a batch are from.

    Args:
        tags: float32 (B, 4): z, y and x of the centre in parts of the case's lengths, and the group of datasets.
        slices: int64 (B,), first slice of the patch in its case.
        whole: bool (B,), whether it lies inside its case along the first axis.
    """

    tags: Tensor
    slices: Tensor
    whole: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """The places of a batch of sequences, of the whole one where ranks share it."""
        positions, lengths, groups = (cast(Tensor, one) for one in (batch.positions, batch.lengths, batch.groups))
        depth = batch.image.shape[2] if batch.image.dim() == 5 else 1
        first = (positions[:, 0] * lengths - depth / 2).round().long()
        whole = (first >= 0) & (first + depth <= lengths)
        tags = torch.cat([positions, groups[:, None].to(positions.dtype)], 1)
        return cls(ranks.gathered(tags), ranks.gathered(first), ranks.gathered(whole))


def near(tags: Tensor, others: Tensor, within: float) -> Tensor:
    """Which patches (N, 4) and others (K, 4) are of one group and less than `within` apart along every axis: (N, K)."""
    apart = (tags[:, None] - others).abs()
    return (apart[..., :3].amax(2) < within) & (apart[..., 3] == 0)


class Pairs(NamedTuple):
    """Which keys, the batch's and then the queue's, are what to each patch; all bool (B, B + length of the queue).

    Args:
        in_sequence: the patch's own second view, and patches of its sequence up to some steps away.
        at_place: patches of other sequences of its group, at the same place.
        unlike: those that are not in its group, or far enough.
    """

    in_sequence: Tensor
    at_place: Tensor
    unlike: Tensor


def compared_pairs(places: Places, queue: Queue, sequence: int, likeness: Likeness) -> Pairs:
    """How the patches of a batch are compared; a patch that hangs over an end of its case is left out.

    Args:
        places: of the batch.
        queue: earlier patches, their places as tags.
        sequence: patches in a row of a case.
        likeness: what alike and unlike mean.
    """
    number = torch.arange(len(places.tags), device=places.tags.device)
    others, known = torch.cat([places.tags, queue.tags]), torch.cat([places.whole, queue.filled])
    both = places.whole[:, None] & known
    together = torch.zeros_like(both)
    together[:, : len(number)] = number[:, None] // sequence == number // sequence
    in_sequence = together.clone()
    in_sequence[:, : len(number)] &= (number[:, None] - number).abs() <= likeness.steps
    at_place = near(places.tags, others, likeness.within) & ~together
    unlike = ~near(places.tags, others, likeness.apart)
    return Pairs(in_sequence & both, at_place & both, unlike & both)


def place_accuracy(vectors: Tensor, tags: Tensor, queue: Queue) -> dict[str, Tensor]:
    """How much nearer than by chance the most similar patches of the queue lie; nothing while it holds none to ask."""
    comparable = queue.filled & near(tags, queue.tags, torch.inf)
    asked = comparable.any(1)
    if not asked.any():
        return {}
    similar = (F.normalize(vectors, dim=1) @ F.normalize(queue.vectors, dim=1).T).masked_fill(~comparable, -torch.inf)
    apart = (tags[:, :1] - queue.tags[:, 0]).abs()
    best = apart.gather(1, similar.argmax(1, keepdim=True))[asked].mean()
    by_chance = (apart[asked] * comparable[asked]).sum() / comparable[asked].sum()
    return {"place accuracy": 1 - best / by_chance.clamp_min(1e-8)}
