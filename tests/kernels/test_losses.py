from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from selfcfg.kernels.losses import (
    SMOOTH,
    Terms,
    deep_supervision_weights,
    deeply_supervised,
    hard_counts,
    label_loss,
    region_loss,
    region_masks,
    shrink,
)

REGIONS = ((1, 2, 3), (2, 3), (3,))


def reference_dice(probabilities: Tensor, truth: Tensor, mask: Tensor, batch_dice: bool) -> Tensor:
    """Written out sample by sample and class by class, in float64."""
    values = []
    samples = [list(range(len(truth)))] if batch_dice else [[index] for index in range(len(truth))]
    for group in samples:
        for channel in range(truth.shape[1]):
            p, t, m = probabilities[group][:, channel], truth[group][:, channel], mask[group][:, 0]
            values.append((2 * (p * t * m).sum() + SMOOTH) / ((p * m).sum() + (t * m).sum() + SMOOTH))
    return 1 - torch.stack(values).mean()


def reference_labels(logits: Tensor, target: Tensor, batch_dice: bool, ignore: int | None) -> Terms:
    mask = torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore
    labels = torch.where(mask, target, 0).long()
    truth = functional.one_hot(labels[:, 0], logits.shape[1]).movedim(-1, 1).double()
    dice = reference_dice(logits.softmax(1)[:, 1:], truth[:, 1:], mask.double(), batch_dice)
    kwargs = {} if ignore is None else {"ignore_index": ignore}
    return Terms(dice, functional.cross_entropy(logits, target[:, 0].long(), **kwargs))


def reference_regions(logits: Tensor, target: Tensor, batch_dice: bool, ignore: int | None) -> Terms:
    mask = torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore
    truth = torch.stack([torch.isin(target[:, 0], torch.tensor(values)) for values in REGIONS], 1).double()
    dice = reference_dice(logits.sigmoid(), truth, mask.double(), batch_dice)
    each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return Terms(dice, each[mask.expand_as(each)].mean())


def sample(dimensions: int, channels: int, values: int, layout: str = "contiguous") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(dimensions + channels)
    shape = (3, 5, 4, 6)[: dimensions + 1]
    logits = 2 * torch.randn(shape[0], channels, *shape[1:], generator=generator)
    if layout == "channels last":
        logits = logits.contiguous(memory_format=torch.channels_last if dimensions == 2 else torch.channels_last_3d)
    target = torch.randint(0, values, (shape[0], 1, *shape[1:]), generator=generator, dtype=torch.int16)
    return logits, target


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("ignore", [None, 4])
@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_equals_the_plain_formula_in_value_and_gradient(
    kind: str, dimensions: int, batch_dice: bool, ignore: int | None, layout: str
) -> None:
    channels = 4 if kind == "labels" else len(REGIONS)
    logits, target = sample(dimensions, channels, 4 if ignore is None else 5, layout)
    ours, plain = logits.clone().requires_grad_(), logits.double().requires_grad_()
    if kind == "labels":
        terms = label_loss(ours, target, batch_dice=batch_dice, ignore=ignore)
        expected = reference_labels(plain, target, batch_dice, ignore)
    else:
        terms = region_loss(ours, target, REGIONS, batch_dice=batch_dice, ignore=ignore)
        expected = reference_regions(plain, target, batch_dice, ignore)
    for term, wanted in zip(terms, expected, strict=True):
        assert term.item() == pytest.approx(wanted.item(), rel=1e-5)
        (gradient,) = torch.autograd.grad(term, ours, retain_graph=True)
        (wanted_gradient,) = torch.autograd.grad(wanted, plain, retain_graph=True)
        torch.testing.assert_close(gradient.double(), wanted_gradient, rtol=1e-4, atol=1e-8)


def test_numbers_worked_by_hand() -> None:
    # two voxels, background and one class; probabilities of the class 0.5 and 0.8, truth 0 and 1
    logits = torch.tensor([[[[0.0, 0.0]], [[0.0, math.log(4.0)]]]])
    terms = label_loss(logits, torch.tensor([[[[0, 1]]]]), batch_dice=True)
    assert terms.cross_entropy.item() == pytest.approx((math.log(2) + math.log(1.25)) / 2, rel=1e-6)
    assert terms.dice.item() == pytest.approx(1 - (2 * 0.8 + 1e-5) / (1.3 + 1 + 1e-5), rel=1e-6)
    terms = region_loss(logits[:, 1:], torch.tensor([[[[0, 1]]]]), ((1,),), batch_dice=True)
    assert terms.cross_entropy.item() == pytest.approx((math.log(2) + math.log(1.25)) / 2, rel=1e-6)
    assert terms.dice.item() == pytest.approx(1 - 1.60001 / 2.30001, rel=1e-6)


