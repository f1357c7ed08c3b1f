from __future__ import annotations

import pytest
import torch
from torch import nn

from selfcfg.nets.heads import STAGES, Centre, DenseHead, GlobalHead, Queue, follow, momentum_copy
from selfcfg.nets.unet import build_parts
from selfcfg.testing import small_plan


@pytest.mark.parametrize("dimensions", [2, 3])
def test_heads_take_what_encoder_and_decoder_give(dimensions: int) -> None:
    topology = small_plan(dimensions).configurations["small"].topology
    parts = build_parts(topology, 1, 2)
    features = parts["encoder"](torch.randn(3, 1, *(16,) * dimensions))
    assert GlobalHead(topology, 5)(features).shape == (3, 5)
    assert DenseHead(topology, 2)(parts["decoder"](features)).shape == (3, 2, *(16,) * dimensions)


def test_a_global_head_pools_mean_and_maximum_of_the_lowest_stages() -> None:
    topology = small_plan(2).configurations["small"].topology
    head = GlobalHead(topology, 5)
    features = [torch.randn(2, width, 4, 4) for width in topology.features]
    pooled = []
    for mixer, feature in zip(head.mixers, features[-STAGES:], strict=True):
        mixed = nn.functional.gelu(
            torch.einsum("oi,bihw->bohw", mixer[0].weight[..., 0, 0], feature) + mixer[0].bias[:, None, None]
        )
        pooled += [mixed.mean((2, 3)), mixed.amax((2, 3))]
    torch.testing.assert_close(head(features), head.mlp(torch.cat(pooled, 1)))


def test_a_momentum_copy_follows_by_the_formula() -> None:
    ahead, weight = nn.Linear(3, 2), torch.randn(2, 3)
    behind = momentum_copy(ahead)
    assert torch.equal(behind.weight, ahead.weight) and not any(one.requires_grad for one in behind.parameters())
    before = behind.weight.clone()
    with torch.no_grad():
        ahead.weight.copy_(weight)
    follow(behind, ahead, 0.9)
    torch.testing.assert_close(behind.weight, 0.9 * before + 0.1 * weight)
    assert torch.equal(ahead.weight, weight)
    follow(behind, ahead, 0)
    assert torch.equal(behind.weight, weight)


def test_a_queue_keeps_the_newest() -> None:
    queue = Queue(5, 2)
    for first in (1, 4):
        numbers = torch.arange(first, first + 3.0)[:, None]
        queue.push(numbers.expand(3, 2), numbers)
        assert queue.filled.sum() == min(5, first + 2)
    assert queue.vectors[:, 0].tolist() == [6, 2, 3, 4, 5] and queue.tags[:, 0].tolist() == [6, 2, 3, 4, 5]


def test_of_more_than_a_queue_holds_the_last_are_kept() -> None:
    queue = Queue(2, 1)
    queue.push(torch.arange(5.0)[:, None], torch.arange(5.0)[:, None])
    assert sorted(queue.vectors[:, 0].tolist()) == [3, 4] and queue.filled.all()


def test_a_queue_continues_from_its_state() -> None:
    queue, other = Queue(4, 1), Queue(4, 1)
    queue.push(torch.ones(3, 1), torch.ones(3, 1))
    other.load_state_dict(queue.state_dict())
    for one in (queue, other):
        one.push(torch.full((2, 1), 2.0), torch.zeros(2, 1))
    assert all(torch.equal(a, b) for a, b in zip(queue.buffers(), other.buffers(), strict=True))
    assert queue.vectors[:, 0].tolist() == [2, 1, 1, 2]


def pushed(length: int, *counts: int) -> Queue:
    queue, first = Queue(length, 2, tags=1), 0
    for count in counts:
        numbers = torch.arange(first, first + count, dtype=torch.float32)[:, None]
        queue.push(numbers.expand(-1, 2), numbers)
        first += count
    return queue


def test_the_oldest_are_replaced() -> None:
    queue = pushed(5, 3, 4)
    assert sorted(queue.tags.flatten().tolist()) == [2, 3, 4, 5, 6]
    assert torch.equal(queue.vectors[:, :1], queue.tags) and queue.filled.all()


def test_more_vectors_than_places_leave_the_last() -> None:
    queue = pushed(3, 2, 7)
    assert sorted(queue.tags.flatten().tolist()) == [6, 7, 8]


def test_nothing_pushed_changes_nothing() -> None:
    assert not pushed(3, 0).filled.any()


def test_the_first_vectors_set_the_mean_and_later_ones_move_it() -> None:
    centre = Centre(2, momentum=0.75)
    centre.move(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    assert centre.mean.tolist() == [2, 2]
    centre.move(torch.tensor([[6.0, 2.0]]))
    assert centre.mean.tolist() == [3, 2]
    assert centre(torch.tensor([[3.0, 3.0]])).tolist() == [[0, 1]]


def test_the_mean_stays_where_it_is_in_validation_and_without_vectors() -> None:
    centre = Centre(2)
    centre.move(torch.empty(0, 2))
    centre.eval()
    centre.move(torch.ones(3, 2))
    assert not centre.is_known and not centre.mean.any()
