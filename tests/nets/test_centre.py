"""What vectors have in common is taken off them."""

from __future__ import annotations

import torch

from selfcfg.nets.heads import Centre


def test_the_first_vectors_set_the_mean_and_later_ones_move_it() -> None:
    centre = Centre(2, momentum=0.75)
    centre.move(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    assert centre.mean.tolist() == [2, 2]
    centre.move(torch.tensor([[6.0, 2.0]]))
    assert centre.mean.tolist() == [3, 2]
    assert centre(torch.tensor([[3.0, 3.0]])).tolist() == [[0, 1]]


def test_it_stays_where_it_is_in_validation_and_without_vectors() -> None:
    centre = Centre(2)
    centre.move(torch.empty(0, 2))
    centre.eval()
    centre.move(torch.ones(3, 2))
    assert not centre.is_known and not centre.mean.any()
