"""Which candidate is chosen: the simplest of those that are not shown to be worse than the best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.selection.records import Candidate, Rule
from selfcfg.kernels.statistics import FEWEST, SURE, Interval, estimate, holm, paired

_SIMPLE = ("single", "pair", "greedy")


def judged(
    candidates: Sequence[Candidate], scores: Sequence[NDArray[np.float64]], rule: Rule, seed: int
) -> list[Candidate]:
    """The candidates, simpler and cheaper ones first, with intervals, tests, reasons, and one of them chosen.

    Every one is compared with the one with the highest score, subject by subject. It is worse where the sign-flip
    test, corrected for all comparisons by Holm's method, is below 0.05 and the interval of the difference is below 0.
    So a simplest candidate that is as good as all others is passed over at most 5 times in 100: for that it must
    differ from one of them by a p below 0.05 by their number.

    Args:
        candidates: at least one.
        scores: of each, a value a subject.
        rule: see `Selection`.
        seed: of resamples and sign flips.
    """
    order = sorted(range(len(candidates)), key=lambda place: _simplicity(candidates[place]))
    ones, values = [candidates[place] for place in order], [scores[place] for place in order]
    means = [float(one.mean()) for one in values]
    best = max(range(len(ones)), key=lambda place: (round(means[place], 12), -place))
    rng = np.random.default_rng(seed)
    tests = [paired((one - values[best]).tolist(), rng) for one in values]
    corrected = holm([None if place == best else test.sign_flip for place, test in enumerate(tests)])
    told = [
        one.model_copy(
            update={
                "score": means[place],
                "interval": _ends(estimate(values[place].tolist(), rng).interval),
                "difference": means[place] - means[best],
                "difference_interval": None if place == best else _ends(tests[place].difference.interval),
                "p": None if place == best else tests[place].sign_flip,
                "p_holm": corrected[place],
            }
        )
        for place, one in enumerate(ones)
    ]
    few = len(values[0]) < FEWEST
    chosen = best if rule == "highest" else _chosen(told, best, few=few)
    return [
        one.model_copy(update={"chosen": place == chosen, "why": _why(told, place, chosen, best, few=few, rule=rule)})
        for place, one in enumerate(told)
    ]


def _simplicity(one: Candidate) -> tuple[int, float, str]:
    return _SIMPLE.index(one.kind), one.cost, one.name


def _chosen(told: Sequence[Candidate], best: int, *, few: bool) -> int:
    """The first that is not worse; with too few subjects for a test, the single experiment with the highest score."""
    if few:
        singles = [place for place, one in enumerate(told) if one.kind == "single"]
        return max(singles, key=lambda place: (round(told[place].score, 12), -place))
    return next(place for place, one in enumerate(told) if place == best or not _is_worse(one))


def _is_worse(one: Candidate) -> bool:
    is_sure = one.p_holm is not None and one.p_holm < SURE
    return is_sure and one.difference_interval is not None and one.difference_interval[1] < 0


def _why(told: Sequence[Candidate], place: int, chosen: int, best: int, *, few: bool, rule: Rule) -> str:
    if rule == "highest":
        return "the highest score" if place == best else "a lower score"
    if few:
        return _why_of_few(told[place], is_chosen=place == chosen)
    if place == chosen:
        why = "the highest score, and every simpler one is worse" if place else "the simplest, and the highest score"
        return why if place == best else f"the simplest within chance of the highest score, that of {told[best].name}"
    if _is_worse(told[place]):
        return f"worse than {told[best].name}"
    which = "the highest score, but within chance of" if place == best else "not shown to be better than"
    return f"{which} {told[chosen].name}, which is simpler"


def _why_of_few(one: Candidate, *, is_chosen: bool) -> str:
    few = f"fewer than {FEWEST} subjects show no"
    if is_chosen:
        return f"the highest score of a single experiment; {few} difference"
    return "a lower score" if one.kind == "single" else f"{few} gain of an ensemble"


def _ends(found: Interval | None) -> tuple[float, float] | None:
    return None if found is None else (found.low, found.high)
