"""Target spacing, axis order and median shape, on values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from selfcfg.errors import UsageError
from selfcfg.planners.spacing import axis_order, median_shape, target_spacing


def test_median_axis_by_axis(facts):
    fingerprint = facts([(1, 1, 3), (2, 1, 2), (3, 4, 1)], [(50, 50, 50)] * 3)
    found = target_spacing(fingerprint)
    assert found.values.tolist() == [2, 1, 2]
    assert found.rule == "median"


def test_thick_slices_take_the_tenth_percentile(facts):
    slices = [5, 6, 10, 10, 10, 10, 10, 10, 10, 10, 10]
    found = target_spacing(facts([(z, 1.5, 1.4) for z in slices], [(10, 200, 220)] * 11))
    assert found.rule == "finer"
    assert found.axis == 0
    assert found.values.tolist() == [6, 1.5, 1.4]
    assert found.median.tolist() == [10, 1.5, 1.4]


def test_the_finer_spacing_stays_above_the_others(facts):
    slices = [1, 1, 10, 10, 10, 10, 10]
    found = target_spacing(facts([(z, 1.5, 1.4) for z in slices], [(10, 200, 220)] * 7))
    assert found.values[0] == 1.5 + 1e-5


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [((4.5, 1.5, 1.5), (10, 200, 200)), ((9, 1.5, 1.5), (70, 200, 200))],
    ids=["exactly three times as coarse", "a third of the voxels or more"],
)
def test_slices_that_are_not_thick_enough(facts, spacing, shape):
    assert target_spacing(facts([spacing, (1, 1.5, 1.5), spacing], [shape] * 3)).rule == "median"


def test_given_spacing_replaces_the_rule(facts):
    found = target_spacing(facts([(1, 1, 1)], [(9, 9, 9)]), (3.0, 2.0, 1.0))
    assert (found.values.tolist(), found.rule) == ([3, 2, 1], "given")


@pytest.mark.parametrize("given", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (float("nan"), 1.0, 1.0)])
def test_given_spacing_must_be_positive(facts, given):
    with pytest.raises(UsageError, match="--spacing"):
        target_spacing(facts([(1, 1, 1)], [(9, 9, 9)]), given)


@pytest.mark.parametrize(
    ("spacing", "order"),
    [((5, 1, 1), (0, 1, 2)), ((1, 1, 5), (2, 0, 1)), ((1, 3, 2), (1, 0, 2)), ((2, 2, 1), (0, 1, 2))],
)
def test_the_coarsest_axis_comes_first(spacing, order):
    assert axis_order(np.array(spacing, float)) == order


def test_median_shape_rounds_half_to_even_case_by_case(facts):
    # 2 x 2.5 = 5 -> halves: 2.5 -> 2, 3.5 -> 4, 4.5 -> 4
    fingerprint = facts([(1, 1, 1)] * 3, [(5, 10, 10), (7, 10, 10), (9, 10, 10)])
    assert median_shape(fingerprint, np.array([2.0, 1.0, 1.0])).tolist() == [4, 10, 10]


def test_median_between_nothing_and_one_voxel_is_kept(facts):
    fingerprint = facts([(1, 1, 1)] * 2, [(1, 64, 64), (3, 64, 64)])
    assert median_shape(fingerprint, np.array([4.0, 1.0, 1.0])).tolist() == [0.5, 64, 64]


def test_median_shape_is_never_empty(facts):
    assert median_shape(facts([(1, 1, 1)], [(1, 64, 64)]), np.array([5.0, 1.0, 1.0])).tolist() == [1, 64, 64]
