"""Teachers made one, and the distance of a student from them, against hand computation and numerical gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from selfcfg.kernels.distillation import Divergence, combined, logits_of, shrink_soft, teacher_loss, whole
from selfcfg.kernels.ensembles import greedy_choice, score_weights

DIVERGENCES: tuple[Divergence, ...] = ("kl", "l2", "dice", "kl+dice")
every_divergence = pytest.mark.parametrize("divergence", DIVERGENCES)
both_kinds = pytest.mark.parametrize("exclusive", [True, False], ids=["labels", "regions"])
temperatures = pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32) * 3


def told(logits: Tensor, temperature: float, *, exclusive: bool) -> Tensor:
    """The soft target that a single teacher gives, (B, F, ...)."""
    ones = torch.ones(1, logits.shape[1])
    each = [combined([one], ones, "probability", temperature, exclusive=exclusive) for one in logits]
    return torch.stack(each)


@every_divergence
@both_kinds
@temperatures
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_student_like_its_one_teacher_has_no_gradient(
    divergence: Divergence, exclusive: bool, temperature: float, dimensions: int
) -> None:
    logits = drawn(2, 3, *(5,) * dimensions).requires_grad_()
    soft = told(logits.detach(), temperature, exclusive=exclusive)
    loss = teacher_loss(logits, soft, divergence, temperature, exclusive=exclusive)
    loss.backward()
    other = drawn(2, 3, *(5,) * dimensions, seed=1).requires_grad_()
    teacher_loss(other, soft, divergence, temperature, exclusive=exclusive).backward()
    assert abs(loss.item()) < 1e-5 * max(1, temperature**2)
    assert logits.grad.abs().max() < 1e-5 * other.grad.abs().max()


@every_divergence
@both_kinds
def test_it_is_least_where_both_say_the_same(divergence: Divergence, exclusive: bool) -> None:
    logits = drawn(1, 3, 4, 4)
    soft = told(logits, 2.0, exclusive=exclusive)
    least = teacher_loss(logits, soft, divergence, 2.0, exclusive=exclusive)
    for seed in range(5):
        other = logits + 0.1 * drawn(1, 3, 4, 4, seed=seed)
        assert teacher_loss(other, soft, divergence, 2.0, exclusive=exclusive) > least


def test_the_divergences_of_one_voxel_by_hand() -> None:
    logits, soft = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1), torch.tensor(0.5).view(1, 1, 1, 1)
    found = {name: teacher_loss(logits, soft, name, 1.0, exclusive=True).item() for name in DIVERGENCES}
    kl = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    dice = 1 - (2 * 0.5 * 0.75 + 1e-5) / (0.25 + 0.5625 + 1e-5)
    assert found == pytest.approx({"kl": kl, "l2": 2 * 0.25**2, "dice": dice, "kl+dice": kl + dice}, abs=1e-6)
    sigmoid = torch.tensor(math.log(3)).view(1, 1, 1, 1)
    found = {name: teacher_loss(sigmoid, soft, name, 1.0, exclusive=False).item() for name in DIVERGENCES}
    assert found == pytest.approx({"kl": kl, "l2": 0.25**2, "dice": dice, "kl+dice": kl + dice}, abs=1e-6)


@both_kinds
def test_the_temperature_divides_logits_and_its_square_multiplies_the_loss(exclusive: bool) -> None:
    logits, soft = drawn(2, 3, 4, 4), told(drawn(2, 3, 4, 4, seed=1), 3.0, exclusive=exclusive)
    for name in DIVERGENCES:
        plain = teacher_loss(logits / 3, soft, name, 1.0, exclusive=exclusive)
        assert teacher_loss(logits, soft, name, 3.0, exclusive=exclusive).item() == pytest.approx(9 * plain.item())


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_gradient_of_kl_is_the_difference_of_probabilities(exclusive: bool) -> None:
    logits = drawn(2, 3, 4, 4).requires_grad_()
    soft = told(drawn(2, 3, 4, 4, seed=1), 2.0, exclusive=exclusive)
    teacher_loss(logits, soft, "kl", 2.0, exclusive=exclusive).backward()
    scaled = logits.detach() / 2
    said = scaled.softmax(1) if exclusive else scaled.sigmoid()
    by_hand = 2 * (said - whole(soft, exclusive=exclusive)) / (2 * 16 * (1 if exclusive else 3))
    torch.testing.assert_close(logits.grad, by_hand)


@every_divergence
@both_kinds
def test_voxels_that_do_not_count_change_nothing(divergence: Divergence, exclusive: bool) -> None:
    logits, soft = drawn(2, 3, 4, 6), told(drawn(2, 3, 4, 6, seed=1), 1.0, exclusive=exclusive)
    valid = torch.ones(2, 1, 4, 6, dtype=torch.bool)
    valid[..., 4:] = False
    cut = teacher_loss(logits[..., :4], soft[..., :4], divergence, 1.0, exclusive=exclusive)
    masked = teacher_loss(logits, soft, divergence, 1.0, exclusive=exclusive, valid=valid)
    assert masked.item() == pytest.approx(cut.item(), rel=1e-5)
    none = teacher_loss(logits, soft, divergence, 1.0, exclusive=exclusive, valid=torch.zeros_like(valid))
    assert none.item() == pytest.approx(0.0, abs=1e-6)


def test_probabilities_are_averaged_by_their_weights() -> None:
    first, second = torch.tensor([[0.0], [math.log(3)]]), torch.tensor([[math.log(4)], [0.0]])
    weights = torch.tensor([[0.25, 0.25], [0.75, 0.75]])
    found = combined([first, second], weights, "probability", 1.0, exclusive=True)
    assert found.flatten().tolist() == pytest.approx([0.25 * 0.75 + 0.75 * 0.2])
    regions = combined([first, second], weights, "probability", 1.0, exclusive=False)
    assert regions.flatten().tolist() == pytest.approx([0.25 * 0.5 + 0.75 * 0.8, 0.25 * 0.75 + 0.75 * 0.5])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_logits_are_averaged_before_the_softmax(temperature: float) -> None:
    logits, weights = [drawn(3, 4, 4, seed=seed) for seed in (0, 1)], torch.tensor([[0.3] * 3, [0.7] * 3])
    mean = (0.3 * logits[0] + 0.7 * logits[1]) / temperature
    found = combined(logits, weights, "logit", temperature, exclusive=True)
    torch.testing.assert_close(found, mean.softmax(0)[1:])
    torch.testing.assert_close(combined(logits, weights, "logit", temperature, exclusive=False), mean.sigmoid())
    shifted = combined([logits[0] + 100, logits[1]], weights, "logit", temperature, exclusive=True)
    torch.testing.assert_close(shifted, found, rtol=1e-4, atol=1e-5)


def test_weights_by_class_are_brought_to_a_sum_of_one() -> None:
    first, second = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    weights = torch.tensor([[0.5, 0.9, 0.1], [0.5, 0.1, 0.9]])
    found = combined([first.log()[:, None], second.log()[:, None]], weights, "probability", 1.0, exclusive=True)
    raw = [0.35, 0.9 * 0.3 + 0.1 * 0.2, 0.1 * 0.2 + 0.9 * 0.6]
    assert found.flatten().tolist() == pytest.approx([value / sum(raw) for value in raw[1:]])


def test_the_background_is_what_is_left() -> None:
    soft = torch.tensor([[0.2, 0.0], [0.5, 1.0]])[None]
    torch.testing.assert_close(whole(soft, exclusive=True)[0], torch.tensor([[0.3, 0.0], [0.2, 0.0], [0.5, 1.0]]))
    rounded_up = torch.tensor([[0.6], [0.402]])[None]
    assert whole(rounded_up, exclusive=True).sum().item() == pytest.approx(1)


@both_kinds
def test_logits_of_probabilities_give_these_back(exclusive: bool) -> None:
    probabilities = drawn(3, 50).softmax(0) if exclusive else drawn(3, 50).sigmoid()
    logits = logits_of(probabilities, exclusive=exclusive)
    torch.testing.assert_close(logits.softmax(0) if exclusive else logits.sigmoid(), probabilities)


def test_a_region_that_was_rounded_to_one_does_not_outvote_a_zero() -> None:
    yes, no = (logits_of(torch.tensor([[value]]), exclusive=False) for value in (1.0, 0.0))
    soft = combined([yes, no], torch.full((2, 1), 0.5), "logit", 1.0, exclusive=False)
    assert soft.item() == 0.5
    against_two = combined([yes, no, no], torch.full((3, 1), 1 / 3), "logit", 1.0, exclusive=False)
    assert against_two.item() < 0.01


def test_lower_resolutions_are_means_of_what_they_cover() -> None:
    soft = torch.arange(16.0).view(1, 1, 4, 4)
    assert shrink_soft(soft, (2, 4)).flatten().tolist() == [2, 3, 4, 5, 10, 11, 12, 13]
    assert shrink_soft(soft, (4, 4)) is soft


def test_a_better_score_has_more_weight() -> None:
    weights = score_weights(np.array([0.8, 0.83, 0.8]), 0.03)
    assert weights.tolist() == pytest.approx([1 / (2 + math.e), math.e / (2 + math.e), 1 / (2 + math.e)])
    by_class = score_weights(np.array([[0.5, 0.9], [0.53, 0.9]]), 0.03)
    assert by_class.tolist() == [
        pytest.approx([1 / (1 + math.e), 0.5]),
        pytest.approx([math.e / (1 + math.e), 0.5]),
    ]


def test_the_greedy_choice_leaves_out_who_does_not_help() -> None:
    scores = {
        (0,): 0.70, (1,): 0.80, (2,): 0.75, (3,): 0.10,
        (1, 0): 0.82, (1, 2): 0.79, (1, 3): 0.60,
        (1, 0, 2): 0.82, (1, 0, 3): 0.50,
    }  # fmt: skip
    assert greedy_choice(4, lambda chosen: scores[tuple(chosen)]) == (1, 0)
    assert greedy_choice(2, lambda chosen: 0.5) == (0,)
