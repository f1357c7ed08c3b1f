"""The student's loss: its terms, their weights, resolutions, voxels without a label, images without labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from selfcfg.engine.augmentation.transforms import AugmentDraw, PatchSpace, View, apply
from selfcfg.engine.augmentation.with_batchgenerators import apply_with_batchgenerators
from selfcfg.engine.trainer import Batch, Parts
from selfcfg.errors import SelfcfgError
from selfcfg.kernels.distillation import shrink_soft, teacher_loss
from selfcfg.labels import LabelSchema
from selfcfg.testing import LABELS, MemoryBatches, check_trainer, small_plan
from selfcfg.trainers.distillation import Distillation, DistillationSettings
from selfcfg.trainers.supervised import Supervised

REGIONS = LabelSchema(labels={"background": 0, "whole": (1, 2), "core": 2, "ignore": 3}, regions_class_order=(1, 2))
IGNORE = LabelSchema(labels={"background": 0, "a": 1, "b": 2, "ignore": 3})
SCHEMAS = {"labels": LABELS, "regions with ignore": REGIONS, "labels with ignore": IGNORE}
every_schema = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)


def distillation(schema: LabelSchema = LABELS, dimensions: int = 2, **settings: object) -> Distillation:
    plan = small_plan(dimensions, schema)
    return Distillation(DistillationSettings(**settings), plan, plan.configurations["small"])


def built(trainer: Distillation) -> tuple[Parts, dict[str, Batch]]:
    torch.manual_seed(0)
    made = MemoryBatches(trainer.needs, trainer.configuration, trainer.plan)
    return trainer.build(), next(made.training(0, 1))


def gradient(trainer: Distillation, terms: dict[str, Tensor], parts: Parts) -> Tensor:
    parts.zero_grad()
    trainer.backward(terms, parts)
    return parts["encoder"].stages[0][0].convs[0].conv.weight.grad.clone()


@every_schema
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_student_that_is_its_teacher_learns_from_labels_alone(schema: LabelSchema, dimensions: int) -> None:
    trainer = distillation(schema, dimensions, deep_supervision=False, temperature=2.0)
    parts, batches = built(trainer)
    batch = batches["labelled"]
    with torch.no_grad():
        logits = trainer.supervised.outputs(parts, batch.image)[0] / 2
    soft = logits.sigmoid() if schema.has_regions else logits.softmax(1)[:, 1:]
    (terms,) = trainer.losses(parts, {"labelled": replace(batch, soft=soft)})
    alone = gradient(trainer, {"teachers": terms["teachers"]}, parts)
    (terms,) = trainer.losses(parts, {"labelled": batch})
    taught_otherwise = gradient(trainer, {"teachers": terms["teachers"]}, parts)
    assert alone.abs().max() < 1e-5 * taught_otherwise.abs().max()


def test_balance_shares_the_loss_between_labels_and_teachers() -> None:
    found = []
    for balance in (0.25, 1.0):
        trainer = distillation(balance=balance)
        parts, batches = built(trainer)
        terms, _ = trainer.losses(parts, batches)
        found.append(gradient(trainer, terms, parts))
    supervised = Supervised(trainer.settings, trainer.plan, trainer.configuration)
    terms, *_ = supervised.losses(parts, batches)
    parts.zero_grad()
    supervised.backward(terms, parts)
    labels = parts["encoder"].stages[0][0].convs[0].conv.weight.grad
    torch.testing.assert_close(found[0], 0.75 * labels + 0.25 * found[1], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="balance is 0"):
        DistillationSettings(balance=0)


@every_schema
def test_each_resolution_is_compared_with_the_mean_of_what_it_covers(schema: LabelSchema) -> None:
    trainer = distillation(schema, divergence="kl")
    _, batches = built(trainer)
    batch = batches["labelled"]
    outputs = [torch.randn(2, schema.n_outputs, side, side) for side in (16, 8)]
    trainer.supervised.resolution_weights = lambda: (2 / 3, 1 / 3)
    found = trainer.teachers_term(outputs, batch.soft_target())
    soft, kind = batch.soft_target(), {"exclusive": not schema.has_regions}
    by_hand = 2 / 3 * teacher_loss(outputs[0], soft, "kl", 1.0, **kind)
    by_hand += 1 / 3 * teacher_loss(outputs[1], shrink_soft(soft, (8, 8)), "kl", 1.0, **kind)
    assert found.item() == pytest.approx(by_hand.item())


@pytest.mark.parametrize("schema", [REGIONS, IGNORE], ids=["regions", "labels"])
def test_teachers_speak_of_voxels_without_a_label_unless_told_otherwise(schema: LabelSchema) -> None:
    values = {}
    for teach in (True, False):
        trainer = distillation(schema, teach_ignored=teach)
        parts, batches = built(trainer)
        batch = batches["labelled"]
        changed = batch.soft_target().where(batch.labels() != 3, 0.25)
        for name, soft in (("as it is", batch.soft_target()), ("changed", changed)):
            terms, *_ = trainer.losses(parts, {"labelled": replace(batch, soft=soft)})
            values[teach, name] = terms["teachers"].item()
    assert values[True, "as it is"] != values[True, "changed"]
    assert values[False, "as it is"] == values[False, "changed"]


def test_images_without_labels_have_the_teachers_term_alone() -> None:
    trainer = distillation()
    parts, batches = built(trainer)
    assert batches["unlabelled"].target is None
    groups = list(trainer.losses(parts, batches))
    assert [list(group) for group in groups] == [["dice", "cross_entropy", "teachers"], ["teachers without labels"]]
    assert len(list(trainer.losses(parts, {"labelled": batches["labelled"]}))) == 1


def test_without_soft_targets_it_says_what_is_missing() -> None:
    trainer = distillation()
    parts, batches = built(trainer)
    with pytest.raises(SelfcfgError, match="soft targets"):
        list(trainer.losses(parts, {"labelled": replace(batches["labelled"], soft=None)}))


@pytest.mark.parametrize("settings", [{"divergence": "l2", "temperature": 3.0}, {"divergence": "dice", "balance": 1.0}])
def test_the_contract_holds_with_other_settings(settings: dict[str, object]) -> None:
    check_trainer(Distillation, **settings)


@pytest.mark.parametrize("patch", [(12, 16), (10, 12, 14), (3, 14, 16)])
@pytest.mark.parametrize("execute", [apply, apply_with_batchgenerators])
def test_soft_targets_move_with_the_image_and_keep_their_values(patch: tuple[int, ...], execute: object) -> None:
    space = PatchSpace(patch, (False,), tuple(range(len(patch))))
    angles = (0.3,) if len(space.moved_size) == 2 else (0.3, -0.2, 0.1)
    moved = AugmentDraw(angles=angles, scale=1.1, mirror=(0,))
    changed = replace(moved, noise=(0.1, 5), brightness=(1.2,), contrast=(0.8,), gamma=(1.3,))
    box = [stop - start for start, stop in moved.source_box(space)]
    image, noise = torch.randn(1, *box), torch.randn(1, *patch)
    plain, _ = execute(View(image.clone(), None, None, moved), space)
    both, _ = execute(View(torch.cat([image, image, 2 * image]), None, noise, changed), space)
    torch.testing.assert_close(both[1:2], plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both[2:], 2 * plain, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[:1], plain, atol=0.05)
