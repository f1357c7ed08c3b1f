"""Images made harder to look at, to be restored: intensities bent, voxels shuffled in windows, regions painted over.

Source: Zhou et al., Models Genesis, 2019/2021. Everything is drawn with a generator of torch's, on the CPU.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor

BOXES = 5
"""Boxes that an image is painted in at most."""

INNER, OUTER = (1 / 6, 1 / 3), (3 / 7, 4 / 7)
"""Edges of boxes in parts of the image's: of those painted over, and of those that are left in a painted image."""

WINDOWS = 10
"""Windows of shuffling along each axis, where the image is long enough for windows of two voxels."""

_POINTS = 64


class Chances(NamedTuple):
    """How probable each change of an image is.

    Args:
        bend: of its intensities.
        shuffle: of its voxels within windows, of which each is then shuffled with probability one half.
        paint: of boxes.
        outside: that of these the outside is painted, not the inside.
    """

    bend: float
    shuffle: float
    paint: float
    outside: float


def distorted(images: Tensor, chances: Chances, generator: torch.Generator | None = None) -> Tensor:
    """Images (N, C, [Z,] Y, X) after changes that each is drawn for on its own.

    Args:
        images: they stay as they are.
        chances: of the changes.
        generator: None: torch's global one.
    """
    drawn = torch.rand((4, len(images)), generator=generator)
    bends, shuffles, paints, outsides = (row < limit for row, limit in zip(drawn, chances, strict=True))
    found = images.clone()
    for chosen, change in ((bends, bent), (shuffles, shuffled)):
        if chosen.any():
            where = chosen.nonzero()[:, 0].to(images.device)
            found[where] = change(found[where], generator)
    if paints.any():
        where = paints.nonzero()[:, 0]
        mask = painted_boxes(tuple(images.shape[2:]), outsides[where].tolist(), generator).to(images.device)
        where = where.to(images.device)
        found[where] = torch.where(mask, _noise_like(images[where], generator), found[where])
    return found


def bent(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Every channel with its range bent by a rising cubic Bezier curve of its own, from end to end."""
    flat = images.flatten(0, 1).flatten(1)
    controls = torch.rand((2, 2, len(flat), 1), generator=generator).to(images.device)
    at = torch.linspace(0, 1, _POINTS, device=images.device)
    x, y = (3 * at * (1 - at) ** 2 * first + 3 * at**2 * (1 - at) * second + at**3 for first, second in controls)
    lowest, highest = torch.aminmax(flat, dim=1, keepdim=True)
    width = (highest - lowest).clamp_min(1e-6)
    values = (flat - lowest) / width
    right = torch.searchsorted(x.contiguous(), values.contiguous()).clamp(1, _POINTS - 1)
    (x0, x1), (y0, y1) = ((one.gather(1, right - 1), one.gather(1, right)) for one in (x, y))
    share = ((values - x0) / (x1 - x0).clamp_min(1e-6)).clamp(0, 1)
    found: Tensor = lowest + width * (y0 + share * (y1 - y0))
    return found.view_as(images)


def shuffled(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The voxels of half of the windows in an order drawn for each, channels alike; what is over at the ends stays."""
    edges = [max(min(2, length), length // WINDOWS) for length in images.shape[2:]]
    counts = [length // edge for length, edge in zip(images.shape[2:], edges, strict=True)]
    n_axes, (n_images, n_channels) = len(edges), images.shape[:2]
    inside: tuple[Any, ...] = (..., *(slice(count * edge) for count, edge in zip(counts, edges, strict=True)))
    pairs = list(itertools.chain.from_iterable(zip(counts, edges, strict=True)))
    grid, within = range(2, 2 + 2 * n_axes, 2), range(3, 3 + 2 * n_axes, 2)
    split = images[inside].reshape(n_images, n_channels, *pairs).permute(0, 1, *grid, *within)
    windows = split.reshape(n_images, n_channels, torch.Size(counts).numel(), torch.Size(edges).numel())
    shape = (n_images, 1, *windows.shape[2:])
    order = torch.rand(shape, generator=generator).argsort(3)
    kept = torch.rand((*shape[:3], 1), generator=generator) < 0.5
    order = torch.where(kept, torch.arange(shape[3]), order).to(images.device)
    mixed = windows.gather(3, order.expand_as(windows)).view(split.shape)
    back = itertools.chain.from_iterable((2 + axis, 2 + n_axes + axis) for axis in range(n_axes))
    found = images.clone()
    found[inside] = mixed.permute(0, 1, *back).reshape(images[inside].shape)
    return found


def painted_boxes(size: tuple[int, ...], outside: list[bool], generator: torch.Generator | None = None) -> Tensor:
    """Which voxels are painted over: bool (N, 1, *size), one to `BOXES` boxes, or everything but these.

    Args:
        size: of the images.
        outside: for each of them, whether it is everything but the boxes.
        generator: None: torch's global one.
    """
    masks = torch.zeros((len(outside), 1, *size), dtype=torch.bool)
    for mask, is_outside in zip(masks, outside, strict=True):
        low, high = OUTER if is_outside else INNER
        for _ in range(int(torch.randint(1, BOXES + 1, (), generator=generator))):
            drawn = torch.rand((2, len(size)), generator=generator).tolist()
            lengths = [max(1, round(n * (low + (high - low) * share))) for n, share in zip(size, drawn[0], strict=True)]
            starts = [int(share * (n - k + 1)) for n, k, share in zip(size, lengths, drawn[1], strict=True)]
            box: tuple[Any, ...] = (0, *(slice(start, start + k) for start, k in zip(starts, lengths, strict=True)))
            mask[box] = True
        if is_outside:
            mask.logical_not_()
    return masks


def _noise_like(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Even noise in the range of each channel."""
    flat = images.flatten(2)
    shape = (*images.shape[:2], *[1] * (images.dim() - 2))
    lowest, highest = (one.view(shape) for one in (flat.amin(2), flat.amax(2)))
    return lowest + (highest - lowest) * torch.rand(images.shape, generator=generator).to(images.device)
