"""Areas under ROC curves against all pairs, and correlations of ranks against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from selfcfg.kernels.ranking import area_under_curve, rank_correlation


@pytest.mark.parametrize("seed", range(20))
def test_the_area_is_the_share_of_pairs_in_order_with_ties_for_a_half(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, 25) / 6
    positive = rng.random(25) < 0.4
    pairs = [(high > low) + 0.5 * (high == low) for high in scores[positive] for low in scores[~positive]]
    assert area_under_curve(scores, positive) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_without_one_of_both_there_is_no_area() -> None:
    assert area_under_curve(np.array([0.1, 0.9]), np.array([True, True])) is None
    assert area_under_curve(np.array([0.1, 0.9]), np.array([False, False])) is None


def test_ranks_are_correlated_as_scipy_does() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, (2, 40)).astype(float)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert rank_correlation(first, np.ones(40)) is None
    assert rank_correlation(np.zeros(0), np.zeros(0)) is None
