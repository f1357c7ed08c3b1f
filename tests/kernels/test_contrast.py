"""Contrastive losses against the sums written out, and the spread of vectors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from selfcfg.kernels.contrast import contrast, spread, two_views


def vectors(count: int, seed: int = 0, width: int = 6) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def by_hand(
    queries: Tensor, keys: Tensor, positive: Tensor, temperature: float, usable: Tensor | None = None
) -> tuple[float, float]:
    """Loss and accuracy, query by query and key by key."""
    losses, hits = [], []
    for i, query in enumerate(queries.double()):
        scores = {}
        for j, key in enumerate(keys.double()):
            if usable is None or usable[i, j] or positive[i, j]:
                scores[j] = float(query @ key / (query.norm() * key.norm())) / temperature
        alike = [j for j in scores if positive[i, j]]
        if alike:
            total = math.log(sum(math.exp(score) for score in scores.values()))
            losses.append(sum(total - scores[j] for j in alike) / len(alike))
            hits.append(max(scores, key=lambda j: scores[j]) in alike)
    return sum(losses) / len(losses), sum(hits) / len(hits)


def test_the_contrast_is_its_formula() -> None:
    queries, keys = vectors(5), vectors(7, 1)
    positive = torch.rand(5, 7, generator=torch.Generator().manual_seed(2)) < 0.3
    positive[2] = False
    usable = torch.rand(5, 7, generator=torch.Generator().manual_seed(3)) < 0.6
    for chosen in (None, usable):
        found = contrast(queries, keys, positive, 0.3, chosen)
        loss, accuracy = by_hand(queries, keys, positive, 0.3, chosen)
        assert found.loss.item() == pytest.approx(loss, rel=1e-5)
        assert found.accuracy.item() == pytest.approx(accuracy)


def test_without_positives_it_is_zero_and_has_a_gradient() -> None:
    queries = vectors(3).requires_grad_()
    found = contrast(queries, vectors(4, 1), torch.zeros(3, 4, dtype=torch.bool), 0.1)
    found.loss.backward()
    assert (found.loss.item(), found.accuracy.item()) == (0, 0)
    assert queries.grad is not None and not queries.grad.any()


def test_keys_that_are_not_usable_get_no_gradient() -> None:
    queries, keys = vectors(2).requires_grad_(), vectors(4, 1).requires_grad_()
    positive, usable = torch.eye(2, 4, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.bool)
    usable[:, :3] = True
    contrast(queries, keys, positive, 0.2, usable).loss.backward()
    assert keys.grad is not None and queries.grad is not None
    assert keys.grad[:3].abs().amin(1).gt(0).all() and not keys.grad[3].any()
    assert queries.grad.isfinite().all()


def test_similarities_are_not_rounded_under_autocast() -> None:
    queries, keys, positive = vectors(4), vectors(4, 1), torch.eye(4, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = contrast(queries, keys, positive, 0.1).loss
    assert torch.equal(rounded, contrast(queries, keys, positive, 0.1).loss)


def test_two_views_are_positives_of_each_other_alone() -> None:
    first, second = vectors(3), vectors(3, 1)
    both, positive = torch.cat([first, second]), torch.zeros(6, 6, dtype=torch.bool)
    for index in range(3):
        positive[index, index + 3] = positive[index + 3, index] = True
    others = ~torch.eye(6, dtype=torch.bool)
    assert two_views(first, second, 0.5).loss.item() == pytest.approx(
        by_hand(both, both, positive, 0.5, others)[0], rel=1e-5
    )


def test_of_two_views_some_images_may_be_no_negatives() -> None:
    first, second = vectors(3), vectors(3, 1)
    alone = two_views(first, second, 0.5, torch.eye(3, dtype=torch.bool))
    assert alone.loss.item() == pytest.approx(0, abs=1e-6) and alone.accuracy == 1


def test_spread_tells_collapse_from_random_directions() -> None:
    assert spread(vectors(1).expand(8, -1) * torch.arange(1, 9)[:, None]).item() == pytest.approx(0, abs=1e-3)
    assert spread(vectors(4000, width=16)).item() == pytest.approx(1, abs=0.02)
    pairs = torch.stack([spread(vectors(2, seed, 64)) for seed in range(200)])
    assert pairs.mean().item() == pytest.approx(1, abs=0.02), "the number of vectors changes nothing"
    assert spread(vectors(1)).isnan()


def test_vectors_that_are_nearly_alike_are_compared_in_full_precision_under_autocast() -> None:
    torch.manual_seed(0)
    first = 1 + 0.01 * torch.randn(8, 32)
    second = first + 0.001 * torch.randn(8, 32)
    plain = two_views(first, second, 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = two_views(first, second, 0.2)
    assert plain.accuracy == under_autocast.accuracy == 1
    assert torch.equal(plain.loss, under_autocast.loss)
