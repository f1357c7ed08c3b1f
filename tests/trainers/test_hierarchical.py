"""Hierarchical pretraining: which terms there are, what each compares, and that each learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from selfcfg.engine.checkpoint import read_weights, save_weights, take_over
from selfcfg.engine.trainer import Batch, Datasets
from selfcfg.engine.training.loop import fit
from selfcfg.engine.training.optimisation import Optimisation, seed_globals
from selfcfg.errors import DataError, UsageError
from selfcfg.kernels.contrast import two_views
from selfcfg.runs import RunFolder
from selfcfg.testing import MemoryBatches, check_trainer, small_plan, small_record
from selfcfg.trainers.hierarchical import Hierarchical, HierarchicalSettings
from selfcfg.trainers.supervised import Supervised, SupervisedSettings

ALONE = Datasets()
PAIR = Datasets(("here", "there"), ("own", "other"))
THREE = Datasets(("here", "there", "beyond"), ("own", "other"))
WEIGHTS = ("contrast", "dataset", "group", "reconstruction")


def hierarchical(datasets: Datasets = THREE, dimensions: int = 2, **settings: object) -> Hierarchical:
    plan = small_plan(dimensions)
    return Hierarchical(HierarchicalSettings(**settings), plan, plan.configurations["small"], datasets)


def only(*terms: str) -> dict[str, float]:
    return {f"{name}_weight": float(name in terms) for name in WEIGHTS}


def batches(trainer: Hierarchical, validation_iterations: int = 1, batch_size: int = 4) -> MemoryBatches:
    configuration = trainer.configuration.model_copy(update={"batch_size": batch_size})
    return MemoryBatches(trainer.needs, configuration, trainer.plan, validation_iterations)


def first(trainer: Hierarchical) -> Batch:
    return next(batches(trainer).training(0, 1))["unlabelled"]


def fresh(trainer: Hierarchical) -> nn.ModuleDict:
    seed_globals(0, "build", 0)
    return trainer.build()


def terms_of(trainer: Hierarchical, parts: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: term for group in trainer.losses(parts, {"unlabelled": batch}) for name, term in group.items()}


# --- which terms there are --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("datasets", [ALONE, THREE], ids=["one dataset", "three in two groups"])
def test_it_keeps_the_contract_whatever_the_datasets(datasets: Datasets) -> None:
    check_trainer(Hierarchical, datasets=datasets)


@pytest.mark.parametrize(
    ("datasets", "terms", "said"),
    [
        (THREE, {"contrast", "dataset", "group", "reconstruction"}, ""),
        (PAIR, {"contrast", "dataset", "reconstruction"}, "each dataset is a group of its own"),
        (Datasets(("here", "there"), ("own",)), {"contrast", "dataset", "reconstruction"}, "of one group"),
        (ALONE, {"contrast", "reconstruction"}, "there is one dataset"),
    ],
    ids=["groups", "groups of one", "one group", "one dataset"],
)
def test_what_has_one_class_is_left_out_and_said(
    datasets: Datasets, terms: set[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = hierarchical(datasets)
    parts = trainer.build()
    assert set(terms_of(trainer, parts, first(trainer))) == set(trainer.weights()) == terms
    heads = {"projection" if term == "contrast" else term for term in terms}
    assert set(parts) == {"encoder", "decoder", *heads}
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("term", WEIGHTS)
def test_a_term_of_weight_0_has_no_part_and_is_not_computed(term: str) -> None:
    trainer = hierarchical(**only(*(set(WEIGHTS) - {term})))
    parts = trainer.build()
    assert term not in terms_of(trainer, parts, first(trainer))
    assert {"contrast": "projection"}.get(term, term) not in parts


def test_a_decoder_that_nothing_trains_is_not_handed_on(tmp_path: Path) -> None:
    trainer = hierarchical(**only("contrast", "dataset"), epochs=1, iterations_per_epoch=1)
    run, record = RunFolder(tmp_path), small_record(trainer.name, trainer.settings, trainer.plan)
    fit(trainer, run, record, batches(trainer), device=torch.device("cpu"), resume=False)
    assert {name.partition(".")[0] for name in read_weights(run.final)[0]} == {"encoder"}


def test_a_segmentation_of_several_channels_takes_over_encoder_and_decoder(tmp_path: Path) -> None:
    plan = small_plan(2, n_channels=3)
    trainer = Hierarchical(HierarchicalSettings(), plan, plan.configurations["small"], THREE)
    pretrained = fresh(trainer)
    save_weights(tmp_path / "weights", pretrained, {})
    parts = Supervised(SupervisedSettings(), plan, plan.configurations["small"]).build()
    taken = take_over(tmp_path / "weights", parts)
    assert taken.taken == ("encoder", "decoder") and set(taken.skipped) == {"head"}
    gray = torch.rand(1, 1, 16, 16)
    for ours, theirs in zip(parts["encoder"](gray.expand(1, 3, 16, 16)), pretrained["encoder"](gray), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_term_that_is_not_asked_for_is_not_said_to_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    hierarchical(ALONE, **only("reconstruction")).build()
    assert capsys.readouterr().err == ""


def test_all_weights_0_are_refused() -> None:
    with pytest.raises(DataError, match="all four levels are 0"):
        HierarchicalSettings.parse(only(), "settings")


def test_classification_of_one_dataset_alone_is_refused() -> None:
    with pytest.raises(UsageError, match=r"there is one dataset.*--unlabelled"):
        hierarchical(ALONE, **only("dataset", "group")).build()


# --- what each term is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("within", [False, True], ids=["all", "own dataset"])
def test_negatives_are_other_cases_and_where_asked_for_of_the_own_dataset(within: bool) -> None:
    trainer = hierarchical(**only("contrast"), negatives_within_dataset=within)
    vectors = torch.randn(8, 5)
    # the case "a" of dataset 1 is another one than that of dataset 0
    batch = replace(first(trainer), cases=("a", "a", "b", "a"), domains=torch.tensor([0, 0, 0, 1]))
    others = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]], dtype=torch.bool)
    if within:
        others[:, 3], others[3] = False, False
    expected = two_views(vectors[:4], vectors[4:], trainer.settings.temperature, others)
    assert trainer._contrast(vectors, batch).loss.item() == pytest.approx(expected.loss.item())


@pytest.mark.parametrize("term", WEIGHTS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_each_term_alone_learns(term: str, dimensions: int) -> None:
    trainer = hierarchical(THREE, dimensions, **only(term), learning_rate=0.01)
    parts = fresh(trainer)
    batch = first(trainer)
    if term in ("dataset", "group"):  # something that tells them apart whatever the intensities
        batch.image[batch.domains == 0, ..., ::2] *= -1
        batch.views[0][batch.domains == 0, ..., ::2] *= -1
    batch = replace(batch, cases=tuple("abcd"))
    optimisation = Optimisation(trainer.settings, parts)
    values = []
    for number in range(25):
        terms = terms_of(trainer, parts, batch)
        assert list(terms) == [term]
        trainer.backward(terms, parts)
        optimisation.gradient_norm(number)
        optimisation.step(number)
        values.append(terms[term].item())
    assert values[-1] < 0.8 * values[0]


# --- what is logged ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_scores_come_with_what_they_are_compared_with() -> None:
    trainer = hierarchical()
    parts = fresh(trainer).eval()
    made = batches(trainer, validation_iterations=2)
    scores = trainer.validate(parts, made.validation(0))
    assert list(scores) == [
        "contrast accuracy", "dataset accuracy", "group accuracy", "spread", "explained", "probe", "dataset chance",
        "dataset by intensities", "group chance", "group by intensities",
    ]  # fmt: skip
    assert scores["dataset chance"] == scores["group chance"] == 0.5
    assert scores == trainer.validate(parts, made.validation(0))


@torch.no_grad()
def test_datasets_that_intensities_tell_apart_are_noticed_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = hierarchical(PAIR, **only("dataset"))
    parts = fresh(trainer).eval()
    streams = list(batches(trainer, validation_iterations=8, batch_size=8).validation(0))
    for batch in (one["unlabelled"] for one in streams):
        for image in (batch.image, *batch.views):  # the one dataset has two gray values, the other a long tail of them
            halves = torch.arange(16).expand_as(image[0]) // 8 + 1.0
            image[batch.domains == 1] = halves
            image[batch.domains == 0] = torch.randn_like(image[0]).mul(2).exp()
    parts["dataset"] = Knowing(streams)
    capsys.readouterr()
    scores = trainer.validate(parts, streams)
    assert scores["dataset accuracy"] == 1.0 and scores["dataset by intensities"] > 0.9
    trainer.validate(parts, streams)
    assert capsys.readouterr().err.count("the dataset of an image is recognised: accuracy 1.00, by chance 0.50") == 1


class Knowing(nn.Module):
    """A head that says what is right."""

    def __init__(self, streams: list[dict[str, Batch]]) -> None:
        super().__init__()
        self.number, self.right = 0, [one["unlabelled"].domains for one in streams]

    def forward(self, features: list[Tensor]) -> Tensor:
        right = self.right[self.number % len(self.right)].repeat(2)
        self.number += 1
        return nn.functional.one_hot(right, 2).float()
