"""Fingerprints and dataset descriptions as plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from selfcfg.dataset import DatasetDescription
from selfcfg.fingerprint import CaseFingerprint, ChannelStatistics, Fingerprint

STATISTICS = ChannelStatistics(
    max=900.0, mean=40.0, median=38.0, min=-1000.0, percentile_00_5=-120.0, percentile_99_5=310.0, std=55.0
)


@pytest.fixture
def facts() -> Callable[..., Fingerprint]:
    """Makes a fingerprint from spacings and shapes; with orientations it holds per-case values too."""

    def make(
        spacings: Sequence[Sequence[float]],
        shapes: Sequence[Sequence[int]],
        *,
        channels: int = 1,
        relative_size: float = 1.0,
        orientations: Sequence[str] = (),
    ) -> Fingerprint:
        cases = [
            CaseFingerprint(
                case=f"case_{index}",
                subject=f"case_{index}",
                shape=tuple(shapes[index]),
                shape_after_crop=tuple(shapes[index]),
                spacing=tuple(spacings[index]),
                orientation=orientation,
                dimensions=3,
                intensities=(STATISTICS,) * channels,
                voxels={0: 10, 1: 5},
                source="",
                picture="",
            )
            for index, orientation in enumerate(orientations)
        ]
        return Fingerprint(
            spacings=tuple(map(tuple, spacings)),
            shapes_after_crop=tuple(map(tuple, shapes)),
            foreground_intensity_properties_per_channel={str(index): STATISTICS for index in range(channels)},
            median_relative_size_after_cropping=relative_size,
            cases=tuple(cases),
        )

    return make


@pytest.fixture
def describe() -> Callable[..., DatasetDescription]:
    """Makes a dataset.json from channel names and the names of the foreground classes."""

    def make(
        channels: Sequence[str] = ("MRI",), classes: Sequence[str] = ("tumour",), n_training: int = 20
    ) -> DatasetDescription:
        return DatasetDescription(
            channel_names={str(index): name for index, name in enumerate(channels)},
            labels={"background": 0, **{name: index for index, name in enumerate(classes, start=1)}},
            numTraining=n_training,
            file_ending=".nii.gz",
        )

    return make
