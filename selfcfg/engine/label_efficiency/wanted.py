"""What a benchmark of label efficiency is asked to compare."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from selfcfg.engine.data.collection import Unlabelled
from selfcfg.errors import UsageError, listed
from selfcfg.records import Record


class LabelEfficiency(Record):
    """What a benchmark of label efficiency compares.

    Args:
        arms: entry-point name of a trainer, by name of the arm. One that segments is trained as it is; one that only
            pretrains does so once a seed, on all training images of the fold without labels, and "supervised" goes
            on from there.
        fractions: labelled subjects; as an int their number, as a float their share.
        seeds: how often all is repeated, each time with other labelled subjects, another start and other batches.
        budgets: optimiser steps with labels, by name.
        rates: learning rates that every job chooses from.
        settings: of the trainings with labels.
        tuning: further ones, by arm.
        pretraining: settings of the arms that pretrain, by arm.
        unlabelled: further images for all arms that take images without labels.
        further: still further ones, by arm.
        pretrain_from: by arm that pretrains, another one from whose pretraining, seed by seed, its own starts.
        reference: raw folder of the labelled dataset for arms that another one guides, or None.
        configuration: name within the plan; None: its default.
        planner: name of the plan; None: the only one there is.
        mirroring: average the predictions of mirrored images, where the training mirrored.
        device: such as "cpu" or "cuda:0"; None: the best there is.
        elsewhere: whether it is trained on another machine, of whose device and memory this one knows nothing.
    """

    arms: dict[str, str]
    fractions: tuple[int | float, ...]
    seeds: int = 3
    budgets: dict[str, int]
    rates: tuple[float, ...] = (0.1, 0.03, 0.01)
    settings: dict[str, Any] = {}
    tuning: dict[str, dict[str, Any]] = {}
    pretraining: dict[str, dict[str, Any]] = {}
    unlabelled: tuple[Unlabelled, ...] = ()
    further: dict[str, tuple[Unlabelled, ...]] = {}
    pretrain_from: dict[str, str] = {}
    reference: Path | None = None
    configuration: str | None = None
    planner: str | None = None
    mirroring: bool = True
    device: str | None = None
    elsewhere: bool = False

    def settings_of(self, arm: str) -> dict[str, Any]:
        """What is said of the settings of an arm's trainings with labels."""
        return {**self.settings, **self.tuning.get(arm, {})}

    def pretrainings(self, arm: str) -> list[str]:
        """The arms whose pretrainings come before an arm's training with labels: its own first, then what that needs.

        Raises:
            UsageError: an arm would have to be pretrained before itself.
        """
        found = [arm]
        while (before := self.pretrain_from.get(found[-1])) is not None:
            if before in found:
                way = " from ".join([*found, before])
                asked = f"--pretrain-from {arm}:{self.pretrain_from[arm]}"
                raise UsageError(asked, f"{way} is a circle", "leave out one of them, which then starts anew")
            found.append(before)
        return found


def refuse_nonsense(wanted: LabelEfficiency) -> None:
    """Nothing, where what is wanted may make sense, whatever the dataset.

    Raises:
        UsageError: it cannot.
    """
    asked = "benchmark label-efficiency"
    for what, values in (("arm", wanted.arms), ("fraction", wanted.fractions), ("budget", wanted.budgets)):
        if not values:
            raise UsageError(asked, f"no {what} was given", f"give at least one {what}")
    if wanted.seeds < 1 or not wanted.rates or min(wanted.rates) <= 0:
        raise UsageError(
            asked, f"{wanted.seeds} seeds, rates {listed(wanted.rates)}", "give one at least, rates above 0"
        )
    for name, steps in wanted.budgets.items():
        if steps < 1 or not re.fullmatch(r"[A-Za-z0-9_.+]+", name):
            raise UsageError(
                f"budget '{name}'", f"{steps} steps", "give it as NAME=STEPS, the name of letters and digits"
            )
    by_option: dict[str, Iterable[str]] = {
        "--arm-set": wanted.tuning,
        "--pretrain-set": wanted.pretraining,
        "--pretrain-on": wanted.further,
        "--pretrain-from": [arm for pair in wanted.pretrain_from.items() for arm in pair],
    }
    for option, named in by_option.items():
        if strange := sorted(set(named) - set(wanted.arms)):
            raise UsageError(f"{option} {strange[0]}", f"the arms are {listed(wanted.arms)}", "name one of them")
    for arm in wanted.pretrain_from:
        wanted.pretrainings(arm)
    _refuse_decided("--set ", wanted.settings)
    for arm, settings in wanted.tuning.items():
        _refuse_decided(f"--arm-set {arm}.", settings)


def _refuse_decided(option: str, settings: Iterable[str]) -> None:
    if given := [name for name in ("epochs", "learning_rate") if name in settings]:
        raise UsageError(f"{option}{given[0]}", "every job decides it", "give --budgets and --rates")
