"""A student, each of its teachers and all of these together, run on the same images: scores, time, size, memory."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from selfcfg import registry
from selfcfg.dataset import Case
from selfcfg.engine.data.inputs import find_inputs, label_ending, refuse_unfit
from selfcfg.engine.distillation.teachers import Ensemble, Teacher
from selfcfg.engine.footprint import prediction_bytes
from selfcfg.engine.prediction.export import LabelMap
from selfcfg.engine.prediction.loading import load_model
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.scoring.evaluate import Evaluation, evaluate
from selfcfg.engine.trainer import Teaching, Trainer
from selfcfg.errors import DataError, UsageError, counted, listed
from selfcfg.fixes import Fixes
from selfcfg.image_files import image_files
from selfcfg.io import read_case, write_label
from selfcfg.io.cases import CaseArrays
from selfcfg.kernels.distillation import logits_of, whole
from selfcfg.labels import LabelSchema
from selfcfg.plan import Plan
from selfcfg.progress import progress, say
from selfcfg.project import Project
from selfcfg.runs import RunFolder, RunRecord, fold_folders

STUDENT, ENSEMBLE = "student", "ensemble"


@dataclass(frozen=True)
class System:
    """What was found of the student, a teacher or the ensemble.

    Args:
        name: "student", "ensemble", or a teacher's.
        evaluation: its scores.
        seconds: median time to preprocess and predict a case that was read.
        parameters: of all its networks.
        memory: bytes of a process that predicts the largest case, as forecast for a processor.
    """

    name: str
    evaluation: Evaluation
    seconds: float
    parameters: int
    memory: int


@dataclass(frozen=True)
class Task:
    """What a student and its teachers are compared on.

    Args:
        project: of the student's dataset.
        images: folder of test images; None: the validation cases of each fold.
        labels: folder of their references.
        out: folder of the predictions.
        mirroring: also predict mirrored images, where the training mirrored.
        nsd_tolerance: mm.
        device: to predict on; None: the best there is.
        jobs: processes of the evaluation.
    """

    project: Project
    images: Path | None
    labels: Path | None
    out: Path
    mirroring: bool = True
    nsd_tolerance: float = 2.0
    device: str | None = None
    jobs: int = 1


@dataclass
class _Seen:
    """What was noted of one system so far."""

    predictions: dict[str, Path] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    parameters: int = 0
    memory: int = 0


def side_by_side(student: Path, task: Task) -> list[System]:
    """The student, its teachers and the ensemble of these, in this order, each run as it would be used.

    Args:
        student: experiment or fold folder of a run that learnt from teachers.
        task: on what.

    Raises:
        UsageError: it had no teachers, has several folds for one set of test images, or a reference is missing.
        DataError: a teacher is gone or was trained again since, or an image cannot be read.
    """
    runs = fold_folders(student)
    asked = f"compare {student} with its teachers"
    if task.images is not None and len(runs) > 1:
        raise UsageError(asked, f"it has {len(runs)} folds, the test images are the same for all", "name one fold")
    seen: dict[str, _Seen] = {}
    references: dict[str, Path] = {}
    for run in runs:
        record = RunRecord.read(run.record)
        cases = _cases(task, record, run)
        references |= {case.id: case.label for case in cases if case.label is not None}
        _run_fold(task, run, _ensemble(run, record), cases, seen)
    labels = Plan.read(runs[0].plan).labels
    fixes = Fixes.of(task.project.root) if task.images is None else Fixes()
    systems = []
    for name, one in seen.items():
        scores = evaluate(
            references, one.predictions, labels, nsd_tolerance=task.nsd_tolerance, fixes=fixes, jobs=task.jobs
        )
        scores.write(task.out / _folder(name))
        systems.append(System(name, scores, median(one.seconds), one.parameters, one.memory))
    return systems


def _cases(task: Task, record: RunRecord, run: RunFolder) -> list[Case]:
    """The cases to compare on, all of them with a label."""
    if task.images is None:
        known = {case.id: case for case in task.project.dataset.cases}
        found = [known[name] for name in record.validation if name in known and known[name].label is not None]
        if not found:
            raise UsageError(f"compare on fold {record.fold}", "it has no validation cases", "give --images, --labels")
        return found
    if task.labels is None:
        raise UsageError(f"compare on {task.images}", "no references were given", "give --labels, too")
    plan = Plan.read(run.plan)
    files, references = find_inputs(task.images, plan), image_files(task.labels)
    if missing := sorted(set(files) - set(references)):
        raise UsageError(f"compare on {task.images}", f"no reference of {listed(missing)}", f"add it to {task.labels}")
    return [Case(id=name, images=found, label=references[name], subject=name) for name, found in files.items()]


def _ensemble(run: RunFolder, record: RunRecord) -> Ensemble:
    """The teachers of a run as it was trained."""
    asked = f"compare {run.path} with its teachers"
    if not record.teachers:
        raise UsageError(asked, "it had none", "give a run of --trainer distillation")
    teachers = []
    for path, known in zip(record.teachers, record.teacher_hashes, strict=True):
        if not Path(path).is_dir():
            raise DataError(asked, f"the teacher {path} is gone", "put it back")
        teacher = Teacher.of(Path(path), record.fold)
        if teacher.identity != known:
            raise DataError(asked, f"the teacher {path} was trained again since", "train the student again, too")
        teachers.append(teacher)
    trainer_type: type[Trainer[Any]] = registry.load("trainers", record.trainer)
    plan = Plan.read(run.plan)
    settings = trainer_type.settings_type.model_validate(record.settings)
    how = trainer_type(settings, plan, plan.configuration(record.configuration)).teaching().combine
    return Ensemble(tuple(teachers), record.teacher_weights, Teaching(combine=how), plan.labels)


def _run_fold(task: Task, run: RunFolder, ensemble: Ensemble, cases: Sequence[Case], seen: dict[str, _Seen]) -> None:
    """Predicts the cases of one fold by every system, and notes what was seen."""
    precision = str(RunRecord.read(run.record).settings.get("precision", "auto"))
    student = load_model(run.path, device=task.device, precision=precision, calibrated=False)
    teachers = [teacher.load(task.device, precision) for teacher in ensemble.teachers]
    models = {STUDENT: [student], **{name: [one] for name, one in zip(ensemble.names, teachers, strict=True)}}
    models[ENSEMBLE] = [teachers[index] for index in ensemble.used]
    if task.images is None:
        _warn_of_seen(ensemble, {case.id for case in cases}, task.project.name)
    fixes = Fixes.of(task.project.root) if task.images is None else Fixes()
    with progress(f"compare {run.path.name}", len(cases)) as step:
        for case in cases:
            arrays = read_case(case, fixes)
            refuse_unfit(case.id, len(arrays.image), arrays.geometry, student.plan)
            for name, members in models.items():
                together = ensemble if name == ENSEMBLE else None
                one = seen.setdefault(name, _Seen())
                began = time.perf_counter()
                found, memory = _predicted(case.id, arrays, members, together, task)
                one.seconds.append(time.perf_counter() - began)
                ending = label_ending(case.images)
                file = task.out / _folder(name) / f"{case.id}{ending}"
                write_label(file, found, arrays.geometry)
                one.predictions[case.id] = file
                one.memory = max(one.memory, memory)
                one.parameters = sum(_parameters(model) for model in members)
            step(case.id)


def _warn_of_seen(ensemble: Ensemble, cases: Set[str], dataset: str) -> None:
    """Says which teachers were trained on cases that are compared on: these do too well on them."""
    for name, teacher in zip(ensemble.names, ensemble.teachers, strict=True):
        records = [RunRecord.read(run.record) for run in teacher.runs]
        if seen := {case for one in records if one.dataset == dataset for case in one.train} & cases:
            say(f"warning: {name} was trained on {counted(len(seen), 'case')} of these: its scores are too good")


def _predicted(
    case: str, arrays: CaseArrays, models: Sequence[Model], ensemble: Ensemble | None, task: Task
) -> tuple[LabelMap, int]:
    """The label map of a case by one model or an ensemble of several, and the memory that it takes."""
    said, needed = [], [0]
    for model in models:
        prepared = model.prepare(case, arrays.image, arrays.geometry)
        wanted = ensemble is not None
        said.append(model.predict_prepared(prepared, mirroring=task.mirroring, probabilities=wanted))
        needed.append(prediction_bytes(prepared.info.shape, model.plan, model.configuration))
    if ensemble is None:
        return said[0].labels, max(needed)
    stacks = [one.probabilities for one in said if one.probabilities is not None]
    labels = np.empty_like(said[0].labels)
    for index in range(labels.shape[0]):
        planes = [torch.from_numpy(stack[:, index].astype(np.float32)) for stack in stacks]
        labels[index] = _decided(ensemble, planes)
    return labels, max(needed) + sum(stack.nbytes for stack in stacks)


def _decided(ensemble: Ensemble, probabilities: Sequence[torch.Tensor]) -> LabelMap:
    """The label map of a plane from the probabilities (K, Y, X) of each teacher in use."""
    labels: LabelSchema = ensemble.labels
    soft = ensemble.soft_target([logits_of(one, exclusive=not labels.has_regions) for one in probabilities])
    if not labels.has_regions:
        found: LabelMap = whole(soft, exclusive=True, axis=0).argmax(0).numpy().astype(np.uint16)
        return found
    painted = torch.zeros(soft.shape[1:], dtype=torch.int32)
    for region, value in zip(soft, labels.regions_class_order, strict=True):
        painted[region > 0.5] = value
    return painted.numpy().astype(np.uint16)


def _parameters(model: Model) -> int:
    own = sum(weight.numel() for network in model.networks for weight in network.parameters())
    return own + (_parameters(model.first) if model.first else 0)


def _folder(name: str) -> str:
    return f"predictions/{name}"
