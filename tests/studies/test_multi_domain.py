"""The commands of docs/studies/multi-domain.md, on tiny task folders with the layout of the Decathlon's archives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfcfg.dataset import Dataset
from selfcfg.splits import read_splits
from tests.studies.decathlon import N_CASES, write_task
from tests.studies.pages import blocks, commands, run

pytestmark = pytest.mark.usefixtures("no_curves")

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
