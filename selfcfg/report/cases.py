"""Which cases of an experiment to look at, and what went wrong in which."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from selfcfg.dataset import Dataset
from selfcfg.engine.scoring.evaluate import Evaluation
from selfcfg.engine.scoring.scores import CaseScores
from selfcfg.errors import DataError, SelfcfgError
from selfcfg.fixes import Fixes
from selfcfg.io import read_case, read_label
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


def draw(evaluation: Evaluation, dataset: Dataset, folder: Path) -> list[Shown]:
    """Draws the chosen cases into `folder`; a case that cannot be drawn is reported with the reason."""
    return [_draw_one(why, case, dataset, folder) for why, case in choose(evaluation)]


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


def _draw_one(why: str, case: CaseScores, dataset: Dataset, folder: Path) -> Shown:
    scores = ", ".join(f"{name} {number(found.dice)}" for name, found in case.scores.items())
    name = re.sub(r"[^A-Za-z0-9._-]", "_", case.case) + ".png"
    try:
        arrays = read_case(dataset.case(case.case), Fixes.of(dataset.root))
        if arrays.label is None:
            raise DataError(f"draw case '{case.case}'", "it has no label", "add one or leave it out")
        prediction, _ = read_label(_prediction(case, folder.parent))
        overlay(
            arrays.image,
            arrays.label,
            prediction,
            arrays.geometry,
            folder / name,
            title=f"{case.case} ({why}): Dice {scores}",
            classes=dataset.labels.value_names,
        )
    except SelfcfgError as error:
        return Shown(case.case, why, scores, None, str(error))
    return Shown(case.case, why, scores, name)


def _prediction(case: CaseScores, experiment: Path) -> Path:
    """The predicted label map, also where the experiment was moved after it was scored."""
    if case.prediction.is_file():
        return case.prediction
    moved = experiment.joinpath(*case.prediction.parts[-3:])
    if not moved.is_file():
        raise DataError(
            f"prediction of case '{case.case}'", "the file is gone", "train with --resume to predict it again"
        )
    return moved
