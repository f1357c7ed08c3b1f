"""Predicted label maps against reference ones: overlap, volumes and surface distances, per case, class and region."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from selfcfg.engine.prediction.image_table import TABLE
from selfcfg.engine.scoring.calibration import TABLE as RELIABILITY
from selfcfg.engine.scoring.calibration import Calibration, pooled_calibration
from selfcfg.engine.scoring.extras import NO_EXTRAS, Extras, LesionTotals, lesion_totals
from selfcfg.engine.scoring.image_scores import (
    TargetScores,
    combined_image_scores,
    image_score_lines,
    score_image_targets,
)
from selfcfg.engine.scoring.metrics import ALWAYS, METRICS
from selfcfg.engine.scoring.pairs import UNITS, Unit, pairs_of, score_pairs
from selfcfg.engine.scoring.readers import Readers, agreement_of_readers
from selfcfg.engine.scoring.scores import CaseScores, ClassScores, Empty, Scoring
from selfcfg.engine.scoring.subgroups import Grouped, grouped
from selfcfg.engine.scoring.tables import aligned, number
from selfcfg.files import write_text
from selfcfg.fixes import Fixes
from selfcfg.image_targets import GivenTarget
from selfcfg.labels import LabelSchema
from selfcfg.records import Sparing
from selfcfg.sheets import comma_separated

SUMMARY = "summary.json"
"""The file an evaluation is written to, whole."""


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
        extras: metrics that were asked for besides those that always are computed; None for none.
        lesions: where asked for, by class, the lesions of all cases together.
        subgroups: the scores by groups of cases, an attribute after the other.
        readers: how far several readers agree, and the prediction with them.
        calibration: where asked for, how far the probabilities of all cases together can be trusted.
        cases: per-case scores, by case id.
    """

    spared: ClassVar[frozenset[str]] = frozenset(
        {"image_targets", "extras", "lesions", "subgroups", "readers", "calibration"}
    )

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
    extras: Extras | None = None
    lesions: dict[str, LesionTotals] = {}
    subgroups: Grouped | None = None
    readers: Readers | None = None
    calibration: Calibration | None = None
    cases: tuple[CaseScores, ...]

    @property
    def distance_unit(self) -> str:
        """Of HD95 and the NSD's tolerance: "mm", or "px" for pictures."""
        return "px" if self.volume_unit == "px" else "mm"

    @property
    def scoring(self) -> Scoring:
        """How the cases were scored."""
        return Scoring(self.nsd_tolerance, self.empty, self.extras or NO_EXTRAS)

    def write(self, path: Path) -> None:
        """Writes summary.json (everything) and metrics.csv (one row a case and class) into folder `path`.

        Groups of cases are written to subgroups.csv, readers to readers.csv and reliability curves to calibration.csv,
        too; where there are none, such a file of an earlier evaluation is taken away.
        """
        super().write(path / SUMMARY)
        fields = [name for name in ClassScores.model_fields if name != "extra"]
        fields += [name for name in self.scoring.averaged if name not in ALWAYS]
        rows = (
            (case.case, name, *(scores.value(field) for field in fields))
            for case in self.cases
            for name, scores in case.scores.items()
        )
        write_text(path / "metrics.csv", comma_separated(("case", "class", *fields), rows))
        for name, part in self._further().items():
            if part is None:
                (path / name).unlink(missing_ok=True)
            else:
                write_text(path / name, part.csv())

    def tables(self) -> list[str]:
        """The names of the CSV files that `write` makes."""
        return ["metrics.csv", *(name for name, part in self._further().items() if part is not None)]

    def _further(self) -> dict[str, Grouped | Readers | Calibration | None]:
        return {"subgroups.csv": self.subgroups, "readers.csv": self.readers, RELIABILITY: self.calibration}

    def text(self) -> str:
        """All tables that there are: of classes, of groups of cases, of readers, of probabilities."""
        further = [part.text() for part in self._further().values() if part is not None]
        return "\n\n".join([self.table(), *further])

    def table(self) -> str:
        """The means as a plain text table: one row a class, the foreground mean, and a line an image-level target."""
        far, volume = self.distance_unit, self.volume_unit
        units = {"hd95": far, "nsd": f"{self.nsd_tolerance:g} {far}", "volume_error": volume, "hd": far, "assd": far}
        metrics = [metric for metric in self.scoring.averaged if metric in METRICS]
        heads = (
            "class",
            *(f"{METRICS[metric].title} {units.get(metric, '')}".rstrip() for metric in metrics),
            "left out",
        )
        rows = [
            (name, *(number(metric, means.get(metric)) for metric in metrics), last)
            for name, means, last in (
                *((name, means, str(self.n_excluded[name])) for name, means in self.mean.items()),
                ("mean", self.foreground_mean, ""),
            )
        ]
        notes = [f"{self.n_cases} cases"]
        if self.unmatched:
            notes.append(
                f"{len(self.unmatched)} predictions without a reference left out: {', '.join(self.unmatched[:5])}"
            )
        notes = ["; ".join(notes), *image_score_lines(self.image_targets)]
        return "\n".join([*aligned(heads, rows, last_apart=True), *self._lesion_lines(), *notes])

    def _lesion_lines(self) -> list[str]:
        if not self.lesions:
            return []
        heads = ("lesions of all cases", "there", "found", "missed", "false", "false a case", "sensitivity", "F1", "PQ")
        rows = [
            (
                name,
                *(str(count) for count in (one.lesions_ref, one.lesion_tp, one.lesion_fn, one.lesion_fp)),
                f"{one.false_positives_a_case:.2f}",
                *(number("dice", score) for score in (one.lesion_sensitivity, one.lesion_f1, one.panoptic_quality)),
            )
            for name, one in self.lesions.items()
        ]
        return ["", *aligned(heads, rows), ""]


