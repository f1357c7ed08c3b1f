"""Paired differences of systems with intervals, corrected tests and effect sizes, and their ranking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from selfcfg.engine.comparison.alignment import MEAN, Aligned, Values, aligned
from selfcfg.engine.comparison.conclusions import conclusions
from selfcfg.engine.comparison.records import (
    ComparedSystem,
    Comparison,
    NoWorse,
    Pair,
    Ranking,
    Standing,
    SystemScore,
    Verdict,
)
from selfcfg.engine.comparison.systems import System, refuse_baseline
from selfcfg.engine.randomness import generator
from selfcfg.engine.scoring.metrics import METRICS
from selfcfg.errors import DataError
from selfcfg.kernels.rank_stability import METHODS, stability
from selfcfg.kernels.statistics import (
    SURE,
    Interval,
    estimate,
    holm,
    paired,
    rank_biserial,
    sign_flip_above,
    standardized_mean,
    subject_means,
)

ONE_SIDED = 0.975
"""Confidence of non-inferiority: its bound is the lower end of the 95 % interval that is shown."""

EACH_CASE = "each case by itself"


@dataclass(frozen=True)
class Wanted:
    """What is to be compared.

    Args:
        metrics: names, the main one first; none: the usual ones that all systems have.
        baseline: compare all others with this one; None: all pairs.
        margin: see `Comparison`.
        subjects: of each case; a case without an entry is a subject of its own.
        subjects_from: where these come from.
        seed: of the resamples.
    """

    metrics: tuple[str, ...] = ()
    baseline: str | None = None
    margin: float | None = None
    subjects: Mapping[str, str] | None = None
    subjects_from: str = EACH_CASE
    seed: int = 0


@dataclass(frozen=True)
class _Row:
    """All systems by one metric and target, each subject's mean: values (systems, subjects)."""

    metric: str
    target: str
    case_values: Values
    values: Values


def compare(systems: Sequence[System], wanted: Wanted) -> tuple[Comparison, Aligned]:
    """What may be said of systems on the cases that all of them have, and these cases' scores.

    The subject is the unit: its cases are averaged first, and the repetitions of a system before that.

    Args:
        systems: with their scores; of a single one there are no differences.
        wanted: what is asked.

    Raises:
        UsageError: the baseline is not among them, or see `selfcfg.engine.comparison.alignment.aligned`.
        DataError: see there.
    """
    refuse_baseline(wanted.baseline, (system.name for system in systems))
    found = aligned(systems, wanted.subjects or {}, wanted.metrics)
    rows = [_row(found, metric, target) for metric in found.values for target in found.targets]
    rows = [row for row in rows if row.values.size]
    means = [row for row in rows if row.target == MEAN]
    if not means or means[0].metric != next(iter(found.values)):
        title = METRICS[next(iter(found.values))].title
        raise DataError("compare", f"{title} is defined for no case that all have", "choose another with --metric")
    pairs = _judged([pair for row in rows for pair in _pairs(row, found, wanted)])
    run = systems[0].runs[0]
    comparison = Comparison(
        systems=tuple(_system(*one, found) for one in zip(systems, found.by_repetition(means[0].metric), strict=True)),
        baseline=wanted.baseline,
        margin=wanted.margin,
        metrics=tuple(found.values),
        classes=found.classes,
        left_out=found.left_out,
        cases=len(found.cases),
        subjects=len(set(found.subjects)),
        subjects_from=wanted.subjects_from,
        nsd_tolerance=run.nsd_tolerance,
        distance_unit=run.distance_unit,
        volume_unit=run.volume_unit,
        empty=run.empty,
        nobody=found.nobody,
        seed=wanted.seed,
        scores=tuple(score for row in rows for score in _scores(row, found, wanted.seed)),
        pairs=tuple(pairs),
        rankings=tuple(ranking for row in means for ranking in _rankings(row, found, pairs, wanted)),
    )
    return comparison.model_copy(update={"conclusions": tuple(conclusions(comparison))}), found


def _system(system: System, repetitions: Sequence[float], found: Aligned) -> ComparedSystem:
    return ComparedSystem(
        name=system.name,
        kind=system.kind,
        repetitions=tuple(repetitions),
        lost=found.lost[system.name],
        failed={name: found.failed[name][system.name] for name in found.classes},
    )


def _row(found: Aligned, metric: str, target: str) -> _Row:
    case_values, which = found.of(metric, target)
    subjects = [found.subjects[index] for index in which]
    means = [[*subject_means(values, subjects).values()] for values in case_values]
    return _Row(metric, target, case_values, np.array(means))


def _scores(row: _Row, found: Aligned, seed: int) -> Iterable[SystemScore]:
    for name, values, of_cases in zip(found.systems, row.values, row.case_values, strict=True):
        made = estimate(values, generator(seed, f"compare/{row.metric}/{row.target}/{name}"))
        undefined = found.undefined[row.metric]
        classes = found.classes if row.target == MEAN else (row.target,)
        yield SystemScore(
            metric=row.metric,
            target=row.target,
            system=name,
            cases=len(of_cases),
            subjects=made.n,
            mean=made.mean,
            low=made.interval.low if made.interval else None,
            high=made.interval.high if made.interval else None,
            median=float(np.median(of_cases)),
            undefined=sum(undefined[one][name] for one in classes),
        )


