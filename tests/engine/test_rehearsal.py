"""Steps that are tried out, and the epochs that fit into a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selfcfg.engine.trainer import Settings
from selfcfg.engine.training.rehearsal import MIN_EPOCHS, Pace, rehearse, settings_within
from selfcfg.errors import UsageError
from selfcfg.testing import MemoryBatches, small_plan, small_record
from selfcfg.trainers.supervised import Supervised, SupervisedSettings

PACE = Pace(step=0.1, validation=0.05, saving=1.0, start=5.0)


def settings(**changes: object) -> Settings:
    return SupervisedSettings.parse(changes, "test")


@pytest.mark.parametrize("hours", [0.5, 1, 4, 12])
def test_as_many_epochs_as_fit(hours: float) -> None:
    asked, seconds = settings(), hours * 3600
    chosen = settings_within(asked, PACE, seconds)
    longer = chosen.model_copy(update={"epochs": chosen.epochs + 2})
    assert PACE.training(chosen) <= seconds
    assert chosen.epochs == asked.epochs or PACE.training(longer) > 0.95 * (seconds - PACE.start)
    assert chosen.iterations_per_epoch == asked.iterations_per_epoch


def test_never_more_than_asked_for() -> None:
    assert settings_within(settings(epochs=3), PACE, 1e9) == settings(epochs=3)


def test_epochs_become_shorter_rather_than_fewer_than_a_few() -> None:
    chosen = settings_within(settings(), PACE, 120)
    assert chosen.epochs == MIN_EPOCHS
    assert 1 <= chosen.iterations_per_epoch < 250 and chosen.validation_iterations >= 1
    assert PACE.training(chosen) <= 120
    assert settings_within(settings(epochs=4), PACE, 60).epochs == 4


@pytest.mark.parametrize("seconds", [10, 0, -50])
def test_a_time_too_short_is_refused_and_says_what_would_do(seconds: float) -> None:
    with pytest.raises(UsageError, match="20 epochs of a single step take 29 s"):
        settings_within(settings(), PACE, seconds)


def test_a_rehearsal_times_real_steps_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    plan = small_plan(3)
    made: list[MemoryBatches] = []

    def batches(short: Settings) -> MemoryBatches:
        made.append(MemoryBatches(Supervised.needs, plan.configurations["small"], plan, short.validation_iterations))
        return made[-1]

    chosen = settings(warmup_epochs=2)
    pace = rehearse(
        lambda short: Supervised(short, plan, plan.configurations["small"]),  # type: ignore[arg-type]
        batches,
        small_record("supervised", chosen, plan),
        chosen,
        torch.device("cpu"),
        seconds=0.1,
    )
    assert 0 < pace.step < 10 and 0 < pace.validation < 10 and pace.saving > 0 and pace.start >= pace.step / 10
    assert pace.peak_bytes is None
    assert made[0].is_closed and not list(tmp_path.iterdir())
