"""What is found when systems are compared, as it lies in comparison.json."""

from __future__ import annotations

from typing import Literal

from selfcfg.engine.comparison.systems import Kind
from selfcfg.engine.scoring.scores import Empty
from selfcfg.kernels.rank_stability import Method
from selfcfg.records import Record

Verdict = Literal["better", "worse", "equivalent", "no worse", "no better", "no difference shown", "too few"]

FILE = "comparison.json"


class ComparedSystem(Record):
    """A system that was compared.

    Args:
        name: of it.
        kind: where its scores come from.
        repetitions: mean of the main metric of each repetition, such as a seed; they were averaged case by case.
        lost: its cases that another system lacks.
        failed: by class, the compared cases in which it was missed or invented altogether.
    """

    name: str
    kind: Kind
    repetitions: tuple[float, ...]
    lost: int
    failed: dict[str, int]


class SystemScore(Record):
    """The mean of a metric over subjects, of one system.

    Args:
        metric: its name.
        target: a class or region, or "mean" over those of each case.
        system: its name.
        cases: that it is of.
        subjects: that these belong to.
        mean: over subjects, of each over its cases.
        low: lower end of the 95 % interval; None with fewer than 6 subjects.
        high: upper end.
        median: over cases.
        undefined: cases that were left out for all systems because this one has no value.
    """

    metric: str
    target: str
    system: str
    cases: int
    subjects: int
    mean: float
    low: float | None
    high: float | None
    median: float
    undefined: int


class NoWorse(Record):
    """Whether a system is worse than another one by less than the margin.

    Args:
        low: its advantage is above this with a confidence of 97.5 %, one-sided: the end of the interval that is shown.
        p: one-sided, of the sign-flip permutation test of the advantages plus the margin.
        holm: the same, corrected for all such tests of the page.
        is_shown: whether `low` is above minus the margin and `holm` below 0.025.
    """

    low: float
    p: float
    holm: float
    is_shown: bool


class Pair(Record):
    """Two systems by one metric, on the same cases; what needs more subjects than there are is None.

    Args:
        metric: its name.
        target: a class or region, or "mean" over those of each case.
        first: a system.
        second: the system that it is compared with.
        family: tests that were corrected together: "main" (the first metric, mean over classes) or "further".
        cases: that both were scored on.
        subjects: that these belong to.
        difference: first less second, mean over subjects, in the metric's own units.
        low: lower end of the 95 % interval of the difference.
        high: upper end.
        sign_flip: p of the permutation test of the mean that flips signs, two-sided.
        sign_flip_holm: corrected for all pairs of the family.
        wilcoxon: p of Wilcoxon's signed rank test, two-sided; tells whether the mean rests on few subjects.
        wilcoxon_holm: corrected in the same way.
        rank_biserial: matched-pairs rank-biserial correlation over subjects, above 0 where the first is better.
        standardized: Cohen's d_z over subjects, above 0 where the first is better.
        better: cases in which the first has the better value.
        equal: cases in which both have the same.
        worse: cases in which the second has the better value.
        no_worse: whether the first is no worse than the second, where a margin was given (main family alone).
        no_better: whether the second is no worse than the first.
        verdict: of the first: "better" or "worse" where `sign_flip_holm` is below 0.05 and the interval leaves out 0.
    """

    metric: str
    target: str
    first: str
    second: str
    family: Literal["main", "further"]
    cases: int
    subjects: int
    difference: float
    low: float | None
    high: float | None
    sign_flip: float | None
    sign_flip_holm: float | None = None
    wilcoxon: float | None
    wilcoxon_holm: float | None = None
    rank_biserial: float | None
    standardized: float | None
    better: int
    equal: int
    worse: int
    no_worse: NoWorse | None = None
    no_better: NoWorse | None = None
    verdict: Verdict = "no difference shown"


class Standing(Record):
    """The place of one system in a ranking.

    Args:
        system: its name.
        rank: from 1; ties share their mean rank.
        first: share of the bootstrap resamples of subjects in which it is first.
        low: rank that 2.5 % of the resamples are below.
        high: rank that 2.5 % of the resamples are above.
        frequency: share of the resamples with rank 1, 2, ...
        beats: number of systems that it is shown to be better than; None where not all pairs were tested.
    """

    system: str
    rank: float
    first: float
    low: float
    high: float
    frequency: tuple[float, ...]
    beats: int | None


class Ranking(Record):
    """All systems in order, by the mean over classes of one metric.

    Args:
        metric: its name.
        method: how scores become ranks.
        standings: best first.
        tau: mean of Kendall's tau-b between this ranking and those of resamples; None where all are tied.
    """

    metric: str
    method: Method
    standings: tuple[Standing, ...]
    tau: float | None


class Comparison(Record):
    """Everything that was found of systems on the same cases.

    Args:
        systems: in the order given.
        baseline: the system that all others are compared with; None: all pairs are.
        margin: by which a system may be worse in the first metric and still count as no worse; None: not asked.
        metrics: their names, the main one first.
        classes: that are compared.
        left_out: classes that only some systems have.
        cases: number of cases that all systems have.
        subjects: number of subjects that these belong to.
        subjects_from: where the subjects come from.
        nsd_tolerance: of NSD; None where it is not known.
        distance_unit: of distances.
        volume_unit: of volumes.
        empty: how a class absent from both masks was scored.
        nobody: by metric and class, the cases left out because no system has a value.
        seed: of the resamples.
        scores: by metric, target and system.
        pairs: by metric and target.
        rankings: by metric and method; none with fewer than 6 subjects or two systems.
        conclusions: in plain sentences.
    """

    systems: tuple[ComparedSystem, ...]
    baseline: str | None
    margin: float | None
    metrics: tuple[str, ...]
    classes: tuple[str, ...]
    left_out: tuple[str, ...]
    cases: int
    subjects: int
    subjects_from: str
    nsd_tolerance: float | None
    distance_unit: str | None
    volume_unit: str | None
    empty: Empty
    nobody: dict[str, dict[str, int]]
    seed: int
    scores: tuple[SystemScore, ...]
    pairs: tuple[Pair, ...]
    rankings: tuple[Ranking, ...]
    conclusions: tuple[str, ...] = ()

    def unit(self, kind: str) -> str:
        """The unit of a metric whose `Metric.unit` is `kind`, with a space before it; empty without."""
        unit = {"distance": self.distance_unit, "volume": self.volume_unit}.get(kind)
        return f" {unit}" if unit else ""
