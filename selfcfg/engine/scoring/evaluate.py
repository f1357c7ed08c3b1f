"""Predicted label maps against reference ones: overlap, volumes and surface distances, per case, class and region."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal

import numpy as np

from selfcfg.engine.prediction.image_table import TABLE
from selfcfg.engine.scoring.image_scores import (
    TargetScores,
    combined_image_scores,
    image_score_lines,
    score_image_targets,
)
from selfcfg.engine.scoring.scores import ClassScores, Empty, Labels, score_case
from selfcfg.errors import DataError, SelfcfgError, listed
from selfcfg.files import write_text
from selfcfg.fixes import Fixes
from selfcfg.image_files import RASTER_ENDINGS, ending_in, image_files
from selfcfg.image_targets import GivenTarget
from selfcfg.io import read_label
from selfcfg.labels import LabelSchema
from selfcfg.parallel import run_cases
from selfcfg.progress import progress
from selfcfg.records import Record, Sparing

Unit = Literal["px", "mm2", "ml"]
UNITS: tuple[Unit, ...] = ("px", "mm2", "ml")
"""Of volumes; one that is further on goes for all cases where they differ."""

METRICS = ("dice", "iou", "hd95", "nsd", "volume_error", "volume_error_relative")
"""The metrics that are averaged; all of them are None for a class that a case leaves out."""

SUMMARY = "summary.json"
"""The file an evaluation is written to, whole."""

_SHOWN = 10
SMALL_BYTES = 16 << 20
"""Below this size of all files together, starting worker processes takes longer than the work."""


class CaseScores(Record):
    """The scores of one case by class or region."""

    case: str
    reference: Path
    prediction: Path
    scores: dict[str, ClassScores]


def case_dice(case: CaseScores) -> float:
    """The mean Dice over the classes of a case; one that neither mask holds is left out, and 1 where that is all.

    So every case has a score with every network, and finding nothing where there is nothing is right.
    """
    return fmean([scores.dice for scores in case.scores.values() if scores.dice is not None] or [1.0])


class Evaluation(Sparing):
    """The scores of a set of predictions.

    Args:
        foreground_mean: unweighted mean over classes of `mean`, by metric.
        mean: by class, the mean of each metric over the cases where it is defined.
        n_excluded: by class, the cases left out because neither mask holds it; all 0 with ``empty="score"``.
        n_one_empty: by class, the cases where just one of the two masks holds it.
        n_cases: number of cases.
        nsd_tolerance: mm; pixels for pictures.
        empty: how a class that is absent from both masks counts.
        volume_unit: "ml"; for 2D images "mm2", or "px" for pictures, whose pixels have no size.
        unmatched: predictions for which there is no reference; they were left out.
        image_targets: scores of what was said of whole images, by target.
        cases: per-case scores, by case id.
    """

    spared: ClassVar[frozenset[str]] = frozenset({"image_targets"})

    foreground_mean: dict[str, float | None]
    mean: dict[str, dict[str, float | None]]
    n_excluded: dict[str, int]
    n_one_empty: dict[str, int]
    n_cases: int
    nsd_tolerance: float
    empty: Empty
    volume_unit: Unit
    unmatched: tuple[str, ...] = ()
    image_targets: dict[str, TargetScores] = {}
    cases: tuple[CaseScores, ...]

    @property
    def distance_unit(self) -> str:
        """Of HD95 and the NSD's tolerance: "mm", or "px" for pictures."""
        return "px" if self.volume_unit == "px" else "mm"

    def write(self, path: Path) -> None:
        """Writes summary.json (everything) and metrics.csv (one row a case and class) into folder `path`."""
        super().write(path / SUMMARY)
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["case", "class", *ClassScores.model_fields])
        for case in self.cases:
            for name, scores in case.scores.items():
                writer.writerow([case.case, name, *scores.model_dump().values()])
        write_text(path / "metrics.csv", stream.getvalue())

    def table(self) -> str:
        """The means as a plain text table: one row a class, the foreground mean, and a line an image-level target."""
        far, volume = self.distance_unit, self.volume_unit
        metrics = ("Dice", "IoU", f"HD95 {far}", f"NSD {self.nsd_tolerance:g} {far}", f"volume error {volume}")
        heads = ("class", *metrics, "relative", "left out")
        rows = [(name, *_cells(means), str(self.n_excluded[name])) for name, means in self.mean.items()]
        rows.append(("mean", *_cells(self.foreground_mean), ""))
        widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in (heads, *rows)
        ]
        rule = "-" * max(map(len, lines))
        notes = [f"{self.n_cases} cases"]
        if self.unmatched:
            notes.append(
                f"{len(self.unmatched)} predictions without a reference left out: {', '.join(self.unmatched[:5])}"
            )
        notes = ["; ".join(notes), *image_score_lines(self.image_targets)]
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], *notes])


