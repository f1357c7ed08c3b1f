"""Plans fitted to a measured cost, with costs that are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from selfcfg.engine.forecasting.fitting import (
    CLOSE,
    GOOD_ENOUGH,
    MOST_STEPS,
    MOST_TRIES,
    NIGHT,
    explained,
    search,
    steps_in,
)
from selfcfg.errors import UsageError
from selfcfg.plan import Plan
from selfcfg.testing import small_plan


def decide(memory_gb: float) -> Plan:
    """A plan whose batch grows with the memory, so that no two are alike."""
    plan = small_plan(3)
    one = plan.configurations["small"].model_copy(update={"batch_size": math.ceil(1000 * memory_gb)})
    return plan.model_copy(update={"memory_gb": memory_gb, "configurations": {"small": one}})


def by_memory(cost: Callable[[float], float]) -> Callable[[Plan], float]:
    return lambda plan: cost(plan.memory_gb)


@pytest.mark.parametrize(
    "cost",
    [lambda gb: 4 * gb, lambda gb: math.ceil(4 * gb), lambda gb: 10 * gb**0.7, lambda gb: 0.5 + 3 * gb],
    ids=["proportional", "in jumps", "flat", "with a constant"],
)
def test_the_plan_found_costs_nearly_what_it_may(cost: Callable[[float], float]) -> None:
    limit = 1.7
    found = search(decide, by_memory(cost), limit, 8, may_grow=False)
    assert found.cost == cost(found.plan.memory_gb) <= limit
    # with a little more memory it would be too much, or it is good enough
    assert found.cost >= GOOD_ENOUGH * limit or cost(found.plan.memory_gb * CLOSE) > limit
    assert (found.first.memory_gb, found.first_cost) == (8, cost(8))


def test_what_fits_is_kept_unless_it_may_grow() -> None:
    kept = search(decide, by_memory(lambda gb: gb / 2), 100, 8, may_grow=False)
    assert kept.plan.memory_gb == 8
    grown = search(decide, by_memory(lambda gb: gb / 2), 10, 8, may_grow=True)
    assert 15 < grown.plan.memory_gb <= 20


def test_what_does_not_run_at_all_is_passed_over() -> None:
    found = search(decide, by_memory(lambda gb: math.inf if gb > 5 else gb), 7, 8, may_grow=True)
    assert 4.5 < found.plan.memory_gb <= 5 and math.isinf(found.first_cost)


def test_memories_that_give_the_same_networks_are_tried_once() -> None:
    tried = []

    def bounded(memory_gb: float) -> Plan:
        return decide(min(memory_gb, 0.5)).model_copy(update={"memory_gb": memory_gb})

    def cost(plan: Plan) -> float:
        tried.append(plan.configurations["small"].batch_size)
        return tried[-1] / 1000

    found = search(bounded, cost, 0.45, 8, may_grow=False)
    assert GOOD_ENOUGH * 0.45 <= found.cost <= 0.45
    assert tried[0] == 500 and tried.count(500) == 1


def test_a_memory_that_nothing_fits_ends_the_search() -> None:
    def least(memory_gb: float) -> Plan:
        if memory_gb < 0.1:
            raise UsageError("plan", "not even the smallest patch fits")
        return decide(memory_gb)

    with pytest.raises(UsageError, match="not even a very small network"):
        search(least, by_memory(lambda gb: 10 + gb), 1, 8, may_grow=False)
    with pytest.raises(UsageError, match="smallest patch"):
        search(least, by_memory(lambda gb: gb), 1, 0.01, may_grow=False)


def test_the_search_ends() -> None:
    tried = []

    def never(plan: Plan) -> float:
        tried.append(plan.memory_gb)
        return 10.0

    with pytest.raises(UsageError, match="not even a very small network"):
        search(decide, never, 1, 8, may_grow=False)
    assert len(tried) <= MOST_TRIES


def test_steps_and_their_length_shrink_alike() -> None:
    whole, quarter = steps_in(NIGHT), steps_in(NIGHT / 4)
    assert whole == 25_000 and quarter == whole / 2
    assert steps_in(1e9) == MOST_STEPS and steps_in(1e-6) == 1


def test_the_reason_says_what_was_given_up() -> None:
    def smaller(memory_gb: float) -> Plan:
        plan = decide(memory_gb)
        if memory_gb == 8:
            return plan
        small = plan.configurations["small"]
        less = small.model_copy(update={"batch_size": 1, "patch_size": tuple(edge // 2 for edge in small.patch_size)})
        return plan.model_copy(update={"configurations": {"small": less}})

    found = search(smaller, by_memory(lambda gb: gb), 4, 8, may_grow=False)
    first, second, *_ = explained(found, "time to train", "because", "--time-budget").reasons
    assert (first.what, first.why) == ("time to train", "because")
    old, new = (plan.configurations["small"].patch_size for plan in (found.first, found.plan))
    assert all("x".join(map(str, size)) in second.value.replace(" x ", "x") for size in (old, new))
    assert "of the typical image" in second.why
