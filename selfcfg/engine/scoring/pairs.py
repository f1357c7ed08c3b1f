"""Files of label maps, two by two: which belong together, and their scores in parallel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from selfcfg.engine.scoring.calibration import CaseTallies, LabelMaps, calibration_of_case, case_scores
from selfcfg.engine.scoring.scores import CaseScores, ClassScores, Labels, Scoring, score_case
from selfcfg.errors import DataError, SelfcfgError, listed
from selfcfg.fixes import Fixes
from selfcfg.image_files import RASTER_ENDINGS, ending_in, image_files
from selfcfg.io import read_label
from selfcfg.labels import LabelSchema
from selfcfg.parallel import run_cases
from selfcfg.progress import progress

Unit = Literal["px", "mm2", "ml"]
UNITS: tuple[Unit, ...] = ("px", "mm2", "ml")
"""Of volumes; one that is further on goes for all cases where they differ."""

SHOWN = 10
SMALL_BYTES = 16 << 20
"""Below this size of all files together, starting worker processes takes longer than the work."""


@dataclass(frozen=True)
class Pair:
    """The two files of a case.

    Args:
        case: its id.
        reference: the file that is held to be true.
        prediction: the file that is scored.
        both_annotate: whether people made both, so that voxels that either did not annotate are left out; else the
            prediction must not hold the ignore value.
    """

    case: str
    reference: Path
    prediction: Path
    both_annotate: bool = False


class Scored(NamedTuple):
    """The scores of cases, in no order, the unit of their volumes, and where asked for, what is believed rightly."""

    cases: list[CaseScores]
    unit: Unit
    tallies: dict[str, CaseTallies]


def pairs_of(
    references: Path | Mapping[str, Path], predictions: Path | Mapping[str, Path]
) -> tuple[list[Pair], tuple[str, ...]]:
    """Every reference with its prediction, and the predictions without a reference.

    Raises:
        UsageError: there is no such folder, or no image in it.
        DataError: a prediction is missing.
    """
    wanted, given = (image_files(given) if isinstance(given, Path) else given for given in (references, predictions))
    if missing := sorted(set(wanted) - set(given)):
        where = f" in {predictions}" if isinstance(predictions, Path) else ""
        raise DataError(
            "evaluate",
            f"{len(missing)} of {len(wanted)} cases have no prediction{where}: {listed(missing, SHOWN)}",
            "predict them, or leave their references out",
        )
    pairs = [Pair(case, file, given[case]) for case, file in sorted(wanted.items())]
    return pairs, tuple(sorted(set(given) - set(wanted)))


def score_pairs(
    pairs: Iterable[Pair],
    labels: LabelSchema,
    how: Scoring,
    *,
    fixes: Fixes | None = None,
    jobs: int = 1,
    doing: str = "evaluate",
) -> Scored:
    """The scores of pairs of files, cases in parallel.

    Args:
        pairs: at least one, each of another case.
        labels: meaning of the values.
        how: they are scored.
        fixes: recorded corrections of the headers of the references.
        jobs: worker processes at most.
        doing: what is told of progress.

    Raises:
        DataError: files cannot be compared; every such case is named.
    """
    by_case = {pair.case: pair for pair in pairs}
    files = [file for pair in by_case.values() for file in (pair.reference, pair.prediction)]
    if sum(file.stat().st_size for file in files) < SMALL_BYTES:
        jobs = 1
    score = partial(_score_pair, labels=labels, how=how, fixes=fixes or Fixes())
    found: list[tuple[CaseScores, Unit, CaseTallies | None]] = []
    failures: list[SelfcfgError] = []
    with progress(doing, len(by_case)) as step:
        for name, result in run_cases(score, by_case, jobs=jobs, doing=doing):
            if isinstance(result, SelfcfgError):
                failures.append(result)
            else:
                found.append(result)
            step(name)
    if failures:
        raise _together(failures, len(by_case))
    tallies = {case.case: tallies for case, _, tallies in found if tallies is not None}
    return Scored([case for case, *_ in found], max((unit for _, unit, _ in found), key=UNITS.index), tallies)


def _score_pair(
    pair: Pair, labels: LabelSchema, how: Scoring, fixes: Fixes
) -> tuple[CaseScores, Unit, CaseTallies | None]:
    """The scores of one pair of files, the unit of volumes in them, and what the probabilities are worth if asked."""
    reference, stored = read_label(pair.reference)
    geometry = fixes.corrected(pair.case, None, stored)
    prediction, other = read_label(pair.prediction)
    asked = f"evaluate case '{pair.case}'"
    if differences := geometry.differences(other):
        who = "the label maps of two readers" if pair.both_annotate else "reference and prediction"
        found = f"{who} differ in {', '.join(differences)} ({pair.reference} and {pair.prediction})"
        whose = "both readers' labels on one grid" if pair.both_annotate else "a prediction on the reference's own grid"
        raise DataError(asked, found, f"give {whose}")
    _refuse_values(asked, reference, labels.values, pair.reference)
    may_hold = labels.values if pair.both_annotate else (0, *labels.foreground_values)
    _refuse_values(asked, prediction, may_hold, pair.prediction)
    if pair.both_annotate and labels.ignore is not None:
        unknown = prediction == labels.ignore
        reference, prediction = np.where(unknown, labels.ignore, reference), np.where(unknown, 0, prediction)
    scores = score_case(
        reference,
        prediction,
        geometry,
        labels,
        nsd_tolerance=how.nsd_tolerance,
        empty=how.empty,
        extras=how.extras,
    )
    tallies = None
    if "calibration" in how.extras.metrics:
        beside, margin = pair.prediction.with_name(f"{pair.case}.npz"), how.extras.calibration_margin
        tallies = calibration_of_case(beside, asked, LabelMaps(reference, prediction, geometry), labels, margin)
        scores = _with_calibration(scores, tallies)
    case = CaseScores(case=pair.case, reference=pair.reference, prediction=pair.prediction, scores=scores)
    if geometry.dimensions == 3:
        return case, "ml", tallies
    is_picture = ending_in(pair.reference.name) in RASTER_ENDINGS and geometry.spacing[1:] == (1.0, 1.0)
    return case, "px" if is_picture else "mm2", tallies


def _with_calibration(scores: dict[str, ClassScores], tallies: CaseTallies) -> dict[str, ClassScores]:
    """The scores with those of the probabilities; of a class that neither mask holds they say too little."""
    return {
        name: one
        if one.tp + one.fp + one.fn == 0
        else one.model_copy(update={"extra": {**one.extra, **case_scores(tallies.classes[name])}})
        for name, one in scores.items()
    }


def _refuse_values(asked: str, values: Labels, allowed: tuple[int, ...], file: Path) -> None:
    if int(values.min()) < 0 or int(values.max()) > max(allowed):
        wrong = sorted(set(np.unique(values).tolist()) - set(allowed))
        found = f"values {listed(wrong, SHOWN)} are not allowed here (only {listed(allowed, SHOWN)}), {file}"
        raise DataError(asked, found, "give the dataset.json these files were made with, or mend the file")


def _together(failures: list[SelfcfgError], total: int) -> SelfcfgError:
    if len(failures) == 1:
        return failures[0]
    lines = "".join(f"\n  {failure}" for failure in failures)
    return DataError("evaluate", f"{len(failures)} of {total} cases cannot be scored:{lines}")
