from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from selfcfg.engine.trainer import Batch, Parts
from selfcfg.engine.training.optimisation import Optimisation, seed_globals
from selfcfg.kernels.contrast import contrast
from selfcfg.nets.heads import Centre
from selfcfg.testing import MemoryBatches, small_plan
from selfcfg.trainers.contrastive import Contrastive
from selfcfg.trainers.momentum import MomentumSettings
from selfcfg.trainers.pretraining import UNLABELLED


def contrastive(dimensions: int = 2, batch_size: int = 2, **settings: object) -> Contrastive:
    plan = small_plan(dimensions)
    configuration = plan.configurations["small"].model_copy(update={"batch_size": batch_size})
    typed = MomentumSettings(**{"queue": 8, "width": 16, **settings})
    return Contrastive(typed, plan, configuration)


def drawn(trainer: Contrastive, number: int = 0) -> Batch:
    return next(MemoryBatches(trainer.needs, trainer.configuration, trainer.plan).training(number, number + 1))[
        UNLABELLED
    ]


def step(trainer: Contrastive, parts: Parts, batch: Batch) -> Tensor:
    (terms,) = trainer.losses(parts, {UNLABELLED: batch})
    with torch.no_grad():
        trainer.after_step(parts)
    return terms["contrast"]


def keys_of(parts: Parts, batch: Batch, centre: Centre) -> Tensor:
    """The keys of a batch; `centre` has seen the batches before it."""
    with torch.no_grad():
        keys = parts["slow_projection"](parts["slow_encoder"](batch.views[0]))
        centre.move(keys)
        return centre(keys)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_each_patch_is_compared_with_the_others_and_the_filled_queue(dimensions: int) -> None:
    trainer = contrastive(dimensions)
    parts, earlier, batch = trainer.build(), drawn(trainer), drawn(trainer, 1)
    centre = Centre(trainer.settings.width)
    old = keys_of(parts, earlier, centre)
    step(trainer, parts, earlier)
    keys = torch.cat([keys_of(parts, batch, centre), old])
    queries = centre(parts["projection"](parts["encoder"](batch.image)))
    expected = contrast(queries, keys, torch.eye(2, 4, dtype=torch.bool), trainer.settings.temperature).loss
    assert step(trainer, parts, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_after_a_step_the_copies_follow_and_the_queue_takes_the_keys() -> None:
    trainer = contrastive(follow=0.75)
    parts, batch = trainer.build(), drawn(trainer)
    keys = keys_of(parts, batch, Centre(trainer.settings.width))
    slow = {name: value.clone() for name, value in parts["slow_encoder"].named_parameters()}
    with torch.no_grad():
        for parameter in parts["encoder"].parameters():
            parameter.add_(1)
    step(trainer, parts, batch)
    for (name, ahead), behind in zip(
        parts["encoder"].named_parameters(), parts["slow_encoder"].parameters(), strict=True
    ):
        torch.testing.assert_close(behind, 0.75 * slow[name] + 0.25 * ahead)
    assert parts["queue"].filled.tolist() == [True] * 2 + [False] * 6
    torch.testing.assert_close(parts["queue"].vectors[:2], keys)


def test_accumulated_batches_all_go_into_the_queue() -> None:
    trainer = contrastive()
    parts = trainer.build()
    for number in (0, 1):
        list(trainer.losses(parts, {UNLABELLED: drawn(trainer, number)}))
    with torch.no_grad():
        trainer.after_step(parts)
    assert parts["queue"].filled.sum() == 4


def test_no_gradient_reaches_the_slow_copies() -> None:
    trainer = contrastive()
    parts = trainer.build()
    step(trainer, parts, drawn(trainer)).backward()
    assert all(
        parameter.grad is None for name in ("slow_encoder", "slow_projection") for parameter in parts[name].parameters()
    )
    assert all(
        parameter.grad is not None for name in ("encoder", "projection") for parameter in parts[name].parameters()
    )


def test_a_single_patch_has_negatives_once_the_queue_holds_some() -> None:
    trainer = contrastive(batch_size=1)
    parts = trainer.build()
    assert step(trainer, parts, drawn(trainer)).item() == 0
    assert step(trainer, parts, drawn(trainer, 1)).item() > 0
    assert trainer.scores(parts, drawn(trainer, 2))["spread"].isfinite()


def test_a_collapsed_network_is_seen() -> None:
    trainer = contrastive(batch_size=8)
    parts = trainer.build()
    assert trainer.scores(parts, drawn(trainer))["spread"] > 0.01
    with torch.no_grad():
        parts["slow_projection"].mlp[-1].weight.zero_()
    found = trainer.scores(parts, drawn(trainer))
    assert found["spread"] < 1e-3
    assert found["contrast accuracy"] == pytest.approx(1 / 8)


def test_it_learns_to_tell_images_apart() -> None:
    trainer = contrastive(batch_size=8, queue=32, follow=0.9)
    seed_globals(0, "build", 0)
    parts = trainer.build()
    generator = torch.Generator().manual_seed(0)
    optimisation = Optimisation(trainer.settings, parts)

    def pictures() -> Batch:
        coarse = torch.randn(8, 1, 4, 4, generator=generator)
        image = torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")
        first, second = (image + 0.1 * torch.randn(image.shape, generator=generator) for _ in range(2))
        return replace(drawn(trainer), image=first, views=(second,))

    unseen = pictures()
    losses = []
    for number in range(80):
        (terms,) = trainer.losses(parts, {UNLABELLED: pictures()})
        trainer.backward(terms, parts)
        optimisation.gradient_norm(number)
        optimisation.step(number)
        with torch.no_grad():
            trainer.after_step(parts)
        losses.append(terms["contrast"].item())
    assert sum(losses[-10:]) < 0.8 * sum(losses[10:20])
    found = trainer.scores(parts, unseen)
    assert found["contrast accuracy"] > 20 / (8 + 32), "far above chance"
    assert found["spread"] > 0.7
