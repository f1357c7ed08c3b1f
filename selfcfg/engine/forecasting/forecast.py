"""What preprocessing, training and prediction will take of this machine, before any of it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import torch

from selfcfg.engine.data.batches import Batches
from selfcfg.engine.data.source import Domain, Source
from selfcfg.engine.data.store import CaseInfo, Prepared, Store
from selfcfg.engine.data.stored_array import write_array
from selfcfg.engine.device import choose_device, package_versions
from selfcfg.engine.footprint import (
    SECONDS_TO_START,
    case_bytes,
    gigabytes,
    prediction_bytes,
    preprocessing_seconds,
    resampled_shapes,
    store_bytes,
    total_passes,
    training_bytes,
)
from selfcfg.engine.trainer import Datasets, Settings, Trainer
from selfcfg.engine.training.rehearsal import Pace, rehearse
from selfcfg.errors import SelfcfgError
from selfcfg.fingerprint import Fingerprint
from selfcfg.geometry import Geometry
from selfcfg.kernels.locations import sample_locations
from selfcfg.plan import Configuration, Plan
from selfcfg.progress import duration
from selfcfg.records import Record
from selfcfg.runs import RunRecord

QUICK, LONGEST = 2.0, 4.0
"""Seconds of steps that are tried of each size of batch, and of a single step up to which the batch is made larger."""
CASE = "noise"


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
        preprocess: of all cases.
        train: of all folds, their scoring included; memory is that of the training process on a processor, else the
            accelerator's.
        predict: of one typical case by one fold's model.
    """

    configuration: str
    device: str
    precision: str
    folds: int
    epochs: int
    step_seconds: float
    preprocess: Stage
    train: Stage
    predict: Stage

    def table(self) -> str:
        """The forecast for people to read."""
        where = "in main memory" if self.device == "cpu" else f"on {self.device}"
        rows = [
            ("preprocess", self.preprocess, "all cases"),
            ("train", self.train, f"{self.folds} x {self.epochs} epochs, {self.step_seconds:.2g} s a step, {where}"),
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
        scored: cases that these validate, as a share of all.
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
    scored: float = 1.0
    jobs: int = 1

    def trainer(self, settings: Settings, configuration: Configuration) -> Trainer[Any]:
        """A trainer of the job, perhaps with other settings or sizes."""
        return self.trainer_type(settings, self.plan, configuration, Datasets(reference=self.plan.labels))


def forecast(job: Job) -> Forecast:
    """The forecast of a job: sizes from formulas, times from a few steps on noise.

    Raises:
        SelfcfgError: the training does not fit the memory; nothing is tried then.
    """
    device, plan, configuration = choose_device(job.device), job.plan, job.configuration
    precision = job.trainer(job.settings, configuration).precision(device)
    refuse_too_large(plan, configuration, precision, device)
    pace = step_pace(job)
    shapes = resampled_shapes(job.facts, plan, configuration)
    originals = {case.case: case.shape for case in job.facts.cases} or shapes
    needed = sorted(case_bytes(originals[name], shape, len(plan.channels)) for name, shape in shapes.items())
    jobs = max(1, min(job.jobs, len(needed)))
    passes = total_passes(list(shapes.values()), plan, configuration)
    one_pass = pace.validation / configuration.batch_size
    scoring = passes * one_pass * job.scored
    weights = configuration.topology.n_parameters(plan.input_channels(configuration), plan.labels.n_outputs)
    largest = max(shapes.values(), key=lambda shape: prediction_bytes(shape, plan, configuration))
    memory = pace.peak_bytes or training_bytes(plan, configuration, 2 if precision == "bfloat16" else 4)
    return Forecast(
        configuration=job.name,
        device=str(device),
        precision=precision,
        folds=job.folds,
        epochs=job.settings.epochs,
        step_seconds=pace.step,
        preprocess=Stage(
            seconds=SECONDS_TO_START + preprocessing_seconds(needed) / jobs,
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
    """The pace of a training on this machine, from steps on noise that is stored, loaded and augmented like real cases.

    On a processor a step takes a fixed time and a time for each patch, so that a smaller batch tells of a larger one;
    an accelerator is given the whole batch, and its memory in use is measured too.

    Raises:
        torch.OutOfMemoryError: a step does not fit the accelerator.
    """
    device, batch = choose_device(job.device), job.configuration.batch_size
    with TemporaryDirectory() as folder:
        noise = _Noise(job, Path(folder))
        if device.type != "cpu" or batch == 1:
            return noise.pace(batch)
        one = noise.pace(1)
        more = min(batch, max(2, round(LONGEST / one.step)))
        if more > 2 or one.step < LONGEST / 2:
            several = noise.pace(more)
            step, validation = (
                max(b - a, 0.0) / (more - 1)
                for a, b in ((one.step, several.step), (one.validation, several.validation))
            )
            left = batch - more
            return replace(several, step=several.step + left * step, validation=several.validation + left * validation)
        return replace(one, step=one.step * batch, validation=one.validation * batch)


def refuse_too_large(plan: Plan, configuration: Configuration, precision: str, device: torch.device) -> None:
    """Nothing, where a training step fits the memory there is.

    Raises:
        SelfcfgError: it cannot; says what it takes, what there is, and what would help.
    """
    remedy = "plan for less with --memory, or take a smaller batch or patch with --set batch_size=... patch_size=..."
    if device.type == "cuda":
        there, needs = torch.cuda.get_device_properties(device).total_memory, configuration.memory_bytes or 0
        # the rough forecast of a plan may be a third too high
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


class _Noise:
    """One case of noise, as large as the typical one or somewhat larger than a patch, with every label in it."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.folder = job, folder
        plan, configuration = job.plan, job.configuration
        flat = 3 - configuration.dimensions
        patch, median = (1,) * flat + configuration.patch_size, (1,) * flat + configuration.median_shape
        z, y, x = (
            max(1, min(round(whole), 2 * edge) if edge > 1 else 1) for whole, edge in zip(median, patch, strict=True)
        )
        shape, rng = (z, y, x), np.random.default_rng(0)
        image = rng.standard_normal((len(plan.channels), *shape), dtype=np.float32)
        label = rng.integers(len(plan.labels.values), size=shape).astype(np.int16)
        geometry = Geometry(shape=shape, spacing=(1.0, 1.0, 1.0), dimensions=configuration.dimensions)
        info = CaseInfo.unchanged(CASE, geometry)
        locations = sample_locations(label, plan.labels.targets, CASE)
        Store(folder / "store").write(Prepared(image, label, info), locations, patch=configuration.patch_size)
        if configuration.after:
            write_array(folder / f"{CASE}.b2nd", label, configuration.patch_size)
        if job.trainer_type.is_taught(job.settings):
            (folder / "soft").mkdir()
            shares = rng.random((plan.labels.n_outputs - (not plan.labels.has_regions), *shape)) / plan.labels.n_outputs
            write_array(folder / "soft" / f"{CASE}.b2nd", shares.astype(np.float16), configuration.patch_size)

    def pace(self, batch_size: int) -> Pace:
        """The pace with so many patches in a batch."""
        job = self.job
        configuration = job.configuration.resized(batch_size=batch_size, patch_size=None)
        device, previous = choose_device(job.device), self.folder if configuration.after else None
        domain = Domain(self.folder / "store", (CASE,), (CASE,), soft=self.folder / "soft")
        sources = {
            stream: Source((domain,), need, previous, image_values={CASE: (0.0,) * len(job.plan.image_targets)})
            for stream, need in job.trainer_type.needs_for(job.settings).items()
            if not need.optional
        }
        return rehearse(
            lambda settings: job.trainer(settings, configuration),
            lambda settings: Batches(sources, settings, configuration, job.plan, device, 0),
            _record(job),
            job.settings.model_copy(update={"batch_size": batch_size}),
            device,
            seconds=QUICK,
        )


def _record(job: Job) -> RunRecord:
    return RunRecord(
        dataset=job.plan.dataset, trainer=job.trainer_type.name, planner=job.plan.planner, configuration=job.name,
        fold=0, settings={}, label_fraction=1.0, seed=0, init=None, plan_hash="", data_hash="", train=(), validation=(),
        versions=package_versions(), machine={},
    )  # fmt: skip
