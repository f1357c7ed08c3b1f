"""Plans that fit the machine at hand: a processor's speed within a given time, or an accelerator's real memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch

from selfcfg import registry
from selfcfg.engine.device import choose_device
from selfcfg.engine.forecasting.fitting import MOST_STEPS, Fitted, explained, search, steps_in
from selfcfg.engine.forecasting.forecast import Job, step_pace
from selfcfg.engine.planner import Target
from selfcfg.engine.trainer import Trainer
from selfcfg.engine.training.rehearsal import DoesNotFit
from selfcfg.errors import UsageError
from selfcfg.fingerprint import Fingerprint
from selfcfg.plan import Plan
from selfcfg.progress import duration, say

Decide = Callable[[float | None], Plan]
"""The plan of a planner for a memory in GB, or for the planner's own where none is given."""

FILLED = 0.9
"""Share of an accelerator's memory that a training step may hold; the rest is left for others and for fragments."""


def plan_for_time(decide: Decide, facts: Fingerprint, seconds: float, target: Target) -> Plan:
    """The plan whose training takes a given time on this machine: the planner's own where that is fast enough.

    Args:
        decide: the planner.
        facts: fingerprint of the dataset.
        seconds: for one training.
        target: what is to be trained, and where.

    Raises:
        UsageError: not even a very small network is fast enough.
    """
    device = choose_device(target.device)
    steps = steps_in(seconds)
    limit = seconds / steps
    say(f"looking for a plan that takes {limit:.2g} s a step on {device}: {steps} steps in {duration(seconds)} ...")

    def step(plan: Plan) -> float:
        job = _job(plan, facts, target)
        try:
            pace = step_pace(job)
        except DoesNotFit:
            say(f"  {_sizes(job)}: does not fit")
            return math.inf
        took = _weighed(pace.step, pace.validation)
        say(f"  {_sizes(job)}: {took:.2g} s a step")
        return took

    found = search(decide, step, limit, decide(None).memory_gb, may_grow=False)
    if found.first == found.plan:
        why = f"A step of the plan for {found.plan.memory_gb:g} GB takes {found.cost:.2g} s here, which is fast enough."
    else:
        why = (
            f"On this machine a step of the plan for {found.first.memory_gb:g} GB would take {found.first_cost:.2g} s, "
            f"and {steps} steps {duration(found.first_cost * steps)}. One of this plan takes {found.cost:.2g} s: as "
            f"many steps in {duration(found.cost * steps)}. nnU-Net takes {MOST_STEPS} steps."
        )
    return explained(found, "time to train", why, "--time-budget, or without it --memory.")


def plan_for_memory(decide: Decide, facts: Fingerprint, target: Target) -> Plan:
    """The plan whose training step really fills the accelerator, instead of a forecast doing so.

    Args:
        decide: the planner.
        facts: fingerprint of the dataset.
        target: what is to be trained, and where.

    Raises:
        UsageError: there is no accelerator, or not even a very small network fits.
    """
    device = choose_device(target.device)
    if device.type != "cuda":
        raise UsageError("plan --fit", f"{device} has no memory of its own to be filled", "give --time-budget instead")
    there = torch.cuda.get_device_properties(device).total_memory
    say(f"looking for the plan whose step fills {device} ({there / 2**30:.3g} GB) ...")

    def peak(plan: Plan) -> float:
        job = _job(plan, facts, target)
        try:
            used = step_pace(job).peak_bytes or 0
        except DoesNotFit:
            say(f"  {_sizes(job)}: does not fit")
            return math.inf
        say(f"  {_sizes(job)}: {used / 2**30:.3g} GB")
        return used

    found = search(decide, peak, FILLED * there, there / 2**30, may_grow=True)
    plan = explained(found, "accelerator memory", _why_memory(found, there), "--memory instead of --fit.")
    name = _job(plan, facts, target).name
    measured = plan.configuration(name).model_copy(update={"memory_bytes": round(found.cost)})
    return plan.model_copy(update={"configurations": {**plan.configurations, name: measured}})


def _why_memory(found: Fitted, there: float) -> str:
    tried = "did not fit" if math.isinf(found.first_cost) else f"takes {found.first_cost / 2**30:.3g} GB"
    return (
        f"Tried out: a step of the plan for {found.first.memory_gb:.3g} GB {tried} on this accelerator of "
        f"{there / 2**30:.3g} GB; one of this plan takes {found.cost / 2**30:.3g} GB."
    )


def _job(plan: Plan, facts: Fingerprint, target: Target) -> Job:
    name = target.configuration if target.configuration in plan.configurations else plan.default_configuration
    trainer = cast("type[Trainer[Any]]", registry.load("trainers", target.trainer))
    settings = trainer.settings_type.parse({}, "default settings")
    return Job(plan, name, plan.configuration(name), trainer, settings, facts, target.device)


def _weighed(step: float, validation: float) -> float:
    """Seconds of a step with its share of the validation, which has a batch for every five steps by default."""
    return step + validation / 5


def _sizes(job: Job) -> str:
    patch = "x".join(map(str, job.configuration.patch_size))
    return f"{job.name}, patch {patch}, batch {job.configuration.batch_size}"
