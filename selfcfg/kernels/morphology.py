"""Binary morphology with balls, on masks of two or three axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Operation = Literal["dilate", "erode", "close", "open"]


def dilate(mask: Mask, radius: float, spacing: Sequence[float] | None = None) -> Mask:
    """Every voxel whose centre lies within `radius` of the mask's; nothing comes in over the border.

    Axis after axis, each voxel takes the smallest squared distance among its neighbours plus their own: 2 `radius` + 1
    looks an axis, where trying every voxel of the ball would take its volume.

    Args:
        mask: of two or three axes.
        radius: in the unit of the spacing.
        spacing: of the voxels, one an axis; None counts voxels, which takes a quarter of the memory.
    """
    limit = radius * radius
    whole = spacing is None
    far: np.int16 | np.float64 = np.int16(math.floor(limit) + 1) if whole else np.float64(math.inf)
    squared: NDArray[Any] = np.where(mask, far.dtype.type(0), far)
    for axis, size in enumerate(mask.shape):
        side = 1.0 if spacing is None else spacing[axis]
        before, squared = squared, squared.copy()
        reach = math.floor(radius) if whole else math.floor(radius / side) + 1
        for step in range(1, min(reach, size - 1) + 1):
            own = far.dtype.type((step * side) ** 2)
            here, there = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
            here[axis], there[axis] = slice(step, None), slice(None, -step)
            for target, source in ((tuple(here), tuple(there)), (tuple(there), tuple(here))):
                np.minimum(squared[target], before[source] + own, out=squared[target])
    return np.asarray(squared <= limit)


def apply_operation(mask: Mask, operation: Operation, radius: float) -> Mask:
    """The mask dilated, eroded, closed (dilated, then eroded) or opened (eroded, then dilated) by a ball."""
    if operation == "dilate":
        return dilate(mask, radius)
    if operation == "erode":
        return ~dilate(~mask, radius)
    if operation == "close":
        return ~dilate(~dilate(mask, radius), radius)
    return dilate(~dilate(~mask, radius), radius)


def extent(mask: Mask, margin: int) -> tuple[slice, ...] | None:
    """The box of the mask with a margin, cut at the array's border; None for an empty mask."""
    box = []
    for axis in range(mask.ndim):
        places = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not len(places):
            return None
        box.append(slice(max(0, int(places[0]) - margin), int(places[-1]) + 1 + margin))
    return tuple(box)
