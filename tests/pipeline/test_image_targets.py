"""Image-level targets from a table to scores: trained beside segmentation, predicted, resumed, evaluated."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from selfcfg.cli import main
from selfcfg.engine.prediction.image_table import TABLE
from selfcfg.engine.prediction.loading import load_model
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.prediction.predict import PredictOptions, find_inputs, predict_cases
from selfcfg.errors import DataError
from selfcfg.files import read_json
from selfcfg.plan import Plan
from tests.blobs import write_blobs
from tests.conftest import slim

pytestmark = pytest.mark.slow

SHORT = {"epochs": 2, "iterations_per_epoch": 30, "validation_iterations": 2, "batch_size": 8, "workers": 0}
TRAINED = {**SHORT, "precision": "float32", "learning_rate": 0.02, "momentum": 0.9, "transforms.mirror_p": 0}
JOINT = {"tasks": "image_level", "balance": "fixed", "weight.image_level": 0.5}


def run(*arguments: object) -> None:
    assert main([*map(str, arguments)]) == 0


def sets(settings: dict[str, Any]) -> list[str]:
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


@dataclass(frozen=True)
class Road:
    """A workspace with a trained model, and new pictures."""

    workspace: Path
    new: Path
    known: dict[str, tuple[str, float]]

    @property
    def experiment(self) -> Path:
        return self.workspace / "results" / "Dataset007_Spots" / "multitask__standard__2d"

    @property
    def description(self) -> Path:
        return self.workspace / "raw" / "Dataset007_Spots" / "dataset.json"

    def model(self) -> Model:
        return load_model(self.experiment)


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    place = tmp_path_factory.mktemp("spots")
    write_blobs(place / "src", 20)
    known = write_blobs(place / "new", 12, first=100)
    folders = ["--images", place / "src" / "images", "--labels", place / "src" / "labels"]
    at = ["--workspace", place / "w"]
    table = ["--image-targets", place / "src" / "targets.csv"]
    run("convert", "folder", *folders, "--id", 7, "--name", "Spots", *table, *at)
    run("plan", 7, "--jobs", 1, *at)
    slim(place / "w" / "preprocessed" / "Dataset007_Spots" / "plans" / "standard.json")
    run("train", 7, "--trainer", "multitask", *sets({**TRAINED, **JOINT}), "--jobs", 1, *at)
    return Road(place / "w", place / "new", known)


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / TABLE).open(newline="") as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}


def test_what_can_be_seen_is_told_of_new_cases(road: Road, tmp_path: Path) -> None:
    run("predict", road.experiment, "-i", road.new / "images", "-o", tmp_path)
    told = rows(tmp_path)
    assert {case: row["finding"] for case, row in told.items()} == {case: one[0] for case, one in road.known.items()}
    for row in told.values():
        shares = [float(row[f"finding={name}"]) for name in ("clear", "spot")]
        assert sum(shares) == pytest.approx(1) and 0 < float(row["brightness"]) < 100


def test_new_cases_are_scored_against_dataset_json(road: Road, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run("predict", road.experiment, "-i", road.new / "images", "-o", tmp_path / "out")
    content = json.loads(road.description.read_text())
    for name, index in (("finding", 0), ("brightness", 1)):
        content["image_targets"][name]["values"] = {case: one[index] for case, one in list(road.known.items())[1:]}
    (tmp_path / "new.json").write_text(json.dumps(content))
    capsys.readouterr()
    run("evaluate", road.new / "labels", tmp_path / "out", "--dataset-json", tmp_path / "new.json", "--json")
    captured = capsys.readouterr()
    finding = json.loads(captured.out.splitlines()[-1])["image_targets"]["finding"]
    assert finding == {"accuracy": 1.0, "balanced accuracy": 1.0, "AUC": 1.0}
    assert "finding: 11 cases, accuracy 1, balanced accuracy 1, AUC 1; 1 without a value left out" in captured.err
    stored = read_json(tmp_path / "out" / "summary.json")["image_targets"]["brightness"]
    assert stored["n"] == 11 and stored["n_missing"] == 1 and len(stored["cases"]) == 11 and stored["mae"] > 0


def test_the_fold_and_the_report_hold_the_scores_of_validation(road: Road) -> None:
    fold = road.experiment / "fold_0"
    record = read_json(fold / "run.json")
    scores = read_json(fold / "validation" / "summary.json")["image_targets"]
    assert set(rows(fold / "validation")) == set(record["validation"])
    assert set(scores["finding"]["cases"]) == set(record["validation"]) - {"case_02", "case_10", "case_18"}
    assert read_json(road.experiment / "cross_validation" / "summary.json")["image_targets"] == scores
    assert "| finding | balanced accuracy | 1.000 |" in (road.experiment / "report.md").read_text()
    last = json.loads((fold / "log.jsonl").read_text().splitlines()[-1])
    assert {"image_level finding", "image_level brightness"} <= set(last["terms"])
    assert {"image_level finding accuracy", "image_level brightness error in %"} <= set(last["validation"])


class Killed(BaseException):
    """As if the process had ended there."""


def test_an_interrupted_prediction_goes_on_to_the_same_table(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = find_inputs(road.new / "images", Plan.read(road.experiment / "fold_0" / "plan.json"))
    predict_cases(road.model(), cases, tmp_path / "whole")
    whole = (tmp_path / "whole" / TABLE).read_bytes()
    predicted, count = Model.predict_prepared, iter(range(100))

    def breaking(model: Model, prepared: Any, **options: Any) -> Any:
        if next(count) == 5:
            raise Killed
        return predicted(model, prepared, **options)

    monkeypatch.setattr(Model, "predict_prepared", breaking)
    with pytest.raises(Killed):
        predict_cases(road.model(), cases, tmp_path / "broken")
    assert not (tmp_path / "broken" / TABLE).exists()
    monkeypatch.undo()
    outcome = predict_cases(road.model(), cases, tmp_path / "broken")
    assert len(outcome.skipped) == 5 and len(outcome.done) == 7
    assert (tmp_path / "broken" / TABLE).read_bytes() == whole
    (tmp_path / "broken" / TABLE).unlink()
    assert len(predict_cases(road.model(), cases, tmp_path / "broken").skipped) == 12
    assert (tmp_path / "broken" / TABLE).read_bytes() == whole


def test_a_table_of_somebody_else_is_kept_and_one_that_says_nothing_any_more_removed(
    road: Road, tmp_path: Path
) -> None:
    model = road.model()
    cases = dict(list(find_inputs(road.new / "images", model.plan).items())[:2])
    (tmp_path / TABLE).write_text("mine\n")
    with pytest.raises(DataError, match="exists and was not made here"):
        predict_cases(model, cases, tmp_path)
    assert (tmp_path / TABLE).read_text() == "mine\n"
    predict_cases(replace(model, tellers=()), cases, tmp_path)
    assert (tmp_path / TABLE).read_text() == "mine\n"
    predict_cases(model, cases, tmp_path, PredictOptions(overwrite=True))
    assert len(rows(tmp_path)) == 2
    predict_cases(replace(model, tellers=()), cases, tmp_path, PredictOptions(overwrite=True))
    assert not (tmp_path / TABLE).exists()


def test_from_python_a_prediction_says_it_too_and_networks_are_averaged(road: Road, tmp_path: Path) -> None:
    model = road.model()
    image = road.new / "images" / "case_101.png"
    told = model.predict(image).image_level
    assert told["finding"].value == "spot" and set(told["finding"].probabilities) == {"clear", "spot"}
    twice = replace(model, networks=model.networks * 2, tellers=model.tellers * 2)
    again = twice.predict(image).image_level
    assert again["finding"].probabilities == pytest.approx(told["finding"].probabilities)
    assert replace(model, tellers=()).predict(image).image_level == {}


def test_targets_that_changed_since_the_plan_are_refused(road: Road, capsys: pytest.CaptureFixture) -> None:
    before = road.description.read_text()
    content = json.loads(before)
    content["image_targets"]["brightness"]["unit"] = "permille"
    road.description.write_text(json.dumps(content))
    train = ["train", 7, "--trainer", "multitask", "--name", "again", "--workspace", road.workspace, "--jobs", 1]
    assert main([*map(str, train), *sets({**SHORT, **JOINT})]) == 2
    assert "'brightness' in dataset.json is not what the plan says; plan again" in capsys.readouterr().err
    road.description.write_text(before)