def evaluate(
    references: Path | Mapping[str, Path],
    predictions: Path | Mapping[str, Path],
    labels: LabelSchema,
    *,
    nsd_tolerance: float = 2.0,
    empty: Empty = "exclude",
    extras: Extras = NO_EXTRAS,
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
        extras: metrics that are computed when they are asked for.
        fixes: recorded corrections of the headers of the references.
        jobs: worker processes at most.

    Raises:
        UsageError: there is no such folder, or no image in it.
        DataError: a prediction is missing, or files cannot be compared (another geometry, values that are not
            declared); every such case is named.

    Source: metrics and empty masks as in `selfcfg.engine.scoring.scores`; the means as nnU-Net v2.8.1, section 2.18.
    """
    pairs, unmatched = pairs_of(references, predictions)
    how = Scoring(nsd_tolerance, empty, extras)
    found = score_pairs(pairs, labels, how, fixes=fixes, jobs=jobs)
    common = {
        "nsd_tolerance": nsd_tolerance,
        "empty": empty,
        "volume_unit": found.unit,
        "unmatched": unmatched,
        "extras": extras if extras.metrics else None,
        "calibration": pooled_calibration(
            (found.tallies[case] for case in sorted(found.tallies)), extras.calibration_margin
        ),
    }
    return _averaged(found.cases, tuple(labels.targets), common)


def with_image_targets(scores: Evaluation, predictions: Path, targets: Mapping[str, GivenTarget]) -> Evaluation:
    """The evaluation with the scores of what was said of its cases as a whole, where a table in a folder says it.

    Raises:
        DataError: see `selfcfg.engine.scoring.image_scores.score_image_targets`.
    """
    if not targets or not (predictions / TABLE).is_file():
        return scores
    told = score_image_targets(predictions / TABLE, targets, [case.case for case in scores.cases])
    return scores.model_copy(update={"image_targets": told})


def with_subgroups(scores: Evaluation, table: Path) -> Evaluation:
    """The evaluation with its scores by the groups of a table of attributes of cases.

    Raises:
        UsageError: there is no such file.
        DataError: see `selfcfg.engine.scoring.attributes.read_attributes`.
    """
    found = grouped(scores.cases, table, scores.scoring.averaged)
    return scores.model_copy(update={"subgroups": found})


def with_readers(
    scores: Evaluation, references: Path, readers: Sequence[Path], labels: LabelSchema, *, jobs: int = 1
) -> Evaluation:
    """The evaluation with the agreement of several readers of its cases, and of the predictions with each.

    Args:
        scores: of the predictions against the first reader.
        references: folder of the first reader's labels.
        readers: folders of the others' labels.
        labels: meaning of the values.
        jobs: worker processes at most.

    Raises:
        UsageError: see `selfcfg.engine.scoring.readers.agreement_of_readers`.
        DataError: see there.
    """
    found = agreement_of_readers(scores.cases, references, readers, labels, how=scores.scoring, jobs=jobs)
    return scores.model_copy(update={"readers": found})


def combine(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The scores of all cases of several evaluations of the same classes, such as the folds of a cross-validation."""
    first = evaluations[0]
    common: dict[str, Any] = {name: getattr(first, name) for name in ("nsd_tolerance", "empty", "extras")}
    common["volume_unit"] = max((part.volume_unit for part in evaluations), key=UNITS.index)
    common["unmatched"] = tuple(case for part in evaluations for case in part.unmatched)
    known = [part.calibration for part in evaluations if part.calibration is not None]
    if len(known) == len(evaluations):
        common["calibration"] = pooled_calibration((one.tallies for one in known), known[0].margin)
    common["image_targets"] = combined_image_scores(part.image_targets for part in evaluations)
    cases = [case for part in evaluations for case in part.cases]
    return _averaged(cases, tuple(first.mean), common)


def _averaged(cases: Iterable[CaseScores], classes: Sequence[str], common: Mapping[str, Any]) -> Evaluation:
    cases = sorted(cases, key=lambda case: case.case)
    extras = common["extras"] or NO_EXTRAS
    metrics = Scoring(extras=extras).averaged
    by_class = {name: [case.scores[name] for case in cases] for name in classes}
    means = {
        name: {metric: _mean(one.value(metric) for one in scores) for metric in metrics}
        for name, scores in by_class.items()
    }
    lesions = {}
    if "lesions" in extras.metrics:
        lesions = {name: lesion_totals([one.extra for one in scores]) for name, scores in by_class.items()}
    return Evaluation(
        foreground_mean={metric: _mean(scores[metric] for scores in means.values()) for metric in metrics},
        mean=means,
        n_excluded={name: sum(one.dice is None for one in scores) for name, scores in by_class.items()},
        n_one_empty={name: sum(one_empty(one) for one in scores) for name, scores in by_class.items()},
        n_cases=len(cases),
        lesions=lesions,
        cases=tuple(cases),
        **common,
    )


def one_empty(scores: ClassScores) -> bool:
    """Whether a class was missed or invented altogether."""
    return (scores.tp + scores.fn == 0) != (scores.tp + scores.fp == 0)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
