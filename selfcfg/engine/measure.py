"""Facts: every case is read once, and what a planner needs to know of it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from selfcfg.dataset import Case, Dataset
from selfcfg.engine.intensities import describe, pool
from selfcfg.errors import DataError, SelfcfgError
from selfcfg.fingerprint import CaseFingerprint, ChannelStatistics, Fingerprint
from selfcfg.fixes import Fixes
from selfcfg.io import CaseArrays, hash_case, hash_images, read_case, read_header
from selfcfg.kernels.crop import nonzero_box
from selfcfg.kernels.thickness import Structures, structures
from selfcfg.parallel import run_cases
from selfcfg.progress import progress

VERSION = 2
"""Counts changes of what is measured; values of another version are not reused."""

_PROCESS_BYTES = 300 << 20
"""Memory of a worker before it reads anything."""
_VOXEL_BYTES = 20
"""Bytes a voxel beside the image itself: the file that is being read, label, masks, the foreground's values.

Source: measured on 320 x 320 x 200 voxels of int16: 11 with one channel, 6 with two; float64 files need 12 more.
"""


def measure(dataset: Dataset, *, jobs: int, known: Fingerprint | None = None) -> Fingerprint:
    """The fingerprint of a dataset; every case is read once, by `jobs` processes as far as their memory allows.

    Foreground is every voxel with a label other than background and "ignore" (the reference counts "ignore" as
    foreground). A case without foreground, or without a label, gives no intensities. How exact the intensities are:
    `selfcfg.engine.intensities`.

    Args:
        dataset: the dataset.
        jobs: processes at most.
        known: an earlier fingerprint; the values of cases whose files have not changed are taken from it.

    Raises:
        DataError: cases cannot be read or are not what dataset.json says, all of them named; or no case has foreground.
    """
    ignore = dataset.labels.ignore
    reusable = known.cases if known and (known.version, known.ignore) == (VERSION, ignore) else ()
    measured = _unchanged(dataset, {case.case: case for case in reusable})
    fixes = Fixes.of(dataset.root)
    items = {
        case.id: _Item(
            case=case,
            fixes=fixes,
            n_channels=len(dataset.description.channels),
            values=frozenset(dataset.labels.values),
            ignore=ignore,
        )
        for case in dataset.cases
        if case.id not in measured
    }
    bad: dict[str, SelfcfgError] = {}
    with progress("measure", len(items)) as step:
        for name, result in run_cases(_measure_case, items, jobs=jobs, doing="measure", memory=_memory):
            if isinstance(result, SelfcfgError):
                bad[name] = result
            else:
                measured[name] = result
            step(name)
    _refuse(dataset.name, bad)
    return _summary(dataset, [measured[case.id] for case in dataset.cases])


@dataclass(frozen=True)
class _Item:
    """A case and what it has to be like."""

    case: Case
    fixes: Fixes
    n_channels: int
    values: frozenset[int]
    ignore: int | None


def _unchanged(dataset: Dataset, earlier: Mapping[str, CaseFingerprint]) -> dict[str, CaseFingerprint]:
    """The earlier values of the cases whose files still have the same bytes."""
    same = {}
    for case in dataset.cases:
        known = earlier.get(case.id)
        if known is not None and known.source == hash_case(case):
            same[case.id] = known.model_copy(update={"subject": case.subject})
    return same


def _measure_case(item: _Item) -> CaseFingerprint:
    arrays = read_case(item.case, item.fixes)
    voxels, thickness = Structures({}, {}) if arrays.label is None else structures(arrays.label)
    _compare(item, arrays, voxels)
    _, box = nonzero_box(arrays.image)
    intensities, quantiles = _intensities(arrays, item.ignore)
    dz, dy, dx = arrays.geometry.spacing
    depth, height, width = (side.stop - side.start for side in box)
    return CaseFingerprint(
        case=item.case.id,
        subject=item.case.subject,
        shape=arrays.geometry.shape,
        shape_after_crop=(depth, height, width),
        spacing=arrays.geometry.spacing,
        orientation=arrays.geometry.orientation,
        dimensions=arrays.geometry.dimensions,
        intensities=intensities,
        voxels=voxels,
        source=hash_case(item.case),
        picture=hash_images(item.case),
        quantiles=quantiles,
        thickness={value: (z * dz, y * dy, x * dx) for value, (z, y, x) in thickness.items()},
    )


def _compare(item: _Item, arrays: CaseArrays, voxels: Mapping[int, int]) -> None:
    """Refuses a case that is not what dataset.json says.

    Raises:
        DataError: another number of channels, or label values that are not declared.
    """
    asked = f"case '{item.case.id}'"
    if len(arrays.image) != item.n_channels:
        found = f"it has {len(arrays.image)} channels, dataset.json names {item.n_channels}"
        raise DataError(asked, found, "add the missing files, or mend channel_names")
    if unknown := sorted(set(voxels) - item.values):
        found = f"{item.case.label} holds values that dataset.json does not declare: {unknown}"
        raise DataError(asked, found, "declare them under labels, or mend the label")


def _intensities(
    arrays: CaseArrays, ignore: int | None
) -> tuple[tuple[ChannelStatistics | None, ...], tuple[str, ...]]:
    """Statistics and quantiles of each channel's foreground."""
    n_channels = len(arrays.image)
    foreground = None if arrays.label is None else arrays.label > 0
    if foreground is not None and ignore is not None:
        foreground &= arrays.label != ignore
    if foreground is None or not foreground.any():
        return (None,) * n_channels, ("",) * n_channels
    described = [describe(channel[foreground]) for channel in arrays.image]
    return tuple(statistics for statistics, _ in described), tuple(text for _, text in described)


def _memory(item: _Item) -> int:
    """An estimate of the bytes that measuring a case needs at its peak, from the headers of its files."""
    voxels = channels = 0
    for path in item.case.images:
        try:
            found, geometry = read_header(path)
        except SelfcfgError:
            continue
        voxels = max(voxels, int(np.prod(geometry.shape)))
        channels += found
    copies = 2 if len(item.case.images) > 1 else 1  # stacking several files needs all of them twice
    return _PROCESS_BYTES + voxels * (4 * channels * copies + _VOXEL_BYTES)


def _refuse(dataset: str, bad: Mapping[str, SelfcfgError]) -> None:
    if not bad:
        return
    lines = "\n".join(f"  {bad[name]}" for name in sorted(bad))
    count = "1 case" if len(bad) == 1 else f"{len(bad)} cases"
    raise DataError(f"measure {dataset}", f"{count} cannot be used:\n{lines}\n", f"run: selfcfg check {dataset}")


def _summary(dataset: Dataset, cases: list[CaseFingerprint]) -> Fingerprint:
    channels = {}
    for index in range(len(dataset.description.channels)):
        pooled = pool(cases, index)
        if pooled is None:
            raise DataError(f"measure {dataset.name}", "no case has a labelled voxel", "add labels to labelsTr")
        channels[str(index)] = pooled
    left = [np.prod(case.shape_after_crop) / np.prod(case.shape) for case in cases]
    return Fingerprint(
        spacings=tuple(case.spacing for case in cases),
        shapes_after_crop=tuple(case.shape_after_crop for case in cases),
        foreground_intensity_properties_per_channel=channels,
        median_relative_size_after_cropping=float(np.median(left)),
        cases=tuple(cases),
        ignore=dataset.labels.ignore,
        version=VERSION,
    )
