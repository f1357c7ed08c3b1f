"""The steps from a raw dataset to preprocessed cases; each one does only what is not done yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from selfcfg.dataset import Dataset
from selfcfg.engine.checks.check import Finding, check
from selfcfg.engine.data.preprocess import preprocess
from selfcfg.engine.data.store import Store
from selfcfg.engine.footprint import refuse_full_disk, resampled_shapes
from selfcfg.engine.measure import measure
from selfcfg.engine.planner import ANY, Target, load_planner
from selfcfg.errors import DataError, counted
from selfcfg.fingerprint import Fingerprint
from selfcfg.geometry import Vector
from selfcfg.plan import Plan
from selfcfg.progress import say
from selfcfg.project import Project
from selfcfg.report.plan_files import remove_page
from selfcfg.splits import Split, make_splits, read_splits, refuse_leakage, write_splits


class Shard(NamedTuple):
    """A share of the cases of a dataset, such as the first of four.

    Args:
        number: from 1 on.
        of_all: how many shares there are.
    """

    number: int
    of_all: int

    def of(self, dataset: Dataset) -> Dataset:
        """The dataset with these of its cases alone: every so many-th, so that shares are alike."""
        return dataset.model_copy(update={"cases": dataset.cases[self.number - 1 :: self.of_all]})


WHOLE = Shard(1, 1)


def checked(project: Project, jobs: int) -> list[Finding]:
    """The warnings of `check` on the raw dataset, of what is trained on.

    Raises:
        DataError: something would make training go wrong; every such finding is listed.
    """
    findings = check(project.root, jobs, test_images=False)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        every = "\n".join(f"  {finding}" for finding in errors)
        raise DataError(
            f"check {project.name}", f"{counted(len(errors), 'error')}\n{every}\n", "mend them and run again"
        )
    return findings


def fingerprint(project: Project, jobs: int) -> Fingerprint:
    """The dataset's fingerprint; only cases that are new or changed are measured."""
    known = Fingerprint.read(project.fingerprint_file) if project.fingerprint_file.is_file() else None
    measured = measure(project.dataset, jobs=jobs, known=known)
    if measured != known:
        measured.write(project.fingerprint_file)
    return measured


def known_fingerprint(project: Project, jobs: int) -> Fingerprint:
    """The fingerprint as it was last measured, brought up to date only if cases came or went."""
    if project.fingerprint_file.is_file():
        known = Fingerprint.read(project.fingerprint_file)
        if {case.case for case in known.cases} == {case.id for case in project.dataset.cases}:
            return known
    return fingerprint(project, jobs)


def make_plan(
    project: Project, facts: Fingerprint, planner: str, target: Target = ANY, spacing: Vector | None = None
) -> tuple[Path, Plan]:
    """The plan of a planner, and the file it was written to; a page that explained an earlier one there is removed.

    Args:
        project: of the dataset.
        facts: its fingerprint.
        planner: its entry-point name.
        target: what the plan is to fit.
        spacing: target spacing (z, y, x) in mm that replaces the rule.

    Raises:
        UsageError: no such planner, or nothing fits the target.
    """
    decide = load_planner(planner)

    def plan_for(memory_gb: float | None) -> Plan:
        description = project.dataset.description
        return decide(facts, description, dataset=project.name, memory_gb=memory_gb, spacing=spacing)

    plan = _fitted(plan_for, facts, target)
    file = project.plan_file(planner, target.suffix)
    remove_page(file)
    plan.write(file)
    return file, plan


def _fitted(decide: Callable[[float | None], Plan], facts: Fingerprint, target: Target) -> Plan:
    if target.seconds is None and not target.fill:
        return decide(target.memory_gb)
    from selfcfg.engine.forecasting.fitted_plan import plan_for_memory, plan_for_time  # noqa: PLC0415 - trains a few steps

    if target.seconds is not None:
        return plan_for_time(decide, facts, target.seconds, target)
    return plan_for_memory(decide, facts, target)


def splits(project: Project, facts: Fingerprint) -> tuple[Split, ...]:
    """The folds: the user's where there are any, else our own, made once and made again when the cases change.

    Raises:
        DataError: a subject or an identical image would be in training and validation of one fold.
    """
    cases = project.dataset.cases
    subjects = {case.id: case.subject for case in cases}
    if project.user_splits_file.is_file():
        found = read_splits(project.user_splits_file, list(subjects))
    else:
        found = _own_splits(project, facts, subjects)
    refuse_leakage(found, subjects, {case.case: case.picture for case in facts.cases})
    return found


def _own_splits(project: Project, facts: Fingerprint, subjects: Mapping[str, str]) -> tuple[Split, ...]:
    file = project.own_splits_file
    if file.is_file():
        found = read_splits(file, None)
        if {case for split in found for case in (*split.train, *split.val)} == set(subjects):
            return found
        say(f"the cases of {project.name} have changed: making new splits")
    classes = {case.case: {value for value, count in case.voxels.items() if count and value} for case in facts.cases}
    made = make_splits(subjects, classes)
    write_splits(file, made)
    return made


def store(project: Project, plan: Plan, configuration: str, jobs: int, shard: Shard = WHOLE) -> Store:
    """The preprocessed cases of a configuration; only cases that are new or changed are preprocessed.

    Args:
        project: of the dataset.
        plan: what was planned.
        configuration: one of the plan's.
        jobs: processes at most.
        shard: the share of the cases that is looked at.

    Raises:
        DataError: some cases could not be preprocessed.
        SelfcfgError: the disk has no room for them.
    """
    folder = project.store_folder(plan, configuration)
    there = set(Store(folder).cases())
    shapes = resampled_shapes(known_fingerprint(project, jobs), plan, plan.configuration(configuration))
    refuse_full_disk(folder, [shape for case, shape in shapes.items() if case not in there], plan)
    return preprocess(shard.of(project.dataset), plan, configuration, folder, jobs=jobs)
