"""Pretraining guided by a reference: what it draws, builds and hands on, and what its validation tells."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from selfcfg.engine.choice import parse_settings
from selfcfg.engine.trainer import Batch, Parts
from selfcfg.engine.training.optimisation import seed_globals
from selfcfg.errors import UsageError
from selfcfg.testing import DATASETS, REFERENCE, MemoryBatches, small_plan
from selfcfg.trainers.masked import MaskedSettings
from selfcfg.trainers.pretext import masked
from selfcfg.trainers.reference_guided import WITHOUT_LABELS, GuidedSettings, ReferenceGuided

MATCHED = {"matching_warmup": 0, "matching_every": 1}


def guided(dimensions: int = 2, **settings: Any) -> ReferenceGuided:
    plan = small_plan(dimensions)
    settings = {"epochs": 2, "iterations_per_epoch": 2, **settings}
    return ReferenceGuided(GuidedSettings(**settings), plan, plan.configurations["small"], DATASETS)


def built(trainer: ReferenceGuided) -> Parts:
    seed_globals(0, "build", 0)
    return trainer.build()


def streams(trainer: ReferenceGuided, number: int = 0) -> dict[str, Batch]:
    needs = trainer.needs_for(trainer.settings)
    return next(MemoryBatches(needs, trainer.configuration, trainer.plan).training(number, number + 1))


def halves(batches: dict[str, Batch]) -> list[dict[str, Batch]]:
    """Two batches of one patch each."""

    def part(batch: Batch, which: slice) -> Batch:
        return Batch(batch.image[which], None if batch.target is None else batch.target[which], batch.cases[which])

    return [{name: part(one, slice(index, index + 1)) for name, one in batches.items()} for index in range(2)]


def step(trainer: ReferenceGuided, parts: Parts, batches: dict[str, Batch], seed: int = 0) -> dict[str, float]:
    """Adds the gradients of one batch; gives the terms."""
    seed_globals(0, "step", seed)
    found = {}
    for terms in trainer.losses(parts, batches):
        trainer.backward(terms, parts)
        found.update({name: float(term) for name, term in terms.items()})
    return found


def gradients(parts: Parts) -> dict[str, Tensor]:
    return {name: one.grad.clone() for name, one in parts.named_parameters() if one.grad is not None}


def test_what_it_draws_and_hands_on() -> None:
    settings = GuidedSettings(task="moco")
    needs = ReferenceGuided.needs_for(settings)
    assert list(needs) == ["unlabelled", "reference", "probe"] and needs["unlabelled"].views == 2
    assert ReferenceGuided.takes_reference(settings) and not ReferenceGuided.segments(settings)
    assert ReferenceGuided.labelled(settings) == [], "labels of the dataset itself are not trained on"
    trainer = guided()
    parts = built(trainer)
    assert list(trainer.handed_on(parts)) == ["encoder", "decoder"]
    assert parts["reference_head"].seg_layers[-1].weight.shape[0] == REFERENCE.n_outputs == 4
    assert set(parts["pretext"]) == {"decoder", "reconstruction"}, "what paints has a decoder of its own"
    assert set(built(guided(task="moco"))["pretext"]) >= {"projection", "queue"}
    assert "decoder" not in built(guided(task="rubik"))["pretext"]


def test_second_derivatives_are_taken_where_gradients_are_compared() -> None:
    found = {
        how
        for how in ("sum", "fish", "cosine", "l2", "pcgrad")
        if guided(matching=how).second_order_for(GuidedSettings(matching=how))
    }
    assert found == {"cosine", "l2"}


def test_the_defaults_are_those_of_a_pretraining() -> None:
    settings, other = GuidedSettings(), MaskedSettings()
    for name in ("epochs", "optimizer", "learning_rate", "weight_decay", "validation_iterations"):
        assert getattr(settings, name) == getattr(other, name)
    assert settings.masked.mask_ratio == other.mask_ratio


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": "distance_map"}, "no task 'distance_map' without labels"),
        ({"task": "mocco"}, "did you mean 'moco'"),
        ({"matching": "fisch"}, "'fisch'"),
        ({"pretext_weight": "0", "reference_weight": "0"}, "both 0"),
        ({"matching_stages": "0"}, "matching_stages"),
    ],
)
def test_settings_that_cannot_be_used(given: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_settings(ReferenceGuided, given)


def test_tasks_without_labels_alone_are_offered() -> None:
    assert {"masked", "moco", "rubik", "restoration", "vicreg"} <= set(WITHOUT_LABELS)
    assert "distance_map" not in WITHOUT_LABELS


def test_without_a_reference_nothing_is_built() -> None:
    plan = small_plan(2)
    with pytest.raises(UsageError, match="no reference dataset is known"):
        ReferenceGuided(GuidedSettings(), plan, plan.configurations["small"]).build()


def test_terms_are_weighted_as_the_settings_say() -> None:
    trainer = guided(task="vicreg", pretext_weight=0.5, reference_weight=3, dice_weight=2, matching="sum")
    assert trainer.weights() == {
        "vicreg invariance": 12.5, "vicreg variance": 12.5, "vicreg covariance": 0.5, "reference dice": 6,
        "reference cross_entropy": 3,
    }  # fmt: skip
    assert guided().weights()["masked reconstruction"] == 0.5, "the task's own where nothing is said"


@pytest.mark.parametrize("dimensions", [2, 3])
def test_two_batches_are_one_of_twice_the_size(dimensions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the same is hidden of every image, the losses are means over images, and so are their gradients."""

    def every_other(image: Tensor, *_: Any) -> Tensor:
        mask = torch.zeros_like(image[:, :1], dtype=torch.bool)
        mask[..., ::2] = True
        return mask

    monkeypatch.setattr(masked, "hidden_blocks", every_other)
    trainer = guided(dimensions, matching="sum", batch_dice=False)
    parts, batches = built(trainer), streams(trainer)
    step(trainer, parts, batches)
    whole = gradients(parts)
    parts.zero_grad()
    for half in halves(batches):
        step(trainer, parts, half)
    for name, one in gradients(parts).items():
        torch.testing.assert_close(one / 2, whole[name], rtol=1e-3, atol=1e-5, msg=name)


