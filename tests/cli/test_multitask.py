"""Auxiliary tasks through the command line: before segmentation, beside it, and with few labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfcfg.convert.synthetic import make_synthetic
from tests.conftest import slim

SHORT = ["epochs=1", "iterations_per_epoch=2", "validation_iterations=1", "batch_size=2", "workers=0"]
SETS = [part for setting in (*SHORT, "calibration_step=1") for part in ("--set", setting)]


@pytest.mark.slow
def test_tasks_before_and_beside_segmentation(selfcfg, tmp_path: Path) -> None:
    place = ["--jobs", 1, "--workspace", tmp_path]
    dataset = make_synthetic(tmp_path / "raw" / "Dataset903_Pictures", n_cases=6, dimensions=2, mean_shape=(1, 32, 32))
    slim(Path(selfcfg("plan", 903, *place).result["plan"]))

    before = ["--trainer", "multitask", "--set", "mode=pretrain", "--label-fraction", 0.4]
    made = selfcfg("train", 903, "--fold", 0, *before, "--set", "tasks=distance_map", *SETS, *place)
    assert made.code == 0, made.err
    assert made.result["dice"] is None and "--init" in made.err
    record = json.loads((Path(made.result["run"]) / "fold_0" / "run.json").read_text())
    assert not record["segments"] and record["label_fraction"] == 0.4
    tuned = selfcfg(
        "train", 903, "--fold", 0, "--init", made.result["run"], "--label-fraction", 0.4, *SETS[:-2], *place
    )
    assert tuned.code == 0, tuned.err
    assert "took over encoder, decoder from" in tuned.err
    few = json.loads((Path(tuned.result["run"]) / "fold_0" / "run.json").read_text())["train"]
    assert record["train"] == few, "a task on labels has no more of them"
    free = selfcfg("train", 903, "--fold", 0, *before, "--set", "tasks=rubik", "--name", "free", *SETS, *place)
    assert free.code == 0, free.err
    assert json.loads((Path(free.result["run"]) / "fold_0" / "run.json").read_text())["label_fraction"] == 1

    joint = ["--trainer", "multitask", "--set", "tasks=rubik,restoration", "--label-fraction", 0.4, "--name", "joint"]
    beside = selfcfg("train", 903, "--fold", 0, *joint, *SETS, *place)
    assert beside.code == 0, beside.err
    assert 0 <= beside.result["dice"] <= 1
    run = Path(beside.result["run"])
    log = json.loads((run / "fold_0" / "log.jsonl").read_text().splitlines()[-1])
    assert list(log["terms"]) == ["dice", "cross_entropy", "rubik order", "rubik flips", "restoration restoration"]
    assert next(iter(log["validation"])) == "dice" and log["validation"]["weight rubik"] != 0.1
    assert "the gradient of rubik has a norm of" in beside.err
    found = selfcfg("predict", run, "-i", dataset.root / "imagesTr", "-o", tmp_path / "out", *place[2:])
    assert len(found.result["done"]) == 6, found.err


def test_tasks_that_there_are_not_are_named(selfcfg, planned: Path) -> None:
    answer = selfcfg("train", 901, "--trainer", "multitask", "--set", "tasks=rubrik", "--workspace", planned)
    assert answer.code == 2 and "did you mean 'rubik'" in answer.err
