from __future__ import annotations

import math

import pytest
import torch

from selfcfg.engine.device import autocast, place
from selfcfg.engine.training.optimisation import Optimisation, seed_globals
from selfcfg.kernels.losses import deeply_supervised, label_loss, region_loss
from selfcfg.labels import LabelSchema
from selfcfg.testing import LABELS, MemoryBatches, small_plan
from selfcfg.trainers.supervised import Supervised, SupervisedSettings

REGIONS = LabelSchema(labels={"background": 0, "whole": (1, 2), "core": 2, "ignore": 3}, regions_class_order=(1, 2))
IGNORE = LabelSchema(labels={"background": 0, "b": 2, "a": 1, "ignore": 3})
SCHEMAS = {"labels": LABELS, "regions with ignore": REGIONS, "labels with ignore": IGNORE}
every_schema = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)


def supervised(schema: LabelSchema = LABELS, dimensions: int = 2, **settings: object) -> Supervised:
    plan = small_plan(dimensions, schema)
    return Supervised(SupervisedSettings(**settings), plan, plan.configurations["small"])


def batches(trainer: Supervised, validation_iterations: int = 1) -> MemoryBatches:
    return MemoryBatches(trainer.needs, trainer.configuration, trainer.plan, validation_iterations)


@every_schema
def test_the_terms_are_those_of_the_kernels(schema: LabelSchema) -> None:
    trainer = supervised(schema, deep_supervision=False)
    parts, streams = trainer.build(), next(batches(trainer).training(0, 1))
    (terms,) = trainer.losses(parts, streams)
    batch = streams["labelled"]
    logits = parts["head"](parts["decoder"](parts["encoder"](batch.image)))[0]
    if schema.has_regions:
        expected = region_loss(logits, batch.labels(), [(1, 2), (2,)], batch_dice=False, ignore=3)
    else:
        expected = label_loss(logits, batch.labels(), batch_dice=False, ignore=schema.ignore)
    assert list(terms) == ["dice", "cross_entropy"]
    assert [term.item() for term in terms.values()] == [term.item() for term in expected]


def test_deep_supervision_reaches_all_resolutions_but_the_lowest() -> None:
    trainer = supervised()
    trainer.configuration = trainer.configuration.model_copy(
        update={
            "topology": trainer.configuration.topology.model_copy(
                update={
                    "features": (4, 4, 4, 4),
                    "kernel_sizes": ((3, 3),) * 4,
                    "strides": ((1, 1), *((2, 2),) * 3),
                    "encoder_blocks": (1,) * 4,
                    "decoder_blocks": (1,) * 3,
                }
            )
        }
    )
    parts, streams = trainer.build(), next(batches(trainer).training(0, 1))
    (terms,) = trainer.losses(parts, streams)
    batch = streams["labelled"]
    outputs = parts["head"](parts["decoder"](parts["encoder"](batch.image)))
    expected = deeply_supervised(
        lambda a, b: label_loss(a, b, batch_dice=False), outputs, batch.labels(), (2 / 3, 1 / 3, 0)
    )
    assert terms["dice"].item() == pytest.approx(expected.dice.item())
    assert [head.weight.requires_grad for head in parts["head"].seg_layers] == [False, True, True]


def test_settings_weigh_the_terms() -> None:
    gradients = []
    for settings in ({"dice_weight": 2.0}, {"cross_entropy_weight": 0.0}, {"dice_weight": 0.0}):
        trainer = supervised(**settings)
        torch.manual_seed(0)
        parts = trainer.build()
        (terms,) = trainer.losses(parts, next(batches(trainer).training(0, 1)))
        trainer.backward(terms, parts)
        gradients.append(parts["encoder"].stages[0][0].convs[0].conv.weight.grad)
    torch.testing.assert_close(gradients[0], 2 * gradients[1] + gradients[2])
    with pytest.raises(ValueError, match="both 0"):
        SupervisedSettings(dice_weight=0, cross_entropy_weight=0)


def test_the_head_starts_out_expecting_little_foreground() -> None:
    for schema in SCHEMAS.values():
        first = supervised(schema).build()["head"].seg_layers[-1].bias
        none = supervised(schema, foreground_prior=None).build()["head"].seg_layers[-1].bias
        assert first[-1] < -3
        assert not none.any()


def test_batch_dice_is_the_plans_unless_said_otherwise() -> None:
    values = {}
    for chosen in (None, False, True):
        trainer = supervised(batch_dice=chosen)
        torch.manual_seed(0)
        (terms,) = trainer.losses(trainer.build(), next(batches(trainer).training(0, 1)))
        values[chosen] = terms["dice"].item()
    assert values[None] == values[False] != values[True]


@every_schema
def test_validation_scores_add_up_counts_over_all_patches(schema: LabelSchema) -> None:
    trainer = supervised(schema)
    parts, made = trainer.build(), batches(trainer, validation_iterations=3)
    scores = trainer.validate(parts, made.validation(0))
    logits, target = [], []
    for streams in made.validation(0):
        batch = streams["labelled"]
        logits.append(parts["head"](parts["decoder"](parts["encoder"](batch.image)))[0])
        target.append(batch.labels()[:, 0])
    everything, truth = torch.cat(logits), torch.cat(target)
    valid = truth != (schema.ignore or 99)
    dices = {}
    for index, (name, values) in enumerate(schema.targets.items()):
        found = everything[:, index] > 0 if schema.has_regions else everything.argmax(1) == values[0]
        inside = torch.isin(truth, torch.tensor(values))
        both, either = (found & inside & valid).sum(), ((found & valid).sum() + (inside & valid).sum())
        dices[f"dice {name}"] = (2 * both / either).item()
    assert next(iter(scores)) == "dice"
    assert {name: scores[name] for name in dices} == pytest.approx(dices)
    assert scores["dice"] == pytest.approx(sum(dices.values()) / len(dices))


def test_classes_that_are_nowhere_are_left_out() -> None:
    trainer = supervised()
    made = batches(trainer)
    (streams,) = made.validation(0)
    batch = streams["labelled"]
    batch.labels()[batch.labels() == 2] = 0
    parts = trainer.build()
    head = parts["head"].seg_layers[-1]
    with torch.no_grad():
        head.bias.copy_(torch.tensor([0.0, 50.0, -50.0]))
    scores = trainer.validate(parts, [streams])
    assert math.isnan(scores["dice b"])
    assert scores["dice"] == scores["dice a"] > 0
    assert trainer.validate(parts, []) == {}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@every_schema
def test_it_learns(schema: LabelSchema, precision: str) -> None:
    trainer = supervised(schema, learning_rate=0.05, epochs=1, iterations_per_epoch=100, momentum=0.9)
    seed_globals(0, "build", 0)
    device = torch.device("cpu")
    parts, made = place(trainer.build(), device), batches(trainer, 2)
    optimisation = Optimisation(trainer.settings, parts)
    before = trainer.validate(parts, made.validation(0))["dice"]
    for number, streams in enumerate(made.training(0, 100)):
        with autocast(device, precision):
            (terms,) = trainer.losses(parts, streams)
        trainer.backward(terms, parts)
        optimisation.gradient_norm(0)
        optimisation.step(number)
    after = trainer.validate(parts, made.validation(0))["dice"]
    assert after > max(0.6, before + 0.1)
