"""The whole road through the command line on the tiny dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from selfcfg.io import read_header, read_image, read_label, write_image

SHORT = ["epochs=2", "iterations_per_epoch=4", "validation_iterations=1", "batch_size=2", "workers=0"]
SETS = [part for setting in SHORT for part in ("--set", setting)]


@pytest.mark.slow
def test_from_raw_data_to_scores(selfcfg, workspace: Path, tmp_path: Path) -> None:
    trained = selfcfg("plan-and-train", 901, "--fold", "0,1", *SETS, "--jobs", 1, "--workspace", workspace)
    assert trained.code == 0, trained.err
    run = Path(trained.result["run"])
    assert trained.result["folds"] == ["fold_0", "fold_1"]
    assert trained.result["warnings"] == []
    assert Path(trained.result["report"]).is_file()
    for name in ("run.json", "plan.json", "log.jsonl", "curves.png", "final.safetensors", "validation/summary.json"):
        assert (run / "fold_0" / name).is_file(), name

    raw = workspace / "raw" / "Dataset901_Tiny"
    output = tmp_path / "predictions"
    predicted = selfcfg("predict", run, "-i", raw / "imagesTs", "-o", output)
    assert predicted.code == 0, predicted.err
    assert len(predicted.result["done"]) == 2
    for file in (raw / "labelsTs").iterdir():
        label, geometry = read_label(output / file.name)
        assert geometry.differences(read_header(file)[1]) == []
        assert set(np.unique(label)) <= {0, 1, 2}
    again = selfcfg("predict", run, "-i", raw / "imagesTs", "-o", output)
    assert (len(again.result["done"]), len(again.result["skipped"])) == (0, 2)

    scored = selfcfg("evaluate", raw / "labelsTs", output, "--dataset-json", raw / "dataset.json", "--jobs", 1)
    assert scored.code == 0, scored.err
    assert 0 <= scored.result["foreground_mean"]["dice"] <= 1
    assert Path(scored.result["summary"]).is_file()


@pytest.mark.slow
def test_running_again_changes_nothing_and_another_seed_is_refused(selfcfg, planned: Path) -> None:
    command = ["plan-and-train", 901, "--fold", 0, *SETS, "--jobs", 1, "--workspace", planned]
    run = Path(selfcfg(*command).result["run"])
    weights = (run / "fold_0" / "final.safetensors").stat().st_mtime_ns
    store = {file: file.stat().st_mtime_ns for file in (planned / "preprocessed").rglob("*.b2nd")}
    assert selfcfg(*command).code == 0
    assert (run / "fold_0" / "final.safetensors").stat().st_mtime_ns == weights
    assert {file: file.stat().st_mtime_ns for file in (planned / "preprocessed").rglob("*.b2nd")} == store

    other = selfcfg("train", 901, *SETS, "--seed", 7, "--jobs", 1, "--workspace", planned)
    assert other.code == 2
    assert "seed" in other.err
    assert "--name" in other.err


@pytest.mark.slow
def test_a_failed_case_is_isolated_and_listed(selfcfg, planned: Path, tmp_path: Path) -> None:
    run = selfcfg("plan-and-train", 901, "--fold", 0, *SETS, "--jobs", 1, "--workspace", planned).result["run"]
    images = planned / "raw" / "Dataset901_Tiny" / "imagesTs"
    broken = sorted(images.iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:200])
    answer = selfcfg("predict", run, "-i", images, "-o", tmp_path / "out")
    assert answer.code == 1
    assert len(answer.result["done"]) == 1
    assert [failure["case"] for failure in answer.result["failed"]] == [broken.name.removesuffix("_0000.nii.gz")]
    assert len([file for file in (tmp_path / "out").iterdir() if file.name.endswith(".nii.gz")]) == 1


@pytest.mark.slow
def test_label_fraction_is_recorded_and_nested(selfcfg, planned: Path) -> None:
    used = {}
    for fraction in (0.4, 0.8):
        name = f"f{int(fraction * 100)}"
        fractions = ["--label-fraction", fraction, "--name", name]
        answer = selfcfg("train", 901, *SETS, *fractions, "--jobs", 1, "--workspace", planned)
        record = json.loads((Path(answer.result["run"]) / "fold_0" / "run.json").read_text())
        used[fraction] = set(record["train"])
    assert len(used[0.4]) >= 2
    assert used[0.4] < used[0.8]


@pytest.mark.slow
def test_a_plan_edited_by_hand_is_kept(selfcfg, planned: Path) -> None:
    file = planned / "preprocessed" / "Dataset901_Tiny" / "plans" / "standard.json"
    content = json.loads(file.read_text())
    content["mirror_axes"] = [0]
    file.write_text(json.dumps(content))
    answer = selfcfg("plan-and-train", 901, "--fold", 0, *SETS, "--jobs", 1, "--workspace", planned)
    used = json.loads((Path(answer.result["run"]) / "fold_0" / "plan.json").read_text())
    assert used["mirror_axes"] == [0]


@pytest.mark.slow
def test_folds_trained_one_by_one_are_scored_and_reported_together(selfcfg, planned: Path) -> None:
    place = ["--jobs", 1, "--workspace", planned]
    for fold in (0, 1):
        run = Path(selfcfg("train", 901, "--fold", fold, *SETS, *place).result["run"])
    validated = {
        case for fold in (0, 1) for case in json.loads((run / f"fold_{fold}" / "run.json").read_text())["validation"]
    }
    together = json.loads((run / "cross_validation" / "summary.json").read_text())
    assert {case["case"] for case in together["cases"]} == validated
    assert "not scored" not in (run / "report.md").read_text()

    selfcfg("train", 901, "--fold", 0, "--name", "unscored", *SETS, *place)
    (run.parent / f"{run.name}__unscored" / "fold_0" / "validation" / "summary.json").unlink()
    reported = selfcfg("report", 901, "--workspace", planned)
    assert reported.result["reports"] == [str(run / "report.html")]
    assert "left out" in reported.err
    assert len(selfcfg("predict", 901, "-i", "nowhere", "-o", "out", "--workspace", planned).err.splitlines()) > 2

    other = selfcfg("train", 901, "--fold", 2, *SETS, "--set", "momentum=0.9", *place)
    assert other.code == 2
    assert "momentum" in other.err and "--name" in other.err


@pytest.mark.slow
def test_a_validation_case_that_was_replaced_is_predicted_again(selfcfg, planned: Path) -> None:
    command = ["train", 901, *SETS, "--jobs", 1, "--resume", "--workspace", planned]
    run = Path(selfcfg(*command).result["run"]) / "fold_0"
    case = json.loads((run / "run.json").read_text())["validation"][0]
    note, prediction = run / "validation" / ".predictions" / f"{case}.json", run / "validation" / f"{case}.nii.gz"
    made_from, made_at = json.loads(note.read_text())["input"], prediction.stat().st_mtime_ns
    assert selfcfg(*command).code == 0
    assert prediction.stat().st_mtime_ns == made_at

    image_file = planned / "raw" / "Dataset901_Tiny" / "imagesTr" / f"{case}_0000.nii.gz"
    image, geometry = read_image(image_file)
    write_image(image_file, image[:, ::-1].copy(), geometry)
    answer = selfcfg(*command)
    assert answer.code == 0, answer.err
    assert json.loads(note.read_text())["input"] != made_from
    assert prediction.stat().st_mtime_ns > made_at


@pytest.mark.slow
def test_folds_and_devices_that_are_not_there_are_refused_before_the_work(selfcfg, planned: Path) -> None:
    place = ["--jobs", 1, "--workspace", planned]
    for wrong, words in ((["--fold", "0,9"], "fold 9"), (["--device", "cuda:97"], "cuda:97")):
        answer = selfcfg("train", 901, *wrong, *SETS, *place)
        assert answer.code == 2
        assert words in answer.err
    assert not list((planned / "preprocessed").rglob("*.b2nd"))
    assert not (planned / "results").exists()
