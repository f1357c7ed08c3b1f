"""What may be concluded of a comparison, and what not, in plain sentences made by rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from selfcfg.engine.comparison.alignment import MEAN
from selfcfg.engine.comparison.records import Comparison, Pair, Ranking
from selfcfg.engine.scoring.metrics import METRICS
from selfcfg.errors import counted, listed
from selfcfg.kernels.statistics import FEW, FEWEST, SURE

_SHOWN = 12
"""Further findings that are told one by one."""


def conclusions(found: Comparison) -> list[str]:
    """The main metric's pairs first, then the ranking, further findings, what was left out, and what is not told."""
    if len(found.systems) == 1:
        return [*_alone(found), *_left_out(found), *_scope(found)]
    main = [pair for pair in found.pairs if pair.family == "main"]
    if main[0].verdict == "too few":
        told = "Nothing may be concluded about differences: the cases that all systems have belong to "
        told += f"{counted(main[0].subjects, 'subject')}, and at least {FEWEST} are needed."
        return [told, *_left_out(found)]
    sentences = [_pair(found, pair, len(main)) for pair in main]
    sentences += _ranking(found)
    sentences += _further(found)
    return [*sentences, *_left_out(found), *_scope(found)]


def value(found: Comparison, metric: str, number: float, *, signed: bool = False) -> str:
    """A number of a metric, or a difference of two, with its unit."""
    kind = METRICS[metric]
    return f"{number:{'+' if signed else ''}.{kind.digits}f}{found.unit(kind.unit)}"


def probability(p: float | None) -> str:
    """The p of a test."""
    return "too few" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _alone(found: Comparison) -> list[str]:
    sentences = []
    for score in found.scores:
        if score.target == MEAN:
            between = (
                f" (95 % interval {_ends(found, score.metric, score.low, score.high)})" if score.low is not None else ""
            )
            mean = value(found, score.metric, score.mean)
            sentences.append(f"{score.system}: {METRICS[score.metric].title} {mean}{between}.")
    return [*sentences, "A single system was given: there is nothing to compare it with."]


def _pair(found: Comparison, pair: Pair, count: int) -> str:
    """What is shown of one pair by the main metric."""
    title, first, second = METRICS[pair.metric].title, pair.first, pair.second
    told = f"{title} {value(found, pair.metric, pair.difference, signed=True)}, 95 % interval "
    told += f"{_ends(found, pair.metric, pair.low, pair.high, signed=True)}, p = {probability(pair.sign_flip_holm)}"
    told = told.replace("= <", "<") + (f" after Holm's correction for {count} comparisons" if count > 1 else "")
    cases = f"{pair.better} of {counted(pair.cases, 'case')} better, {pair.worse} worse"
    if pair.verdict in ("better", "worse"):
        sentence = f"{first} is {pair.verdict} than {second}: {told}; {cases}."
        side = pair.no_worse if pair.verdict == "worse" else pair.no_better
        if side is not None and side.is_shown:
            sentence += f" The difference is shown to be smaller than the margin of {found.margin:g}."
        return sentence + _doubts(found, pair)
    margin = f"the margin of {found.margin or 0:g}"
    by_margin = {
        "equivalent": f"{first} and {second} are shown to differ by less than {margin}",
        "no worse": f"{first} is shown to be no worse than {second} by {margin} or more",
        "no better": f"{second} is shown to be no worse than {first} by {margin} or more",
    }
    if pair.verdict in by_margin:
        return f"{by_margin[pair.verdict]}; no difference is shown ({told}; {cases})."
    sentence = f"No difference between {first} and {second} is shown ({told}; {cases}): "
    sentence += f"this does not show that they are equal, for {_farthest(found, pair)} is not ruled out."
    if (pair.low or 0) * (pair.high or 0) > 0:
        sentence += " The interval alone, which is not corrected, leaves out 0: more subjects may decide it."
    elif pair.sign_flip_holm is not None and pair.sign_flip_holm < SURE:
        sentence += " The test alone says otherwise, the interval does not: more subjects may decide it."
    return sentence


def _farthest(found: Comparison, pair: Pair) -> str:
    """The largest difference in the interval, of either sign."""
    farthest = max((pair.low or 0.0, pair.high or 0.0), key=abs)
    return f"a difference of {value(found, pair.metric, farthest, signed=True)}"


def _doubts(found: Comparison, pair: Pair) -> str:
    """What speaks against taking a difference that is shown for more than it is."""
    said = ""
    ours, theirs = (one.repetitions for name in (pair.first, pair.second) for one in found.systems if one.name == name)
    if len(ours) > 1 and len(theirs) > 1 and min(ours) <= max(theirs) and min(theirs) <= max(ours):
        said = " Single repetitions overlap: with other trainings it may turn round."
    if pair.wilcoxon_holm is not None and pair.wilcoxon_holm >= SURE:
        p = probability(pair.wilcoxon_holm)
        said += f" Wilcoxon's test does not confirm it (p = {p}): the mean rests on few subjects, look at these."
    return said


