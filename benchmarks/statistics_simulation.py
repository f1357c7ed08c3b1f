"""What the intervals, tests and rankings of comparisons are worth, by simulation of cases where the truth is known.

    python benchmarks/statistics_simulation.py [--repetitions 2000]

Writes ``benchmarks/results/statistics_simulation.jsonl``, a line a number, and the tables of
``docs/concepts/statistics.md``, between its two markers. Minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from selfcfg.engine.randomness import generator
from selfcfg.files import write_text
from selfcfg.kernels.rank_stability import METHODS, stability
from selfcfg.kernels.statistics import (
    SURE,
    Interval,
    estimate,
    holm,
    paired,
    sign_flip,
    sign_flip_above,
    subject_means,
    wilcoxon,
)
from selfcfg.report.tables import table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "statistics_simulation.jsonl"
PAGE = ROOT / "docs" / "concepts" / "statistics.md"
START, END = "<!-- simulation: begin -->", "<!-- simulation: end -->"

SUBJECTS = (6, 10, 20, 50, 100)
RESAMPLES = 999
MARGIN = 0.5
INTERVALS = ("percentile", "BCa", "expanded percentile")

Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Values]
Row = dict[str, Any]


def _normal(rng: np.random.Generator, count: int) -> Values:
    return rng.normal(size=count)


def _skewed(rng: np.random.Generator, count: int) -> Values:
    return 2.0 - rng.gamma(2.0, size=count)


def _failures(rng: np.random.Generator, count: int) -> Values:
    """Dice of one system with failures less that of another: 5 % of either lose 0.5."""
    lost = rng.random((2, count)) < 0.05
    return rng.normal(0, 0.02, count) + 0.5 * lost[0] - 0.5 * lost[1]


def _rare(rng: np.random.Generator, count: int) -> Values:
    """One system fails in 5 % of subjects, the other never."""
    return rng.normal(0, 0.02, count) + 0.5 * (rng.random(count) < 0.05) - 0.025


def _clustered(rng: np.random.Generator, count: int) -> Values:
    """One to six cases a subject that have most in common, averaged."""
    sizes = rng.integers(1, 7, count)
    subjects = np.repeat(np.arange(count), sizes)
    values = np.repeat(rng.normal(size=count), sizes) + 0.5 * rng.normal(size=sizes.sum())
    return np.array([*subject_means([*values], [f"{subject:04d}" for subject in subjects]).values()])


def _by_case(rng: np.random.Generator, count: int) -> Values:
    """The same, every case taken for a subject: what goes wrong where subjects are not told."""
    sizes = rng.integers(1, 7, count)
    return np.repeat(rng.normal(size=count), sizes) + 0.5 * rng.normal(size=int(sizes.sum()))


DRAWS: dict[str, Draw] = {
    "normal": _normal,
    "skewed (gamma 2)": _skewed,
    "rare failures of both": _failures,
    "rare failures of one": _rare,
    "1-6 cases a subject": _clustered,
    "the same, subjects not told": _by_case,
}
"""Paired differences whose true mean is 0, one a subject."""


def coverage(repetitions: int) -> Iterator[Row]:
    """How often intervals of 95 % hold the true mean."""
    for name, draw in DRAWS.items():
        for count in SUBJECTS:
            held = dict.fromkeys(INTERVALS, 0)
            for index in range(repetitions):
                rng = generator(0, f"coverage/{name}/{count}", index)
                sample = [*draw(rng, count)]
                made = (*_rivals(np.asarray(sample), rng), estimate(sample, rng, RESAMPLES).interval)
                for kind, interval in zip(held, made, strict=True):
                    held[kind] += interval is not None and interval.low <= 0 <= interval.high
            yield from (
                {"part": "coverage", "differences": name, "subjects": count, "what": kind, "share": times / repetitions}
                for kind, times in held.items()
            )


def _rivals(sample: Values, rng: np.random.Generator) -> tuple[Interval, Interval]:
    """The plain percentile interval, and the BCa interval.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3, and equations 14.9 to 14.15 with
    the jackknife's acceleration of a mean.
    """
    means, found = sample[rng.integers(len(sample), size=(RESAMPLES, len(sample)))].mean(1), sample.mean()
    below = ((means < found).mean() + (means <= found).mean()) / 2
    bias = ndtri(np.clip(below, 1 / (RESAMPLES + 1), RESAMPLES / (RESAMPLES + 1)))
    deviations = sample - found
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    ends = np.array([0.025, 0.975])
    shifted = bias + ndtri(ends)
    leaning = ndtr(bias + shifted / (1 - acceleration * shifted))
    return Interval(*np.quantile(means, ends).tolist()), Interval(*np.quantile(means, leaning).tolist())


def errors(repetitions: int) -> Iterator[Row]:
    """How often tests find a difference where there is none, and where one of 0.8 standard deviations is."""
    for name, draw in DRAWS.items():
        shift = 0.8 * float(draw(generator(0, f"deviation/{name}"), 50000).std())
        for count in SUBJECTS:
            found = {"sign flips": 0, "Wilcoxon": 0, "verdict": 0, "verdict, true difference": 0}
            for index in range(repetitions):
                rng = generator(0, f"errors/{name}/{count}", index)
                sample = draw(rng, count)
                flipped, ranked = sign_flip(sample, rng, RESAMPLES), wilcoxon(sample)
                found["sign flips"] += flipped is not None and flipped < SURE
                found["Wilcoxon"] += ranked is not None and ranked < SURE
                found["verdict"] += _is_told(sample, rng)
                found["verdict, true difference"] += _is_told(sample + shift, rng)
            yield from (
                {"part": "errors", "differences": name, "subjects": count, "what": kind, "share": times / repetitions}
                for kind, times in found.items()
            )


def _is_told(sample: Values, rng: np.random.Generator) -> bool:
    """Whether a single pair would be called better or worse."""
    made = paired([*sample], rng, RESAMPLES)
    interval = made.difference.interval
    return made.sign_flip is not None and made.sign_flip < SURE and interval is not None and not _holds_zero(interval)


def _holds_zero(interval: tuple[float, float]) -> bool:
    return interval[0] <= 0 <= interval[1]


def families(repetitions: int) -> Iterator[Row]:
    """How often any pair of four equal systems is called different, and a system that is worse no worse."""
    for count in SUBJECTS:
        any_of = {"any of 6 pairs, uncorrected": 0, "any of 6 pairs, Holm": 0, "worse by the margin passes": 0}
        for index in range(repetitions // 2):
            rng = generator(0, f"families/{count}", index)
            scores = rng.normal(size=(count, 1)) + rng.normal(size=(count, 4))
            pairs = [sign_flip(scores[:, a] - scores[:, b], rng, RESAMPLES) for a, b in combinations(range(4), 2)]
            any_of["any of 6 pairs, uncorrected"] += min(p or 0.0 for p in pairs) < SURE
            any_of["any of 6 pairs, Holm"] += min(p or 0.0 for p in holm(pairs)) < SURE
            worse = scores[:, 0] - scores[:, 1] - MARGIN
            interval = estimate([*worse], rng, RESAMPLES).interval
            p = sign_flip_above(worse, -MARGIN, rng, RESAMPLES)
            passes = interval is not None and interval.low > -MARGIN and p is not None and p < 0.025
            any_of["worse by the margin passes"] += passes
        yield from (
            {"part": "families", "subjects": count, "what": kind, "share": times / (repetitions // 2)}
            for kind, times in any_of.items()
        )


def rankings(repetitions: int) -> Iterator[Row]:
    """How stable the first place of five systems is told to be, by how much they differ."""
    for step in (0.0, 0.1, 0.3, 1.0):
        for count in (10, 20, 50, 100):
            for method in METHODS:
                first, sure, right, tau = [], 0, 0, []
                for index in range(repetitions // 10):
                    rng = generator(0, f"rankings/{step}/{count}", index)
                    scores = rng.normal(size=(count, 1)) + rng.normal(size=(count, 5)) - step * np.arange(5)
                    found = stability(scores, method, rng, RESAMPLES)
                    if found is not None:
                        first.append(float(found.first.max()))
                        sure += int(found.first.max() > 0.95)
                        right += int(found.ranks[0] == 1)
                        tau.append(found.tau or 0.0)
                shares = {"share of the leader": float(np.mean(first)), "leader above 95 %": sure / len(first)}
                shares |= {"leader is the best": right / len(first), "mean tau": float(np.mean(tau))}
                yield {"part": "rankings", "step": step, "subjects": count, "method": method, **shares}


def tables(rows: Iterable[Row]) -> str:
    """The tables of the page."""
    every = list(rows)
    blocks = []
    for part, title, kinds in (
        ("coverage", _COVERAGE, INTERVALS),
        ("errors", _ERRORS, ("sign flips", "Wilcoxon", "verdict", "verdict, true difference")),
    ):
        mine = {(r["differences"], r["subjects"], r["what"]): r["share"] for r in every if r["part"] == part}
        heads = ["differences", "subjects", *kinds]
        body = [
            [name, count, *(_percent(mine[name, count, kind]) for kind in kinds)]
            for name in DRAWS
            for count in SUBJECTS
            if (name, count, kinds[0]) in mine
        ]
        blocks += [title, table(heads, body)]
    family = {(r["subjects"], r["what"]): r["share"] for r in every if r["part"] == "families"}
    kinds = tuple(dict.fromkeys(what for _, what in family))
    counts = dict.fromkeys(count for count, _ in family)
    blocks += [_FAMILIES, table(["subjects", *kinds], [[n, *(_percent(family[n, k]) for k in kinds)] for n in counts])]
    heads = [
        "differ by",
        "subjects",
        "way",
        "share of the leader",
        "leader above 95 %",
        "leader is the best",
        "mean tau",
    ]
    body = [
        [
            row["step"],
            row["subjects"],
            row["method"],
            *(_percent(row[key]) for key in heads[3:6]),
            f"{row['mean tau']:.2f}",
        ]
        for row in every
        if row["part"] == "rankings"
    ]
    blocks += [_RANKINGS, table(heads, body, numbers_from=3)]
    return "\n\n".join(blocks)


_COVERAGE = "**Intervals of 95 %** hold the true mean difference so often (95 % is right):"
_ERRORS = (
    "**Tests** find a difference so often where there is none (5 % is right; *verdict*: test and expanded percentile "
    "interval together, a single pair), and, last column, where the true difference is 0.8 standard deviations:"
)
_FAMILIES = (
    "**Several claims at once**: four equal systems, and a system that is worse by just the margin (5 %, 5 % and 2.5 % "
    "at most are right for the last two columns):"
)
_RANKINGS = (
    "**Rankings** of five systems; each is worse than the one before by so many standard deviations of a system's own "
    "noise. With 0 all are equal, and whoever leads does so by luck:"
)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def filled(page: str, rows: Iterable[Row]) -> str:
    """The page with the tables between its markers."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{tables(rows)}\n\n{END}{after}"


def read() -> list[Row]:
    """The rows of the committed results."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Runs everything and writes results and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=2000)
    repetitions = parser.parse_args().repetitions
    rows: list[Row] = []
    for part in (coverage, errors, families, rankings):
        for row in part(repetitions):
            rows.append(row)
            print(row, flush=True)
    write_text(RESULTS, "".join(json.dumps(row) + "\n" for row in rows))
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), rows))


if __name__ == "__main__":
    main()
