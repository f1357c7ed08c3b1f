"""The statistics of vectors against numbers worked by hand, and what earlier vectors do to gradients."""

from __future__ import annotations

import pytest
import torch

from selfcfg.kernels.redundancy import among, covariance, too_little_variance, without_mean


def test_variance_counts_what_is_below_one() -> None:
    """Components with the variances 2 and 0: the first is enough, the second lacks 1 - sqrt(1e-4)."""
    vectors = torch.tensor([[1.0, 5.0], [-1.0, 5.0]])
    assert too_little_variance(vectors).item() == pytest.approx(0.99 / 2)
    assert too_little_variance(torch.zeros(4, 3)).item() == pytest.approx(0.99)


def test_covariance_is_the_mean_of_the_squares_off_the_diagonal() -> None:
    """Two components that are the same, with variance 2: twice 2^2, divided by two components."""
    same = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert covariance(same).item() == pytest.approx(4)
    apart = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    assert covariance(apart).item() == pytest.approx(0)


def test_one_vector_has_no_statistics() -> None:
    one = torch.ones(1, 3, requires_grad=True)
    assert too_little_variance(one).item() == 0 == covariance(one).item()


def test_without_mean_the_squares_are_the_variance() -> None:
    vectors = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)) + 7
    centred = without_mean(vectors)
    torch.testing.assert_close(centred.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(centred.square().mean(0), vectors.var(0))
    assert not without_mean(vectors[:1]).any()


def test_the_few_that_are_learnt_from_get_the_gradient_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    values = 0.1 * torch.randn(12, 4, generator=generator)
    everything = values.clone().requires_grad_()
    too_little_variance(everything).backward()
    few = values[:3].clone().requires_grad_()
    loss = too_little_variance(among(few, values[3:]))
    loss.backward()
    assert loss.item() == pytest.approx(too_little_variance(values).item())
    torch.testing.assert_close(few.grad, 4 * everything.grad[:3])
