"""Rankings of systems: against scipy, by hand, and by simulation of what their stability promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from selfcfg.kernels.rank_stability import METHODS, Method, ranked, stability

every_method = pytest.mark.parametrize("method", METHODS)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_ranks_are_those_of_scipy() -> None:
    scores = generator().integers(4, size=(50, 5)) / 4
    assert ranked(scores).tolist() == stats.rankdata(-scores, axis=1).tolist()


def test_a_difference_of_rounding_is_a_tie() -> None:
    assert ranked(np.array([0.1 + 0.2, 0.3])).tolist() == [1.5, 1.5]


def test_the_two_ways_may_disagree() -> None:
    # a is a little better on five of six subjects, and fails on the sixth
    scores = np.array([[0.91, 0.9]] * 5 + [[0.1, 0.9]])
    found = {method: stability(scores, method, generator()) for method in METHODS}
    assert {method: one.ranks.tolist() for method, one in found.items() if one} == {
        "rank of means": [2.0, 1.0],
        "mean of ranks": [1.0, 2.0],
    }


def test_stability_is_that_of_a_plain_loop() -> None:
    scores = generator(1).normal((0.0, 0.3, 0.5), size=(12, 3))
    found = stability(scores, "rank of means", generator(2), 4000)
    assert found
    rng, firsts, taus = generator(3), np.zeros(3), []
    for _ in range(4000):
        again = stats.rankdata(-scores[rng.integers(12, size=12)].mean(0))
        firsts += again == 1
        taus.append(stats.kendalltau(found.ranks, again).statistic)
    assert found.first == pytest.approx(firsts / 4000, abs=0.03)
    assert found.tau == pytest.approx(np.mean(taus), abs=0.03)
    assert found.frequency.sum(1) == pytest.approx(1) and found.frequency[:, 0] == pytest.approx(found.first, abs=1e-9)


@every_method
def test_systems_that_are_clearly_different_keep_their_order(method: Method) -> None:
    scores = generator().normal(size=(30, 1)) + [0.0, 1.0, 2.0] + 0.3 * generator(1).normal(size=(30, 3))
    found = stability(scores, method, generator(2), 999)
    assert found and found.ranks.tolist() == [3, 2, 1]
    assert found.first.tolist() == [0, 0, 1] and found.tau == 1
    assert found.interval.tolist() == [[3, 3], [2, 2], [1, 1]]


@every_method
def test_of_equal_systems_none_is_first_for_sure(method: Method) -> None:
    rng = generator(4)
    most, places = [], np.zeros(4)
    for _ in range(100):
        found = stability(rng.normal(size=(40, 4)), method, rng, 200)
        assert found
        most.append(found.first.max())
        places += found.first / 100
    assert np.mean(np.array(most) > 0.95) < 0.1
    assert places == pytest.approx(0.25, abs=0.08)


@every_method
def test_the_same_scores_are_ties(method: Method) -> None:
    found = stability(np.repeat(generator().normal(size=(10, 1)), 3, axis=1), method, generator(), 99)
    assert found and found.ranks.tolist() == [2, 2, 2] and found.tau is None
    assert found.first == pytest.approx(1 / 3)


def test_too_few_subjects_or_a_single_system_have_no_stability() -> None:
    assert stability(np.zeros((5, 2)), "rank of means", generator()) is None
    assert stability(np.zeros((9, 1)), "rank of means", generator()) is None
