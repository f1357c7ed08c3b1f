"""An experiment's cross-validation turned into what is known of new cases: temperature and likely quality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selfcfg.dataset import Dataset
from selfcfg.engine.calibration.quality import Scored, fit_quality
from selfcfg.engine.calibration.temperature import OutOfFold, Temperature, temperature_of
from selfcfg.engine.prediction.probabilities import read_probabilities
from selfcfg.engine.prediction.quality import CALIBRATION, QUALITY, Features, Quality, features_of, input_features
from selfcfg.engine.prediction.uncertainty import uncertainty_of
from selfcfg.engine.scoring.scores import CaseScores
from selfcfg.engine.scoring.validation import pooled, remove_passing, scored_folds
from selfcfg.engine.selection.entrants import Entrant, entrant_of
from selfcfg.engine.selection.held_out import held_out
from selfcfg.files import hash_file, write_text
from selfcfg.fingerprint import Fingerprint
from selfcfg.fixes import Fixes
from selfcfg.io import read_case, read_label
from selfcfg.kernels.crop import nonzero_box
from selfcfg.plan import Plan
from selfcfg.progress import progress
from selfcfg.project import Project
from selfcfg.runs import RunRecord
from selfcfg.sheets import comma_separated
from selfcfg.workspace import Workspace

CASES = "quality_cases.csv"
"""The cases that the score of quality was fitted on, with their features and their Dice."""


@dataclass(frozen=True)
class Calibrated:
    """What was fitted, and the files it is in."""

    temperature: Temperature
    quality: Quality
    calibration_file: Path
    quality_file: Path


def calibrate(
    folder: Path, workspace: Workspace, *, device: str | None = None, jobs: int = 1, seed: int = 0
) -> Calibrated:
    """Fits temperature and score of quality on the validation cases of an experiment, and writes both into its folder.

    `selfcfg.load_model` finds them there. The features of a case are those of its probabilities
    without the temperature: stored in half precision, the smallest of them are lost, which a temperature would blow up.

    Args:
        folder: an experiment whose folds are finished and scored; several are better, one will do.
        workspace: with its dataset.
        device: to predict probabilities on that are not there; None: the best there is.
        jobs: processes at most.
        seed: of the voxels that are drawn, and of the permutations.

    Raises:
        DataError: it only pretrains, nothing is scored yet, or a file cannot be used.
        UsageError: its dataset is not in the workspace.
    """
    scores = {case.case: case for case in pooled(folder).cases}
    runs = scored_folds(folder)
    record, plan = RunRecord.read(runs[0].record), Plan.read(runs[0].plan)
    project = Project.of(workspace, record.dataset)
    dataset, experiment = project.dataset, runs[0].path.parent
    weights = {run.path.name: hash_file(run.final) for run in runs}
    entrant = entrant_of(experiment.name, experiment, "calibrate")
    with _out_of_fold(project, entrant, scores, device, jobs) as cases:
        fitted = temperature_of(cases, plan.labels, seed=seed, fixes=Fixes.of(dataset.root))
        fitted = fitted.model_copy(update={"weights": weights})
        scored = _scored(cases, scores, dataset, plan, _facts_of(experiment))
    quality = fit_quality(scored, weights, seed)
    fitted.write(experiment / CALIBRATION)
    quality.write(experiment / QUALITY)
    _write_cases(experiment / CASES, scored)
    return Calibrated(fitted, quality, experiment / CALIBRATION, experiment / QUALITY)


@contextmanager
def _out_of_fold(
    project: Project, entrant: Entrant, scores: Mapping[str, CaseScores], device: str | None, jobs: int
) -> Iterator[list[OutOfFold]]:
    """The cases with the files of their probabilities, which are removed at the end unless training kept them."""
    known_cases = {case.id for case in project.dataset.cases}
    files = held_out(project, entrant, sorted(known_cases & set(scores)), keeping="passing", device=device, jobs=jobs)
    found = []
    for case, one in files.items():
        known, fold = project.dataset.case(case), entrant.run_of[case].path.name
        if known.label is not None:
            found.append(OutOfFold(case, known.subject, fold, one.probabilities, one.labels, known.label))
    yield found
    for run in entrant.runs:
        remove_passing(run)


def _facts_of(experiment: Path) -> Fingerprint | None:
    file = experiment / "fingerprint.json"
    return Fingerprint.read(file) if file.is_file() else None


def _scored(
    cases: Sequence[OutOfFold],
    scores: Mapping[str, CaseScores],
    dataset: Dataset,
    plan: Plan,
    facts: Fingerprint | None,
) -> list[Scored]:
    """The cases that have a Dice, with their features."""
    found = []
    with progress("features", len(cases)) as step:
        for case in cases:
            dice = scores[case.case].mean("dice")
            if dice is not None:
                features = _features(case, dataset, plan, facts)
                found.append(Scored(case.case, case.subject, case.fold, dice, features))
            step(case.case)
    return found


def _features(case: OutOfFold, dataset: Dataset, plan: Plan, facts: Fingerprint | None) -> Features:
    labels, geometry = read_label(case.prediction)
    asked = f"calibrate case '{case.case}'"
    probabilities = read_probabilities(case.probabilities, asked, plan.labels, labels.shape)
    features = features_of(labels, uncertainty_of(probabilities, labels, plan.labels), geometry, plan, facts)
    image = read_case(dataset.case(case.case), Fixes.of(dataset.root)).image
    _, box = nonzero_box(image.transpose(0, *(axis + 1 for axis in plan.axis_order)))
    spacing = [geometry.spacing[axis] for axis in plan.axis_order]
    return features | input_features(image, labels, spacing, [side.stop - side.start for side in box], plan)


def _write_cases(file: Path, cases: Sequence[Scored]) -> None:
    names = list(cases[0].features) if cases else []
    rows = ((case.case, case.subject, case.fold, case.dice, *(case.features[name] for name in names)) for case in cases)
    write_text(file, comma_separated(("case", "subject", "fold", "dice", *names), rows))
