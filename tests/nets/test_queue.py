"""The queue of a contrast keeps the newest vectors with their tags."""

from __future__ import annotations

import torch

from selfcfg.nets.heads import Queue


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
