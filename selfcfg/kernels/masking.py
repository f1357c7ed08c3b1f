"""Blocks of an image that are hidden from a network, and how well it paints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from torch import Tensor

from selfcfg.kernels import ranks

LEAST_VARIANCE = 0.01
"""Of the hidden voxels of a batch, whose images have a variance of about 1."""


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
    order = ranks.own(torch.rand((ranks.whole(n_images), n_blocks), generator=generator)).argsort(1)
    hidden = (order < n_hidden).view(n_images, 1, *grid).float()
    grown = F.interpolate(hidden, [count * edge for count, edge in zip(grid, block, strict=True)], mode="nearest")
    return grown[(slice(None), slice(None), *(slice(length) for length in size))] > 0


def hidden_blocks(image: Tensor, edge: int, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """The `block_mask` of images (N, C, [Z,] Y, X), where they are; blocks are at most half as long as the image."""
    size = image.shape[2:]
    block = [max(1, min(edge, length // 2)) for length in size]
    return block_mask(len(image), size, block, ratio, generator).to(image.device)


class Painted(NamedTuple):
    """How well hidden voxels were painted.

    Args:
        error: mean squared error over them.
        variance: of their true values.
    """

    error: Tensor
    variance: Tensor

    @property
    def explained(self) -> Tensor:
        """The share of the variance that was painted: 1 at best, 0 for the mean value everywhere.

        Air counts as if it had a little variance, else a batch of it would decide any mean.
        """
        return 1 - self.error / self.variance.clamp_min(LEAST_VARIANCE)


def compared(painted: Tensor, image: Tensor, mask: Tensor) -> Painted:
    """How well the hidden voxels of images were painted.

    Args:
        painted: (N, C, [Z,] Y, X).
        image: likewise, the truth.
        mask: bool (N, 1, [Z,] Y, X), the hidden voxels, of which there are some.
    """
    hidden = mask.expand_as(image)
    wanted = image[hidden].float()
    return Painted(ranks.mean((painted[hidden].float() - wanted).square()), wanted.var(correction=0))


def seen_ahead(image: Tensor, hidden: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """What patches show of the patches that lie some steps further along the first axis.

    Args:
        image: (N, C, [Z,] Y, X).
        hidden: bool (N, 1, [Z,] Y, X), the voxels that are not shown.
        steps: int64 (N,), how far on the other patch lies in voxels; negative: before. A 2D patch is one voxel deep.

    Returns:
        The image as the nearest slice of the patch shows it, hidden voxels 0, as large as `image`; and which of its
        voxels are truly shown, as large as `hidden`.
    """
    flat = image.dim() == 4
    values, shown = (one.unsqueeze(2) if flat else one for one in (image.masked_fill(hidden, 0), ~hidden))
    places = torch.arange(values.shape[2], device=image.device) + steps[:, None]
    nearest = places.clamp(0, values.shape[2] - 1)
    index = nearest[:, None, :, None, None]
    copied = values.gather(2, index.expand_as(values))
    known = shown.gather(2, index.expand_as(shown)) & (places == nearest)[:, None, :, None, None]
    return (copied.squeeze(2), known.squeeze(2)) if flat else (copied, known)
