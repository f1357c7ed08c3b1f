"""The results of a benchmark of label efficiency by arm, fraction and budget, and what is sure of their differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfcfg.engine.label_efficiency.results import LabelResult
from selfcfg.engine.randomness import generator
from selfcfg.errors import counted, listed
from selfcfg.kernels.statistics import FEW, FEWEST, SURE, Estimate, Paired, estimate, holm, paired, subject_means

BASELINE = "scratch"
_MOST = 0.75
"""Share of an arm's jobs that choose the same end of the learning rates, above which a better one may lie beyond."""


@dataclass(frozen=True)
class Cell:
    """One arm with so many labelled subjects and steps.

    Args:
        arm: its name.
        fraction: labelled subjects as they were asked for.
        budget: name of the number of steps.
        subjects: labelled ones.
        steps: of the training with labels.
        dice: over the test subjects, of each of them over its cases and all seeds.
        by_seed: mean Dice over the test subjects by seed.
        against: the differences to the baseline, over the seeds that both have; None of the baseline itself.
        ahead: in how many of these seeds its mean Dice is the higher one.
        p: of the differences by the sign-flip test, corrected for all comparisons; None: too few test subjects.
    """

    arm: str
    fraction: int | float
    budget: str
    subjects: int
    steps: int
    dice: Estimate
    by_seed: dict[int, float]
    against: Paired | None = None
    ahead: str = ""
    p: float | None = None

    @property
    def verdict(self) -> int:
        """1 where it is shown to be better than the baseline, -1 where worse, else 0."""
        if self.against is None or self.p is None or self.p >= SURE:
            return 0
        return 1 if self.against.difference.mean > 0 else -1

    def as_json(self) -> dict[str, Any]:
        """Plain values; null where there are too few test subjects."""
        told: dict[str, Any] = {"arm": self.arm, "fraction": self.fraction, "budget": self.budget}
        told |= {"subjects": self.subjects, "steps": self.steps, "seeds": list(self.by_seed)}
        told |= {"test_subjects": self.dice.n, "dice": self.dice.mean, "interval": self.dice.interval}
        if self.against is not None:
            found = self.against.difference
            told |= {"difference": found.mean, "difference_interval": found.interval}
            told |= {
                "ahead": self.ahead,
                "wilcoxon": self.against.wilcoxon,
                "sign_flip": self.against.sign_flip,
                "holm": self.p,
            }
        return told


def baseline_of(results: Sequence[LabelResult]) -> str:
    """The arm that others are compared with: "scratch", else the first."""
    return next((result.arm for result in results if result.arm == BASELINE), results[0].arm)


def cells_of(results: Sequence[LabelResult], subjects: Mapping[str, str]) -> list[Cell]:
    """The cells in the order of budgets by steps, labelled subjects, and arms as they first came.

    Args:
        results: of all jobs, at least one.
        subjects: of each test case.
    """
    baseline, groups = baseline_of(results), _grouped(results)
    cells = [_cell(runs, groups.get((baseline, *key[1:]), []), subjects) for key, runs in groups.items()]
    corrected = iter(holm([cell.against.sign_flip for cell in cells if cell.against is not None]))
    cells = [replace(cell, p=next(corrected)) if cell.against is not None else cell for cell in cells]
    arms = list(dict.fromkeys(result.arm for result in results))
    return sorted(cells, key=lambda cell: (cell.steps, cell.budget, cell.subjects, arms.index(cell.arm)))


def conclusions(cells: Sequence[Cell], baseline: str) -> list[str]:
    """Plain sentences on what may be concluded, and on what may not."""
    compared = [cell for cell in cells if cell.against is not None]
    if not compared:
        return [f"Only {baseline} was trained: there is nothing to compare it with."]
    if (n := cells[0].dice.n) < FEWEST:
        return [f"Nothing: the test set has {counted(n, 'subject')}, and at least {FEWEST} are needed."]
    sentences = []
    for arm in dict.fromkeys(cell.arm for cell in compared):
        mine = [cell for cell in compared if cell.arm == arm]
        for budget in dict.fromkeys(cell.budget for cell in mine):
            sentences += _verdicts(arm, baseline, [cell for cell in mine if cell.budget == budget])
        sentences += _head_start(arm, mine)
    return [*sentences, *_scope(cells)]


def rates_at_an_end(results: Sequence[LabelResult], rates: Sequence[float]) -> list[str]:
    """Says of which arms and budgets nearly all jobs chose the highest rate, or the lowest: a better may lie beyond."""
    if len(rates) < 2:
        return []
    groups: dict[tuple[str, str], list[float]] = {}
    for result in results:
        groups.setdefault((result.arm, result.budget), []).append(result.rate)
    sentences = []
    for end, name, further in ((max(rates), "highest", "higher"), (min(rates), "lowest", "lower")):
        there = [
            f"{arm} ({budget})" for (arm, budget), chosen in groups.items() if chosen.count(end) > _MOST * len(chosen)
        ]
        if there:
            found = f"The {name} learning rate, {end:g}, was chosen by nearly all jobs of {listed(there, 20)}"
            sentences.append(f"{found}: try {further} ones (--rates).")
    return sentences


