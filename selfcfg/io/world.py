"""From a header's axes to a `Geometry`, refusing what cannot be true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfcfg.geometry import Geometry
from selfcfg.io.problems import BadSpacing

_SHEAR = 1e-3
"""Cosine between two axes from which on they count as sheared: 0.06 degrees, far above what rounding does."""

_SINGULAR = 1e-3

_REMEDY = "set the true spacing in mm, or export the file again from its source"


def checked_geometry(
    path: Path,
    size: Sequence[int],
    spacing: Sequence[float],
    origin: np.ndarray[Any, Any],
    columns: np.ndarray[Any, Any],
    *,
    dimensions: int,
) -> tuple[Geometry, list[str]]:
    """The geometry of a header in LPS, and doubts about it in words.

    Args:
        path: for messages.
        size: voxels along x, y, z.
        spacing: mm along x, y, z.
        origin: world position of the first voxel.
        columns: 3x3 matrix, column i along array axis x, y, z in the world; any length.
        dimensions: 2 or 3.

    Raises:
        BadSpacing: a spacing is zero or not a number, or the axes do not span the space.
    """
    if not all(math.isfinite(side) and side > 0 for side in spacing):
        raise BadSpacing(f"read {path}", f"spacing {tuple(spacing)} mm along x, y, z", _REMEDY)
    lengths = np.linalg.norm(columns, axis=0)
    if not (np.isfinite(columns).all() and np.isfinite(origin).all() and lengths.min() > 0):
        raise BadSpacing(f"read {path}", f"the directions of its axes are {columns.tolist()}", _REMEDY)
    direction = columns / lengths + 0.0
    if abs(np.linalg.det(direction)) < _SINGULAR:
        raise BadSpacing(f"read {path}", f"two of its axes run the same way: {direction.tolist()}", _REMEDY)
    cosine = float(np.abs(direction.T @ direction - np.eye(3)).max())
    doubts = []
    if cosine > _SHEAR:
        angle = math.degrees(math.asin(min(1.0, cosine)))
        doubts.append(f"its axes are sheared by {angle:.2g} degrees, which is ignored when it is resampled")
    geometry = Geometry(
        shape=(int(size[2]), int(size[1]), int(size[0])),
        spacing=(float(spacing[2]), float(spacing[1]), float(spacing[0])),
        origin=(float(origin[0]) + 0.0, float(origin[1]) + 0.0, float(origin[2]) + 0.0),
        direction=tuple(float(value) for value in direction.reshape(-1)),
        dimensions=dimensions,
    )
    return geometry, doubts