def _pairs(row: _Row, found: Aligned, wanted: Wanted) -> Iterable[Pair]:
    """Every pair, or every other system with the baseline; p values are still those of each alone."""
    places = {name: place for place, name in enumerate(found.systems)}
    chosen: Iterable[tuple[str, str]] = combinations(found.systems, 2)
    if wanted.baseline is not None:
        chosen = [(name, wanted.baseline) for name in found.systems if name != wanted.baseline]
    is_main = row.metric == next(iter(found.values)) and row.target == MEAN
    for first, second in chosen:
        yield _pair(row, (first, second), (places[first], places[second]), is_main=is_main, wanted=wanted)


def _pair(row: _Row, names: tuple[str, str], places: tuple[int, int], *, is_main: bool, wanted: Wanted) -> Pair:
    rng = generator(wanted.seed, "/".join(["compare", row.metric, row.target, *names]))
    one, other = places
    differences, sign = row.values[one] - row.values[other], METRICS[row.metric].sign
    of_cases = sign * (row.case_values[one] - row.case_values[other])
    made = paired([*differences], rng)
    interval = made.difference.interval
    no_worse, no_better = None, None
    if is_main and wanted.margin is not None and interval is not None:
        ends = interval if sign > 0 else Interval(-interval.high, -interval.low)
        advantages = sign * differences
        no_worse = _no_worse(advantages, ends.low, wanted.margin, rng)
        no_better = _no_worse(-advantages, -ends.high, wanted.margin, rng)
    return Pair(
        metric=row.metric,
        target=row.target,
        first=names[0],
        second=names[1],
        family="main" if is_main else "further",
        cases=len(of_cases),
        subjects=len(differences),
        difference=made.difference.mean,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        sign_flip=made.sign_flip,
        wilcoxon=made.wilcoxon,
        rank_biserial=rank_biserial(sign * differences) if interval else None,
        standardized=standardized_mean(sign * differences) if interval else None,
        better=int((of_cases > 0).sum()),
        equal=int((of_cases == 0).sum()),
        worse=int((of_cases < 0).sum()),
        no_worse=no_worse,
        no_better=no_better,
    )


def _no_worse(advantages: Values, low: float, margin: float, rng: np.random.Generator) -> NoWorse:
    """Not corrected yet."""
    p = sign_flip_above(advantages, -margin, rng)
    p = 1.0 if p is None else p
    return NoWorse(low=low, p=p, holm=p, is_shown=low > -margin)


def _judged(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with p values corrected within their families, and with verdicts."""
    corrected: dict[int, dict[str, object]] = {place: {} for place in range(len(pairs))}
    for family in ("main", "further"):
        mine = [place for place, pair in enumerate(pairs) if pair.family == family]
        for test in ("sign_flip", "wilcoxon"):
            for place, p in zip(mine, holm([getattr(pairs[place], test) for place in mine]), strict=True):
                corrected[place][f"{test}_holm"] = p
    sides = [(place, side) for place in corrected for side in ("no_worse", "no_better") if getattr(pairs[place], side)]
    for (place, side), p in zip(sides, holm([getattr(pairs[place], side).p for place, side in sides]), strict=True):
        found: NoWorse = getattr(pairs[place], side)
        is_shown = found.is_shown and p is not None and p < 1 - ONE_SIDED
        corrected[place][side] = found.model_copy(update={"holm": p, "is_shown": is_shown})
    done = [pair.model_copy(update=corrected[place]) for place, pair in enumerate(pairs)]
    return [pair.model_copy(update={"verdict": _verdict(pair)}) for pair in done]


def _verdict(pair: Pair) -> Verdict:
    """By the corrected permutation test and the interval together; else by the margin, where there is one."""
    if pair.sign_flip_holm is None or pair.low is None or pair.high is None:
        return "too few"
    if pair.sign_flip_holm < SURE and (pair.low > 0 or pair.high < 0):
        return "better" if METRICS[pair.metric].sign * pair.difference > 0 else "worse"
    shown = tuple(side is not None and side.is_shown for side in (pair.no_worse, pair.no_better))
    by_margin: dict[tuple[bool, ...], Verdict] = {
        (True, True): "equivalent", (True, False): "no worse", (False, True): "no better",
    }  # fmt: skip
    return by_margin.get(shown, "no difference shown")


def _rankings(row: _Row, found: Aligned, pairs: Sequence[Pair], wanted: Wanted) -> Iterable[Ranking]:
    beats = _beats(row, pairs) if wanted.baseline is None else {}
    for method in METHODS:
        rng = generator(wanted.seed, f"compare/{row.metric}/{method}")
        made = stability(METRICS[row.metric].sign * row.values.T, method, rng)
        if made is None:
            return
        standings = [
            Standing(
                system=name,
                rank=float(made.ranks[place]),
                first=float(made.first[place]),
                low=float(made.interval[place, 0]),
                high=float(made.interval[place, 1]),
                frequency=tuple(made.frequency[place].tolist()),
                beats=beats.get(name, 0) if wanted.baseline is None else None,
            )
            for place, name in enumerate(found.systems)
        ]
        standings.sort(key=lambda standing: standing.rank)
        yield Ranking(metric=row.metric, method=method, standings=tuple(standings), tau=made.tau)


def _beats(row: _Row, pairs: Sequence[Pair]) -> dict[str, int]:
    """Of each system, how many others it is shown to be better than by this metric and target."""
    beats: dict[str, int] = {}
    for pair in pairs:
        if (pair.metric, pair.target) == (row.metric, row.target) and pair.verdict in ("better", "worse"):
            winner = pair.first if pair.verdict == "better" else pair.second
            beats[winner] = beats.get(winner, 0) + 1
    return beats
