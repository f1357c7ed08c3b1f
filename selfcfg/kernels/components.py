"""The connected components of a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selfcfg.kernels.morphology import Mask, extent


def connected_components(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """The components of a mask (Z, Y, X), int32 (Z, Y, X) from 1 on and 0 outside of it; and how many there are.

    Voxels belong together that touch by a corner: 26 neighbours, 8 in a plane.

    >>> found, count = connected_components(np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 0]]], dtype=bool))
    >>> count, found.tolist()
    (2, [[[1, 0, 0], [0, 1, 0], [0, 0, 0], [2, 2, 0]]])

    Source: the neighbours are those of nnU-Net v2.8.1, ``remove_all_but_largest_component``.
    """
    found = np.zeros(mask.shape, dtype=np.int32)
    box = extent(mask, 0)
    if box is None:
        return found, 0
    from scipy.ndimage import label  # noqa: PLC0415 - the import takes a third of a second

    count = label(mask[box], np.ones((3, 3, 3)), output=found[box])
    return found, int(count)
