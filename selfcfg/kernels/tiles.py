"""Where the tiles of a sliding window lie along an axis, and how much each of them counts there."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

SIGMA = 1 / 8
"""Width of the Gaussian weight of a tile, in tile lengths."""


def tile_starts(length: int, patch: int, step: float) -> tuple[int, ...]:
    """The first voxel of each tile along one axis: evenly spread from 0 to ``length - patch``, both included.

    Args:
        length: voxels of the image along the axis, at least `patch`.
        patch: voxels of a tile along the axis.
        step: largest distance between two neighbouring tiles, in tile lengths, above 0 and at most 1.

    Raises:
        ValueError: the image is shorter than a tile, or the step leaves gaps.

    Source: nnU-Net v2.8.1, ``compute_steps_for_sliding_window``.

    Example:
        >>> tile_starts(10, 4, 0.5)
        (0, 2, 4, 6)
    """
    if not 0 < step <= 1:
        raise ValueError(f"step must be above 0 and at most 1, found {step}")
    if length < patch:
        raise ValueError(f"an image of {length} voxels is shorter than a tile of {patch}")
    n_tiles = math.ceil((length - patch) / (patch * step)) + 1
    distance = (length - patch) / max(n_tiles - 1, 1)
    return tuple(round(distance * index) for index in range(n_tiles))


def gaussian_profile(patch: int) -> npt.NDArray[np.float64]:
    """The weight of each voxel of a tile along one axis, (patch,): a Gaussian around voxel ``patch // 2``, 1 there.

    Source: nnU-Net v2.8.1, ``compute_gaussian``: the filtered delta of the reference is the product of such profiles,
    up to a factor; here nothing is rounded to half precision, so no weight becomes zero.
    """
    offset = np.arange(patch) - patch // 2
    return np.exp(-0.5 * (offset / (patch * SIGMA)) ** 2)


def tile_weights(length: int, patch: int, step: float) -> tuple[tuple[int, ...], npt.NDArray[np.float32]]:
    """The starts of the tiles along one axis and their weights (tiles, patch), which add up to 1 at every voxel.

    Tiles lie on a regular grid and the Gaussian is a product over axes, so the weighted mean of all tiles at a voxel is
    the sum of tile values times the product of these weights: no count is kept and nothing is divided afterwards.

    Source: our choice, the same mean as nnU-Net v2.8.1, section 2.15, which adds up weights in half precision.
    """
    starts = tile_starts(length, patch, step)
    profile = gaussian_profile(patch)
    total = np.zeros(length)
    for start in starts:
        total[start : start + patch] += profile
    weights = np.stack([profile / total[start : start + patch] for start in starts])
    return starts, weights.astype(np.float32)