def test_with_a_weight_near_zero_the_mismatch_adds_nothing_but_its_term() -> None:
    plain, matching = guided(matching="sum"), guided(matching="cosine", matching_weight=1e-12, **MATCHED)
    parts = built(plain)
    terms = step(plain, parts, streams(plain))
    expected = gradients(parts)
    others = built(matching)
    found = step(matching, others, streams(matching))
    assert set(found) - set(terms) == {"mismatch"} and 0 < found["mismatch"] < 2
    for name, one in gradients(others).items():
        torch.testing.assert_close(one, expected[name], rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("how", ["fish", "cosine", "l2", "pcgrad"])
def test_in_bfloat16_gradients_are_nearly_those_of_float32(how: str) -> None:
    trainer = guided(matching=how, matching_stages=None, **MATCHED)
    found = []
    for enabled in (False, True):
        parts = built(trainer)
        seed_globals(0, "step", 0)
        groups = iter(trainer.losses(parts, streams(trainer)))
        while True:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                terms = next(groups, None)
            if terms is None:
                break
            trainer.backward(terms, parts)
        weights = [one for name, one in gradients(parts).items() if name.startswith("encoder") and one.dim() > 1]
        found.append(torch.cat([one.flatten() for one in weights]))
    assert torch.cosine_similarity(*found, dim=0) > 0.95


def test_validation_tells_scores_agreement_and_the_probe_and_changes_nothing() -> None:
    trainer = guided(task="moco", matching="cosine", **MATCHED)
    parts = built(trainer).eval()
    before = {name: one.clone() for name, one in parts.state_dict().items()}
    source = MemoryBatches(trainer.needs_for(trainer.settings), trainer.configuration, trainer.plan, 2)

    def validated(enabled: bool = False) -> dict[str, float]:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            return trainer.validate(parts, source.validation(0))

    torch.manual_seed(0)
    first, drawn = validated(), torch.rand(())
    assert list(first) == [
        "reference dice", "reference dice x", "reference dice y", "reference dice z", "moco contrast accuracy",
        "moco spread", "gradient cosine", "gradient cosine last stage", "gradient norm pretext",
        "gradient norm reference", "probe",
    ]  # fmt: skip
    assert -1 <= first["gradient cosine"] <= 1 and first["gradient norm pretext"] > 0
    torch.manual_seed(0)
    assert torch.rand(()) == drawn, "numbers drawn after it are the same"
    torch.manual_seed(1)
    assert validated() == first, "and whatever was drawn before"
    assert all(torch.equal(one, before[name]) for name, one in parts.state_dict().items())
    assert all(one.grad is None for one in parts.parameters())
    mixed = validated(enabled=True)
    assert mixed["gradient norm reference"] == pytest.approx(first["gradient norm reference"], rel=0.1)
    step(trainer, parts.train(), streams(trainer))
    trainer.after_step(parts)
    assert parts["pretext"]["queue"].filled.sum() == 2, "the vectors of validation are not in the queue"


def test_the_logged_weight_of_the_mismatch_is_that_of_the_step() -> None:
    trainer = guided(matching="cosine", matching_warmup=0.25, epochs=2, iterations_per_epoch=4)
    parts, found = built(trainer), []
    for number in range(4):
        step(trainer, parts, streams(trainer, number))
        found.append(trainer.weights()["mismatch"])
        trainer.after_step(parts)
    assert found == [0, 0, 0.025, 0.05]
    again = guided(matching="cosine", matching_warmup=0.25, epochs=2, iterations_per_epoch=4)
    again.validate(parts, [])
    assert again.weights()["mismatch"] == 0.05, "a continued training knows it before its first step"


def test_its_settings_reach_the_processes_that_load_patches() -> None:
    settings = GuidedSettings(task="moco", matching="l2", rubik={"pieces": 3})
    assert pickle.loads(pickle.dumps(settings)) == settings
