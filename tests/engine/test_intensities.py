"""Statistics of one case and of many, beside numpy on all values at once."""

from __future__ import annotations

import numpy as np
import pytest

from selfcfg.engine.intensities import MAX_SAMPLE, describe, pool
from selfcfg.fingerprint import CaseFingerprint, ChannelStatistics


def case(values: np.ndarray | None) -> CaseFingerprint:
    statistics, text = (None, "") if values is None else describe(values.astype(np.float32))
    return CaseFingerprint(
        case="a",
        subject="a",
        shape=(1, 1, 1),
        shape_after_crop=(1, 1, 1),
        spacing=(1, 1, 1),
        orientation="SPL",
        dimensions=3,
        intensities=(statistics,),
        voxels={},
        source="",
        picture="",
        quantiles=(text,),
    )


def even_mixture(groups: list[np.ndarray], share: float) -> tuple[float, float]:
    """The values that an even mixture has at shares just below and above `share`, by sorting everything."""
    values = np.concatenate(groups)
    weights = np.concatenate([np.full(group.size, 1 / group.size / len(groups)) for group in groups])
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    low, high = (min(np.searchsorted(reached, share + step), values.size - 1) for step in (-0.001, 0.001))
    return values[order][low], values[order][high]


def test_one_case_is_described_exactly():
    values = np.random.default_rng(0).normal(100, 30, 10_001).astype(np.float32)
    found, _ = describe(values.copy())
    wide = values.astype(np.float64)
    assert found.mean == pytest.approx(wide.mean(), rel=1e-12)
    assert found.std == pytest.approx(wide.std(), rel=1e-7)
    assert (found.min, found.max) == (wide.min(), wide.max())
    low, middle, high = np.percentile(wide, [0.5, 50, 99.5])
    assert (found.percentile_00_5, found.median, found.percentile_99_5) == pytest.approx((low, middle, high))


def test_one_value():
    found, text = describe(np.array([7.0], dtype=np.float32))
    assert found == ChannelStatistics(max=7, mean=7, median=7, min=7, percentile_00_5=7, percentile_99_5=7, std=0)
    assert set(text.split()) == {"7"}


def test_large_offsets_do_not_cost_the_deviation():
    values = (np.random.default_rng(0).normal(0, 1, 100_000) + 1e5).astype(np.float32)
    assert describe(values.copy())[0].std == pytest.approx(values.astype(np.float64).std(), rel=1e-6)


def test_many_voxels_are_thinned_out():
    values = np.sort(np.random.default_rng(0).exponential(10, MAX_SAMPLE + 12_345).astype(np.float32))
    values[-1] = 5000
    found, _ = describe(values.copy())
    assert found.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-9)
    assert found.max == 5000
    for percent, value in ((0.5, found.percentile_00_5), (50, found.median), (99.5, found.percentile_99_5)):
        low, high = np.percentile(values, [percent - 0.02, percent + 0.02])
        assert low <= value <= high
    assert describe(values.copy())[0] == found


@pytest.mark.parametrize("whole_numbers", [True, False])
def test_pooling_is_the_even_mixture(whole_numbers):
    rng = np.random.default_rng(1)
    groups = [
        rng.normal(50, 10, 30_000),
        rng.normal(400, 100, 500),
        rng.exponential(30, 2000) - 900,
        rng.integers(0, 3, 9000).astype(float),
    ]
    if whole_numbers:
        groups = [np.rint(group) for group in groups]
    groups = [group.astype(np.float32) for group in groups]
    found = pool([case(group) for group in groups], 0)
    assert found is not None
    means, variances = (np.array([getattr(g.astype(np.float64), what)() for g in groups]) for what in ("mean", "var"))
    assert found.mean == pytest.approx(means.mean())
    assert found.std == pytest.approx(np.sqrt((variances + means**2).mean() - means.mean() ** 2), rel=1e-6)
    assert (found.min, found.max) == (min(g.min() for g in groups), max(g.max() for g in groups))
    for share, value in ((0.005, found.percentile_00_5), (0.5, found.median), (0.995, found.percentile_99_5)):
        low, high = even_mixture(groups, share)
        assert low <= value <= high
    if whole_numbers:
        assert found.median == round(found.median)


def test_a_case_of_one_voxel_counts_like_any_other():
    found = pool([case(np.zeros(1000)), case(np.array([10.0]))], 0)
    assert found is not None
    assert (found.mean, found.std) == (5, 5)


def test_cases_without_foreground_are_left_out():
    values = np.arange(100.0)
    assert pool([case(None), case(values)], 0) == pool([case(values)], 0)
    assert pool([case(None)], 0) is None
