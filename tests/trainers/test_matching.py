"""Every way of bringing two gradients together, against gradients derived by hand for quadratic losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from selfcfg.errors import SelfcfgError
from selfcfg.trainers.matching import (
    MISMATCH,
    Alignment,
    Matching,
    MatchingSettings,
    Schedule,
    matched,
    refuse_second_order,
    total,
)

RATE, BETA, WEIGHTS = 0.3, 0.7, {"first": 2.0, "second": 0.5}


class Encoder(nn.Module):
    """Two stages, each a matrix and a bias, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Linear(3, 4), nn.Linear(3, 4)]).double()


class Quadratic(NamedTuple):
    """1/2 tr((W - C)^T H (W - C)) for each matrix W, and 1/2 |b|^2 for each bias; the gradient is H (W - C), or b."""

    name: str
    hessian: Tensor
    centre: Tensor

    @classmethod
    def drawn(cls, name: str, seed: int) -> Quadratic:
        drawn = torch.Generator().manual_seed(seed)
        root, centre = (torch.randn(4, n, generator=drawn, dtype=torch.float64) for n in (4, 3))
        return cls(name, root @ root.T + torch.eye(4, dtype=torch.float64), centre)

    def __call__(self, encoder: Encoder) -> dict[str, Tensor]:
        found = []
        for stage in encoder.stages:
            apart = stage.weight - self.centre
            found += [(apart * (self.hessian @ apart)).sum() / 2, stage.bias.square().sum() / 2]
        return {self.name: torch.stack(found).sum()}

    def gradient(self, matrix: Tensor) -> Tensor:
        """Of the weighted loss."""
        return WEIGHTS[self.name] * self.hessian @ (matrix - self.centre)

    def curved(self, direction: Tensor) -> Tensor:
        """The weighted loss's matrix of second derivatives times a direction."""
        return WEIGHTS[self.name] * self.hessian @ direction


FIRST, SECOND = Quadratic.drawn("first", 1), Quadratic.drawn("second", 2)


def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder()


def matching(how: str, clip_norm: float | None = None, n_steps: int = 100, **settings: Any) -> Matching:
    given = {"inner_rate": RATE, "matching_weight": BETA, "matching_stages": None, "matching_warmup": 0, **settings}
    return Matching(MatchingSettings(matching=how, **given), Schedule(n_steps, clip_norm))


def backpropagate(made: Matching, parts: Encoder, *, keep: bool = False) -> list[str]:
    """One batch as the loop treats it; gives the names of the terms."""
    if not keep:
        parts.zero_grad()
    names = []
    tasks = [lambda: FIRST(parts), lambda: SECOND(parts)]
    for terms in made.groups(tasks, WEIGHTS, parts):
        torch.autograd.backward(total(terms, {**WEIGHTS, MISMATCH: made.weight()}))
        names += list(terms)
    return names


def plain(matrix: Tensor) -> Tensor:
    return FIRST.gradient(matrix) + SECOND.gradient(matrix)


def of_cosine(matrix: Tensor) -> Tensor:
    """With u = g/|g|, v = h/|h|, c = u.v: the gradient of 1 - c is -G (v - c u)/|g| - H (u - c v)/|h|."""
    g, h = FIRST.gradient(matrix), SECOND.gradient(matrix)
    u, v = g / g.norm(), h / h.norm()
    c = (u * v).sum()
    return -FIRST.curved((v - c * u) / g.norm()) - SECOND.curved((u - c * v) / h.norm())


def of_l2(matrix: Tensor) -> Tensor:
    """The gradient of |g - h|^2 is 2 (G - H) (g - h)."""
    apart = FIRST.gradient(matrix) - SECOND.gradient(matrix)
    return 2 * (FIRST.curved(apart) - SECOND.curved(apart))


def test_the_sum_is_both_gradients() -> None:
    made, parts = matching("sum"), encoder()
    assert backpropagate(made, parts) == ["first", "second"]
    for stage in parts.stages:
        torch.testing.assert_close(stage.weight.grad, plain(stage.weight))


