"""Images cut into tiles, which are exchanged and mirrored and put together to one image again, like a Rubik's cube."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfcfg.kernels import ranks

LEAST_EDGE = 4
"""Voxels of a tile's edge at least; along axes that are too short for that nothing is cut."""

_MOST_LISTED = 50_000
"""Up to so many permutations all are looked at; of more, as many drawn ones are."""


class Tiling(NamedTuple):
    """How images are cut.

    Args:
        grid: tiles along each axis; 1: not cut.
        edge: of a tile in voxels; what is left over at the far ends stays empty.
        gap: voxels along each axis between neighbouring tiles, 0 where nothing is cut.
    """

    grid: tuple[int, ...]
    edge: tuple[int, ...]
    gap: tuple[int, ...]

    @classmethod
    def of(cls, size: Sequence[int], pieces: int, gap: float) -> Tiling:
        """The tiles of patches.

        Args:
            size: of the patch.
            pieces: tiles along each axis that is long enough.
            gap: between tiles, in parts of their edge; at least one voxel.
        """
        grid = tuple(pieces if length // pieces >= LEAST_EDGE else 1 for length in size)
        edge = tuple(length // count for length, count in zip(size, grid, strict=True))
        gaps = (max(1, round(gap * length)) if count > 1 else 0 for length, count in zip(edge, grid, strict=True))
        return cls(grid, edge, tuple(gaps))

    @property
    def n_tiles(self) -> int:
        """The number of tiles of an image."""
        return math.prod(self.grid)

    @property
    def kept(self) -> tuple[int, ...]:
        """Edge of what is shown of a tile."""
        return tuple(length - gap for length, gap in zip(self.edge, self.gap, strict=True))


class Draw(NamedTuple):
    """What is done to the tiles of images.

    Args:
        order: int64 (B, T), the tile that comes to each place.
        flips: bool (B, T, axes), whether what comes to a place is mirrored along an axis.
        offsets: int64 (B, T, axes), where in its tile the part that is shown begins.
    """

    order: Tensor
    flips: Tensor
    offsets: Tensor


def far_permutations(n_tiles: int, count: int) -> Tensor:
    """Permutations that differ from each other in many places: int64 (`count`, `n_tiles`), or all if there are fewer.

    The first is the identity; each further one is the farthest from those chosen before. Always the same ones.

    Source: Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, 2016,
    algorithm 1; the distance to the nearest chosen one, in place of the mean, is our choice.
    """
    if math.factorial(min(n_tiles, 20)) <= _MOST_LISTED:
        listed = np.array(list(itertools.permutations(range(n_tiles))), dtype=np.int64)
    else:
        drawn = np.random.default_rng(0).permuted(np.tile(np.arange(n_tiles), (_MOST_LISTED, 1)), axis=1)
        listed = np.concatenate([np.arange(n_tiles)[None], drawn])
    chosen = [0]
    apart = np.full(len(listed), n_tiles + 1)
    for _ in range(min(count, len(listed)) - 1):
        apart = np.minimum(apart, (listed != listed[chosen[-1]]).sum(1))
        chosen.append(int(apart.argmax()))
    return torch.from_numpy(listed[chosen])


def draw(
    n_images: int, tiling: Tiling, permutations: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Draw]:
    """What is to be done to images, and which of the permutations (P, T) it is: int64 (B,).

    Axes that are not cut are not mirrored.
    """
    n_drawn = ranks.whole(n_images)
    which = ranks.own(torch.randint(len(permutations), (n_drawn,), generator=generator))
    shape = (n_drawn, tiling.n_tiles, len(tiling.grid))
    is_cut = torch.tensor(tiling.grid) > 1
    flips = ranks.own(torch.rand(shape, generator=generator) < 0.5) & is_cut
    offsets = ranks.own((torch.rand(shape, generator=generator) * (torch.tensor(tiling.gap) + 1)).long())
    return which, Draw(permutations[which], flips, offsets)


def put_together(images: Tensor, tiling: Tiling, drawn: Draw) -> Tensor:
    """Images (B, C, [Z,] Y, X) after a draw, tiles standardised one by one, with empty gaps (0) between them.

    Gaps keep edges from being continued, and the part that is shown of a tile is drawn, so that the gap's width does
    not tell what fits; without its own mean and deviation, a tile's brightness does not tell where it is from.
    """
    tiles = _cut(images, tiling)
    number = torch.arange(len(images), device=images.device)[:, None]
    tiles = tiles[number, drawn.order.to(images.device)]
    for axis, length in enumerate(tiling.kept):
        steps = torch.arange(length)
        flips, offsets = drawn.flips[..., axis, None], drawn.offsets[..., axis, None]
        index = (offsets + torch.where(flips, length - 1 - steps, steps)).to(images.device)
        shape = [1] * tiles.dim()
        shape[0], shape[1], shape[3 + axis] = *index.shape[:2], length
        expanded = [length if at == 3 + axis else size for at, size in enumerate(tiles.shape)]
        tiles = tiles.gather(3 + axis, index.view(shape).expand(expanded))
    space = tuple(range(3, tiles.dim()))
    deviation = tiles.std(space, correction=0, keepdim=True).clamp_min(1e-3)
    return _joined((tiles - tiles.mean(space, keepdim=True)) / deviation, tiling, images)


def _cut(images: Tensor, tiling: Tiling) -> Tensor:
    """The tiles (B, T, C, *edge) of images."""
    n_axes = len(tiling.grid)
    pairs = list(zip(tiling.grid, tiling.edge, strict=True))
    whole: tuple[Any, ...] = (..., *(slice(count * length) for count, length in pairs))
    inside = images[whole]
    split = inside.reshape(*images.shape[:2], *itertools.chain.from_iterable(pairs))
    grid, edge = range(2, 2 + 2 * n_axes, 2), range(3, 3 + 2 * n_axes, 2)
    return split.permute(0, *grid, 1, *edge).flatten(1, n_axes)


def _joined(tiles: Tensor, tiling: Tiling, like: Tensor) -> Tensor:
    """Images as large as `like` of tiles (B, T, C, *kept), each in the middle of its place."""
    n_axes, n_images, n_channels = len(tiling.grid), len(tiles), tiles.shape[2]
    places = tiles.new_zeros((*tiles.shape[:3], *tiling.edge))
    starts = [gap // 2 for gap in tiling.gap]
    middle = [slice(start, start + kept) for start, kept in zip(starts, tiling.kept, strict=True)]
    shown: tuple[Any, ...] = (..., *middle)
    places[shown] = tiles
    split = places.view(n_images, *tiling.grid, n_channels, *tiling.edge)
    order = itertools.chain.from_iterable((1 + axis, 2 + n_axes + axis) for axis in range(n_axes))
    lengths = [count * length for count, length in zip(tiling.grid, tiling.edge, strict=True)]
    whole = torch.zeros_like(like)
    inside = split.permute(0, 1 + n_axes, *order).reshape(n_images, n_channels, *lengths)
    filled: tuple[Any, ...] = (..., *(slice(length) for length in lengths))
    whole[filled] = inside
    return whole
