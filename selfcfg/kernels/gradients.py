"""Gradients of several tasks on the parameters that they share: kept apart, how large, and where they disagree.

A gradient is a sequence with one tensor a parameter, None where its task does not reach the parameter. What two of them
have in common is looked for on the parameters that both reach.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from selfcfg.kernels import ranks

Gradient = Sequence[Tensor | None]

SMALLEST = 1e-8
"""The norm below which a tensor of a gradient has no direction to compare."""


def inner(first: Gradient, second: Gradient) -> Tensor:
    """The inner product of two gradients."""
    products = [torch.dot(one.flatten().float(), other.flatten().float()) for one, other in _pairs(first, second)]
    return torch.stack(products).sum() if products else torch.zeros(())


def norm_where(gradient: Gradient, other: Gradient) -> Tensor:
    """The norm of a gradient on the parameters that the other one reaches too."""
    return _square_where(gradient, other).sqrt()


def cosine(first: Gradient, second: Gradient) -> Tensor:
    """The cosine of two gradients on the parameters that both reach; 0 where one of them vanishes."""
    norms = norm_where(first, second) * norm_where(second, first)
    return inner(first, second) / norms.clamp_min(torch.finfo(norms.dtype).tiny)


def cosine_distance(first: Gradient, second: Gradient) -> Tensor:
    """The mean over tensors of 1 - cosine, from 0 to 2, to be differentiated; tensors that vanish are left out.

    Source: of a tensor, as Zhao et al., Dataset Condensation with Gradient Matching, 2021, equation 9, but with one
    cosine for all of its output channels.
    """
    both = _pairs(first, second)
    if not both:
        return torch.zeros(())
    inners, squares, others = (
        torch.stack([(one * other).sum() for one, other in pairs])
        for pairs in (both, [(one, one) for one, _ in both], [(other, other) for _, other in both])
    )
    compared = torch.minimum(squares, others) > SMALLEST**2
    norms = torch.where(compared, squares * others, torch.ones_like(squares)).sqrt()
    distances = torch.where(compared, 1 - inners / norms, torch.zeros_like(norms))
    return distances.sum() / compared.sum().clamp_min(1)


def squared_distance(first: Gradient, second: Gradient) -> Tensor:
    """The squared distance of two gradients on the parameters that both reach, to be differentiated."""
    both = _pairs(first, second)
    return torch.stack([(one - other).square().sum() for one, other in both]).sum() if both else torch.zeros(())


def without_conflicts(gradients: Sequence[Gradient], orders: Sequence[Sequence[int]]) -> list[list[Tensor | None]]:
    """The gradients, each without what it has against the others.

    Where its inner product with another one is negative, it is projected on the plane normal to that one, one after
    the other in a given order. The others are taken as they came.

    Args:
        gradients: one a task; they stay as they are.
        orders: for each task, indices in which it is held against the gradients; its own is passed over.

    Source: Yu et al., Gradient Surgery for Multi-Task Learning (PCGrad), 2020, algorithm 1. Our choice, since tasks may
    reach different parameters: a pair is compared, and changed, on those that both reach.
    """
    found = []
    for index, order in enumerate(orders):
        mine = list(gradients[index])
        for other in order:
            if other != index and (shared := inner(mine, gradients[other])) < 0:
                mine = _without(mine, gradients[other], shared / _square_where(gradients[other], mine))
        found.append(mine)
    return found


def added(gradients: Sequence[Gradient]) -> list[Tensor | None]:
    """The sum of gradients, each tensor in the memory layout of the first one that is there."""
    sums: list[Tensor | None] = []
    for column in zip(*gradients, strict=True):
        given = [one for one in column if one is not None]
        # one by one, since a stack would lose a layout of channels last
        sums.append(functools.reduce(torch.add, given) if given else None)
    return sums


class Apart(NamedTuple):
    """Gradients on shared parameters, task by task.

    Args:
        shared: the parameters.
        before: their gradients by batches before.
        gradients: one a task taken in.
    """

    shared: Sequence[nn.Parameter]
    before: list[Tensor | None]
    gradients: list[list[Tensor | None]]

    @classmethod
    def of(cls, shared: Sequence[nn.Parameter]) -> Self:
        """With no task taken in yet."""
        return cls(shared, _taken_off(shared), [])

    def take(self) -> None:
        """Takes in what the last backward pass left, of all ranks together."""
        ranks.average_gradients(self.shared)
        self.gradients.append(_taken_off(self.shared))

    def put_back(self, gradients: Sequence[Gradient]) -> None:
        """Leaves the sum of gradients and of those before on the parameters."""
        for parameter, gradient in zip(self.shared, added([self.before, *gradients]), strict=True):
            parameter.grad = gradient


def _pairs(first: Gradient, second: Gradient) -> list[tuple[Tensor, Tensor]]:
    pairs = zip(first, second, strict=True)
    return [(one, other) for one, other in pairs if one is not None and other is not None]


def _square_where(gradient: Gradient, other: Gradient) -> Tensor:
    both = [None if there is None else here for here, there in zip(gradient, other, strict=True)]
    return inner(both, both)


def _without(gradient: Gradient, other: Gradient, share: Tensor) -> list[Tensor | None]:
    """A gradient less a share of another one."""
    return [
        here if here is None or there is None else here - share.to(here.dtype) * there
        for here, there in zip(gradient, other, strict=True)
    ]


def _taken_off(parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    gradients = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    return gradients
