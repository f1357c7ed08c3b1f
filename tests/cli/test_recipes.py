"""Recipes through the command line: stages in order, each from the weights of the one before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from selfcfg.cli import main
from selfcfg.engine.checkpoint import read_weights
from selfcfg.engine.choice import TrainRequest
from selfcfg.engine.experiment import open_experiment
from selfcfg.engine.prediction.loading import load_model
from selfcfg.engine.recipes.opening import OpenRecipe, open_recipe
from selfcfg.errors import UsageError
from selfcfg.project import Project, experiments_of
from selfcfg.recipes.recipe import Recipe
from selfcfg.runs import RunRecord, experiment_folder
from selfcfg.workspace import Workspace

pytestmark = pytest.mark.usefixtures("no_curves")

SHORT = {"epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1, "batch_size": 2, "workers": 0}
STAGES = {"pretrain": {}, "finetune": {"frozen_epochs": 1, "warmup_epochs": 0}}
SETS = [
    part
    for stage, own in STAGES.items()
    for key, value in {**SHORT, **own}.items()
    for part in ("--set", f"{stage}.{key}={value}")
]
MASKED = ["train", "901", "--recipe", "masked", *SETS, "--jobs", "1"]
NAME = "masked__standard__3d_fullres"


@pytest.fixture(scope="module")
def done(narrow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the recipe `masked` was trained on fold 0; copy it before changing it."""
    place = tmp_path_factory.mktemp("done") / "w"
    shutil.copytree(narrow, place)
    assert main([*MASKED, "--workspace", str(place)]) == 0
    return place


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "w"))


def results(workspace: Path) -> Path:
    return workspace / "results" / "Dataset901_Tiny" / NAME


def record(workspace: Path, stage: str, fold: int = 0) -> RunRecord:
    return RunRecord.read(results(workspace) / stage / f"fold_{fold}" / "run.json")


def weights(workspace: Path, stage: str, fold: int = 0) -> dict[str, torch.Tensor]:
    return read_weights(results(workspace) / stage / f"fold_{fold}" / "final.safetensors")[0]


def times(workspace: Path) -> dict[Path, int]:
    files = results(workspace).rglob("final.safetensors")
    return {file.relative_to(workspace): file.stat().st_mtime_ns for file in files}


@pytest.mark.slow
def test_training_starts_from_the_pretrained_encoder_and_decoder(done: Path) -> None:
    """They are frozen for the only epoch, so that they end as they began."""
    pretrained, tuned = weights(done, "pretrain"), weights(done, "finetune")
    taken = [name for name in tuned if name.startswith(("encoder.", "decoder."))]
    assert {name.partition(".")[0] for name in taken} == {"encoder", "decoder"}
    assert set(taken) == set(pretrained)
    assert all(torch.equal(tuned[name], pretrained[name]) for name in taken)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        ("contrastive", {"encoder"}),
        ("hierarchical", {"encoder", "decoder"}),
        ("sequential", {"encoder", "decoder"}),
    ],
)
def test_so_it_does_by_the_other_recipes(planned: Path, recipe: str, parts: set[str]) -> None:
    command = ["train", "901", "-c", "2d", "--recipe", recipe, *SETS, "--jobs", "1", "--workspace", str(planned)]
    assert main(command) == 0
    pretrained, tuned = (read_weights(next(planned.rglob(f"{stage}/fold_0/final.safetensors")))[0] for stage in STAGES)
    assert {name.partition(".")[0] for name in pretrained} == parts
    adapted = {name for name, tensor in pretrained.items() if tensor.shape != tuned[name].shape}
    assert len(adapted) == (recipe == "hierarchical"), "it learns from one channel, of which each of the two takes half"
    for name, tensor in pretrained.items():
        assert torch.equal(tuned[name], tensor.expand_as(tuned[name]) / 2 if name in adapted else tensor)


@pytest.mark.slow
def test_each_run_says_what_it_is_of_and_what_was_taken_over(done: Path) -> None:
    recipe = Recipe.read(results(done) / "recipe.json")
    assert recipe.stage[1].settings["frozen_epochs"] == 1, "as it was used, not as it was written"
    first, second = record(done, "pretrain"), record(done, "finetune")
    assert first.taken_over is None and second.taken_over is not None
    assert second.taken_over.taken == ("encoder", "decoder") and set(second.taken_over.skipped) == {"head"}
    for found, name in ((first, "pretrain"), (second, "finetune")):
        assert found.stage is not None
        assert (found.stage.recipe, found.stage.stage) == ("masked", name)
        assert found.stage.recipe_hash == recipe.content_hash()
    report = (results(done) / "finetune" / "report.md").read_text()
    assert "taken over" in report and "encoder, decoder" in report


@pytest.mark.slow
def test_the_folder_of_the_recipe_stands_for_its_last_stage(done: Path) -> None:
    folder = results(done)
    assert experiment_folder(folder) == folder / "finetune"
    assert load_model(folder).identity == load_model(folder / "finetune").identity
    assert experiments_of("901", Workspace.at(done)) == [folder / "finetune"]
    assert experiments_of(str(folder), Workspace.at(done)) == [folder / "finetune"]


