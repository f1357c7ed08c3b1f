"""Whole validation cases predicted by the network that did not train on them, and the scores of all folds together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from selfcfg.engine.data.preprocess import Prepared
from selfcfg.engine.data.store import Store
from selfcfg.engine.prediction.cascade import PreviousStage, with_previous
from selfcfg.engine.prediction.image_table import write_image_table
from selfcfg.engine.prediction.ledger import Ledger, LedgerEntry
from selfcfg.engine.prediction.loading import load_model, refuse_pretraining
from selfcfg.engine.prediction.model import Prediction
from selfcfg.engine.prediction.probabilities import write_probabilities
from selfcfg.engine.scoring.evaluate import SUMMARY, Evaluation, combine, evaluate, with_image_targets
from selfcfg.errors import DataError, listed
from selfcfg.files import hash_file
from selfcfg.fixes import Fixes
from selfcfg.io import write_label
from selfcfg.labels import LabelSchema
from selfcfg.progress import progress
from selfcfg.project import Project
from selfcfg.runs import RunFolder, RunRecord, fold_folders

Keeping = Literal["none", "passing", "kept"]
"""Whether probabilities are written beside label maps: not, for as long as something needs them, or for good."""


def predict_validation(
    run: RunFolder,
    cases: Sequence[str],
    store: Store,
    ending: str,
    *,
    device: str | None,
    precision: str,
    previous: PreviousStage | None = None,
    mirroring: bool = True,
    probabilities: Keeping = "none",
) -> dict[str, Path]:
    """The label map of each case by the final weights of a run; those predicted already from the same image are kept.

    Args:
        run: finished.
        cases: ids of preprocessed cases.
        store: where these are.
        ending: of the files to write.
        device: to predict on; None: the best there is.
        precision: "auto", "float32" or "bfloat16".
        previous: the stage before, in a cascade.
        mirroring: also predict mirrored images, where the training mirrored.
        probabilities: also write ``<case>.npz``, see `selfcfg.engine.prediction.predict.PredictOptions`. Where only
            these are missing, the label map stays as it is: a cascade's second stage was trained on it.
    """
    files = {case: run.validation / f"{case}{ending}" for case in cases}
    ledger, maker = Ledger.at(run.validation), hash_file(run.final) + ("" if mirroring else ", not mirrored")
    sources = {case: store.open(case).info.source + (previous.sources[case] if previous else "") for case in cases}
    known = {
        case: entry
        for case in cases
        if (entry := ledger.entry(case)) is not None and entry.describes(files[case], maker, sources[case])
    }
    missing = [case for case in cases if case not in known or _lacks(run, case, known[case], probabilities)]
    if missing:
        model = load_model(run.path, device=device, precision=precision, alone=True)
        with progress(f"validate {run.path.name}", len(missing)) as step:
            for case in missing:
                stored = store.open(case)
                image = stored.image[...]
                if previous is not None:
                    image = with_previous(image, previous.labels(case), model.plan.labels.foreground_values)
                prepared = Prepared(image=image, label=None, info=stored.info)
                wanted = probabilities != "none"
                prediction = model.predict_prepared(prepared, mirroring=mirroring, probabilities=wanted)
                entry = known.get(case) or _written(files[case], prediction, maker, sources[case])
                ledger.note(case, _with_probabilities(run, case, entry, prediction, probabilities))
                step(case)
    if probabilities == "kept":
        for case, entry in ledger.entries().items():
            if case in files and entry.passing:
                ledger.note(case, entry.model_copy(update={"passing": False}))
    write_image_table(run.validation, ledger)
    return files


def probabilities_file(run: RunFolder, case: str) -> Path:
    """Where the probabilities of a validation case lie, if they are there."""
    return run.validation / f"{case}.npz"


def remove_passing(run: RunFolder) -> None:
    """Removes the probabilities of a run's validation cases that were written for a while only."""
    ledger = Ledger.at(run.validation)
    for case, entry in ledger.entries().items():
        if entry.passing:
            probabilities_file(run, case).unlink(missing_ok=True)
            ledger.note(case, entry.model_copy(update={"passing": False, "probabilities": 0}))


def _lacks(run: RunFolder, case: str, entry: LedgerEntry, wanted: Keeping) -> bool:
    file = probabilities_file(run, case)
    return wanted != "none" and not (file.is_file() and file.stat().st_size == entry.probabilities)


def _written(file: Path, prediction: Prediction, maker: str, source: str) -> LedgerEntry:
    """The entry of a label map, which it writes."""
    write_label(file, prediction.labels, prediction.geometry)
    return LedgerEntry(maker=maker, input=source, output=hash_file(file), image_targets=dict(prediction.image_level))


def _with_probabilities(
    run: RunFolder, case: str, entry: LedgerEntry, prediction: Prediction, keeping: Keeping
) -> LedgerEntry:
    """The entry with the probabilities, which it writes; others of that case were of another network."""
    file = probabilities_file(run, case)
    if prediction.probabilities is None:
        file.unlink(missing_ok=True)
        return entry
    write_probabilities(file, prediction.probabilities)
    size = file.stat().st_size
    return entry.model_copy(update={"probabilities": size, "passing": keeping == "passing"})


def score_validation(
    project: Project, labels: LabelSchema, predictions: Mapping[str, Path], destination: Path, jobs: int
) -> Evaluation:
    """The scores of predictions of the dataset's cases that have a label, also written into `destination`."""
    references = {case: label for case in predictions if (label := project.dataset.case(case).label) is not None}
    predicted = {case: predictions[case] for case in references}
    scores = evaluate(references, predicted, labels, fixes=Fixes.of(project.dataset.root), jobs=jobs)
    for folder in {file.parent for file in predicted.values()}:
        scores = with_image_targets(scores, folder, project.dataset.description.image_targets)
    scores.write(destination)
    return scores


def cross_validated(folder: Path) -> Evaluation:
    """The scores of every finished fold of an experiment together, also written into its folder.

    Raises:
        DataError: see `pooled`.
    """
    scores = pooled(folder)
    scores.write(folder / "cross_validation")
    return scores


def pooled(folder: Path) -> Evaluation:
    """The scores of every finished fold of an experiment together.

    Raises:
        DataError: it only pretrains, no fold has been scored yet, or the folds do not belong together.
    """
    runs = scored_folds(folder)
    if not runs:
        first = fold_folders(folder)[0]
        refuse_pretraining(f"scores of {folder}", first, RunRecord.read(first.record))
        raise DataError(f"scores of {folder}", "its folds have not been scored yet", "finish training with --resume")
    refuse_strangers(folder, [RunRecord.read(run.record) for run in runs])
    return combine([Evaluation.read(run.validation / SUMMARY) for run in runs])


def scored_folds(folder: Path) -> list[RunFolder]:
    """The folds of an experiment that are finished and scored."""
    return [
        run
        for run in fold_folders(folder)
        if RunRecord.read(run.record).status == "finished" and (run.validation / SUMMARY).is_file()
    ]


def refuse_strangers(folder: Path, records: Sequence[RunRecord]) -> None:
    """Nothing, where folds are of one cross-validation.

    Raises:
        DataError: they were trained in different ways, or a case was validated twice.
    """
    remedy = "train again under a new --name, or move folds away"
    if any(record.shared_identity() != records[0].shared_identity() for record in records):
        raise DataError(f"scores of {folder}", "its folds were trained in different ways", remedy)
    counts = Counter(case for record in records for case in record.validation)
    if twice := [case for case, count in counts.items() if count > 1]:
        raise DataError(f"scores of {folder}", f"validated in more than one fold: {listed(twice)}", remedy)
