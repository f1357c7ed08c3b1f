"""What tasks of a cluster are given: the closed-form forecasts, which need no such machine at hand, with a margin."""

from __future__ import annotations

import math
from typing import NamedTuple

from selfcfg.cluster.tasks import Resources
from selfcfg.engine.footprint import (
    MULTIPLICATIONS_A_SECOND,
    PROCESS_BYTES,
    case_bytes,
    prediction_bytes,
    preprocessing_seconds,
    resampled_shapes,
    rough_step_seconds,
    training_bytes,
)
from selfcfg.engine.settings import Settings
from selfcfg.fingerprint import Fingerprint
from selfcfg.plan import Configuration, Plan

MEMORY_MARGIN, TIME_MARGIN = 1.5, 3.0
"""By what forecasts are multiplied. Memory is forecast to a tenth (benchmarks/forecast.py), to which come the files
that the kernel counts as the job's; time to the order of magnitude."""

SHORTEST, LONGEST = 30 * 60.0, 24 * 3600.0
"""Seconds that are asked for at least and at most. What is not done by then is saved, put back into the queue and goes
on: a limit too short costs a wait, not the work; one too long, a later start. Our choice."""

GPU_MULTIPLICATIONS_A_SECOND = 3e12
"""Of an accelerator in training, low for those of the last years. Our choice: nothing is measured."""

GPU_PROCESS_BYTES = 4 * 2**30
"""Main memory of a process that uses an accelerator, before it holds any image: its driver and kernels. Our choice."""

TRAINING_CPUS, PREPROCESSING_CPUS = 4, 4
"""Cores where nothing is said."""

SMALL = Resources(memory=2 * 2**30, seconds=SHORTEST)
"""Of a task that reads a few files."""

SHARD_SECONDS, MOST_SHARDS = 600.0, 32
"""Work on one core that is worth a job of its own, and the most jobs that share the cases."""


class Machine(NamedTuple):
    """What one task has of a machine.

    Args:
        cpus: processor cores.
        gpus: accelerators.
    """

    cpus: int
    gpus: int


def training(
    plan: Plan, configuration: Configuration, settings: Settings, facts: Fingerprint, *, machine: Machine, runs: int = 1
) -> Resources:
    """What a training takes, and the prediction of its validation cases after it.

    Args:
        plan: what was planned.
        configuration: with the sizes of the training.
        settings: of the training.
        facts: of the dataset.
        machine: that it is to have.
        runs: how often it is trained.
    """
    shapes = resampled_shapes(facts, plan, configuration).values()
    scoring = max(prediction_bytes(shape, plan, configuration) for shape in shapes)
    loading = settings.workers * PROCESS_BYTES
    if machine.gpus:
        memory = GPU_PROCESS_BYTES + max(loading, scoring)
        one = rough_step_seconds(plan, configuration, 1) * MULTIPLICATIONS_A_SECOND / GPU_MULTIPLICATIONS_A_SECOND
    else:
        memory = max(training_bytes(plan, configuration, value_bytes=4) + loading, scoring)
        one = rough_step_seconds(plan, configuration, machine.cpus)
    steps = settings.epochs * (settings.iterations_per_epoch + settings.validation_iterations / 3)
    seconds = TIME_MARGIN * runs * steps * one
    return _asked(memory, seconds, machine.cpus, machine.gpus)


def preprocessing(plan: Plan, configuration: Configuration, facts: Fingerprint, cpus: int) -> tuple[int, Resources]:
    """Into how many shares of cases preprocessing is parted, and what each takes.

    Args:
        plan: what was planned.
        configuration: one of the plan's.
        facts: of the dataset.
        cpus: processor cores of each task.
    """
    shapes = resampled_shapes(facts, plan, configuration)
    before = {case.case: case.shape for case in facts.cases}
    needed = sorted(case_bytes(before.get(name, shape), shape, len(plan.channels)) for name, shape in shapes.items())
    seconds = preprocessing_seconds(needed)
    shards = max(1, min(MOST_SHARDS, len(needed), math.ceil(seconds / SHARD_SECONDS)))
    return shards, _asked(sum(needed[-cpus:]), TIME_MARGIN * seconds / shards, cpus)


def reading(n_bytes: int, cpus: int) -> Resources:
    """What reading every image of a dataset takes, before anything is measured.

    Args:
        n_bytes: of its largest file, which may be compressed.
        cpus: processor cores, each of which reads one.
    """
    return _asked(cpus * (PROCESS_BYTES + 20 * n_bytes), LONGEST / 6, cpus)


def _asked(memory: float, seconds: float, cpus: int, gpus: int = 0) -> Resources:
    """In steps, so that tasks which take about the same can be of one array."""
    step = 512 * 2**20
    return Resources(
        memory=math.ceil(MEMORY_MARGIN * memory / step) * step,
        seconds=min(LONGEST, math.ceil(seconds / SHORTEST) * SHORTEST),
        cpus=cpus,
        gpus=gpus,
    )
