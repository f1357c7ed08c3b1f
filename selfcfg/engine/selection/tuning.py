"""Post-processing chosen on cases and tested on others: only what is shown to raise the Dice is adopted.

Values are fitted on all folds but one and tried on that one, for each of them. The differences that the test sees are
so of cases that did not choose the values, however many were tried; what is left to correct for is the number of
targets. These are decided one after the other, each on what the ones before have left: Holm's method, which orders all
p at once, cannot be used, so every p is multiplied by the number of targets (Bonferroni).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.prediction.postprocessing import Components, Kind, Part, Step, largest, measure
from selfcfg.engine.selection.component_tables import ComponentTables, Left
from selfcfg.engine.selection.records import Tuned, Unit
from selfcfg.engine.selection.trials import Tallies, by_subject, class_dice
from selfcfg.kernels.statistics import SURE, paired

SECOND, LOW = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0), (0.02, 0.05, 0.1)
"""The values of each kind that are tried: quantiles of the components that are not the largest of their case, which are
most often what is to go; and low ones of all components, for classes that a case does not have at all."""

Combination = tuple[Step, ...]


@dataclass(frozen=True)
class Trialled:
    """The cases that post-processing is tuned on.

    Args:
        folds: of each case, the index of its fold.
        subjects: of each case, the index of its subject.
        unit: of sizes.
        seed: of resamples and sign flips.
    """

    folds: NDArray[np.intp]
    subjects: NDArray[np.intp]
    unit: Unit
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What came of the tuning.

    Args:
        tuned: what was tried, in order.
        tallies: of each case after the steps that are adopted, with the values that were fitted without its fold.
    """

    tuned: tuple[Tuned, ...]
    tallies: Tallies

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that are adopted, in order."""
        return tuple(step for one in self.tuned if one.adopted for step in one.steps)


def tune(tables: ComponentTables, cases: Trialled) -> Outcome:
    """The steps that raise the mean Dice of a class beyond chance while no class loses, from outer to inner parts.

    All foreground together is tried with its largest component alone; a class or region with every combination of a
    smallest size, a smallest mean or highest probability, and its largest component alone.

    Args:
        tables: of the predictions of all cases.
        cases: their folds and subjects; at least two folds.
    """
    rng = np.random.default_rng(cases.seed)
    fitted, tested = tables.everything(), tables.everything()
    told = []
    for place, part in enumerate(tables.parts):
        options = combinations(part, tables, place, cases.unit)
        one = _Tuning(tables, cases, place, options)
        best = one.best(one.objective(fitted), np.ones(len(cases.folds), dtype=bool))
        crossed = one.cross_fitted(tested)
        found = one.test(tested, crossed, rng).model_copy(update={"steps": options[best]})
        found = _judged(found, one.losers(tested, crossed))
        if found.adopted:
            tested, fitted = crossed, one.applied(fitted, options[best])
        told.append(found)
    return Outcome(tuple(told), tables.tallies(tested))


def combinations(part: Part, tables: ComponentTables, place: int, unit: Unit) -> list[Combination]:
    """What is tried of a part, the fewest steps first; nothing at all is the first."""
    alone = Step(kind="keep_largest", target=part.name)
    if part.name is None:
        return [(), (alone,)]
    components = tables.tables[place].components
    sizes = [Step(kind="min_size", target=part.name, value=value, unit=unit) for value in _grid(components, "min_size")]
    sure = [
        Step(kind=kind, target=part.name, value=value) for kind in _PROBABILITIES for value in _grid(components, kind)
    ]
    every = itertools.product([(), *((one,) for one in sizes)], [(), *((one,) for one in sure)], [(), (alone,)])
    return sorted((size + probability + last for size, probability, last in every), key=len)


_PROBABILITIES: tuple[Kind, ...] = ("min_mean_probability", "min_max_probability")


def _grid(components: Components, kind: Kind) -> list[float]:
    """The values of a kind of step that are tried; no value that keeps all components."""
    known = measure(components, kind)
    second = known[~largest(components, np.ones(len(known), dtype=bool))]
    quantiles = [np.quantile(values, at) for values, at in ((second, SECOND), (known, LOW)) if len(values)]
    every = np.concatenate([*quantiles, []])
    return sorted({float(f"{value:.4g}") for value in every if value > known.min()})


class _Tuning:
    """The trials of one part."""

    def __init__(self, tables: ComponentTables, cases: Trialled, place: int, options: Sequence[Combination]) -> None:
        self.tables, self.cases, self.place, self.options = tables, cases, place, options
        self.part = tables.parts[place]
        self.n_folds = int(cases.folds.max()) + 1

    def applied(self, left: Left, steps: Combination) -> Left:
        """What steps of this part leave of the components that are left."""
        return self.tables.inherited(left, self.place, self._stays(left, steps))

    def objective(self, left: Left) -> NDArray[np.float64]:
        """(combinations, cases): the Dice of the class or region; of all foreground the mean over all classes."""
        if self.part.name is None:
            return np.stack([self._score(self.applied(left, steps)) for steps in self.options])
        own = list(left)  # what lies within the part does not count for its own Dice
        found = []
        for steps in self.options:
            own[self.place] = self._stays(left, steps)
            found.append(self._score(own))
        return np.stack(found)

    def best(self, scores: NDArray[np.float64], group: NDArray[np.bool_]) -> int:
        """The combination with the highest mean over the subjects of a group of cases; of equal ones the first."""
        subjects = self.cases.subjects[group]
        means = [float(by_subject(one[group], subjects).mean()) for one in scores]
        return int(np.argmax(np.round(means, 12)))

    def cross_fitted(self, left: Left) -> Left:
        """What is left of each case with the combination that the other folds chose."""
        scores = self.objective(left)
        found = [one.copy() for one in left]
        for fold in range(self.n_folds):
            own = self.cases.folds == fold
            here = self.applied(left, self.options[self.best(scores, ~own)])
            for stays, other, table in zip(found, here, self.tables.tables, strict=True):
                mine = own[table.components.case]
                stays[mine] = other[mine]
        return found

    def test(self, left: Left, crossed: Left, rng: np.random.Generator) -> Tuned:
        """What the part's post-processing is worth on cases that did not choose it."""
        before, after = (by_subject(self._score(one), self.cases.subjects) for one in (left, crossed))
        tested = paired((after - before).tolist(), rng)
        ends = tested.difference.interval
        return Tuned(
            target=self.part.name,
            tried=len(self.options) - 1,
            before=float(before.mean()),
            after=float(after.mean()),
            gain=tested.difference.mean,
            interval=None if ends is None else (ends.low, ends.high),
            p=tested.sign_flip,
            p_corrected=None if tested.sign_flip is None else min(1.0, tested.sign_flip * len(self.tables.parts)),
        )

    def losers(self, left: Left, crossed: Left) -> list[str]:
        """The classes whose mean Dice over subjects falls."""
        before, after = (class_dice(self.tables.tallies(one)) for one in (left, crossed))
        change = [by_subject(one, self.cases.subjects).mean() for one in (after - before).T]
        return [name for name, one in zip(self.tables.labels.targets, change, strict=True) if one < -_ROUNDING]

    def _stays(self, left: Left, steps: Combination) -> NDArray[np.bool_]:
        components, stays = self.tables.tables[self.place].components, left[self.place]
        for step in steps:
            if step.kind == "keep_largest":
                stays = largest(components, stays)
            else:
                stays = stays & (measure(components, step.kind) >= step.value)
        return stays

    def _score(self, left: Left) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = class_dice(self.tables.tallies(left, self.part.name)).mean(1)
        return mean


_ROUNDING = 1e-12


def _judged(found: Tuned, losers: Sequence[str]) -> Tuned:
    """With whether it is adopted, and why."""
    if not found.steps:
        return found.model_copy(update={"why": "nothing that was tried raises the Dice"})
    if found.interval is None or found.p_corrected is None:
        return found.model_copy(update={"why": "too few subjects to show a gain"})
    if found.gain <= 0:
        return found.model_copy(update={"why": "no gain on cases that did not choose the values"})
    if found.interval[0] <= 0 or found.p_corrected >= SURE:
        return found.model_copy(update={"why": "the gain on cases that did not choose the values is within chance"})
    if losers:
        return found.model_copy(update={"why": f"the Dice of {', '.join(losers)} falls"})
    return found.model_copy(update={"adopted": True, "why": "the Dice rises beyond chance, and no class loses"})
