"""Selection on a few real hippocampi: two experiments, two folds, probabilities, post-processing, prediction."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from selfcfg.cli import main
from selfcfg.io import read_label
from tests.real.test_road import TASKS, _cheaper, _few, _labels_of

SHORT = ["epochs=4", "iterations_per_epoch=10", "validation_iterations=1", "batch_size=4", "workers=0"]
SETS = [part for setting in SHORT for part in ("--set", setting)]


@pytest.mark.slow
def test_two_experiments_are_compared_and_one_predicts(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    task, root = TASKS["hippocampus"], real_data("hippocampus").parent
    images = _few(root / task.images[0], tmp_path / "images", 8)
    labels = _labels_of(root / task.labels, images, tmp_path / "labels")
    (tmp_path / "labels.json").write_text(json.dumps(task.names))
    workspace = ["--workspace", str(tmp_path / "w")]
    command = ["convert", "folder", "--id", "5", "--name", "Real", "--images", str(images), "--labels", str(labels)]
    assert main([*command, "--channels", "MRI", "--labels-json", str(tmp_path / "labels.json"), *workspace]) == 0
    raw = tmp_path / "w" / "raw" / "Dataset005_Real"
    cases = sorted(file.name.removesuffix(".nii.gz") for file in (raw / "labelsTr").iterdir())
    splits = [{"train": cases[4:], "val": cases[:4]}, {"train": cases[:4], "val": cases[4:]}]
    (raw / "splits_final.json").write_text(json.dumps(splits))
    place = [*workspace, "--jobs", "1"]
    assert main(["plan", "5", *place]) == 0
    _cheaper(tmp_path / "w")
    for name, patch in (("2d", "40,40"), ("3d_fullres", "24,32,24")):
        assert main(["train", "5", "-c", name, "--fold", "all", *SETS, "--set", f"patch_size={patch}", *place]) == 0
    assert main(["select", "5", *place]) == 0
    selected = tmp_path / "w" / "results" / raw.name / "selected"
    found = json.loads((selected / "selection.json").read_text())
    assert (found["cases"], found["subjects"], found["folds"]) == (8, 8, 2)
    assert {one["kind"] for one in found["candidates"]} >= {"single", "pair"}
    scores = {one["name"]: one["score"] for one in found["candidates"]}
    (chosen,) = [one for one in found["candidates"] if one["chosen"]]
    assert chosen["p_holm"] is None or chosen["p_holm"] >= 0.05
    assert max(scores.values()) - chosen["score"] == pytest.approx(-chosen["difference"])
    image = raw / "imagesTr" / f"{cases[0]}_0000.nii.gz"
    assert main(["predict", "5", "-i", str(image), "-o", str(tmp_path / "out"), *workspace]) == 0
    label, _ = read_label(tmp_path / "out" / f"{cases[0]}.nii.gz")
    assert set(np.unique(label)) <= {0, 1, 2}
