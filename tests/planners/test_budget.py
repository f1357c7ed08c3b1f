"""Patch, network and batch within a budget."""

from __future__ import annotations

import math

import pytest

from selfcfg.errors import UsageError
from selfcfg.planners.budget import Allowance, fit, pooling
from selfcfg.planners.residual import plan_l, plan_m, plan_xl
from selfcfg.planners.standard import PLAIN

BUDGETS = {"standard": PLAIN} | {planner.name: planner.budget for planner in (plan_m, plan_l, plan_xl)}


def fitted(planner, spacing, shape, *, n_heads=4, cases=484, memory=None):
    budget = BUDGETS[planner]
    return fit(Allowance(budget, memory or budget.gigabytes, n_heads), spacing, shape, math.prod(shape) * cases)


@pytest.mark.parametrize(
    ("planner", "patch", "batch"),
    [
        ("standard", (128, 128, 128), 2),
        ("residual-m", (128, 128, 128), 2),
        ("residual-l", (160, 192, 160), 3),
        ("residual-xl", (160, 192, 160), 5),
    ],
)
def test_brain_tumour_like(planner, patch, batch):
    """Source: nnU-Net v2.8.1, planned for 138 x 169 x 138 voxels of 1 mm with 4 labels."""
    found = fitted(planner, (1.0, 1.0, 1.0), (138.0, 169.0, 138.0))
    assert (found.patch_size, found.batch_size) == (patch, batch)


def test_thick_slices():
    """Source: nnU-Net v2.8.1, planned for cine MR of 5 x 1.56 x 1.56 mm."""
    found = fitted("standard", (5.0, 1.5625, 1.5625), (18.0, 237.0, 208.0), cases=200)
    assert (found.patch_size, found.batch_size) == ((20, 256, 224), 4)
    strides = ["".join(map(str, stride)) for stride in found.topology.strides]
    assert strides == ["111", "122", "222", "222", "122", "122"]
    assert found.topology.kernel_sizes[0] == (1, 3, 3)
    assert set(found.topology.kernel_sizes[1:]) == {(3, 3, 3)}
    assert found.topology.features == (32, 64, 128, 256, 320, 320)


def test_pooling_worked_by_hand():
    # along z: 4 mm beside 1 mm, so it waits two stages and is convolved with width 1 until then
    strides, kernels = pooling((4.0, 1.0, 1.0), (16, 64, 64))
    assert strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))


@pytest.mark.parametrize(("size", "stages"), [(7, 1), (11, 1), (12, 2)])
def test_a_lone_axis_needs_twelve_voxels(size, stages):
    assert len(pooling((1.0, 1.0), (size, 3))[0]) == stages


def test_median_with_half_voxels_is_rounded_up_to_what_can_be_halved():
    found = fitted("standard", (1.0, 1.0, 1.0), (36.5, 50.0, 35.5))
    assert found.clipped == (36.5, 50, 35.5)
    assert found.patch_size == (40, 56, 40)


def test_batch_is_limited_by_the_dataset():
    few = fitted("standard", (1.0, 1.0, 1.0), (40.0, 56.0, 40.0), cases=100)
    assert few.batch_by_coverage == 5
    assert few.batch_size == 5
    assert few.batch_by_memory > 5
    assert fitted("standard", (1.0, 1.0, 1.0), (40.0, 56.0, 40.0), cases=3).batch_size == 2


@pytest.mark.parametrize("planner", BUDGETS)
@pytest.mark.parametrize("memory", [2, 8, 24, 80])
@pytest.mark.parametrize(
    ("spacing", "shape"),
    [((1.0, 1.0, 1.0), (300.0, 300.0, 300.0)), ((5.0, 0.8, 0.8), (90.0, 512.0, 512.0)), ((0.1, 0.1), (2500.0, 1900.0))],
    ids=["cube", "thick slices", "picture"],
)
def test_the_result_fits_the_budget(planner, memory, spacing, shape):
    found = fitted(planner, spacing, shape, memory=memory)
    budget = BUDGETS[planner]
    n = len(spacing)
    allowed = budget.elements(n, memory) * (12 if n == 2 else 2)
    # the batch is rounded to the nearest, not downwards
    assert found.elements * (found.batch_size - 0.5) <= allowed
    assert budget.memory_bytes(n, found.elements, found.batch_size) <= 1.3 * memory * 2**30
    assert all(edge % step == 0 for edge, step in zip(found.patch_size, found.topology.divisors, strict=True))


def test_more_memory_never_gives_a_smaller_patch():
    voxels = [
        math.prod(fitted("standard", (3.0, 0.8, 0.8), (120.0, 512.0, 512.0), memory=m).patch_size)
        for m in range(2, 40, 3)
    ]
    assert voxels == sorted(voxels)
    assert voxels[0] < voxels[-1]


def test_memory_for_nothing():
    with pytest.raises(UsageError, match="not even the smallest patch fits"):
        fitted("standard", (1.0, 1.0, 1.0), (64.0, 64.0, 64.0), memory=1e-9)