def test_perfect_and_empty_predictions() -> None:
    target = torch.tensor([[[[0, 1, 1, 0]]]])
    certain = 40 * torch.cat((1 - target, target), 1).float()
    assert sum(label_loss(certain, target, batch_dice=True)).item() == pytest.approx(0, abs=1e-5)
    nothing = label_loss(certain, torch.zeros_like(target), batch_dice=True)
    assert nothing.dice.item() == pytest.approx(1, abs=1e-4)
    both_empty = label_loss(
        40 * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4), 0 * target, batch_dice=True
    )
    assert both_empty.dice.item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("kind", ["labels", "regions"])
@pytest.mark.parametrize("batch_dice", [True, False])
def test_a_patch_that_is_ignored_everywhere_gives_no_gradient_and_no_nan(kind: str, batch_dice: bool) -> None:
    logits, target = sample(3, 3, 4)
    logits.requires_grad_()
    target = torch.full_like(target, 4)
    if kind == "labels":
        terms = label_loss(logits, target, batch_dice=batch_dice, ignore=4)
    else:
        terms = region_loss(logits, target, REGIONS, batch_dice=batch_dice, ignore=4)
    (terms.dice + terms.cross_entropy).backward()
    assert terms.cross_entropy.item() == 0
    assert terms.dice.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_extreme_logits_stay_finite() -> None:
    logits, target = sample(2, 3, 3)
    logits = (1e4 * logits).requires_grad_()
    sum(label_loss(logits, target, batch_dice=True)).backward()
    sum(region_loss(logits, target, REGIONS, batch_dice=True)).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_autocast_does_not_lower_the_precision() -> None:
    logits, target = sample(3, 4, 4)
    plain = label_loss(logits, target, batch_dice=True)
    with torch.autocast("cpu", torch.bfloat16):
        cast = label_loss(logits, target, batch_dice=True, ignore=9)
    for a, b in zip(plain, cast, strict=True):
        assert b.dtype == torch.float32
        assert b.item() == pytest.approx(a.item(), rel=1e-6)


def test_gradients_of_gradients() -> None:
    logits, target = sample(2, 3, 4)
    logits = logits[:, :, :2, :2].double().requires_grad_()
    small = target[:, :, :2, :2]

    def terms(values: Tensor) -> Tensor:
        return sum(region_loss(values, small, REGIONS, batch_dice=False)) + sum(
            label_loss(values, small.clamp_max(2), batch_dice=True)
        )

    (gradient,) = torch.autograd.grad(terms(logits), logits, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), logits)
    assert second.abs().max() > 0


def test_weights_of_resolutions() -> None:
    assert deep_supervision_weights(1) == (1.0,)
    assert deep_supervision_weights(5) == pytest.approx((8 / 15, 4 / 15, 2 / 15, 1 / 15, 0))


def test_deep_supervision_adds_up_the_resolutions() -> None:
    logits, target = sample(3, 3, 3)
    low = torch.randn(3, 3, 2, 2, 3)

    def loss(a: Tensor, b: Tensor) -> Terms:
        return label_loss(a, b, batch_dice=False)

    terms = deeply_supervised(loss, [logits, low, torch.full_like(low, math.nan)], target, (0.75, 0.25, 0.0))
    full, half = loss(logits, target), loss(low, shrink(target, (2, 2, 3)))
    for index in (0, 1):
        assert terms[index].item() == pytest.approx(0.75 * full[index].item() + 0.25 * half[index].item(), rel=1e-6)


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 2, 3), (2, 4, 6), (3, 1, 5)])
def test_shrinking_takes_the_value_at_the_centre(shape: tuple[int, ...]) -> None:
    target = torch.randint(0, 9, (2, 1, 5, 4, 6), dtype=torch.int16)
    expected = functional.interpolate(target.float(), shape, mode="nearest-exact")
    assert torch.equal(shrink(target, shape), expected.to(torch.int16))


@pytest.mark.parametrize("ignore", [None, 4])
def test_hard_counts(ignore: int | None) -> None:
    logits, target = sample(3, 4, 4 if ignore is None else 5)
    valid = torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore
    predicted = logits.argmax(1, keepdim=True)
    counts = hard_counts(logits, target, (), ignore)
    for value in (1, 2, 3):
        p, t = (predicted == value) & valid, (target == value) & valid
        assert counts[:, value - 1].tolist() == [(p & t).sum(), (p & ~t).sum(), (~p & t).sum()]
    counts = hard_counts(logits[:, :3], target, REGIONS, ignore)
    masks = region_masks(target, REGIONS)
    for index in range(3):
        p, t = (logits[:, index : index + 1] > 0) & valid, masks[:, index : index + 1] & valid
        assert counts[:, index].tolist() == [(p & t).sum(), (p & ~t).sum(), (~p & t).sum()]
