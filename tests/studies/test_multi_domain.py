"""The commands of docs/studies/multi-domain.md, on tiny task folders with the layout of the Decathlon's archives."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from selfcfg.dataset import Dataset
from selfcfg.splits import read_splits
from tests.studies.pages import blocks, commands, run

PAGE = "multi-domain.md"
TASKS = {
    "Task01_BrainTumour": ("FLAIR", "T1w", "t1gd", "T2w"),
    "Task02_Heart": ("MRI",),
    "Task03_Liver": ("CT",),
    "Task04_Hippocampus": ("MRI",),
    "Task05_Prostate": ("T2", "ADC"),
    "Task06_Lung": ("CT",),
    "Task07_Pancreas": ("CT",),
    "Task08_HepaticVessel": ("CT",),
    "Task09_Spleen": ("CT",),
    "Task10_Colon": ("CT",),
}
N_CASES = 5
SHAPE = (20, 22, 18)  # x, y, z, as nibabel has them


def write_task(root: Path, name: str, channels: tuple[str, ...]) -> None:
    """A task folder as the archives hold it: 4D where there are several channels, test images, files of macOS."""
    stem = name.partition("_")[2].lower()
    key = [int(name[4:6]), 21]
    rng = np.random.Generator(np.random.Philox(key=key))
    training, test = [], []
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / name / folder).mkdir(parents=True)
    for number in range(N_CASES + 1):
        part = "Tr" if number < N_CASES else "Ts"
        file = f"{stem}_{number:03d}.nii.gz"
        label = np.zeros(SHAPE, np.uint8)
        low = rng.integers(3, 7, 3)
        label[tuple(slice(start, start + 9) for start in low)] = 1
        image = rng.normal(100, 20, (*SHAPE, len(channels))) + 150 * label[..., np.newaxis]
        affine = np.diag([1.0, 1.0, 1.4, 1.0])
        stored = image.astype(np.int16) if len(channels) > 1 else image[..., 0].astype(np.int16)
        nib.save(nib.Nifti1Image(stored, affine), root / name / f"images{part}" / file)
        (root / name / f"images{part}" / f"._{file}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
        if part == "Ts":
            test.append(f"./imagesTs/{file}")
            continue
        nib.save(nib.Nifti1Image(label, affine), root / name / "labelsTr" / file)
        (root / name / "labelsTr" / f"._{file}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
        training.append({"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"})
    content = {
        "name": stem,
        "description": "random numbers",
        "reference": "none",
        "licence": "CC-BY-SA 4.0",
        "release": "1.0 04/05/2018",
        "tensorImageSize": "4D" if len(channels) > 1 else "3D",
        "modality": {str(index): channel for index, channel in enumerate(channels)},
        "labels": {"0": "background", "1": "structure"},
        "numTraining": len(training),
        "numTest": len(test),
        "training": training,
        "test": test,
    }
    (root / name / "dataset.json").write_text(json.dumps(content))


@pytest.mark.slow
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, channels in TASKS.items():
        write_task(tmp_path / "msd", name, channels)
    monkeypatch.chdir(tmp_path)
    data, *studies = blocks(PAGE, "sh")
    for arguments in commands(data, tmp_path):
        run(arguments)
    for name, channels in TASKS.items():
        dataset = Dataset.open(tmp_path / "workspace" / "raw" / f"Dataset0{name[4:]}")
        assert len(dataset.cases) == N_CASES
        assert dataset.description.channels == channels

    for arguments in commands("\n".join(studies), tmp_path):
        run(arguments, patch="16,16,16")
    results = tmp_path / "workspace" / "results" / "Dataset002_Heart"
    pretrained = results / "hierarchical__standard-24GB__3d_fullres" / "fold_0"
    assert (pretrained / "final.safetensors").is_file()
    held_out = read_splits(tmp_path / "workspace" / "preprocessed" / "Dataset002_Heart" / "splits_final.json")[0].val
    expected = {
        "heart-multi": ("scratch", "hierarchical"),
        "heart-single": ("scratch", "masked", "contrastive", "hierarchical"),
    }
    for name, arms in expected.items():
        study = tmp_path / "studies" / name
        lines = [json.loads(line) for line in (study / "results.jsonl").read_text().splitlines()]
        assert [line["arm"] for line in lines] == list(arms)
        for line in lines:
            assert set(line["cases"]) == set(held_out)
            assert not {*line["train"], *line["kept_out"]} & set(held_out)
        assert (study / "report.md").is_file()
        for arm in arms[1:]:
            (run_file,) = study.glob(f"runs/{arm}__*/fold_0/run.json")
            record = json.loads(run_file.read_text())
            assert record["status"] == "finished"
            assert not set(record["train"]) & set(held_out)
            assert len(record["unlabelled"]) == (len(TASKS) - 1 if name == "heart-multi" else 0)
