"""The cases of an experiment as the networks see them that did not train on them, with their probabilities."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from selfcfg.dataset import Dataset
from selfcfg.engine.calibration.temperature import OutOfFold
from selfcfg.engine.prediction.ledger import Ledger
from selfcfg.engine.prediction.loading import load_model
from selfcfg.engine.prediction.probabilities import write_probabilities
from selfcfg.engine.scoring.scores import CaseScores
from selfcfg.errors import DataError
from selfcfg.files import hash_file
from selfcfg.fixes import Fixes
from selfcfg.io import read_case
from selfcfg.progress import progress
from selfcfg.runs import RunFolder, RunRecord

FOLDER = ".calibration"
"""Folder in a fold, of probabilities that are needed for a while."""


@contextmanager
def out_of_fold(
    runs: Sequence[RunFolder], scores: Mapping[str, CaseScores], dataset: Dataset, device: str | None
) -> Iterator[list[OutOfFold]]:
    """The cases with the files of their probabilities, which are removed at the end unless training kept them.

    Those that are missing are predicted again; what a run that was stopped left behind is used.

    Args:
        runs: finished and scored folds.
        scores: of all their cases, by case.
        dataset: that they belong to.
        device: to predict on; None: the best there is.

    Raises:
        DataError: a label map or an image is gone.
    """
    cases: list[OutOfFold] = []
    for run in runs:
        cases += _of_fold(run, scores, dataset, device)
    yield cases
    for run in runs:
        shutil.rmtree(run.path / FOLDER, ignore_errors=True)


def _of_fold(run: RunFolder, scores: Mapping[str, CaseScores], dataset: Dataset, device: str | None) -> list[OutOfFold]:
    record = RunRecord.read(run.record)
    passing = run.path / FOLDER / hash_file(run.final)[:8]
    found, ledger = [], Ledger(run.validation)
    for case in record.validation:
        described = dataset.case(case)
        if case not in scores or described.label is None:
            continue
        prediction = run.validation / scores[case].prediction.name
        if not prediction.is_file():
            remedy = "train with --resume to predict it again"
            raise DataError(f"calibrate case '{case}'", f"its label map is gone: {prediction}", remedy)
        kept, entry = run.validation / f"{case}.npz", ledger.entry(case)
        is_kept = entry is not None and kept.is_file() and 0 < entry.probabilities == kept.stat().st_size
        file = kept if is_kept else passing / f"{case}.npz"
        found.append(OutOfFold(case, described.subject, run.path.name, file, prediction, described.label))
    missing = [case for case in found if not case.probabilities.is_file()]
    if missing:
        _predict(run, record, missing, dataset, device)
    return found


def _predict(
    run: RunFolder, record: RunRecord, cases: Sequence[OutOfFold], dataset: Dataset, device: str | None
) -> None:
    """Writes the probabilities of validation cases."""
    precision = str(record.settings.get("precision", "auto"))
    model = load_model(run.path, device=device, precision=precision, calibrated=False)
    with progress(f"probabilities of {run.path.name}", len(cases)) as step:
        for case in cases:
            arrays = read_case(dataset.case(case.case), Fixes.of(dataset.root))
            prepared = model.prepare(case.case, arrays.image, arrays.geometry)
            made = model.predict_prepared(prepared, probabilities=True).probabilities
            if made is not None:
                write_probabilities(case.probabilities, made)
            step(case.case)
