"""The kernels of sequences: what comes first, and what one patch shows of the next."""

from __future__ import annotations

import math

import pytest
import torch

from selfcfg.kernels.contrast import in_order
from selfcfg.kernels.masking import seen_ahead


def test_order_worked_by_hand() -> None:
    found = in_order(torch.tensor([[0.0, 2.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool))
    losses = [math.log(1 + math.exp(-difference)) for difference in (2, 1, -1)]
    assert found.loss.item() == pytest.approx(sum(losses) / 3)
    assert found.accuracy.item() == pytest.approx(2 / 3)


def test_only_pairs_of_known_members_are_ordered() -> None:
    numbers = torch.tensor([[0.0, 5.0, 1.0], [3.0, 2.0, 1.0]])
    found = in_order(numbers, torch.tensor([[True, False, True], [True, False, False]]))
    assert found.loss.item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_the_same_number_for_all_is_right_by_chance() -> None:
    found = in_order(torch.zeros(4, 5), torch.ones(4, 5, dtype=torch.bool))
    assert found.accuracy.item() == 0.5 and found.loss.item() == pytest.approx(math.log(2))


def test_without_pairs_the_loss_is_zero_and_has_a_gradient() -> None:
    numbers = torch.ones(2, 3, requires_grad=True)
    in_order(numbers, torch.zeros(2, 3, dtype=torch.bool)).loss.backward()
    assert torch.equal(numbers.grad, torch.zeros(2, 3))


def test_a_slab_shows_where_it_overlaps_another() -> None:
    slab = torch.arange(4.0).view(1, 1, 4, 1, 1)
    hidden = torch.tensor([False, False, True, False]).view(1, 1, 4, 1, 1)
    ahead, shown = seen_ahead(slab, hidden, torch.tensor([1]))
    assert ahead.flatten().tolist() == [1, 0, 3, 3]
    assert shown.flatten().tolist() == [True, False, True, False]
    behind, shown = seen_ahead(slab, hidden, torch.tensor([-3]))
    assert behind.flatten().tolist() == [0, 0, 0, 0]
    assert shown.flatten().tolist() == [False, False, False, True]


def test_a_slice_shows_nothing_of_the_next() -> None:
    image = torch.randn(2, 3, 4, 4)
    hidden = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    hidden[:, :, 0] = True
    copied, shown = seen_ahead(image, hidden, torch.tensor([1, -1]))
    assert torch.equal(copied, image.masked_fill(hidden, 0)) and shown.shape == hidden.shape and not shown.any()
