"""Intervals and tests of paired differences: against scipy's, by hand, and by simulation of what they promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from selfcfg.kernels.statistics import (
    FEWEST,
    estimate,
    holm,
    non_inferiority,
    paired,
    rank_biserial,
    sign_flip,
    sign_flip_above,
    standardized_mean,
    subject_means,
    wilcoxon,
)

SKEWED = [0.31, -0.02, 0.05, 0.01, 0.12, 0.0, 0.03, 0.44, 0.02, 0.09, -0.05, 0.2]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_values_of_a_subject_are_averaged_first() -> None:
    assert subject_means([1.0, 0.0, 0.5], ["b", "a", "b"]) == {"a": 0.0, "b": 0.75}


def test_intervals_are_those_of_scipy_but_expanded() -> None:
    made, ends = (
        estimate(SKEWED, generator(), 20000).interval,
        1 - 2 * stats.norm.sf(stats.t.ppf(0.975, 11) * (12 / 11) ** 0.5),
    )
    theirs = stats.bootstrap(
        (SKEWED,), np.mean, method="percentile", confidence_level=ends, n_resamples=20000, random_state=1
    ).confidence_interval
    assert made is not None
    assert tuple(made) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng, held = generator(), 0
    for _ in range(500):
        interval = estimate(rng.gamma(4.0, 0.25, 40) - 1.0, rng, 500).interval
        assert interval
        held += interval.low <= 0 <= interval.high
    assert 0.91 <= held / 500 <= 0.97


def test_clusters_taken_for_single_subjects_would_give_false_confidence() -> None:
    rng, by_subject, by_case = generator(), 0, 0
    subjects = [str(index // 6) for index in range(120)]
    for _ in range(200):
        values = np.repeat(rng.normal(size=20), 6) + 0.3 * rng.normal(size=120)
        for name, sample in (("subject", [*subject_means(values, subjects).values()]), ("case", values)):
            interval = estimate(sample, rng, 300).interval
            assert interval
            held = interval.low <= 0 <= interval.high
            by_subject, by_case = by_subject + (held and name == "subject"), by_case + (held and name == "case")
    assert by_subject / 200 > 0.88
    assert by_case / 200 < 0.7


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0.02, 0.08), (0.8, 0.85, 1.0)])
def test_tests_reject_as_rarely_as_they_promise_and_find_what_is_there(shift: float, least: float, most: float) -> None:
    rng = generator()
    samples = [rng.laplace(shift, 1.0 / math.sqrt(2), 20) for _ in range(500)]
    flipped = [sign_flip(sample, rng, 499) for sample in samples]
    ranked = [wilcoxon(sample) for sample in samples]
    for found in (flipped, ranked):
        assert least <= np.mean([p is not None and p < 0.05 for p in found]) <= most


@pytest.mark.parametrize("n", [7, 20])
def test_sign_flips_agree_with_scipy(n: int) -> None:
    sample = generator(3).normal(0.4, 1, n)
    theirs = stats.permutation_test((sample,), np.mean, permutation_type="samples", n_resamples=9999, random_state=1)
    assert sign_flip(sample, generator(1)) == pytest.approx(theirs.pvalue, abs=1e-9 if n == 7 else 0.01)


def test_six_differences_of_one_sign_are_just_enough() -> None:
    assert sign_flip(np.full(6, 0.1), generator()) == 2 / 2**6
    assert wilcoxon(np.arange(1.0, 7.0)) == pytest.approx(2 / 2**6)


def test_random_flips_never_give_zero() -> None:
    assert sign_flip(np.ones(40), generator(), 99) == 0.01


def test_too_few_subjects_are_a_value() -> None:
    found = paired([0.1] * (FEWEST - 1), generator())
    assert found.difference.mean == pytest.approx(0.1)
    assert (found.difference.interval, found.wilcoxon, found.sign_flip) == (None,) * 3
    assert math.isnan(estimate([], generator()).mean)


def test_no_difference_at_all_is_no_evidence() -> None:
    found = paired([0.0] * 30, generator())
    assert (found.wilcoxon, found.sign_flip) == (1.0, 1.0)
    assert found.difference.interval == (0.0, 0.0)


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.03, 0.04: times 3, 2, 1, and never falling
    assert holm([0.04, None, 0.01, 0.03]) == [pytest.approx(0.06), None, pytest.approx(0.03), pytest.approx(0.06)]
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_claim() -> None:
    rng = generator()
    families = [[p for _ in range(6) if (p := sign_flip(rng.normal(size=12), rng)) is not None] for _ in range(300)]
    corrected = np.mean([min(p or 0.0 for p in holm(family)) < 0.05 for family in families])
    uncorrected = np.mean([min(family) < 0.05 for family in families])
    assert corrected <= 0.08
    assert uncorrected > 0.18


def test_the_same_generator_gives_the_same_numbers() -> None:
    assert paired(SKEWED, generator(5)) == paired(SKEWED, generator(5))


def test_non_inferiority_is_shown_where_the_lower_bound_is_above_the_margin() -> None:
    values = np.random.default_rng(1).normal(-0.002, 0.01, 60)
    found = non_inferiority(values, 0.01, np.random.default_rng(0))
    assert found.difference == pytest.approx(values.mean())
    assert found.is_shown and found.low is not None and -0.01 < found.low < values.mean()
    assert found.p is not None and found.p < 0.001
    strict = non_inferiority(values, 0.001, np.random.default_rng(0))
    assert not strict.is_shown and strict.low == found.low and strict.p is not None and strict.p > 0.05
    assert non_inferiority(values[:5], 1.0, np.random.default_rng(0)) == (values[:5].mean(), 1.0, None, None)
    assert not non_inferiority(values[:5], 1.0, np.random.default_rng(0)).is_shown


def test_its_p_counts_all_sign_flips_with_a_mean_as_high() -> None:
    differences = np.array([0.3, -0.1, 0.2, 0.05, 0.4, -0.2, 0.1])
    shifted = differences + 0.05
    flips = np.array(list(itertools.product((1, -1), repeat=len(shifted))))
    by_hand = (flips @ shifted >= shifted.sum() - 1e-12).mean()
    assert non_inferiority(differences, 0.05, np.random.default_rng(0)).p == pytest.approx(by_hand)


def test_a_method_that_is_worse_by_the_margin_is_seldom_passed() -> None:
    rng = np.random.default_rng(3)
    shown = [non_inferiority(rng.normal(-0.01, 0.01, 30), 0.01, rng, 499).is_shown for _ in range(200)]
    assert np.mean(shown) < 0.11


@pytest.mark.parametrize("n", [6, 10, 20])
def test_intervals_of_normal_samples_are_about_t_intervals(n: int) -> None:
    sample = generator(7).normal(size=n)
    made = estimate(sample, generator(), 40000).interval
    theirs = stats.t.interval(0.95, n - 1, sample.mean(), stats.sem(sample))
    assert made and made.high - made.low == pytest.approx(theirs[1] - theirs[0], rel=0.12)


def test_intervals_hold_the_truth_with_few_subjects() -> None:
    rng, held = generator(), 0
    for _ in range(600):
        interval = estimate(rng.normal(size=8), rng, 400).interval
        assert interval
        held += interval.low <= 0 <= interval.high
    assert 0.92 <= held / 600 <= 0.98


def test_intervals_hold_the_truth_where_single_subjects_fail() -> None:
    rng, held = generator(8), 0
    for _ in range(500):
        lost = rng.random((2, 20)) < 0.05
        interval = estimate([*(rng.normal(0, 0.02, 20) + 0.5 * lost[0] - 0.5 * lost[1])], rng, 400).interval
        assert interval
        held += interval.low <= 0 <= interval.high
    assert held / 500 > 0.88


def test_a_mean_above_a_bound_has_a_small_p() -> None:
    sample = generator(2).normal(0.5, 0.2, 9)
    assert sign_flip_above(sample, 0.0, generator()) == 1 / 2**9
    assert sign_flip_above(sample, float(sample.mean()), generator()) == pytest.approx(0.5, abs=0.1)
    assert sign_flip_above(sample[:5], 0.0, generator()) is None


def test_rank_biserial_by_hand_and_from_the_statistic_of_wilcoxon() -> None:
    # ranks of 0.4, -0.1, 0.2, 0.3: 4, 1, 2, 3
    assert rank_biserial(np.array([0.4, -0.1, 0.2, 0.3])) == pytest.approx((9 - 1) / 10)
    assert rank_biserial(np.full(5, -0.1)) == -1
    assert rank_biserial(np.zeros(5)) == 0
    sample = generator(5).normal(0.3, 1, 30)
    above = stats.wilcoxon(sample, alternative="greater").statistic
    assert rank_biserial(sample) == pytest.approx(2 * above / (30 * 31 / 2) - 1)


def test_standardized_means() -> None:
    sample = generator(5).normal(0.3, 1, 30)
    assert standardized_mean(sample) == pytest.approx(stats.ttest_1samp(sample, 0).statistic / math.sqrt(30))
    assert standardized_mean(np.full(9, 0.1)) is None
    assert standardized_mean(np.array([1.0])) is None