@pytest.mark.slow
def test_predict_report_and_export_take_the_folder_of_the_recipe(selfcfg, done: Path, tmp_path: Path) -> None:
    folder, images = results(done), done / "raw" / "Dataset901_Tiny" / "imagesTs"
    predicted = selfcfg("predict", folder, "-i", images, "-o", tmp_path / "out")
    assert (predicted.code, len(predicted.result["done"])) == (0, 2)
    reported = selfcfg("report", folder, "--workspace", done)
    assert reported.result["report"] == str(folder / "finetune" / "report.html")
    assert selfcfg("export", folder, "--to", "nnunet", "--out", tmp_path / "model", "--workspace", done).code == 0


@pytest.mark.slow
def test_what_is_finished_is_kept_and_another_fold_starts_from_its_own(selfcfg, copy: Path) -> None:
    before = times(copy)
    answer = selfcfg(*MASKED, "--fold", "0,1", "--workspace", copy)
    assert answer.code == 0, answer.err
    assert answer.result["run"] == str(results(copy))
    assert answer.result["folds"] == ["fold_0", "fold_1"]
    assert before.items() <= times(copy).items()
    assert Path(record(copy, "finetune", 1).init or "") == results(copy) / "pretrain" / "fold_1"
    assert torch.equal(*(weights(copy, stage, 1)["encoder.stages.0.0.convs.0.conv.weight"] for stage in STAGES))


@pytest.mark.slow
def test_a_stage_that_is_missing_is_trained_from_what_is_there(selfcfg, copy: Path) -> None:
    shutil.rmtree(results(copy) / "finetune")
    kept = times(copy)
    assert len(kept) == 1
    refused = selfcfg("predict", results(copy), "-i", copy, "-o", copy)
    assert refused.code == 1 and "not come to the last stage, 'finetune'" in refused.err
    changed = selfcfg(*MASKED, "--set", "finetune.learning_rate=0.1", "--workspace", copy)
    assert changed.code == 0, "what has not begun may change"
    assert kept.items() < times(copy).items()


@pytest.mark.slow
def test_a_stage_that_was_trained_otherwise_is_refused_with_the_reason(selfcfg, copy: Path) -> None:
    before, recipe = times(copy), (results(copy) / "recipe.json").read_bytes()
    for change, words in (
        (["--set", "pretrain.mask_ratio=0.5"], ["'pretrain'", "mask_ratio: 0.6 there, 0.5 here"]),
        (["--set", "finetune.learning_rate=0.1"], ["'finetune'", "learning_rate"]),
        (["--seed", "3"], ["seed: 0 there, 3 here"]),
        (["--unlabelled", copy / "raw" / "Dataset901_Tiny"], ["unlabelled"]),
    ):
        answer = selfcfg(*MASKED, *change, "--workspace", copy)
        assert answer.code == 2
        assert all(word in answer.err for word in [*words, "--name"])
    assert (times(copy), (results(copy) / "recipe.json").read_bytes()) == (before, recipe)


@pytest.mark.slow
def test_weights_that_are_others_than_those_started_from_are_noticed(selfcfg, copy: Path) -> None:
    pretrained = results(copy) / "pretrain" / "fold_0"
    shutil.copy(results(copy) / "finetune" / "fold_0" / "final.safetensors", pretrained / "final.safetensors")
    answer = selfcfg(*MASKED, "--workspace", copy)
    assert answer.code == 2 and "the weights it starts from differ" in answer.err


@pytest.mark.slow
def test_a_recipe_and_a_trainer_of_one_name_do_not_mix(selfcfg, copy: Path) -> None:
    one = [part for key, value in SHORT.items() for part in ("--set", f"{key}={value}")]
    trainer = ["train", "901", "--trainer", "masked", *one, "--jobs", "1", "--workspace", copy]
    refused = selfcfg(*trainer)
    assert refused.code == 2 and "folder of a recipe" in refused.err
    shutil.rmtree(results(copy))
    assert selfcfg(*trainer).code == 0
    refused = selfcfg(*MASKED, "--workspace", copy)
    assert refused.code == 2 and "by the trainer 'masked'" in refused.err


@pytest.mark.slow
def test_an_experiment_to_start_from_gives_each_fold_its_own_run(selfcfg, copy: Path) -> None:
    pretrained = results(copy) / "pretrain"
    project = Project.of(Workspace.at(copy), "901")
    assert open_experiment(project, TrainRequest(init=pretrained), [0], jobs=1).init(0) == pretrained / "fold_0"
    short = [part for key, value in SHORT.items() for part in ("--set", f"{key}={value}")]
    other = ["train", "901", "--init", pretrained / "fold_0", "--fold", "1", *short, "--jobs", "1", "--workspace", copy]
    answer = selfcfg(*other)
    assert answer.code == 0, answer.err
    assert "fold_0 was trained on validation cases of this fold (case_" in answer.err


