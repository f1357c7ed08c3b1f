"""Probabilities of several networks made one, the label map that they stand for, and their files.

Choosing an ensemble and predicting with it both go through here, so that what was scored is what is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.prediction.export import LabelMap, Probabilities
from selfcfg.errors import DataError
from selfcfg.labels import LabelSchema

Mean = NDArray[np.float32]


def add_weighted(total: Mean, values: NDArray[Any], weight: float) -> None:
    """Adds probabilities (K, ...) times a weight to a sum of such, output by output.

    The order in which several are added decides the last bits: it is that of the members everywhere.
    """
    for output, one in enumerate(values):
        total[output] += np.float32(weight) * one.astype(np.float32)


def weighted_mean(stacks: Sequence[NDArray[Any]], weights: Sequence[float]) -> Mean:
    """The sum of probabilities (K, ...) times their weights, which are 1 together, float32 (K, ...)."""
    total = np.zeros(stacks[0].shape, dtype=np.float32)
    for stack, weight in zip(stacks, weights, strict=True):
        add_weighted(total, stack, weight)
    return total


def decoded(probabilities: NDArray[Any], labels: LabelSchema) -> LabelMap:
    """The label map (...) of probabilities (K, ...): the most probable class, or regions above one half in their order.

    Source: nnU-Net v2.8.1, section 2.16; the first of equally probable classes.
    """
    kind = np.uint8 if max(labels.values) < 256 else np.uint16
    if not labels.has_regions:
        found: LabelMap = probabilities.argmax(0).astype(kind)
        return found
    painted: LabelMap = np.zeros(probabilities.shape[1:], dtype=kind)
    for value, one in zip(labels.regions_class_order, probabilities, strict=True):
        painted[one > 0.5] = value
    return painted


def votes(probabilities: NDArray[Any], labels: LabelSchema) -> NDArray[np.integer]:
    """What one network decides at each voxel (...): the class, or which regions, as bits of a number.

    Where several networks decide the same, so does every weighted mean of them.
    """
    if not labels.has_regions:
        return decoded(probabilities, labels)
    bits = np.zeros(probabilities.shape[1:], dtype=np.int64)
    for index, one in enumerate(probabilities):
        bits |= (one > 0.5).astype(np.int64) << index
    return bits


def read_probabilities(path: Path) -> Probabilities:
    """The probabilities float16 (K, Z, Y, X) of a file that `write_probabilities` made.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            found: Probabilities = content["probabilities"]
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        remedy = "remove the file: it is made again"
        raise DataError(f"read {path}", f"no usable probabilities ({error})", remedy) from error
    return found
