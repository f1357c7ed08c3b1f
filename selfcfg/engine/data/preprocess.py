"""From a case's files to what a network sees: crop, normalise, resample, store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfcfg.dataset import Case, Dataset
from selfcfg.engine.data.store import ANNOTATED, CaseInfo, FileState, Prepared, Store
from selfcfg.engine.footprint import PROCESS_BYTES, SECONDS_TO_START, case_bytes, preprocessing_seconds
from selfcfg.errors import DataError, SelfcfgError
from selfcfg.fixes import Fixes
from selfcfg.geometry import Geometry, Shape, Vector
from selfcfg.io import hash_case, read_case, read_header
from selfcfg.kernels.crop import Box, Mask, nonzero_box
from selfcfg.kernels.locations import sample_locations
from selfcfg.kernels.normalize import normalize
from selfcfg.kernels.resample import new_shape, resample_image, resample_labels, separate_axis
from selfcfg.labels import LabelSchema
from selfcfg.parallel import run_cases
from selfcfg.plan import Configuration, Plan
from selfcfg.progress import progress

__all__ = ["CaseInfo", "Prepared", "is_unchanged", "prepare", "preprocess"]

_OUTSIDE = -1


def prepare(  # noqa: PLR0917 - a case, and how to prepare it
    case: str,
    image: NDArray[Any],
    label: NDArray[Any] | None,
    geometry: Geometry,
    plan: Plan,
    configuration: Configuration,
) -> Prepared:
    """The case as the configuration's network sees it; the arrays given stay as they are.

    Args:
        case: its id, for messages.
        image: (C, Z, Y, X) as in the file, any real type.
        label: (Z, Y, X) integers, or None.
        geometry: of the file.
        plan: what was planned.
        configuration: one of the plan's.

    Raises:
        DataError: the number of channels, the shapes or the values do not fit; names the case.

    Source: nnU-Net v2.8.1, ``DefaultPreprocessor.run_case_npy``: transpose, crop to non-zero, normalise, resample.
    """
    _refuse_mismatch(case, image, label, geometry, plan)
    order = plan.axis_order
    image = image.transpose(0, *(axis + 1 for axis in order))
    mask, box = nonzero_box(image)
    if mask is not None and not mask.any():
        raise DataError(f"case '{case}'", "every voxel of every channel is 0", "replace the image or remove the case")
    cropped = image[(slice(None), *box)]
    cropped_label = None if label is None else _cropped_label(label.transpose(order), mask, box)
    spacing = _ordered(geometry.spacing, order)
    target = configuration.target_spacing(spacing)
    shape = new_shape(_shape(cropped.shape[1:]), spacing, target)
    separate = separate_axis(spacing, target)
    inside = mask if cropped_label is None or mask is None else cropped_label != _OUTSIDE
    result = np.empty((len(image), *shape), dtype=np.float32)
    for index in range(len(image)):
        channel = np.array(cropped[index], dtype=np.float32, order="C")
        try:
            _normalize(channel, index, inside, plan, configuration)
        except ValueError as error:
            named = f"case '{case}', channel {plan.channels[index]}"
            raise DataError(named, str(error), "correct the image, or channel_names in dataset.json") from error
        resample_image(channel[np.newaxis], shape, separate, out=result[index : index + 1])
    info = CaseInfo(
        case=case,
        geometry=geometry,
        box=_spans(box),
        cropped_shape=_shape(cropped.shape[1:]),
        shape=shape,
        spacing=spacing,
        axis_order=order,
    )
    new_label = None if cropped_label is None else resample_labels(cropped_label, shape, separate)
    return Prepared(result, new_label, info)


def preprocess(dataset: Dataset, plan: Plan, configuration: str, folder: Path, *, jobs: int) -> Store:
    """The store with every case of a dataset prepared for one configuration; only what is missing or changed is done.

    A case is done again when the bytes of its files changed; other processes may work on the same folder meanwhile.

    Args:
        dataset: the opened dataset.
        plan: what was planned.
        configuration: name of one of the plan's configurations.
        folder: of the store; its name carries the plan's `preprocessing_hash`.
        jobs: worker processes at most; fewer where the memory would not do for more.

    Raises:
        DataError: some cases could not be done; each is named with its reason, and all others are done.
        SelfcfgError: the folder cannot be made.
    """
    plan.configuration(configuration)
    store = Store(folder)
    store.make_ready()
    fixes = Fixes.of(dataset.root)
    waiting = {
        case.id: _Task(case, fixes, plan, configuration, folder, memory=_bytes_needed(case, plan, configuration))
        for case in dataset.cases
        if not is_unchanged(store, case)
    }
    jobs = min(jobs, _useful_jobs(waiting.values()))
    failed: dict[str, SelfcfgError] = {}
    with progress(f"preprocess {configuration}", len(waiting)) as step:
        for _ in ("what no other process is doing", "what another process was doing"):
            busy = {}
            for name, outcome in run_cases(_run, waiting, jobs=jobs, doing="preprocess", memory=attrgetter("memory")):
                if outcome is False:
                    busy[name] = replace(waiting[name], wait=True)
                    continue
                if isinstance(outcome, SelfcfgError):
                    failed[name] = outcome
                step(name)
            waiting = busy
    if failed:
        reasons = "\n".join(f"  {failed[name]}" for name in sorted(failed))
        raise DataError(
            f"preprocess {configuration} of {dataset.name}",
            f"{len(failed)} of {len(dataset.cases)} cases failed, the others are done:\n{reasons}\n",
            "mend these and run it again",
        )
    return store


def is_unchanged(store: Store, case: Case) -> bool:
    """Whether a case lies in a store as its files are now, by their sizes and times."""
    stored = store.stored_info(case.id)
    try:
        return stored is not None and stored.inputs == _states(case)
    except DataError:
        return False


@dataclass(frozen=True)
class _Task:
    """What a worker needs to do one case, and the memory in bytes it is expected to take at most."""

    case: Case
    fixes: Fixes
    plan: Plan
    configuration: str
    folder: Path
    memory: int
    wait: bool = False


def _run(task: _Task) -> bool:
    """Does one case; False where another process is at work on it and this one is not to wait."""
    store, case = Store(task.folder), task.case
    with store.claim(case.id, wait=task.wait) as free:
        if free and not is_unchanged(store, case):
            try:
                _do(store, task)
            except MemoryError as error:
                remedy = "use fewer --jobs or a machine with more memory"
                raise SelfcfgError(f"preprocess case '{case.id}'", "the memory is used up", remedy) from error
        return free


def _do(store: Store, task: _Task) -> None:
    case, plan = task.case, task.plan
    configuration = plan.configuration(task.configuration)
    inputs = _states(case)
    source = hash_case(case)
    stored = store.stored_info(case.id)
    if stored is not None and stored.info.source == source:
        store.renew(case.id, inputs)
        return
    found = read_case(case, task.fixes)
    prepared = prepare(case.id, found.image, found.label, found.geometry, plan, configuration)
    del found
    prepared = replace(prepared, info=prepared.info.model_copy(update={"source": source}))
    locations = {}
    if prepared.label is not None:
        locations = sample_locations(prepared.label, _location_targets(plan.labels), case.id)
    store.write(prepared, locations, inputs=inputs, patch=configuration.patch_size)


def _states(case: Case) -> tuple[FileState, ...]:
    """The state of each file the case is read from.

    Raises:
        DataError: one is not there.
    """
    files = [*case.images, *([case.label] if case.label is not None else [])]
    if any(file.suffix.lower() in (".tif", ".tiff") for file in files):
        from selfcfg.io.tiff import sidecar  # noqa: PLC0415 - only TIFF files need tifffile

        files += [beside for file in files if (beside := sidecar(file)) is not None]
    try:
        return tuple(FileState.of(file) for file in files)
    except OSError as error:
        raise DataError(f"case '{case.id}'", str(error), "run: selfcfg check") from error


def _bytes_needed(case: Case, plan: Plan, configuration: str) -> int:
    """The memory a worker is expected to take for a case at most, from its headers alone."""
    try:
        channels, geometry = read_header(case.images[0])
    except (SelfcfgError, IndexError):
        return PROCESS_BYTES
    channels = max(channels, len(case.images))
    spacing = _ordered(geometry.spacing, plan.axis_order)
    shape = _shape([geometry.shape[axis] for axis in plan.axis_order])
    target = plan.configuration(configuration).target_spacing(spacing)
    return case_bytes(shape, new_shape(shape, spacing, target), channels)


def _useful_jobs(tasks: Iterable[_Task]) -> int:
    """How many processes save more time than starting them, all at once, takes: two from twice that time on."""
    return max(1, int(preprocessing_seconds(task.memory for task in tasks) / SECONDS_TO_START))


def _location_targets(labels: LabelSchema) -> dict[str, tuple[int, ...]]:
    if labels.ignore is None:
        return labels.targets
    return {**labels.targets, ANNOTATED: tuple(value for value in labels.values if value != labels.ignore)}


def _refuse_mismatch(
    case: str, image: NDArray[Any], label: NDArray[Any] | None, geometry: Geometry, plan: Plan
) -> None:
    named = f"case '{case}'"
    if image.ndim != 4 or len(image) != len(plan.channels):
        found = f"an array of shape {image.shape} where {len(plan.channels)} channels were planned"
        raise DataError(named, found, f"the channels must be: {', '.join(plan.channels)}")
    if image.shape[1:] != geometry.shape:
        raise DataError(named, f"image of shape {image.shape[1:]}, geometry of {geometry.shape}", "run: selfcfg check")
    if label is None:
        return
    if label.shape != geometry.shape:
        raise DataError(named, f"image of shape {image.shape[1:]}, label of {label.shape}", "run: selfcfg check")
    low, high, highest = int(label.min()), int(label.max()), plan.labels.values[-1]
    if low < 0 or high > highest:
        found = f"label values from {low} to {high} where 0 to {highest} are declared"
        raise DataError(named, found, "correct the label or declare the value in dataset.json")


def _cropped_label(label: NDArray[Any], mask: Mask | None, box: Box) -> NDArray[np.int16]:
    cropped = np.array(label[box], dtype=np.int16, order="C")
    if mask is not None:
        cropped[(cropped == 0) & ~mask] = _OUTSIDE
    return cropped


def _normalize(
    channel: NDArray[np.float32], index: int, inside: Mask | None, plan: Plan, configuration: Configuration
) -> None:
    if not np.isfinite(channel.sum(dtype=np.float64)):
        raise ValueError("it holds NaN or infinite values")
    statistics = plan.intensities[index] if plan.intensities else None
    mask = inside if configuration.use_mask_for_norm[index] else None
    normalize(channel, configuration.normalization[index], statistics, mask)


def _ordered(values: Vector, order: tuple[int, int, int]) -> Vector:
    return (values[order[0]], values[order[1]], values[order[2]])


def _shape(sizes: Sequence[int]) -> Shape:
    return (int(sizes[0]), int(sizes[1]), int(sizes[2]))


def _spans(box: Box) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    z, y, x = ((part.start, part.stop) for part in box)
    return z, y, x
