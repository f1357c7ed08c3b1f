"""Finished runs as teachers: which they are, whether they suit a student, and how much each of them counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from selfcfg.engine.prediction.loading import load_model, refuse_pretraining
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.scoring.evaluate import SUMMARY, Evaluation, combine
from selfcfg.engine.trainer import Teaching
from selfcfg.errors import DataError, UsageError, listed
from selfcfg.files import hash_file, hash_json
from selfcfg.kernels.distillation import combined
from selfcfg.kernels.ensembles import score_weights
from selfcfg.labels import BACKGROUND, LabelSchema
from selfcfg.plan import Plan
from selfcfg.progress import say
from selfcfg.runs import RunFolder, RunRecord, fold_folders, same_fold

Weights = tuple[dict[str, float], ...]
"""Of each teacher, by output; of each output together 1."""


@dataclass(frozen=True)
class Teacher:
    """A finished run, or the folds of one, whose logits are then averaged.

    Args:
        path: experiment folder, fold folder or imported model.
        runs: its folds.
    """

    path: Path
    runs: tuple[RunFolder, ...]

    @classmethod
    def of(cls, path: Path, fold: int | str) -> Teacher:
        """The teacher of one fold of a student: the run of the same fold, where there is one, else all there is.

        Raises:
            UsageError: there is no such folder.
            DataError: it holds no run, or one that only pretrains or is not finished.
        """
        place = same_fold(path, fold)
        runs = tuple(fold_folders(place))
        for run in runs:
            record = RunRecord.read(run.record)
            refuse_pretraining(f"learn from {run.path}", run, record)
            if record.status != "finished" or not run.final.is_file():
                raise DataError(f"learn from {run.path}", "its training is not finished", "finish it with --resume")
        return cls(place, runs)

    @cached_property
    def identity(self) -> str:
        """The hash of the plans and the weights it is made of, 32 hex digits."""
        made = []
        for run in self.runs:
            record = RunRecord.read(run.record)
            made.append((record.plan_hash, record.configuration, hash_file(run.final)))
        return hash_json(made)

    def plan(self) -> Plan:
        """The plan of its training."""
        return Plan.read(self.runs[0].plan)

    def load(self, device: str | None, precision: str) -> Model:
        """Its networks."""
        return load_model(self.path, device=device, precision=precision, calibrated=False)

    def evaluation(self) -> Evaluation | None:
        """The scores of the cases that its folds validated; None where there are none."""
        files = [run.validation / SUMMARY for run in self.runs]
        found = [Evaluation.read(file) for file in files if file.is_file()]
        return combine(found) if len(found) == len(files) else None


@dataclass(frozen=True)
class Ensemble:
    """Teachers, and how they are made one.

    Args:
        teachers: in order.
        weights: of each, by output (`outputs_of`); of each output together 1.
        teaching: how they are put together.
        labels: what they predict.
    """

    teachers: tuple[Teacher, ...]
    weights: Weights
    teaching: Teaching
    labels: LabelSchema

    @property
    def key(self) -> str:
        """The hash of what makes its soft targets, 32 hex digits."""
        members = [(one.identity, weights) for one, weights in zip(self.teachers, self.weights, strict=True)]
        return hash_json([members, self.teaching.combine, self.teaching.temperature])

    @property
    def used(self) -> tuple[int, ...]:
        """The indices of the teachers that have any weight."""
        return tuple(index for index, weights in enumerate(self.weights) if any(weights.values()))

    def soft_target(self, logits: Sequence[Tensor]) -> Tensor:
        """What the teachers in use say together, (F, ...), from the logits (K, ...) of each of them in order."""
        outputs = outputs_of(self.labels)
        weights = torch.tensor([[self.weights[index][name] for name in outputs] for index in self.used])
        how, temperature = self.teaching.combine, self.teaching.temperature
        return combined(logits, weights, how, temperature, exclusive=not self.labels.has_regions)

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each teacher: its experiment, and with a number where that is taken."""
        paths = [teacher.path for teacher in self.teachers]
        names = [path.parent.name if path.name.startswith("fold_") else path.name for path in paths]
        return tuple(
            f"{name} ({names[: index + 1].count(name)})" if names.index(name) < index else name
            for index, name in enumerate(names)
        )

    def described(self) -> str:
        """The weights in words, a line a teacher."""
        lines = []
        for name, weights in zip(self.names, self.weights, strict=True):
            told = [f"{output} {weight:.3f}" for output, weight in weights.items()]
            if len(set(weights.values())) == 1:
                told = [f"{next(iter(weights.values())):.3f}"]
            lines.append(f"  {name}: weight {', '.join(told)}")
        return "\n".join(lines)


