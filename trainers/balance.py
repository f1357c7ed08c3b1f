"""How much each of several tasks counts that share parts of a network: fixed, calibrated, learnt, or by surgery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from selfcfg.kernels.gradients import Apart, Gradient, norm_where, without_conflicts
from selfcfg.progress import say

How = Literal["fixed", "calibrated", "uncertainty", "pcgrad"]


class Weighed(NamedTuple):
    """A task as far as its balance goes.

    Args:
        name: of the task.
        weight: of its loss, where it is not learnt.
        is_regression: whether its loss is a mean squared error, else that of a classification.
    """

    name: str
    weight: float
    is_regression: bool


class Calibration(NamedTuple):
    """When and how gradients are calibrated.

    Args:
        step: number of the step, from 0.
        share: what the gradient of each further task then has of the norm of the first one's.
    """

    step: int
    share: float


class Balance(nn.Module):
    """The weights of several tasks; a part of the network, so that they are saved with the run.

    "fixed": the weights given. "calibrated": the weights given, until at one step each is set such that the gradient of
    its task has a given share of the norm that the first task's has, on the parameters that both reach. "uncertainty":
    each loss L counts as L / sigma^2 + log sigma, half of L in a regression, with a learnt log(sigma^2), 0 at first.
    "pcgrad": the weights given, and of each gradient what is against another is taken off.

    Args:
        tasks: the first is what the others are held against.
        how: which of these.
        calibration: for "calibrated".

    Source: uncertainty: Kendall et al., Multi-Task Learning Using Uncertainty, 2018, equations 7 and 10; surgery: Yu et
    al., Gradient Surgery, 2020. The calibration is our choice, in the manner of Chen et al., GradNorm, 2018, but once.
    """

    scales: Tensor
    steps: Tensor
    is_calibrated: Tensor

    def __init__(self, tasks: Sequence[Weighed], how: How, calibration: Calibration) -> None:
        super().__init__()
        self.tasks, self.how, self.calibration = tuple(tasks), how, calibration
        self.register_buffer("scales", torch.tensor([task.weight for task in tasks]))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("is_calibrated", torch.zeros((), dtype=torch.bool))
        if how == "uncertainty":
            self.log_variances = nn.Parameter(torch.zeros(len(tasks)))

    def factors(self) -> Tensor:
        """What the loss of each task is multiplied by."""
        if self.how != "uncertainty":
            return self.scales
        halves = [0.5 if task.is_regression else 1.0 for task in self.tasks]
        return torch.exp(-self.log_variances) * self.log_variances.new_tensor(halves)

    def penalty(self, index: int) -> dict[str, Tensor]:
        """The term that comes with the factor of a task: log sigma, or nothing."""
        if self.how != "uncertainty":
            return {}
        return {f"{self.tasks[index].name} log sigma": self.log_variances[index] / 2}

    def begin(self, shared: Sequence[nn.Parameter]) -> Apart | None:
        """What keeps the gradients of the tasks on the shared parameters apart, where this batch asks for that."""
        due = self.how == "calibrated" and not self.is_calibrated and self.steps >= self.calibration.step
        return Apart.of(shared) if due or self.how == "pcgrad" else None

    @torch.no_grad()
    def end(self, apart: Apart) -> None:
        """Puts the gradients of all tasks together, once each has been taken in."""
        gradients: Sequence[Gradient] = apart.gradients
        if self.how == "pcgrad":
            orders = [torch.randperm(len(gradients)).tolist() for _ in gradients]
            gradients = without_conflicts(gradients, orders)
        else:
            self._calibrate(gradients)
        apart.put_back(gradients)

    def count_step(self) -> None:
        """Called after each step."""
        self.steps += 1

    def _calibrate(self, gradients: Sequence[Gradient]) -> None:
        """Sets the weights that hold from the next batch on; a task without gradient keeps its own."""
        first, *others = gradients
        for index, gradient in enumerate(others, start=1):
            wanted = self.calibration.share * norm_where(first, gradient)
            found = norm_where(gradient, first)
            if found > 0 and wanted > 0:
                self.scales[index] *= wanted / found
            task, weight = self.tasks[index].name, float(self.scales[index])
            say(
                f"step {int(self.steps)}: the gradient of {task} has a norm of {float(found):.3g} on what is shared, "
                f"and is to have {float(wanted):.3g}; its weight is {weight:.3g} from now on"
            )
        self.is_calibrated.fill_(True)
