"""Faults drawn into the previous stage's label map, so that the second network of a cascade learns to mend them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import generate_binary_structure
from scipy.ndimage import label as components

from selfcfg.engine.augmentation.transforms import Augmentation
from selfcfg.kernels.morphology import Operation, apply_operation, extent

Labels = NDArray[np.int16]

_OPERATIONS: tuple[Operation, ...] = get_args(Operation)


class Change(NamedTuple):
    """One class grown, shrunk, closed or opened by a ball; what it gains is taken from the other classes."""

    value: int
    operation: Operation
    radius: float


class Removal(NamedTuple):
    """One connected component of a class is taken away; `pick` (0 to 1) says which of those that are small enough."""

    value: int
    pick: float


class Faults(NamedTuple):
    """Everything that was drawn for one sample, in order; `largest` is the share of the box a removal may take."""

    changes: tuple[Change, ...] = ()
    removals: tuple[Removal, ...] = ()
    largest: float = 0.0


def draw_faults(rng: np.random.Generator, values: Sequence[int], augmentation: Augmentation) -> Faults:
    """The faults of one sample.

    Args:
        rng: random numbers.
        values: the foreground values of the label map.
        augmentation: probabilities and ranges, the fields ``previous_...``.

    Source: nnU-Net v2.8.1, get_training_transforms: ApplyRandomBinaryOperatorTransform and
        RemoveRandomConnectedComponentFromOneHotEncodingTransform. Our choice: they act before the rotation, on the
        label map, where the reference acts after it, on one mask a class.
    """
    a = augmentation
    changes = [
        Change(value, _OPERATIONS[int(rng.integers(len(_OPERATIONS)))], float(rng.uniform(*a.previous_change_radius)))
        for value in _chosen(rng, values, a.previous_change_p, a.previous_change_p_class)
    ]
    removals = [
        Removal(value, float(rng.random()))
        for value in _chosen(rng, values, a.previous_removal_p, a.previous_removal_p_class)
    ]
    return Faults(tuple(changes), tuple(removals), a.previous_removal_share)


def spoil(labels: Labels, faults: Faults) -> Labels:
    """The label map with the faults in it, int16 of the same shape (2 or 3 axes); the one given stays as it is."""
    if not (faults.changes or faults.removals):
        return labels
    labels = labels.copy()
    for change in faults.changes:
        _change(labels, change)
    for removal in faults.removals:
        _remove(labels, removal, faults.largest)
    return labels


def _chosen(rng: np.random.Generator, values: Sequence[int], p: float, p_class: float) -> list[int]:
    """The classes something happens to, in random order."""
    if rng.random() >= p:
        return []
    return [int(value) for value in rng.permutation(values) if rng.random() < p_class]


def _change(labels: Labels, change: Change) -> None:
    box = extent(labels == change.value, 2 * math.ceil(change.radius) + 1)
    if box is None:
        return
    part = labels[box]
    before = part == change.value
    after = apply_operation(before, change.operation, change.radius)
    part[before & ~after] = 0
    part[after] = change.value


def _remove(labels: Labels, removal: Removal, largest: float) -> None:
    box = extent(labels == removal.value, 0)
    if box is None:
        return
    part = labels[box]
    numbered, count = components(part == removal.value, generate_binary_structure(part.ndim, part.ndim))
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    small = [number for number in range(1, count + 1) if sizes[number] < largest * labels.size]
    if small:
        part[numbered == small[int(removal.pick * len(small))]] = 0
