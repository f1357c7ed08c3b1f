"""All that the teachers of one fold tell its student: who they are, how much each counts, and their soft targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfcfg.dataset import Case
from selfcfg.engine.data.source import Domain
from selfcfg.engine.data.store import Store
from selfcfg.engine.distillation.soft_targets import Classroom, greedy_weights, predict_soft_targets
from selfcfg.engine.distillation.teachers import Ensemble, open_teachers, scored_weights
from selfcfg.engine.trainer import Teaching
from selfcfg.errors import UsageError
from selfcfg.plan import Plan
from selfcfg.progress import say
from selfcfg.runs import RunFolder, RunRecord


@dataclass(frozen=True)
class Pupil:
    """The student of one fold, as its teachers need to know it.

    Args:
        run: folder of the fold.
        fold: its number.
        plan: of its training.
        teaching: how its teachers are made one.
        train: its training cases, with labels or without.
        validation: its validation cases.
        further: other datasets of its training, each with all its cases and the folder they are from.
        room: where its own cases are.
    """

    run: RunFolder
    fold: int
    plan: Plan
    teaching: Teaching
    train: Sequence[Case]
    validation: Sequence[Case]
    further: Sequence[tuple[Domain, Mapping[str, Case], Path]]
    room: Classroom


@dataclass(frozen=True)
class Lessons:
    """What the teachers of one fold say.

    Args:
        ensemble: they and their weights.
        own: folder of the soft targets of the student's own cases; None where its run is finished already.
        further: the same of the other datasets.
    """

    ensemble: Ensemble
    own: Path | None = None
    further: tuple[Path, ...] = ()


def take_lessons(paths: Sequence[Path], pupil: Pupil) -> Lessons:
    """The lessons of one fold; soft targets that are there already are kept, and none are made for a finished run.

    Args:
        paths: of the teachers.
        pupil: the student.

    Raises:
        UsageError: a teacher is not there or does not suit the student, or its run was begun with other ones.
        SelfcfgError: see `predict_soft_targets`.
    """
    if not paths:
        remedy = "name finished runs: --teacher RUN --teacher RUN"
        raise UsageError(f"train {pupil.run.path.parent.name}", "no teacher was given", remedy)
    teachers, labels, room = open_teachers(paths, pupil.fold, pupil.plan), pupil.plan.labels, pupil.room
    if pupil.run.record.is_file():
        begun = RunRecord.read(pupil.run.record)
        if begun.teacher_hashes != tuple(teacher.identity for teacher in teachers):
            found = "it holds another run (the teachers differ)"
            raise UsageError(f"train into {pupil.run.path}", found, "give this one a new --name")
    if pupil.teaching.weighting == "greedy":
        weights = greedy_weights(teachers, pupil.teaching, labels, pupil.validation, room)
    else:
        weights = scored_weights(teachers, pupil.teaching, labels)
    ensemble = Ensemble(teachers, weights, pupil.teaching, labels)
    if pupil.run.final.is_file():
        return Lessons(ensemble)
    say(f"teachers of fold {pupil.fold}, weighting {pupil.teaching.weighting}:\n{ensemble.described()}")
    own = predict_soft_targets(ensemble, pupil.train, room)
    others = []
    for domain, cases, root in pupil.further:
        there = Classroom(root, Store(domain.store_folder), room.configuration, room.device, room.precision)
        others.append(predict_soft_targets(ensemble, [cases[name] for name in domain.training], there))
    return Lessons(ensemble, own, tuple(others))