def _ranking(found: Comparison) -> list[str]:
    """Who is first by the main metric, how surely, and who cannot be told apart."""
    rankings = [ranking for ranking in found.rankings if ranking.metric == found.metrics[0]]
    if len(found.systems) < 3 or not rankings:
        return []
    title = METRICS[found.metrics[0]].title
    sentences = [f"By the {ranking.method} ({title}), {_leader(ranking)}." for ranking in rankings]
    leaders = {ranking.standings[0].system for ranking in rankings}
    if len(leaders) > 1:
        sentences.append("The two ways of ranking disagree on who is first: do not name a winner.")
    alike = [f"{pair.first} and {pair.second}" for pair in found.pairs if _is_open(pair)]
    if alike:
        sentences.append(f"By {title} these cannot be told apart: {listed(alike, _SHOWN, '; ')}.")
    return sentences


def _is_open(pair: Pair) -> bool:
    return pair.family == "main" and pair.verdict not in ("better", "worse")


def _leader(ranking: Ranking) -> str:
    best = [standing for standing in ranking.standings if standing.rank == ranking.standings[0].rank]
    if len(best) > 1:
        return f"{listed(standing.system for standing in best)} share the first place"
    return f"{best[0].system} is first, and is so in {_share(best[0].first)} of resamplings of the subjects"


def _share(part: float) -> str:
    return "more than 99 %" if part > 0.99 else f"{100 * part:.0f} %"


def _further(found: Comparison) -> list[str]:
    """What is shown by other metrics and for single classes; all these tests were corrected together."""
    further = [pair for pair in found.pairs if pair.family == "further"]
    if not further:
        return []
    shown = [pair for pair in further if pair.verdict in ("better", "worse")]
    before = f"Of {counted(len(further), 'further comparison')} (other metrics, single classes; corrected together) "
    if not shown:
        return [before + "none shows a difference."]
    told = listed((_short(found, pair) for pair in shown), _SHOWN, "; ")
    sentences = [f"{before}{counted(len(shown), 'shows', 'show')} a difference: {told}."]
    main = {(pair.first, pair.second): pair.verdict for pair in found.pairs if pair.family == "main"}
    against = [
        METRICS[pair.metric].title
        for pair in shown
        if pair.target == MEAN and {pair.verdict, main[pair.first, pair.second]} == {"better", "worse"}
    ]
    if against:
        first = METRICS[found.metrics[0]].title
        sentences.append(f"{first} and {listed(dict.fromkeys(against))} contradict each other: look at the cases.")
    return sentences


def _short(found: Comparison, pair: Pair) -> str:
    of = "" if pair.target == MEAN else f" of {pair.target}"
    difference = value(found, pair.metric, pair.difference, signed=True)
    return f"{pair.first} {pair.verdict} than {pair.second} in {METRICS[pair.metric].title}{of} ({difference})"


def _left_out(found: Comparison) -> list[str]:
    """Cases and classes that are not in the numbers, and failures that are."""
    sentences = []
    if lost := [f"{counted(one.lost, 'case')} of {one.name}" for one in found.systems if one.lost]:
        told = listed(lost, 20, ", ")
        sentences.append(f"Compared are the {counted(found.cases, 'case')} that all systems have; left out: {told}.")
    if found.left_out:
        sentences.append(f"Classes that only some systems have are left out: {listed(found.left_out, 20)}.")
    for metric in found.metrics:
        sentences += _undefined(found, metric)
    failed = [(one.name, sum(one.failed.values())) for one in found.systems]
    if any(number for _, number in failed):
        told = ", ".join(f"{name} {number}" for name, number in failed)
        sentences.append(f"How often a class was missed or invented altogether: {told}.")
    return sentences


def _undefined(found: Comparison, metric: str) -> Iterable[str]:
    """A system whose failures have no value would look better for them: they are left out for all, and counted."""
    without = [
        (score.system, score.undefined) for score in found.scores if (score.metric, score.target) == (metric, MEAN)
    ]
    if any(number for _, number in without):
        told = ", ".join(f"{name} {number}" for name, number in without)
        sentence = f"{METRICS[metric].title} is not defined for some classes of some cases ({told}): these are left out"
        yield f"{sentence} for all systems. Who has more of them looks better than it is."


def _scope(found: Comparison) -> list[str]:
    """What intervals and tests do not speak of."""
    sentences = []
    if found.subjects < FEW:
        sentences.append(f"With {found.subjects} subjects only large differences can be shown.")
    before = "Intervals and tests speak of other subjects like these, not of other trainings of the same systems"
    if several := [one for one in found.systems if len(one.repetitions) > 1]:
        ranges = (f"{one.name} {_range(found, one.repetitions)}" for one in several)
        sentences.append(f"{before}; how much these vary: {METRICS[found.metrics[0]].title} of {listed(ranges, 20)}.")
    if single := [one.name for one in found.systems if len(one.repetitions) == 1]:
        sentences.append(
            f"{before}: of {listed(single, 20)} one is given; trainings with further seeds are given as NAME=PATH,PATH."
        )
    return sentences


def _range(found: Comparison, values: Sequence[float]) -> str:
    return f"{value(found, found.metrics[0], min(values))} to {value(found, found.metrics[0], max(values))}"


def _ends(found: Comparison, metric: str, low: float | None, high: float | None, *, signed: bool = False) -> str:
    kind = METRICS[metric]
    sign = "+" if signed else ""
    return f"{low:{sign}.{kind.digits}f} to {high:{sign}.{kind.digits}f}{found.unit(kind.unit)}"
