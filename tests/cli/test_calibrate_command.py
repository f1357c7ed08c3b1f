"""Calibrating an experiment, and predicting with what was learnt."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from selfcfg.engine.prediction.loading import load_model

SHORT = ["epochs=1", "iterations_per_epoch=4", "validation_iterations=1", "batch_size=2", "workers=0"]
SETS = [part for setting in SHORT for part in ("--set", setting)]


@pytest.mark.usefixtures("no_curves")
def test_calibrate_then_predict(selfcfg, planned: Path) -> None:
    place = ["--workspace", planned, "--jobs", 1]
    train = ["train", "901", "-c", "2d", "--fold", "0,1", *SETS, *place]
    experiment = Path(selfcfg(*train).result["run"])
    assert selfcfg("calibrate", "901", *place).code == 0
    stored = json.loads((experiment / "calibration.json").read_text())
    assert sum(stored["before"]["count"]) == pytest.approx(stored["n_voxels"])
    assert not list(experiment.glob("fold_*/validation/*.npz")), "probabilities that were made for this are gone"
    quality = json.loads((experiment / "quality.json").read_text())
    assert not quality["is_useful"]
    assert "too few" in quality["reason"]
    rows = list(csv.DictReader((experiment / "quality_cases.csv").open()))
    assert {row["case"] for row in rows} <= {path.name.removesuffix(".nii.gz") for path in experiment.glob("*/val*/*")}

    model = load_model(experiment)
    assert model.temperature == stored["temperature"]
    assert load_model(experiment / "fold_0").quality == model.quality
    assert load_model(experiment, weights="best").temperature == 1
    assert load_model(experiment, calibrated=False).quality is None

    images = planned / "raw" / "Dataset901_Tiny" / "imagesTs"
    answer = selfcfg("predict", experiment, "-i", images, "-o", planned / "out", "--workspace", planned)
    assert answer.code == 0
    assert len(answer.result["doubtful"]) == 2
    assert "look first at" in answer.err
    table = list(csv.DictReader((planned / "out" / "quality.csv").open()))
    assert [row["case"] for row in table] == answer.result["doubtful"]
    assert {row["predicted_dice"] for row in table} == {""}

    first = rows[0]["case"]
    images = [images.parent / "imagesTr" / f"{first}_000{channel}.nii.gz" for channel in range(2)]
    fold = next(one.parent.parent for one in experiment.glob(f"fold_*/validation/{first}.nii.gz"))
    given = ["predict", fold, "-i", images[0], "-i", images[1], "-o", planned / "again", "--workspace", planned]
    assert selfcfg(*given).code == 0
    (again,) = csv.DictReader((planned / "again" / "quality.csv").open())
    for name in ("expected_dice", "entropy_foreground", "volume_distance", "input_extent", "input_intensity"):
        known = [float(row[name]) if row[name] else np.nan for row in (rows[0], again)]
        assert known[0] == pytest.approx(known[1], rel=0.02, abs=2e-3, nan_ok=True), name

    (experiment / "fold_0" / "final.safetensors").write_bytes(
        (experiment / "fold_1" / "final.safetensors").read_bytes()
    )
    assert load_model(experiment).quality is None, "fitted on other weights"


def test_what_cannot_be_calibrated_is_told(selfcfg, planned: Path) -> None:
    answer = selfcfg("calibrate", "901", "--workspace", planned)
    assert answer.code == 2
    assert "none in" in answer.err
    assert selfcfg("calibrate", planned / "nowhere", "--workspace", planned).code == 2
