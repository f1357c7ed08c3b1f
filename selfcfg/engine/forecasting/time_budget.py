"""Trainings that end in a given time: the number of epochs is fixed at the start, and kept when a run continues."""

from __future__ import annotations

from dataclasses import replace

from selfcfg.engine.device import choose_device
from selfcfg.engine.experiment import Experiment
from selfcfg.engine.footprint import resampled_shapes, total_passes
from selfcfg.engine.training.rehearsal import Pace, rehearse, settings_within
from selfcfg.errors import UsageError, counted
from selfcfg.progress import duration, say
from selfcfg.runs import RunRecord

FIXED = ("epochs", "iterations_per_epoch")
"""Settings that the time decides."""


def within(experiment: Experiment, seconds: float, total: float) -> Experiment:
    """The experiment with epochs such that all of its folds are trained and scored in time.

    An experiment that was begun within the same time keeps the epochs it was begun with.

    Args:
        experiment: opened, nothing of it trained yet or some folds.
        seconds: left for its folds.
        total: the time that was asked for, in seconds; noted in run.json.

    Raises:
        UsageError: epochs were asked for too, or the time is too short.
        Stopped: SIGINT or SIGTERM.
    """
    if given := [name for name in FIXED if name in experiment.request.settings]:
        raise UsageError("--time-budget", f"{given[0]} was set too", "give either of them")
    begun = _begun(experiment, total)
    if begun is not None:
        settings = experiment.settings.model_copy(update={name: begun.settings[name] for name in _CHANGED})
        say(
            f"time budget {duration(total)}: fold {begun.fold} was begun with {settings.epochs} epochs of "
            f"{settings.iterations_per_epoch} steps; folds that were not asked for then take as long again each"
        )
        return replace(experiment, settings=settings, time_budget=total)
    say(f"measuring how long a step of {experiment.configuration_name} takes here ...")
    pace = measure_pace(experiment)
    each = seconds / len(experiment.folds) - _scoring(experiment, pace)
    settings = settings_within(experiment.settings, pace, each)
    say(_decided(experiment, pace, settings.epochs, settings.iterations_per_epoch, pace.training(settings), total))
    return replace(experiment, settings=settings, time_budget=total)


_CHANGED = (*FIXED, "validation_iterations")


def measure_pace(experiment: Experiment, seconds: float = 10.0) -> Pace:
    """The pace of an experiment's first fold, from real steps on its real batches."""
    record, device = experiment.record(experiment.folds[0]), choose_device(experiment.request.device)
    return rehearse(
        lambda settings: replace(experiment, settings=settings).trainer(),
        lambda settings: replace(experiment, settings=settings).batches(record),
        record,
        experiment.settings,
        device,
        seconds=seconds,
    )


def _begun(experiment: Experiment, total: float) -> RunRecord | None:
    """The record of a fold that was begun within this time."""
    records = (RunRecord.read(file) for file in sorted(experiment.folder.glob("fold_*/run.json")))
    return next((record for record in records if record.time_budget == total), None)


def _scoring(experiment: Experiment, pace: Pace) -> float:
    """Seconds that predicting the largest validation set takes: a pass at the pace of validation batches.

    A pretraining predicts nothing.
    """
    if not experiment.trainer_type.segments(experiment.settings):
        return 0.0
    plan, configuration = experiment.plan, experiment.configuration
    shapes = resampled_shapes(experiment.facts, plan, configuration)
    passes = max(
        total_passes([shapes[case] for case in experiment.splits[fold].val], plan, configuration)
        for fold in experiment.folds
    )
    return passes * pace.validation / configuration.batch_size


def _decided(  # noqa: PLR0917 - the numbers of one sentence
    experiment: Experiment, pace: Pace, epochs: int, steps: int, training: float, total: float
) -> str:
    folds = counted(len(experiment.folds), "fold")
    usual = experiment.settings
    return (
        f"time budget {duration(total)}: a step takes {pace.step:.2g} s here, so {folds} of {epochs} epochs of {steps} "
        f"steps are trained, {duration(training)} each (asked for: {usual.epochs} of {usual.iterations_per_epoch})"
    )
