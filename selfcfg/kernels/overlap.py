"""How far two label maps agree voxel by voxel: one joint histogram, from which every overlap metric follows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 16
"""Voxels at a time, so that they stay in a core's cache."""


def joint_histogram(
    reference: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer], n_values: int
) -> npt.NDArray[np.int64]:
    """The number of voxels for each pair of values, (n_values, n_values): rows are reference, columns prediction.

    Voxels that are 0 in both, most of a medical image, are counted by what is left.

    Args:
        reference: integers from 0 to ``n_values - 1``, any shape.
        prediction: the same shape and range.
        n_values: number of possible values.

    Raises:
        ValueError: the shapes differ, or a value is out of range.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"reference and prediction differ in shape: {reference.shape} and {prediction.shape}")
    rows, columns = reference.reshape(-1), prediction.reshape(-1)
    histogram = np.zeros(n_values * n_values, dtype=np.int64)
    narrow = np.min_scalar_type(len(histogram))
    for start in range(0, rows.size, _BLOCK):
        row, column = rows[start : start + _BLOCK], columns[start : start + _BLOCK]
        for name, values in (("reference", row), ("prediction", column)):
            if values.min() < 0 or values.max() >= n_values:
                raise ValueError(
                    f"{name} holds values from {values.min()} to {values.max()}, expected 0 to {n_values - 1}"
                )
        pair = row.astype(narrow)
        pair *= narrow.type(n_values)
        pair += column.astype(narrow, copy=False)
        pair = pair[pair != 0]
        histogram[0] += row.size - pair.size
        histogram += np.bincount(pair, minlength=len(histogram))
    return histogram.reshape(n_values, n_values)


@dataclass(frozen=True)
class Counts:
    """Voxels of one class: true and false positives and negatives."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def n_reference(self) -> int:
        """Voxels of the class in the reference."""
        return self.tp + self.fn

    @property
    def n_prediction(self) -> int:
        """Voxels of the class in the prediction."""
        return self.tp + self.fp

    @property
    def dice(self) -> float | None:
        """2 TP / (2 TP + FP + FN), or None where the class is in neither."""
        size = self.n_reference + self.n_prediction
        return 2 * self.tp / size if size else None

    @property
    def iou(self) -> float | None:
        """TP / (TP + FP + FN), or None where the class is in neither."""
        union = self.tp + self.fp + self.fn
        return self.tp / union if union else None


def counts(histogram: npt.NDArray[np.int64], values: Collection[int], ignore: int | None = None) -> Counts:
    """The counts of the class or region made of `values`; reference voxels of value `ignore` are left out.

    Args:
        histogram: joint histogram, rows are reference.
        values: label values that belong to the class.
        ignore: reference value of voxels that are not annotated, or None.
    """
    inside = np.zeros(len(histogram), dtype=bool)
    inside[list(values)] = True
    outside = ~inside
    if ignore is not None:
        outside[ignore] = False
    columns_outside = ~inside
    return Counts(
        tp=int(histogram[np.ix_(inside, inside)].sum()),
        fp=int(histogram[np.ix_(outside, inside)].sum()),
        fn=int(histogram[np.ix_(inside, columns_outside)].sum()),
        tn=int(histogram[np.ix_(outside, columns_outside)].sum()),
    )
