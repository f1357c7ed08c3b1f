"""Image-level targets as a task: what its loss is exactly, and that a case without a value changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from selfcfg.engine.trainer import Batch, Datasets, Parts
from selfcfg.engine.training.optimisation import seed_globals
from selfcfg.errors import SelfcfgError, UsageError
from selfcfg.nets.image_head import image_head_of
from selfcfg.nets.unet import build_parts
from selfcfg.testing import MemoryBatches, small_plan
from selfcfg.trainers.multitask import Multitask, MultitaskSettings
from selfcfg.trainers.pretext.image_level import ImageLevelSettings, ImageLevelTask
from selfcfg.trainers.reference_guided import WITHOUT_LABELS

PLAN = small_plan(2)
SCALES = {"age": (50.0, 10.0)}
NAN = math.nan


def task_of(plan=PLAN) -> ImageLevelTask:
    configuration = plan.configurations["small"]
    return ImageLevelTask(ImageLevelSettings(hidden=8), plan, configuration, Datasets(scales=SCALES))


def parts_of(task: ImageLevelTask) -> Parts:
    seed_globals(0, "build", 0)
    parts = build_parts(task.configuration.topology, 1, 1)
    task.build(parts)
    with torch.no_grad():
        task.started(parts)
    return parts


def batch_of(values: list[list[float]]) -> Batch:
    """Patches with the values (kind, age)."""
    configuration = PLAN.configurations["small"].model_copy(update={"batch_size": len(values)})
    batch = MemoryBatches({}, configuration, PLAN).batch("training", 0, ImageLevelTask.need)
    return replace(batch, image=batch.image.requires_grad_(), image_targets=torch.tensor(values))


def outputs_of(parts: Parts, batch: Batch) -> Tensor:
    return image_head_of(parts)(parts["encoder"](batch.image))


def test_the_loss_is_the_mean_over_the_patches_that_have_a_value() -> None:
    task = task_of()
    parts, batch = parts_of(task), batch_of([[2, NAN], [NAN, 57.0], [0, 30.0], [NAN, NAN]])
    terms, outputs = task.losses(parts, batch), outputs_of(parts, batch)
    log_shares = outputs[:, :3].log_softmax(1)
    assert terms["kind"].item() == pytest.approx(-(log_shares[0, 2] + log_shares[2, 0]).item() / 2, rel=1e-5)
    errors = (outputs[[1, 2], 3] - torch.tensor([0.7, -2.0])).abs()
    smooth = torch.where(errors < 1, 0.5 * errors**2, errors - 0.5)
    assert terms["age"].item() == pytest.approx(smooth.mean().item(), rel=1e-5)


def test_a_patch_without_a_value_gets_no_gradient() -> None:
    task = task_of()
    parts, batch = parts_of(task), batch_of([[1, 40.0], [NAN, NAN], [NAN, 60.0]])
    sum(task.losses(parts, batch).values()).backward()
    reached = batch.image.grad.abs().sum((1, 2, 3))
    assert reached[1] == 0 and reached[0] > 0 and reached[2] > 0


def test_without_any_value_the_loss_is_zero_and_all_gradients_are() -> None:
    task = task_of()
    parts, batch = parts_of(task), batch_of([[NAN, NAN], [NAN, NAN]])
    terms = task.losses(parts, batch)
    assert [term.item() for term in terms.values()] == [0, 0]
    sum(terms.values()).backward()
    assert all((one.grad == 0).all() for one in image_head_of(parts).parameters())
    assert task.scores(parts, batch) == {}


def test_scores_are_accuracy_explained_variance_and_the_error_in_the_unit() -> None:
    task = task_of()
    parts, batch = parts_of(task).eval(), batch_of([[2, NAN], [NAN, 57.0], [0, 30.0]])
    scores, outputs = task.scores(parts, batch), outputs_of(parts, batch)
    right = outputs[[0, 2], :3].argmax(1) == torch.tensor([2, 0])
    errors = outputs[1:, 3] - torch.tensor([0.7, -2.0])
    assert list(scores) == ["kind accuracy", "age explained", "age error in years"]
    assert scores["kind accuracy"] == right.float().mean()
    assert scores["age explained"].item() == pytest.approx(1 - errors.square().mean().item(), rel=1e-5)
    assert scores["age error in years"].item() == pytest.approx(10 * errors.abs().mean().item(), rel=1e-5)


def test_the_scale_of_numbers_is_saved_with_the_weights() -> None:
    head = image_head_of(parts_of(task_of()))
    assert head.state_dict()["centre"].tolist() == [0, 50] and head.state_dict()["spread"].tolist() == [1, 10]
    assert head.in_units(torch.tensor([[0.1, 0.2, 0.3, 1.5]])).tolist()[0] == pytest.approx([0.1, 0.2, 0.3, 65])


def test_joint_training_hands_its_head_on_and_a_pretraining_does_not() -> None:
    joint, alone = MultitaskSettings(tasks=("image_level",)), MultitaskSettings(tasks=("image_level",), mode="pretrain")
    assert Multitask.exports_for(joint) == ("encoder", "decoder", "head", "image_level")
    assert Multitask.exports_for(alone) == ("encoder",)
    made = Multitask(joint, PLAN, PLAN.configurations["small"])
    assert "image_level" in made.handed_on(made.build())


def test_its_values_count_as_labels() -> None:
    alone = MultitaskSettings(tasks=("image_level",), mode="pretrain")
    assert Multitask.labelled(alone) == ["image_level"] and Multitask.unlabelled(alone) == []
    assert "image_level" not in WITHOUT_LABELS, "it cannot be the task without labels of reference_guided"


def test_a_plan_without_targets_is_told_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"no image-level targets; add image_targets to dataset\.json, plan again"):
        task_of(PLAN.model_copy(update={"image_targets": {}}))


def test_values_that_were_not_asked_for_cannot_be_read() -> None:
    with pytest.raises(SelfcfgError, match=r"declare Need\(image_targets=True\)"):
        replace(batch_of([[0, 1.0]]), image_targets=None).image_values()
