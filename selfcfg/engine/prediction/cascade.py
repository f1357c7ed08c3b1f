"""The label maps of a cascade's first stage, brought onto the grid on which its second stage works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.data.store import CaseInfo, Store
from selfcfg.engine.data.stored_array import StoredArray, write_array
from selfcfg.engine.footprint import case_bytes
from selfcfg.engine.prediction.ledger import Ledger, LedgerEntry
from selfcfg.errors import DataError, SelfcfgError, UsageError, listed
from selfcfg.files import hash_file, replacing
from selfcfg.io import read_label
from selfcfg.kernels.resample import resample_labels, separate_axis
from selfcfg.parallel import run_cases
from selfcfg.plan import Configuration
from selfcfg.progress import progress
from selfcfg.runs import RunRecord, fold_folders
from selfcfg.splits import Split

FOLDER = "next_stage"
"""Folder in the first stage's experiment; in it one for each store of preprocessed cases that it was brought to."""


@dataclass(frozen=True)
class PreviousStage:
    """The finished first stage of a cascade, as its second stage sees it.

    Args:
        experiment: folder of the first stage's experiment.
        folder: of its label maps, one ``<case>.b2nd`` a case on the grid of the preprocessed image.
        weights: hash of the final weights of each fold, by folder name.
        sources: hash of the label map that each case's was made of.
    """

    experiment: Path
    folder: Path
    weights: dict[str, str]
    sources: dict[str, str]

    def labels(self, case: str) -> NDArray[np.int16]:
        """The label map of a case, int16 (Z, Y, X)."""
        found: NDArray[np.int16] = StoredArray(self.folder / f"{case}.b2nd", np.int16)[...]
        return found


def cross_validated_labels(
    experiment: Path, cases: Sequence[str], after: str, ending: str, label_fraction: float
) -> dict[str, Path]:
    """The file of each case's label map by the fold that did not train on it.

    So the second stage sees in training what it will see of new cases.

    Args:
        experiment: folder of the first stage's experiment.
        cases: ids of the cases that the second stage is trained and validated on.
        after: name of the first stage's configuration, for messages.
        ending: of the files.
        label_fraction: of the second stage.

    Raises:
        UsageError: a fold of the first stage is missing, not finished, or trained on another share of the labels.
        DataError: a label map is gone.
    """
    asked, remedy = (
        f"train after {after}",
        f"run: selfcfg train -c {after} --fold all; plan-and-train does it by itself",
    )
    if not experiment.is_dir():
        raise UsageError(asked, f"there is no {experiment.name} yet", remedy)
    records = {run: RunRecord.read(run.record) for run in fold_folders(experiment)}
    if other := {record.label_fraction for record in records.values()} - {label_fraction}:
        found = f"{experiment.name} was trained with {other.pop():g} of the labels, this stage with {label_fraction:g}"
        raise UsageError(asked, found, "train both stages with the same --label-fraction")
    if waiting := [run.path.name for run, record in records.items() if record.status != "finished"]:
        raise UsageError(asked, f"{listed(waiting)} of {experiment.name} not finished", remedy)
    files = {case: run.validation / f"{case}{ending}" for run, record in records.items() for case in record.validation}
    if without := [case for case in cases if case not in files]:
        found = f"no result of {experiment.name} for {listed(without, 5)}, which no finished fold has validated"
        raise UsageError(asked, found, remedy)
    if gone := [str(files[case]) for case in cases if not files[case].is_file()]:
        raise DataError(asked, f"not there: {listed(gone, 3)}", f"run the training of {after} again: it predicts them")
    return {case: files[case] for case in cases}


