"""Pretraining and fine-tuning through the command line, on small synthetic data in 2D and 3D."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from selfcfg.convert.synthetic import make_synthetic
from selfcfg.dataset import Dataset
from selfcfg.engine import pipeline
from selfcfg.engine.checkpoint import read_weights
from selfcfg.project import Project
from selfcfg.workspace import Workspace
from tests.conftest import slim

SHORT = ["epochs=1", "iterations_per_epoch=2", "validation_iterations=1", "batch_size=2", "workers=0"]
SETS = [part for setting in SHORT for part in ("--set", setting)]


def record_in(run: str | Path, fold: int = 0) -> dict:
    return json.loads((Path(run) / f"fold_{fold}" / "run.json").read_text())


@pytest.mark.slow
def test_from_other_images_to_a_segmentation(selfcfg, workspace: Path, tiny_dataset: Dataset, tmp_path: Path) -> None:
    raw, place = workspace / "raw", ["--jobs", 1, "--workspace", workspace]
    make_synthetic(raw / "Dataset902_Other", n_cases=3, seed=5, mean_shape=(14, 24, 20))
    mixed = shutil.copytree(tiny_dataset.root / "imagesTs", tmp_path / "mixed")
    slim(Path(selfcfg("plan", 901, *place).result["plan"]))
    project = Project.of(Workspace.at(workspace), "901")
    validated = pipeline.splits(project, pipeline.known_fingerprint(project, 1))[0].val
    for file in (raw / "Dataset901_Tiny" / "imagesTr").glob(f"{validated[0]}_*"):
        shutil.copy(file, mixed / file.name.replace(validated[0], "known"))

    command = ["train", 901, "--trainer", "masked", "--unlabelled", mixed, "--unlabelled", "G=902", *SETS, *place]
    made = selfcfg(*command, "--label-fraction", 0.4)
    assert made.code == 0, made.err
    assert "mixed: left out known" in made.err
    assert made.result["dice"] is None
    assert "-c 3d_fullres --fold 0 --init" in made.err
    run = Path(made.result["run"])
    record = record_in(run)
    assert set(record["unlabelled"]) == {"mixed", "Dataset902_Other"} and not record["segments"]
    cases = {case.id for case in tiny_dataset.cases}
    assert set(record["train"]) == cases - set(validated), "labels are not used, so all images are"
    log = json.loads((run / "fold_0" / "log.jsonl").read_text().splitlines()[-1])
    assert list(log["terms"]) == ["reconstruction"] and list(log["validation"]) == ["explained", "probe"]

    tuned = selfcfg("train", 901, "--init", run, "--name", "tuned", "--label-fraction", 0.4, *SETS, *place)
    assert tuned.code == 0, tuned.err
    assert "took over encoder, decoder from" in tuned.err
    assert 0 <= tuned.result["dice"] <= 1
    assert set(record_in(tuned.result["run"])["train"]) < set(record["train"])
    weights, before = (
        read_weights(Path(one) / "fold_0" / "final.safetensors")[0] for one in (tuned.result["run"], run)
    )
    assert {name: weights[name].shape for name in before} == {name: tensor.shape for name, tensor in before.items()}

    for wrong in (
        ["predict", run, "-i", mixed, "-o", tmp_path / "out", "--workspace", workspace],
        ["report", run, "--workspace", workspace],
        ["export", run, "--to", "nnunet", "--out", tmp_path / "out", "--workspace", workspace],
    ):
        answer = selfcfg(*wrong)
        assert answer.code == 1
        assert "only pretrains" in answer.err and "--init" in answer.err
    assert len(selfcfg("report", 901, "--workspace", workspace).result["reports"]) == 1


@pytest.mark.slow
def test_pictures_and_the_fold_of_a_pretraining(selfcfg, tmp_path: Path) -> None:
    place = ["--jobs", 1, "--workspace", tmp_path]
    dataset = make_synthetic(tmp_path / "raw" / "Dataset903_Pictures", n_cases=5, dimensions=2, mean_shape=(1, 32, 32))
    slim(Path(selfcfg("plan", 903, *place).result["plan"]))
    made = selfcfg("train", 903, "--fold", "0,1", "--trainer", "contrastive", *SETS, *place)
    assert made.code == 0, made.err
    assert len(made.result["folds"]) == 2
    tuned = selfcfg("train", 903, "--fold", 1, "--init", made.result["run"], *SETS, *place)
    assert tuned.code == 0, tuned.err
    assert "took over encoder from" in tuned.err and "warning" not in tuned.err
    record = record_in(tuned.result["run"], 1)
    assert Path(record["init"]).name == "fold_1"
    assert not set(record_in(made.result["run"], 1)["train"]) & set(record["validation"])
    leaky = selfcfg("train", 903, "--fold", 0, "--init", Path(made.result["run"]) / "fold_1", *SETS, *place)
    assert leaky.code == 0, leaky.err
    assert "): scores will be too good" in leaky.err
    assert leaky.result["folds"] == ["fold_0", "fold_1"]
    found = selfcfg("predict", 903, "-i", dataset.root / "imagesTr", "-o", tmp_path / "out", *place[2:])
    assert len(found.result["done"]) == 5, "the pretraining is no candidate"


def test_what_cannot_be_pretrained_on_is_said(selfcfg, planned: Path, tmp_path: Path) -> None:
    place = ["--jobs", 1, "--workspace", planned]
    for words, wrong in {
        "trainer 'supervised' learns from labels alone": ["--unlabelled", 901],
        "dataset 'nowhere'": ["--trainer", "masked", "--unlabelled", "nowhere"],
        "nothing after '='": ["--trainer", "masked", "--unlabelled", "G="],
        "it is named twice, or the dataset": ["--trainer", "masked", "--unlabelled", 901],
        "no image": ["--trainer", "masked", "--unlabelled", tmp_path],
    }.items():
        answer = selfcfg("train", 901, *wrong, *SETS, *place)
        assert answer.code == 2, answer.err
        assert words in answer.err


def test_a_cascades_second_stage_is_not_pretrained(selfcfg, workspace: Path) -> None:
    place = ["--jobs", 1, "--workspace", workspace]
    file = Path(selfcfg("plan", 901, *place).result["plan"])
    plan = json.loads(file.read_text())
    plan["configurations"]["second"] = {**plan["configurations"]["3d_fullres"], "after": "3d_fullres"}
    file.write_text(json.dumps(plan))
    answer = selfcfg("train", 901, "-c", "second", "--trainer", "masked", *SETS, *place)
    assert answer.code == 2
    assert "second stage of a cascade" in answer.err


def test_pretraining_is_listed(selfcfg) -> None:
    listed = {entry["name"]: entry for entry in selfcfg("list", "trainers").result["trainers"]}
    assert {"masked", "contrastive"} <= set(listed)
    assert listed["masked"]["settings"]["mask_ratio"] == 0.6
