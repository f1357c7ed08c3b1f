"""Whether two methods differ on the same test subjects: intervals by the bootstrap, paired tests, Holm's correction.

The subject is the unit: several cases of one subject, and several trainings (seeds), are averaged first, see
`subject_means`. What follows then speaks of subjects like these, and of the trainings that were averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

Values = NDArray[np.float64]

FEWEST = 6
"""Below so many subjects nothing is estimated but the mean: of five signs, the most extreme still has p = 0.0625."""

FEW = 20
"""Below so many subjects a comparison says that they are few."""

RESAMPLES = 9999
CONFIDENCE = 0.95
SURE = 0.05
"""Corrected p below which a difference is called shown."""

_EXACT = 13
"""Up to so many subjects all sign flips are tried, at most 2 ** 12 after symmetry; beyond, random ones."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class Estimate(NamedTuple):
    """The mean over subjects and how sure it is; what needs more subjects than there are is None.

    Args:
        n: subjects.
        mean: over them; NaN without any.
        interval: that holds the mean of all such subjects 95 times in 100.
    """

    n: int
    mean: float
    interval: Interval | None


class Paired(NamedTuple):
    """A method's differences to another one on the same subjects; what needs more subjects than there are is None.

    Args:
        difference: mean difference, with its interval.
        wilcoxon: p of the signed rank test, two-sided.
        sign_flip: p of the permutation test of the mean that flips signs, two-sided.
    """

    difference: Estimate
    wilcoxon: float | None
    sign_flip: float | None


class NonInferiority(NamedTuple):
    """Whether a method is worse than another one by less than a margin; None where there are too few subjects.

    Args:
        difference: mean over subjects, this method less the other.
        margin: by which it may be worse, above 0.
        low: the difference is above this with a confidence of 95 % (one-sided).
        p: one-sided, of the sign-flip permutation test of the differences plus the margin.
    """

    difference: float
    margin: float
    low: float | None
    p: float | None

    @property
    def is_shown(self) -> bool:
        """Whether being worse by the margin is ruled out."""
        return self.low is not None and self.low > -self.margin


def subject_means(values: Sequence[float], subjects: Sequence[str]) -> dict[str, float]:
    """The mean of each subject's values, by subject in sorted order: every cluster becomes one value of weight one.

    Args:
        values: one a case, or one a case and training.
        subjects: whose each value is.
    """
    found: dict[str, list[float]] = {}
    for value, subject in zip(values, subjects, strict=True):
        found.setdefault(subject, []).append(value)
    return {subject: math.fsum(found[subject]) / len(found[subject]) for subject in sorted(found)}


