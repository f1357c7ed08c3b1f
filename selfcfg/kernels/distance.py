"""How far voxels lie from masks: exact Euclidean distances up to a limit, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class SignedDistance(NamedTuple):
    """How far voxels lie from the border of masks.

    Args:
        values: float32, positive outside of a mask and negative inside, in the unit of the spacing.
        known: bool, whether voxels whose label is not known leave no doubt about the value.
    """

    values: Tensor
    known: Tensor


def truncated_distance(mask: Tensor, spacing: Sequence[float], limit: float) -> Tensor:
    """The distance of each voxel to the nearest voxel of its mask, from centre to centre, at most `limit`.

    A distance within the limit is the exact Euclidean one: squared distances are lowered axis by axis to the least of
    those of the neighbours within the limit and their own way. An empty mask is beyond the limit everywhere.

    Args:
        mask: bool (B, K, [Z,] Y, X).
        spacing: of the voxels along the last axes, above 0.
        limit: above 0.

    Returns:
        float32, as large as the mask.

    Source: Felzenszwalb and Huttenlocher, Distance Transforms of Sampled Functions, 2012, section 2.1 for the
    separation by axes; in place of their lower envelope all steps within the limit, which suits vectors of voxels.
    """
    squared = torch.full(mask.shape, torch.inf, device=mask.device).masked_fill_(mask, 0)
    first = mask.dim() - len(spacing)
    for axis, step in enumerate(spacing, start=first):
        length, before = mask.shape[axis], squared.clone()
        for shift in range(1, min(length - 1, math.floor(limit / step)) + 1):
            way, kept = (shift * step) ** 2, length - shift
            for here, there in ((0, shift), (shift, 0)):
                lowered = squared.narrow(axis, here, kept)
                torch.minimum(lowered, before.narrow(axis, there, kept) + way, out=lowered)
    return squared.sqrt_().clamp_(max=limit)


def signed_distance(
    masks: Tensor, spacing: Sequence[float], limit: float, unknown: Tensor | None = None
) -> SignedDistance:
    """The signed distance of each voxel to the border of each mask, between -`limit` and `limit`.

    Outside it is the distance to the nearest voxel inside, inside minus that to the nearest voxel outside; so it is
    never 0, and an empty mask is `limit` away from everywhere. Nothing is known of what lies beyond the image.

    Args:
        masks: bool (B, K, [Z,] Y, X).
        spacing: of the voxels, one an axis.
        limit: of the distance.
        unknown: bool (B, 1, [Z,] Y, X), voxels that may be inside or not; where one of them is nearer than the border,
            and so could itself be it, the value is not known. None: there are none.
    """
    if unknown is None:
        outside = ~masks
        known = torch.ones_like(masks)
    else:
        masks, outside = masks & ~unknown, ~masks & ~unknown
        known = ~unknown.expand_as(masks)
    to_inside, to_outside = (truncated_distance(one, spacing, limit) for one in (masks, outside))
    values = torch.where(masks, -to_outside, to_inside)
    if unknown is not None:
        known = known & (truncated_distance(unknown, spacing, limit) >= values.abs())
    return SignedDistance(values, known)
