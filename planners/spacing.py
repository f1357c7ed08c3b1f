"""At which resolution to work, in which order of axes, and how large the images are then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selfcfg.errors import UsageError
from selfcfg.fingerprint import Fingerprint
from selfcfg.geometry import Vector

Array = NDArray[np.float64]

ANISOTROPY = 3.0
"""Ratio from which one axis counts as much coarser than the others. Source: nnU-Net v2.8.1, ANISO_THRESHOLD."""

FINER_PERCENTILE = 10.0
"""Percentile taken along a much coarser axis in place of the median. Source: nnU-Net v2.8.1."""

FINEST, COARSEST = 1e-6, 1e6
"""Spacings in mm that are planned for, a nanometre to a kilometre; beyond them it is a wrong unit or a broken file."""


@dataclass(frozen=True)
class TargetSpacing:
    """The resolution that images are resampled to at full resolution, and how it came about.

    Args:
        values: mm along (z, y, x).
        rule: "median", "finer" (thick slices: a low percentile along one axis) or "given" (by the user).
        median: median spacing of the dataset in mm.
        axis: the axis that the "finer" rule changed, or would have changed: the coarsest.
    """

    values: Array
    rule: Literal["median", "finer", "given"]
    median: Array
    axis: int


def target_spacing(fingerprint: Fingerprint, given: Vector | None = None) -> TargetSpacing:
    """The spacing to resample to: the median, along the slice axis of thick-slice data a finer one; or what is `given`.

    Slices are thick when the coarsest axis has more than three times the spacing and less than a third of the voxels
    of both others. There the median would throw slices away, so the 10th percentile is taken, though never one finer
    than the other axes.

    Args:
        fingerprint: what was measured.
        given: spacing (z, y, x) in mm that replaces the rule.

    Raises:
        UsageError: `given` is no possible spacing.

    Source: nnU-Net v2.8.1, ``determine_fullres_target_spacing``.
    """
    spacings = np.array(fingerprint.spacings, dtype=np.float64)
    median = np.percentile(spacings, 50, axis=0)
    axis = int(np.argmax(median))
    if given is not None:
        if not all(FINEST <= mm <= COARSEST for mm in given):
            found = f"not three positive numbers from {FINEST:g} to {COARSEST:g}"
            raise UsageError(f"--spacing {','.join(map(str, given))}", found, "give z,y,x in mm")
        return TargetSpacing(np.array(given, dtype=np.float64), "given", median, axis)
    shape = np.percentile(np.array(fingerprint.shapes_after_crop), 50, axis=0)
    others = [other for other in range(3) if other != axis]
    coarse = median[axis] > ANISOTROPY * max(median[others])
    few_slices = shape[axis] * ANISOTROPY < min(shape[others])
    if not (coarse and few_slices):
        return TargetSpacing(median.copy(), "median", median, axis)
    finer = np.percentile(spacings[:, axis], FINER_PERCENTILE)
    if finer < max(median[others]):
        finer = max(median[others]) + 1e-5
    values = median.copy()
    values[axis] = finer
    return TargetSpacing(values, "finer", median, axis)


def axis_order(spacing: Array) -> tuple[int, int, int]:
    """The axes with the coarsest one first (the first of equals) and the others as they were.

    Two-dimensional networks then see the two finest axes.

    Source: nnU-Net v2.8.1, ``determine_transpose``.
    """
    first = int(np.argmax(spacing))
    second, third = (axis for axis in range(3) if axis != first)
    return first, second, third


def median_shape(fingerprint: Fingerprint, spacing: Array) -> Array:
    """The median over cases of the shape (z, y, x) after resampling to `spacing`; at least one voxel along each axis.

    Source: nnU-Net v2.8.1, ``compute_new_shape``; one voxel for none is our choice: the reference
    divides by zero there.
    """
    # rint rounds half to even, like Python's round in the reference
    shapes = np.rint(np.array(fingerprint.spacings) / spacing * np.array(fingerprint.shapes_after_crop))
    middle: Array = np.median(shapes, axis=0)
    return np.where(middle > 0, middle, 1.0)
