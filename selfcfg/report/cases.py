"""Which cases of an experiment to look at, and what went wrong in which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from selfcfg.dataset import Dataset
from selfcfg.engine.comparison.alignment import Aligned
from selfcfg.engine.scoring.evaluate import Evaluation, one_empty
from selfcfg.engine.scoring.scores import CaseScores
from selfcfg.errors import DataError, SelfcfgError
from selfcfg.fixes import Fixes
from selfcfg.io import read_case, read_label
from selfcfg.report.names import PLAIN, Names
from selfcfg.report.pictures import overlay
from selfcfg.report.tables import number

N_WORST = 3


@dataclass(frozen=True)
class Shown:
    """A case worth looking at.

    Args:
        case: its id.
        why: "worst", "median" or "best"; its rank where there are too few for these.
        scores: Dice of each class as text.
        picture: file name of its picture, or None where none could be drawn.
        problem: why not.
    """

    case: str
    why: str
    scores: str
    picture: str | None
    problem: str = ""


def choose(evaluation: Evaluation) -> list[tuple[str, CaseScores]]:
    """The worst cases by mean Dice, the median one and the best, each once, with the word for it; or all of a few."""
    scored = [(dice, case.case, case) for case in evaluation.cases if (dice := case.mean("dice")) is not None]
    ranked = [case for _, _, case in sorted(scored, key=lambda entry: entry[:2])]
    if not ranked:
        return []
    if len(ranked) == 1:
        return [("the only case", ranked[0])]
    if len(ranked) <= N_WORST:
        return [(f"{rank + 1} of {len(ranked)}, worst first", case) for rank, case in enumerate(ranked)]
    wanted = {len(ranked) - 1: "best", len(ranked) // 2: "median"}
    wanted |= dict.fromkeys(range(N_WORST), "worst")
    return [(wanted[rank], ranked[rank]) for rank in sorted(wanted)]


def draw(evaluation: Evaluation, dataset: Dataset, experiment: Path, folder: Path, names: Names = PLAIN) -> list[Shown]:
    """Draws the chosen cases into `folder`; a case that cannot be drawn is reported with the reason.

    Args:
        evaluation: scores of the cases.
        dataset: of their images and references.
        experiment: of their predictions.
        folder: for the pictures.
        names: what cases are called.
    """
    drawing = _Drawing(dataset, experiment, folder, names)
    return [drawing.draw(why, case) for why, case in choose(evaluation)]


def failed_cases(evaluation: Evaluation) -> list[CaseScores]:
    """The cases in which a class was missed or invented altogether."""
    return [case for case in evaluation.cases if any(one_empty(scores) for scores in case.scores.values())]


def renamed(evaluation: Evaluation, names: Names) -> Evaluation:
    """The evaluation with its cases called as they are in the report."""
    if not names.is_hidden:
        return evaluation
    cases = [case.model_copy(update={"case": names.case(case.case)}) for case in shuffled(evaluation, names).cases]
    return evaluation.model_copy(update={"cases": tuple(cases)})


def shuffled(evaluation: Evaluation, names: Names) -> Evaluation:
    """The evaluation with its cases in the order of their names, so that the order of hidden ones tells no id."""
    if not names.is_hidden:
        return evaluation
    cases = sorted(evaluation.cases, key=lambda case: names.case(case.case))
    return evaluation.model_copy(update={"cases": tuple(cases)})


def shuffled_scores(scores: Aligned, names: Names) -> Aligned:
    """The same of the scores of systems."""
    if not names.is_hidden:
        return scores
    order = sorted(range(len(scores.cases)), key=lambda place: names.case(scores.cases[place]))
    return replace(
        scores,
        cases=tuple(scores.cases[place] for place in order),
        subjects=tuple(scores.subjects[place] for place in order),
        values={metric: values[:, order] for metric, values in scores.values.items()},
        runs={metric: values[:, order] for metric, values in scores.runs.items()},
    )


def failures(evaluation: Evaluation, expected: Iterable[str]) -> list[str]:
    """Sentences on everything that failed: cases without scores, classes missed or invented altogether."""
    scored = {case.case for case in evaluation.cases}
    found = [f"{case}: not scored, it has no prediction or no label" for case in sorted(set(expected) - scored)]
    for case in evaluation.cases:
        for name, scores in case.scores.items():
            if scores.tp + scores.fn == 0 and scores.fp > 0:
                found.append(f"{case.case}: {name} was predicted ({scores.fp} voxels) but is not there")
            if scores.tp + scores.fp == 0 and scores.fn > 0:
                found.append(f"{case.case}: {name} was missed altogether ({scores.fn} voxels)")
    return found


def prediction_of(case: CaseScores, experiment: Path) -> Path:
    """Where the predicted label map lies, or should: also where the experiment was moved after it was scored."""
    return case.prediction if case.prediction.is_file() else experiment.joinpath(*case.prediction.parts[-3:])


@dataclass(frozen=True)
class _Drawing:
    """Draws cases of a dataset with the label maps of an experiment into a folder."""

    dataset: Dataset
    experiment: Path
    folder: Path
    names: Names

    def draw(self, why: str, case: CaseScores) -> Shown:
        scores = ", ".join(f"{name} {number(found.dice)}" for name, found in case.scores.items())
        shown, file = self.names.case(case.case), self.names.file_stem(case.case) + ".png"
        try:
            arrays = read_case(self.dataset.case(case.case), Fixes.of(self.dataset.root))
            if arrays.label is None:
                raise DataError(f"draw case '{case.case}'", "it has no label", "add one or leave it out")
            prediction, _ = read_label(_prediction(case, self.experiment))
            overlay(
                arrays.image,
                arrays.label,
                prediction,
                arrays.geometry,
                self.folder / file,
                title=f"{shown} ({why}): Dice {scores}",
                classes=self.dataset.labels.value_names,
            )
        except SelfcfgError as error:
            why_not = "an image, its reference or the prediction cannot be read"
            return Shown(shown, why, scores, None, why_not if self.names.is_hidden else self.names.text(error))
        return Shown(shown, why, scores, file)


def _prediction(case: CaseScores, experiment: Path) -> Path:
    file = prediction_of(case, experiment)
    if not file.is_file():
        raise DataError(
            f"prediction of case '{case.case}'", "the file is gone", "train with --resume to predict it again"
        )
    return file
