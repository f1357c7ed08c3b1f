"""Rotated and scaled patches of an array: images linearly, labels linearly on their one-hot code.

Tile by tile, one pass computes where each voxel of the patch lies in the source and gathers the corners around it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_TILE, _TABLE = 1 << 16, 1 << 18
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
        label: int16 (..., *box) above -32768, or None; resampled linearly on its one-hot code: the largest share wins,
            and where two are equal the nearest voxel's label if it is one of them.
        affine: the transformation.

    Returns:
        Image float32 (..., *patch), and label int16 (..., *patch) or None.

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
    size = math.prod(box)
    pictures = image.reshape(-1, size)
    patch = image.new_empty((len(pictures), *affine.patch_size))
    maps = [] if label is None else [_LabelMap(part, box) for part in _compact(label).reshape(-1, size)]
    labels = torch.empty((len(maps), *affine.patch_size), dtype=torch.int16, device=image.device)
    for tile in _tiles(affine, image.device):
        for picture, moved in zip(pictures, patch, strict=True):
            part = moved[tile.place]
            part.copy_(_blend(tile.corners(picture), tile.fractions).view(part.shape))
        for one, moved in zip(maps, labels, strict=True):
            part = moved[tile.place]
            part.copy_(one.sample(tile).view(part.shape))
    patch = patch.view(*image.shape[:-axes], *affine.patch_size)
    return patch, None if label is None else labels.view(*label.shape[:-axes], *affine.patch_size)


class _Tile(NamedTuple):
    """Voxels of the patch that lie near each other in the source too.

    Args:
        place: where they are in the patch.
        lower: int32, the flat index in the box of each voxel's lower corner.
        fractions: of each axis, how far each voxel lies beyond that corner.
        offsets: flat steps from the lower corner to all corners, the last axis changing fastest.
    """

    place: tuple[slice, ...]
    lower: Tensor
    fractions: list[Tensor]
    offsets: list[int]

    def corners(self, flat: Tensor) -> list[Tensor]:
        return [flat[offset:].index_select(0, self.lower) for offset in self.offsets]

    def only(self, chosen: Tensor) -> _Tile:
        """Some of its voxels; the place is then without meaning."""
        fractions = [part.index_select(0, chosen) for part in self.fractions]
        return self._replace(lower=self.lower.index_select(0, chosen), fractions=fractions)


class _LabelMap:
    """One label map, with a table of the label that all corners around a place share, or `mixed`.

    Nearly all voxels need a single look into the table. Of the others, most have two labels at their corners, for
    which one share says it all.
    """

    def __init__(self, flat: Tensor, box: tuple[int, ...]) -> None:
        self.flat, self.mixed = flat, torch.iinfo(flat.dtype).min
        strides = _strides(box)
        self.shared = torch.empty_like(flat[sum(strides) :])
        step = _TABLE if flat.device.type == "cpu" else len(flat)
        for start in range(0, len(self.shared), step):
            low = high = flat[start : start + step + sum(strides)]
            for stride in strides:
                low = torch.minimum(low[:-stride], low[stride:])
                high = torch.maximum(high[:-stride], high[stride:])
            differ = (low != high).to(flat.dtype)
            self.shared[start : start + step] = (
                low * (1 - differ) + differ * self.mixed
            )  # where() takes ten times as long

    def sample(self, tile: _Tile) -> Tensor:
        """The label with the largest share at each voxel of a tile."""
        result = self.shared.index_select(0, tile.lower)
        mixed = _places(result == self.mixed)
        return result.index_copy_(0, mixed, self._largest_share(tile.only(mixed))) if len(mixed) else result

    def _largest_share(self, tile: _Tile) -> Tensor:
        corners = torch.stack(tile.corners(self.flat))
        low, high = corners.amin(0), corners.amax(0)
        is_high = corners == high
        share = _blend(list(is_high.float()), tile.fractions)
        result = torch.where(share > 0.5, high, low)
        only_two = (is_high | (corners == low)).all(0)
        left = _places(~only_two | ((share - 0.5).abs() < _TIE))
        if len(left):
            result.index_copy_(0, left, _by_counting(corners.index_select(1, left), tile.only(left).fractions))
        return result


def _tiles(affine: Affine, device: torch.device) -> Iterator[_Tile]:
    """All of the patch, in tiles that fit a processor's cache or, on an accelerator, at once."""
    box = [stop - start for start, stop in affine.source_box]
    strides = _strides(box)
    offsets = [sum(corner) for corner in itertools.product(*((0, stride) for stride in strides))]
    lines = _lines(affine, device)
    side = round(_TILE ** (1 / len(box))) if device.type == "cpu" else max(affine.patch_size)
    for place in itertools.product(*(_cuts(size, side) for size in affine.patch_size)):
        corners, fractions = [], []
        for line in lines:
            position = _outer_sum([part[where] for part, where in zip(line, place, strict=True)])
            corners.append(position.to(torch.int32))
            fractions.append(position.frac_())
        lower = corners[-1]
        for corner, stride in zip(corners[:-1], strides[:-1], strict=True):
            lower.add_(corner, alpha=stride)
        yield _Tile(place, lower, fractions, offsets)


def _lines(affine: Affine, device: torch.device) -> list[list[Tensor]]:
    """Of each source axis, the part of its coordinate that each axis of the patch contributes; they add up."""
    lines = []
    for axis, row in enumerate(affine.matrix):
        origin = (affine.patch_size[axis] - 1) / 2 - affine.source_box[axis][0]
        steps = [torch.arange(size, dtype=torch.float64) - (size - 1) / 2 for size in affine.patch_size]
        parts = [slope * step for slope, step in zip(row, steps, strict=True)]
        parts[0] += origin
        lines.append([part.float().to(device) for part in parts])
    return lines


def _outer_sum(parts: list[Tensor]) -> Tensor:
    """The sum of one vector an axis, at every voxel, flat."""
    total = parts[0]
    for part in parts[1:]:
        total = total[..., None] + part
    return total.clone() if len(parts) == 1 else total.view(-1)


def _cuts(size: int, side: int) -> list[slice]:
    """An axis in equal parts of at most `side`."""
    step = math.ceil(size / math.ceil(size / side))
    return [slice(first, min(first + step, size)) for first in range(0, size, step)]


def _places(mask: Tensor) -> Tensor:
    """The indices at which a flat mask is true; numpy finds them two to four times as fast."""
    return torch.from_numpy(np.flatnonzero(mask.numpy())) if mask.device.type == "cpu" else mask.nonzero().view(-1)


def _compact(label: Tensor) -> Tensor:
    """The label in one byte a voxel where its values allow that: gathering is bound by memory."""
    lowest, highest = torch.aminmax(label)
    return label.to(torch.int8) if int(lowest) > -128 and int(highest) < 128 else label.to(torch.int16)


def _strides(box: Sequence[int]) -> list[int]:
    return [math.prod(box[axis + 1 :]) for axis in range(len(box))]


def _blend(corners: list[Tensor], fractions: list[Tensor]) -> Tensor:
    for fraction in reversed(fractions):
        corners = [torch.lerp(corners[k], corners[k + 1], fraction) for k in range(0, len(corners), 2)]
    return corners[0]


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


def _turn(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
