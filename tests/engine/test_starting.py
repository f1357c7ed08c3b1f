"""Trainings that start from another run: what is taken, what is frozen, and continuing in the middle of that."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from selfcfg.engine.checkpoint import load_state, read_weights
from selfcfg.engine.loop import FitResult, fit
from selfcfg.engine.trainer import Trainer
from selfcfg.runs import RunFolder
from selfcfg.testing import CPU, BatchBroken, MemoryBatches, small_plan, small_record
from selfcfg.trainers.contrastive import Contrastive
from selfcfg.trainers.masked import Masked
from selfcfg.trainers.supervised import Supervised

SHORT = {"epochs": 3, "iterations_per_epoch": 3, "validation_iterations": 1, "precision": "float32"}
Made = tuple[FitResult, dict[str, Tensor]]


def trained(
    trainer_type: type[Trainer[Any]], folder: Path, init: Path | None = None, broken: int | None = None, **changed: Any
) -> Made:
    """A training in `folder`, continued where there is one; its result and final weights."""
    plan = small_plan(2)
    settings = trainer_type.settings_type(**{**SHORT, **changed})
    trainer = trainer_type(settings, plan, plan.configurations["small"])
    batches = MemoryBatches(trainer.needs, trainer.configuration, plan, broken=broken)
    run, record = RunFolder(folder), small_record(trainer.name, settings, plan)
    result = fit(trainer, run, record, batches, device=CPU, resume=True, init=init)
    return result, read_weights(run.final)[0]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    trained(Masked, folder)
    return folder


def parts_of(weights: dict[str, Tensor], *parts: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.split(".")[0] in parts}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_fine_tuning_starts_from_the_weights_that_were_pretrained(pretrained: Path, tmp_path: Path) -> None:
    result, weights = trained(Supervised, tmp_path, pretrained, epochs=1, frozen_epochs=1)
    assert result.taken_over is not None and result.taken_over.taken == ("encoder", "decoder")
    assert equal(parts_of(weights, "encoder", "decoder"), read_weights(pretrained / "final.safetensors")[0])


@pytest.mark.parametrize(("optimizer", "broken"), [("sgd", 7), ("adamw", 4)])
def test_it_continues_exactly_in_frozen_epochs_and_after_them(
    pretrained: Path, tmp_path: Path, optimizer: str, broken: int
) -> None:
    chosen = {"optimizer": optimizer, "frozen_epochs": 2, "taken_rate": 0.3, "ema": 0.9}
    whole = trained(Supervised, tmp_path / "whole", pretrained, **chosen)[1]
    with suppress(BatchBroken):
        trained(Supervised, tmp_path / "cut", pretrained, broken, **chosen)
    state = load_state(RunFolder(tmp_path / "cut"))
    assert state is not None and state["taken"] == ["encoder", "decoder"]
    # without the weights it was started from, which may be gone by then
    assert equal(trained(Supervised, tmp_path / "cut", **chosen)[1], whole)
    before = read_weights(pretrained / "final.safetensors")[0]
    assert not any(
        torch.equal(tensor, before[name])
        for name, tensor in parts_of(whole, "encoder").items()
        if "conv.weight" in name
    )


def test_slow_copies_start_from_what_was_taken_over(pretrained: Path, tmp_path: Path) -> None:
    trained(Contrastive, tmp_path, pretrained, epochs=1, iterations_per_epoch=1, learning_rate=1e-12, weight_decay=0)
    state = load_state(RunFolder(tmp_path))
    assert state is not None
    before = read_weights(pretrained / "final.safetensors")[0]
    for name, tensor in parts_of(before, "encoder").items():
        torch.testing.assert_close(state["parts"][f"slow_{name}"], tensor)
