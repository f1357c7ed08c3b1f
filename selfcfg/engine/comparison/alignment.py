"""The scores of several systems on the cases and classes that all of them have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.comparison.systems import System
from selfcfg.engine.comparison.values import ClassValues
from selfcfg.engine.scoring.metrics import METRICS, ON_REQUEST, USUAL
from selfcfg.errors import DataError, UsageError, listed
from selfcfg.kernels.statistics import subject_means

MEAN = "mean"
"""Of all classes of a case that are compared."""

Values = NDArray[np.float64]
Counts = dict[str, dict[str, int]]
"""By class, then by system."""


@dataclass(frozen=True)
class Aligned:
    """What is compared: the same cases, and of each case the same classes, of every system.

    Args:
        systems: their names.
        cases: their ids, sorted.
        subjects: of each case.
        classes: that all systems have.
        left_out: classes that only some of them have.
        values: of each metric (systems, cases, classes); NaN where the class is left out of the case for all systems.
        runs: the same of each repetition (repetitions of all systems, cases, classes).
        owners: of each repetition, the place of its system.
        nobody: of each metric and class, the cases left out because no system has a value.
        undefined: of each metric, by class and system, the cases left out because this system has no value but another
            one has.
        failed: by class and system, the cases in which it was missed or invented altogether; the mean over repetitions,
            rounded up.
        lost: of each system, its cases that another one lacks.
    """

    systems: tuple[str, ...]
    cases: tuple[str, ...]
    subjects: tuple[str, ...]
    classes: tuple[str, ...]
    left_out: tuple[str, ...]
    values: dict[str, Values]
    runs: dict[str, Values]
    owners: tuple[int, ...]
    nobody: dict[str, dict[str, int]]
    undefined: dict[str, Counts]
    failed: Counts
    lost: dict[str, int]

    @property
    def targets(self) -> tuple[str, ...]:
        """The mean over classes, and where there are several, each class."""
        return (MEAN, *self.classes) if len(self.classes) > 1 else (MEAN,)

    def of(self, metric: str, target: str) -> tuple[Values, NDArray[np.intp]]:
        """Values (systems, cases) of a class, or the mean over those of each case; and which cases these are."""
        return self._of(self.values[metric], target)

    def by_repetition(self, metric: str) -> list[list[float]]:
        """Of each system, the mean over classes, cases and subjects of each of its repetitions."""
        values, which = self._of(self.runs[metric], MEAN)
        subjects = [self.subjects[index] for index in which]
        means = [fmean(subject_means([*of_run], subjects).values()) for of_run in values]
        places = range(len(self.systems))
        return [[mean for mean, owner in zip(means, self.owners, strict=True) if owner == place] for place in places]

    def _of(self, values: Values, target: str) -> tuple[Values, NDArray[np.intp]]:
        if target != MEAN:
            values = values[:, :, [self.classes.index(target)]]
        known = ~np.isnan(values[0])
        which = np.flatnonzero(known.any(1))
        sums = np.where(known, values, 0.0).sum(2)[:, which]
        return sums / known.sum(1)[which], which


def aligned(systems: Sequence[System], subjects: Mapping[str, str], wanted: Sequence[str] = ()) -> Aligned:
    """The scores of systems on what all of them have.

    A class that neither mask of a case holds has no score. Where no system found anything either, the case is left out
    for this class; where one of them invented it, those that did not have found it perfectly. What is still undefined
    for one system is left out for all.

    Args:
        systems: at least one.
        subjects: of each case; a case without an entry is a subject of its own.
        wanted: metrics; none: those of `USUAL` that all systems have.

    Raises:
        UsageError: they were scored with different settings, or one lacks a metric that is wanted.
        DataError: no case or no class is common to all of them, or they were scored against different references.
    """
    runs = [run for system in systems for run in system.runs]
    metrics = _metrics(systems, wanted)
    _refuse_settings(systems, metrics)
    cases = sorted(set.intersection(*(set(run.cases) for run in runs)))
    if not cases:
        told = "; ".join(f"{one.name}: {listed(sorted(one.runs[0].cases), 3)}" for one in systems)
        raise DataError("compare", f"no case is common to all ({told})", "give scores of the same cases")
    every = [set(run.cases[case]) for run in runs for case in cases]
    classes = [name for name in runs[0].cases[cases[0]] if all(name in one for one in every)]
    if not classes:
        told = "; ".join(f"{one.name}: {listed(one.runs[0].cases[cases[0]], 8)}" for one in systems)
        raise DataError("compare", f"no class is common to all ({told})", "name nnU-Net's with --dataset-json FILE")
    _refuse_references(systems, cases, classes)
    values, by_run, nobody, undefined = {}, {}, {}, {}
    owners = tuple(place for place, system in enumerate(systems) for _ in system.runs)
    for metric in metrics:
        by_run[metric], nobody[metric], undefined[metric] = _of_metric(systems, cases, classes, metric)
        mine = [np.equal(owners, place) for place in range(len(systems))]
        values[metric] = np.stack([by_run[metric][these].mean(0) for these in mine])
    failed = {name: {one.name: _failed(one, cases, name) for one in systems} for name in classes}
    return Aligned(
        systems=tuple(one.name for one in systems),
        cases=tuple(cases),
        subjects=tuple(subjects.get(case, case) for case in cases),
        classes=tuple(classes),
        left_out=tuple(sorted(set().union(*every) - set(classes))),
        values=values,
        runs=by_run,
        owners=owners,
        nobody=nobody,
        undefined=undefined,
        failed=failed,
        lost={one.name: len(set().union(*(run.cases for run in one.runs)) - set(cases)) for one in systems},
    )


def _metrics(systems: Sequence[System], wanted: Sequence[str]) -> tuple[str, ...]:
    """The metrics to compare, all of which every system has somewhere."""
    known = {
        one.name: {
            metric
            for metric in METRICS
            if all(
                any(scores.values.get(metric) is not None for case in run.cases.values() for scores in case.values())
                for run in one.runs
            )
        }
        for one in systems
    }
    for metric in wanted:
        if without := [name for name, metrics in known.items() if metric not in metrics]:
            common = [one for one in METRICS if all(one in metrics for metrics in known.values())]
            found = f"'{metric}' was not computed for {listed(without)}"
            remedy = f"choose from {', '.join(common) or 'none'}, or score the label maps here with --references"
            raise UsageError("--metric", found, remedy)
    found_all = tuple(wanted) or tuple(one for one in USUAL if all(one in metrics for metrics in known.values()))
    if not found_all:
        raise DataError("compare", f"none of {', '.join(USUAL)} is defined for every system", "choose with --metric")
    return found_all


def _refuse_settings(systems: Sequence[System], metrics: Sequence[str]) -> None:
    """Scores of different settings are of different things."""
    told: dict[str, dict[str, list[str]]] = {}
    for system in systems:
        for run in system.runs:
            found: dict[str, str] = {"empty": run.empty}
            units = {METRICS[metric].unit for metric in metrics}
            if "nsd" in metrics:
                found["NSD's tolerance"] = str(run.nsd_tolerance)
            if run.extras and not ON_REQUEST.keys().isdisjoint(metrics):
                found["metrics on request"] = run.extras.how
            if "distance" in units:
                found["unit of distances"] = str(run.distance_unit)
            if "volume" in units:
                found["unit of volumes"] = str(run.volume_unit)
            for what, value in found.items():
                told.setdefault(what, {}).setdefault(value, []).append(system.name)
    for what, by_value in told.items():
        if len(by_value) > 1:
            both = "; ".join(f"{value}: {listed(dict.fromkeys(names))}" for value, names in by_value.items())
            raise UsageError(
                "compare", f"scored with different settings: {what} ({both})", "score all of them in the same way"
            )


def _refuse_references(systems: Sequence[System], cases: Sequence[str], classes: Sequence[str]) -> None:
    first = systems[0].runs[0].cases
    for system in systems:
        for run in system.runs:
            for case in cases:
                for name in classes:
                    sizes = first[case][name].n_reference, run.cases[case][name].n_reference
                    if sizes[0] != sizes[1]:
                        found = f"the reference of case '{case}' holds {sizes[0]} voxels of {name} for "
                        found += f"{systems[0].name}, {sizes[1]} for {system.name}"
                        raise DataError("compare", found, "score all of them against the same references")


def _of_metric(
    systems: Sequence[System], cases: Sequence[str], classes: Sequence[str], metric: str
) -> tuple[Values, dict[str, int], Counts]:
    """Values (repetitions of all systems, cases, classes) of a metric, and what was left out."""
    runs = [run for system in systems for run in system.runs]
    owners = np.array([place for place, system in enumerate(systems) for _ in system.runs])
    scores = [[[run.cases[case][name] for name in classes] for case in cases] for run in runs]
    given = np.array([[[_number(one, metric) for one in row] for row in table] for table in scores])
    absent = np.array([[[one.is_absent for one in row] for row in table] for table in scores])
    perfect = METRICS[metric].perfect
    filled = np.where(np.isnan(given) & absent & (perfect is not None), perfect or 0.0, given)
    nobody = np.isnan(given).all(0)
    undefined = np.isnan(filled) & ~nobody
    compared = ~nobody & ~undefined.any(0)
    places = range(len(systems))
    counts = np.stack([undefined[owners == place].any(0).sum(0) for place in places])
    by_class = {name: int(count) for name, count in zip(classes, nobody.sum(0), strict=True)}
    return (
        np.where(compared, filled, np.nan),
        by_class,
        {
            name: {system.name: int(counts[place, column]) for place, system in enumerate(systems)}
            for column, name in enumerate(classes)
        },
    )


def _number(scores: ClassValues, metric: str) -> float:
    value = scores.values.get(metric)
    return math.nan if value is None else value


def _failed(system: System, cases: Sequence[str], name: str) -> int:
    every = sum(run.cases[case][name].is_one_empty for run in system.runs for case in cases)
    return -(-every // len(system.runs))
