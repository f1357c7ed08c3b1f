"""Scores of weighted means of experiments, each case's probabilities read once.

Where all experiments decide a voxel alike, so does every weighted mean of them. So of each case only the other voxels
are kept, a small share of all, and a trial is arithmetic on these: the same voxels right and wrong as of the label map
that the ensemble would write.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.footprint import PROCESS_BYTES
from selfcfg.engine.prediction.averaging import decoded, read_probabilities, votes, weighted_mean
from selfcfg.engine.scoring.pairs import SMALL_BYTES
from selfcfg.engine.selection.held_out import HeldOut
from selfcfg.errors import DataError, SelfcfgError
from selfcfg.files import replacing
from selfcfg.io import read_header, read_label
from selfcfg.kernels.overlap import counts, joint_histogram
from selfcfg.labels import LabelSchema
from selfcfg.parallel import run_cases
from selfcfg.progress import progress

Counts = tuple[int, ...]
"""How often each experiment is in an ensemble; its weights are these by their sum."""

Tallies = NDArray[np.int64]
"""True positives, false positives and false negatives along the last axis: (cases, classes, 3)."""


@dataclass(frozen=True)
class CaseFiles:
    """Where a case lies.

    Args:
        case: its id.
        reference: file of its label.
        said: what each experiment says of it.
        n_outputs: of their networks.
    """

    case: str
    reference: Path
    said: tuple[HeldOut, ...]
    n_outputs: int


def reduced(counts_: Sequence[int]) -> Counts:
    """The smallest counts of the same weights: one for all equal ensembles."""
    common = math.gcd(*counts_)
    return tuple(count // common for count in counts_)


def weights_from(counts_: Sequence[int]) -> tuple[float, ...]:
    """The weights that counts stand for."""
    return tuple(count / sum(counts_) for count in counts_)


def tally(reference: NDArray[np.integer], prediction: NDArray[np.integer], labels: LabelSchema) -> Tallies:
    """(classes, 3) of one label map, voxels that are not annotated left out.

    Raises:
        ValueError: the shapes differ, or a value is not declared.
    """
    histogram = joint_histogram(reference, prediction, len(labels.values))
    found = [counts(histogram, values, labels.ignore) for values in labels.targets.values()]
    return np.array([(one.tp, one.fp, one.fn) for one in found], dtype=np.int64)


def reference_of(files: CaseFiles, shape: Sequence[int], labels: LabelSchema) -> NDArray[np.integer]:
    """The label of a case.

    Raises:
        DataError: it cannot be read, lies on another grid than a prediction, or holds values that are not declared.
    """
    found, _ = read_label(files.reference)
    if tuple(found.shape) != tuple(shape) or found.min() < 0 or found.max() > max(labels.values):
        have = f"shape {found.shape} and values up to {found.max()}"
        what = f"{files.reference} has {have}, the prediction shape {tuple(shape)}"
        raise DataError(f"select, case '{files.case}'", what, "check the dataset, and train again")
    return found


class Trials:
    """The scores of ensembles of some experiments.

    Args:
        cases: at least one.
        labels: what they predict.
        scratch: folder for what is kept of each case.
        jobs: processes at most.
    """

    def __init__(self, cases: Sequence[CaseFiles], labels: LabelSchema, scratch: Path, jobs: int) -> None:
        self.cases, self.labels, self._scratch = tuple(cases), labels, scratch
        self.members = len(cases[0].said)
        singles = self._read(jobs)
        self._known = {
            tuple(int(place == member) for place in range(self.members)): singles[:, member]
            for member in range(self.members)
        }

    def tallies(self, wanted: Iterable[Sequence[int]]) -> dict[Counts, Tallies]:
        """Of each ensemble the tallies of all cases; those of one experiment are of the label maps that it wrote."""
        asked = {reduced(one) for one in wanted}
        if missing := sorted(asked - set(self._known)):
            found = [_tried(self._file(files.case), missing, self.labels) for files in self.cases]
            self._known |= {one: np.stack([case[place] for case in found]) for place, one in enumerate(missing)}
        return {one: self._known[one] for one in asked}

    def _read(self, jobs: int) -> Tallies:
        """(cases, members, classes, 3) of single experiments; on the way, what is kept of each case is written."""
        tasks = {files.case: files for files in self.cases}
        jobs = 1 if total_size(self.cases) < SMALL_BYTES else jobs
        work = partial(_gathered, labels=self.labels, scratch=self._scratch)
        found: dict[str, Tallies] = {}
        with progress("read predictions", len(tasks)) as step:
            for case, outcome in run_cases(work, tasks, jobs=jobs, doing="select", memory=bytes_needed):
                if isinstance(outcome, SelfcfgError):
                    raise outcome
                found[case] = outcome
                step(case)
        return np.stack([found[files.case] for files in self.cases])

    def _file(self, case: str) -> Path:
        return self._scratch / f"{case}.npz"


def _gathered(files: CaseFiles, labels: LabelSchema, scratch: Path) -> Tallies:
    """(members, classes, 3) of the label maps; writes the voxels that are decided in different ways."""
    maps = [read_label(one.labels)[0] for one in files.said]
    reference = reference_of(files, maps[0].shape, labels)
    if len(files.said) > 1:
        stacks = [read_probabilities(one.probabilities) for one in files.said]
        _refuse_shapes(files, stacks, maps[0].shape, labels)
        first = votes(stacks[0], labels)
        differ = np.zeros(first.shape, dtype=bool)
        for stack in stacks[1:]:
            differ |= votes(stack, labels) != first
        agreed = tally(reference[~differ], decoded(stacks[0][:, ~differ], labels), labels)
        given = np.stack([stack[:, differ] for stack in stacks])
        with replacing(scratch / f"{files.case}.npz") as temporary, temporary.open("wb") as stream:
            np.savez(stream, agreed=agreed, probabilities=given, reference=reference[differ])
    return np.stack([tally(reference, one, labels) for one in maps])


def _refuse_shapes(
    files: CaseFiles, stacks: Sequence[NDArray[np.float16]], shape: Sequence[int], labels: LabelSchema
) -> None:
    for one, stack in zip(files.said, stacks, strict=True):
        if stack.shape != (labels.n_outputs, *shape):
            found = f"{one.probabilities} has shape {stack.shape}, the label map {tuple(shape)}"
            raise DataError(f"select, case '{files.case}'", found, "remove the file: it is made again")


def _tried(file: Path, trials: Sequence[Counts], labels: LabelSchema) -> Tallies:
    """(trials, classes, 3) of one case."""
    with np.load(file, allow_pickle=False) as content:
        agreed, stacks, reference = content["agreed"], content["probabilities"], content["reference"]
    found = []
    for trial in trials:
        used = [place for place, count in enumerate(trial) if count]
        weights = weights_from(trial)
        mean = weighted_mean([stacks[place] for place in used], [weights[place] for place in used])
        found.append(agreed + tally(reference, decoded(mean, labels), labels))
    return np.stack(found)


def bytes_needed(files: CaseFiles) -> int:
    """Memory for the probabilities of all experiments and as much again."""
    _, geometry = read_header(files.said[0].labels)
    return PROCESS_BYTES + 4 * len(files.said) * (1 + files.n_outputs) * math.prod(geometry.shape)


def total_size(cases: Iterable[CaseFiles]) -> int:
    """Bytes of all files of probabilities that are there."""
    every = (one.probabilities for files in cases for one in files.said)
    return sum(file.stat().st_size for file in every if file.is_file())


def case_scores(tallies: Tallies) -> NDArray[np.float64]:
    """The mean Dice over the classes of each case, (cases,); a class that neither mask holds counts as found, 1."""
    found: NDArray[np.float64] = class_dice(tallies).mean(1)
    return found


def class_dice(tallies: Tallies) -> NDArray[np.float64]:
    """The Dice of each case and class, (cases, classes); 1 where neither mask holds it."""
    tp, fp, fn = np.moveaxis(tallies.astype(np.float64), -1, 0)
    size = 2 * tp + fp + fn
    return np.where(size > 0, 2 * tp / np.maximum(size, 1), 1.0)


def mean_dice(tallies: Tallies, labels: LabelSchema) -> tuple[float | None, dict[str, float | None]]:
    """The foreground mean and the mean of each class as in summary.json: cases where neither mask holds it left out."""
    dice, there = class_dice(tallies), tallies.sum(-1) > 0
    means: dict[str, float | None] = {
        name: float(dice[there[:, place], place].mean()) if there[:, place].any() else None
        for place, name in enumerate(labels.targets)
    }
    known = [value for value in means.values() if value is not None]
    return (sum(known) / len(known) if known else None), means


def by_subject(values: NDArray[np.float64], subjects: NDArray[np.intp]) -> NDArray[np.float64]:
    """The mean of each subject's cases, a value a subject that has any, in the order of their indices.

    Args:
        values: one a case.
        subjects: of each case, the index of its subject.
    """
    _, index = np.unique(subjects, return_inverse=True)
    found: NDArray[np.float64] = np.bincount(index, weights=values) / np.bincount(index)
    return found
