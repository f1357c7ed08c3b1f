"""One optimiser step: learning rate, averaged and clipped gradients, SGD, and a moving average of the weights."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from selfcfg.engine.randomness import generator
from selfcfg.engine.trainer import Settings


def learning_rate(settings: Settings, step: int) -> float:
    """The learning rate of a step, counted from 0 over the whole training.

    It rises linearly over the steps of the warm-up epochs, then falls from epoch to epoch as
    (1 - epoch / epochs) ** power, counted after the warm-up.

    Source: nnU-Net v2.8.1, PolyLRScheduler, stepped once an epoch; warm-up: nnUNetTrainer_warmup.
    """
    epoch, warmup = step // settings.iterations_per_epoch, settings.warmup_epochs
    if epoch < warmup:
        return settings.learning_rate * (step + 1) / (warmup * settings.iterations_per_epoch)
    done = (epoch - warmup) / (settings.epochs - warmup)
    return float(settings.learning_rate * (1 - done) ** settings.schedule_power)


def seed_globals(seed: int, purpose: str, index: int) -> None:
    """Seeds the global generators of torch, NumPy and Python for one purpose and index.

    Called before every batch, so that what a trainer draws depends on the seed and the batch alone, and an interrupted
    training continues with the numbers it would have drawn.
    """
    drawn = int(generator(seed, purpose, index).integers(2**32))
    torch.manual_seed(drawn)
    np.random.seed(drawn)
    random.seed(drawn)


class Optimisation:
    """The optimiser of the trainable parameters, and their moving average where the settings ask for it.

    Args:
        settings: learning rate, momentum, weight decay, clipping and moving average.
        parts: the parameters that need a gradient are trained, in the order of the parts.
        taken: names of the parts whose weights come from another run.
    """

    def __init__(self, settings: Settings, parts: nn.ModuleDict, taken: Collection[str] = ()) -> None:
        self._settings = settings
        self.parameters = [parameter for parameter in parts.parameters() if parameter.requires_grad]
        groups = [
            [parameter for name in parts if (name in taken) == is_taken for parameter in parts[name].parameters()]
            for is_taken in (False, True)
        ]
        fresh, self._taken = ([one for one in group if one.requires_grad] for group in groups)
        self._optimizer = _optimizer(settings, [group for group in (fresh, self._taken) if group])
        self._average = [parameter.detach().clone() for parameter in self.parameters] if settings.ema else []

    def gradient_norm(self, number: int) -> Tensor:
        """The norm of all gradients together, after they are averaged over accumulated batches and clipped in place.

        The value is that before clipping; NaN or infinite where a gradient is.

        Args:
            number: of the step, from 0 over the whole training.
        """
        if number < self._settings.frozen_epochs * self._settings.iterations_per_epoch:
            for parameter in self._taken:
                parameter.grad = None
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self._settings.accumulate > 1:
            torch._foreach_div_(gradients, self._settings.accumulate)
        norm: Tensor = get_total_norm(gradients)
        if self._settings.clip_norm is not None:
            clip_grads_with_norm_(self.parameters, self._settings.clip_norm, norm)
        return norm

    def step(self, number: int) -> None:
        """Moves the weights and their average along the gradients, and drops the gradients.

        Args:
            number: of the step, from 0 over the whole training.
        """
        rate = learning_rate(self._settings, number)
        for group in self._optimizer.param_groups:
            is_taken = bool(self._taken) and group["params"][0] is self._taken[0]
            group["lr"] = rate * self._settings.taken_rate if is_taken else rate
        _lay_out_alike(self.parameters)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._settings.ema is not None:
            # a short memory at first, else the random start would be remembered for long
            decay = min(self._settings.ema, (1 + number) / (10 + number))
            torch._foreach_lerp_(self._average, [parameter.detach() for parameter in self.parameters], 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the parameters hold their moving average; without one they stay as they are."""
        if not self._average:
            yield
            return
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on besides the parameters."""
        return {"optimizer": self._optimizer.state_dict(), "average": self._average}

    def load_state(self, state: dict[str, Any]) -> None:
        """Puts back what `state` gave."""
        self._optimizer.load_state_dict(state["optimizer"])
        for own, saved in zip(self._average, state["average"], strict=True):
            own.copy_(saved)

    def _exchange(self) -> None:
        for index, parameter in enumerate(self.parameters):
            parameter.data, self._average[index] = self._average[index], parameter.data


def _lay_out_alike(parameters: Sequence[nn.Parameter]) -> None:
    """Brings gradients to the memory layout of their parameters.

    Fused optimisers of PyTorch 2.13 read both in the order of memory, and mix voxels up where a trainer left a gradient
    of another layout.
    """
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None and gradient.stride() != parameter.stride():
            parameter.grad = torch.empty_like(parameter).copy_(gradient)


def _optimizer(settings: Settings, groups: Sequence[list[nn.Parameter]]) -> torch.optim.Optimizer:
    shared: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "fused": True}
    given = [{"params": group} for group in groups]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(given, **shared)
    return torch.optim.SGD(given, momentum=settings.momentum, nesterov=settings.momentum > 0, **shared)