@pytest.mark.parametrize(("how", "extra", "n_tensors"), [("cosine", of_cosine, 2), ("l2", of_l2, 1)])
def test_a_distance_of_gradients_adds_its_own(how: str, extra: Callable[[Tensor], Tensor], n_tensors: int) -> None:
    """The cosine is averaged over both matrices; biases have the gradient of the losses alone."""
    made, parts = matching(how), encoder()
    assert backpropagate(made, parts) == ["first", "second", MISMATCH]
    for stage in parts.stages:
        expected = plain(stage.weight) + BETA * extra(stage.weight) / n_tensors
        torch.testing.assert_close(stage.weight.grad, expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(stage.bias.grad, stage.bias * sum(WEIGHTS.values()))


def test_only_the_last_stages_are_matched_where_asked() -> None:
    made, parts = matching("cosine", matching_stages=1), encoder()
    backpropagate(made, parts)
    first, last = parts.stages
    torch.testing.assert_close(first.weight.grad, plain(first.weight))
    torch.testing.assert_close(last.weight.grad, plain(last.weight) + BETA * of_cosine(last.weight))
    assert [one.shape for one in matched(parts)] == [(4, 3), (4, 3)] and matched(parts, 9) == matched(parts)


def test_the_mismatch_is_one_minus_the_mean_cosine() -> None:
    parts = encoder()
    (terms,) = matching("cosine").groups([lambda: FIRST(parts), lambda: SECOND(parts)], WEIGHTS, parts)
    cosines = [
        torch.cosine_similarity(FIRST.gradient(one.weight).flatten(), SECOND.gradient(one.weight).flatten(), dim=0)
        for one in parts.stages
    ]
    torch.testing.assert_close(terms[MISMATCH], 1 - sum(cosines) / 2)


def fish(first: Quadratic, second: Quadratic, matrix: Tensor) -> Tensor:
    """How far two steps of gradient descent lead, one a task, in parts of the rate."""
    between = matrix - RATE * first.gradient(matrix)
    end = between - RATE * second.gradient(between)
    return (matrix - end) / RATE


def test_fish_is_how_far_inner_steps_lead() -> None:
    made, parts = matching("fish"), encoder()
    start = {name: tensor.clone() for name, tensor in parts.state_dict().items()}
    seen = []
    for seed in range(8):
        torch.manual_seed(seed)
        names = backpropagate(made, parts)
        tasks = (FIRST, SECOND) if names[0] == "first" else (SECOND, FIRST)
        for stage in parts.stages:
            torch.testing.assert_close(stage.weight.grad, fish(*tasks, stage.weight), rtol=1e-10, atol=1e-12)
        seen.append(names[0])
    assert set(seen) == {"first", "second"}, "the order is drawn"
    for name, tensor in parts.state_dict().items():
        assert torch.equal(tensor, start[name]), "the weights are where they were"


def test_over_both_orders_fish_rises_the_inner_product() -> None:
    """Of quadratic losses exactly: the mean is g + h - rate/2 (G h + H g), and G h + H g the gradient of <g, h>."""
    matrix = encoder().stages[0].weight.detach()
    mean = (fish(FIRST, SECOND, matrix) + fish(SECOND, FIRST, matrix)) / 2
    point = matrix.clone().requires_grad_()
    (rise,) = torch.autograd.grad((FIRST.gradient(point) * SECOND.gradient(point)).sum(), point)
    torch.testing.assert_close(mean, plain(matrix) - RATE / 2 * rise)


def test_the_inner_step_of_fish_is_clipped_like_the_outer() -> None:
    made, parts, limit = matching("fish", clip_norm=0.01), encoder(), 0.01
    start = {id(one): one.detach().clone() for one in parts.parameters()}
    groups = made.groups([lambda: FIRST(parts), lambda: SECOND(parts)], WEIGHTS, parts)
    torch.autograd.backward(total(next(groups), WEIGHTS))
    next(groups)
    moved = torch.cat([(one - start[id(one)]).flatten() for one in parts.parameters()])
    assert moved.norm().item() == pytest.approx(RATE * limit)
    groups.close()
    assert all(torch.equal(one, start[id(one)]) for one in parts.parameters()), "also when it is left halfway"


def test_conflicts_are_taken_off() -> None:
    made, parts = matching("pcgrad"), encoder()
    with torch.no_grad():
        for stage in parts.stages:  # between both centres the gradients point apart
            stage.weight.copy_((FIRST.centre + SECOND.centre) / 2)
    backpropagate(made, parts)
    g, h = (
        torch.cat(
            [
                part
                for stage in parts.stages
                for part in (one.gradient(stage.weight).flatten(), stage.bias * WEIGHTS[one.name])
            ]
        )
        for one in (FIRST, SECOND)
    )
    assert g @ h < 0
    expected = g - (g @ h) / (h @ h) * h + h - (g @ h) / (g @ g) * g
    found = torch.cat([part.flatten() for stage in parts.stages for part in (stage.weight.grad, stage.bias.grad)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("how", ["sum", "fish", "cosine", "l2", "pcgrad"])
def test_gradients_of_several_batches_add_up(how: str) -> None:
    made, parts = matching(how), encoder()
    torch.manual_seed(3)
    backpropagate(made, parts)
    once = [one.grad.clone() for one in parts.parameters()]
    torch.manual_seed(3)
    backpropagate(made, parts, keep=True)
    for one, before in zip(parts.parameters(), once, strict=True):
        torch.testing.assert_close(one.grad, 2 * before)


def test_the_weight_of_the_mismatch_waits_and_then_rises() -> None:
    made, found = matching("cosine", n_steps=20, matching_warmup=0.2), []
    for _ in range(20):
        found.append(made.weight())
        made.count_step()
    assert found[:4] == [0] * 4
    assert found[4:8] == pytest.approx([BETA / 4, BETA / 2, BETA * 3 / 4, BETA])
    assert found[8:] == [BETA] * 12


def test_steps_that_do_not_match_add_nothing() -> None:
    made, parts = matching("cosine", matching_every=3), encoder()
    for step in range(6):
        names = backpropagate(made, parts)
        assert names[-1] == MISMATCH
        is_plain = torch.allclose(parts.stages[0].weight.grad, plain(parts.stages[0].weight))
        assert is_plain == (step % 3 != 0)
        made.count_step()


def test_gradients_that_vanish_have_no_direction() -> None:
    parts = encoder()
    with torch.no_grad():
        parts.stages[0].weight.copy_(FIRST.centre)
    backpropagate(matching("cosine"), parts)
    first, last = parts.stages
    torch.testing.assert_close(first.weight.grad, plain(first.weight))
    torch.testing.assert_close(last.weight.grad, plain(last.weight) + BETA * of_cosine(last.weight))


def test_agreement_is_of_the_mean_gradients() -> None:
    parts = encoder()
    found, scales = Alignment(parts, ("one", "other")), (1.0, 3.0)
    assert found.scores() == {}
    for scale in scales:
        found.add(scale * FIRST(parts)["first"], SECOND(parts)["second"])
    g, h = ([one.hessian @ (stage.weight - one.centre) for stage in parts.stages] for one in (FIRST, SECOND))
    scores = found.scores()
    whole = torch.cosine_similarity(torch.cat(g).flatten(), torch.cat(h).flatten(), dim=0)
    assert scores["gradient cosine"] == pytest.approx(whole.item())
    last = torch.cosine_similarity(g[1].flatten(), h[1].flatten(), dim=0)
    assert scores["gradient cosine last stage"] == pytest.approx(last.item())
    assert scores["gradient norm one"] == pytest.approx(2 * torch.cat(g).norm().item())
    assert scores["gradient norm other"] == pytest.approx(torch.cat(h).norm().item())
    assert all(one.grad is None for one in parts.parameters())


@pytest.mark.slow
def test_a_compiled_network_has_no_second_derivatives() -> None:
    with pytest.raises(SelfcfgError, match="the network is compiled"):
        refuse_second_order(torch.compile(encoder()))
