"""The scores of what was said of whole images, by target."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from selfcfg.engine.prediction.image_table import read_image_table
from selfcfg.errors import DataError, counted, listed
from selfcfg.image_targets import GivenTarget, ImageTarget
from selfcfg.kernels.ranking import area_under_curve, rank_correlation
from selfcfg.records import Record


class ScoredImage(Record):
    """What was said of a case, and what is known of it.

    Args:
        reference: its value in dataset.json.
        predicted: the value that was told.
        probabilities: of each class; empty for a regression.
    """

    reference: str | float
    predicted: str | float
    probabilities: dict[str, float] = {}


class TargetScores(Record):
    """How well an image-level target was told; None where a metric is not defined, or is of the other kind of target.

    Args:
        classes: of a classification; empty for a regression.
        unit: of a regression.
        n: scored cases.
        n_missing: predicted cases without a value in dataset.json; they are left out.
        accuracy: share of the cases whose class was told.
        balanced_accuracy: mean over the classes that there are of the share of their cases that was told.
        auc: area under the ROC curve of the probability of the second of two classes.
        mae: mean absolute error in the unit.
        rmse: root of the mean squared error, in the unit.
        r2: 1 - squared error by that of always telling the mean of the scored cases.
        spearman: correlation of ranks.
        cases: the scored cases by id.
    """

    classes: tuple[str, ...] = ()
    unit: str = ""
    n: int
    n_missing: int
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    auc: float | None = None
    mae: float | None = None
    rmse: float | None = None
    r2: float | None = None
    spearman: float | None = None
    cases: dict[str, ScoredImage]

    def metrics(self) -> dict[str, float | None]:
        """The metrics of this kind of target, by the name that people read."""
        if self.classes:
            found = {"accuracy": self.accuracy, "balanced accuracy": self.balanced_accuracy}
            return {**found, "AUC": self.auc} if len(self.classes) == 2 else found
        unit = f" ({self.unit})" if self.unit else ""
        return {f"MAE{unit}": self.mae, f"RMSE{unit}": self.rmse, "R2": self.r2, "Spearman": self.spearman}


def score_image_targets(
    table: Path, targets: Mapping[str, GivenTarget], cases: Collection[str]
) -> dict[str, TargetScores]:
    """The scores of each target that a table tells.

    Args:
        table: see `selfcfg.engine.prediction.image_table`.
        targets: with the values of cases.
        cases: those that are scored; those without a value are left out and counted.

    Raises:
        DataError: it is no such table, tells other classes, or a case is not in it.
    """
    found = {}
    for name, told in read_image_table(table, targets).items():
        if missing := sorted(set(cases) - set(told)):
            left = f"{counted(len(missing), 'case')} not in {table}: {listed(missing)}"
            raise DataError(f"evaluate '{name}'", left, "predict them, or move the table away")
        values = targets[name].values
        known = {
            case: ScoredImage(
                reference=values[case], predicted=told[case].value, probabilities=told[case].probabilities
            )
            for case in sorted(cases)
            if case in values
        }
        found[name] = _scored(targets[name], known, len(cases) - len(known))
    return found


def combined_image_scores(parts: Iterable[Mapping[str, TargetScores]]) -> dict[str, TargetScores]:
    """The scores of the cases of several evaluations together."""
    found: dict[str, list[TargetScores]] = {}
    for part in parts:
        for name, scores in part.items():
            found.setdefault(name, []).append(scores)
    return {
        name: _scored(
            ImageTarget(classes=several[0].classes, unit=several[0].unit),
            dict(sorted((case, image) for one in several for case, image in one.cases.items())),
            sum(one.n_missing for one in several),
        )
        for name, several in found.items()
    }


def image_score_lines(scores: Mapping[str, TargetScores]) -> list[str]:
    """A line a target for people to read."""
    lines = []
    for name, one in scores.items():
        metrics = (f"{what} {'-' if value is None else f'{value:.4g}'}" for what, value in one.metrics().items())
        missing = f"; {one.n_missing} without a value left out" if one.n_missing else ""
        lines.append(f"{name}: {', '.join([counted(one.n, 'case'), *metrics])}{missing}")
    return lines


def _scored(target: ImageTarget, cases: dict[str, ScoredImage], n_missing: int) -> TargetScores:
    metrics = (_of_classes(target.classes, cases) if target.classes else _of_numbers(cases)) if cases else {}
    return TargetScores(
        classes=target.classes, unit=target.unit, n=len(cases), n_missing=n_missing, cases=cases, **metrics
    )


def _of_classes(classes: tuple[str, ...], cases: Mapping[str, ScoredImage]) -> dict[str, float | None]:
    references = np.array([str(case.reference) for case in cases.values()])
    is_right = references == np.array([str(case.predicted) for case in cases.values()])
    recalls = [float(is_right[references == one].mean()) for one in classes if (references == one).any()]
    found: dict[str, float | None] = {
        "accuracy": float(is_right.mean()),
        "balanced_accuracy": sum(recalls) / len(recalls),
    }
    if len(classes) == 2:
        scores = np.array([case.probabilities[classes[1]] for case in cases.values()])
        found["auc"] = area_under_curve(scores, references == classes[1])
    return found


def _of_numbers(cases: Mapping[str, ScoredImage]) -> dict[str, float | None]:
    references, predicted = (
        np.array([float(value) for value in values])
        for values in zip(*((case.reference, case.predicted) for case in cases.values()), strict=True)
    )
    squares = float(((predicted - references) ** 2).mean())
    variance = float(references.var())
    return {
        "mae": float(np.abs(predicted - references).mean()),
        "rmse": squares**0.5,
        "r2": 1 - squares / variance if variance else None,
        "spearman": rank_correlation(references, predicted),
    }
