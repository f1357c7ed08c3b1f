"""What several teachers say together, and how far a student is from it; for exclusive labels and for regions.

Soft targets hold the probability of every foreground class or region and none of the background, (B, F, [Z,] Y, X): of
exclusive labels the background is what is left over. So 0 everywhere means background, also beyond an image's border.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from selfcfg.kernels import ranks
from selfcfg.kernels.losses import SMOOTH

Combine = Literal["probability", "logit"]
Divergence = Literal["kl", "l2", "dice", "kl+dice"]

SMALLEST = 1e-8
"""Probability that stands for one that was rounded to 0."""


def combined(logits: Sequence[Tensor], weights: Tensor, how: Combine, temperature: float, *, exclusive: bool) -> Tensor:
    """The soft target of one image (F, ...), the weighted mean of what its teachers say.

    Args:
        logits: of each teacher, float (K, ...); for exclusive labels channel 0 is the background.
        weights: (teachers, K), of each channel together 1.
        how: mean of the probabilities, or softmax or sigmoid of the mean of the logits.
        temperature: that logits are divided by.
        exclusive: a softmax over all channels, else a sigmoid a channel.

    Source: our choice. Logits of a softmax are fixed by their log-sum-exp being 0, which changes nothing where all
    classes have the same weights; after a mean with weights by class, probabilities are brought to a sum of 1.
    """
    space = (1,) * (logits[0].dim() - 1)
    total = torch.zeros_like(logits[0], dtype=torch.float32)
    for one, weight in zip(logits, weights.to(logits[0].device, torch.float32), strict=True):
        values = one.float()
        if how == "probability":
            values = _probabilities(values / temperature, exclusive=exclusive, axis=0)
        elif exclusive:
            values = functional.log_softmax(values, 0)
        total += values * weight.view(-1, *space)
    if how == "logit":
        total = _probabilities(total / temperature, exclusive=exclusive, axis=0)
    if exclusive:
        return (total / total.sum(0, keepdim=True))[1:]
    return total


def whole(soft: Tensor, *, exclusive: bool, axis: int = 1) -> Tensor:
    """The probabilities of all channels: soft targets and, before them, what exclusive labels leave the background."""
    if not exclusive:
        return soft
    background = (1 - soft.sum(axis, keepdim=True)).clamp_min(0)
    everything = torch.cat([background, soft], axis)
    return everything / everything.sum(axis, keepdim=True)


def logits_of(probabilities: Tensor, *, exclusive: bool) -> Tensor:
    """Logits (K, ...) that stand for probabilities which were rounded; where these are 0 or 1 they are finite.

    What is rounded to 1 stands as far above one half as what is rounded to 0 stands below it.

    Args:
        probabilities: float32, of all channels.
        exclusive: of a softmax over all channels, else of a sigmoid a channel.
    """
    logits = probabilities.clamp_min(SMALLEST).log()
    return logits if exclusive else logits - (1 - probabilities).clamp_min(SMALLEST).log()


def shrink_soft(soft: Tensor, shape: Sequence[int]) -> Tensor:
    """Soft targets (B, F, ...) at a smaller spatial shape, each voxel the mean of those it covers."""
    return soft if tuple(soft.shape[2:]) == tuple(shape) else functional.interpolate(soft, tuple(shape), mode="area")


def teacher_loss(
    logits: Tensor,
    soft: Tensor,
    divergence: Divergence,
    temperature: float,
    *,
    exclusive: bool,
    batch_dice: bool = False,
    valid: Tensor | None = None,
) -> Tensor:
    """How far a student is from its teachers, at least 0; 0 and without gradient where it says the same.

    Args:
        logits: of the student, (B, K, ...).
        soft: (B, F, ...), made at the same temperature.
        divergence: "kl", the Kullback-Leibler divergence from the teachers to the student, in nats; "l2", the squared
            distance of their probabilities; both the mean over voxels, and with regions over these too. "dice", 1 less
            the soft Dice of the foreground with squares in its denominator: with plain sums it would be largest
            elsewhere than at equal probabilities. "kl+dice", the sum of both.
        temperature: of the student's probabilities. Every divergence is multiplied by its square, so that the size of
            gradients hardly depends on it.
        exclusive: a softmax over all channels, else a sigmoid a channel.
        batch_dice: one Dice a class over the whole batch instead of one a class and sample.
        valid: bool (B, 1, ...), voxels that count; None: all.

    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015, section 2.1; Milletari et al.,
    V-Net, 2016, for the squared denominator.
    """
    with torch.autocast(logits.device.type, enabled=False):
        scaled = logits.float() / temperature
        wanted = whole(soft.float(), exclusive=exclusive)
        parts = [_DIVERGENCES[name](scaled, wanted, valid, exclusive, batch_dice) for name in divergence.split("+")]
        return torch.stack(parts).sum() * temperature**2


def _kl(scaled: Tensor, wanted: Tensor, valid: Tensor | None, exclusive: bool, batch_dice: bool) -> Tensor:
    if exclusive:
        return _mean(functional.kl_div(functional.log_softmax(scaled, 1), wanted, reduction="none").sum(1), valid)
    entropy = torch.special.entr(wanted) + torch.special.entr(1 - wanted)
    surprise = functional.binary_cross_entropy_with_logits(scaled, wanted, reduction="none")
    return _mean((surprise - entropy).mean(1), valid)


def _l2(scaled: Tensor, wanted: Tensor, valid: Tensor | None, exclusive: bool, batch_dice: bool) -> Tensor:
    squares = (_probabilities(scaled, exclusive=exclusive, axis=1) - wanted).square()
    return _mean(squares.sum(1) if exclusive else squares.mean(1), valid)


def _dice(scaled: Tensor, wanted: Tensor, valid: Tensor | None, exclusive: bool, batch_dice: bool) -> Tensor:
    found = _probabilities(scaled, exclusive=exclusive, axis=1)[:, 1 if exclusive else 0 :]
    wanted = wanted[:, 1 if exclusive else 0 :]
    if valid is not None:
        found, wanted = found * valid, wanted * valid
    space = ((0,) if batch_dice else ()) + tuple(range(2, found.dim()))
    overlap, sizes = (found * wanted).sum(space), found.square().sum(space) + wanted.square().sum(space)
    if batch_dice:
        overlap, sizes = ranks.total(overlap), ranks.total(sizes)
    return 1 - ((2 * overlap + SMOOTH) / (sizes + SMOOTH)).mean()


_DIVERGENCES: dict[str, Callable[[Tensor, Tensor, Tensor | None, bool, bool], Tensor]] = {
    "kl": _kl,
    "l2": _l2,
    "dice": _dice,
}


def _probabilities(scaled: Tensor, *, exclusive: bool, axis: int) -> Tensor:
    return scaled.softmax(axis) if exclusive else scaled.sigmoid()


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """The mean of (B, ...) over the voxels that count, 0 where none does."""
    if valid is None:
        return values.mean()
    counted = valid[:, 0]
    return ranks.ratio((values * counted).sum(), counted.sum())
