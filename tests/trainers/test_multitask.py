"""Segmentation with auxiliary tasks: what is drawn, shared and handed on, and how gradients are put together."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selfcfg.engine.choice import parse_settings
from selfcfg.engine.trainer import Batch, Parts
from selfcfg.engine.training.optimisation import seed_globals
from selfcfg.errors import UsageError
from selfcfg.kernels.gradients import Apart
from selfcfg.testing import MemoryBatches, small_plan
from selfcfg.trainers.balance import Balance, Calibration, Weighed
from selfcfg.trainers.masked import MaskedSettings
from selfcfg.trainers.multitask import TASKS, Multitask, MultitaskSettings
from selfcfg.trainers.pretraining import PROBE
from selfcfg.trainers.supervised import SupervisedSettings


def multitask(**settings: Any) -> Multitask:
    plan = small_plan(2)
    return Multitask(MultitaskSettings(**{"balance": "fixed", **settings}), plan, plan.configurations["small"])


def built(trainer: Multitask) -> Parts:
    seed_globals(0, "build", 0)
    return trainer.build()


def streams(trainer: Multitask, number: int = 0) -> dict[str, Batch]:
    needs = trainer.needs_for(trainer.settings)
    return next(MemoryBatches(needs, trainer.configuration, trainer.plan).training(number, number + 1))


def gradients(trainer: Multitask, parts: Parts, number: int = 0) -> list[Tensor]:
    """Those of the encoder after one batch."""
    parts.zero_grad()
    seed_globals(0, "step", 0)
    for terms in trainer.losses(parts, streams(trainer, number)):
        trainer.backward(terms, parts)
    return [parameter.grad.clone() for parameter in parts["encoder"].parameters()]


def norm(values: list[Tensor]) -> float:
    return math.sqrt(sum(float(one.square().sum()) for one in values))


def of_one(trainer: Multitask, parts: Parts, wanted: int) -> list[Tensor]:
    """The gradient of one task on the encoder, the balance's factor included."""
    parts.zero_grad()
    seed_globals(0, "step", 0)
    for index, terms in enumerate(trainer.losses(parts, streams(trainer))):
        parts.zero_grad()
        trainer.backward(terms, parts)
        if index == wanted:
            return [parameter.grad.clone() for parameter in parts["encoder"].parameters()]
    raise AssertionError("there is no such task")


def test_jointly_each_task_has_a_stream_and_segmentation_is_handed_on() -> None:
    settings = MultitaskSettings(tasks=("rubik", "distance_map"))
    assert list(Multitask.needs_for(settings)) == ["labelled", "rubik", "distance_map"]
    assert Multitask.segments(settings) and Multitask.exports_for(settings) == ("encoder", "decoder", "head")
    assert Multitask.labelled(settings) == ["labelled", "distance_map"]
    assert list(multitask(tasks=("rubik", "distance_map")).handed_on(built(multitask()))) == [
        "encoder", "decoder", "head",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tasks", "handed_on", "labelled"),
    [
        (("rubik",), ["encoder"], []),
        (("moco", "vicreg"), ["encoder"], []),
        (("rubik", "restoration"), ["encoder", "decoder"], []),
        (("distance_map",), ["encoder", "decoder"], ["distance_map"]),
    ],
)
def test_a_pretraining_hands_on_the_shared_parts_that_it_trained(
    tasks: tuple[str, ...], handed_on: list[str], labelled: list[str]
) -> None:
    trainer = multitask(tasks=tasks, mode="pretrain")
    parts = built(trainer)
    assert list(trainer.handed_on(parts)) == handed_on
    assert set(parts) == {*handed_on, *tasks, "balance"}
    assert not trainer.segments(trainer.settings) and trainer.labelled(trainer.settings) == labelled
    assert trainer.needs_for(trainer.settings)[PROBE].validation_only


def test_a_pretraining_starts_from_the_settings_of_pretrainings_unless_others_are_given() -> None:
    joint, alone = MultitaskSettings(), MultitaskSettings(mode="pretrain", epochs=7)
    for name in ("optimizer", "learning_rate", "weight_decay", "validation_iterations"):
        assert getattr(joint, name) == getattr(SupervisedSettings(), name)
        assert getattr(alone, name) == getattr(MaskedSettings(), name)
    assert alone.epochs == 7
    assert MultitaskSettings(**alone.model_dump()) == alone


