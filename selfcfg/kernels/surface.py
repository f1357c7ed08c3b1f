"""How far the surfaces of two masks lie apart, in mm.

The surface of a mask is the set of its voxels that share a face with a voxel outside it; outside the image counts as
outside. Distances run between voxel centres. Axes of one voxel carry no shape and are left out, so that a 2D image has
a contour and not an area for a surface.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selfcfg.kernels.morphology import Mask, dilate


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance in mm of each surface voxel of one mask to the nearest surface voxel of the other, both ways.

    Args:
        to_prediction: one value a surface voxel of the reference.
        to_reference: one value a surface voxel of the prediction.
    """

    to_prediction: npt.NDArray[np.float64]
    to_reference: npt.NDArray[np.float64]

    def hausdorff(self, percentile: float = 95.0) -> float:
        """The larger of the two directed percentiles of the distances, in mm (HD95 by default).

        Source: Huttenlocher et al. 1993 (directed distances, rank instead of maximum); the larger of the two directed
        percentiles as in Metrics Reloaded (Maier-Hein et al. 2024, "HD95"), not the percentile of the pooled distances.
        Percentiles interpolate linearly between ranks.
        """
        return max(float(np.percentile(side, percentile)) for side in (self.to_prediction, self.to_reference))

    def average(self) -> float:
        """The mean of the distances of both ways together, in mm (ASSD).

        Source: Heimann et al. 2009, "Comparison and evaluation of methods for liver segmentation from CT datasets";
        Metrics Reloaded (Maier-Hein et al. 2024, "ASSD"). Not the mean of the two directed means (their "MASD").
        """
        return float((self.to_prediction.sum() + self.to_reference.sum()) / self._size)

    def surface_dice(self, tolerance: float) -> float:
        """The share of all surface voxels of both masks that lie within `tolerance` mm of the other surface (NSD).

        Source: Nikolov et al. 2021, "Clinically applicable segmentation", eq. 1, with voxels in the place of surface
        elements.
        """
        near = np.count_nonzero(self.to_prediction <= tolerance) + np.count_nonzero(self.to_reference <= tolerance)
        return near / self._size

    @property
    def _size(self) -> int:
        return self.to_prediction.size + self.to_reference.size


def surface_distances(
    reference: Mask, prediction: Mask, spacing: Sequence[float], ignored: Mask | None = None
) -> SurfaceDistances | None:
    """The distances between the surfaces of two masks, or None where one of them has no surface.

    Args:
        reference: (Z, Y, X).
        prediction: the same shape.
        spacing: mm along (z, y, x).
        ignored: voxels that are not annotated; they belong to neither mask, and a contact with them is no surface.
    """
    found = _surfaces(reference, prediction, ignored)
    if found is None:
        return None
    _, surfaces, keep = found
    scale = np.asarray(spacing, dtype=np.float64)[keep]
    points = [np.argwhere(surface)[:, keep] for surface in surfaces]
    if not len(points[0]) or not len(points[1]):
        return None
    return SurfaceDistances(
        to_prediction=_nearest(points[0], surfaces[1], points[1], scale, keep),
        to_reference=_nearest(points[1], surfaces[0], points[0], scale, keep),
    )


def boundary_iou(
    reference: Mask, prediction: Mask, spacing: Sequence[float], width: float, ignored: Mask | None = None
) -> float | None:
    """The IoU of what lies along the surfaces: the voxels of each mask within `width` mm of its own surface.

    None where neither mask has a surface; 0 where one of them has none.

    Args:
        reference: (Z, Y, X).
        prediction: the same shape.
        spacing: mm along (z, y, x).
        width: mm, from voxel centre to voxel centre; 0 leaves the surface voxels themselves.
        ignored: voxels that are not annotated; they belong to neither mask, and a contact with them is no surface.

    Source: Cheng et al. 2021, "Boundary IoU", with exact distances in mm in place of repeated erosion.
    """
    found = _surfaces(reference, prediction, ignored)
    if found is None or not any(surface.any() for surface in found[1]):
        return None
    bands = [mask & dilate(surface, width, spacing) for mask, surface in zip(*found[:2], strict=True)]
    return float(np.count_nonzero(bands[0] & bands[1]) / np.count_nonzero(bands[0] | bands[1]))


def diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """The length of the image's diagonal in mm, axes of one voxel left out."""
    sides = [size * step for size, step in zip(shape, spacing, strict=True) if size > 1]
    return math.hypot(*sides) if sides else min(spacing)


def _surfaces(
    reference: Mask, prediction: Mask, ignored: Mask | None
) -> tuple[list[Mask], list[Mask], list[int]] | None:
    """Both masks and their surfaces in the box around both, and the axes that carry shape; None for two empty masks."""
    masks = [mask if ignored is None else mask & ~ignored for mask in (reference, prediction)]
    box = _box(masks[0] | masks[1])
    if box is None:
        return None
    keep = [axis for axis, size in enumerate(reference.shape) if size > 1] or [reference.ndim - 1]
    surfaces = []
    for mask in masks:
        solid = mask if ignored is None else mask | ignored
        surfaces.append(_surface(_window(mask, box), _window(solid, box), keep))
    return [mask[box] for mask in masks], surfaces, keep


def _box(mask: Mask) -> tuple[slice, ...] | None:
    """The smallest box that holds every voxel of the mask, or None for an empty one."""
    slices = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        if not filled.size:
            return None
        slices.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(slices)


def _window(mask: Mask, box: tuple[slice, ...]) -> Mask:
    """The box of the mask and one voxel around it, False outside the image."""
    window = np.zeros([side.stop - side.start + 2 for side in box], dtype=bool)
    source, target = [], []
    for side, size in zip(box, mask.shape, strict=True):
        start, stop = max(side.start - 1, 0), min(side.stop + 1, size)
        source.append(slice(start, stop))
        target.append(slice(start - side.start + 1, stop - side.start + 1))
    window[tuple(target)] = mask[tuple(source)]
    return window


def _surface(mask: Mask, solid: Mask, axes: Sequence[int]) -> Mask:
    """The voxels of a window's inside that are in `mask` and have a face neighbour outside `solid`."""
    inner = tuple(slice(1, -1) for _ in mask.shape)
    enclosed = np.ones([size - 2 for size in mask.shape], dtype=bool)
    for axis in axes:
        for side in (slice(0, -2), slice(2, None)):
            enclosed &= solid[(*inner[:axis], side, *inner[axis + 1 :])]
    return mask[inner] & ~enclosed


def _nearest(
    points: npt.NDArray[np.intp],
    other: Mask,
    other_points: npt.NDArray[np.intp],
    scale: npt.NDArray[np.float64],
    axes: Sequence[int],
) -> npt.NDArray[np.float64]:
    """Distance of each point to the nearest of `other_points`; points that lie on the other surface need no search."""
    from scipy.spatial import cKDTree  # noqa: PLC0415 - the import takes a third of a second

    place = np.zeros((other.ndim, len(points)), dtype=np.intp)
    place[list(axes)] = points.T
    distances = np.zeros(len(points))
    apart = ~other[tuple(place)]
    if apart.any():
        distances[apart] = cKDTree(other_points * scale).query(points[apart] * scale)[0]
    return distances
