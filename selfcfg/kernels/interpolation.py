"""Interpolation along one axis as a small matrix (new, old): the cubic spline and linear, and the nearest voxel.

The kernels are those of ``scipy.ndimage.zoom(mode="nearest", grid_mode=True)``, which
``skimage.transform.resize(mode="edge", anti_aliasing=False)`` calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_PAD = 12
"""Edge voxels repeated before the spline filter, as scipy does."""
_NEGLIGIBLE = 1e-8
_BAND_ROWS = 32

Vector = NDArray[np.float64]
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Band:
    """A block of rows of an axis matrix and the only columns it needs: a spline's weights fall by 0.27 a voxel.

    Args:
        target: the rows.
        source: the columns.
        weights: float32 (rows, columns).
    """

    target: slice
    source: slice
    weights: Matrix


def centres(old: int, new: int) -> Vector:
    """Where the new voxels' centres lie on the old axis, in old voxels, (new,), not clipped to the axis."""
    return (np.arange(new, dtype=np.float64) + 0.5) * (old / new) - 0.5


def nearest_index(old: int, new: int) -> NDArray[np.intp]:
    """The old voxel nearest to each new one, (new,); halfway, the higher."""
    return np.floor(np.clip(centres(old, new), 0, old - 1) + 0.5).astype(np.intp)


@lru_cache(maxsize=64)
def axis_matrix(old: int, new: int, order: int) -> Matrix:
    """The weights of an axis resampled from `old` to `new` voxels, float32 (new, old); shared and read-only.

    Args:
        old: voxels before.
        new: voxels after.
        order: 1 for linear interpolation, 3 for the cubic spline with its prefilter.
    """
    if order not in (1, 3):
        raise ValueError(f"interpolation of order {order}: only 1 (linear) and 3 (cubic spline) are there")
    weights = np.ones((new, 1)) if old == 1 else _linear(old, new) if order == 1 else _cubic(old, new)
    weights[np.abs(weights) < _NEGLIGIBLE] = 0
    matrix = weights.astype(np.float32)
    matrix.flags.writeable = False
    return matrix


@lru_cache(maxsize=64)
def bands(old: int, new: int, order: int) -> tuple[Band, ...]:
    """The axis matrix cut into bands, which together cover every weight that is not zero."""
    matrix = axis_matrix(old, new, order)
    found = []
    for start in range(0, new, _BAND_ROWS):
        rows = matrix[start : start + _BAND_ROWS]
        used = np.flatnonzero(rows.any(0))
        source = slice(int(used[0]), int(used[-1]) + 1)
        found.append(Band(slice(start, start + len(rows)), source, np.ascontiguousarray(rows[:, source])))
    return tuple(found)


def _linear(old: int, new: int) -> Vector:
    position = np.clip(centres(old, new), 0, old - 1)
    lower = np.minimum(np.floor(position).astype(np.intp), old - 2)
    weights = np.zeros((new, old))
    rows = np.arange(new)
    weights[rows, lower] = 1 - (position - lower)
    weights[rows, lower + 1] += position - lower
    return weights


def _cubic(old: int, new: int) -> Vector:
    coefficients = _spline_coefficients(np.pad(np.eye(old), ((_PAD, _PAD), (0, 0)), mode="edge"))
    position = centres(old, new) + _PAD
    lower = np.floor(position).astype(np.intp)
    t = position - lower
    basis = ((1 - t) ** 3 / 6, (4 - 6 * t**2 + 3 * t**3) / 6, (1 + 3 * t + 3 * t**2 - 3 * t**3) / 6, t**3 / 6)
    weights = np.zeros((new, old))
    for tap, weight in enumerate(basis):
        weights += weight[:, None] * coefficients[lower + tap - 1]
    return weights


def _spline_coefficients(samples: Vector) -> Vector:
    """The cubic B-spline coefficients that interpolate the rows of `samples`, mirrored half a voxel beyond the ends.

    Solves (c[k - 1] + 4 c[k] + c[k + 1]) / 6 = samples[k] by elimination downwards and upwards.
    """
    coefficients = 6 * samples
    pivots = np.full(len(samples), 4.0)
    pivots[[0, -1]] = 5.0
    for k in range(1, len(samples)):
        pivots[k] -= 1 / pivots[k - 1]
        coefficients[k] -= coefficients[k - 1] / pivots[k - 1]
    coefficients[-1] /= pivots[-1]
    for k in range(len(samples) - 2, -1, -1):
        coefficients[k] = (coefficients[k] - coefficients[k + 1]) / pivots[k]
    return coefficients
