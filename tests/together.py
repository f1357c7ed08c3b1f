"""Every trainer, trained by one process or by several that share its batches: what tests compare.

Run as a program by several processes, or called as one of them, it leaves in a folder what each ended with.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfcfg import registry
from selfcfg.engine.trainer import Batch
from selfcfg.engine.training.journal import without_curves
from selfcfg.engine.training.loop import Training
from selfcfg.engine.training.opening import open_run
from selfcfg.errors import Stopped
from selfcfg.kernels.ranks import ALONE, Ranks
from selfcfg.labels import LabelSchema
from selfcfg.plan import Plan
from selfcfg.progress import quietly
from selfcfg.runs import RunFolder
from selfcfg.testing import CPU, DATASETS, LABELS, MemoryBatches, small_plan, small_record

STEPS = {"epochs": 2, "iterations_per_epoch": 10, "validation_iterations": 3, "precision": "float32"}
FEW = {"epochs": 1, "iterations_per_epoch": 4}
PLAIN = {"optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.9}
"""AdamW makes whole steps of gradients that are nothing but rounding, such as that of a bias before a norm."""

IGNORING = LabelSchema(labels={"background": 0, "a": 1, "b": 2, "ignore": 3})
REGIONS = LabelSchema(labels={"background": 0, "all": (1, 2), "core": 2}, regions_class_order=(1, 2))
WHOLE = {"batch_dice": True}


BRIEF = {"epochs": 2, "iterations_per_epoch": 5, "queue": 12}
STOPPED = "contrastive stopped"
"""The last process is asked to stop in the second epoch; the queue of this one and of the undisturbed one is full by
then, and replaced."""


@dataclass(frozen=True)
class Case:
    """One training: a trainer, its settings, the labels of the plan, and the batch at which a stop is asked for."""

    trainer: str
    settings: dict[str, Any]
    labels: LabelSchema = LABELS
    stop: int | None = None


@cache
def cases() -> dict[str, Case]:
    """Each registered trainer as it is, and those with settings under which processes exchange more."""
    found = {name: Case(name, {}) for name in registry.registered("trainers")}
    tasks = tuple(registry.registered("tasks"))
    found["multitask tasks"] = Case("multitask", {**FEW, "mode": "pretrain", "tasks": tasks})
    two = {**FEW, "tasks": ("distance_map", "moco"), "calibration_step": 2}
    for balance in ("calibrated", "uncertainty", "pcgrad", "fixed"):
        found[f"multitask {balance}"] = Case("multitask", {**two, "balance": balance})
    now = {**FEW, "matching_warmup": 0, "matching_every": 2}
    for how in ("sum", "pcgrad", "cosine", "l2"):
        settings = {"matching": how, **now, **WHOLE, "matching_stages": None}
        found[f"reference_guided {how}"] = Case("reference_guided", settings)
    return found | {
        "supervised whole": Case("supervised", {**FEW, **WHOLE, "ema": 0.9, "accumulate": 2}),
        "supervised ignoring": Case("supervised", {**FEW, **WHOLE}, IGNORING),
        "supervised regions": Case("supervised", {**FEW, **WHOLE}, REGIONS),
        "distillation whole": Case("distillation", {**FEW, **WHOLE, "teach_ignored": False}, IGNORING),
        "masked cut": Case("masked", {**FEW, "mask_block": 5}),
        "sequential places": Case("sequential", {**FEW, "alike_within": 0.3, "apart_beyond": 0.4, "queue": 12}),
        "contrastive replaced": Case("contrastive", BRIEF),
        STOPPED: Case("contrastive", BRIEF, stop=7),
    }


@dataclass
class Shared(MemoryBatches):
    """Batches in memory, of which each process gets its own rows."""

    ranks: Ranks = ALONE
    stop: int | None = None

    def training(self, first: int, last: int) -> Iterator[dict[str, Batch]]:
        """This process's rows of each batch."""
        for number, streams in enumerate(super().training(first, last), first):
            if number == self.stop and self.ranks.rank == self.ranks.size - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield {stream: self._rows(batch) for stream, batch in streams.items()}

    def validation(self, epoch: int) -> Iterator[dict[str, Batch]]:
        """The batches that are dealt to this process."""
        yield from self.ranks.dealt(list(super().validation(epoch)))

    def _rows(self, batch: Batch) -> Batch:
        mine = self.ranks.rows(len(batch.cases))
        own = slice(mine.start, mine.stop)
        given = {field.name: getattr(batch, field.name) for field in fields(batch)}
        views = tuple(view[own] for view in given.pop("views"))
        cut = {name: None if value is None else value[own] for name, value in given.items()}
        return replace(batch, views=views, **cut)


def plan_for(case: Case) -> Plan:
    """A plan whose batches two processes can share."""
    plan = small_plan(2, case.labels)
    size = 8 if case.trainer == "sequential" else 4
    resized = {name: one.resized(batch_size=size, patch_size=None) for name, one in plan.configurations.items()}
    return plan.model_copy(update={"configurations": resized})


@dataclass(frozen=True)
class Ended:
    """What a training ended with in one process."""

    parts: dict[str, Tensor]
    scores: dict[str, float]


def train(case: Case, folder: Path, ranks: Ranks = ALONE) -> Ended:
    """Trains from the start, or from where the folder's run is."""
    trainer_type, plan = registry.load("trainers", case.trainer), plan_for(case)
    settings = trainer_type.settings_type(**{**STEPS, **PLAIN, **case.settings})
    assert trainer_type.why_not_split(settings) == ""
    trainer = trainer_type(settings, plan, plan.configurations["small"], DATASETS)
    needs = trainer_type.needs_for(settings)
    batches = Shared(needs, trainer.configuration, plan, 3, ranks=ranks, stop=case.stop)
    run, record = RunFolder(folder), small_record(case.trainer, settings, plan)
    ranks.first(lambda: open_run(run, record, resume=True))
    training = Training(trainer, run, record, batches, CPU, ranks)
    with quietly(), without_curves():
        training.restore_or_start(None)
        with suppress(Stopped):
            training.train()
    return Ended(training.parts.state_dict(), training.position.scores)


def main(folder: Path) -> None:
    """Trains every case in this process, one of several."""
    from selfcfg.engine.training.processes import connected

    with connected("cpu") as ranks:
        for name, case in cases().items():
            ended = train(case, folder / name, ranks)
            torch.save([ended.parts, ended.scores], folder / f"{name}.{ranks.rank}")
        shutil.copytree(folder / STOPPED, folder / "kept") if ranks.is_first else None
        # whatever another one sees there, it goes on with what the first one has read
        place = STOPPED if ranks.is_first else "nowhere"
        again = train(replace(cases()[STOPPED], stop=None), folder / place, ranks)
        torch.save([again.parts, again.scores], folder / f"continued.{ranks.rank}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
