"""Whether two masks of tubes have the same course: Dice of centrelines."""

from __future__ import annotations

import numpy as np

from selfcfg.kernels.morphology import Mask


def centreline(mask: Mask) -> Mask:
    """The mask thinned to lines one voxel wide; axes of one voxel carry no shape and are left out.

    Thinning can wear a small even block away altogether; such a component is its own centreline (our choice), so that
    a lesion of 2 x 2 x 2 voxels is not taken for nothing.

    Source: Zhang and Suen 1984 (2D), Lee, Kashyap and Chu 1994 (3D), as in scikit-image.
    """
    from scipy.ndimage import label  # noqa: PLC0415 - the import takes a third of a second
    from skimage.morphology import skeletonize  # noqa: PLC0415 - slow to import

    flat = mask.reshape([size for size in mask.shape if size > 1] or [1])
    if flat.ndim == 1:
        return mask
    thin = skeletonize(flat) > 0  # type: ignore[no-untyped-call]
    parts, n_parts = label(flat, np.ones([3] * flat.ndim, dtype=bool))
    kept = np.zeros(n_parts + 1, dtype=bool)
    kept[parts[thin]] = True
    kept[0] = True
    return np.asarray((thin | ~kept[parts]).reshape(mask.shape))


def centreline_dice(reference: Mask, prediction: Mask) -> float | None:
    """The harmonic mean of topology precision and topology sensitivity (clDice); None for two empty masks.

    Topology precision is the share of the prediction's centreline inside the reference, topology sensitivity the share
    of the reference's centreline inside the prediction. 0 where just one of the masks is empty.

    Args:
        reference: (Z, Y, X).
        prediction: the same shape.

    Source: Shit et al. 2021, "clDice", eq. 1 and 2.
    """
    if not reference.any() and not prediction.any():
        return None
    if not reference.any() or not prediction.any():
        return 0.0
    precision, sensitivity = (
        np.count_nonzero(line & other) / np.count_nonzero(line)
        for line, other in ((centreline(prediction), reference), (centreline(reference), prediction))
    )
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0
