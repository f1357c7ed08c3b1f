"""Trainings that start from another run: what is taken, what is frozen, and continuing in the middle of that."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from selfcfg import registry
from selfcfg.engine.checkpoint import load_state, read_weights
from selfcfg.engine.trainer import Trainer
from selfcfg.engine.training.loop import FitResult, Training, fit
from selfcfg.engine.training.opening import open_run
from selfcfg.runs import RunFolder, RunRecord
from selfcfg.testing import CPU, DATASETS, BatchBroken, MemoryBatches, small_plan, small_record
from selfcfg.trainers.contrastive import Contrastive
from selfcfg.trainers.masked import Masked
from selfcfg.trainers.supervised import Supervised

pytestmark = pytest.mark.usefixtures("no_curves")

SHORT = {"epochs": 3, "iterations_per_epoch": 3, "validation_iterations": 1, "precision": "float32"}
TRAINERS = {name: registry.load("trainers", name) for name in registry.registered("trainers")}
PRETRAINING = [name for name, trainer in TRAINERS.items() if "head" not in trainer.exports]
Made = tuple[FitResult, dict[str, Tensor]]
HandedOn = tuple[Path, int, dict[str, Tensor]]


def opened(
    trainer_type: type[Trainer[Any]], folder: Path, *, dimensions: int = 2, broken: int | None = None, **changed: Any
) -> tuple[Trainer[Any], RunFolder, RunRecord, MemoryBatches]:
    """What a training in `folder` is made of."""
    plan = small_plan(dimensions)
    settings = trainer_type.settings_type(**{**SHORT, **changed})
    trainer = trainer_type(settings, plan, plan.configurations["small"], DATASETS)
    batches = MemoryBatches(trainer.needs_for(trainer.settings), trainer.configuration, plan, broken=broken)
    return trainer, RunFolder(folder), small_record(trainer.name, settings, plan), batches


def trained(trainer_type: type[Trainer[Any]], folder: Path, init: Path | None = None, **chosen: Any) -> Made:
    """A training in `folder`, continued where there is one; its result and final weights."""
    trainer, run, record, batches = opened(trainer_type, folder, **chosen)
    result = fit(trainer, run, record, batches, device=CPU, resume=True, init=init)
    return result, read_weights(run.final)[0]


def after_steps(folder: Path, init: Path | None, count: int, **chosen: Any) -> dict[str, Tensor]:
    """All weights of a training with labels after its first steps."""
    trainer, run, record, batches = opened(Supervised, folder, **chosen)
    open_run(run, record, resume=False)
    training = Training(trainer, run, record, batches, CPU)
    training.restore_or_start(init)
    stream = batches.training(0, count)
    for _ in range(count):
        training.step(stream)
    return {name: tensor.clone() for name, tensor in training.parts.state_dict().items()}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    trained(Masked, folder)
    return folder


def parts_of(weights: dict[str, Tensor], *parts: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.split(".")[0] in parts}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module", params=[(name, size) for name in PRETRAINING for size in (2, 3)], ids=str)
def handed_on(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HandedOn:
    """Weights of each strategy that learns without labels, in 2D and 3D."""
    name, dimensions = request.param
    folder = tmp_path_factory.mktemp("handed on")
    trained(registry.load("trainers", name), folder, dimensions=dimensions, epochs=1)
    return folder, dimensions, read_weights(folder / "final.safetensors")[0]


def test_fine_tuning_starts_from_the_very_weights_that_were_pretrained(handed_on: HandedOn, tmp_path: Path) -> None:
    folder, dimensions, pretrained = handed_on
    first = after_steps(tmp_path / "first", folder, 0, dimensions=dimensions)
    anew = after_steps(tmp_path / "anew", None, 0, dimensions=dimensions)
    taken = parts_of(first, *{name.split(".")[0] for name in pretrained})
    assert {"encoder", "head"} <= {name.split(".")[0] for name in first} and not parts_of(taken, "head")
    assert equal(taken, pretrained)
    assert not equal(parts_of(anew, "encoder"), parts_of(pretrained, "encoder"))
    rest = {name: tensor for name, tensor in first.items() if name not in taken}
    assert equal(rest, {name: anew[name] for name in rest}), "what was not pretrained starts as it does without --init"


def test_only_what_was_taken_over_is_frozen_or_learns_at_a_lower_rate(handed_on: HandedOn, tmp_path: Path) -> None:
    folder, dimensions, pretrained = handed_on
    chosen = {"dimensions": dimensions, "weight_decay": 0.1}
    whole, half = (after_steps(tmp_path / str(rate), folder, 1, taken_rate=rate, **chosen) for rate in (1, 0.5))
    first = after_steps(tmp_path / "first", folder, 0, **chosen)
    frozen = after_steps(tmp_path / "frozen", folder, SHORT["iterations_per_epoch"], frozen_epochs=1, **chosen)
    assert equal({name: frozen[name] for name in pretrained}, pretrained)
    for name in pretrained:
        torch.testing.assert_close(half[name] - first[name], 0.5 * (whole[name] - first[name]), rtol=1e-3, atol=1e-6)
    assert not equal(parts_of(whole, "encoder"), parts_of(first, "encoder"))
    for part in {name.split(".")[0] for name in first.keys() - pretrained.keys()}:
        assert not equal(parts_of(frozen, part), parts_of(first, part))
        assert equal(parts_of(half, part), parts_of(whole, part))


@pytest.mark.parametrize(("optimizer", "broken"), [("sgd", 7), ("adamw", 4)])
def test_it_continues_exactly_in_frozen_epochs_and_after_them(
    pretrained: Path, tmp_path: Path, optimizer: str, broken: int
) -> None:
    chosen = {"optimizer": optimizer, "frozen_epochs": 2, "taken_rate": 0.3, "ema": 0.9}
    result, whole = trained(Supervised, tmp_path / "whole", pretrained, **chosen)
    assert result.taken_over is not None and result.taken_over.taken == ("encoder", "decoder")
    with suppress(BatchBroken):
        trained(Supervised, tmp_path / "cut", pretrained, broken=broken, **chosen)
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
