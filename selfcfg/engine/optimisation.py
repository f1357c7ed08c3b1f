"""One optimiser step: learning rate, averaged and clipped gradients, SGD, and a moving average of the weights."""

from __future__ import annotations

import random
from collections.abc import Iterator
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
    """SGD with Nesterov momentum on the trainable parameters, and their moving average where the settings ask for it.

    Args:
        settings: learning rate, momentum, weight decay, clipping and moving average.
        parts: the parameters that need a gradient are trained, in the order of the parts.
    """

    def __init__(self, settings: Settings, parts: nn.ModuleDict) -> None:
        self._settings = settings
        self._parameters = [parameter for parameter in parts.parameters() if parameter.requires_grad]
        self._sgd = torch.optim.SGD(
            self._parameters,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._average = [parameter.detach().clone() for parameter in self._parameters] if settings.ema else []

    def gradient_norm(self) -> Tensor:
        """The norm of all gradients together, after they are averaged over accumulated batches and clipped in place.

        The value is that before clipping; NaN or infinite where a gradient is.
        """
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if self._settings.accumulate > 1:
            torch._foreach_div_(gradients, self._settings.accumulate)
        norm: Tensor = get_total_norm(gradients)
        if self._settings.clip_norm is not None:
            clip_grads_with_norm_(self._parameters, self._settings.clip_norm, norm)
        return norm

    def step(self, number: int) -> None:
        """Moves the weights and their average along the gradients, and drops the gradients.

        Args:
            number: of the step, from 0 over the whole training.
        """
        for group in self._sgd.param_groups:
            group["lr"] = learning_rate(self._settings, number)
        self._sgd.step()
        self._sgd.zero_grad(set_to_none=True)
        if self._settings.ema is not None:
            # a short memory at first, else the random start would be remembered for long
            decay = min(self._settings.ema, (1 + number) / (10 + number))
            torch._foreach_lerp_(self._average, [parameter.detach() for parameter in self._parameters], 1 - decay)

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
        return {"sgd": self._sgd.state_dict(), "average": self._average}

    def load_state(self, state: dict[str, Any]) -> None:
        """Puts back what `state` gave."""
        self._sgd.load_state_dict(state["sgd"])
        for own, saved in zip(self._average, state["average"], strict=True):
            own.copy_(saved)

    def _exchange(self) -> None:
        for index, parameter in enumerate(self._parameters):
            parameter.data, self._average[index] = self._average[index], parameter.data
