"""Which case, which patch: everything about a sample that is decided before it is augmented, and reading it.

Positions are corners of the final patch in a case's array; a patch may hang over the border, and then it is padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from selfcfg.engine.data.store import ANNOTATED
from selfcfg.engine.trainer import Need
from selfcfg.geometry import Shape

OUTSIDE_IMAGE = np.float32(0)
OUTSIDE_LABEL = np.int16(-1)


class Sliceable(Protocol):
    """An array in memory or on disk that gives a numpy array for any slicing."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        """The voxels of a box."""


class SampledCase(Protocol):
    """What sampling needs of a preprocessed case; `selfcfg.engine.data.store.StoredCase` is one."""

    @property
    def image(self) -> Sliceable:
        """Float32 (C, Z, Y, X)."""

    @property
    def label(self) -> Sliceable | None:
        """Int16 (Z, Y, X), -1 outside the non-zero mask; None for a case without labels."""

    @property
    def locations(self) -> Mapping[str, np.ndarray]:
        """Flat indices into the label, by class or region, and `ANNOTATED` where the labels have an ignore value."""


@dataclass(frozen=True)
class PatchWish:
    """What one patch must be.

    Args:
        size: voxels (z, y, x) in the plan's axis order; z is 1 for a 2D network.
        foreground: whether it must be centred on a voxel of some class.
        annotated: whether it must, otherwise, be centred on an annotated voxel (labels with an ignore value).
    """

    size: Shape
    foreground: bool = False
    annotated: bool = False


def is_foreground(sample: int, batch_size: int, fraction: float) -> bool:
    """Whether the sample at this place of the batch is centred on foreground: the last `fraction` of them are.

    Source: nnU-Net v2.8.1, sample j of B iff j >= round(B (1 - fraction)); 0.33 of 2 is therefore one of two.
    """
    return sample >= round(batch_size * (1 - fraction))


@dataclass(frozen=True)
class OneChannel:
    """One channel of an image (C, Z, Y, X) on disk, seen as an image of one channel."""

    image: Sliceable
    channel: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, Z, Y, X)."""
        return (1, *self.image.shape[1:])

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        """The voxels of a box of it; of the channels all are asked for."""
        return self.image[(slice(self.channel, self.channel + 1), *key[1:])]


def draw_domain(rng: np.random.Generator, domains: Sequence[int]) -> int:
    """One of the domains, all equally likely; nothing is drawn where there is no choice."""
    return domains[int(rng.integers(len(domains)))] if len(domains) > 1 else domains[0]


def draw_case(rng: np.random.Generator, cases: Sequence[str]) -> str:
    """One of the cases, all equally likely, with replacement."""
    return cases[int(rng.integers(len(cases)))]


