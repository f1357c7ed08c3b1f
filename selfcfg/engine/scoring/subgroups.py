"""Scores by groups of cases: by site, scanner, sex, bands of age, with how sure each mean is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from selfcfg.engine.scoring.attributes import groups_of, read_attributes
from selfcfg.engine.scoring.metrics import METRICS, ON_REQUEST
from selfcfg.engine.scoring.scores import CaseScores
from selfcfg.engine.scoring.tables import aligned, number
from selfcfg.errors import counted, listed
from selfcfg.kernels.statistics import FEWEST, estimate, subject_means
from selfcfg.records import Record
from selfcfg.sheets import comma_separated

COMPARED = ("dice", "nsd", "hd95", "volume_error", *ON_REQUEST)
"""What groups are compared by, besides what was asked for."""


MEAN = "mean"
"""Stands for the mean over classes where a class is named."""

_SHOWN = ("dice", "nsd", "hd95")
_MOST = 20
"""Metrics and groups of one attribute that are printed; the file holds all."""


class Spread(Record):
    """The mean of a metric in a group; None where it is not known.

    Args:
        n: subjects for which the metric is defined; cases where no subjects are told.
        mean: over them.
        low: lower end of the 95 % interval (bootstrap); None for fewer than 6.
        high: its upper end.
    """

    n: int
    mean: float | None
    low: float | None
    high: float | None


class Group(Record):
    """The scores of one group of cases.

    Args:
        name: category, or band of numbers.
        n_cases: in it.
        scores: by class, and for the mean over classes of each case ("mean"), by metric.
    """

    name: str
    n_cases: int
    scores: dict[str, dict[str, Spread]]


class Subgroups(Record):
    """The groups that an attribute makes.

    Args:
        attribute: name of the column.
        is_banded: whether its values are numbers that were cut into bands at their terciles.
        n_missing: cases without a value.
        groups: by name, or from low to high.
    """

    attribute: str
    is_banded: bool
    n_missing: int
    groups: tuple[Group, ...]


class Grouped(Record):
    """Scores by every attribute of a table.

    Args:
        attributes: in the order of the columns.
        metrics: by which groups are compared.
        without_row: cases that the table does not tell of.
        n_unknown: rows of cases that were not scored.
    """

    attributes: tuple[Subgroups, ...]
    metrics: tuple[str, ...]
    without_row: tuple[str, ...]
    n_unknown: int

    def text(self) -> str:
        """The tables of all attributes, and what their numbers are."""
        notes = [f"In brackets: 95 % interval of the mean (bootstrap); none for a group of fewer than {FEWEST}."]
        if self.without_row:
            notes.append(f"{counted(len(self.without_row), 'case')} without a row: {listed(self.without_row)}.")
        if self.n_unknown:
            notes.append(f"{counted(self.n_unknown, 'row')} of cases that were not scored.")
        return "\n\n".join([*(_table(one) for one in self.attributes), "\n".join(notes)])

    def csv(self) -> str:
        """All groups: one row an attribute, group, class and metric."""
        heads = ("attribute", "group", "cases", "class", "metric", "n", "mean", "low", "high")
        rows = (
            (one.attribute, group.name, group.n_cases, name, metric, value.n, value.mean, value.low, value.high)
            for one in self.attributes
            for group in one.groups
            for name, scores in group.scores.items()
            for metric, value in scores.items()
        )
        return comma_separated(heads, rows)


def grouped(cases: Sequence[CaseScores], table: Path, metrics: Sequence[str]) -> Grouped:
    """The scores of cases by the groups of each attribute of a table.

    Several cases of one subject are averaged first. Groups are looked at one by one and not tested against each other.

    Args:
        cases: scored.
        table: see `read_attributes`.
        metrics: that were averaged; those that groups are compared by are taken of them.

    Raises:
        UsageError: there is no such file.
        DataError: it cannot be used, see `read_attributes`.
    """
    attributes = read_attributes(table, {case.case for case in cases})
    metrics = tuple(name for name in COMPARED if name in metrics)
    by_case = {case.case: case for case in cases}
    found = []
    for attribute, cells in attributes.columns.items():
        members, is_banded = groups_of(cells)
        groups = [
            _group(name, [by_case[case] for case in inside], attributes.subjects, metrics)
            for name, inside in members.items()
        ]
        n_missing = len(cases) - len(cells)
        found.append(Subgroups(attribute=attribute, is_banded=is_banded, n_missing=n_missing, groups=tuple(groups)))
    return Grouped(
        attributes=tuple(found),
        metrics=metrics,
        without_row=attributes.without_row,
        n_unknown=attributes.n_unknown,
    )


def _group(name: str, cases: Sequence[CaseScores], subjects: Mapping[str, str], metrics: Sequence[str]) -> Group:
    scores: dict[str, dict[str, Spread]] = {}
    for group in (MEAN, *cases[0].scores):
        scores[group] = {}
        for metric in metrics:
            values = {
                case.case: case.mean(metric) if group == MEAN else case.scores[group].value(metric) for case in cases
            }
            known = {case: value for case, value in values.items() if value is not None}
            scores[group][metric] = spread(known, subjects)
    return Group(name=name, n_cases=len(cases), scores=scores)


def spread(values: Mapping[str, float], subjects: Mapping[str, str]) -> Spread:
    """The mean of one value a case and its interval; the same values give the same interval.

    Args:
        values: by case.
        subjects: whose a case is; one that is not named is a subject of its own.
    """
    # a pair, so that no case is taken for a subject of the same name
    owners = [f"subject {subjects[case]}" if case in subjects else f"case {case}" for case in values]
    sample = list(subject_means(list(values.values()), owners).values())
    if not sample:
        return Spread(n=0, mean=None, low=None, high=None)
    found = estimate(sample, np.random.default_rng(0))
    low, high = found.interval or (None, None)
    return Spread(n=found.n, mean=found.mean, low=low, high=high)


def _table(subgroups: Subgroups) -> str:
    """The groups of an attribute as text: the mean over classes of each metric, and its interval."""
    heads = (subgroups.attribute, "cases", *(METRICS[metric].title for metric in _SHOWN))
    rows = []
    for group in subgroups.groups[:_MOST]:
        cells = [_cell(metric, group.scores[MEAN][metric]) for metric in _SHOWN]
        rows.append((group.name, str(group.n_cases), *cells))
    notes = []
    if len(subgroups.groups) > _MOST:
        notes.append(f"{len(subgroups.groups) - _MOST} more groups are in the file")
    if subgroups.is_banded:
        notes.append("numbers, cut into bands at their terciles")
    if subgroups.n_missing:
        notes.append(f"{counted(subgroups.n_missing, 'case')} without a value left out")
    return "\n".join([*aligned(heads, rows), *(["; ".join(notes)] if notes else [])])


def _cell(metric: str, found: Spread) -> str:
    mean = number(metric, found.mean)
    return mean if found.low is None else f"{mean} [{number(metric, found.low)}, {number(metric, found.high)}]"
