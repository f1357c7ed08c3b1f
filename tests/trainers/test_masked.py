from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from selfcfg.engine.trainer import Batch, Parts
from selfcfg.engine.training.optimisation import Optimisation, seed_globals
from selfcfg.kernels.masking import hidden_blocks
from selfcfg.testing import MemoryBatches, small_plan
from selfcfg.trainers.masked import Masked, MaskedSettings
from selfcfg.trainers.pretraining import UNLABELLED

each = pytest.mark.parametrize("dimensions", [2, 3])


def masked(dimensions: int = 2, **settings: object) -> Masked:
    plan = small_plan(dimensions, n_channels=2)
    return Masked(MaskedSettings(**settings), plan, plan.configurations["small"])


def first_batch(trainer: Masked) -> Batch:
    return next(MemoryBatches(trainer.needs, trainer.configuration, trainer.plan).training(0, 1))[UNLABELLED]


def loss(trainer: Masked, parts: Parts, batch: Batch) -> Tensor:
    seed_globals(0, "step", 0)
    (terms,) = trainer.losses(parts, {UNLABELLED: batch})
    return terms["reconstruction"]


def blocks(trainer: Masked, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    settings = trainer.settings
    return hidden_blocks(image, settings.mask_block, settings.mask_ratio, generator).expand_as(image)


def hidden_in(trainer: Masked, batch: Batch) -> Tensor:
    seed_globals(0, "step", 0)
    return blocks(trainer, batch.image)


@each
def test_the_network_sees_nothing_of_what_is_hidden(dimensions: int) -> None:
    trainer = masked(dimensions)
    parts, batch = trainer.build(), first_batch(trainer)
    seen: list[Tensor] = []
    parts["encoder"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    hidden = hidden_in(trainer, batch)
    loss(trainer, parts, batch)
    loss(trainer, parts, replace(batch, image=batch.image + 7 * hidden))
    assert hidden.any() and not hidden.all()
    assert torch.equal(seen[0], seen[1]) and not seen[0][hidden].any()
    assert torch.equal(seen[0][~hidden], batch.image[~hidden])


@each
def test_the_loss_is_the_squared_error_of_the_hidden_voxels(dimensions: int) -> None:
    trainer = masked(dimensions)
    parts, batch = trainer.build(), first_batch(trainer)
    painted: list[Tensor] = []
    parts["reconstruction"].register_forward_hook(lambda _, __, output: painted.append(output.detach()))
    found = loss(trainer, parts, batch).item()
    hidden = hidden_in(trainer, batch)
    assert found == pytest.approx(((painted[0] - batch.image)[hidden] ** 2).mean().item(), rel=1e-5)


def test_explained_is_0_for_the_mean_and_1_for_the_image() -> None:
    trainer = masked()
    batch = first_batch(trainer)
    image = batch.image / batch.image.std()
    hidden = blocks(trainer, image, torch.Generator().manual_seed(0))
    echo = torch.nn.Identity()
    for painted, expected in ((image[hidden].mean().expand_as(image), 0), (image, 1)):
        parts = torch.nn.ModuleDict({"encoder": echo, "decoder": echo, "reconstruction": Paints(painted)})
        score = trainer.scores(parts, replace(batch, image=image))
        assert score["explained"].item() == pytest.approx(expected, abs=1e-5)


def test_a_patch_of_air_does_not_decide_the_score() -> None:
    trainer = masked()
    air = torch.zeros(2, 2, 16, 16)
    echo = torch.nn.Identity()
    parts = torch.nn.ModuleDict({"encoder": echo, "decoder": echo, "reconstruction": Paints(air + 0.05)})
    assert trainer.scores(parts, replace(first_batch(trainer), image=air))["explained"] > 0.5


class Paints(torch.nn.Module):
    """Always the same image."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image

    def forward(self, _: Tensor) -> Tensor:
        return self.image


@pytest.mark.parametrize("ratio", [0.01, 0.99])
def test_any_share_gives_a_finite_loss(ratio: float) -> None:
    trainer = masked(mask_ratio=ratio, mask_block=64)
    assert loss(trainer, trainer.build(), first_batch(trainer)).isfinite()


def test_it_learns_to_paint() -> None:
    trainer = masked(mask_block=4, learning_rate=1e-2)
    seed_globals(0, "build", 0)
    parts = trainer.build()
    ramp = torch.linspace(-1.7, 1.7, 16)
    images = torch.stack([ramp.expand(16, 16), -ramp.expand(16, 16), ramp.expand(16, 16).T, -ramp.expand(16, 16).T])
    batch = replace(first_batch(trainer), image=images[:, None].expand(4, 2, 16, 16))
    optimisation = Optimisation(trainer.settings, parts)
    before = trainer.scores(parts, batch)["explained"]
    for number in range(60):
        seed_globals(0, "step", number)
        (terms,) = trainer.losses(parts, {UNLABELLED: batch})
        trainer.backward(terms, parts)
        optimisation.gradient_norm(number)
        optimisation.step(number)
    assert trainer.scores(parts, batch)["explained"] > max(0.5, before + 0.5)
