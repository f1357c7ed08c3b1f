"""The time that a command may take."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from selfcfg.cli.options import seconds_of
from selfcfg.engine.planner import Target

if TYPE_CHECKING:
    from selfcfg.engine.experiment import Experiment


@dataclass(frozen=True)
class Budget:
    """The time that a command may take, from when it was given.

    Args:
        seconds: of the whole command; None: as long as it takes.
        began: when it was given.
    """

    seconds: float | None
    began: float

    @classmethod
    def of(cls, text: str | None) -> Budget:
        """The budget that an option names, from now on."""
        return cls(seconds_of(text), time.monotonic())

    def target(self, memory_gb: float | None, wanted: Target, n_trainings: int) -> Target:
        """What a plan is to fit: the time of one training on a processor, unless a memory was given."""
        from selfcfg.engine.device import choose_device  # noqa: PLC0415

        if self.seconds is None or memory_gb is not None or choose_device(wanted.device).type != "cpu":
            return Target(memory_gb)
        return replace(wanted, seconds=self.seconds / n_trainings)

    def applied(self, experiment: Experiment, n_later: int) -> Experiment:
        """The experiment with as many epochs as its share of the time left allows, `n_later` folds to come after it."""
        from selfcfg.engine.forecasting.time_budget import within  # noqa: PLC0415

        if self.seconds is None:
            return experiment
        left = self.seconds - (time.monotonic() - self.began)
        here = len(experiment.folds)
        return within(experiment, left * here / (here + n_later), self.seconds)
