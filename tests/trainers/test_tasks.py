"""What each auxiliary task asks of a network, and whether it can be learnt."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from selfcfg.engine.trainer import Batch, Parts, Settings
from selfcfg.engine.training.optimisation import Optimisation, seed_globals
from selfcfg.errors import UsageError
from selfcfg.kernels.distance import signed_distance
from selfcfg.labels import LabelSchema
from selfcfg.nets.unet import build_parts
from selfcfg.plan import Plan
from selfcfg.registry import load, registered
from selfcfg.testing import MemoryBatches, small_plan
from selfcfg.trainers.pretext.distance_map import DistanceMap, DistanceMapSettings
from selfcfg.trainers.pretext.rubik import Rubik, RubikSettings
from selfcfg.trainers.pretext.task import Task
from selfcfg.trainers.pretext.vicreg import Vicreg, VicregSettings

each = pytest.mark.parametrize("dimensions", [2, 3])
every_task = pytest.mark.parametrize("name", registered("tasks"))

REGIONS = LabelSchema(labels={"background": 0, "whole": (1, 2), "core": 2, "ignore": 3}, regions_class_order=(1, 2))


def made(name: str, plan: Plan, **settings: object) -> Task[Any]:
    kind = load("tasks", name)
    return kind(kind.settings_type(**settings), plan, plan.configurations["small"])


def parts_of(task: Task[Any]) -> Parts:
    seed_globals(0, "build", 0)
    parts = build_parts(task.configuration.topology, task.n_inputs, 1)
    task.build(parts)
    return parts


def batch_of(task: Task[Any], number: int = 0) -> Batch:
    return MemoryBatches({}, task.configuration, task.plan).batch("training", number, task.need)


@every_task
@each
def test_a_task_touches_nothing_but_what_it_says(name: str, dimensions: int) -> None:
    task = made(name, small_plan(dimensions, n_channels=2))
    parts = parts_of(task)
    assert tuple(task.losses(parts, batch_of(task))) == task.term_names()
    torch.stack(list(task.losses(parts, batch_of(task)).values())).sum().backward()
    reached = {part for part in parts if any(one.grad is not None for one in parts[part].parameters())}
    assert "head" not in reached and ("decoder" in reached) == task.trains_decoder


@every_task
def test_scores_are_always_drawn_alike(name: str) -> None:
    task = made(name, small_plan(2))
    parts = parts_of(task).eval()
    with torch.no_grad():
        first, second = (task.scores(parts, batch_of(task)) for _ in range(2))
    assert first and first == second


@every_task
def test_a_batch_of_one_patch_is_finite(name: str) -> None:
    plan = small_plan(2)
    single = plan.configurations["small"].model_copy(update={"batch_size": 1})
    task = made(name, plan.model_copy(update={"configurations": {"small": single}}))
    assert all(term.isfinite() for term in task.losses(parts_of(task), batch_of(task)).values())


def learnt(task: Task[Any], batches: Callable[[int], Batch], steps: int) -> list[float]:
    """The weighted loss of each step."""
    parts = parts_of(task)
    optimisation = Optimisation(Settings(optimizer="adamw", learning_rate=3e-3), parts)
    losses = []
    for number in range(steps):
        seed_globals(0, "step", number)
        terms = task.losses(parts, batches(number))
        loss = torch.stack([task.weights().get(name, 1.0) * term for name, term in terms.items()]).sum()
        loss.backward()
        optimisation.gradient_norm(number)
        optimisation.step(number)
        with torch.no_grad():
            task.after_step(parts)
        losses.append(loss.item())
    return losses


def pictures(task: Task[Any]) -> Callable[[int], Batch]:
    """Smooth images that all have much in common, in two noisy views."""
    common = smooth(1, torch.Generator().manual_seed(99))

    def batch(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        image = 2 * common + smooth(8, generator)
        noisy = [image + 0.1 * torch.randn(image.shape, generator=generator) for _ in range(2)]
        label = (image > 1).to(torch.int16)
        return replace(batch_of(task), image=noisy[0], views=(noisy[1],), target=label)

    return batch


def smooth(count: int, generator: torch.Generator) -> Tensor:
    coarse = torch.randn(count, 1, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")


@pytest.mark.parametrize(
    ("name", "share", "settings"),
    [
        ("distance_map", 0.6, {}),
        ("restoration", 0.8, {}),
        ("vicreg", 0.8, {"width": 16, "hidden": 32, "earlier": 32}),
        ("rubik", 0.85, {}),
    ],
)
def test_a_task_can_be_learnt(name: str, share: float, settings: dict[str, int]) -> None:
    task = made(name, small_plan(2), **settings)
    losses = learnt(task, pictures(task), 90)
    assert sum(losses[-10:]) < share * sum(losses[:10])


@each
def test_distance_maps_are_in_mm_of_the_plan(dimensions: int) -> None:
    plan = small_plan(dimensions)
    spacing = (3.0, *plan.configurations["small"].spacing[1:])
    coarse = plan.configurations["small"].model_copy(update={"spacing": spacing})
    plan = plan.model_copy(update={"configurations": {"small": coarse}})
    for unit, steps in (("mm", spacing), ("voxels", (1.0,) * dimensions)):
        task = made("distance_map", plan, unit=unit, limit=5.0)
        assert isinstance(task, DistanceMap)
        target = batch_of(task).labels()
        found = task.targets(target)
        for channel, value in enumerate((1, 2)):
            expected = signed_distance(target == value, steps, 5.0).values
            assert torch.equal(found.values[:, channel : channel + 1], expected)


def test_regions_have_maps_of_their_own_and_unknown_voxels_none() -> None:
    task = DistanceMap(DistanceMapSettings(), small_plan(2, REGIONS), small_plan(2, REGIONS).configurations["small"])
    labels = torch.zeros(2, 1, 16, 16, dtype=torch.int16)
    labels[..., 4:12, 4:12], labels[..., 6:9, 6:9], labels[..., 15, :] = 1, 2, 3
    maps = task.targets(labels)
    inside = maps.values < 0
    assert torch.equal(inside[:, :1], (labels == 1) | (labels == 2)) and torch.equal(inside[:, 1:], labels == 2)
    assert not maps.known[..., 15, :].any()
    batch = replace(batch_of(task), target=labels)
    parts = parts_of(task)
    seen = task.losses(parts, batch)["distance"]
    everything = replace(batch, target=torch.full_like(labels, 3))
    assert seen > 0 and task.losses(parts, everything)["distance"] == 0
    assert task.scores(parts, everything) == {}


def test_the_loss_of_distances_is_the_squared_error_in_parts_of_the_limit() -> None:
    task = made("distance_map", small_plan(2), limit=4.0)
    assert isinstance(task, DistanceMap)
    batch, parts = batch_of(task), parts_of(task)
    painted = torch.tanh(parts["distances"](parts["decoder"](parts["encoder"](batch.image))))
    expected = (painted - task.targets(batch.labels()).values / 4).square().mean()
    assert task.losses(parts, batch)["distance"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_puzzle_needs_tiles_of_some_size() -> None:
    plan = small_plan(2)
    flat = plan.configurations["small"].resized(batch_size=None, patch_size=(16, 16))
    with pytest.raises(UsageError, match="would be thinner than 4"):
        Rubik(RubikSettings(pieces=4), plan, flat.model_copy(update={"patch_size": (8, 8)}))


def test_an_untrained_network_does_not_solve_puzzles() -> None:
    task = made("rubik", small_plan(2))
    terms = task.losses(parts_of(task), batch_of(task))
    assert terms["order"].item() == pytest.approx(math.log(24), abs=0.7)
    assert terms["flips"].item() == pytest.approx(math.log(2), abs=0.3)


def test_vectors_of_earlier_patches_widen_the_statistics() -> None:
    task = Vicreg(VicregSettings(earlier=6), small_plan(2), small_plan(2).configurations["small"])
    parts = parts_of(task)
    for number in range(2):
        task.losses(parts, batch_of(task, number))
        with torch.no_grad():
            task.after_step(parts)
    assert parts["queue"].filled.all(), "of four vectors a step the last six are kept"
    lone, together = _variances(task, parts)
    assert not torch.isclose(lone, together)


def _variances(task: Vicreg, parts: Parts) -> tuple[Tensor, Tensor]:
    """The variance term without and with the vectors of earlier patches."""
    together = task.losses(parts.eval(), batch_of(task, 2))["variance"]
    parts["queue"].filled.fill_(False)
    return task.losses(parts, batch_of(task, 2))["variance"], together