def draw_corner(rng: np.random.Generator, case: SampledCase, wish: PatchWish) -> Shape:
    """The first voxel of the patch in the case; negative where the patch hangs over the lower border.

    A centred patch is moved in at the lower border and may hang over the upper one. A patch that is not centred lies
    inside the case, or in the middle of a case that is smaller than it.

    Source: nnU-Net v2.8.1, get_bbox, stated for the patch the network sees; for a patch with an odd difference to
    the reference's enlarged patch, its range is one voxel wider on one side.
    """
    shape = tuple(case.image.shape[1:])
    voxel = _centre(rng, case, wish, shape)
    corner = []
    for axis, (length, size) in enumerate(zip(shape, wish.size, strict=True)):
        missing = max(0, size - length)
        lowest, highest = -((missing + 1) // 2), length - size if not missing else -(missing // 2)
        if voxel is None:
            corner.append(int(rng.integers(lowest, highest + 1)))
        else:
            corner.append(max(lowest, voxel[axis] - size // 2))
    return corner[0], corner[1], corner[2]


def draw_sequence(rng: np.random.Generator, case: SampledCase, wish: PatchWish, count: int) -> list[Shape]:
    """The first voxels of `count` patches that follow each other along the first axis, in order; see `draw_corner`.

    2D patches are neighbouring slices. 3D ones overlap by half where the case is long enough, and by as much more as
    they must where it is not. None hangs over the border unless all of them do not fit.
    """
    depth, height, width = wish.size
    length = case.image.shape[1]
    step = max(1, min(depth // 2, (length - depth) // max(count - 1, 1)))
    z, y, x = draw_corner(rng, case, replace(wish, size=(depth + (count - 1) * step, height, width)))
    return [(z + index * step, y, x) for index in range(count)]


def draw_shifts(rng: np.random.Generator, patch_size: Sequence[int], need: Need) -> list[Shape]:
    """How far each view is taken from the place of its patch, in voxels (z, y, x); the first is not moved."""
    furthest = [0] * (3 - len(patch_size)) + [int(size * need.shift) for size in patch_size]
    if need.sequence > 1:
        furthest[0] = 0
    shifts = [(0, 0, 0)]
    for _ in range(need.views - 1):
        z, y, x = (int(rng.integers(-far, far + 1)) if far else 0 for far in furthest)
        shifts.append((z, y, x))
    return shifts


def moved(corner: Shape, shift: Shape) -> Shape:
    """The corner of a patch that was moved."""
    return corner[0] + shift[0], corner[1] + shift[1], corner[2] + shift[2]


def relative_position(corner: Shape, size: Shape, case: SampledCase) -> tuple[float, ...]:
    """Where the centre of a patch lies in its case along z, y and x, from 0 to 1 within it."""
    shape = case.image.shape[1:]
    return tuple((at + edge / 2) / length for at, edge, length in zip(corner, size, shape, strict=True))


def read_box(array: Sliceable, corner: Shape, box: Sequence[tuple[int, int]], outside: np.generic) -> Tensor:
    """A box of an array, filled up with `outside` where it lies beyond the array.

    Args:
        array: (Z, Y, X), or (C, Z, Y, X) with every channel read.
        corner: first voxel of the patch in the array.
        box: (start, stop) of each axis, counted from `corner`.
        outside: value of the padding; the tensor has its type.

    Returns:
        A tensor of its own memory.
    """
    lengths, leading = array.shape[-3:], array.shape[:-3]
    first = [at + start for at, (start, _) in zip(corner, box, strict=True)]
    last = [at + stop for at, (_, stop) in zip(corner, box, strict=True)]
    inside = [slice(min(max(0, a), n), min(max(0, b), n)) for a, b, n in zip(first, last, lengths, strict=True)]
    size = tuple(b - a for a, b in zip(first, last, strict=True))
    whole = tuple(s.stop - s.start for s in inside) == size
    channels = [slice(None)] * len(leading)
    if whole:
        found = array[(*channels, *inside)]
        mine = found.flags.owndata and found.flags.writeable and found.flags.c_contiguous
        return torch.from_numpy(found.astype(outside.dtype, order="C", copy=not mine))
    filled = np.full((*leading, *size), outside)
    if all(s.stop > s.start for s in inside):
        target = [slice(s.start - a, s.stop - a) for s, a in zip(inside, first, strict=True)]
        filled[(*channels, *target)] = array[(*channels, *inside)]
    return torch.from_numpy(filled)


def _centre(
    rng: np.random.Generator, case: SampledCase, wish: PatchWish, shape: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The voxel to centre on, or None for anywhere."""
    if not (wish.foreground or wish.annotated):
        return None
    locations = case.locations
    names = (
        [name for name in sorted(locations) if name != ANNOTATED and len(locations[name])] if wish.foreground else []
    )
    if names:
        voxels = locations[names[int(rng.integers(len(names)))]]
    else:
        voxels = locations[ANNOTATED] if wish.annotated and ANNOTATED in locations else np.empty(0, np.uint64)
    if not len(voxels):
        return None
    return tuple(int(index) for index in np.unravel_index(int(voxels[int(rng.integers(len(voxels)))]), shape))
