"""A plan fitted to what a machine really does: the memory a step really uses, or the time it really takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from selfcfg.errors import UsageError
from selfcfg.geometry import times
from selfcfg.plan import Configuration, Plan, Reason

NIGHT, NIGHT_STEPS, MOST_STEPS = 12 * 3600.0, 25_000, 250_000
"""A night in seconds, the steps of a training in one, and the most a training is ever given: nnU-Net's own number."""

GOOD_ENOUGH = 0.75
"""A plan that uses this share of what it may is not searched any further."""

MOST_TRIES = 10
AIM = 0.95
"""Share of the limit that a try aims at."""
CLOSE, MOST_ALIKE = 1.1, 60
"""Ratio of a memory that is too much to one that fits from which no try between them is worth its time; and how often
it is taken at most to pass over memories that give the same networks."""
GROWTH = 4.0
"""Times the memory asked for that a plan may be made for, where steps turn out to use less than forecast."""

Decide = Callable[[float], Plan]
Cost = Callable[[Plan], float]


def steps_in(seconds: float) -> int:
    """How many steps a training that has so much time should be planned for.

    Our choice: with less time both the steps become fewer and each step smaller, in equal measure, so with a quarter of
    the time there are half as many steps, each half as long. A tenth of nnU-Net's steps in a night.
    """
    return min(MOST_STEPS, max(1, round(NIGHT_STEPS * math.sqrt(seconds / NIGHT))))


class Fitted(NamedTuple):
    """The plan of a search, what it costs, and what the plan it started from would have cost."""

    plan: Plan
    cost: float
    first: Plan
    first_cost: float


def search(decide: Decide, cost: Cost, limit: float, memory_gb: float, *, may_grow: bool) -> Fitted:
    """The plan for the most memory whose cost stays within a limit.

    Costs grow about in proportion to the memory a plan is made for, but patches change in jumps. So each try aims at
    the limit from the last one, and lies halfway between what fits and what does not where that aim is known to miss.

    Args:
        decide: the plan for a memory in GB.
        cost: of a plan, as measured; infinite where it does not run.
        limit: of the cost.
        memory_gb: where to start.
        may_grow: whether a plan for more than that is wanted where it fits.

    Raises:
        UsageError: no plan that was tried fits.
    """
    low, high = 0.0, memory_gb * (GROWTH if may_grow else 1.0)
    first: tuple[Plan, float] | None = None
    best: tuple[Plan, float] | None = None
    plan, memory = decide(memory_gb), memory_gb
    for _ in range(MOST_TRIES):
        now = best[1] if best and _sizes(best[0]) == _sizes(plan) else cost(plan)
        first = first or (plan, now)
        if now <= limit:
            low, best = memory, (plan, now)
        else:
            high = _least_alike(decide, plan, memory, low)
        if GOOD_ENOUGH * limit <= now <= limit or low * CLOSE >= high:
            break
        aim = memory * limit / now * AIM if math.isfinite(now) else memory / 2
        wanted = aim if low < aim < high else math.sqrt(low * high) if low else high / 2
        memory = float(f"{wanted:.3g}")
        try:
            plan = decide(memory)
        except UsageError:  # nothing fits so little memory
            break
    if best is None or first is None:
        raise UsageError(
            "fit the plan to this machine", "not even a very small network does", "give more time or memory"
        )
    return Fitted(*best, *first)


def _least_alike(decide: Decide, plan: Plan, memory: float, low: float) -> float:
    """About the least memory above `low` that gives the same networks: small images bound them before memory does."""
    for _ in range(MOST_ALIKE):
        try:
            if memory / CLOSE <= low or _sizes(decide(memory / CLOSE)) != _sizes(plan):
                break
        except UsageError:  # nothing fits so little memory
            break
        memory /= CLOSE
    return memory


def _sizes(plan: Plan) -> list[tuple[object, ...]]:
    return [(one.patch_size, one.batch_size, one.topology) for one in plan.configurations.values()]


def explained(fitted: Fitted, what: str, why: str, change: str) -> Plan:
    """The plan with the reason of its size in the place of the memory's, and what was given up for it."""
    plan = fitted.plan
    reasons = [reason for reason in plan.reasons if reason.what != "accelerator memory"]
    value = f"a network as for {plan.memory_gb:.2g} GB"
    here = [Reason(what=what, value=value, why=why, change=change)]
    if fitted.first != plan:
        here.append(_given_up(fitted.first, plan))
    return plan.model_copy(update={"reasons": (*here, *reasons)})


def _given_up(before: Plan, after: Plan) -> Reason:
    names = [plan.default_configuration for plan in (before, after)]
    old, new = (plan.configuration(name) for plan, name in zip((before, after), names, strict=True))
    which = "" if names[0] == names[1] else f" of {names[0]}"
    parts = [
        f"Beside the plan for {before.memory_gb:g} GB: a patch{which} would have {times(old.patch_size)} voxels, "
        f"{_share(old)} of the typical image, {old.batch_size} in a batch; now it has {times(new.patch_size)}, "
        f"{_share(new)}, {new.batch_size} in a batch"
    ]
    if gone := [name for name in before.configurations if name not in after.configurations]:
        parts.append(f"not planned any more: {', '.join(gone)}")
    if came := [name for name in after.configurations if name not in before.configurations]:
        parts.append(f"planned besides, since a patch shows less: {', '.join(came)}")
    return Reason(
        what="what was given up for it",
        value=f"patch {times(new.patch_size)} instead of {times(old.patch_size)}, batch {new.batch_size} instead of "
        f"{old.batch_size}",
        why="; ".join(parts) + ".",
        change="a coarser --spacing, with which a patch of the same size shows more of the image.",
    )


def _share(configuration: Configuration) -> str:
    pairs = zip(configuration.patch_size, configuration.median_shape, strict=True)
    share = math.prod(min(edge / whole, 1.0) for edge, whole in pairs)
    return "all" if share >= 1 else f"{100 * share:.2g} %"
