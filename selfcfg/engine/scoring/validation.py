"""Whole validation cases predicted by the network that did not train on them, and the scores of all folds together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from selfcfg.engine.data.preprocess import Prepared
from selfcfg.engine.data.store import Store
from selfcfg.engine.prediction.cascade import PreviousStage, with_previous
from selfcfg.engine.prediction.image_table import write_image_table
from selfcfg.engine.prediction.ledger import Ledger, LedgerEntry
from selfcfg.engine.prediction.loading import load_model, refuse_pretraining
from selfcfg.engine.scoring.evaluate import SUMMARY, Evaluation, combine, evaluate, with_image_targets
from selfcfg.errors import DataError, listed
from selfcfg.files import hash_file
from selfcfg.fixes import Fixes
from selfcfg.io import write_label
from selfcfg.labels import LabelSchema
from selfcfg.progress import progress
from selfcfg.project import Project
from selfcfg.runs import RunFolder, RunRecord, fold_folders


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
    """
    files = {case: run.validation / f"{case}{ending}" for case in cases}
    ledger, maker = Ledger.at(run.validation), hash_file(run.final) + ("" if mirroring else ", not mirrored")
    sources = {case: store.open(case).info.source + (previous.sources[case] if previous else "") for case in cases}
    entries = {case: ledger.entry(case) for case in cases}
    missing = [
        case
        for case, entry in entries.items()
        if entry is None or not entry.describes(files[case], maker, sources[case])
    ]
    if missing:
        model = load_model(run.path, device=device, precision=precision, alone=True)
        with progress(f"validate {run.path.name}", len(missing)) as step:
            for case in missing:
                stored = store.open(case)
                image = stored.image[...]
                if previous is not None:
                    image = with_previous(image, previous.labels(case), model.plan.labels.foreground_values)
                prepared = Prepared(image=image, label=None, info=stored.info)
                prediction = model.predict_prepared(prepared, mirroring=mirroring)
                write_label(files[case], prediction.labels, prediction.geometry)
                told, output = dict(prediction.image_level), hash_file(files[case])
                ledger.note(case, LedgerEntry(maker=maker, input=sources[case], output=output, image_targets=told))
                step(case)
    write_image_table(run.validation, ledger)
    return files


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
    _refuse_strangers(folder, [RunRecord.read(run.record) for run in runs])
    return combine([Evaluation.read(run.validation / SUMMARY) for run in runs])


def scored_folds(folder: Path) -> list[RunFolder]:
    """The folds of an experiment that are finished and scored."""
    return [
        run
        for run in fold_folders(folder)
        if RunRecord.read(run.record).status == "finished" and (run.validation / SUMMARY).is_file()
    ]


def _refuse_strangers(folder: Path, records: Sequence[RunRecord]) -> None:
    remedy = "train again under a new --name, or move folds away"
    if any(record.shared_identity() != records[0].shared_identity() for record in records):
        raise DataError(f"scores of {folder}", "its folds were trained in different ways", remedy)
    counts = Counter(case for record in records for case in record.validation)
    if twice := [case for case, count in counts.items() if count > 1]:
        raise DataError(f"scores of {folder}", f"validated in more than one fold: {listed(twice)}", remedy)
