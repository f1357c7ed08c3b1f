from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from selfcfg.engine.trainer import Settings
from selfcfg.engine.training.optimisation import Optimisation, learning_rate, seed_globals


def test_the_learning_rate_falls_from_epoch_to_epoch() -> None:
    settings = Settings(epochs=4, iterations_per_epoch=10)
    rates = [learning_rate(settings, step) for step in (0, 9, 10, 20, 39)]
    assert rates == pytest.approx([0.01, 0.01, 0.01 * 0.75**0.9, 0.01 * 0.5**0.9, 0.01 * 0.25**0.9])


def test_it_rises_step_by_step_in_the_warm_up() -> None:
    settings = Settings(epochs=6, iterations_per_epoch=5, warmup_epochs=2)
    rates = [learning_rate(settings, step) for step in (0, 4, 9, 10, 15)]
    assert rates == pytest.approx([0.001, 0.005, 0.01, 0.01, 0.01 * 0.75**0.9])


def test_warm_up_must_end_before_the_training() -> None:
    with pytest.raises(ValueError, match="warmup_epochs must be below epochs"):
        Settings(epochs=3, warmup_epochs=3)


def one_weight(value: float) -> nn.ModuleDict:
    linear = nn.Linear(1, 1, bias=False)
    nn.init.constant_(linear.weight, value)
    return nn.ModuleDict({"encoder": linear})


def descend(settings: Settings, parts: nn.ModuleDict, gradients: list[float]) -> list[float]:
    optimisation = Optimisation(settings, parts)
    weight = parts["encoder"].weight
    path = []
    for number, gradient in enumerate(gradients):
        weight.grad = torch.full_like(weight, gradient)
        optimisation.gradient_norm(number)
        optimisation.step(number)
        path.append(weight.item())
    return path


def test_nesterov_momentum_with_weight_decay_worked_by_hand() -> None:
    settings = Settings(learning_rate=0.1, momentum=0.5, weight_decay=0.1, clip_norm=None)
    # gradient + decay 2.1, momentum 2.1, moved by 0.1 (2.1 + 0.5 2.1); then 1.0685, momentum 2.1185, by 0.1 (...)
    assert descend(settings, one_weight(1), [2.0, 1.0]) == pytest.approx([0.685, 0.685 - 0.1 * (1.0685 + 0.5 * 2.1185)])


def test_adamw_worked_by_hand() -> None:
    settings = Settings(optimizer="adamw", learning_rate=0.1, weight_decay=0.5, clip_norm=None)
    # decay apart from the gradient: 1 (1 - 0.05), then one step by the sign of the gradient; then the usual moments
    first = 0.95 - 0.1
    mean, square = (0.9 * 0.2 - 0.1) / (1 - 0.9**2), (0.999 * 0.004 + 0.001) / (1 - 0.999**2)
    rate = learning_rate(settings, 1)
    second = first * (1 - 0.5 * rate) - rate * mean / square**0.5
    assert descend(settings, one_weight(1), [2.0, -1.0]) == pytest.approx([first, second], rel=1e-5)


def two_parts() -> nn.ModuleDict:
    parts = one_weight(1)
    parts["head"] = one_weight(1)["encoder"]
    return parts


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_parts_taken_over_learn_at_a_share_of_the_rate(optimizer: str) -> None:
    settings = Settings(optimizer=optimizer, learning_rate=0.1, weight_decay=0, clip_norm=None, taken_rate=0.25)
    parts = two_parts()
    optimisation = Optimisation(settings, parts, ["encoder"])
    for part in parts.values():
        part.weight.grad = torch.ones_like(part.weight)
    optimisation.step(0)
    moved = {name: 1 - part.weight.item() for name, part in parts.items()}
    assert moved["encoder"] == pytest.approx(0.25 * moved["head"], rel=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_parts_taken_over_stay_as_they_are_in_the_frozen_epochs(optimizer: str) -> None:
    settings = Settings(optimizer=optimizer, iterations_per_epoch=2, frozen_epochs=1, weight_decay=0.1)
    parts = two_parts()
    optimisation = Optimisation(settings, parts, ["encoder"])
    path = []
    for number in range(3):
        for part in parts.values():
            part.weight.grad = torch.ones_like(part.weight)
        norm = optimisation.gradient_norm(number).item()
        optimisation.step(number)
        path.append((norm, parts["encoder"].weight.item(), parts["head"].weight.item()))
    norms, encoder, head = zip(*path, strict=True)
    assert norms == pytest.approx((1, 1, 2**0.5)), "what is frozen counts for nothing in the norm"
    assert encoder[:2] == (1, 1) and encoder[2] < 1
    assert 1 > head[0] > head[1] > head[2]


def test_gradients_are_averaged_before_they_are_clipped() -> None:
    settings = Settings(learning_rate=1, momentum=0, weight_decay=0, clip_norm=3, accumulate=2)
    assert descend(settings, one_weight(0), [4.0, -20.0]) == pytest.approx([-2.0, 1.0], abs=1e-5)


def test_what_needs_no_gradient_is_left_alone() -> None:
    parts = one_weight(1)
    parts["momentum"] = nn.Linear(1, 1).requires_grad_(False)
    before = parts["momentum"].weight.clone()
    descend(Settings(weight_decay=0.5), parts, [1.0])
    assert torch.equal(parts["momentum"].weight, before)


def test_moving_average_and_its_state() -> None:
    settings = Settings(learning_rate=1, momentum=0, weight_decay=0, clip_norm=None, ema=0.15)
    parts = one_weight(0)
    optimisation = Optimisation(settings, parts)
    weight = parts["encoder"].weight
    for number in (0, 1):
        weight.grad = torch.full_like(weight, -1.0)
        optimisation.step(number)
    # decay 1/10 at first, then 0.15: 0.9, then 0.15 * 0.9 + 0.85 * 2
    with optimisation.averaged():
        assert weight.item() == pytest.approx(0.15 * 0.9 + 0.85 * 2, rel=1e-6)
    assert weight.item() == 2
    other = Optimisation(settings, parts)
    other.load_state(optimisation.state())
    with other.averaged():
        assert weight.item() == pytest.approx(1.835, rel=1e-6)


def test_global_generators_depend_on_seed_purpose_and_index() -> None:
    def draw(*arguments: object) -> tuple[float, float, float]:
        seed_globals(*arguments)
        return torch.rand(1).item(), np.random.rand(), random.random()

    first = draw(0, "step", 1)
    assert draw(0, "step", 1) == first
    for other in ((1, "step", 1), (0, "build", 1), (0, "step", 2)):
        assert not set(draw(*other)) & set(first)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_layout_of_a_gradient_in_memory_changes_nothing(optimizer: str) -> None:
    weight, gradient = torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        part = nn.Conv2d(3, 4, 2)
        part.weight = nn.Parameter(weight.clone(memory_format=torch.channels_last))
        parts = nn.ModuleDict({"part": part})
        optimisation = Optimisation(Settings(optimizer=optimizer, learning_rate=0.1), parts)
        part.weight.grad, part.bias.grad = gradient.clone(memory_format=layout), torch.zeros(4)
        optimisation.step(0)
        found.append(part.weight.detach())
    assert torch.equal(*found) and not torch.equal(found[0], weight)
