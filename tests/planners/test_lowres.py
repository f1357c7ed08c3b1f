"""The search for a low-resolution stage, with a stand-in that always fits the same patch."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from selfcfg.planners.budget import Allowance, Fit, fit
from selfcfg.planners.lowres import low_resolution
from selfcfg.planners.residual import plan_l, plan_m, plan_xl
from selfcfg.planners.standard import PLAIN


@pytest.fixture(scope="module")
def small() -> Fit:
    found = fit(Allowance(PLAIN, 8, 2), (1.0, 1.0, 1.0), (32.0, 32.0, 32.0), 1e9)
    assert found.patch_size == (32, 32, 32)
    return found


def test_a_patch_that_sees_a_quarter_is_enough(small):
    found = low_resolution(small, np.ones(3), np.array([64.0, 64.0, 32.0]), 10, lambda *_: small, most_voxels=math.inf)
    assert found.fit is None
    assert found.share == 0.25
    assert found.reduction == 1


def test_spacing_grows_until_a_patch_sees_a_quarter(small):
    asked = []

    def fitter(spacing, shape, voxels):
        asked.append((spacing, shape, voxels))
        return small

    found = low_resolution(small, np.ones(3), np.array([100.0, 100.0, 100.0]), 10, fitter, most_voxels=math.inf)
    steps = math.ceil(math.log((0.25 * 100**3 / 32**3) ** (1 / 3)) / math.log(1.03))
    assert len(asked) == steps
    assert found.spacing == pytest.approx((1.03**steps,) * 3)
    assert found.median_shape == (round(100 / 1.03**steps),) * 3
    assert asked[-1][2] == pytest.approx(10 * 100**3 / 1.03 ** (3 * steps))
    assert found.reduction == pytest.approx(1.03 ** (3 * steps))


def test_the_coarse_axis_waits_for_the_others(small):
    found = low_resolution(
        small, np.array([4.0, 1.0, 1.0]), np.array([32.0, 96.0, 96.0]), 10, lambda *_: small, most_voxels=math.inf
    )
    assert found.spacing is not None
    assert found.spacing[0] == 4
    assert found.spacing[1] == found.spacing[2] > 1


def test_a_stage_that_saves_too_little_is_dropped(small):
    found = low_resolution(small, np.ones(3), np.array([60.0, 60.0, 60.0]), 10, lambda *_: small, most_voxels=math.inf)
    assert found.fit is None
    assert found.share == pytest.approx(32**3 / 60**3)
    assert 1 < found.reduction < 2


def test_a_thin_axis_never_vanishes(small):
    shapes = []

    def fitter(spacing, shape, voxels):
        shapes.append(shape)
        return dataclasses.replace(small, patch_size=(1, 32, 32))

    low_resolution(small, np.ones(3), np.array([2.0, 900.0, 900.0]), 10, fitter, most_voxels=math.inf)
    assert min(map(min, shapes)) == 1


def test_spacings_at_which_no_patch_can_see_enough_are_not_tried(small):
    asked = []

    def fitter(spacing, shape, voxels):
        asked.append(spacing)
        return small

    def search(most_voxels):
        asked.clear()
        arguments = (small, np.ones(3), np.array([400.0, 400.0, 400.0]), 10, fitter)
        return low_resolution(*arguments, most_voxels=most_voxels), len(asked)

    all_tried, tries = search(math.inf)
    passed_over, fewer_tries = search(32.0**3)
    assert passed_over == all_tried
    assert (tries, fewer_tries) == (70, 1)


@pytest.mark.parametrize("budget", [PLAIN, *(planner.budget for planner in (plan_m, plan_l, plan_xl))])
@pytest.mark.parametrize("shape", [(9.0, 900.0, 900.0), (7.0, 7.0, 70.0), (300.0, 300.0, 300.0)])
@pytest.mark.parametrize("spacing", [(1.0, 5.0, 5.0), (1.0, 1.0, 1.0)])
def test_no_patch_exceeds_what_the_budget_says(budget, shape, spacing):
    for memory in (0.001, 0.1, 8.0):
        patch = fit(Allowance(budget, memory, 2), spacing, shape, 1e9).patch_size
        assert math.prod(patch) <= budget.most_voxels(3, memory)
