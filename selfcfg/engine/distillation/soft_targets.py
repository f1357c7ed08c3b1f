"""What teachers say of whole images, predicted once before a training and stored on the grid of the student.

Each teacher sees an image as its own plan says: spacing, crop and normalisation, patch, sliding window and mirrored
copies. So teacher and student may differ in all of these, and a training step costs no forward pass of a teacher.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from selfcfg.dataset import Case
from selfcfg.engine.data.store import CaseInfo, Store
from selfcfg.engine.data.stored_array import StoredArray, write_array
from selfcfg.engine.distillation.teachers import Ensemble, Teacher, Weights, chosen_weights
from selfcfg.engine.footprint import gigabytes, prediction_bytes
from selfcfg.engine.prediction.ledger import Ledger, LedgerEntry
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.trainer import Teaching
from selfcfg.errors import DataError, SelfcfgError, counted
from selfcfg.files import hash_file, replacing
from selfcfg.fixes import Fixes
from selfcfg.geometry import Shape, Vector
from selfcfg.io import read_case
from selfcfg.kernels.distillation import logits_of, whole
from selfcfg.kernels.ensembles import greedy_choice
from selfcfg.kernels.losses import hard_counts
from selfcfg.kernels.resample import new_shape, resample_image, separate_axis
from selfcfg.labels import LabelSchema
from selfcfg.plan import Configuration
from selfcfg.progress import progress, say

STEPS = 4096
"""Soft targets are multiples of 1 by this: no coarser than half precision is near 1, and small ones compress. Measured
on hippocampus MR with two teachers of 400 steps: 0.46 of the bytes of half precision alone, which hardly compresses."""

_FILE_BYTES = 10_000
"""Disk of a case beside its values."""


@dataclass(frozen=True)
class Classroom:
    """Preprocessed images of the student, and what is needed to show them to its teachers.

    Args:
        root: raw folder of the dataset.
        store: of the preprocessed cases.
        configuration: they were preprocessed for.
        device: that teachers predict on; None: the best there is.
        precision: "auto", "float32" or "bfloat16".
    """

    root: Path
    store: Store
    configuration: Configuration
    device: str | None
    precision: str

    def folder(self, ensemble: Ensemble) -> Path:
        """Where the soft targets of an ensemble lie: beside the preprocessed cases."""
        return self.store.folder.with_name(f"{self.store.folder.name}-soft-{ensemble.key[:8]}")


def predict_soft_targets(ensemble: Ensemble, cases: Sequence[Case], room: Classroom) -> Path:
    """The folder with the soft target of each case, ``<case>.b2nd`` float16 (F, Z, Y, X); those there already are kept.

    Args:
        ensemble: the teachers.
        cases: preprocessed ones.
        room: where these are.

    Raises:
        DataError: an image cannot be read, or is not what a teacher was trained on.
        SelfcfgError: the disk or the memory is too small, or a network gives values that are not finite numbers.
    """
    folder = room.folder(ensemble)
    ledger, fixes = Ledger.at(folder), Fixes.of(room.root)
    infos = {case.id: room.store.open(case.id).info for case in cases}
    waiting = [
        case
        for case in cases
        if not _is_done(ledger.entry(case.id), folder / f"{case.id}.b2nd", ensemble, infos[case.id])
    ]
    if not waiting:
        return folder
    models = [ensemble.teachers[index].load(room.device, room.precision) for index in ensemble.used]
    _tell_needs([infos[case.id] for case in waiting], models, folder)
    with progress("teachers predict", len(waiting)) as step:
        for case in waiting:
            target, info = folder / f"{case.id}.b2nd", infos[case.id]
            found = read_case(case, fixes)
            logits = []
            for model in models:
                prepared = model.prepare(case.id, found.image, found.geometry)
                said = on_grid_of(model.logits(prepared), prepared.info, model.configuration, info, room.configuration)
                logits.append(torch.from_numpy(said))
            soft = ensemble.soft_target(logits)
            if not torch.isfinite(soft.sum()):
                what = "a teacher gave values that are not finite numbers"
                raise SelfcfgError(f"learn of case '{case.id}'", what, "compute in float32: --set precision=float32")
            with replacing(target) as temporary:
                rounded = (soft * STEPS).round() / STEPS
                write_array(temporary, rounded.numpy().astype(np.float16), room.configuration.patch_size)
            entry = LedgerEntry(maker=ensemble.key, input=info.content_hash(), output=hash_file(target))
            ledger.note(case.id, entry)
            step(case.id)
    return folder


def on_grid_of(
    logits: NDArray[np.float32],
    theirs: CaseInfo,
    configuration: Configuration,
    ours: CaseInfo,
    own_configuration: Configuration,
) -> NDArray[np.float32]:
    """Logits (K, Z, Y, X) of a teacher on the grid of the student's image of the same case, by linear interpolation.

    Args:
        logits: on the teacher's grid.
        theirs: what the teacher's preprocessing did to the case.
        configuration: of the teacher.
        ours: what the student's did.
        own_configuration: of the student.

    Raises:
        DataError: the two have cut different parts out of the image.

    Source: nnU-Net v2.8.1, resample_and_save: logits go from one grid to the other in one step.
    """
    axes = [theirs.axis_order.index(axis) for axis in ours.axis_order]
    if tuple(theirs.box[axis] for axis in axes) != ours.box:
        found = f"the image was cut to {ours.box} before, now to {theirs.box}"
        raise DataError(f"learn of case '{ours.case}'", found, "run: selfcfg preprocess")
    moved = np.ascontiguousarray(logits.transpose(0, *(axis + 1 for axis in axes)))
    spacing = configuration.target_spacing(theirs.spacing)
    z, y, x = (spacing[axis] for axis in axes)
    separate = separate_axis((z, y, x), own_configuration.target_spacing(ours.spacing))
    return resample_image(moved, ours.shape, separate, order=1)


def greedy_weights(
    teachers: Sequence[Teacher], teaching: Teaching, labels: LabelSchema, cases: Sequence[Case], room: Classroom
) -> Weights:
    """The same weight for each teacher of the ensemble with the best Dice on some cases, found greedily.

    Args:
        teachers: to choose from.
        teaching: how they are put together.
        labels: what they predict.
        cases: preprocessed ones with labels, which no teacher should have been trained on.
        room: where these are.

    Raises:
        SelfcfgError: as `predict_soft_targets`.
    """
    plain = Teaching(combine=teaching.combine)
    alone = [Ensemble((one,), chosen_weights(1, (0,), labels), plain, labels) for one in teachers]
    folders = [predict_soft_targets(one, cases, room) for one in alone]

    def score(chosen: Sequence[int]) -> float:
        members = tuple(teachers[index] for index in chosen)
        weights = chosen_weights(len(members), range(len(members)), labels)
        ensemble = Ensemble(members, weights, plain, labels)
        return _dice(ensemble, [folders[index] for index in chosen], [case.id for case in cases], room)

    return chosen_weights(len(teachers), greedy_choice(len(teachers), score), labels)


def _dice(ensemble: Ensemble, folders: Sequence[Path], cases: Sequence[str], room: Classroom) -> float:
    """The Dice of what some teachers say together: of each class the mean over cases, and of these the mean."""
    labels, found = ensemble.labels, []
    regions = tuple(labels.targets.values()) if labels.has_regions else ()
    for case in cases:
        stored = room.store.open(case).label
        if stored is None:
            continue
        each = [torch.from_numpy(StoredArray(folder / f"{case}.b2nd", np.float32)[...]) for folder in folders]
        soft = ensemble.soft_target([_as_logits(one, labels) for one in each])
        target = torch.from_numpy(stored[...]).clamp_min(0)[None, None]
        counts = hard_counts(_as_logits(soft, labels)[None], target, regions, labels.ignore).double()
        found.append(2 * counts[0] / (2 * counts[0] + counts[1] + counts[2]))
    return float(torch.stack(found).nanmean(0).nanmean()) if found else math.nan


def _as_logits(soft: torch.Tensor, labels: LabelSchema) -> torch.Tensor:
    """Logits (K, ...) that stand for the soft target (F, ...) of one image."""
    exclusive = not labels.has_regions
    return logits_of(whole(soft, exclusive=exclusive, axis=0), exclusive=exclusive)


def _is_done(entry: LedgerEntry | None, file: Path, ensemble: Ensemble, info: CaseInfo) -> bool:
    return entry is not None and entry.describes(file, ensemble.key, info.content_hash())


def _tell_needs(infos: Sequence[CaseInfo], models: Sequence[Model], folder: Path) -> None:
    """Says what predicting will take of memory and disk, and warns where that is more than there is."""
    outputs = models[0].plan.labels.n_outputs
    classes = outputs - (0 if models[0].plan.labels.has_regions else 1)
    disk = sum(2 * classes * math.prod(info.shape) + _FILE_BYTES for info in infos)
    memory = max(_memory(model, info, outputs) for info in infos for model in models)
    free, there = shutil.disk_usage(folder).free, psutil.virtual_memory().available
    what = f"{counted(len(models), 'teacher')} predict {counted(len(infos), 'case')} once"
    say(f"{what}: about {gigabytes(memory)} of memory, {gigabytes(disk)} of disk at most, in {folder}")
    if disk > free or memory > there:
        say(f"warning: there are {gigabytes(there)} of memory and {gigabytes(free)} of disk free")


def _memory(model: Model, info: CaseInfo, outputs: int) -> int:
    """Bytes at most while a teacher predicts a case: the prediction itself, and logits on both grids."""
    cropped, spacing = _along(model.plan.axis_order, info)
    shape = new_shape(cropped, spacing, model.configuration.target_spacing(spacing))
    logits = 4 * outputs * (2 * math.prod(shape) + 3 * math.prod(info.shape))
    return prediction_bytes(shape, model.plan, model.configuration) + logits


def _along(order: Sequence[int], info: CaseInfo) -> tuple[Shape, Vector]:
    """Shape and spacing of a cropped case along the axes of another plan, which counts them in this order."""
    first, second, third = (info.axis_order.index(axis) for axis in order)
    shape, spacing = info.cropped_shape, info.spacing
    return (shape[first], shape[second], shape[third]), (spacing[first], spacing[second], spacing[third])