def opened(workspace: Path, recipe: Recipe, folds: list[int] | None, **request: Any) -> OpenRecipe:
    place = Workspace.at(workspace)
    return open_recipe(Project.of(place, "901"), TrainRequest(**request), recipe, place, folds, jobs=1)


def own(*stages: dict[str, Any]) -> Recipe:
    return Recipe.parse({"name": "own", "stage": list(stages)}, "own.toml")


FIRST = {"name": "first", "trainer": "masked", "settings": {**SHORT, "augmentation": "none"}}
SECOND = {"name": "second", "trainer": "supervised", "init": "first", "settings": SHORT}


@pytest.mark.slow
def test_a_pretraining_never_sees_the_validation_images_of_its_fold(planned: Path) -> None:
    project = Project.of(Workspace.at(planned), "901")
    for fold in (0, 1):
        request = opened(planned, own(FIRST, SECOND), [fold], label_fraction=0.3).graph.jobs[0].request
        experiment = open_experiment(project, request, [fold], jobs=1)
        drawn = experiment.batches(experiment.record(fold)).training(0, 20)
        seen = {case for streams in drawn for batch in streams.values() for case in batch.cases}
        assert seen == set(experiment.splits[fold].train), "all the others, whatever the share of labels"


def folds_by_stage(recipe: OpenRecipe) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for job in recipe.graph.jobs:
        found.setdefault(job.key, []).append(job.fold)
    return found


def test_folds_of_a_stage(planned: Path) -> None:
    every = opened(planned, own({**FIRST, "folds": "all"}, SECOND), [2])
    assert folds_by_stage(every) == {"first": [0, 1, 2, 3, 4], "second": [2]}
    given = opened(planned, own({**FIRST, "folds": [1]}, {**SECOND, "folds": [1]}), None)
    assert folds_by_stage(given) == {"first": [1], "second": [1]}
    with pytest.raises(UsageError, match="stage 'second' of recipe own, fold 0: it starts from 'first'"):
        opened(planned, own({**FIRST, "folds": [1]}, SECOND), [0])


def test_every_stage_is_checked_before_the_first_begins(planned: Path) -> None:
    with pytest.raises(UsageError) as error:
        opened(
            planned,
            own({**FIRST, "settings": {"mask_ration": 0.5, "epochs": 0}}, {**SECOND, "trainer": "suprvised"}),
            [0],
        )
    for words in ("mask_ration: unknown key, did you mean 'mask_ratio'", "[0].settings.epochs", "[1].trainer"):
        assert words in str(error.value)
    with pytest.raises(UsageError, match=r"stage\[1\].unlabelled: the trainer 'supervised' learns from labels alone"):
        opened(planned, own(FIRST, {**SECOND, "unlabelled": ["901"]}), [0])
    with pytest.raises(UsageError, match="there is no such folder"):
        opened(planned, own(FIRST, {**SECOND, "init": "./nowhere"}), [0])
    with pytest.raises(UsageError, match="fold 7"):
        opened(planned, own(FIRST, {**SECOND, "folds": [7]}), [0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trainer", "supervised"], "--trainer was given, too"),
        (["--init", "run"], "--init was given, too"),
        (["--time-budget", "4h"], "--time-budget was given, too"),
        (["--set", "epochs=3"], "STAGE.epochs"),
        (["--set", "finetune.epoch=3"], "did you mean 'epochs'"),
    ],
)
def test_options_that_a_recipe_does_not_take(selfcfg, planned: Path, options: list[str], words: str) -> None:
    answer = selfcfg(*MASKED, *options, "--name", "refused", "--workspace", planned)
    assert answer.code == 2
    assert words in answer.err
    assert not list(planned.glob("results/*/*refused"))


def test_what_is_not_said_of_a_table_stays_as_the_trainer_has_it(planned: Path) -> None:
    views = {"name": "first", "trainer": "contrastive", "settings": {"transforms": {"blur_p": 0.0}}}
    transforms = (
        opened(planned, own(views).changed({"first.transforms.gamma_p": "0.1"}), [0])
        .recipe.stage[0]
        .settings["transforms"]
    )
    assert (transforms["blur_p"], transforms["gamma_p"]) == (0, 0.1)
    assert transforms["scale_p"] == 0.8, "nnU-Net's is 0.2"


def test_list_and_show(selfcfg) -> None:
    listed = selfcfg("list", "recipes")
    names = {entry["name"]: entry for entry in listed.result["recipes"]}
    assert names["masked"]["stages"] == ["pretrain", "finetune"]
    assert names["masked"]["summary"] in listed.err
    shown = selfcfg("show", "masked")
    first, second = shown.result["recipe"]["stage"]
    assert (first["inherits"], second["inherits"]) == ([], ["encoder", "decoder"])
    assert "from 'pretrain', which hands on encoder, decoder" in shown.err
    assert json.dumps(second["settings"]["warmup_epochs"]) in shown.err
