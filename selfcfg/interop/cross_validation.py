"""What a model scored in its cross-validation: numbers that travel with it and name no case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from selfcfg.engine.comparison.nnunet import is_nnunet, read_nnunet
from selfcfg.engine.comparison.values import ClassValues
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.prediction.packaged import CROSS_VALIDATION
from selfcfg.engine.scoring.evaluate import SUMMARY, Evaluation, combine
from selfcfg.errors import DataError
from selfcfg.interop.nnunet_read import read_foreign_json
from selfcfg.labels import LabelSchema
from selfcfg.records import Record
from selfcfg.runs import RunFolder


class CrossValidation(Record):
    """The score of the cases that the networks of a model did not train on.

    Args:
        dice: mean over classes of the mean over cases where it is defined.
        n_cases: that were scored.
        folds: names of the folds whose networks were scored.
    """

    dice: Annotated[float, Field(ge=0, le=1)]
    n_cases: Annotated[int, Field(gt=0)]
    folds: Annotated[tuple[str, ...], Field(min_length=1)]


def cross_validation_of(model: Model) -> CrossValidation | None:
    """Of the folds of a model, from their validation or as it came with them; None where not all of them were scored.

    Raises:
        DataError: a file of scores is not usable.
    """
    folders = [file.parent for file in model.files]
    names = tuple(folder.name for folder in folders)
    files = [RunFolder(folder).validation / SUMMARY for folder in folders]
    if all(file.is_file() for file in files):
        scores = combine([Evaluation.read(file) for file in files])
        return _of(scores.foreground_mean.get("dice"), scores.n_cases, names)
    came = folders[0].parent / CROSS_VALIDATION
    if not came.is_file():
        return None
    found = CrossValidation.read(came)
    return found if set(found.folds) == set(names) else None


def cross_validation_of_nnunet(folds: Sequence[Path], labels: LabelSchema) -> CrossValidation | None:
    """Of folds of a model that nnU-Net trained; None where not all were scored, or on the cases of their training.

    Raises:
        DataError: a file of scores is not as nnU-Net writes it.
    """
    files = [fold / "validation" / SUMMARY for fold in folds]
    if any(fold.name == "fold_all" for fold in folds) or not all(file.is_file() for file in files):
        return None
    cases: list[Mapping[str, ClassValues]] = []
    for file in files:
        content = read_foreign_json(file)
        if not is_nnunet(content):
            raise DataError(f"read {file}", "no metric_per_case in it", "give the folder as nnU-Net left it")
        cases += read_nnunet(file, content, labels).cases.values()
    by_class = [[case[name].values["dice"] for case in cases if name in case] for name in labels.targets]
    means = [_mean(scores) for scores in by_class]
    return _of(_mean(means), len(cases), tuple(fold.name for fold in folds))


def _of(dice: float | None, n_cases: int, folds: tuple[str, ...]) -> CrossValidation | None:
    if dice is None:
        return None
    content = {"dice": dice, "n_cases": n_cases, "folds": folds}
    return CrossValidation.parse(content, "scores of the cross-validation")


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
