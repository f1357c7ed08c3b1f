"""In which order systems stand by their scores on the same subjects, and how far other subjects would change it.

A ranking is a fragile thing (Maier-Hein et al., Why rankings of biomedical image analysis competitions should be
interpreted with care, Nature Communications 2018): so it is made in two ways, and for many resamples of the subjects.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfcfg.kernels.statistics import CONFIDENCE, FEWEST, RESAMPLES

Values = NDArray[np.float64]
Method = Literal["rank of means", "mean of ranks"]

METHODS: tuple[Method, ...] = ("rank of means", "mean of ranks")
"""Scores are averaged over subjects, then ranked; or ranked within each subject, then averaged and ranked again."""

_ROUNDING = 1e-12
"""Means that differ by less are ties: the order of a sum must not decide a rank."""


class Stability(NamedTuple):
    """The ranks of K systems, and what became of them in bootstrap resamples of the subjects.

    Args:
        ranks: (K,) from 1, the best; ties share their mean rank.
        first: (K,) share of the resamples in which each is first; a tie at the top is shared out.
        frequency: (K, K) share of the resamples in which system i has rank j + 1 (a shared rank rounded down).
        interval: (K, 2) the ranks that hold 95 % of the resamples.
        tau: mean of Kendall's tau-b between the ranks of all subjects and those of a resample; None where all are tied.
    """

    ranks: Values
    first: Values
    frequency: Values
    interval: Values
    tau: float | None


def ranked(scores: Values) -> Values:
    """The rank of each system in the last axis, from 1 for the highest score; ties share their mean rank.

    Example:
        >>> ranked(np.array([0.8, 0.9, 0.8])).tolist()
        [2.5, 1.0, 2.5]
    """
    ahead = scores[..., np.newaxis, :] - scores[..., :, np.newaxis]
    ties = (np.abs(ahead) <= _ROUNDING).sum(-1) - 1
    return np.asarray(1 + (ahead > _ROUNDING).sum(-1) + ties / 2)


def stability(scores: Values, method: Method, rng: np.random.Generator, resamples: int = RESAMPLES) -> Stability | None:
    """The ranking of systems and its stability; None with fewer than `FEWEST` subjects or two systems.

    Args:
        scores: (subjects, K), higher is better.
        method: one of `METHODS`.
        rng: draws the resamples: subjects, with all scores of each.
        resamples: of the bootstrap.

    Source: Wiesenfarth et al., Methods and open-source toolkit for analyzing and visualizing challenge results
    (challengeR), Scientific Reports 2021: "Ranking variability via bootstrapping"; Kendall, The treatment of ties in
    ranking problems, 1945, for tau-b.
    """
    count, systems = scores.shape
    if count < FEWEST or systems < 2:
        return None
    averaged = scores if method == "rank of means" else -ranked(scores)
    ranks = ranked(averaged.mean(0))
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    again = ranked(weights @ averaged / count)
    top = again == again.min(1, keepdims=True)
    places = np.floor(again)[..., np.newaxis] == np.arange(1, systems + 1)
    ends = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    return Stability(
        ranks=ranks,
        first=(top / top.sum(1, keepdims=True)).mean(0),
        frequency=places.mean(0),
        interval=np.quantile(again, ends, axis=0, method="closest_observation").T,
        tau=_mean_tau(ranks, again),
    )


def _mean_tau(ranks: Values, again: Values) -> float | None:
    """The mean of Kendall's tau-b of (K,) ranks to each of (resamples, K); a resample of ties alone counts 0."""
    one, other = np.triu_indices(len(ranks), 1)
    here, there = np.sign(ranks[one] - ranks[other]), np.sign(again[:, one] - again[:, other])
    if not here.any():
        return None
    norm = np.sqrt((here != 0).sum() * (there != 0).sum(1))
    return float(np.divide(there @ here, norm, out=np.zeros(len(again)), where=norm > 0).mean())
