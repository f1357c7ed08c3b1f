"""The box around everything that is not zero, and the mask of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]
"""A slice with start and stop along each of (z, y, x)."""

Mask = NDArray[np.bool_]

_FEW = 0.02
"""Share of an image that can be walked over in less time than labelling all of it takes."""


def nonzero_box(image: NDArray[np.generic]) -> tuple[Mask | None, Box]:
    """The mask of what is not zero in some channel, holes filled, cut to its box; and that box in the image.

    Args:
        image: (C, Z, Y, X).

    Returns:
        The mask (z, y, x of the box), or None when it is true everywhere in the box; and the box. An image that is
        zero everywhere gives a mask without any true voxel and the box of the whole image.

    Source: nnU-Net v2.8.1, ``crop_to_nonzero``. A hole is a zero region that touches no face of the image, by faces
    of voxels; filling inside the box gives the same, since all that lies outside the box is zero.
    """
    mask = image[0] != 0
    for channel in image[1:]:
        mask |= channel != 0
    box = _bounding_box(mask)
    mask = mask[box]
    if mask.all():
        return None, box
    if mask.any():
        mask = _fill_holes(mask)
    return (None if mask.all() else mask), box


def _bounding_box(mask: Mask) -> Box:
    spans = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(mask.any(axis=others))
        spans.append(slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, mask.shape[axis]))
    return spans[0], spans[1], spans[2]


def _fill_holes(mask: Mask) -> Mask:
    """The mask and everything zero that no path by faces of voxels joins to a face of the image."""
    if (holes := _few_outside(mask)) is not None:
        return mask | holes
    from scipy import ndimage  # noqa: PLC0415 - takes 0.3 s to import, and few images need it

    components, count = ndimage.label(~mask)
    outside = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        for face in (0, -1):
            outside[np.unique(components.take(face, axis))] = True
    outside[0] = False
    filled: Mask = ~outside[components]
    return filled


def _few_outside(mask: Mask) -> Mask | None:
    """The holes, found by walking in from the faces; None as soon as that takes more than a scan of the whole.

    Made for CT, where tissue of 0 HU lies everywhere, some of it on the faces, and hardly any of it hangs together.
    """
    empty = np.ascontiguousarray(np.pad(~mask, 1))
    shell = empty.copy()
    shell[2:-2, 2:-2, 2:-2] = False
    steps = [sign * stride for stride in empty.strides for sign in (-1, 1)]
    flat = empty.reshape(-1)
    front = np.flatnonzero(shell)
    left = int(mask.size * _FEW)
    while len(front) and len(front) <= left:
        left -= len(front)
        flat[front] = False
        around = np.unique(np.add.outer(front, steps))
        front = around[flat[around]]
    return None if len(front) else empty[1:-1, 1:-1, 1:-1]
