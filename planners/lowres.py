"""Whether a low-resolution stage is needed, and at which spacing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from selfcfg.planners.budget import Fit
from selfcfg.planners.spacing import Array

SEES_ENOUGH = 0.25
"""Share of the median image that a patch must hold; below it a low-resolution stage is sought."""
STEP = 1.03
"""Factor by which the spacing grows until the patch holds that share."""
WORTHWHILE = 2.0
"""Times fewer voxels the low-resolution image must have for the stage to be kept."""

Fitter = Callable[[Sequence[float], Sequence[float], float], Fit]
"""From spacing, median shape and the voxels of the dataset to a fit within the budget."""


@dataclass(frozen=True)
class LowResolution:
    """The outcome of the search for a low-resolution stage.

    Args:
        share: share of the median image that a full-resolution patch holds.
        reduction: how many times fewer voxels than full resolution; 1 where the search was not needed.
        spacing: mm along each axis; None where there is no such stage.
        median_shape: median image in voxels at that spacing.
        fit: patch, network and batch there.
    """

    share: float
    reduction: float
    spacing: tuple[float, ...] | None = None
    median_shape: tuple[float, ...] = ()
    fit: Fit | None = None


def low_resolution(
    full: Fit, spacing: Array, median_shape: Array, n_training: int, fitter: Fitter, *, most_voxels: float
) -> LowResolution:
    """The finest spacing at which a patch holds a quarter of the median image, if full resolution does not.

    The coarsest axis is left alone until the others are within a factor two of it; then all grow together.

    Args:
        full: the full-resolution fit.
        spacing: of full resolution, plan's axis order.
        median_shape: at full resolution, plan's axis order.
        n_training: number of training cases.
        fitter: finds patch, network and batch.
        most_voxels: what no patch of the fitter's exceeds; spacings at which that is too little are passed over.

    Source: nnU-Net v2.8.1, ``plan_experiment``.
    """
    voxels = full_voxels = float(np.prod(median_shape))
    held = float(math.prod(full.patch_size))
    share = held / full_voxels
    coarser, shape, fitted = spacing.copy(), median_shape, None
    while held / voxels < SEES_ENOUGH:
        fine_axes = max(coarser) / coarser > 2
        coarser[fine_axes if fine_axes.any() else slice(None)] *= STEP
        exact_shape = spacing / coarser * median_shape
        voxels = float(np.prod(exact_shape))
        if most_voxels / voxels < SEES_ENOUGH:
            continue
        shape = np.maximum(np.rint(exact_shape), 1)
        fitted = fitter(coarser.tolist(), shape.tolist(), voxels * n_training)
        held = float(math.prod(fitted.patch_size))
    reduction = full_voxels / voxels
    if fitted is None or reduction < WORTHWHILE:
        return LowResolution(share, reduction)
    return LowResolution(share, reduction, tuple(coarser.tolist()), tuple(shape.tolist()), fitted)
