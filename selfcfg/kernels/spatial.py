"""Rotated and scaled patches of an array: images linearly, labels linearly on their one-hot code.

One pass computes where each voxel of the patch lies in the source, then gathers the corners around it. It works in
slabs that fit a processor's cache and on an accelerator all at once; coordinates are the same on both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_SLAB = 1 << 14
_MARGIN = 1e-3
_TIE = 1e-6


@dataclass(frozen=True)
class Affine:
    """A rotation and scaling about the centre of a patch, acting on the last axes of an array.

    Voxel ``p`` of the patch is sampled at ``matrix @ (p - c) + c`` with ``c`` the centre of the patch, so a matrix
    that enlarges shows more of the source in the same patch.

    Args:
        matrix: one row for each transformed axis, in array order.
        patch_size: voxels of the patch along the transformed axes.
    """

    matrix: tuple[tuple[float, ...], ...]
    patch_size: tuple[int, ...]

    @property
    def source_box(self) -> tuple[tuple[int, int], ...]:
        """The first voxel needed of each axis and the one after the last, counted from the first voxel of the patch."""
        box = []
        for row, size in zip(self.matrix, self.patch_size, strict=True):
            centre = (size - 1) / 2
            reach = sum(abs(factor) * (n - 1) / 2 for factor, n in zip(row, self.patch_size, strict=True))
            box.append((math.floor(centre - reach - _MARGIN), math.floor(centre + reach + _MARGIN) + 2))
        return tuple(box)


def rotation_and_scale(angles: Sequence[float], scale: float) -> tuple[tuple[float, ...], ...]:
    """The matrix that scales by one factor and then rotates.

    Args:
        angles: radians; one for a plane, or three for turns about the first, then the second, then the third axis.
        scale: more than 1 shows more of the source.

    Returns:
        Two or three rows.

    Source: nnU-Net v2.8.1 (batchgeneratorsv2, SpatialTransform): Rz Ry Rx S on (z, y, x) coordinates.
    """
    if len(angles) == 1:
        matrix = _turn(angles[0])
    else:
        about_first, about_second, about_third = np.eye(3), np.eye(3), np.eye(3)
        about_first[1:, 1:] = _turn(angles[0])
        about_second[::2, ::2] = _turn(-angles[1])
        about_third[:2, :2] = _turn(angles[2])
        matrix = about_third @ about_second @ about_first
    return tuple(tuple(float(value) for value in row) for row in matrix * scale)


def warp(image: Tensor, label: Tensor | None, affine: Affine) -> tuple[Tensor, Tensor | None]:
    """The patch that `affine` describes, sampled from the box it needs.

    Args:
        image: float32 (..., *box), the box being exactly `affine.source_box`; leading axes share the transformation.
        label: int16 (..., *box), or None; resampled linearly on its one-hot code, the largest share
            wins, and where two are equal the nearest voxel's label wins if it is one of them.
        affine: the transformation.

    Returns:
        Image (..., *patch) and label (..., *patch) or None, in their own types.

    Raises:
        ValueError: the arrays are not of the box's shape.

    Source: nnU-Net v2.8.1, sampling rules of its spatial transform; what lies outside the image is what the caller
        padded the box with.
    """
    axes = len(affine.patch_size)
    box = tuple(stop - start for start, stop in affine.source_box)
    for array in (image, label):
        if array is not None and tuple(array.shape[-axes:]) != box:
            raise ValueError(f"this transformation needs a box of {box}, got {tuple(array.shape[-axes:])}")
    strides = _strides(box)
    offsets = [sum(corner) for corner in itertools.product(*((0, stride) for stride in strides))]
    pictures, maps = image.reshape(-1, math.prod(box)), None if label is None else _compact(label, math.prod(box))
    patch = image.new_empty((len(pictures), math.prod(affine.patch_size)))
    labels = None if maps is None else maps.new_empty((len(maps), patch.shape[1]))
    for part, index, fractions in _coordinates(affine, strides, image.device):
        for row, picture in enumerate(pictures):
            patch[row, part] = _blend([picture[offset:].index_select(0, index) for offset in offsets], fractions)
        if maps is not None and labels is not None:
            for row, picture in enumerate(maps):
                corners = torch.stack([picture[offset:].index_select(0, index) for offset in offsets])
                labels[row, part] = _largest_share(corners, fractions)
    moved = patch.view(*image.shape[:-axes], *affine.patch_size)
    if label is None or labels is None:
        return moved, None
    return moved, labels.to(label.dtype).view(*label.shape[:-axes], *affine.patch_size)


def _compact(label: Tensor, size: int) -> Tensor:
    """The maps as rows of `size`, in one byte a voxel where the labels allow: gathering is bound by memory."""
    lowest, highest = torch.aminmax(label)
    fits = int(lowest) >= -128 and int(highest) <= 127
    return label.reshape(-1, size).to(torch.int8 if fits else torch.int16)


def _coordinates(
    affine: Affine, strides: tuple[int, ...], device: torch.device
) -> Iterator[tuple[slice, Tensor, list[Tensor]]]:
    """Slab by slab: where it lies in the flat patch, the flat index of each voxel's lower corner, and the fractions."""
    starts = [start for start, _ in affine.source_box]
    centres = [(size - 1) / 2 for size in affine.patch_size]
    steps = [torch.arange(size, dtype=torch.float64, device=device) - (size - 1) / 2 for size in affine.patch_size]
    rest = math.prod(affine.patch_size[1:])
    within = []
    for axis, row in enumerate(affine.matrix):
        plane = torch.full(affine.patch_size[1:], centres[axis] - starts[axis], dtype=torch.float64, device=device)
        for other in range(1, len(row)):
            plane += row[other] * steps[other].view([-1] + [1] * (len(row) - 1 - other))
        within.append(plane.view(1, -1).float())
    along = [(row[0] * steps[0]).float().view(-1, 1) for row in affine.matrix]
    thickness = max(1, _SLAB // rest) if device.type == "cpu" else affine.patch_size[0]
    for first in range(0, affine.patch_size[0], thickness):
        last = min(first + thickness, affine.patch_size[0])
        index, fractions = None, []
        for plane, slope, stride in zip(within, along, strides, strict=True):
            position = (plane + slope[first:last]).view(-1)
            corner = position.to(torch.int32)
            fractions.append(position.sub_(corner))
            index = corner.mul_(stride) if index is None else index.add_(corner, alpha=stride)
        if index is not None:
            yield slice(first * rest, last * rest), index, fractions


def _blend(corners: list[Tensor], fractions: list[Tensor]) -> Tensor:
    for fraction in reversed(fractions):
        corners = [torch.lerp(corners[k], corners[k + 1], fraction) for k in range(0, len(corners), 2)]
    return corners[0]


def _largest_share(corners: Tensor, fractions: list[Tensor]) -> Tensor:
    """The label with the largest share in each column of (corners, voxels).

    Nearly all voxels have one label at all corners, and most others two, for which one share says it all.
    """
    result, highest = corners.amin(0), corners.amax(0)
    mixed = (result != highest).nonzero().view(-1)
    if len(mixed):
        corners, fractions = corners.index_select(1, mixed), [part.index_select(0, mixed) for part in fractions]
        low, high = result.index_select(0, mixed), highest.index_select(0, mixed)
        is_high = corners == high
        share = _blend(list(is_high.float()), fractions)
        settled = torch.where(share > 0.5, high, low)
        only_two = (is_high | (corners == low)).all(0)
        left = (~only_two | ((share - 0.5).abs() < _TIE)).nonzero().view(-1)
        if len(left):
            fractions = [part.index_select(0, left) for part in fractions]
            settled[left] = _by_counting(corners.index_select(1, left), fractions)
        result[mixed] = settled
    return result


def _by_counting(corners: Tensor, fractions: list[Tensor]) -> Tensor:
    """The label with the largest share in each column; equal shares go to the nearest corner's label."""
    weights = torch.ones_like(fractions[0])[None]
    for fraction in fractions:
        weights = torch.cat([torch.stack([row * (1 - fraction), row * fraction]) for row in weights])
    shares = torch.stack([((corners == corner) * weights).sum(0) for corner in corners])
    nearest = weights.argmax(0, keepdim=True)
    best, winner = shares.max(0, keepdim=True)
    chosen = torch.where(shares.gather(0, nearest) >= best - _TIE, nearest, winner)
    return corners.gather(0, chosen)[0]


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _turn(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
