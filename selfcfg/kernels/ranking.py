"""How well numbers put cases in order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


def area_under_curve(scores: Numbers, positive: npt.NDArray[np.bool_]) -> float | None:
    """The area under the ROC curve; None where all cases, or none, are positive.

    It is the share of pairs of a positive and a negative case in which the positive one has the higher score, ties
    counting half.

    Args:
        scores: (N,), higher for what is taken for positive.
        positive: (N,), what is.

    Source: Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve, 1982; by ranks (Mann and Whitney).

    Example:
        >>> area_under_curve(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
        0.875
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    above = float(_ranks(scores)[positive].sum()) - n_positive * (n_positive + 1) / 2
    return above / (n_positive * n_negative)


def rank_correlation(first: Numbers, second: Numbers) -> float | None:
    """Spearman's correlation of two series (N,), ties having their mean rank; None where one is constant.

    Source: Spearman, The Proof and Measurement of Association between Two Things, 1904.
    """
    if not len(first) or (first == first[0]).all() or (second == second[0]).all():
        return None
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: Numbers) -> Numbers:
    """The rank of each value from 1, ties having their mean rank."""
    from scipy.stats import rankdata  # noqa: PLC0415 - slow to import

    found: Numbers = rankdata(values)
    return found
