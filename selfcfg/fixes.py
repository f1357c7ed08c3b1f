"""Corrections of headers that `selfcfg check --fix` recorded in fixes.json; the images themselves stay as they are."""

from __future__ import annotations

import itertools
from pathlib import Path

from selfcfg.geometry import Geometry
from selfcfg.records import Record

FIXES_FILE = "fixes.json"


class GeometryFix(Record):
    """One file whose header says it lies a tiny way off the case's first channel, and is taken to lie on it.

    Args:
        file: its path within the dataset, for a reader.
        channel: index of the image file within its case, or None for the label.
        found: what its header says; the fix holds only as long as it says so.
        used: what is taken instead: the geometry of the first channel.
        difference: how far off it is, in words.
    """

    file: str
    channel: int | None
    found: Geometry
    used: Geometry
    difference: str


class Fixes(Record):
    """Every correction of a dataset.

    Args:
        geometry: case id to the corrections of its headers.
    """

    geometry: dict[str, tuple[GeometryFix, ...]] = {}

    @classmethod
    def of(cls, dataset: Path) -> Fixes:
        """The fixes recorded beside a dataset's dataset.json; none where there is no such file.

        Raises:
            DataError: the file is not a record of fixes.
        """
        file = dataset / FIXES_FILE
        return cls.read(file) if file.is_file() else cls()

    def corrected(self, case: str, channel: int | None, found: Geometry) -> Geometry:
        """The geometry to use for a file of a case: `found`, unless a fix was recorded for just that header."""
        for fix in self.geometry.get(case, ()):
            if fix.channel == channel and not found.differences(fix.found, tolerance=1e-6):
                return fix.used
        return found


def displacement(one: Geometry, other: Geometry) -> float:
    """How far apart the farthest corners of two images of the same shape lie, in voxels of their smallest side."""
    corners = itertools.product(*((0, size - 1) for size in one.shape))
    farthest = max(
        sum((a - b) ** 2 for a, b in zip(_world(one, corner), _world(other, corner), strict=True)) ** 0.5
        for corner in corners
    )
    sides = one.spacing[1:] if one.dimensions == 2 else one.spacing
    return float(farthest / min(sides))


def _world(geometry: Geometry, index: tuple[int, ...]) -> list[float]:
    """The world position of a voxel (z, y, x)."""
    steps = [index[axis] * geometry.spacing[axis] for axis in (2, 1, 0)]
    return [
        geometry.origin[row] + sum(geometry.direction[3 * row + column] * steps[column] for column in range(3))
        for row in range(3)
    ]
