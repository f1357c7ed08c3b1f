"""The one training loop: any trainer, from its first step or from where it was interrupted, to final weights."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor

from selfcfg.engine.checkpoint import fill, load_state, save_state, save_weights, take_over
from selfcfg.engine.device import Precision, place
from selfcfg.engine.stopping import StopRequest, stop_request
from selfcfg.engine.trainer import Batch, Parts, Settings, Trainer
from selfcfg.engine.training.journal import Epoch, Journal, read_log
from selfcfg.engine.training.opening import open_run
from selfcfg.engine.training.optimisation import Optimisation, learning_rate, seed_globals
from selfcfg.engine.training.position import Position
from selfcfg.errors import DataError, Stopped, TrainingDiverged, WorkerDied
from selfcfg.files import hash_json
from selfcfg.progress import progress, say
from selfcfg.runs import RunFolder, RunRecord, TakeOver

FORMAT = 2
"""Counts changes of what a checkpoint holds."""

_NORM, _SECONDS, _WAITED = "gradient norm", "seconds", "data wait"

Streams = Mapping[str, Batch]


class BatchSource(Protocol):
    """Where batches come from: `selfcfg.engine.data.batches.Batches`, or a stand-in with the same three methods."""

    def training(self, first: int, last: int) -> Iterator[Streams]:
        """The training batches `first` to `last` - 1; what a batch holds depends on its number alone."""
        ...

    def validation(self, epoch: int) -> Iterator[Streams]:
        """The validation batches of an epoch, the same whenever asked for."""
        ...

    def close(self) -> None:
        """Ends whatever makes the batches."""
        ...


@dataclass(frozen=True)
class FitResult:
    """What a training ended with.

    Args:
        epochs: epochs done.
        scores: of the last validation by name; empty without validation.
        best: highest moving average of the first score, or None.
        best_epoch: the epoch that had it, counted from 0.
        stopped_early: whether the validation score stopped rising before the last epoch.
        taken_over: what became of the weights it was started from, or None.
    """

    epochs: int
    scores: dict[str, float]
    best: float | None
    best_epoch: int | None
    stopped_early: bool
    taken_over: TakeOver | None = None


def fit(
    trainer: Trainer[Any],
    run: RunFolder,
    record: RunRecord,
    batches: BatchSource,
    *,
    device: torch.device,
    resume: bool,
    init: Path | None = None,
) -> FitResult:
    """Trains until the last epoch, leaving plan, weights, log and curves in the folder; closes `batches` in any case.

    A finished run is left as it is. The weights depend on the seed, the batches, the versions and the machine's facts
    alone: interrupted anywhere and continued, they are the same bits on a CPU.

    Args:
        trainer: the algorithm with its settings.
        run: where to.
        record: what makes this run; written as run.json at the start and marked finished at the end.
        batches: where batches come from.
        device: to train on.
        resume: continue from the newest checkpoint; without it a folder that has one is refused.
        init: a weights file or a finished run whose parts are taken over before the first step.

    Raises:
        UsageError: the folder holds another run, or this one unfinished without `resume`.
        TrainingDiverged: a loss or gradient is NaN or infinite; names the cases of the batch.
        Stopped: SIGINT or SIGTERM; everything is saved.
        SelfcfgError: a checkpoint could not be written; the one before is intact.
    """
    try:
        if open_run(run, record, resume=resume):
            say(f"{run.path.name} is finished already")
            return _result_in(read_log(run), trainer.settings)
        trainer.plan.write_whole(run.plan)
        training = Training(trainer, run, record, batches, device)
        taken_over = training.restore_or_start(init)
        training.train()
        training.finish()
    finally:
        batches.close()
    at = training.position
    return FitResult(at.epoch, at.scores, at.best, at.best_epoch, at.is_over, taken_over)


def _result_in(log: list[dict[str, Any]], settings: Settings) -> FitResult:
    """The result of a finished run, as far as its log tells."""
    if not log:
        return FitResult(settings.epochs, {}, None, None, stopped_early=False)
    best = next((entry for entry in reversed(log) if entry["is_best"]), None)
    average, epoch = (best["average"], best["epoch"]) if best else (None, None)
    epochs = log[-1]["epoch"] + 1
    return FitResult(epochs, log[-1]["validation"], average, epoch, stopped_early=epochs < settings.epochs)


class Training:
    """One training in progress: the network, its optimiser and its position."""

    def __init__(
        self, trainer: Trainer[Any], run: RunFolder, record: RunRecord, batches: BatchSource, device: torch.device
    ) -> None:
        self.trainer, self.run, self.record, self.batches, self.device = trainer, run, record, batches, device
        self.settings: Settings = trainer.settings
        self.fabric = _fabric(device, trainer.precision(device))
        seed_globals(record.seed, "build", 0)
        self.parts: Parts = place(trainer.build(), device)
        self.taken: tuple[str, ...] = ()
        self.optimisation = Optimisation(self.settings, self.parts)
        self.position = Position()

    def restore_or_start(self, init: Path | None) -> TakeOver | None:
        """Brings network, optimiser and position to where the run is; gives what was taken over from `init`."""
        state = load_state(self.run)
        if state is not None:
            self._restore(state)
            return None
        taken_over = None if init is None else take_over(init, self.parts, self.settings.taken_parts)
        if taken_over is not None:
            self.taken = taken_over.taken
            self.optimisation = Optimisation(self.settings, self.parts, self.taken)
            self.run.note(taken_over=taken_over)
            say(str(taken_over))
        with torch.no_grad():
            self.trainer.started(self.parts)
        return taken_over

    def train(self) -> None:
        """All epochs that are left.

        Raises:
            Stopped: asked to; the state is saved.
        """
        position, settings = self.position, self.settings
        done = position.epoch * settings.iterations_per_epoch + position.step
        total = settings.epochs * settings.iterations_per_epoch
        stream = self.batches.training(done * settings.accumulate, total * settings.accumulate)
        journal = Journal(self.run, position.epoch, tensorboard=settings.tensorboard)
        with closing(journal), stop_request() as stop, progress(f"train {self.run.path.name}", total - done) as tell:
            try:
                while position.epoch < settings.epochs and not position.is_over:
                    while position.step < settings.iterations_per_epoch:
                        stop.obey()
                        self.step(stream)
                        tell(self._note())
                    self._end_epoch(journal, stop)
                stop.obey()
            except Exception as error:
                self._explain_stop(stop, error)
                raise

    def finish(self) -> None:
        """Writes the final weights and marks the run as finished."""
        self.export(self.run.final)
        self.run.note(status="finished")

    def step(self, stream: Iterator[Streams]) -> None:
        """One optimiser step, from batches to moved weights."""
        began, accumulate = time.perf_counter(), self.settings.accumulate
        number = self.position.epoch * self.settings.iterations_per_epoch + self.position.step
        values: dict[str, float] = {}
        cases: set[str] = set()
        waited = 0.0
        for index in range(accumulate):
            asked = time.perf_counter()
            batch = next(stream)
            waited += time.perf_counter() - asked
            cases.update(case for part in batch.values() for case in part.cases)
            seed_globals(self.record.seed, "step", number * accumulate + index)
            for name, value in self._gradients(batch).items():
                values[name] = values.get(name, 0.0) + value / accumulate
        values[_NORM] = float(self.optimisation.gradient_norm(number))
        self._refuse_divergence(values, cases)
        self.optimisation.step(number)
        with torch.no_grad():
            self.trainer.after_step(self.parts)
        self.position.count_step({**values, _SECONDS: time.perf_counter() - began, _WAITED: waited})

    def _gradients(self, batch: Streams) -> dict[str, float]:
        """Adds the gradients of one batch; gives the value of each loss term."""
        groups = iter(self.trainer.losses(self.parts, batch))
        values: dict[str, Tensor] = {}
        while True:
            with self.fabric.autocast():
                terms = next(groups, None)
            if terms is None:
                break
            self.trainer.backward(terms, self.parts)
            for name, term in terms.items():
                values[name] = values.get(name, 0.0) + term.detach().float()
        return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))

    def _refuse_divergence(self, values: Mapping[str, float], cases: set[str]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"train {self.run.path.name}, epoch {self.position.epoch}, iteration {self.position.step}",
                    f"{name} is {value} on a batch of {', '.join(repr(case) for case in sorted(cases))}",
                    "look at these cases with 'selfcfg check', or lower learning_rate",
                )

    def _end_epoch(self, journal: Journal, stop: StopRequest) -> None:
        """Validates, keeps the best weights, logs, and saves the state that the next epoch begins with."""
        began = time.perf_counter()
        scores = self.validate(stop)
        is_best = self.position.rank(scores)
        if is_best:
            self.export(self.run.best)
        journal.write(self._entry(is_best, time.perf_counter() - began))
        self.position.count_epoch(self.settings.patience)
        self.save()
        if self.position.is_over:
            say(f"stopped early: no better validation score for {self.settings.patience} epochs")

    def validate(self, stop: StopRequest) -> dict[str, float]:
        """The scores on the validation batches."""
        self.parts.eval()
        try:
            with torch.no_grad(), self.optimisation.averaged(), self.fabric.autocast():
                scores = self.trainer.validate(self.parts, self._validation_batches(stop))
        finally:
            self.parts.train()
        return {name: float(score) for name, score in scores.items()}

    def _validation_batches(self, stop: StopRequest) -> Iterator[Streams]:
        """The validation batches, made outside of autocast; a request to stop is obeyed between two."""
        stream = self.batches.validation(self.position.epoch)
        while True:
            stop.obey()
            with torch.autocast(self.device.type, enabled=False):
                batch = next(stream, None)
            if batch is None:
                return
            yield batch

    def _entry(self, is_best: bool, after: float) -> Epoch:
        position, steps = self.position, self.settings.iterations_per_epoch
        means = {name: total / steps for name, total in position.sums.items()}
        norm, seconds, waited = (means.pop(name) for name in (_NORM, _SECONDS, _WAITED))
        weights = self.trainer.weights()
        return Epoch(
            epoch=position.epoch,
            learning_rate=learning_rate(self.settings, (position.epoch + 1) * steps - 1),
            loss=sum(weights.get(name, 1.0) * value for name, value in means.items()),
            terms=means,
            gradient_norm=norm,
            validation=position.scores,
            average=position.average,
            is_best=is_best,
            seconds=seconds * steps + after,
            seconds_per_iteration=seconds,
            data_wait=waited,
        )

    def _note(self) -> str:
        scores = [f"{name} {score:.3f}" for name, score in list(self.position.scores.items())[:1]]
        return ", ".join([f"epoch {self.position.epoch + 1}/{self.settings.epochs}", *scores])

    def export(self, path: Path) -> None:
        """Writes the parts that are handed on, with their moving average where there is one."""
        parts = self.trainer.handed_on(self.parts)
        notes = {name: str(getattr(self.record, name)) for name in ("dataset", "trainer", "configuration", "plan_hash")}
        with self.optimisation.averaged():
            save_weights(path, parts, {**notes, "epoch": str(self.position.epoch)})

    def save(self) -> None:
        """Writes the checkpoint that the run continues from."""
        state = {
            "format": FORMAT,
            "identity": hash_json(self.record.identity()),
            "parts": self.parts.state_dict(),
            "taken": list(self.taken),
            "optimisation": self.optimisation.state(),
            "position": asdict(self.position),
        }
        save_state(self.run, state)

    def _restore(self, state: Mapping[str, Any]) -> None:
        asked = f"continue {self.run.path}"
        if state.get("format") != FORMAT:
            raise DataError(
                asked, "its checkpoint was made by another version of selfcfg", "continue with that version"
            )
        if state["identity"] != hash_json(self.record.identity()):
            raise DataError(asked, "its checkpoint belongs to another run", "put the run's own back, or give a --name")
        fill(self.parts, state["parts"], str(self.run.last))
        self.taken = tuple(state["taken"])
        self.optimisation = Optimisation(self.settings, self.parts, self.taken)
        self.optimisation.load_state(state["optimisation"])
        self.position = Position(**state["position"])
        say(f"continuing {self.run.path.name} at epoch {self.position.epoch}, iteration {self.position.step}")

    def _explain_stop(self, stop: StopRequest, error: Exception) -> None:
        """Turns an error into `Stopped` where it is the consequence of a request to stop; saves where that is safe.

        A signal to the whole process group can end the workers in the middle of a step: then the checkpoint of the
        last epoch is what remains.
        """
        asked, again = f"train {self.run.path}", "continue with --resume"
        if isinstance(error, Stopped):
            self.save()
            found = f"{error.found} in epoch {self.position.epoch}, iteration {self.position.step}; it is saved"
            raise Stopped(asked, found, again) from None
        if stop.name is not None and (isinstance(error, WorkerDied) or "DataLoader worker" in str(error)):
            found = f"stopped by {stop.name}, which ended the workers too; saved up to the last epoch"
            raise Stopped(asked, found, again) from error


def _fabric(device: torch.device, precision: Precision) -> Fabric:
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    devices = 1 if device.type == "cpu" or device.index is None else [device.index]
    torch.backends.cudnn.benchmark = device.type == "cuda"
    mixed: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if precision == "bfloat16" else "32-true"
    # one process, whatever a cluster's environment variables say
    return Fabric(accelerator=device.type, devices=devices, precision=mixed, plugins=[LightningEnvironment()])
