"""Which candidates of a recipe are kept, by their validation scores, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selfcfg.errors import SelfcfgError, TrainingDiverged, listed
from selfcfg.files import write_text
from selfcfg.recipes.expansion import Slot
from selfcfg.recipes.stages import Keep
from selfcfg.records import Record

KEPT, PAGE = "candidates.json", "candidates.md"
"""In the folder of a stage that keeps: what was compared and what was kept, for programs and for people."""

DIGITS = 4
"""Scores that are equal to so many are a tie: what the table shows as equal is equal."""

LOWEST_IS_BEST = ("hd95",)


class Contender(Record):
    """A candidate that was compared with others.

    Args:
        key: its folder in that of the recipe's results.
        values: what tells it apart.
        steps: optimiser steps of a fold, those of the stages that it starts from included.
        scores: by fold, the mean of the score over the foreground classes; None: no case has any.
        score: of the cases of all folds together; None: there is none, or the training diverged.
        diverged: which training diverged, its own or one that it starts from, or None.
        kept: the place that it is kept for, or None.
        why: it was kept or not.
    """

    key: str
    values: dict[str, Any]
    steps: int
    scores: dict[str, float | None] = {}
    score: float | None = None
    diverged: str | None = None
    kept: str | None = None
    why: str = ""


class Kept(Record):
    """What a stage of a recipe kept. It holds for folds that are trained later, too, whatever their scores.

    Args:
        stage: that keeps.
        best_by: the score they were compared by.
        per: the key for each of whose values the best was kept, or None.
        folds: those whose validation cases decided.
        candidates: all that were compared.
        kept: by place, the key of the candidate that is kept for it.
    """

    stage: str
    best_by: str
    per: str | None
    folds: tuple[int, ...]
    candidates: tuple[Contender, ...]
    kept: dict[str, str]

    def same_contest(self, other: Kept) -> bool:
        """Whether another choice is among the same candidates with the same scores by the same rule."""
        mine, theirs = (
            (one.best_by, one.per, one.folds, [(each.key, each.scores, each.diverged) for each in one.candidates])
            for one in (self, other)
        )
        return mine == theirs

    def write_whole(self, folder: Path) -> None:
        """Writes candidates.json and candidates.md."""
        write_text(folder / PAGE, self.page())
        self.write(folder / KEPT)

    def page(self) -> str:
        """The table of all candidates, as Markdown."""
        rule = "the best of all" if self.per is None else f"the best for each {self.per}"
        folds = [str(fold) for fold in self.folds]
        said = f"Kept: {rule}, by {self.best_by} on the validation cases of fold {listed(folds, 10)}."
        columns = ["candidate", self.best_by, *(f"fold {fold}" for fold in folds if len(folds) > 1), "steps", "kept"]
        heads = [*columns, "why"]
        lines = [heads, [":--", *("--:" for _ in heads[1:-2]), ":--", ":--"]]
        for one in self.candidates:
            by_fold = [_shown(one.scores.get(fold)) for fold in folds if len(folds) > 1]
            lines.append([one.key, _shown(one.score), *by_fold, str(one.steps), "yes" if one.kept else "no", one.why])
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"# {self.stage}\n\n{said}\n\n{table}\n"


def best_of(
    stage: str, keep: Keep, slots: Sequence[Slot], contenders: Sequence[Contender], folds: Sequence[int]
) -> Kept:
    """What is kept, each candidate with the reason.

    Args:
        stage: that keeps.
        keep: its rule.
        slots: its places, each with the keys of the candidates that it is open to.
        contenders: all candidates with their scores, in the order of the recipe.
        folds: those that the scores are of.

    Raises:
        SelfcfgError: no candidate for a place has a score; a `TrainingDiverged` where all of them diverged.
    """
    by_key = {one.key: one for one in contenders}
    judged: dict[str, Contender] = {}
    for slot in slots:
        here = [by_key[key] for key in slot.among]
        judged |= {one.key: one for one in _judged(here, slot, keep)}
    kept = {one.kept: one.key for one in judged.values() if one.kept is not None}
    if empty := [slot for slot in slots if slot.key not in kept]:
        among = [judged[key] for key in empty[0].among]
        asked = f"keep the best of stage '{stage}'" + "".join(f" for {key} = {v}" for key, v in empty[0].values.items())
        kind = TrainingDiverged if all(one.diverged for one in among) else SelfcfgError
        found = f"no candidate has a score ({listed(f'{one.key}: {one.why}' for one in among)})"
        raise kind(asked, found, "train with a lower learning_rate, or on folds with foreground")
    every = tuple(judged[one.key] for one in contenders)
    return Kept(stage=stage, best_by=keep.best_by, per=keep.per, folds=tuple(folds), candidates=every, kept=kept)


def kept_folders(folder: Path, stage: str) -> list[Path]:
    """The experiment folders that a stage kept; none where it has not chosen yet.

    Raises:
        DataError: its candidates.json is not usable.
    """
    file = folder / stage / KEPT
    return [folder / key for key in Kept.read(file).kept.values()] if file.is_file() else []


def _judged(here: Sequence[Contender], slot: Slot, keep: Keep) -> Iterator[Contender]:
    """The candidates for a place, the best of them marked as kept."""
    ranked = {one.key: _rank(one, keep) for one in here if one.score is not None}
    best = min(ranked, key=lambda key: ranked[key], default=None)  # the first of equals
    place = "".join(f" for {key} = {value}" for key, value in slot.values.items())
    for one in here:
        if one.diverged is not None:
            yield one.model_copy(update={"why": f"{one.diverged} diverged"})
        elif one.score is None or best is None:
            yield one.model_copy(update={"why": "no score: its validation cases hold no foreground"})
        elif one.key != best:
            yield one.model_copy(update={"why": _why_not(ranked[one.key], ranked[best], one.score, here, best)})
        else:
            rest = [ranked[key] for key in ranked if key != best]
            is_tie = any(other[0] == ranked[best][0] for other in rest)
            why = f"{'tied for the best' if is_tie else 'the best' if rest else 'the only one'}{place}"
            if is_tie:
                is_cheaper = all(other[1] > ranked[best][1] for other in rest if other[0] == ranked[best][0])
                why += ", and cheaper" if is_cheaper else ", and the first of the cheapest"
            yield one.model_copy(update={"kept": slot.key, "why": why})


def _rank(one: Contender, keep: Keep) -> tuple[float, int]:
    """The lowest is the best."""
    score = round(one.score or 0.0, DIGITS)
    return score if keep.best_by in LOWEST_IS_BEST else -score, one.steps


def _why_not(
    mine: tuple[float, int], best: tuple[float, int], score: float, here: Sequence[Contender], key: str
) -> str:
    if mine[0] != best[0]:
        other = next(one.score for one in here if one.key == key)
        return f"{abs(score - (other or 0.0)):.{DIGITS}f} worse than {key}"
    cause = f"needs fewer steps ({best[1]})" if mine[1] > best[1] else "comes first"
    return f"tied with {key}, which {cause}"


def _shown(score: float | None) -> str:
    return "-" if score is None else f"{score:.{DIGITS}f}"