def evaluate(
    references: Path | Mapping[str, Path],
    predictions: Path | Mapping[str, Path],
    labels: LabelSchema,
    *,
    nsd_tolerance: float = 2.0,
    empty: Empty = "exclude",
    fixes: Fixes | None = None,
    jobs: int = 1,
) -> Evaluation:
    """The scores of every prediction against its reference, cases in parallel.

    Args:
        references: folder of label maps named ``<case>`` and a suffix of any known format, or case id to file.
        predictions: the same for the predictions.
        labels: meaning of the values; voxels whose reference holds the ignore value are left out everywhere.
        nsd_tolerance: mm; pixels for pictures.
        empty: a class absent from both masks of a case is left out ("exclude") or scored as found perfectly ("score").
        fixes: recorded corrections of the headers of the references.
        jobs: worker processes at most.

    Raises:
        UsageError: there is no such folder, or no image in it.
        DataError: a prediction is missing, or files cannot be compared (another geometry, values that are not
            declared); every such case is named.

    Source: metrics and empty masks as in `selfcfg.engine.scoring.scores`; the means as nnU-Net v2.8.1, section 2.18.
    """
    pairs, unmatched = _pairs(references, predictions)
    if sum(file.stat().st_size for pair in pairs for file in (pair.reference, pair.prediction)) < SMALL_BYTES:
        jobs = 1
    score = partial(_score_pair, labels=labels, nsd_tolerance=nsd_tolerance, empty=empty, fixes=fixes or Fixes())
    found: list[tuple[CaseScores, Unit]] = []
    failures: list[SelfcfgError] = []
    with progress("evaluate", len(pairs)) as step:
        for name, result in run_cases(score, {pair.case: pair for pair in pairs}, jobs=jobs, doing="evaluate"):
            if isinstance(result, SelfcfgError):
                failures.append(result)
            else:
                found.append(result)
            step(name)
    if failures:
        raise _together(failures, len(pairs))
    unit: Unit = max((unit for _, unit in found), key=UNITS.index)
    common = {"nsd_tolerance": nsd_tolerance, "empty": empty, "volume_unit": unit, "unmatched": unmatched}
    return _averaged([case for case, _ in found], tuple(labels.targets), common)


def with_image_targets(scores: Evaluation, predictions: Path, targets: Mapping[str, GivenTarget]) -> Evaluation:
    """The evaluation with the scores of what was said of its cases as a whole, where a table in a folder says it.

    Raises:
        DataError: see `selfcfg.engine.scoring.image_scores.score_image_targets`.
    """
    if not targets or not (predictions / TABLE).is_file():
        return scores
    told = score_image_targets(predictions / TABLE, targets, [case.case for case in scores.cases])
    return scores.model_copy(update={"image_targets": told})