def _grouped(results: Sequence[LabelResult]) -> dict[tuple[str, str, str], list[LabelResult]]:
    """The results of all seeds by arm, fraction as text (1 and 1.0 differ) and budget."""
    groups: dict[tuple[str, str, str], list[LabelResult]] = {}
    for result in results:
        groups.setdefault((result.arm, str(result.fraction), result.budget), []).append(result)
    return groups


def _cell(runs: Sequence[LabelResult], reference: Sequence[LabelResult], subjects: Mapping[str, str]) -> Cell:
    """The cell of some runs, compared with the baseline's of the same fraction and budget where these are others."""
    first = runs[0]
    rng = generator(0, f"{first.arm}/{first.fraction}/{first.budget}")
    cell = Cell(
        arm=first.arm,
        fraction=first.fraction,
        budget=first.budget,
        subjects=first.subjects,
        steps=first.steps,
        dice=estimate([*_values(runs, subjects).values()], rng),
        by_seed={run.seed: run.dice for run in runs},
    )
    theirs = {run.seed: run.dice for run in reference}
    shared = [seed for seed in cell.by_seed if seed in theirs]
    if not shared or first.arm == reference[0].arm:
        return cell
    ours, other = (_values([run for run in part if run.seed in shared], subjects) for part in (runs, reference))
    differences = paired([ours[subject] - other[subject] for subject in ours], rng)
    ahead = sum(cell.by_seed[seed] > theirs[seed] for seed in shared)
    return replace(cell, against=differences, ahead=f"{ahead} of {len(shared)} seeds")


def _values(runs: Iterable[LabelResult], subjects: Mapping[str, str]) -> dict[str, float]:
    """The Dice of each test subject, the mean over its cases and over the seeds."""
    scored = [(dice, subjects[case]) for run in runs for case, dice in run.cases.items()]
    return subject_means([dice for dice, _ in scored], [subject for _, subject in scored])


def _verdicts(arm: str, baseline: str, cells: Sequence[Cell]) -> list[str]:
    """What is shown of one arm at one budget."""
    parts = []
    for verdict, words in ((1, f"better than {baseline}"), (-1, f"worse than {baseline}"), (0, "no difference shown")):
        if these := [cell for cell in cells if cell.verdict == verdict]:
            parts.append(f"{words} with {listed((_told(cell) for cell in these), 20, '; ')}")
    return [f"{arm}, {cells[0].budget} ({cells[0].steps} steps): " + "; ".join(parts) + "."]


def _told(cell: Cell) -> str:
    found = cell.against.difference if cell.against else cell.dice
    between = f", 95 % interval {found.interval.low:+.3f} to {found.interval.high:+.3f}" if found.interval else ""
    return f"{cell.subjects} labelled (Dice {found.mean:+.3f}{between}, ahead in {cell.ahead})"


def _head_start(arm: str, cells: Sequence[Cell]) -> list[str]:
    """Whether what is gained in few steps is still there after many."""
    budgets = list(dict.fromkeys(cell.budget for cell in cells))
    if len(budgets) < 2:
        return []
    late = {str(cell.fraction): cell for cell in cells if cell.budget == budgets[-1]}
    gained = [cell for cell in cells if cell.budget == budgets[0] and cell.verdict > 0 and str(cell.fraction) in late]
    lost = [cell for cell in gained if late[str(cell.fraction)].verdict <= 0]
    if not gained:
        return []
    if not lost:
        return [f"What {arm} gains at {budgets[0]} is still there at {budgets[-1]}: more than a head start."]
    which = listed(dict.fromkeys(cell.subjects for cell in lost), 20)
    return [
        f"What {arm} gains at {budgets[0]} with {which} labelled subjects is not shown any more at {budgets[-1]}: this "
        "speaks for a head start rather than for better features."
    ]


def _scope(cells: Sequence[Cell]) -> list[str]:
    """What the intervals and tests do not speak of."""
    seeds = min(len(cell.by_seed) for cell in cells)
    n = cells[0].dice.n
    found = [
        f"Intervals and tests are over {n} test subjects, for the mean of the {counted(seeds, 'training')} of a row. "
        "How much other labelled subjects or another start would change is not in them: see the range over seeds."
    ]
    if seeds < 3:
        found.append("With fewer than three seeds a difference may be the luck of one start: repeat it with --seeds 3.")
    if n < FEW:
        found.append(f"With fewer than {FEW} test subjects the intervals are somewhat too narrow.")
    return found
