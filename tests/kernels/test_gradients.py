"""Gradient surgery and what it is made of, against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch

from selfcfg.kernels.gradients import (
    added,
    cosine,
    cosine_distance,
    inner,
    norm_where,
    squared_distance,
    without_conflicts,
)


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_inner_products_run_over_the_parameters_that_both_reach() -> None:
    first, second = [vector(1, 2), vector(3), None], [vector(3, -1), None, vector(7)]
    assert inner(first, second).item() == 1
    assert norm_where(first, second).item() == pytest.approx(5**0.5)
    assert inner([None, vector(1)], [vector(1), None]).item() == 0


def test_a_conflict_is_projected_away_as_by_hand() -> None:
    """With g1 = (1, 0) and g2 = (-1, 1), g1.g2 = -1.

    g1 loses -1/2 of g2: (1, 0) + (-1, 1) / 2 = (1/2, 1/2); g2 loses -1/1 of g1: (-1, 1) + (1, 0) = (0, 1).
    """
    gradients = [[vector(1, 0)], [vector(-1, 1)]]
    first, second = without_conflicts(gradients, [[0, 1], [0, 1]])
    assert first[0].tolist() == [0.5, 0.5]
    assert second[0].tolist() == [0, 1]
    assert gradients[0][0].tolist() == [1, 0], "the gradients stay as they are"


def test_gradients_that_agree_stay() -> None:
    gradients = [[vector(1, 0)], [vector(1, 1)], [None]]
    assert without_conflicts(gradients, [[1, 2], [2, 0], [0, 1]]) == gradients


def test_the_order_of_the_projections_counts() -> None:
    """g1 = (1, 0), g2 = (-1, 1), g3 = (-1, -2).

    g1 against g2: (1/2, 1/2), then its product with g3 is -3/2 of |g3|^2 = 5: (1/2, 1/2) + 3/10 g3 = (1/5, -1/10).
    g1 against g3: its product is -1: (1, 0) + 1/5 g3 = (4/5, -2/5); with g2 -6/5 of 2: + 3/5 g2 = (1/5, 1/5).
    """
    gradients = [[vector(1, 0)], [vector(-1, 1)], [vector(-1, -2)]]
    there, *_ = without_conflicts(gradients, [[1, 2], [], []])
    back, *_ = without_conflicts(gradients, [[2, 1], [], []])
    torch.testing.assert_close(there[0], vector(0.2, -0.1))
    torch.testing.assert_close(back[0], vector(0.2, 0.2))


def test_parameters_of_one_task_alone_are_left() -> None:
    """Only the first parameter is compared; the second, which one task reaches, keeps its gradient."""
    gradients = [[vector(1, 0), vector(5)], [vector(-1, 1), None]]
    first, second = without_conflicts(gradients, [[1], [0]])
    assert first[0].tolist() == [0.5, 0.5] and first[1].tolist() == [5]
    assert second[0].tolist() == [0, 1] and second[1] is None


def test_sums_leave_out_what_is_not_reached() -> None:
    total = added([[vector(1), None, None], [vector(2), vector(3), None]])
    assert [None if one is None else one.tolist() for one in total] == [[3], [3], None]


def test_distances_of_gradients_as_by_hand() -> None:
    """Of (3, 4) and (4, 3) the cosine is 24/25, of 2 and -5 it is -1; (-1, 1) and 7 are apart."""
    first, second = [vector(3, 4), vector(2), None, vector(1)], [vector(4, 3), vector(-5), vector(1), None]
    assert cosine_distance(first, second).item() == pytest.approx((1 / 25 + 2) / 2)
    assert squared_distance(first, second).item() == 1 + 1 + 49
    assert cosine(first, second).item() == pytest.approx(14 / (29 * 50) ** 0.5)
    nothing = [None, vector(1)], [vector(1), None]
    assert cosine_distance(*nothing) == squared_distance(*nothing) == cosine(*nothing) == 0


def test_what_vanishes_has_no_direction_and_no_gradient() -> None:
    first = [torch.zeros(2, requires_grad=True), vector(1, 0).requires_grad_()]
    second = [vector(1, 1).requires_grad_(), vector(0, 2).requires_grad_()]
    distance = cosine_distance(first, second)
    assert distance.item() == 1, "of the second tensor alone"
    distance.backward()
    assert [one.grad.tolist() for one in (*first, *second)] == [[0, 0], [0, -1], [0, 0], [-0.5, 0]]
    assert cosine([torch.zeros(2)], [vector(1, 1)]) == 0


def test_a_sum_keeps_the_layout_in_memory() -> None:
    first, second = (torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last) for _ in range(2))
    (found,) = added([[first], [second]])
    assert torch.equal(found, first + second) and found.is_contiguous(memory_format=torch.channels_last)
