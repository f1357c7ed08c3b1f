"""Blocks of an image that are hidden from a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from torch import Tensor


def block_mask(
    n_images: int, size: Sequence[int], block: Sequence[int], ratio: float, generator: torch.Generator | None = None
) -> Tensor:
    """Which voxels are hidden, bool (N, 1, [Z,] Y, X): the same share of blocks in each image, drawn at random.

    Args:
        n_images: N.
        size: voxels along each axis.
        block: edges of a block; blocks at the far ends may be cut.
        ratio: share of the blocks that are hidden; at least one block is, and at least one of several is not.
        generator: draws them; None: torch's global one.

    Source: He et al., Masked Autoencoders, 2022, section 3; blocks of voxels in place of tokens.
    """
    grid = [-(-length // edge) for length, edge in zip(size, block, strict=True)]
    n_blocks = torch.Size(grid).numel()
    n_hidden = max(1, min(round(ratio * n_blocks), n_blocks - 1))
    order = torch.rand((n_images, n_blocks), generator=generator).argsort(1)
    hidden = (order < n_hidden).view(n_images, 1, *grid).float()
    grown = F.interpolate(hidden, [count * edge for count, edge in zip(grid, block, strict=True)], mode="nearest")
    return grown[(slice(None), slice(None), *(slice(length) for length in size))] > 0
