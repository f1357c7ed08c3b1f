"""Dice and cross entropy of a segmentation, for exclusive labels and for overlapping regions, at several resolutions.

Logits are (B, K, [Z,] Y, X), targets integer label maps (B, 1, [Z,] Y, X). Everything is computed in float32, also
under autocast. No one-hot copy of a target is made for exclusive labels: what a class gains is gathered and scattered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from selfcfg.kernels import ranks

SMOOTH = 1e-5
"""Added to numerator and denominator of the Dice. Source: nnU-Net v2.8.1, _build_loss."""

_SMALLEST = 1e-8


class Terms(NamedTuple):
    """The two scalars of a segmentation loss: 1 - soft Dice, and the cross entropy of a voxel in nats."""

    dice: Tensor
    cross_entropy: Tensor


Loss = Callable[[Tensor, Tensor], Terms]
"""Logits and target of one resolution to loss terms."""


def label_loss(logits: Tensor, target: Tensor, *, batch_dice: bool, ignore: int | None = None) -> Terms:
    """The loss of labels that exclude each other: softmax, the Dice without the background.

    Args:
        logits: (B, K, ...), channel = label value, 0 the background.
        target: (B, 1, ...) integers 0 to K - 1, or `ignore`.
        batch_dice: one Dice a class over the whole batch instead of one a class and sample.
        ignore: value of voxels that count in neither term. Where no voxel counts, both terms are constants.

    Source: nnU-Net v2.8.1, DC_and_CE_loss with MemoryEfficientSoftDiceLoss, whose Dice term is ours minus 1.
    """
    with torch.autocast(logits.device.type, enabled=False):
        classes = logits.shape[1]
        valid = None if ignore is None else target != ignore
        labels = (target if valid is None else target.where(valid, 0)).long()
        logarithms = functional.log_softmax(logits.float(), 1)
        of_target = logarithms.gather(1, labels)
        surprise = -of_target if valid is None else -of_target * valid
        cross_entropy = _mean(surprise.sum(), valid, of_target)
        found = of_target.exp() if valid is None else of_target.exp() * valid
        overlap = found.new_zeros(len(labels), classes).scatter_add(1, labels.flatten(1), found.flatten(1))
        sizes = _sum(logarithms.exp(), valid) + _class_sizes(labels, valid, classes)
        return Terms(_dice_loss(overlap[:, 1:], sizes[:, 1:], batch_dice), cross_entropy)


def region_loss(
    logits: Tensor, target: Tensor, regions: Sequence[Sequence[int]], *, batch_dice: bool, ignore: int | None = None
) -> Terms:
    """The loss of regions that may overlap: a sigmoid each, binary cross entropy, the Dice of every region.

    Args:
        logits: (B, R, ...), one channel a region.
        target: (B, 1, ...) label values.
        regions: the label values each region is made of.
        batch_dice: one Dice a region over the whole batch instead of one a region and sample.
        ignore: value of voxels that count in neither term. Where no voxel counts, both terms are constants.

    Source: nnU-Net v2.8.1, DC_and_BCE_loss, whose Dice term is ours minus 1. Our choice: with an ignore value the cross
    entropy stays a mean over regions; there it becomes a sum, which weighs it by their number.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        valid = None if ignore is None else target != ignore
        inside = region_masks(target, regions)
        probabilities = logits.sigmoid()
        surprise = functional.softplus(logits) - logits * inside
        cross_entropy = _mean(_sum(surprise, valid).sum(), valid, target) / len(regions)
        overlap = _sum(probabilities * inside, valid)
        sizes = _sum(probabilities, valid) + _sum(inside.float(), valid)
        return Terms(_dice_loss(overlap, sizes, batch_dice), cross_entropy)


def region_masks(target: Tensor, regions: Sequence[Sequence[int]]) -> Tensor:
    """Where each region is: bool (B, R, ...) for label values (B, 1, ...)."""
    return torch.cat([_is_any_of(target, values) for values in regions], 1)


def deep_supervision_weights(n_outputs: int) -> tuple[float, ...]:
    """The weight of each resolution, full resolution first: halved at each step, the lowest 0, together 1.

    Example:
        >>> deep_supervision_weights(3)
        (0.6666666666666666, 0.3333333333333333, 0.0)

    Source: nnU-Net v2.8.1, _build_loss. With a single resolution its weight is 1.
    """
    raw = [0.5**index for index in range(n_outputs)]
    if n_outputs > 1:
        raw[-1] = 0.0
    return tuple(weight / sum(raw) for weight in raw)


