"""Pretraining guided by a labelled reference through the command line, as a training and as a recipe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from selfcfg.convert.synthetic import make_synthetic
from selfcfg.engine import pipeline
from selfcfg.engine.choice import TrainRequest
from selfcfg.engine.experiment import open_experiment
from selfcfg.engine.recipes import jobs as recipe_jobs
from selfcfg.engine.recipes.opening import OpenRecipe, open_recipe
from selfcfg.errors import UsageError
from selfcfg.project import Project
from selfcfg.recipes.recipe import Recipe
from selfcfg.runs import RunRecord
from selfcfg.workspace import Workspace
from tests.conftest import slim

SHORT = {"epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1, "batch_size": 2, "workers": 0}
SETS = [part for key, value in SHORT.items() for part in ("--set", f"{key}={value}")]
SCORES = ["gradient cosine", "gradient cosine last stage", "gradient norm pretext", "gradient norm reference", "probe"]


@pytest.fixture
def planned(selfcfg, workspace: Path) -> Path:
    """A workspace with a plan of a small network, and a dataset 902 with labels of another meaning."""
    other = workspace / "raw" / "Dataset902_Other"
    make_synthetic(other, n_cases=4, seed=5, mean_shape=(14, 24, 20))
    description = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**description, "labels": {"background": 0, "x": 1, "y": 2}}))
    made = selfcfg("plan", 901, "--memory", 0.02, "--jobs", 1, "--workspace", workspace)
    assert made.code == 0, made.err
    slim(Path(made.result["plan"]))
    return workspace


@pytest.mark.slow
def test_from_a_reference_to_a_segmentation(selfcfg, planned: Path) -> None:
    place = ["--jobs", 1, "--workspace", planned]
    project = Project.of(Workspace.at(planned), "901")
    validated = pipeline.splits(project, pipeline.known_fingerprint(project, 1))[0].val
    raw, other = planned / "raw" / "Dataset901_Tiny", planned / "raw" / "Dataset902_Other"
    for kind, file in [
        (one.name, file) for one in raw.iterdir() if one.is_dir() for file in one.glob(f"{validated[0]}*")
    ]:
        shutil.copy(file, other / kind / file.name.replace(validated[0], "known"))
    command = ["train", 901, "--trainer", "reference_guided", "--unlabelled", raw / "imagesTs", *SETS, *place]
    made = selfcfg(*command, "--reference", "902", "--set", "matching=cosine", "--label-fraction", 0.4)
    assert made.code == 0, made.err
    assert "Dataset902_Other: left out known" in made.err and made.result["dice"] is None
    fold = Path(made.result["run"]) / "fold_0"
    record = RunRecord.read(fold / "run.json")
    assert list(record.reference) == ["Dataset902_Other"] and list(record.unlabelled) == ["imagesTs"]
    assert record.label_fraction == 1 and not record.segments
    entry = json.loads((fold / "log.jsonl").read_text())
    assert list(entry["terms"]) == ["masked reconstruction", "reference dice", "reference cross_entropy", "mismatch"]
    assert [*list(entry["validation"])[:3]] == ["reference dice", "reference dice x", "reference dice y"]
    assert list(entry["validation"])[-5:] == SCORES and (fold / "curves.png").is_file()

    description = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**description, "labels": {"background": 0, "u": 1, "v": 2}}))
    again = selfcfg(*command, "--reference", other, "--set", "matching=cosine", "--resume")
    assert again.code == 2 and "the reference differs" in again.err

    tuned = selfcfg("train", 901, "--init", made.result["run"], *SETS, *place, "--name", "tuned")
    assert tuned.code == 0, tuned.err
    assert "took over encoder, decoder from" in tuned.err and 0 <= tuned.result["dice"] <= 1


@pytest.mark.slow
def test_the_recipe(selfcfg, planned: Path) -> None:
    own = {"pretrain": SHORT, "finetune": {**SHORT, "warmup_epochs": 0}}
    sets = [
        part for name, said in own.items() for key, value in said.items() for part in ("--set", f"{name}.{key}={value}")
    ]
    command = ["train", 901, "--recipe", "reference_guided", *sets, "--jobs", 1, "--workspace", planned]
    refused = selfcfg(*command)
    assert refused.code == 2 and "name one with --reference DATASET" in refused.err
    made = selfcfg(*command, "--reference", 902)
    assert made.code == 0, made.err
    first, last = (RunRecord.read(Path(made.result["run"]) / name / "fold_0" / "run.json") for name in own)
    assert list(first.reference) == ["Dataset902_Other"] and last.reference == {}
    assert last.taken_over is not None and last.taken_over.taken == ("encoder", "decoder")
    done = selfcfg(*command, "--reference", 902)
    assert done.code == 0 and "is finished already" in done.err


def test_what_cannot_be_guided_is_said(selfcfg, planned: Path, tmp_path: Path) -> None:
    place = ["--jobs", 1, "--workspace", planned]
    guided = ["--trainer", "reference_guided"]
    stage = '[[stage]]\nname = "one"\ntrainer = "masked"\nreference = "902"\n'
    (tmp_path / "wrong.toml").write_text(stage)
    for words, wrong in {
        "trainer 'reference_guided': it needs a labelled dataset": guided,
        "trainer 'masked' looks at no reference dataset": ["--trainer", "masked", "--reference", 902],
        "dataset 'nowhere'": [*guided, "--reference", "nowhere"],
        "it is the dataset that is trained for": [*guided, "--reference", 901],
        "it has no dataset.json": [*guided, "--reference", tmp_path],
        "stage[0].reference: the trainer 'masked' looks at no reference": ["--recipe", tmp_path / "wrong.toml"],
        "no stage of the recipe masked is without a reference": ["--recipe", "masked", "--reference", 902],
    }.items():
        answer = selfcfg("train", 901, *wrong, *([] if "--recipe" in wrong else SETS), *place)
        assert answer.code == 2, answer.err
        assert words in answer.err


def test_a_recipe_names_its_reference(selfcfg, planned: Path, tmp_path: Path) -> None:
    text = '[[stage]]\nname = "one"\ntrainer = "reference_guided"\nreference = "./other"\n'
    (tmp_path / "own.toml").write_text(text)
    shown = selfcfg("show", tmp_path / "own.toml")
    assert f"reference: {tmp_path / 'other'}" in shown.err + shown.out, "a path counts from the file"
    answer = selfcfg("train", 901, "--recipe", tmp_path / "own.toml", "--jobs", 1, "--workspace", planned)
    assert answer.code == 2 and "dataset" in answer.err and "other" in answer.err


def test_candidates_that_take_a_reference_get_it_and_find_it_prepared(planned: Path) -> None:
    place = Workspace.at(planned)
    project = Project.of(place, "901")

    def opened(reference: str, **asked: Any) -> OpenRecipe:
        ways = {"name": "ways", "foreach": {"trainer": ["masked", "reference_guided"]}, "reference": reference}
        recipe = Recipe.parse({"name": "own", "stage": [ways]}, "own.toml")
        return open_recipe(project, TrainRequest(**asked), recipe, place, [0], jobs=1)

    graph, folder = opened("902").graph, place.dataset_folder("902")
    assert {job.key: job.request.reference for job in graph.jobs} == {
        "ways/masked": None,
        "ways/reference_guided": folder,
    }
    recipe_jobs.prepare_all(project, graph, 1)
    (store,) = (project.preprocessed / "reference").iterdir()
    before = times(store)
    assert before
    guided = next(job for job in graph.jobs if job.request.reference)
    assert open_experiment(project, guided.request, [0], jobs=1).collection.reference is not None
    assert times(store) == before, "a job has nothing left to preprocess"

    guided.run(graph.folder).path.mkdir(parents=True)
    guided.run(graph.folder).record.write_text("{}")
    with pytest.raises(UsageError, match=r"'ways/reference_guided' was trained in another way \(the reference differs"):
        opened("Dataset902_Other")


def times(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_a_reference_given_for_a_recipe_is_not_for_its_first_stage_alone(planned: Path) -> None:
    place = Workspace.at(planned)
    stages = [{"name": "plain", "trainer": "masked"}, {"name": "guided", "trainer": "reference_guided"}]
    recipe = Recipe.parse({"name": "later", "stage": stages}, "later.toml")
    folder, project = place.dataset_folder("902"), Project.of(place, "901")
    graph = open_recipe(project, TrainRequest(reference=folder), recipe, place, [0], jobs=1).graph
    assert [job.request.reference for job in graph.jobs] == [None, folder]


def test_a_forecast_needs_no_reference(selfcfg, planned: Path) -> None:
    answer = selfcfg("forecast", 901, "--trainer", "reference_guided", *SETS, "--jobs", 1, "--workspace", planned)
    assert answer.code == 0, answer.err
