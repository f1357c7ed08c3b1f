"""The facts of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from selfcfg.dataset import Dataset
from selfcfg.engine.comparison.alignment import Aligned
from selfcfg.engine.comparison.compare import Wanted, compare
from selfcfg.engine.comparison.records import Comparison
from selfcfg.engine.comparison.systems import System, scored_of
from selfcfg.engine.scoring.evaluate import Evaluation
from selfcfg.engine.scoring.metrics import METRICS, ON_REQUEST, USUAL
from selfcfg.engine.scoring.validation import pooled, scored_folds
from selfcfg.engine.training.journal import read_log
from selfcfg.errors import SelfcfgError
from selfcfg.fingerprint import Fingerprint
from selfcfg.fixes import Fixes
from selfcfg.plan import Plan
from selfcfg.report.cases import choose, failed_cases, prediction_of, shuffled, shuffled_scores
from selfcfg.report.names import Names
from selfcfg.report.page.blocks import Viewer
from selfcfg.report.page.facts import Experiment, Facts, Rivals
from selfcfg.report.page.shown import MOST, REFERENCE, Chosen, viewers_of
from selfcfg.report.tables import number
from selfcfg.runs import RunRecord, experiment_folders, fold_folders

MAX_RIVALS = 7
_FURTHER = ("assd", "volume_error", *ON_REQUEST)


def experiment_of(
    folder: Path, evaluation: Evaluation, dataset: Dataset, plan: Plan, fingerprint: Path | None = None
) -> Experiment:
    """How the model of an experiment was trained, from the records of its runs.

    Args:
        folder: parent of its folds.
        evaluation: cross-validated scores of those that are finished.
        dataset: what it was trained on.
        plan: what it was trained with.
        fingerprint: the file of what was measured of the dataset, where it is known.

    Raises:
        DataError: the folder holds no run.
    """
    folds = [(run, RunRecord.read(run.record)) for run in fold_folders(folder)]
    finished = {run.path for run in scored_folds(folder)}
    return Experiment(
        dataset=dataset,
        plan=plan,
        folds=folds,
        scored=tuple(record.fold for run, record in folds if run.path in finished),
        logs={record.fold: read_log(run) for run, record in folds},
        fingerprint=_measured(fingerprint),
        rivals=_rivals(folder, folds[0][1], evaluation, _subjects(dataset)),
    )


def facts_of_experiment(folder: Path, evaluation: Evaluation, experiment: Experiment, names: Names) -> Facts:
    """What a page on an experiment is made from.

    Args:
        folder: parent of its folds.
        evaluation: cross-validated scores.
        experiment: how it was trained.
        names: what cases are called.
    """
    record, evaluation = experiment.record, shuffled(evaluation, names)
    found, scores = _scores(evaluation, _subjects(experiment.dataset))
    rivals = experiment.rivals
    if rivals is not None and rivals.scores is not None:
        experiment = replace(experiment, rivals=replace(rivals, scores=shuffled_scores(rivals.scores, names)))
    return Facts(
        title=experiment.dataset.name,
        subtitle=f"{record.trainer}, {record.configuration}, planner {record.planner}",
        folder=folder,
        names=names,
        found=found,
        scores=None if scores is None else shuffled_scores(scores, names),
        evaluation=evaluation,
        viewers=_viewers(folder, evaluation, experiment.dataset, names),
        experiment=experiment,
    )


def _subjects(dataset: Dataset) -> dict[str, str]:
    return {case.id: case.subject for case in dataset.cases}


def _scores(evaluation: Evaluation, subjects: Mapping[str, str]) -> tuple[Comparison, Aligned] | tuple[None, None]:
    """The means with their intervals; none where no case has a score."""
    system = System("this model", "experiment", (scored_of(evaluation),))
    every = [scores for case in evaluation.cases for scores in case.scores.values()]
    known = [name for name in (*USUAL, *_FURTHER) if any(scores.value(name) is not None for scores in every)]
    metrics = tuple(name for name in known if name in METRICS)
    if not metrics:
        return None, None
    try:
        return compare([system], Wanted(metrics, subjects=subjects))
    except SelfcfgError:
        return None, None


def _measured(file: Path | None) -> Fingerprint | None:
    try:
        return Fingerprint.read(file) if file is not None and file.is_file() else None
    except SelfcfgError:
        return None


def _viewers(folder: Path, evaluation: Evaluation, dataset: Dataset, names: Names) -> tuple[Viewer, ...]:
    """Of the worst cases, the median and the best; then of others in which a class was missed or invented."""
    picked = {case.case: (why, case) for why, case in choose(evaluation)}
    for case in failed_cases(evaluation):
        picked.setdefault(case.case, ("missed or invented", case))
    fixes, chosen = Fixes.of(dataset.root), []
    known = {case.id: case for case in dataset.cases}
    for identifier, (why, scored) in list(picked.items())[:MOST]:
        own = known.get(identifier)
        reference = own.label if own is not None and own.label is not None else scored.reference
        about = "Dice " + ", ".join(f"{name} {number(one.dice)}" for name, one in scored.scores.items())
        maps = {REFERENCE: reference, "prediction": prediction_of(scored, folder)}
        chosen.append(Chosen(identifier, why, about, maps, own.images if own else (), fixes))
    return viewers_of(chosen, dataset.labels, dataset.description.channels, names)


def _rivals(folder: Path, record: RunRecord, evaluation: Evaluation, subjects: Mapping[str, str]) -> Rivals | None:
    """Other experiments with scores of the same cases, compared with this one; None where there are none."""
    place = next((parent for parent in folder.parents if parent.name == record.dataset), None)
    if place is None:
        return None
    own = System(_called(folder, place), "experiment", (scored_of(evaluation),))
    mine = {case.case for case in evaluation.cases}
    others: list[System] = []
    for top in sorted(place.iterdir()):
        for other in _experiments(top):
            if other.resolve() == folder.resolve() or len(others) == MAX_RIVALS:
                continue
            try:
                scored = scored_of(pooled(other)) if scored_folds(other) else None
            except SelfcfgError:
                continue
            if scored and mine & set(scored.cases):
                others.append(System(_called(other, place), "experiment", (scored,)))
    if not others:
        return None
    try:
        found, scores = compare([own, *others], Wanted(baseline=own.name, subjects=subjects))
    except SelfcfgError as error:
        return Rivals(None, None, error.found)
    return Rivals(found, scores)


def _experiments(folder: Path) -> list[Path]:
    try:
        return [one for one in experiment_folders(folder) if any(one.glob("fold_*/run.json"))]
    except SelfcfgError:
        return []


def _called(folder: Path, place: Path) -> str:
    return ", ".join(folder.relative_to(place).parts)