def combine(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The scores of all cases of several evaluations of the same classes, such as the folds of a cross-validation."""
    first = evaluations[0]
    common: dict[str, Any] = {name: getattr(first, name) for name in ("nsd_tolerance", "empty")}
    common["volume_unit"] = max((part.volume_unit for part in evaluations), key=UNITS.index)
    common["unmatched"] = tuple(case for part in evaluations for case in part.unmatched)
    common["image_targets"] = combined_image_scores(part.image_targets for part in evaluations)
    cases = [case for part in evaluations for case in part.cases]
    return _averaged(cases, tuple(first.mean), common)


def _averaged(cases: Iterable[CaseScores], classes: Sequence[str], common: Mapping[str, Any]) -> Evaluation:
    cases = sorted(cases, key=lambda case: case.case)
    means = {name: _mean_scores(case.scores[name] for case in cases) for name in classes}
    return Evaluation(
        foreground_mean={metric: _mean(scores[metric] for scores in means.values()) for metric in METRICS},
        mean=means,
        n_excluded={name: sum(case.scores[name].dice is None for case in cases) for name in classes},
        n_one_empty={name: sum(_one_empty(case.scores[name]) for case in cases) for name in classes},
        n_cases=len(cases),
        cases=tuple(cases),
        **common,
    )


@dataclass(frozen=True)
class _Pair:
    case: str
    reference: Path
    prediction: Path


def _pairs(
    references: Path | Mapping[str, Path], predictions: Path | Mapping[str, Path]
) -> tuple[list[_Pair], tuple[str, ...]]:
    wanted, given = (image_files(given) if isinstance(given, Path) else given for given in (references, predictions))
    if missing := sorted(set(wanted) - set(given)):
        where = f" in {predictions}" if isinstance(predictions, Path) else ""
        raise DataError(
            "evaluate",
            f"{len(missing)} of {len(wanted)} cases have no prediction{where}: {listed(missing, _SHOWN)}",
            "predict them, or leave their references out",
        )
    pairs = [_Pair(case, file, given[case]) for case, file in sorted(wanted.items())]
    return pairs, tuple(sorted(set(given) - set(wanted)))


def _score_pair(
    pair: _Pair, labels: LabelSchema, nsd_tolerance: float, empty: Empty, fixes: Fixes
) -> tuple[CaseScores, Unit]:
    """The scores of one pair of files, and the unit of volumes in them."""
    reference, stored = read_label(pair.reference)
    geometry = fixes.corrected(pair.case, None, stored)
    prediction, other = read_label(pair.prediction)
    asked = f"evaluate case '{pair.case}'"
    if differences := geometry.differences(other):
        found = f"reference and prediction differ in {', '.join(differences)} ({pair.reference} and {pair.prediction})"
        raise DataError(asked, found, "give a prediction on the reference's own grid")
    _refuse_values(asked, reference, labels.values, pair.reference)
    _refuse_values(asked, prediction, (0, *labels.foreground_values), pair.prediction)
    scores = score_case(reference, prediction, geometry, labels, nsd_tolerance=nsd_tolerance, empty=empty)
    case = CaseScores(case=pair.case, reference=pair.reference, prediction=pair.prediction, scores=scores)
    if geometry.dimensions == 3:
        return case, "ml"
    is_picture = ending_in(pair.reference.name) in RASTER_ENDINGS and geometry.spacing[1:] == (1.0, 1.0)
    return case, "px" if is_picture else "mm2"


def _refuse_values(asked: str, values: Labels, allowed: tuple[int, ...], file: Path) -> None:
    if int(values.min()) < 0 or int(values.max()) > max(allowed):
        wrong = sorted(set(np.unique(values).tolist()) - set(allowed))
        found = f"values {listed(wrong, _SHOWN)} are not allowed here (only {listed(allowed, _SHOWN)}), {file}"
        raise DataError(asked, found, "give the dataset.json these files were made with, or mend the file")


def _one_empty(scores: ClassScores) -> bool:
    return (scores.tp + scores.fn == 0) != (scores.tp + scores.fp == 0)


def _mean_scores(scores: Iterable[ClassScores]) -> dict[str, float | None]:
    known = list(scores)
    return {metric: _mean(getattr(case, metric) for case in known) for metric in METRICS}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _cells(means: Mapping[str, float | None]) -> list[str]:
    formats = {"dice": "{:.4f}", "iou": "{:.4f}", "nsd": "{:.4f}", "hd95": "{:.2f}", "volume_error_relative": "{:.1%}"}
    return [
        "-"
        if (value := means[metric]) is None
        else formats.get(metric, "{:.2f}" if value >= 1 else "{:.3g}").format(value)
        for metric in METRICS
    ]


def _together(failures: list[SelfcfgError], total: int) -> SelfcfgError:
    if len(failures) == 1:
        return failures[0]
    lines = "".join(f"\n  {failure}" for failure in failures)
    return DataError("evaluate", f"{len(failures)} of {total} cases cannot be scored:{lines}")
