"""Resampling of images and label maps by the reference's kernels, axis by axis.

Source: nnU-Net v2.8.1, ``default_resampling.py``. Cubic spline and linear interpolation on a grid are separable, so an
image takes one small matrix product an axis instead of 64 weights a voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfcfg.geometry import Shape, Vector
from selfcfg.kernels.interpolation import axis_matrix, bands, centres, nearest_index
from selfcfg.kernels.threads import on_threads

__all__ = ["axis_matrix", "nearest_index", "new_shape", "resample_image", "resample_labels", "separate_axis"]

SEPARATE_RATIO = 3.0
"""Coarsest by finest spacing above which the coarsest axis is resampled on its own, by nearest neighbour."""

_PLANE_ROWS = 1024
_COLUMNS = 8192
_MIXED = np.iinfo(np.int16).min
_TIE = 1e-9
_LABEL_SLAB = 1 << 21
_LABEL_CHUNK = 1 << 16

Array = NDArray[np.float32]
Labels = NDArray[np.int16]
Bools = NDArray[np.bool_]
Range = tuple[np.float32, np.float32]


def new_shape(shape: Shape, old_spacing: Vector, new_spacing: Vector) -> Shape:
    """The voxels an image has at another spacing, at least one an axis.

    Source: nnU-Net v2.8.1, ``compute_new_shape``; the lower limit is our choice: an empty axis helps nobody.
    """
    z, y, x = (max(1, round(old / new * size)) for size, old, new in zip(shape, old_spacing, new_spacing, strict=True))
    return z, y, x


def separate_axis(old_spacing: Vector, new_spacing: Vector) -> int | None:
    """The axis resampled on its own, or None: the coarsest of a strongly anisotropic old, else new, spacing.

    Source: nnU-Net v2.8.1, ``determine_do_sep_z_and_axis`` with its default threshold.
    """
    for spacing in (old_spacing, new_spacing):
        if max(spacing) / min(spacing) > SEPARATE_RATIO:
            coarsest = [axis for axis in range(3) if spacing[axis] == max(spacing)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def resample_image(image: Array, shape: Shape, separate: int | None, order: int = 3, out: Array | None = None) -> Array:
    """The image at another size, float32 (C, Z', Y', X'); the same array where the size does not change.

    Args:
        image: float32 (C, Z, Y, X).
        shape: voxels wanted along (z, y, x).
        separate: the axis resampled by nearest neighbour, every slice across it on its own; None for a full 3D spline.
        order: 3 for the cubic spline, 1 for linear.
        out: where to put the result, (C, Z', Y', X') in C order; None for a new array.

    The result is clipped to the range of the channel, or of each slice where an axis is separate.

    Raises:
        ValueError: `out` is not in C order.
    """
    if image.shape[1:] == shape:
        if out is None:
            return image
        out[:] = image
        return out
    if out is None:
        out = np.empty((len(image), *shape), dtype=np.float32)
    if not out.flags.c_contiguous:
        raise ValueError("the result must go into an array in C order")
    for source, target in zip(image, out, strict=True):
        if separate is None:
            _volume(np.ascontiguousarray(source, dtype=np.float32), target, order)
        else:
            slices = np.ascontiguousarray(np.moveaxis(source, separate, 0), dtype=np.float32)
            _slices(slices, np.moveaxis(target, separate, 0), order)
    return out


def resample_labels(label: Labels, shape: Shape, separate: int | None) -> Labels:
    """The label map at another size, int16 (Z', Y', X'); the same array where the size does not change.

    Each voxel takes the label whose indicator, interpolated linearly, is largest; a tie goes to the nearest voxel's
    label if that is among the tied ones, else to the lowest. Time and memory hardly depend on the number of labels:
    only voxels whose neighbours differ are interpolated, and no indicator is ever stored.

    Args:
        label: int16 (Z, Y, X); any value but the lowest int16, -1 being a label like any other.
        shape: voxels wanted along (z, y, x).
        separate: the axis resampled by nearest neighbour, or None.

    Source: nnU-Net v2.8.1, ``resample_data_or_seg`` with ``is_seg=True`` and ``order=1``, on batchgenerators 0.25.5.
    Releases of batchgenerators before that took the highest label that reaches 0.5 instead, which leaves voxels
    unlabelled where several labels meet and settles ties by the label's value.
    """
    if label.shape == shape:
        return label
    z, y, x = (
        _LabelAxis.of(old, new, axis == separate)
        for axis, (old, new) in enumerate(zip(label.shape, shape, strict=True))
    )
    label = np.ascontiguousarray(label)
    out = np.empty(shape, dtype=label.dtype)
    step = max(1, _LABEL_SLAB // (shape[1] * shape[2]))

    def resize(start: int) -> None:
        slab = slice(start, start + step)
        _label_slab(label, (z.part(slab), y, x), out[slab])

    on_threads(resize, range(0, shape[0], step))
    return out


def _volume(values: Array, out: Array, order: int) -> None:
    """One channel in 3D; the z axis first where it shrinks and last where it grows, so that less is computed."""
    clip = (values.min(), values.max())
    depth = len(out)
    if depth < len(values):
        reduced = np.empty((depth, *values.shape[1:]), np.float32)
        _along_depth(values, reduced, order)
        values = reduced
    if depth > len(values):
        planes = np.empty((len(values), *out.shape[1:]), np.float32)
        _in_planes(values, planes, order)
        _along_depth(planes, out, order, clip)
    else:
        _in_planes(values, out, order, clip)


def _slices(values: Array, out: Array, order: int) -> None:
    """One channel slice by slice along its first axis, then the nearest slice for each new one."""
    index = nearest_index(len(values), len(out))

    def resize(source: int) -> None:
        plane = values[source : source + 1]
        resized = np.empty((1, *out.shape[1:]), np.float32)
        _in_plane(plane, resized, order)
        np.clip(resized, plane.min(), plane.max(), out=resized)
        out[index == source] = resized[0]

    on_threads(resize, np.unique(index).tolist())


def _along_depth(values: Array, out: Array, order: int, clip: Range | None = None) -> None:
    """The z axis of (Z, Y, X), a block of columns at a time."""
    flat, result = values.reshape(len(values), -1), out.reshape(len(out), -1)
    parts = bands(len(values), len(out), order)

    def resize(start: int) -> None:
        columns = slice(start, start + _COLUMNS)
        for band in parts:
            target = result[band.target, columns]
            np.matmul(band.weights, flat[band.source, columns], out=target)
            if clip is not None:
                np.clip(target, *clip, out=target)

    on_threads(resize, range(0, flat.shape[1], _COLUMNS))


def _in_planes(values: Array, out: Array, order: int, clip: Range | None = None) -> None:
    """The y and x axes of (Z, Y, X), a few slices at a time so that they stay in a core's cache."""
    step = max(1, _PLANE_ROWS // values.shape[1])

    def resize(start: int) -> None:
        target = out[start : start + step]
        _in_plane(values[start : start + step], target, order)
        if clip is not None:
            np.clip(target, *clip, out=target)

    on_threads(resize, range(0, len(values), step))


def _in_plane(block: Array, out: Array, order: int) -> None:
    """The last two axes of a few slices (S, Y, X), the one that shrinks more first."""
    (height, width), (new_height, new_width) = block.shape[1:], out.shape[1:]
    if height == new_height:
        _columns(block, out, order)
    elif width == new_width:
        _rows(block, out, order)
    elif new_height * width < new_width * height:
        middle = np.empty((len(block), new_height, width), np.float32)
        _rows(block, middle, order)
        _columns(middle, out, order)
    else:
        middle = np.empty((len(block), height, new_width), np.float32)
        _columns(block, middle, order)
        _rows(middle, out, order)


def _rows(block: Array, out: Array, order: int) -> None:
    """The y axis of (S, Y, X)."""
    old, new = block.shape[1], out.shape[1]
    for source, target in zip(block, out, strict=True):
        for band in bands(old, new, order):
            np.matmul(band.weights, source[band.source], out=target[band.target])


def _columns(block: Array, out: Array, order: int) -> None:
    """The x axis of (S, Y, X)."""
    old, new = block.shape[2], out.shape[2]
    if old == new:
        out[:] = block
        return
    for band in bands(old, new, order):
        np.matmul(block[:, :, band.source], band.weights.T, out=out[:, :, band.target])


@dataclass(frozen=True)
class _LabelAxis:
    """Where each new voxel lies on one axis of a label map.

    Args:
        lower: the old voxel at or below it, (new,).
        fraction: how far beyond that one it lies, in [0, 1], (new,) float64; 0 where the axis is not interpolated.
        nearest: the old voxel nearest to it, (new,).
        linear: whether the axis is interpolated at all.
    """

    lower: NDArray[np.intp]
    fraction: NDArray[np.float64]
    nearest: NDArray[np.intp]
    linear: bool

    @classmethod
    def of(cls, old: int, new: int, separate: bool) -> _LabelAxis:
        nearest = nearest_index(old, new)
        if separate or old in (new, 1):
            return cls(nearest, np.zeros(new), nearest, False)
        position = np.clip(centres(old, new), 0, old - 1)
        lower = np.minimum(np.floor(position).astype(np.intp), old - 2)
        return cls(lower, position - lower, nearest, True)

    def part(self, span: slice) -> _LabelAxis:
        """The same for some of the new voxels."""
        return _LabelAxis(self.lower[span], self.fraction[span], self.nearest[span], self.linear)


def _label_slab(label: Labels, axes: tuple[_LabelAxis, ...], out: Labels) -> None:
    """Fills `out`: the label itself where all its neighbours agree, the largest share of weight elsewhere."""
    start, stop = axes[0].lower[0], axes[0].lower[-1] + 2
    cells = label[start:stop].copy()
    cells[~_agreeing(cells, [axis for axis in range(3) if axes[axis].linear])] = _MIXED
    indices = (axes[0].lower - start, axes[1].lower, axes[2].lower)
    for axis in sorted(range(3), key=lambda axis: len(indices[axis]) / cells.shape[axis]):
        cells = cells.take(indices[axis], axis)
    out[:] = cells
    flat = out.reshape(-1)
    mixed = np.flatnonzero(flat == _MIXED)
    for first in range(0, len(mixed), _LABEL_CHUNK):
        chunk = mixed[first : first + _LABEL_CHUNK]
        flat[chunk] = _largest_share(label, np.unravel_index(chunk, out.shape), axes)


def _agreeing(block: Labels, linear: Sequence[int]) -> Bools:
    """Whether each voxel and the next ones along the `linear` axes, diagonals included, all hold the same label."""
    same = np.ones(block.shape, dtype=bool)
    for axis in linear:
        here, following = [slice(None)] * 3, [slice(None)] * 3
        here[axis], following[axis] = slice(None, -1), slice(1, None)
        both = same[tuple(here)] & same[tuple(following)]
        both &= block[tuple(here)] == block[tuple(following)]
        same[tuple(here)] = both
    return same


def _largest_share(label: Labels, voxels: tuple[NDArray[np.intp], ...], axes: tuple[_LabelAxis, ...]) -> Labels:
    """The label with the largest sum of linear weights among the old voxels around each new one, (n,)."""
    flat = label.reshape(-1)
    strides = (label.shape[1] * label.shape[2], label.shape[2], 1)
    base = np.zeros(len(voxels[0]), dtype=np.intp)
    nearest = np.zeros_like(base)
    corners, weights = [base], [np.ones(len(base))]
    for axis, voxel, stride in zip(axes, voxels, strides, strict=True):
        base += axis.lower[voxel] * stride
        nearest += axis.nearest[voxel] * stride
    for axis, voxel, stride in zip(axes, voxels, strides, strict=True):
        if axis.linear:
            fraction = axis.fraction[voxel]
            corners = [*corners, *(corner + stride for corner in corners)]
            weights = [*(weight * (1 - fraction) for weight in weights), *(weight * fraction for weight in weights)]
    return _winner(np.stack([flat[corner] for corner in corners]), np.stack(weights), flat[nearest])


def _winner(labels: Labels, weights: NDArray[np.float64], nearest: Labels) -> Labels:
    """The heaviest label of each column of (corners, n); a tie goes to `nearest` if it is tied, else to the lowest."""
    low, high = labels.min(0), labels.max(0)
    is_high = labels == high
    share = (weights * is_high).sum(0)
    winner = np.where(share > 0.5 + _TIE, high, np.where(share < 0.5 - _TIE, low, nearest))
    several = np.flatnonzero(~(is_high | (labels == low)).all(0))
    if len(several):
        labels, weights, nearest = labels[:, several], weights[:, several], nearest[several]
        shares = np.stack([(weights * (labels == label)).sum(0) for label in labels])
        tied = shares >= shares.max(0) - _TIE
        lowest = np.where(tied, labels, np.iinfo(labels.dtype).max).min(0)
        winner[several] = np.where((tied & (labels == nearest)).any(0), nearest, lowest)
    return winner
