"""Scores by class, with how sure they are, and of every case."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from selfcfg.engine.comparison.alignment import MEAN, Aligned
from selfcfg.engine.comparison.conclusions import value
from selfcfg.engine.comparison.records import Comparison, SystemScore
from selfcfg.engine.scoring.metrics import METRICS
from selfcfg.report.page import svg
from selfcfg.report.page.blocks import SPACE, Block, Details, Plot, Section, Table, Text
from selfcfg.report.page.facts import Facts

MAX_ROWS = 2000
"""Rows of the table of all cases; the CSV beside the page holds all."""

_MAX_ROWS = 24
_PLOTS = 3


def scores(facts: Facts) -> Section | None:
    """Tables of means with intervals, a plot a metric with a mark a case, and the table of all cases."""
    found, aligned = facts.found, facts.scores
    if found is None or aligned is None:
        return None
    is_one = len(aligned.systems) == 1
    blocks: list[Block] = [_by_class(found)] if is_one else [_by_system(found, metric) for metric in found.metrics]
    blocks.append(Text(_EXPLAINED, "note"))
    blocks += [_plot(facts, found, aligned, metric) for metric in found.metrics[:_PLOTS]]
    blocks.append(Details("The scores of every case", tuple(_every_case(facts, aligned))))
    return Section("scores", "Scores", tuple(blocks))


_EXPLAINED = (
    "In brackets: 95 % interval of the mean, by the bootstrap over subjects. It says how much the mean would vary with "
    "other subjects like these, not with another training. A class that neither reference nor prediction holds is left "
    "out of its case. Dice, IoU and NSD are best at 1, distances and volume errors at 0."
)


def _by_class(found: Comparison) -> Table:
    """A row a class, a column a metric."""
    heads = ["class", *(_title(found, metric) for metric in found.metrics), "cases", "missed or invented"]
    rows = []
    for target in dict.fromkeys(score.target for score in found.scores):
        mine = {score.metric: score for score in found.scores if score.target == target}
        cells = [_cell(found, mine[metric]) if metric in mine else "-" for metric in found.metrics]
        failed = found.systems[0].failed
        missed = failed[target] if target in failed else sum(failed.values())
        name = _named(found, target)
        rows.append((name, *cells, str(next(iter(mine.values())).cases), str(missed)))
    return Table("Means by class", tuple(heads), tuple(rows))


def _by_system(found: Comparison, metric: str) -> Table:
    """A row a class and system."""
    heads = ("class", "system", "mean (95 % interval)", "median", "cases", "missed or invented")
    failed = {system.name: system.failed for system in found.systems}
    rows = []
    for score in found.scores:
        if score.metric == metric:
            of = failed[score.system]
            missed = of[score.target] if score.target in of else sum(of.values())
            told = (_cell(found, score), value(found, metric, score.median), str(score.cases), str(missed))
            rows.append((_named(found, score.target), score.system, *told))
    return Table(_title(found, metric), heads, tuple(rows), numbers_from=2)


def _plot(facts: Facts, found: Comparison, aligned: Aligned, metric: str) -> Plot:
    targets = list(aligned.targets) if len(aligned.targets) * len(aligned.systems) <= _MAX_ROWS else [MEAN]
    means = {(one.target, one.system): one for one in found.scores if one.metric == metric}
    rows = []
    for target in targets:
        values, which = aligned.of(metric, target)
        for place, system in enumerate(aligned.systems):
            name = _named(found, target) + (f", {system}" if len(aligned.systems) > 1 else "")
            marks = [
                svg.Mark(one, f"{facts.names.case(aligned.cases[case])}: {value(found, metric, one)}")
                for one, case in zip(values[place].tolist(), which.tolist(), strict=True)
            ]
            score = means.get((target, system))
            mean, low, high = (score.mean, score.low, score.high) if score else (None, None, None)
            rows.append(svg.Row(name, marks, mean, low, high, color=place))
    is_share = METRICS[metric].perfect == 1.0
    axis = svg.Axis(_title(found, metric), 0.0 if is_share else None, 1.02 if is_share else None)
    title = METRICS[metric].title
    caption = f"{title} of every case: a circle each; diamond and bar: mean over subjects with its 95 % interval."
    return Plot(svg.strips(rows, axis, f"{title} of every case by class"), caption)


def _every_case(facts: Facts, aligned: Aligned) -> Iterator[Block]:
    heads: tuple[str, ...] = ("case", "class", "system", *(METRICS[metric].title for metric in aligned.values))
    by_system = len(aligned.systems) > 1
    rows = []
    order = np.argsort(_worst_first(aligned), kind="stable")
    shown = order[: max(1, MAX_ROWS // (len(aligned.classes) * len(aligned.systems)))]
    for row in shown.tolist():
        for column, name in enumerate(aligned.classes):
            for place, system in enumerate(aligned.systems):
                cells = [_plain(values[place, row, column], metric) for metric, values in aligned.values.items()]
                case = facts.names.case(aligned.cases[row])
                rows.append((case, name, *((system,) if by_system else ()), *cells))
    heads = heads if by_system else (*heads[:2], *heads[3:])
    yield Table("Worst case first", heads, tuple(rows), numbers_from=3 if by_system else 2)
    if len(order) > len(shown):
        yield Text(f"{len(order) - len(shown)} better ones are in the CSV file that lies beside this page.", "note")


def _worst_first(aligned: Aligned) -> np.ndarray:
    """For each case a number that is lower the worse it is; cases without a score come last."""
    metric, values = next(iter(aligned.values.items()))
    known = ~np.isnan(values)
    sums = np.where(known, values, 0.0).sum((0, 2))
    means = METRICS[metric].sign * sums / np.maximum(known.sum((0, 2)), 1)
    return np.where(known.any((0, 2)), means, np.inf)


def _named(found: Comparison, target: str) -> str:
    if target != MEAN:
        return target
    return found.classes[0] if len(found.classes) == 1 else f"mean of {len(found.classes)}"


def _title(found: Comparison, metric: str) -> str:
    kind = METRICS[metric]
    if metric == "nsd" and found.nsd_tolerance is not None:
        return f"{kind.title} at {found.nsd_tolerance:g}{found.unit('distance')}"
    return f"{kind.title}{f' in{found.unit(kind.unit)}' if found.unit(kind.unit) else ''}"


def _cell(found: Comparison, score: SystemScore) -> str:
    digits = min(METRICS[score.metric].digits, 3)
    mean = f"{score.mean:.{digits}f}"
    if score.low is None or score.high is None:
        return mean
    return f"{mean} ({score.low:.{digits}f}{SPACE}to{SPACE}{score.high:.{digits}f})"


def _plain(number: float, metric: str) -> str:
    return "-" if math.isnan(number) else f"{number:.{min(METRICS[metric].digits, 3)}f}"
