"""What preprocessing, training and prediction will take of this machine, before any of it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from selfcfg.engine.device import choose_device, package_versions
from selfcfg.engine.footprint import (
    case_bytes,
    gigabytes,
    prediction_bytes,
    resampled_shapes,
    store_bytes,
    total_passes,
    training_bytes,
)
from selfcfg.engine.rehearsal import Pace, rehearse
from selfcfg.engine.trainer import Batch, Need, Settings, Trainer
from selfcfg.errors import SelfcfgError
from selfcfg.fingerprint import Fingerprint
from selfcfg.plan import Configuration, Plan
from selfcfg.progress import duration
from selfcfg.records import Record
from selfcfg.runs import RunRecord

SECONDS_PER_BYTE = 1.5e-9
"""Time to preprocess a case by the memory that it takes, on one core. Measured: benchmarks/forecast.py."""
QUICK = 2.0
"""Seconds of a step with one patch up to which a second size is tried, to tell fixed from growing time."""


class Stage(Record):
    """What one step of the road takes: seconds, memory in bytes at most, disk in bytes at most."""

    seconds: float
    memory: int
    disk: int


class Forecast(Record):
    """The forecast for one configuration on one machine.

    Args:
        configuration: its name.
        device: that trains and predicts.
        precision: of the training.
        folds: trainings.
        epochs: of each.
        step_seconds: one optimiser step.
        step_memory: memory in bytes of the training process on a processor, or of the accelerator.
        preprocess: of all cases.
        train: of all folds; memory is the training process's own.
        predict: of one typical case by one fold's model.
    """

    configuration: str
    device: str
    precision: str
    folds: int
    epochs: int
    step_seconds: float
    step_memory: int
    preprocess: Stage
    train: Stage
    predict: Stage

    def table(self) -> str:
        """The forecast for people to read."""
        rows = [
            ("preprocess", self.preprocess, "all cases"),
            ("train", self.train, f"{self.folds} x {self.epochs} epochs, {self.step_seconds:.2g} s a step"),
            ("predict", self.predict, "a typical case, one fold"),
        ]
        lines = [f"{'':12}{'time':>16}{'memory':>10}{'disk':>10}"]
        for name, stage, note in rows:
            memory, disk = gigabytes(stage.memory), gigabytes(stage.disk)
            lines.append(f"{name:12}{duration(stage.seconds):>16}{memory:>10}{disk:>10}   {note}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Job:
    """What a forecast is made for.

    Args:
        plan: what was planned.
        name: of the configuration.
        configuration: with the batch and patch size of the training.
        trainer_type: the strategy.
        settings: its settings.
        facts: fingerprint of the dataset.
        device: name of the device; None: the best there is.
        folds: trainings.
        jobs: processes of preprocessing.
    """

    plan: Plan
    name: str
    configuration: Configuration
    trainer_type: type[Trainer[Any]]
    settings: Settings
    facts: Fingerprint
    device: str | None = None
    folds: int = 5
    jobs: int = 1

    def trainer(self, settings: Settings, configuration: Configuration) -> Trainer[Any]:
        """A trainer of the job, perhaps with other settings or sizes."""
        return self.trainer_type(settings, self.plan, configuration)


def forecast(job: Job) -> Forecast:
    """The forecast of a job: sizes from formulas, times from a few steps on noise.

    Raises:
        SelfcfgError: the training does not fit the memory; nothing is tried then.
    """
    device, plan, configuration = choose_device(job.device), job.plan, job.configuration
    refuse_too_large(plan, configuration, job.trainer(job.settings, configuration).precision(device), device)
    pace = step_pace(job)
    shapes = resampled_shapes(job.facts, plan, configuration)
    originals = {case.case: case.shape for case in job.facts.cases} or shapes
    needed = sorted(case_bytes(originals[name], shape, len(plan.channels)) for name, shape in shapes.items())
    work = sum(needed) - len(needed) * case_bytes((0, 0, 0), (0, 0, 0), 0)
    jobs = max(1, min(job.jobs, len(needed)))
    passes = total_passes(list(shapes.values()), plan, configuration)
    one_pass = pace.validation / configuration.batch_size
    weights = configuration.topology.n_parameters(plan.input_channels(configuration), plan.labels.n_outputs)
    largest = max(shapes.values(), key=lambda shape: prediction_bytes(shape, plan, configuration))
    precision = job.trainer(job.settings, configuration).precision(device)
    memory = training_bytes(plan, configuration, 2 if precision == "bfloat16" else 4)
    scoring = passes * one_pass * job.folds / 5
    return Forecast(
        configuration=job.name,
        device=str(device),
        precision=precision,
        folds=job.folds,
        epochs=job.settings.epochs,
        step_seconds=pace.step,
        step_memory=memory if pace.peak_bytes is None else pace.peak_bytes,
        preprocess=Stage(
            seconds=work * SECONDS_PER_BYTE / jobs,
            memory=sum(needed[-jobs:]),
            disk=store_bytes(list(shapes.values()), plan),
        ),
        train=Stage(
            seconds=job.folds * pace.training(job.settings) + scoring, memory=memory, disk=job.folds * weights * 4 * 6
        ),
        predict=Stage(
            seconds=passes / len(shapes) * one_pass, memory=prediction_bytes(largest, plan, configuration), disk=0
        ),
    )


def step_pace(job: Job) -> Pace:
    """The pace of a training on this machine, from steps on noise; on a processor with one or two patches a batch.

    On a processor a batch takes as long as its patches one after the other, so the time of the whole batch follows; an
    accelerator is given the whole batch, and its memory in use is measured too.

    Raises:
        torch.OutOfMemoryError: a step does not fit the accelerator.
    """
    device, batch = choose_device(job.device), job.configuration.batch_size
    if device.type != "cpu":
        return _paced(job, batch)
    one = _paced(job, 1)
    if batch == 1 or one.step > QUICK:
        return replace(one, step=one.step * batch, validation=one.validation * batch)
    two = _paced(job, 2)
    step, validation = (max(b - a, a / 2) for a, b in ((one.step, two.step), (one.validation, two.validation)))
    more = batch - 2
    return replace(two, step=two.step + more * step, validation=two.validation + more * validation)


def refuse_too_large(plan: Plan, configuration: Configuration, precision: str, device: torch.device) -> None:
    """Nothing, where a training step fits the memory there is.

    Raises:
        SelfcfgError: it cannot; says what it takes, what there is, and what would help.
    """
    remedy = "plan for less with --memory, or take a smaller batch or patch with --set batch_size=... patch_size=..."
    if device.type == "cuda":
        there, needs = torch.cuda.get_device_properties(device).total_memory, configuration.memory_bytes or 0
        # the rough forecast of the plan may be a third too high
        if needs > 1.5 * there:
            found = f"a step takes about {gigabytes(needs)}, {device} has {gigabytes(there)}"
            raise SelfcfgError("train on this accelerator", found, remedy)
    if device.type == "cpu":
        there = psutil.virtual_memory().total
        needs = training_bytes(plan, configuration, 2 if precision == "bfloat16" else 4)
        if needs > there:
            raise SelfcfgError(
                "train on this machine", f"a step takes about {gigabytes(needs)}, there are {gigabytes(there)}", remedy
            )


def _paced(job: Job, batch_size: int) -> Pace:
    configuration = job.configuration.resized(batch_size=batch_size, patch_size=None)
    settings = job.settings.model_copy(update={"batch_size": batch_size})
    return rehearse(
        lambda short: job.trainer(short, configuration),
        lambda short: _Noise(job.trainer_type.needs, short, configuration, job.plan, choose_device(job.device)),
        _record(job),
        settings,
        choose_device(job.device),
        seconds=QUICK,
    )


def _record(job: Job) -> RunRecord:
    return RunRecord(
        dataset=job.plan.dataset, trainer=job.trainer_type.name, planner=job.plan.planner, configuration=job.name,
        fold=0, settings={}, label_fraction=1.0, seed=0, init=None, plan_hash="", data_hash="", train=(), validation=(),
        versions=package_versions(), machine={},
    )  # fmt: skip


@dataclass
class _Noise:
    """Batches of noise with random labels, the same one again and again."""

    needs: Mapping[str, Need]
    settings: Settings
    configuration: Configuration
    plan: Plan
    device: torch.device

    def training(self, first: int, last: int) -> Iterator[dict[str, Batch]]:
        """The batch, as often as asked for."""
        made = {stream: self._batch(need) for stream, need in self.needs.items()}
        return (made for _ in range(first, last))

    def validation(self, epoch: int) -> Iterator[dict[str, Batch]]:
        """The batch, as often as the settings say."""
        return self.training(0, self.settings.validation_iterations)

    def close(self) -> None:
        """Nothing is open."""

    def _batch(self, need: Need) -> Batch:
        size, patch = self.configuration.batch_size, self.configuration.patch_size
        shape = (size, self.plan.input_channels(self.configuration), *patch)
        views = [torch.randn(shape, device=self.device) for _ in range(need.views)]
        values = len(self.plan.labels.values)
        target = torch.randint(values, (size, 1, *patch), dtype=torch.int16, device=self.device)
        return Batch(views[0], target if need.targets else None, ("noise",), tuple(views[1:]))
