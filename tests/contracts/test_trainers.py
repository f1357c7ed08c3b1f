"""Every installed trainer keeps the contract; and the check notices trainers that do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selfcfg import registry
from selfcfg.engine.trainer import Batch, Need, Parts, Settings, Trainer
from selfcfg.testing import ContractBroken, check_trainer


@pytest.mark.parametrize("name", registry.registered("trainers"))
def test_installed_trainers(name: str) -> None:
    trainer = registry.load("trainers", name)
    assert trainer.name == name
    check_trainer(trainer)


@pytest.mark.parametrize("mode", ["joint", "pretrain"])
@pytest.mark.parametrize("task", registry.registered("tasks"))
def test_multitask_with_each_task(task: str, mode: str) -> None:
    check_trainer(registry.load("trainers", "multitask"), tasks=(task,), mode=mode, calibration_step=1)


@pytest.mark.parametrize(
    "settings", [{"balance": "fixed"}, {"balance": "uncertainty"}, {"balance": "pcgrad"}, {"accumulate": 2}], ids=str
)
def test_multitask_with_each_balance(settings: dict[str, Any]) -> None:
    tasks = ("distance_map", "moco")
    check_trainer(registry.load("trainers", "multitask"), tasks=tasks, calibration_step=1, **settings)


def test_a_pretraining_of_several_tasks() -> None:
    tasks = ("rubik", "restoration")
    check_trainer(registry.load("trainers", "multitask"), tasks=tasks, mode="pretrain", balance="pcgrad")


@pytest.mark.parametrize(
    "settings",
    [
        {"matching": "sum", "task": "rubik"},
        {"matching": "cosine", "task": "moco", "accumulate": 2},
        {"matching": "l2", "task": "vicreg"},
        {"matching": "pcgrad", "task": "restoration"},
        {"matching": "cosine", "matching_every": 3, "matching_stages": None},
    ],
    ids=str,
)
def test_reference_guided_with_each_matching(settings: dict[str, Any]) -> None:
    check_trainer(
        registry.load("trainers", "reference_guided"), **{"matching_warmup": 0, "matching_every": 1, **settings}
    )


class Drawing(Trainer[Settings]):
    """A linear map of noisy intensities, with a queue and a moving copy: everything that resuming must bring back."""

    name = "drawing"
    settings_type = Settings
    needs = {"unlabelled": Need(targets=False, views=2)}
    exports = ("encoder",)

    def build(self) -> Parts:
        parts = nn.ModuleDict({"encoder": nn.Linear(4, 4), "copy": nn.Linear(4, 4).requires_grad_(False)})
        parts["encoder"].register_buffer("queue", torch.zeros(3))
        return parts

    def losses(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        batch = batches["unlabelled"]
        numbers = batch.image.flatten()[:4] + torch.rand(4)
        yield {"first": parts["encoder"](numbers).square().mean()}
        others = batch.views[0].flatten()[:4]
        yield {
            "second": (parts["encoder"](others) - parts["copy"](others) + parts["encoder"].queue.mean()).square().mean()
        }

    def after_step(self, parts: Parts) -> None:
        parts["copy"].weight.lerp_(parts["encoder"].weight, 0.5)
        parts["encoder"].queue.copy_(parts["encoder"].queue.roll(1) + torch.rand(3))


def test_randomness_buffers_and_moving_copies_are_resumed() -> None:
    check_trainer(Drawing)


class WithoutEncoder(Drawing):
    """Promises a part that it does not make."""

    exports = ("encoder", "decoder")


class DeadParameter(Drawing):
    """Has a parameter that no loss reaches."""

    def build(self) -> Parts:
        parts = super().build()
        parts["dead"] = nn.Linear(2, 2)
        return parts


class ReadsUndeclared(Drawing):
    """Reads a stream that it does not need."""

    def losses(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        sum(batch.image.sum() for batch in batches.values())
        yield from super().losses(parts, batches)


class ForgetsOnResume(Drawing):
    """Keeps state outside of its parts."""

    steps = 0

    def losses(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        for terms in super().losses(parts, batches):
            yield {name: term * (1 + self.steps) for name, term in terms.items()}

    def after_step(self, parts: Parts) -> None:
        self.steps += 1


class Unseeded(Drawing):
    """Builds another network each time."""

    def build(self) -> Parts:
        torch.seed()
        return super().build()


class NotANumber(Drawing):
    """Has a loss without a value."""

    def losses(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        for terms in super().losses(parts, batches):
            yield {name: term / 0 for name, term in terms.items()}


class MisnamedWeight(Drawing):
    """Weighs a term that there is not."""

    def weights(self) -> Mapping[str, float]:
        return {"frist": 2.0}


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        (WithoutEncoder, "exports .'decoder'."),
        (DeadParameter, "'dead.weight' gets no gradient"),
        (ReadsUndeclared, "reads the streams {'not needed'}"),
        (ForgetsOnResume, "differs after an interruption"),
        (Unseeded, "differs between two networks built with the same seed"),
        (NotANumber, "'first' is not a finite number"),
        (MisnamedWeight, "names the terms {'frist'}"),
    ],
)
def test_the_check_notices(trainer: type[Trainer[Any]], words: str) -> None:
    with pytest.raises(ContractBroken, match=words):
        check_trainer(trainer)
