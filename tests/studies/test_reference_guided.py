"""The commands of docs/studies/reference-guided.md, on tiny sets of the real layouts."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from selfcfg.dataset import Dataset
from tests.studies.decathlon import N_CASES, write_task
from tests.studies.pages import blocks, commands, run

pytestmark = pytest.mark.usefixtures("no_curves")

PAGE = "reference-guided.md"
TASKS = ("Task03_Liver", "Task06_Lung", "Task07_Pancreas", "Task08_HepaticVessel", "Task09_Spleen", "Task10_Colon")
SHAPE = (20, 22, 18)

SWITCHED = {
    "pretext": (None, 0.0, "sum"),
    "reference": (0.0, 1.0, "sum"),
    "both": (None, 1.0, "sum"),
    "guided": (None, 1.0, "fish"),
}
"""By arm of the trainer `reference_guided`: the weights of both tasks, and how they are matched."""


def write_volume(path: Path, number: int, n_labels: int | None) -> None:
    """An image, or where a number of labels is given a label map with bars of each of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.Generator(np.random.Philox(key=[number, 23]))
    voxels = rng.normal(0, 30, SHAPE).astype(np.int16)
    if n_labels is not None:
        voxels = np.zeros(SHAPE, np.uint8)
        for value in range(1, n_labels + 1):
            voxels[value + 2, 4:16, 3:12] = value
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 1.4, 1.0])), path)


def write_sets(root: Path) -> None:
    """Decathlon tasks, KiTS19 with a test case, BTCV, and images without labels."""
    for name in TASKS:
        write_task(root / "msd", name, ("CT",))
    for number in range(N_CASES):
        case = root / "kits19" / "data" / f"case_{number:05d}"
        write_volume(case / "imaging.nii.gz", number, None)
        write_volume(root / "btcv" / "img" / f"img{number + 1:04d}.nii.gz", 50 + number, None)
        write_volume(root / "amos_unlabelled" / f"amos_{7000 + number}.nii.gz", 90 + number, None)
        write_volume(root / "btcv" / "label" / f"label{number + 1:04d}.nii.gz", number, 13)
        if number < N_CASES - 1:
            write_volume(case / "segmentation.nii.gz", number, 2)


@pytest.mark.slow
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sets(tmp_path)
    monkeypatch.chdir(tmp_path)
    (names,) = blocks(PAGE, "json")
    (tmp_path / "btcv.json").write_text(names)
    *converting, planning, training, studying = blocks(PAGE, "sh")
    for block in converting:
        for arguments in commands(block, tmp_path):
            run(arguments)
    raw = tmp_path / "workspace" / "raw"
    found = {folder.name: Dataset.open(folder) for folder in raw.iterdir()}
    assert len(found) == 8
    assert len(found["Dataset030_KiTS"].cases) == N_CASES - 1
    assert found["Dataset030_KiTS"].labels.regions_class_order == (1, 2)
    assert found["Dataset031_BTCV"].labels.targets == {
        name: (value,) for name, value in json.loads(names).items() if value
    }
    for arguments in commands(f"{planning}\n{training}\n{studying}", tmp_path):
        run(arguments, patch="16,16,16")
    results = tmp_path / "workspace" / "results" / "Dataset009_Spleen"
    first, tuned = (
        json.loads((results / name / "fold_0" / "run.json").read_text())
        for name in ("reference_guided__standard-24GB__3d_fullres", "supervised__standard-24GB__3d_fullres__guided")
    )
    assert list(first["reference"]) == ["Dataset031_BTCV"] and list(first["unlabelled"]) == ["amos_unlabelled"]
    assert tuned["taken_over"]["taken"] == ["encoder", "decoder"] and len(tuned["train"]) < len(first["train"])

    study = tmp_path / "studies" / "spleen"
    lines = [json.loads(line) for line in (study / "results.jsonl").read_text().splitlines()]
    assert [line["arm"] for line in lines] == ["scratch", "masked", "contrastive", *SWITCHED]
    assert all(not {*line["train"], *line["kept_out"]} & set(line["cases"]) for line in lines)
    for arm, (pretext, reference, matching) in SWITCHED.items():
        (file,) = study.glob(f"runs/reference_guided__*__{arm}-seed0/fold_0/run.json")
        record = json.loads(file.read_text())
        assert list(record["unlabelled"]) == ["amos_unlabelled"] and list(record["reference"]) == ["Dataset031_BTCV"]
        settings = [record["settings"][key] for key in ("pretext_weight", "reference_weight", "matching")]
        assert settings == [pretext, reference, matching]
    for arm in ("masked", "contrastive"):
        (file,) = study.glob(f"runs/{arm}__*__{arm}-seed0/fold_0/run.json")
        record = json.loads(file.read_text())
        assert list(record["unlabelled"]) == ["amos_unlabelled"] and not record["reference"]