def estimate(
    values: Sequence[float],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The mean of one value a subject, with a percentile interval of the bootstrap that is expanded for few subjects.

    It is wider than the plain one by what a t interval is wider than a normal one with the maximum likelihood variance:
    plain intervals of ten subjects hold the truth about 90 times in 100. BCa intervals lean too far away from single
    subjects that fail; of 20 subjects with such failures they held it 81 times in 100, these 92 times.

    Args:
        values: one a subject.
        rng: draws the resamples.
        resamples: of the bootstrap.
        confidence: another one than 0.95.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3; Hesterberg, What Teachers Should
    Know About the Bootstrap, 2015, section 5.3. Measured: benchmarks/statistics_simulation.py.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < FEWEST:
        return Estimate(len(sample), float(sample.mean()) if len(sample) else math.nan, None)
    mean = float(sample.mean())
    if np.ptp(sample) == 0:
        return Estimate(len(sample), mean, Interval(mean, mean))
    means = sample[rng.integers(len(sample), size=(resamples, len(sample)))].mean(1)
    ends = _expanded(((1 - confidence) / 2, (1 + confidence) / 2), len(sample))
    low, high = np.quantile(means, ends)
    return Estimate(len(sample), mean, Interval(float(low), float(high)))


def paired(differences: Sequence[float], rng: np.random.Generator, resamples: int = RESAMPLES) -> Paired:
    """The mean of paired differences with its interval, and the tests of no difference.

    Args:
        differences: one a subject, this method less the other.
        rng: draws the resamples and the random sign flips.
        resamples: of the bootstrap, and of the sign flips where there are too many to try all.
    """
    sample = np.asarray(differences, dtype=np.float64)
    found = estimate(differences, rng, resamples)
    return Paired(found, wilcoxon(sample), sign_flip(sample, rng, resamples))


def non_inferiority(
    differences: Sequence[float], margin: float, rng: np.random.Generator, resamples: int = RESAMPLES
) -> NonInferiority:
    """Whether the mean of paired differences is above minus a margin, which has to be fixed beforehand.

    Args:
        differences: one a subject, this method less the other; higher is better.
        margin: above 0.
        rng: draws the resamples and the random sign flips.
        resamples: of the bootstrap, and of the sign flips where there are too many to try all.

    Source: Piaggio et al., Reporting of Noninferiority and Equivalence Randomized Trials (CONSORT), 2012: the one-sided
        bound of 95 % is the lower end of the two-sided interval of 90 %.
    """
    sample = np.asarray(differences, dtype=np.float64)
    found = estimate(differences, rng, resamples, confidence=2 * CONFIDENCE - 1)
    p = sign_flip_above(sample, -margin, rng, resamples)
    return NonInferiority(found.mean, margin, found.interval.low if found.interval else None, p)


def wilcoxon(differences: Values) -> float | None:
    """The two-sided p of Wilcoxon's signed rank test; 1 where all differences are 0, None with too few subjects.

    Zeros are ranked with the others and then left out, so that many equal pairs speak for no difference.

    Source: Pratt, Remarks on zeros and ties in the Wilcoxon signed rank procedures, 1959.
    """
    if len(differences) < FEWEST:
        return None
    if not differences.any():
        return 1.0
    from scipy.stats import wilcoxon as signed_rank  # noqa: PLC0415 - slow to import

    return float(signed_rank(differences, zero_method="pratt", method="auto").pvalue)


def sign_flip(differences: Values, rng: np.random.Generator, flips: int = RESAMPLES) -> float | None:
    """The two-sided p of the permutation test of the mean: the share of sign flips with a mean as far from 0.

    Exact where all flips can be tried; else p counts the flip that was found as one of the random ones, which makes it
    valid for any number of them. None with too few subjects.

    Source: Fisher's randomisation of pairs; Phipson and Smyth, Permutation p-values should never be zero, 2010.
    """
    return _sign_flip(differences, rng, flips, two_sided=True)


def sign_flip_above(
    differences: Values, bound: float, rng: np.random.Generator, flips: int = RESAMPLES
) -> float | None:
    """The one-sided p of the permutation test that the mean is above a bound; None with too few subjects.

    See `sign_flip`: the differences less the bound are flipped.
    """
    return _sign_flip(differences - bound, rng, flips, two_sided=False)


def _sign_flip(differences: Values, rng: np.random.Generator, flips: int, *, two_sided: bool) -> float | None:
    """See `sign_flip`; one-sided it is the share of sign flips with a mean as high."""
    count = len(differences)
    if count < FEWEST:
        return None
    distance = np.abs if two_sided else np.asarray
    rounding = 1e-12 * np.abs(differences).sum()  # must not decide a tie
    bound = distance(differences.sum()) - rounding
    if count <= _EXACT:
        # flipping all signs gives the same distance from 0, so the last one stays
        codes = np.arange(2 ** (count - two_sided))[:, np.newaxis] >> np.arange(count)
        return float((distance((1 - 2 * (codes & 1)) @ differences) >= bound).mean())
    signs = 1 - 2 * rng.integers(2, size=(flips, count), dtype=np.int8)
    return float((1 + (distance(signs @ differences) >= bound).sum()) / (1 + flips))


def rank_biserial(differences: Values) -> float:
    """The matched-pairs rank-biserial correlation: of the ranks of absolute differences, the share above 0 less below.

    1 where every subject has a higher value, -1 where every one a lower; 0 where all are equal or there are none. Zeros
    are ranked with the others and then left out, as in `wilcoxon`.

    Source: Kerby, The Simple Difference Formula, 2014.

    Example:
        >>> rank_biserial(np.array([0.1, 0.2, -0.3]))
        0.0
    """
    from scipy.stats import rankdata  # noqa: PLC0415 - slow to import

    ranks = rankdata(np.abs(differences))
    above, below = float(ranks[differences > 0].sum()), float(ranks[differences < 0].sum())
    return (above - below) / (above + below) if above + below else 0.0


def standardized_mean(differences: Values) -> float | None:
    """Cohen's d_z: the mean of paired differences in their own standard deviations; None where these are all equal.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, section 2.3.5; the name: Lakens,
    Calculating and reporting effect sizes, 2013, equation 6.

    Example:
        >>> standardized_mean(np.array([0.0, 1.0, 2.0]))
        1.0
    """
    deviation = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    rounding = 1e-12 * float(np.abs(differences).max(initial=0.0))  # equal values may not have a deviation of just 0
    return float(differences.mean()) / deviation if deviation > rounding else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Each p adjusted for all of them: below 0.05 means that the chance of any false claim among them is below 5 %.

    A None (too few subjects) stays None and counts for nothing.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[index] = highest
    return adjusted


def _expanded(ends: tuple[float, float], count: int) -> tuple[float, float]:
    """The ends of an interval moved outwards as far as quantiles of t are beyond normal ones of a sample's variance."""
    low, high = ndtr(math.sqrt(count / (count - 1)) * stdtrit(count - 1, np.asarray(ends)))
    return float(low), float(high)
