"""Distances against a look at every pair of voxels."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from selfcfg.kernels.distance import signed_distance, truncated_distance

SHAPES = [((9, 11), (1.0, 1.0)), ((7, 8), (0.7, 2.3)), ((5, 6, 7), (1.0, 1.0, 1.0)), ((4, 7, 6), (3.1, 0.8, 1.3))]
each_grid = pytest.mark.parametrize(("shape", "spacing"), SHAPES)


def by_pairs(mask: Tensor, spacing: tuple[float, ...], limit: float) -> Tensor:
    """The distance of every voxel to the nearest of a mask (*spatial), cut at the limit."""
    steps = torch.tensor(spacing, dtype=torch.float64)
    everywhere = torch.tensor(list(itertools.product(*map(range, mask.shape)))) * steps
    inside = mask.nonzero() * steps
    if not len(inside):
        return torch.full(mask.shape, limit)
    return (everywhere[:, None] - inside).norm(dim=2).amin(1).view(mask.shape).clamp(max=limit).float()


def random_masks(shape: tuple[int, ...], share: float) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return torch.rand((2, 3, *shape), generator=generator) < share


@each_grid
@pytest.mark.parametrize("limit", [0.5, 2.5, 100.0])
def test_distances_are_those_of_the_nearest_voxel(
    shape: tuple[int, ...], spacing: tuple[float, ...], limit: float
) -> None:
    masks = random_masks(shape, 0.03)
    found = truncated_distance(masks, spacing, limit)
    for sample, channel in itertools.product(range(2), range(3)):
        expected = by_pairs(masks[sample, channel], spacing, limit)
        torch.testing.assert_close(found[sample, channel], expected, rtol=1e-5, atol=1e-4)


@each_grid
def test_signed_distances_are_negative_inside_and_reach_the_nearest_voxel_of_the_other_kind(
    shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    masks = random_masks(shape, 0.3)
    values, known = signed_distance(masks, spacing, 4.0)
    assert known.all()
    mask = masks[0, 0]
    expected = torch.where(mask, -by_pairs(~mask, spacing, 4.0), by_pairs(mask, spacing, 4.0))
    torch.testing.assert_close(values[0, 0], expected, rtol=1e-5, atol=1e-4)


def test_empty_and_full_masks_are_at_the_limit_everywhere() -> None:
    masks = torch.zeros(1, 2, 5, 5, dtype=torch.bool)
    masks[:, 1] = True
    values = signed_distance(masks, (1.0, 2.0), 3.0).values
    assert (values[:, 0] == 3).all() and (values[:, 1] == -3).all()


@each_grid
def test_values_that_are_known_are_the_same_whatever_the_unknown_voxels_are(
    shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = random_masks(shape, 0.2)[:, :1]
    unknown = torch.rand(truth.shape, generator=generator) < 0.1
    values, known = signed_distance(truth, spacing, 5.0, unknown)
    assert known.any() and not (known & unknown).any()
    for share in (0.0, 0.3, 1.0):
        filled = torch.where(unknown, torch.rand(truth.shape, generator=generator) < share, truth)
        possible = signed_distance(filled, spacing, 5.0).values
        torch.testing.assert_close(values[known], possible[known])


def test_a_value_is_unknown_only_where_an_unknown_voxel_is_nearer_than_the_border() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 0, 0, 0, 0, 0, 0]], dtype=torch.bool).view(1, 1, 1, 10)
    unknown = torch.zeros_like(mask)
    unknown[..., 8] = True
    values, known = signed_distance(mask, (1.0, 1.0), 100.0, unknown)
    assert values[0, 0, 0, :8].tolist() == [2, 1, -1, -1, 1, 2, 3, 4]
    assert known[0, 0, 0].tolist() == [True] * 6 + [False] * 4
