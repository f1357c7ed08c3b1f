"""Gradients of two tasks on the encoder that they share: added, matched to each other, or freed of conflicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from selfcfg.errors import SelfcfgError
from selfcfg.kernels import ranks
from selfcfg.kernels.gradients import (
    Apart,
    Gradient,
    added,
    cosine,
    cosine_distance,
    squared_distance,
    without_conflicts,
)
from selfcfg.records import Record

How = Literal["sum", "fish", "cosine", "l2", "pcgrad"]

MISMATCH = "mismatch"
"""The loss term of "cosine" and "l2"."""

LAST = "last stage"

Terms = dict[str, Tensor]


class MatchingSettings(Record):
    """How the gradients of two tasks are matched."""

    matching: How = Field(
        "fish",
        description="sum: not at all; fish: the second task, in random order, takes its gradient where a step of the "
        "first one leads; cosine, l2: the distance of both gradients is a loss, at two or three times the cost; "
        "pcgrad: of each gradient what is against the other one is taken off",
    )
    inner_rate: float = Field(0.02, gt=0, description="of fish: learning rate of the step between the two tasks")
    matching_weight: float = Field(0.05, gt=0, description="of cosine and l2: weight of the distance of the gradients")
    matching_stages: int | None = Field(
        2, ge=1, description="of cosine and l2: last stages of the encoder that are matched; none: all"
    )
    matching_every: int = Field(2, ge=1, description="of cosine and l2: match in every so manyth step")
    matching_warmup: float = Field(
        0.1, ge=0, le=0.5, description="of cosine and l2: share of the steps without, before as many of a rising weight"
    )

    @property
    def takes_second_order(self) -> bool:
        """Whether gradients of gradients are taken."""
        return self.matching in ("cosine", "l2")


class Schedule(NamedTuple):
    """What matching needs to know of the optimiser's steps.

    Args:
        n_steps: of the whole training.
        clip_norm: largest norm of a gradient that a step is taken along, or None.
    """

    n_steps: int
    clip_norm: float | None


class Matching(nn.Module):
    """Brings the gradients of two tasks on a shared encoder together; a part, so that its steps are saved with the run.

    With g and h the gradients of the weighted losses of both tasks on the encoder:

    "sum": g + h.
    "fish": g at the weights w, and h at w - rate * g, or the other way round, as drawn for each batch; over both orders
    that is g + h - rate / 2 * (gradient of the inner product <g, h>) + O(rate^2). The step between them is clipped like
    those of the optimiser, and what only one task reaches stays as it is.
    "cosine": adds the weighted gradient of 1 - cosine(g, h), averaged over the matched tensors.
    "l2": adds the weighted gradient of |g - h|^2 on the matched tensors.
    "pcgrad": of g and h what is against the other one is taken off, if they are against each other.

    Matched are the encoder's tensors with more than one axis; biases and the weights of norms are not.

    Args:
        settings: which of these, and how.
        schedule: of the training.

    Source: fish: Shi et al., Gradient Matching for Domain Generalization, 2022, algorithm 1, with two inner steps, its
    displacement over the inner rate being what the optimiser is given; pcgrad: Yu et al., Gradient Surgery, 2020. Our
    choice: the schedule of the weight, and that each batch has inner steps of its own where several are accumulated.
    """

    steps: Tensor

    def __init__(self, settings: MatchingSettings, schedule: Schedule) -> None:
        super().__init__()
        self.settings, self.schedule = settings, schedule
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def weight(self) -> float:
        """What the mismatch counts at this step: nothing at first, then more, then `matching_weight`."""
        idle = self.settings.matching_warmup * self.schedule.n_steps
        share = (int(self.steps) + 1 - idle) / idle if idle else 1.0
        return self.settings.matching_weight * min(max(share, 0.0), 1.0)

    def count_step(self) -> None:
        """Called after each step."""
        self.steps += 1

    def groups(
        self, tasks: Sequence[Callable[[], Terms]], weights: Mapping[str, float], encoder: nn.Module
    ) -> Iterator[Terms]:
        """The groups of loss terms of one batch, as `Trainer.losses` yields them; each weighted sum is backpropagated.

        Args:
            tasks: two, each a new graph whenever called.
            weights: of their terms by name; 1 where it says nothing.
            encoder: what both reach.

        Raises:
            SelfcfgError: gradients of gradients cannot be taken here.
        """
        shared = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        if self.settings.matching == "fish":
            yield from self._in_turn(tasks, shared)
        elif self.settings.matching == "pcgrad":
            apart = Apart.of(shared)
            for task in tasks:
                yield task()
                apart.take()
            apart.put_back(without_conflicts(apart.gradients, [[1], [0]]))
        elif self.settings.takes_second_order and self._is_due():
            refuse_second_order(encoder)
            yield self._matched([task() for task in tasks], weights, matched(encoder, self.settings.matching_stages))
        else:
            first, second = tasks
            yield first()
            terms = second()
            nothing = next(iter(terms.values())).new_zeros(())
            yield {**terms, MISMATCH: nothing} if self.settings.takes_second_order else terms

    def _is_due(self) -> bool:
        return self.weight() > 0 and int(self.steps) % self.settings.matching_every == 0

    def _in_turn(self, tasks: Sequence[Callable[[], Terms]], shared: Sequence[nn.Parameter]) -> Iterator[Terms]:
        """One task, and the other one where a step of the first leads; the weights end where they were."""
        apart, start = Apart.of(shared), [parameter.detach().clone() for parameter in shared]
        first = int(torch.randint(2, ()))
        try:
            yield tasks[first]()
            apart.take()
            self._step(shared, apart.gradients[0])
            yield tasks[1 - first]()
            apart.take()
        finally:
            with torch.no_grad():
                torch._foreach_copy_(list(shared), start)
        apart.put_back(apart.gradients)

    @torch.no_grad()
    def _step(self, shared: Sequence[nn.Parameter], gradient: Gradient) -> None:
        reached = [(parameter, one) for parameter, one in zip(shared, gradient, strict=True) if one is not None]
        rate, limit = self.settings.inner_rate, self.schedule.clip_norm
        if limit is not None:
            rate *= limit / max(limit, float(get_total_norm([one for _, one in reached])))
        for parameter, one in reached:
            parameter.sub_(one, alpha=rate)

    def _matched(self, groups: Sequence[Terms], weights: Mapping[str, float], tensors: Sequence[nn.Parameter]) -> Terms:
        """The terms of both tasks as one graph, and how far their gradients are apart."""
        distance = cosine_distance if self.settings.matching == "cosine" else squared_distance
        with torch.autocast(tensors[0].device.type, enabled=False):
            found = [
                torch.autograd.grad(total(terms, weights), tensors, create_graph=True, allow_unused=True)
                for terms in groups
            ]
            gradients = [ranks.averaged(one) for one in found]
            return {**groups[0], **groups[1], MISMATCH: distance(*gradients)}


def total(terms: Terms, weights: Mapping[str, float]) -> Tensor:
    """The weighted sum of loss terms."""
    return torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()


def matched(encoder: nn.Module, stages: int | None = None) -> list[nn.Parameter]:
    """The tensors of an encoder that are compared: of all of it, or of its last stages."""
    chosen = encoder if stages is None else cast(nn.ModuleList, encoder.stages)[-stages:]
    return [parameter for parameter in chosen.parameters() if parameter.requires_grad and parameter.dim() > 1]


def refuse_second_order(module: nn.Module) -> None:
    """Nothing, where gradients of gradients can be taken.

    Raises:
        SelfcfgError: the module is compiled.
    """
    if any(type(one).__name__ == "OptimizedModule" for one in module.modules()):
        found = "the network is compiled, and what torch.compile makes has no second derivatives"
        raise SelfcfgError("match gradients", found, "take matching=fish, pcgrad or sum, which need none")


class Alignment:
    """How well the gradients of two losses agree on an encoder, over several batches together.

    Args:
        encoder: what both reach.
        names: of the losses.
    """

    def __init__(self, encoder: nn.Module, names: tuple[str, str]) -> None:
        self._names = names
        self._tensors = matched(encoder)
        ends = {id(parameter) for parameter in matched(encoder, 1)}
        self._is_last = [id(parameter) in ends for parameter in self._tensors]
        self._sums: list[list[Tensor | None]] = [[None] * len(self._tensors) for _ in names]
        self._count = 0

    def add(self, first: Tensor, second: Tensor) -> None:
        """Takes in both losses of a batch, each a graph of its own."""
        gradients = [torch.autograd.grad(loss, self._tensors, allow_unused=True) for loss in (first, second)]
        self._sums = [added([before, now]) for before, now in zip(self._sums, gradients, strict=True)]
        self._count += 1

    def scores(self) -> dict[str, float]:
        """Cosine of the mean gradients, on the encoder and its last stage, and their norms; empty without batches."""
        self._sums = [ranks.summed(one, self._tensors) for one in self._sums]
        self._count = sum(ranks.collected([self._count]))
        if not self._count:
            return {}
        first, second = self._sums
        last: list[Gradient] = [
            [one if is_last else None for one, is_last in zip(gradient, self._is_last, strict=True)]
            for gradient in self._sums
        ]
        norms = {name: self._norm(gradient) for name, gradient in zip(self._names, self._sums, strict=True)}
        return {
            "gradient cosine": float(cosine(first, second)),
            f"gradient cosine {LAST}": float(cosine(last[0], last[1])),
            **{f"gradient norm {name}": norm for name, norm in norms.items()},
        }

    def _norm(self, gradient: Gradient) -> float:
        return float(get_total_norm([one for one in gradient if one is not None])) / self._count
