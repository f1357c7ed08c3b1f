"""Binary morphology with balls, on masks of two or three axes."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Operation = Literal["dilate", "erode", "close", "open"]


def dilate(mask: Mask, radius: float) -> Mask:
    """Every voxel whose centre lies within `radius` voxels of the mask's; nothing comes in over the border.

    Axis after axis, each voxel takes the smallest squared distance among its neighbours plus their own: 2 `radius` + 1
    looks an axis, where trying every voxel of the ball would take its volume.
    """
    limit, reach = radius * radius, math.floor(radius)
    far = np.int16(math.floor(limit) + 1)
    squared: NDArray[np.int16] = np.where(mask, np.int16(0), far)
    for axis in range(mask.ndim):
        before, squared = squared, squared.copy()
        for step in range(1, reach + 1):
            own = np.int16(step * step)
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