def deeply_supervised(loss: Loss, outputs: Sequence[Tensor], target: Tensor, weights: Sequence[float]) -> Terms:
    """The weighted sum of a loss over resolutions; outputs of weight 0 are left out.

    Args:
        loss: `label_loss` or `region_loss` with its options bound.
        outputs: logits, full resolution first.
        target: (B, 1, ...) at full resolution.
        weights: one an output.
    """
    used = [(weight, logits) for weight, logits in zip(weights, outputs, strict=True) if weight]
    terms = [(weight, loss(logits, shrink(target, logits.shape[2:]))) for weight, logits in used]
    dice, cross_entropy = (torch.stack([weight * each[term] for weight, each in terms]).sum() for term in (0, 1))
    return Terms(dice, cross_entropy)


def shrink(target: Tensor, shape: Sequence[int]) -> Tensor:
    """A label map (B, C, ...) at a smaller spatial shape, each voxel the value at its centre ("nearest-exact")."""
    for axis, new in enumerate(shape, start=2):
        old = target.shape[axis]
        if new != old:
            centres = (torch.arange(new, device=target.device) + 0.5) * (old / new)
            target = target.index_select(axis, centres.long())
    return target


def hard_counts(logits: Tensor, target: Tensor, regions: Sequence[Sequence[int]], ignore: int | None = None) -> Tensor:
    """True positives, false positives and false negatives of each class without background: int64 (3, classes).

    Args:
        logits: (B, K, ...).
        target: (B, 1, ...) label values.
        regions: with regions, the values of each; empty for exclusive labels.
        ignore: value of voxels that do not count.
    """
    valid = None if ignore is None else target != ignore
    if regions:
        return _region_counts(logits > 0, region_masks(target, regions), valid)
    classes = logits.shape[1]
    pairs = target.long() * classes + logits.argmax(1, keepdim=True)
    chosen = pairs.flatten() if valid is None else pairs[valid]
    joint = torch.bincount(chosen, minlength=classes**2).view(classes, classes)
    hits = joint.diagonal()
    return torch.stack((hits, joint.sum(0) - hits, joint.sum(1) - hits))[:, 1:]


def _region_counts(predicted: Tensor, inside: Tensor, valid: Tensor | None) -> Tensor:
    if valid is not None:
        predicted, inside = predicted & valid, inside & valid
    space = (0, *range(2, predicted.dim()))
    hits = (predicted & inside).sum(space)
    return torch.stack((hits, predicted.sum(space) - hits, inside.sum(space) - hits))


def _is_any_of(target: Tensor, values: Sequence[int]) -> Tensor:
    found = target == values[0]
    for value in values[1:]:
        found = found | (target == value)
    return found


def _dice_loss(overlap: Tensor, sizes: Tensor, batch_dice: bool) -> Tensor:
    """1 - mean Dice from (B, classes) sums of overlap, and of prediction and target together."""
    if batch_dice:
        overlap, sizes = ranks.total(overlap.sum(0)), ranks.total(sizes.sum(0))
    return 1 - ((2 * overlap + SMOOTH) / (sizes + SMOOTH).clamp_min(_SMALLEST)).mean()


def _sum(values: Tensor, valid: Tensor | None) -> Tensor:
    """The (B, C) sums of (B, C, ...) over the valid voxels, without a masked copy."""
    if valid is None:
        return values.sum(tuple(range(2, values.dim())))
    return (values.flatten(2) @ valid.flatten(1)[:, :, None].to(values.dtype))[:, :, 0]


def _mean(total: Tensor, valid: Tensor | None, image: Tensor) -> Tensor:
    """A sum over voxels, over the number of those that count."""
    return total / image.numel() if valid is None else ranks.ratio(total, valid.sum())


def _class_sizes(labels: Tensor, valid: Tensor | None, classes: int) -> Tensor:
    """The voxels of each class in each sample, (B, classes)."""
    samples = len(labels)
    offsets = classes * torch.arange(samples, device=labels.device).view(-1, *(1 for _ in labels.shape[1:]))
    keys = labels + offsets
    chosen = keys.flatten() if valid is None else keys[valid]
    return torch.bincount(chosen, minlength=samples * classes).view(samples, classes)
