"""What was chosen for a dataset and why, as it lies beside the selected model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from selfcfg.engine.prediction.postprocessing import Step
from selfcfg.engine.prediction.selected import MODEL
from selfcfg.files import write_text
from selfcfg.records import Record
from selfcfg.report.tables import cell, number, table

FILE, PAGE = "selection.json", "selection.md"

Kind = Literal["single", "pair", "greedy"]
Rule = Literal["simplest", "highest"]
Unit = Literal["mm3", "mm2", "px"]


class Candidate(Record):
    """What could have been chosen, with its scores on cases that its members did not train on.

    Args:
        name: of its experiment, or of several joined by " + ".
        kind: an experiment by itself, the mean of two, or the weighted mean of those that were found greedily.
        weights: of each experiment; of all together 1.
        dice: mean over the classes of `classes`, as in summary.json.
        classes: of each class or region, the mean Dice over the cases where it is defined.
        score: what is compared: of each subject the mean Dice over its cases and all classes, a class that neither mask
            holds counting 1; and of these the mean.
        interval: of the score, 95 %; None with fewer than 6 subjects.
        difference: of its score to the highest one; 0 of the candidate that has it.
        difference_interval: 95 %; None where there is none.
        p: of the sign-flip test that the two do not differ; None where there is none.
        p_holm: corrected for all candidates.
        cost: time to predict, by that of the cheapest single experiment.
        chosen: whether it is the one.
        why: it is, or is not.
    """

    name: str
    kind: Kind
    weights: dict[str, float]
    dice: float | None
    classes: dict[str, float | None]
    score: float
    interval: tuple[float, float] | None = None
    difference: float = 0.0
    difference_interval: tuple[float, float] | None = None
    p: float | None = None
    p_holm: float | None = None
    cost: float
    chosen: bool = False
    why: str = ""


class Tuned(Record):
    """What post-processing of one class or region was tried, and what it is worth on cases that did not tune it.

    Args:
        target: the class or region; None: all foreground as one.
        tried: combinations of steps.
        steps: the best of them on all cases; empty where none raises the Dice.
        before: mean Dice over subjects (of all classes where the target is all foreground), absent from both masks 1.
        after: the same with the steps that the other folds chose.
        gain: mean difference over subjects.
        interval: of the gain, 95 %.
        p: of the sign-flip test of no difference.
        p_corrected: times the number of targets.
        adopted: whether the steps are part of the model.
        why: they are, or are not.
    """

    target: str | None
    tried: int
    steps: tuple[Step, ...] = ()
    before: float
    after: float
    gain: float
    interval: tuple[float, float] | None = None
    p: float | None = None
    p_corrected: float | None = None
    adopted: bool = False
    why: str = ""


class Selection(Record):
    """What was compared for a dataset, what was chosen, and why.

    Args:
        dataset: folder name of the dataset.
        rule: simplest: the simplest candidate within chance of the best; highest: the one with the highest score.
        cases: that were compared.
        subjects: these cases are of.
        folds: of the cross-validation.
        candidates: the simpler and cheaper ones first.
        left_out: experiments that could not be compared, each with the reason.
        postprocessing: what was tried, in order.
        postprocessing_note: why nothing was tried; empty where something was.
        model: the folder's model.json in short: the weight of each experiment.
        dice: of the selected model with its post-processing, each case with weights and values that were fitted without
            its fold; as in summary.json.
        classes: the same of each class or region.
    """

    dataset: str
    rule: Rule
    cases: int
    subjects: int
    folds: int
    candidates: tuple[Candidate, ...]
    left_out: dict[str, str] = {}
    postprocessing: tuple[Tuned, ...] = ()
    postprocessing_note: str = ""
    model: dict[str, float]
    dice: float | None
    classes: dict[str, float | None]

    @property
    def chosen(self) -> Candidate:
        """The candidate that was chosen."""
        return next(one for one in self.candidates if one.chosen)

    def write_whole(self, folder: Path) -> None:
        """Writes selection.json and selection.md."""
        write_text(folder / PAGE, self.page())
        self.write(folder / FILE)

    def page(self) -> str:
        """All of it as Markdown."""
        counts = f"{self.cases} cases of {self.subjects} subjects in {self.folds} folds"
        said = (
            f"**{cell(self.chosen.name)}**, Dice {number(self.dice, 4)}: {cell(self.chosen.why)}. Compared on "
            f"{counts}, each case predicted by networks that did not train on it."
        )
        blocks = [f"# Selected model of {cell(self.dataset)}", said, "## Candidates", self.candidates_table()]
        blocks.append(_MEANING)
        if self.left_out:
            lines = [f"- {cell(name)}: {cell(why)}" for name, why in self.left_out.items()]
            blocks += ["## Left out", "\n".join(lines)]
        blocks += ["## Post-processing", self.postprocessing_note or self.steps_table()]
        blocks.append(f"`selfcfg predict` with this folder, or with the dataset, uses what {MODEL} says.")
        return "\n\n".join(blocks) + "\n"

    def candidates_table(self) -> str:
        """A row a candidate."""
        heads = ["candidate", "kind", "chosen", "Dice", "score (95 %)", "to the best (95 %)", "p, Holm", "time", "why"]
        rows = [
            [
                weighted(one),
                one.kind,
                "yes" if one.chosen else "no",
                number(one.dice, 4),
                number(one.score, 4) + in_brackets(one.interval),
                f"{one.difference:+.4f}" + in_brackets(one.difference_interval, signed=True),
                number(one.p_holm, 4),
                f"{one.cost:.3g}",
                one.why,
            ]
            for one in self.candidates
        ]
        return table(heads, rows, numbers_from=3)

    def steps_table(self) -> str:
        """A row a class, region, or all foreground."""
        heads = ["of", "tried", "adopted", "before", "after", "gain (95 %)", "p, corrected", "steps", "why"]
        rows = [
            [
                one.target or "all foreground",
                one.tried,
                "yes" if one.adopted else "no",
                number(one.before, 4),
                number(one.after, 4),
                f"{one.gain:+.4f}" + in_brackets(one.interval, signed=True),
                number(one.p_corrected, 4),
                "; ".join(map(str, one.steps)) or "none",
                one.why,
            ]
            for one in self.postprocessing
        ]
        return table(heads, rows, numbers_from=3)


_MEANING = (
    "Score: of each subject the mean Dice over its cases and all classes, a class that neither mask holds counting 1; "
    "differences are tested subject by subject. Time: to predict, by that of the cheapest experiment."
)


def weighted(candidate: Candidate) -> str:
    """The name of a candidate, with its weights where they are not equal."""
    if len(set(candidate.weights.values())) == 1:
        return candidate.name
    return " + ".join(f"{weight:.3g} {name}" for name, weight in candidate.weights.items())


def in_brackets(found: tuple[float, float] | None, *, signed: bool = False) -> str:
    """An interval as it follows its mean; empty where there is none."""
    if found is None:
        return ""
    low, high = (f"{end:+.4f}" if signed else f"{end:.4f}" for end in found)
    return f" ({low} to {high})"