def first_stage(  # noqa: PLR0917 - which stage before which
    experiment: Path, results: Path, splits: Sequence[Split], after: str, ending: str, label_fraction: float
) -> dict[str, Path]:
    """`cross_validated_labels` of all cases of some splits by an experiment, which lies among a dataset's results.

    Raises:
        UsageError: it lies elsewhere; see `cross_validated_labels` too.
        DataError: a label map is gone.
    """
    if experiment.resolve().parent != results.resolve():
        raise UsageError(f"train after {experiment}", f"it is not in {results}", "move or train it there")
    cases = sorted({case for split in splits for case in (*split.train, *split.val)})
    return cross_validated_labels(experiment, cases, after, ending, label_fraction)


def bring_to_grid(
    files: Mapping[str, Path], experiment: Path, store: Store, configuration: Configuration, *, jobs: int
) -> PreviousStage:
    """The first stage's label maps on the grid of the second stage; only what is missing or has changed is done.

    Args:
        files: see `cross_validated_labels`.
        experiment: folder of the first stage's experiment.
        store: the cases as preprocessed for the second stage.
        configuration: the second stage's.
        jobs: processes at most.

    Raises:
        DataError: a label map cannot be read, or a case is not in the store.

    Source: nnU-Net v2.8.1, ``predicted_next_stage``. Our choice: the label map is resampled in training too, as the
        reference does in prediction; in training it resamples the probabilities, which look a little different.
    """
    folder = experiment / FOLDER / store.folder.name
    ledger = Ledger.at(folder)
    sources = {case: hash_file(file) for case, file in files.items()}
    waiting = {
        case: _Task(file, sources[case], store, case, configuration, folder)
        for case, file in files.items()
        if not _is_done(ledger, folder, case, sources[case], store)
    }
    with progress(f"results of {configuration.after}", len(waiting)) as step:
        done = run_cases(_bring, waiting, jobs=jobs, doing="bring to the grid", memory=_bytes_needed)
        for case, outcome in done:
            if isinstance(outcome, SelfcfgError):
                raise outcome
            step(case)
    weights = {run.path.name: hash_file(run.final) for run in fold_folders(experiment)}
    return PreviousStage(experiment, folder, weights, sources)


def on_grid(labels: NDArray[Any], info: CaseInfo, configuration: Configuration) -> NDArray[np.int16]:
    """A label map (Z, Y, X) on a case's own grid brought to that of its preprocessed image, int16 (Z', Y', X').

    Args:
        labels: as in a file of the case.
        info: what was done to the case.
        configuration: for which that was done.
    """
    box = tuple(slice(*span) for span in info.box)
    cropped = np.ascontiguousarray(labels.transpose(info.axis_order)[box], dtype=np.int16)
    return resample_labels(cropped, info.shape, separate_axis(info.spacing, configuration.target_spacing(info.spacing)))


def with_previous(image: NDArray[np.float32], labels: NDArray[np.int16], values: Sequence[int]) -> NDArray[np.float32]:
    """The image (C, Z, Y, X) with a channel more for each value, 1 where the label map holds it and 0 elsewhere."""
    return np.concatenate([image, *((labels == value)[None].astype(np.float32) for value in values)])


@dataclass(frozen=True)
class _Task:
    """One label map, and where it has to go."""

    file: Path
    source: str
    store: Store
    case: str
    configuration: Configuration
    folder: Path


def _bring(task: _Task) -> None:
    info = task.store.open(task.case).info
    found, _ = read_label(task.file)
    labels = on_grid(found, info, task.configuration)
    target = task.folder / f"{task.case}.b2nd"
    with replacing(target) as temporary:
        write_array(temporary, labels, task.configuration.patch_size)
    entry = LedgerEntry(maker=info.content_hash(), input=task.source, output=hash_file(target))
    Ledger(task.folder).note(task.case, entry)


def _is_done(ledger: Ledger, folder: Path, case: str, source: str, store: Store) -> bool:
    entry = ledger.entry(case)
    made_for = store.open(case).info.content_hash()
    return entry is not None and entry.describes(folder / f"{case}.b2nd", made_for, source)


def _bytes_needed(task: _Task) -> int:
    info = task.store.open(task.case).info
    return case_bytes(info.geometry.shape, info.shape, 0)
