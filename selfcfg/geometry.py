"""Where an image lies in the world. Array order is (z, y, x) everywhere; world coordinates are LPS millimetres."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import permutations

from selfcfg.records import Record

Vector = tuple[float, float, float]
Shape = tuple[int, int, int]

FLAT_SPACING = 999.0
"""Spacing given to the missing axis of a 2D image, in mm: coarser than any real one, so never resampled."""


class Geometry(Record):
    """Shape, spacing and place of one image.

    A 2D image has Z = 1 and ``spacing[0] == FLAT_SPACING``; `dimensions` says what the file itself holds.

    Args:
        shape: voxels along (z, y, x).
        spacing: mm along (z, y, x), positive.
        origin: world position (x, y, z) of the first voxel, LPS mm.
        direction: row-major 3x3 matrix whose columns are the world directions of the x, y and z axes (SimpleITK's).
        dimensions: 2 for a raster image or a 2D volume file, else 3.
    """

    shape: Shape
    spacing: Vector
    origin: Vector = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    dimensions: int = 3

    @property
    def orientation(self) -> str:
        """Where each array axis (z, y, x) points, as anatomical letters: "SPL" is the identity in LPS.

        Each axis has another pair of letters, also where an image lies obliquely: those that are nearest all together.
        """
        letters = ("LR", "PA", "SI")

        def along(rows: tuple[int, ...]) -> float:
            return sum(abs(self.direction[3 * row + axis]) for row, axis in zip(rows, (2, 1, 0), strict=True))

        rows = max(permutations((2, 1, 0)), key=along)
        signs = [self.direction[3 * row + axis] for row, axis in zip(rows, (2, 1, 0), strict=True)]
        return "".join(letters[row][0 if sign >= 0 else 1] for row, sign in zip(rows, signs, strict=True))

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in mm3; area of one pixel in mm2 for a 2D image."""
        sides = self.spacing[1:] if self.dimensions == 2 else self.spacing
        return math.prod(sides)

    def differences(self, other: Geometry, tolerance: float = 1e-4) -> list[str]:
        """What differs from `other`, in words; spacing and place to `tolerance` voxels, direction absolutely."""
        found = []
        if self.shape != other.shape:
            found.append(f"shape {self.shape} and {other.shape}")
        if any(abs(a - b) > tolerance * max(a, b) for a, b in zip(self.spacing, other.spacing, strict=True)):
            found.append(f"spacing {_rounded(self.spacing)} and {_rounded(other.spacing)} mm")
        if any(abs(a - b) > tolerance for a, b in zip(self.direction, other.direction, strict=True)):
            found.append(f"direction {_rounded(self.direction)} and {_rounded(other.direction)}")
        reach = tolerance * min(*self.spacing, *other.spacing) * 10
        if any(abs(a - b) > reach for a, b in zip(self.origin, other.origin, strict=True)):
            found.append(f"origin {_rounded(self.origin)} and {_rounded(other.origin)} mm")
        return found


def times(values: Iterable[float]) -> str:
    """Numbers of several axes as text, such as "5 x 0.78 x 0.78"; four digits at most, whole numbers in full."""
    return " x ".join(f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}" for value in values)


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, 5) for value in values)