def outputs_of(labels: LabelSchema) -> tuple[str, ...]:
    """The name of each output of a network in order: of exclusive labels the background first."""
    if labels.has_regions:
        return tuple(labels.targets)
    return (BACKGROUND, *(name for name, _ in sorted(labels.targets.items(), key=lambda target: target[1])))


def open_teachers(paths: Sequence[Path], fold: int | str, plan: Plan) -> tuple[Teacher, ...]:
    """The teachers of one fold of a student, all of them able to teach it.

    Args:
        paths: see `selfcfg.engine.choice.TrainRequest.teachers`.
        fold: of the student.
        plan: of the student.

    Raises:
        UsageError: there is no such folder, a teacher is named twice, or was trained for other labels or channels.
        DataError: it holds no run, or one that only pretrains or is not finished.
    """
    teachers = tuple(Teacher.of(path, fold) for path in paths)
    for teacher in teachers:
        asked, theirs = f"learn from {teacher.path}", teacher.plan()
        if _meaning(theirs.labels) != _meaning(plan.labels):
            here, there = (listed(_described(labels), 20) for labels in (plan.labels, theirs.labels))
            raise UsageError(asked, f"it predicts {there}, the student {here}", "give teachers of the same labels")
        if len(theirs.channels) != len(plan.channels):
            found = f"it takes {listed(theirs.channels)}, the images have {listed(plan.channels)}"
            raise UsageError(asked, found, "give teachers of the same channels")
        if [name.lower() for name in theirs.channels] != [name.lower() for name in plan.channels]:
            say(f"warning: {teacher.path} names the channels {listed(theirs.channels)}, not {listed(plan.channels)}")
    known: dict[str, Teacher] = {}
    for teacher in teachers:
        if twin := known.get(teacher.identity):
            raise UsageError(f"learn from {teacher.path}", f"the same network as {twin.path}", "name it once")
        known[teacher.identity] = teacher
    return teachers


def scored_weights(teachers: Sequence[Teacher], teaching: Teaching, labels: LabelSchema) -> Weights:
    """The weights of teachers from the scores of the cases that each of them validated; uniform without any.

    Raises:
        UsageError: one has no scores.
    """
    outputs = outputs_of(labels)
    if teaching.weighting == "uniform":
        return (dict.fromkeys(outputs, 1 / len(teachers)),) * len(teachers)
    scores = [_scores_of(teacher, teaching) for teacher in teachers]
    if len({frozenset(case.case for case in one.cases) for one in scores}) > 1:
        say("warning: the teachers were validated on different cases, so that their scores compare only roughly")
    means = [one.foreground_mean["dice"] or 0.0 for one in scores]
    if teaching.weighting == "validation":
        found = score_weights(np.array(means), teaching.scale)
        return tuple(dict.fromkeys(outputs, float(weight)) for weight in found)
    classes = [name for name in outputs if labels.has_regions or name != BACKGROUND]
    table = [
        [mean if (dice := one.mean[name]["dice"]) is None else dice for name in classes]
        for one, mean in zip(scores, means, strict=True)
    ]
    by_class = score_weights(np.array(table), teaching.scale)
    known = [dict(zip(classes, map(float, row), strict=True)) for row in by_class]
    if labels.has_regions:
        return tuple(known)
    return tuple({BACKGROUND: float(row.mean()), **one} for one, row in zip(known, by_class, strict=True))


def chosen_weights(count: int, chosen: Sequence[int], labels: LabelSchema) -> Weights:
    """The same weight for each of some teachers, and none for the others."""
    return tuple(
        dict.fromkeys(outputs_of(labels), 1 / len(chosen) if index in chosen else 0.0) for index in range(count)
    )


def _scores_of(teacher: Teacher, teaching: Teaching) -> Evaluation:
    found = teacher.evaluation()
    if found is None:
        what = "it has no validation scores"
        remedy = "set weighting=uniform or greedy, or leave it out"
        raise UsageError(f"weigh {teacher.path} by weighting={teaching.weighting}", what, remedy)
    return found


def _meaning(labels: LabelSchema) -> object:
    """What must agree: the outputs by name and value, in order where they are regions."""
    if labels.has_regions:
        return [*labels.targets.items()], labels.regions_class_order
    return dict(labels.targets)


def _described(labels: LabelSchema) -> list[str]:
    return [f"{name} ({', '.join(map(str, values))})" for name, values in labels.targets.items()]
