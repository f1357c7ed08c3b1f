"""What was measured of a dataset: the facts a planner decides from."""

from __future__ import annotations

from pydantic import ConfigDict

from selfcfg.geometry import Shape, Vector
from selfcfg.records import Record


class ChannelStatistics(Record):
    """Foreground intensities of one channel; the key names are those of nnU-Net's fingerprint.

    Args:
        max: largest intensity.
        mean: mean intensity.
        median: median intensity.
        min: smallest intensity.
        percentile_00_5: intensity that 0.5 percent of the voxels lie below.
        percentile_99_5: intensity that 99.5 percent of the voxels lie below.
        std: standard deviation.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    max: float
    mean: float
    median: float
    min: float
    percentile_00_5: float
    percentile_99_5: float
    std: float


class CaseFingerprint(Record):
    """What was measured of one case.

    Args:
        case: its id.
        subject: the person it belongs to.
        shape: (z, y, x) voxels of the file.
        shape_after_crop: (z, y, x) voxels of the box that holds every non-zero voxel.
        spacing: (z, y, x) mm.
        orientation: anatomical letters of the axes (z, y, x), such as "SPL".
        dimensions: 2 or 3.
        intensities: foreground statistics of each channel, None where the case has no foreground.
        voxels: count of each label value.
        source: hash of the files the case was measured from.
        picture: hash of its image files alone, by which copies of one image are found.
        quantiles: foreground intensities of each channel at the `QUANTILES`, as numbers in one line of text, so that
            the statistics of all cases can be pooled again when one is added; "" where the case has no foreground.
        thickness: mean length in mm along (z, y, x) of the unbroken stretches of each label value above 0; empty in
            files of version 1.
    """

    case: str
    subject: str
    shape: Shape
    shape_after_crop: Shape
    spacing: Vector
    orientation: str
    dimensions: int
    intensities: tuple[ChannelStatistics | None, ...]
    voxels: dict[int, int]
    source: str
    picture: str
    quantiles: tuple[str, ...] = ()
    thickness: dict[int, Vector] = {}


class Fingerprint(Record):
    """The facts of a dataset. Its JSON is a superset of nnU-Net's dataset_fingerprint.json: either tool reads either.

    Args:
        spacings: (z, y, x) mm of each case.
        shapes_after_crop: (z, y, x) voxels of each case's non-zero box.
        foreground_intensity_properties_per_channel: statistics over all cases by channel index ("0", ...).
        median_relative_size_after_cropping: median over cases of cropped volume by full volume.
        cases: per-case values; empty when the file was made by nnU-Net.
        ignore: the label value that did not count as foreground because it means "not annotated", or None.
        version: counts changes of what is measured; 0 when the file was made by nnU-Net.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    spacings: tuple[Vector, ...]
    shapes_after_crop: tuple[Shape, ...]
    foreground_intensity_properties_per_channel: dict[str, ChannelStatistics]
    median_relative_size_after_cropping: float
    cases: tuple[CaseFingerprint, ...] = ()
    ignore: int | None = None
    version: int = 0

    @property
    def n_cases(self) -> int:
        """Number of cases measured."""
        return len(self.spacings)

    @property
    def left_right_axes(self) -> tuple[int, ...]:
        """The array axes (0 = z) that run left-right in some 3D case; none where orientations are not known."""
        found: set[int] = set()
        for case in self.cases:
            if case.dimensions == 3:
                found.update(axis for axis, letter in enumerate(case.orientation) if letter in "LR")
        return tuple(sorted(found))
