"""Systems side by side: of a comparison, or an experiment with the others of its dataset."""

from __future__ import annotations

from collections.abc import Iterator

from selfcfg.engine.comparison.alignment import MEAN, Aligned
from selfcfg.engine.comparison.conclusions import probability, value
from selfcfg.engine.comparison.records import Comparison, Pair, Ranking
from selfcfg.engine.scoring.metrics import METRICS
from selfcfg.report.page import svg
from selfcfg.report.page.blocks import SPACE, Block, Bullets, Details, Heading, Plot, Section, Table, Text
from selfcfg.report.page.facts import Facts
from selfcfg.report.tables import number

_RULE = (
    "Better or worse is said where the permutation test, corrected by Holm's method, has p < 0.05 and the 95 % "
    "interval "
    "leaves out 0. Anything else is not shown, which is not the same as equal."
)


def differences(facts: Facts) -> Section | None:
    """The paired differences of a comparison, and the ranking."""
    if facts.found is None or facts.scores is None or not facts.found.pairs:
        return None
    blocks: list[Block] = [Text(_RULE, "lead"), *_of_metrics(facts, facts.found, facts.scores)]
    blocks += _rankings(facts.found)
    return Section("differences", "Differences", tuple(blocks))


def rivals(facts: Facts) -> Section | None:
    """The experiment beside the others of its dataset."""
    beside = facts.experiment.rivals if facts.experiment is not None else None
    if beside is None:
        return None
    if beside.found is None or beside.scores is None:
        text = f"The other experiments of this dataset cannot be compared with it: {facts.names.text(beside.problem)}."
        return Section("strategies", "Beside other experiments", (Text(text),))
    found = beside.found
    blocks: list[Block] = [
        Text(f"{found.cases} cases that all {len(found.systems)} experiments validated.", "lead"),
        Bullets(tuple(facts.names.text(sentence) for sentence in found.conclusions)),
        _means(found),
        *_of_metrics(facts, found, beside.scores),
        Text(_RULE, "note"),
        Text(
            "Whoever chooses the best of several by these numbers has used these cases: confirm it on others.", "note"
        ),
    ]
    return Section("strategies", "Beside other experiments", tuple(blocks))


def _means(found: Comparison) -> Table:
    heads = ("experiment", *(METRICS[metric].title for metric in found.metrics))
    rows = []
    for system in found.systems:
        mine = {one.metric: one for one in found.scores if one.system == system.name and one.target == MEAN}
        cells = (value(found, metric, mine[metric].mean) if metric in mine else "-" for metric in found.metrics)
        rows.append((system.name, *cells))
    return Table("Means over classes, cases and subjects", heads, tuple(rows))


def _of_metrics(facts: Facts, found: Comparison, scores: Aligned) -> Iterator[Block]:
    for metric in found.metrics:
        pairs = [pair for pair in found.pairs if pair.metric == metric and pair.target == MEAN]
        if not pairs:
            continue
        kind = METRICS[metric]
        yield Heading(f"{kind.title} ({'higher' if kind.is_higher_better else 'lower'} is better)")
        yield _plot(facts, found, scores, metric, pairs)
        yield _table(found, pairs, "First less second, mean over classes")
        further = [pair for pair in found.pairs if pair.metric == metric and pair.target != MEAN]
        if further:
            yield Details(f"{kind.title} by class", (_table(found, further, "First less second, by class"),))


def _plot(facts: Facts, found: Comparison, scores: Aligned, metric: str, pairs: list[Pair]) -> Plot:
    values, which = scores.of(metric, MEAN)
    is_one = len({pair.second for pair in pairs}) == 1
    rows = []
    for pair in pairs:
        one, other = (scores.systems.index(name) for name in (pair.first, pair.second))
        marks = [
            svg.Mark(gap, f"{facts.names.case(scores.cases[case])}: {value(found, metric, gap, signed=True)}")
            for gap, case in zip((values[one] - values[other]).tolist(), which.tolist(), strict=True)
        ]
        name = pair.first if is_one else f"{pair.first} - {pair.second}"
        rows.append(svg.Row(name, marks, pair.difference, pair.low, pair.high))
    lines = [0.0]
    if found.margin is not None and metric == found.metrics[0]:
        lines += [-found.margin, found.margin]
    kind = METRICS[metric]
    better = "right" if kind.is_higher_better else "left"
    axis = svg.Axis(
        f"{kind.title}{found.unit(kind.unit)}, difference; first better on the {better}", lines=tuple(lines)
    )
    drawing = svg.strips(rows, axis, f"Differences in {kind.title} of every case")
    caption = f"Differences to {pairs[0].second}. " if is_one else ""
    return Plot(drawing, f"{caption}A circle a case; diamond and bar: mean over subjects with its 95 % interval.")


def _table(found: Comparison, pairs: list[Pair], caption: str) -> Table:
    heads = (
        "class",
        "first",
        "second",
        "difference (95 %)",
        "p, corrected",
        "rank-biserial",
        "better / equal / worse",
        "verdict",
    )
    rows = []
    for pair in pairs:
        digits = METRICS[pair.metric].digits
        ends = (
            "too few"
            if pair.low is None or pair.high is None
            else f"{pair.low:+.{digits}f}{SPACE}to{SPACE}{pair.high:+.{digits}f}"
        )
        target = f"mean of {len(found.classes)}" if pair.target == MEAN and len(found.classes) > 1 else pair.target
        target = found.classes[0] if pair.target == MEAN and len(found.classes) == 1 else target
        rows.append(
            (
                target,
                pair.first,
                pair.second,
                f"{value(found, pair.metric, pair.difference, signed=True)} ({ends})",
                probability(pair.sign_flip_holm),
                number(pair.rank_biserial, 2),
                f"{pair.better} / {pair.equal} / {pair.worse}",
                pair.verdict,
            )
        )
    return Table(caption, heads, tuple(rows), numbers_from=3)


def _rankings(found: Comparison) -> Iterator[Block]:
    """That of the main metric first; the others are folded away."""
    tables = [_standings(ranking) for ranking in found.rankings]
    if tables:
        yield Heading("Ranking")
        yield tables[0]
        if len(tables) > 1:
            yield Details("Other ways of ranking, and other metrics", tuple(tables[1:]))


def _standings(ranking: Ranking) -> Table:
    rows = tuple(
        (one.system, f"{one.rank:g}", f"{100 * one.first:.1f} %", f"{one.low:g} to {one.high:g}")
        for one in ranking.standings
    )
    caption = f"{METRICS[ranking.metric].title}, {ranking.method}"
    return Table(caption, ("system", "rank", "first in resamples", "rank in 95 % of them"), rows)
