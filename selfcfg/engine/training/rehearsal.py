"""A few steps of a training, taken to see how long they are, and how many fit into a given time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from selfcfg.engine.stopping import stop_request
from selfcfg.engine.trainer import Settings, Trainer
from selfcfg.engine.training.loop import BatchSource, Training
from selfcfg.errors import SelfcfgError, UsageError
from selfcfg.progress import duration
from selfcfg.runs import RunFolder, RunRecord

MIN_EPOCHS = 20
"""With less time than these take, epochs become shorter, not fewer: each ends with a validation and a checkpoint."""

_MOST_STEPS, _LEAST_STEPS = 40, 3
_VALIDATIONS = 2
_RESERVE = 0.05
"""Share of the time that is kept back, since no two steps take the same time."""


class DoesNotFit(SelfcfgError):
    """A training step takes more memory than the accelerator has."""


@dataclass(frozen=True)
class Pace:
    """How long the pieces of a training take on this machine, in seconds.

    Args:
        step: an optimiser step, batches included.
        validation: a validation batch.
        saving: what an epoch ends with: exporting and saving.
        start: until the first step was done.
        peak_bytes: memory of the accelerator in use at most; None on a processor.
    """

    step: float
    validation: float
    saving: float = 0.0
    start: float = 0.0
    peak_bytes: int | None = None

    def epoch(self, settings: Settings) -> float:
        """Seconds of one epoch."""
        steps, validations = settings.iterations_per_epoch, settings.validation_iterations
        return steps * self.step + validations * self.validation + self.saving

    def training(self, settings: Settings) -> float:
        """Seconds of a whole training."""
        return self.start + settings.epochs * self.epoch(settings)


def rehearse(
    make: Callable[[Settings], Trainer[Any]],
    batches_for: Callable[[Settings], BatchSource],
    record: RunRecord,
    settings: Settings,
    device: torch.device,
    *,
    seconds: float = 10.0,
) -> Pace:
    """The pace of a training, from real steps whose result is thrown away.

    Args:
        make: a new trainer with these settings.
        batches_for: where batches come from with these settings.
        record: of the run that is rehearsed; its seed is used.
        settings: of the training.
        device: to train on.
        seconds: after which no further step is taken, if a few were.

    Raises:
        DoesNotFit: a step takes more memory than the accelerator has.
        Stopped: SIGINT or SIGTERM.
    """
    changes = {"iterations_per_epoch": _MOST_STEPS + 1, "validation_iterations": _VALIDATIONS}
    short = settings.model_copy(update=changes)
    batches = batches_for(short)
    _reset_peak(device)
    try:
        with TemporaryDirectory() as folder, stop_request() as stop:
            began = time.perf_counter()
            run = RunFolder(Path(folder))
            training = Training(make(short), run, record, batches, device)
            stream = batches.training(0, (_MOST_STEPS + 1) * settings.accumulate)
            training.step(stream)
            start = time.perf_counter() - began
            steps: list[float] = []
            while len(steps) < _LEAST_STEPS or (sum(steps) < seconds and len(steps) < _MOST_STEPS):
                stop.obey()
                steps.append(_timed(lambda: training.step(stream), device))
            training.validate(stop)
            validation = _timed(lambda: training.validate(stop), device) / _VALIDATIONS
            saving = _timed(lambda: training.export(run.best), device) + _timed(training.save, device)
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        remedy = "plan for less with --memory or plan --fit, or take a smaller batch or patch with --set"
        raise DoesNotFit("try a training step", f"it does not fit the memory of {device}", remedy) from error
    finally:
        batches.close()
    return Pace(median(steps), validation, saving, start, _peak(device))


def settings_within(settings: Settings, pace: Pace, seconds: float) -> Settings:
    """The settings with as many epochs as fit, at most those asked for.

    Where fewer than `MIN_EPOCHS` would fit, epochs are shortened so that those many do. All of a schedule that is
    counted in epochs, such as the learning rate's, then ends with the time.

    Args:
        settings: as asked for.
        pace: of this training on this machine.
        seconds: for this training alone.

    Raises:
        UsageError: not even epochs of one step fit; the message says what would.
    """
    usable = (seconds - pace.start) * (1 - _RESERVE)
    epochs = math.floor(usable / pace.epoch(settings))
    least = max(MIN_EPOCHS, settings.warmup_epochs + 1)
    if epochs >= min(least, settings.epochs):
        return settings.model_copy(update={"epochs": min(epochs, settings.epochs)})
    ratio = settings.validation_iterations / settings.iterations_per_epoch
    epochs = min(least, settings.epochs)
    for steps in range(settings.iterations_per_epoch, 0, -1):
        validations = math.ceil(steps * ratio)
        if epochs * (steps * pace.step + validations * pace.validation + pace.saving) <= usable:
            changes = {"epochs": epochs, "iterations_per_epoch": steps, "validation_iterations": validations}
            return settings.model_copy(update=changes)
    shortest = pace.start + epochs * (pace.step + pace.validation + pace.saving) / (1 - _RESERVE)
    raise UsageError(
        f"train within {duration(max(seconds, 0))}",
        f"one step takes {pace.step:.2g} s here, so {epochs} epochs of a single step take {duration(shortest)}",
        "give more time, fewer folds, or a smaller network (selfcfg plan --time-budget)",
    )


def _timed(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int | None:
    """What the allocator held at most: what others cannot have meanwhile."""
    return int(torch.cuda.max_memory_reserved(device)) if device.type == "cuda" else None
