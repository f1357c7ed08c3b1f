"""The page of a comparison of systems: sentences first, then tables and pictures; and every score as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfcfg.engine.comparison.alignment import MEAN, Aligned
from selfcfg.engine.comparison.conclusions import probability, value
from selfcfg.engine.comparison.records import FILE, Comparison, NoWorse, Pair, Ranking, SystemScore
from selfcfg.engine.scoring.metrics import METRICS
from selfcfg.files import write_text
from selfcfg.kernels.statistics import FEWEST
from selfcfg.report.cases import shuffled_scores
from selfcfg.report.comparison_plots import draw_differences, draw_ranks
from selfcfg.report.names import AS_THEY_ARE, HIDDEN, Naming, Written
from selfcfg.report.page.comparison import Places, facts_of_comparison
from selfcfg.report.page.render import write_page
from selfcfg.report.scores_file import SCORES, cases_table
from selfcfg.report.tables import cell, number, table

PAGE, DIFFERENCES, RANKS = "comparison.md", "differences.png", "ranks.png"
WHOLE_PAGE = "comparison.html"


def write_comparison(
    folder: Path, found: Comparison, scores: Aligned, places: Places | None = None, naming: Naming = AS_THEY_ARE
) -> Written:
    """Writes comparison.html, and beside it comparison.md with its plots, comparison.json and cases.csv.

    Args:
        folder: for all of them; with hidden names they lie in a folder of their own in it, `HIDDEN`.
        found: what may be said.
        scores: of every case.
        places: where label maps and images lie; None: no case is shown.
        naming: what cases are called.

    Raises:
        UsageError: there is no folder of images where one was given, or the table of names cannot lie where it is to.
    """
    place = folder / HIDDEN if naming.anonymise else folder
    names = naming.names((*scores.cases, *scores.subjects), place)
    scores = shuffled_scores(scores, names)
    facts = facts_of_comparison(found, scores, places, names)
    found.write(place / FILE)
    write_text(place / SCORES, cases_table(scores, names))
    pictures = []
    if found.pairs:
        draw_differences(found, scores, place / DIFFERENCES)
        pictures.append(f"![Paired differences]({DIFFERENCES})")
    if found.rankings:
        draw_ranks(found, place / RANKS)
        pictures.append(f"![Stability of the ranks]({RANKS})")
    sections = [
        f"# Comparison: {cell(', '.join(system.name for system in found.systems))}",
        "## What may be concluded",
        "\n".join(f"- {cell(sentence)}" for sentence in found.conclusions),
        *pictures,
        *_scores(found),
        *_pairs(found),
        *_rankings(found),
        "## How it was made",
        *_making(found),
    ]
    write_text(place / PAGE, "\n\n".join(sections) + "\n")
    written = Written(write_page(place / WHOLE_PAGE, facts), place / PAGE)
    naming.keep(names)
    return written


def scores_table(found: Comparison, metric: str) -> str:
    """A Markdown table of the means of every system by one metric, a row a class and system."""
    heads = ["class", "system", "mean (95 %)", "median", "cases", "subjects", "left out", "missed or invented"]
    failed = {system.name: system.failed for system in found.systems}
    rows = []
    for score in found.scores:
        if score.metric == metric:
            of = failed[score.system]
            missed = sum(of.values()) if score.target == MEAN else of[score.target]
            mean, median = _mean(found, score), value(found, metric, score.median)
            counts = [score.cases, score.subjects, score.undefined, missed]
            rows.append([_target(found, score.target), score.system, mean, median, *counts])
    return table(heads, rows, numbers_from=2)


def pairs_table(found: Comparison, metric: str) -> str:
    """A Markdown table of the paired differences by one metric, a row a class and pair."""
    heads = ["class", "first", "second", "difference (95 %)", "p", "p, Holm", "Wilcoxon", "Wilcoxon, Holm"]
    heads += ["rank-biserial", "d_z", "better / equal / worse", "verdict"]
    rows = [
        [
            _target(found, pair.target),
            pair.first,
            pair.second,
            _difference(found, pair),
            *map(probability, (pair.sign_flip, pair.sign_flip_holm, pair.wilcoxon, pair.wilcoxon_holm)),
            number(pair.rank_biserial, 2),
            number(pair.standardized, 2),
            f"{pair.better} / {pair.equal} / {pair.worse}",
            pair.verdict,
        ]
        for pair in found.pairs
        if pair.metric == metric
    ]
    return table(heads, rows, numbers_from=3)


def _scores(found: Comparison) -> list[str]:
    blocks = ["## Scores"]
    for metric in found.metrics:
        blocks += [f"### {_title(found, metric)}", scores_table(found, metric)]
    return blocks


def _pairs(found: Comparison) -> list[str]:
    if not found.pairs:
        return []
    blocks = ["## Paired differences", "First less second; effect sizes are above 0 where the first is better."]
    for metric in found.metrics:
        blocks += [f"### {_title(found, metric)}: differences", pairs_table(found, metric)]
    if any(pair.no_worse for pair in found.pairs):
        blocks += [f"### No worse by a margin of {found.margin:g}", _margins(found)]
    return blocks


def _margins(found: Comparison) -> str:
    heads = ["system", "no worse than", "advantage above (97.5 %)", "p, one-sided", "p, Holm", "shown"]
    rows = []
    for pair in found.pairs:
        sides = ((pair.first, pair.second, pair.no_worse), (pair.second, pair.first, pair.no_better))
        rows += [_margin(found, pair.metric, one, other, side) for one, other, side in sides if side is not None]
    return table(heads, rows, numbers_from=2)


def _margin(found: Comparison, metric: str, one: str, other: str, side: NoWorse) -> list[object]:
    bound = value(found, metric, side.low, signed=True)
    return [one, other, bound, probability(side.p), probability(side.holm), "yes" if side.is_shown else "no"]


def _rankings(found: Comparison) -> list[str]:
    if not found.rankings:
        return []
    blocks = ["## Ranking"]
    for ranking in found.rankings:
        blocks += [f"### {_title(found, ranking.metric)}: {ranking.method}", _standings(ranking)]
    return blocks


def _standings(ranking: Ranking) -> str:
    heads = ["system", "rank", "first in resamples", "rank in 95 % of them", "better than"]
    rows = [
        [
            one.system,
            f"{one.rank:g}",
            f"{100 * one.first:.1f} %",
            f"{one.low:g} to {one.high:g}",
            "-" if one.beats is None else one.beats,
        ]
        for one in ranking.standings
    ]
    tau = "all are tied" if ranking.tau is None else f"mean Kendall's tau to the resamples {ranking.tau:.2f}"
    return f"{table(heads, rows)}\n\n{tau[0].upper()}{tau[1:]}."


def _making(found: Comparison) -> list[str]:
    main = found.metrics[0]
    rows = [
        [one.name, one.kind, ", ".join(value(found, main, mean) for mean in one.repetitions), one.lost]
        for one in found.systems
    ]
    pairs = "all pairs" if found.baseline is None else f"every system and {found.baseline}"
    tests = [
        f"{found.cases} cases of {found.subjects} subjects ({cell(found.subjects_from)}). The repetitions of a system "
        "are averaged case by case, then the classes of a case, then the cases of a subject: the subject is the unit. "
        "A class that neither reference nor any prediction holds is left out of a case; where a system invents it, the "
        "others have found it perfectly. What is undefined for one system is left out for all of them.",
        _VERDICT,
        "Intervals are percentile bootstrap intervals over subjects, expanded for few of them, and not corrected. p is "
        "that of the sign-flip permutation test of the mean difference, Wilcoxon's of the signed rank test. Corrected "
        f"by Holm's method are together: the differences in {METRICS[main].title}, mean over classes, of "
        f"{cell(pairs)}; and all others of this page. Below {FEWEST} subjects nothing is tested.",
        f"Everything for programs: `{FILE}`; every score: `{SCORES}`; seed {found.seed}.",
    ]
    if found.margin is not None:
        tests.insert(-1, _MARGIN)
    return [
        table(
            ["system", "scores from", f"{METRICS[main].title} of each repetition", "cases not compared"],
            rows,
            numbers_from=2,
        ),
        *tests,
    ]


_VERDICT = (
    "Better or worse is said where the corrected permutation test has p < 0.05 and the interval leaves out 0; anything "
    "else is not shown, which is not the same as equal."
)

_MARGIN = (
    "No worse by the margin: the one-sided bound of 97.5 %, which is the end of the interval, is above minus the "
    "margin, and the one-sided permutation test of the advantage plus the margin has p < 0.025 after Holm's correction "
    "for all such tests. The margin means something only if it was fixed before anybody looked."
)


def _title(found: Comparison, metric: str) -> str:
    kind = METRICS[metric]
    tolerance = (
        f" at {found.nsd_tolerance:g}{found.unit('distance')}" if metric == "nsd" and found.nsd_tolerance else ""
    )
    return f"{kind.title}{tolerance} ({'higher' if kind.is_higher_better else 'lower'} is better)"


def _target(found: Comparison, target: str) -> str:
    return f"mean of {len(found.classes)}" if target == MEAN and len(found.classes) > 1 else _only(found, target)


def _only(found: Comparison, target: str) -> str:
    return found.classes[0] if target == MEAN else target


def _mean(found: Comparison, score: SystemScore) -> str:
    return _with(found, score.metric, score.mean, (score.low, score.high), signed=False)


def _difference(found: Comparison, pair: Pair) -> str:
    return _with(found, pair.metric, pair.difference, (pair.low, pair.high), signed=True)


def _with(found: Comparison, metric: str, mean: float, ends: Sequence[float | None], *, signed: bool) -> str:
    """A mean with its interval."""
    digits, sign = METRICS[metric].digits, "+" if signed else ""
    known = [f"{end:{sign}.{digits}f}" for end in ends if end is not None]
    return f"{value(found, metric, mean, signed=signed)} ({' to '.join(known) or 'too few'})"
