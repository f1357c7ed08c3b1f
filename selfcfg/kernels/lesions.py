"""Connected components of two masks, and which of them are the same lesion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from selfcfg.kernels.morphology import Mask

Neighbours = Literal["corners", "edges", "faces"]
"""Voxels that belong together touch at least so much: 26, 18 or 6 neighbours in 3D; 8, 8 or 4 in 2D."""

_RANK: dict[Neighbours, int] = {"faces": 1, "edges": 2, "corners": 3}


@dataclass(frozen=True)
class Lesions:
    """The components of a reference and of a prediction, and every pair of them that shares a voxel.

    Args:
        n_reference: components of the reference.
        n_prediction: components of the prediction.
        reference: of each pair, the index of its component in the reference, from 0.
        prediction: the same in the prediction.
        iou: of each pair, voxels in both components by voxels in either.
    """

    n_reference: int
    n_prediction: int
    reference: npt.NDArray[np.intp]
    prediction: npt.NDArray[np.intp]
    iou: npt.NDArray[np.float64]

    def touched(self) -> tuple[int, int]:
        """How many components of the reference, and of the prediction, share a voxel with the other mask."""
        return len(np.unique(self.reference)), len(np.unique(self.prediction))

    def matched(self, threshold: float = 0.5) -> npt.NDArray[np.float64]:
        """The IoU of each pair that is the same lesion: IoU above `threshold`, no component in two pairs.

        From 0.5 on no component can have two such partners. Below, the pairs are those whose IoUs have the largest sum.

        Source: Kirillov et al. 2019, "Panoptic Segmentation", section 4.1 and its theorem; the assignment below 0.5 as
        in Metrics Reloaded (Maier-Hein et al. 2024, "optimal (Hungarian) matching").
        """
        near = self.iou > threshold
        if threshold >= 0.5 or not near.any():
            return self.iou[near]
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - slow to import

        rows, row = np.unique(self.reference[near], return_inverse=True)
        columns, column = np.unique(self.prediction[near], return_inverse=True)
        worth = np.zeros((len(rows), len(columns)))
        worth[row, column] = self.iou[near]
        chosen = worth[linear_sum_assignment(worth, maximize=True)]
        return np.asarray(chosen[chosen > 0])


def lesions(reference: Mask, prediction: Mask, neighbours: Neighbours = "corners") -> Lesions:
    """The components of two masks of the same shape (Z, Y, X), and their overlaps.

    >>> a = np.array([[[1, 1, 1, 0, 0, 1]]], dtype=bool)
    >>> b = np.array([[[0, 1, 1, 0, 0, 0]]], dtype=bool)
    >>> found = lesions(a, b)
    >>> found.n_reference, found.n_prediction, found.matched()
    (2, 1, array([0.66666667]))
    """
    from scipy.ndimage import generate_binary_structure, label  # noqa: PLC0415 - the import takes a third of a second

    structure = generate_binary_structure(reference.ndim, min(_RANK[neighbours], reference.ndim))
    (first, n_first), (second, n_second) = (label(mask, structure) for mask in (reference, prediction))
    sizes = [np.bincount(labels.ravel(), minlength=n + 1) for labels, n in ((first, n_first), (second, n_second))]
    both = reference & prediction
    pairs, shared = np.unique(first[both].astype(np.int64) * (n_second + 1) + second[both], return_counts=True)
    rows, columns = np.divmod(pairs, n_second + 1)
    iou = shared / (sizes[0][rows] + sizes[1][columns] - shared)
    return Lesions(n_first, n_second, rows - 1, columns - 1, iou)
