"""The one training loop: any trainer, from its first step or from where it was interrupted, to final weights."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from selfcfg.engine.checkpoint import fill, load_state, save_state, save_weights, take_over
from selfcfg.engine.device import place
from selfcfg.engine.stopping import StopRequest, stop_request
from selfcfg.engine.trainer import Batch, Parts, Settings, Trainer
from selfcfg.engine.training.journal import Epoch, Journal, read_log
from selfcfg.engine.training.opening import claimed, open_run
from selfcfg.engine.training.optimisation import Optimisation, learning_rate, seed_globals
from selfcfg.engine.training.position import Position
from selfcfg.engine.training.processes import single
from selfcfg.engine.training.result import FitResult
from selfcfg.errors import DataError, Stopped, TrainingDiverged, WorkerDied
from selfcfg.files import hash_json
from selfcfg.kernels.ranks import ALONE, Ranks
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


def fit(
    trainer: Trainer[Any],
    run: RunFolder,
    record: RunRecord,
    batches: BatchSource,
    *,
    device: torch.device,
    resume: bool,
    init: Path | None = None,
    ranks: Ranks = ALONE,
) -> FitResult:
    """Trains until the last epoch, leaving plan, weights, log and curves in the folder; closes `batches` in any case.

    A finished run is left as it is. The weights depend on the seed, the batches, the versions and the machine's facts
    alone: interrupted anywhere and continued, they are the same bits on a CPU. Several processes that share the batches
    end with what one would, up to rounding; the first of them writes all files.

    Args:
        trainer: the algorithm with its settings.
        run: where to.
        record: what makes this run; written as run.json at the start and marked finished at the end.
        batches: where batches come from.
        device: to train on.
        resume: continue from the newest checkpoint; without it a folder that has one is refused.
        init: a weights file or a finished run whose parts are taken over before the first step.
        ranks: this process among those that train together.

    Raises:
        UsageError: the folder holds another run, or this one unfinished without `resume`; or another process trains it.
        TrainingDiverged: a loss or gradient is NaN or infinite; names the cases of the batch.
        Stopped: SIGINT or SIGTERM; everything is saved.
        SelfcfgError: a checkpoint could not be written; the one before is intact.
    """
    with ExitStack() as held:
        held.callback(batches.close)
        ranks.first(lambda: held.enter_context(claimed(run)))
        # of several machines some may not count that they were started again
        resume = any(ranks.gathered([resume]))
        if ranks.first(lambda: open_run(run, record, resume=resume)):
            say(f"{run.path.name} is finished already")
            return FitResult.of_log(read_log(run), trainer.settings)
        ranks.first(lambda: trainer.plan.write_whole(run.plan))
        training = Training(trainer, run, record, batches, device, ranks)
        taken_over = training.restore_or_start(init)
        training.train()
        training.finish()
    at = training.position
    return FitResult(at.epoch, at.scores, at.best, at.best_epoch, at.is_over, taken_over)


class Training:
    """One training in progress: the network, its optimiser and its position."""

    def __init__(  # noqa: PLR0917 - each is a fact of its own
        self,
        trainer: Trainer[Any],
        run: RunFolder,
        record: RunRecord,
        batches: BatchSource,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.trainer, self.run, self.record, self.batches, self.device = trainer, run, record, batches, device
        self.ranks = ranks
        self.settings: Settings = trainer.settings
        self.fabric = single(device, trainer.precision(device))
        seed_globals(record.seed, "build", 0)
        self.parts: Parts = place(trainer.build(), device)
        self.taken: tuple[str, ...] = ()
        self.optimisation = Optimisation(self.settings, self.parts)
        self.position = Position()

    def restore_or_start(self, init: Path | None) -> TakeOver | None:
        """Brings network, optimiser and position to where the run is; gives what was taken over from `init`."""
        state = self.ranks.shared(lambda: load_state(self.run))
        if state is not None:
            self._restore(state)
            return None
        taken_over = None if init is None else take_over(init, self.parts, self.settings.taken_parts)
        if taken_over is not None:
            self.taken = taken_over.taken
            self.optimisation = Optimisation(self.settings, self.parts, self.taken)
            self.ranks.first(lambda: self.run.note(taken_over=taken_over))
            say(str(taken_over))
        with torch.no_grad():
            self.trainer.started(self.parts)
        self.ranks.make_equal(self.parts.state_dict().values())
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
        writes = self.ranks.is_first
        journal = Journal(self.run, position.epoch, tensorboard=settings.tensorboard and writes, draws=writes)
        with closing(journal), stop_request() as stop, progress(f"train {self.run.path.name}", total - done) as tell:
            try:
                while position.epoch < settings.epochs and not position.is_over:
                    while position.step < settings.iterations_per_epoch:
                        self._obey(stop)
                        self.step(stream)
                        tell(self._note())
                    self._end_epoch(journal, stop)
                self._obey(stop)
            except Exception as error:
                self._explain_stop(stop, error)
                raise

    def finish(self) -> None:
        """Writes the final weights and marks the run as finished."""
        self.ranks.first(lambda: self.export(self.run.final))
        self.ranks.first(lambda: self.run.note(status="finished"))

    def _obey(self, stop: StopRequest) -> None:
        """Ends where a stop was asked for, of one process or all: they end after the same step."""
        stop.name = self.ranks.agreed(stop.name)
        stop.obey()

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
            with self.ranks.splitting():
                for name, value in self._gradients(batch).items():
                    values[name] = values.get(name, 0.0) + value / accumulate
        self.ranks.average_gradients(self.optimisation.parameters)
        values = self.ranks.means(values)
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
                everything = sorted({case for part in self.ranks.gathered([cases]) for case in part})
                raise TrainingDiverged(
                    f"train {self.run.path.name}, epoch {self.position.epoch}, iteration {self.position.step}",
                    f"{name} is {value} on a batch of {', '.join(repr(case) for case in everything)}",
                    "look at these cases with 'selfcfg check', or lower learning_rate",
                )

    def _end_epoch(self, journal: Journal, stop: StopRequest) -> None:
        """Validates, keeps the best weights, logs, and saves the state that the next epoch begins with."""
        began = time.perf_counter()
        scores = self.validate(stop)
        is_best = self.position.rank(scores)
        if is_best:
            self.ranks.first(lambda: self.export(self.run.best))
        self.ranks.first(lambda: journal.write(self._entry(is_best, time.perf_counter() - began)))
        self.position.count_epoch(self.settings.patience)
        self.save()
        if self.position.is_over:
            say(f"stopped early: no better validation score for {self.settings.patience} epochs")

    def validate(self, stop: StopRequest) -> dict[str, float]:
        """The scores on the validation batches, those of the first process for all."""
        self.parts.eval()
        try:
            with torch.no_grad(), self.optimisation.averaged(), self.fabric.autocast(), self.ranks.spreading():
                scores = self.trainer.validate(self.parts, self._validation_batches(stop))
        finally:
            self.parts.train()
        return self.ranks.first(lambda: {name: float(score) for name, score in scores.items()})

    def _validation_batches(self, stop: StopRequest) -> Iterator[Streams]:
        """The validation batches, made outside of autocast; a request to stop is obeyed between two.

        Of several processes it is not: they could not agree before all of them are through.
        """
        stream = self.batches.validation(self.position.epoch)
        while True:
            if self.ranks == ALONE:
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
        """Writes the checkpoint that the run continues from, which does not depend on the number of processes."""
        state = {
            "format": FORMAT,
            "identity": hash_json(self.record.identity()),
            "parts": self.parts.state_dict(),
            "taken": list(self.taken),
            "optimisation": self.optimisation.state(),
            "position": asdict(self.position),
        }
        self.ranks.first(lambda: save_state(self.run, state))

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
