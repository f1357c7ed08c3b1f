"""What calibration makes of a short training on real images: better probabilities, and an order of cases."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from selfcfg.cli import main
from tests.conftest import slim

N_CASES, N_NEW = 36, 2
SETS = ["epochs=6", "iterations_per_epoch=25", "validation_iterations=1", "patch_size=56,40", "batch_size=12"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_curves")
def test_the_order_of_cases_is_told_by_networks_that_saw_none_of_them(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    root = real_data("hippocampus")
    files = sorted((root / "images").glob("*.nii.gz"))[: N_CASES + N_NEW]
    for file in files[:N_CASES]:
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir(exist_ok=True)
            shutil.copy(root / kind / file.name, tmp_path / kind / file.name)
    (tmp_path / "labels.json").write_text(json.dumps({"background": 0, "anterior": 1, "posterior": 2}))
    place = ["--workspace", str(tmp_path / "w")]
    given = ["--images", str(tmp_path / "images"), "--labels", str(tmp_path / "labels"), "--channels", "MRI"]
    command = ["convert", "folder", "--id", "4", "--name", "H", *given]
    assert main([*command, "--labels-json", str(tmp_path / "labels.json"), *place]) == 0
    assert main(["plan", "4", *place, "--jobs", "1"]) == 0
    (plan,) = (tmp_path / "w").rglob("plans/standard.json")
    slim(plan)
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "mirror_axes": []}))
    cases = [file.name.removesuffix(".nii.gz") for file in files[:N_CASES]]
    halves = [cases[::2], cases[1::2]]
    raw = tmp_path / "w" / "raw" / "Dataset004_H"
    (raw / "splits_final.json").write_text(
        json.dumps([{"train": halves[1 - fold], "val": halves[fold]} for fold in range(2)])
    )
    sets = [part for one in (*SETS, "workers=0") for part in ("--set", one)]
    assert main(["train", "4", "-c", "2d", "--fold", "0,1", *sets, *place, "--jobs", "1"]) == 0
    assert main(["calibrate", "4", *place]) == 0
    (experiment,) = (tmp_path / "w" / "results" / "Dataset004_H").iterdir()
    quality = json.loads((experiment / "quality.json").read_text())
    calibration = json.loads((experiment / "calibration.json").read_text())
    assert quality["n_subjects"] == N_CASES
    assert quality["rank_p"] < 0.05, quality["reason"]
    assert calibration["after"]["nll"] < calibration["before"]["nll"], calibration["reason"]

    (tmp_path / "new").mkdir()
    for file in files[N_CASES:]:
        shutil.copy(file, tmp_path / "new" / file.name)
    out = tmp_path / "out"
    assert main(["predict", str(experiment), "-i", str(tmp_path / "new"), "-o", str(out), "--uncertainty"]) == 0
    rows = list(csv.DictReader((out / "quality.csv").open()))
    assert len(rows) == N_NEW
    assert len(list((out / "uncertainty").iterdir())) == 2 * N_NEW
