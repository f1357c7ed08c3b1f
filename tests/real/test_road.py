"""The road on a few real cases of every kind: volumes, pictures, two channels, nested regions, an ignore label."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from selfcfg.cli import main
from selfcfg.io import read_label
from tests.conftest import slim

SHORT = ["epochs=1", "iterations_per_epoch=2", "validation_iterations=1", "batch_size=2", "workers=0"]
SETS = [part for setting in SHORT for part in ("--set", setting)]


@dataclass(frozen=True)
class Task:
    """Which real cases, and how they are converted."""

    images: tuple[str, ...]
    labels: str
    names: dict[str, object]
    channels: str
    patch: str
    options: list[str] = field(default_factory=list)
    n_cases: int = 5
    configuration: str = "3d_fullres"


NESTED = {
    "labels": {"background": 0, "any dose": [1, 2, 3], "middle dose": [2, 3], "high dose": [3]},
    "regions_class_order": [1, 2, 3],
}
TASKS = {
    "hippocampus": Task(
        ("hippocampus/images",),
        "hippocampus/labels",
        {"background": 0, "anterior": 1, "posterior": 2},
        "MRI",
        "40,56,40",
    ),
    "ct_pet": Task(
        ("sts_sarcoma/ctpet_2ch/images",),
        "sts_sarcoma/ctpet_2ch/labels",
        {"background": 0, "tumour": 1},
        "CT,PET",
        "16,64,64",
        n_cases=4,
    ),
    "regions": Task(("openkbp_headneck_ct/images",), "openkbp_headneck_ct/labels_ptv", NESTED, "CT", "32,32,32"),
    "scribbles": Task(
        ("acdc_cardiac_mr/images",),
        "acdc_cardiac_mr/labels_scribble",
        {"background": 0, "RV": 1, "myocardium": 2, "LV": 3, "ignore": 4},
        "MRI",
        "",
        ["--subject-pattern", r"(patient\d+)"],
        6,
        "2d",
    ),
    "colour": Task(
        ("dsb2018_nuclei/images",), "dsb2018_nuclei/labels", {"background": 0, "nucleus": 1}, "R,G,B", "", [], 5, "2d"
    ),
    "x_ray": Task(
        ("cxr_lung/montgomery/images",),
        "cxr_lung/montgomery/labels",
        {"background": 0, "lung": 1},
        "XR",
        "",
        [],
        5,
        "2d",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TASKS))
def test_convert_check_train_predict_evaluate(name: str, real_data: Callable[[str], Path], tmp_path: Path) -> None:
    task = TASKS[name]
    root = real_data(task.images[0].split("/")[0]).parent
    images = [_few(root / folder, tmp_path / "images", task.n_cases) for folder in task.images]
    labels = _labels_of(root / task.labels, images[0], tmp_path / "labels")
    (tmp_path / "labels.json").write_text(json.dumps(task.names))
    workspace = ["--workspace", str(tmp_path / "w"), "--jobs", "1"]

    command = ["convert", "folder", "--id", "5", "--name", "Real", "--labels", str(labels), "--channels", task.channels]
    command += [part for folder in images for part in ("--images", str(folder))]
    assert main([*command, "--labels-json", str(tmp_path / "labels.json"), *task.options, *workspace[:2]]) == 0
    assert main(["check", "5", *workspace]) == 0
    assert main(["plan", "5", "--explain", *workspace]) == 0
    _cheaper(tmp_path / "w")
    patch = ["--set", f"patch_size={task.patch}"] if task.patch else []
    assert main(["train", "5", "-c", task.configuration, *SETS, *patch, *workspace]) == 0

    dataset = tmp_path / "w" / "raw" / "Dataset005_Real"
    run = next((tmp_path / "w" / "results" / dataset.name).iterdir())
    description = json.loads((dataset / "dataset.json").read_text())
    one = sorted((dataset / "imagesTr").iterdir())[0]
    case = re.sub(r"_\d{4}$", "", one.name.removesuffix(description["file_ending"]))
    inputs = [part for file in sorted((dataset / "imagesTr").glob(f"{case}_*")) for part in ("-i", str(file))]
    assert main(["predict", str(run), *inputs, "-o", str(tmp_path / "out"), "--no-mirroring"]) == 0
    predicted, geometry = read_label(tmp_path / "out" / f"{case}{description['file_ending']}")
    expected, reference = read_label(dataset / "labelsTr" / f"{case}{description['file_ending']}")
    assert predicted.shape == expected.shape
    assert geometry.differences(reference) == []
    assert set(np.unique(predicted)) <= set(range(len(description["labels"])))


def _cheaper(workspace: Path) -> None:
    """Networks an eighth as wide, and whole cases validated in one pass instead of eight: both are tested elsewhere."""
    (file,) = workspace.rglob("plans/standard.json")
    slim(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), "mirror_axes": []}))


def _few(source: Path, destination: Path, n_cases: int) -> Path:
    """The files of the first cases of a folder, copied."""
    files = sorted(file for file in source.iterdir() if not file.name.startswith("."))
    stems = sorted({re.sub(r"_\d{4}$", "", _stem(file)) for file in files})[:n_cases]
    destination.mkdir(parents=True)
    for file in files:
        if re.sub(r"_\d{4}$", "", _stem(file)) in stems:
            shutil.copy(file, destination / file.name)
    return destination


def _labels_of(source: Path, images: Path, destination: Path) -> Path:
    stems = {re.sub(r"_\d{4}$", "", _stem(file)) for file in images.iterdir()}
    destination.mkdir(parents=True)
    for file in source.iterdir():
        if _stem(file) in stems:
            shutil.copy(file, destination / file.name)
    return destination


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").rsplit(".", 1)[0]