def test_tasks_are_named_as_on_a_command_line() -> None:
    assert parse_settings(Multitask, {"tasks": "rubik"}).tasks == ("rubik",)
    given = parse_settings(Multitask, {"tasks": "rubik,moco", "rubik.pieces": "3", "weight.moco": "0.7"})
    assert given.tasks == ("rubik", "moco")
    assert given.of("rubik").pieces == 3 and given.of("weight").moco == 0.7
    assert given.of("weight").rubik == TASKS["rubik"].weight


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tasks": "rubric"}, "no task 'rubric'.*rubik"),
        ({"tasks": "moco,moco"}, "none twice"),
        ({"rubik.peaces": "3"}, "pieces"),
        ({"balance": "pcgrat"}, "pcgrad"),
    ],
)
def test_wrong_settings_are_named(given: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_settings(Multitask, given)


def test_with_fixed_weights_the_gradient_is_the_weighted_sum() -> None:
    trainer = multitask(tasks=("restoration",), weight={"restoration": 0.4})
    parts = built(trainer)
    plain = multitask(tasks=("restoration",), weight={"restoration": 1.0})
    segmentation, restoration = (of_one(plain, built(plain), index) for index in (0, 1))
    # random numbers are drawn anew for each task, in turn; segmentation draws none
    for found, one, other in zip(gradients(trainer, parts), segmentation, restoration, strict=True):
        torch.testing.assert_close(found, one + 0.4 * other)


def test_calibration_sets_each_gradient_to_its_share_once() -> None:
    trainer = multitask(tasks=("restoration", "rubik"), balance="calibrated", calibration_step=0, gradient_share=0.25)
    parts = built(trainer)
    before = [norm(of_one(multitask(tasks=trainer.settings.tasks), parts, index)) for index in range(3)]
    gradients(trainer, parts)
    balance = parts["balance"]
    assert bool(balance.is_calibrated)
    after = [norm(of_one(trainer, parts, index)) for index in range(3)]
    assert after[0] == pytest.approx(before[0])
    assert after[2] == pytest.approx(0.25 * after[0], rel=1e-4), "rubik reaches the encoder alone"
    scales = balance.scales.clone()
    gradients(trainer, parts, 1)
    assert torch.equal(balance.scales, scales), "once"


def test_calibration_waits_for_its_step_and_its_weights_are_told() -> None:
    trainer = multitask(tasks=("rubik",), balance="calibrated", calibration_step=2)
    parts = built(trainer)
    for number in range(3):
        assert not parts["balance"].is_calibrated
        gradients(trainer, parts, number)
        with torch.no_grad():
            trainer.after_step(parts)
    assert parts["balance"].is_calibrated
    found = trainer.validate(parts.eval(), [])
    assert found["weight rubik"] == pytest.approx(float(parts["balance"].scales[1]))
    assert trainer.weights()["rubik order"] == pytest.approx(found["weight rubik"])


def test_a_calibrating_step_keeps_the_gradients_of_batches_before() -> None:
    late = multitask(tasks=("rubik",), balance="calibrated", calibration_step=0)
    plain = multitask(tasks=("rubik",))
    expected = gradients(plain, built(plain))
    parts = built(late)
    for parameter in parts["encoder"].parameters():
        parameter.grad = torch.ones_like(parameter)
    seed_globals(0, "step", 0)
    for terms in late.losses(parts, streams(late)):
        late.backward(terms, parts)
    assert parts["balance"].is_calibrated
    for found, wanted in zip(parts["encoder"].parameters(), expected, strict=True):
        torch.testing.assert_close(found.grad, wanted + 1)


def three_ways(how: str, log_variances: tuple[float, ...] = ()) -> tuple[Balance, nn.Parameter]:
    tasks = [Weighed("first", 1.0, is_regression=False), Weighed("second", 2.0, is_regression=True)]
    balance = Balance(tasks, how, Calibration(0, 0.5))
    if log_variances:
        with torch.no_grad():
            balance.log_variances.copy_(torch.tensor(log_variances))
    return balance, nn.Parameter(torch.tensor([3.0, 4.0]))


def test_uncertainty_is_as_in_the_paper() -> None:
    """L1 / sigma1^2 + log sigma1 for a classification, L2 / (2 sigma2^2) + log sigma2 for a regression."""
    sigma1, sigma2 = 0.5, 3.0
    balance, _ = three_ways("uncertainty", (2 * math.log(sigma1), 2 * math.log(sigma2)))
    losses = torch.tensor([0.7, 1.9])
    penalties = [value for index in (0, 1) for value in balance.penalty(index).values()]
    total = (balance.factors() * losses).sum() + torch.stack(penalties).sum()
    expected = 0.7 / sigma1**2 + math.log(sigma1) + 1.9 / (2 * sigma2**2) + math.log(sigma2)
    assert total.item() == pytest.approx(expected, rel=1e-6)
    total.backward()
    slopes = [0.5 - 0.7 / sigma1**2, 0.5 - 1.9 / (2 * sigma2**2)]
    torch.testing.assert_close(balance.log_variances.grad, torch.tensor(slopes))


def test_only_uncertainty_is_learnt() -> None:
    for how in ("fixed", "calibrated", "pcgrad"):
        balance, _ = three_ways(how)
        assert not list(balance.parameters()) and balance.factors().tolist() == [1, 2] and not balance.penalty(0)


def test_surgery_leaves_the_sum_of_the_projected_gradients() -> None:
    """(1, 0) and (-1, 1) become (1/2, 1/2) and (0, 1); (10, 10) was there before."""
    balance, shared = three_ways("pcgrad")
    shared.grad = torch.tensor([10.0, 10.0])
    apart = balance.begin([shared])
    assert isinstance(apart, Apart) and shared.grad is None
    for gradient in ((1.0, 0.0), (-1.0, 1.0)):
        shared.grad = torch.tensor(gradient)
        apart.take()
    balance.end(apart)
    torch.testing.assert_close(shared.grad, torch.tensor([10.5, 11.5]))


def test_calibration_is_a_ratio_of_norms() -> None:
    """(3, 4) has the norm 5; half of it is 5 times (0.3, 0.4), whose weight was 2."""
    balance, shared = three_ways("calibrated")
    apart = balance.begin([shared])
    for gradient in ((3.0, 4.0), (0.3, 0.4)):
        shared.grad = torch.tensor(gradient)
        apart.take()
    balance.end(apart)
    torch.testing.assert_close(balance.scales, torch.tensor([1.0, 10.0]))
    torch.testing.assert_close(shared.grad, torch.tensor([3.3, 4.4]))
    assert balance.begin([shared]) is None


def test_a_task_without_gradient_keeps_its_weight() -> None:
    balance, shared = three_ways("calibrated")
    apart = balance.begin([shared])
    for gradient in ((3.0, 4.0), (0.0, 0.0)):
        shared.grad = torch.tensor(gradient)
        apart.take()
    balance.end(apart)
    assert balance.scales.tolist() == [1, 2]


def test_scores_are_named_by_task_and_dice_comes_first() -> None:
    trainer = multitask(tasks=("rubik", "moco"))
    parts = built(trainer).eval()
    batches = MemoryBatches(trainer.needs_for(trainer.settings), trainer.configuration, trainer.plan, 2)
    with torch.no_grad():
        found = trainer.validate(parts, batches.validation(0))
    assert next(iter(found)) == "dice"
    assert {"rubik order accuracy", "moco contrast accuracy", "weight segmentation", "weight moco"} <= set(found)
    alone = multitask(tasks=("moco",), mode="pretrain")
    batches = MemoryBatches(alone.needs_for(alone.settings), alone.configuration, alone.plan, 2)
    with torch.no_grad():
        found = alone.validate(built(alone).eval(), batches.validation(0))
    assert next(iter(found)) == "moco contrast accuracy" and 0 <= found["probe"] <= 1


def test_the_slow_copies_of_a_task_begin_where_the_shared_encoder_is() -> None:
    trainer = multitask(tasks=("moco",))
    parts = built(trainer)
    with torch.no_grad():
        for parameter in parts["encoder"].parameters():
            parameter.add_(1)
        trainer.started(parts)
    for ahead, behind in zip(parts["encoder"].parameters(), parts["moco"]["slow_encoder"].parameters(), strict=True):
        assert torch.equal(ahead, behind)


def test_its_settings_reach_the_processes_that_load_patches() -> None:
    settings = MultitaskSettings(tasks=("rubik", "moco"), weight={"rubik": 0.5})
    assert pickle.loads(pickle.dumps(settings)) == settings
