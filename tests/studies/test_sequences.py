"""The commands of docs/studies/sequences.md, on tiny volumes with the names and values of MM-WHS 2017."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from selfcfg.dataset import Dataset
from selfcfg.io import read_label
from selfcfg.splits import read_splits
from tests.studies.pages import blocks, commands, run

pytestmark = pytest.mark.usefixtures("no_curves")

PAGE = "sequences.md"
VALUES = (500, 600, 420, 550, 205, 820, 850)
SHAPE = (24, 26, 14)  # x, y, z, as nibabel has them
N_CASES = 5


def draw(number: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """An image and its label with every structure as a bar of its own (X, Y, Z)."""
    rng = np.random.Generator(np.random.Philox(key=[number, 22]))
    label = np.zeros(SHAPE, np.int16)
    for place, value in enumerate(VALUES):
        label[3 * place + 1 : 3 * place + 4, 5 + number % 3 : 20, 2:12] = value
    image = rng.normal(40, 15, SHAPE) + np.where(label > 0, 80 + label / 10, 0)
    return image.astype(np.int16), label


def write_set(root: Path, modality: str, first: int) -> None:
    """``MODALITY_train/MODALITY_train_1001_image.nii.gz`` beside its label; one MR label holds 421."""
    folder = root / f"{modality}_train"
    folder.mkdir(parents=True)
    affine = np.diag([1.0, 1.0, 1.6, 1.0])
    for number in range(N_CASES):
        image, label = draw(first + number)
        if (modality, number) == ("mr", 3):
            label[9, 9, 5:8] = 421
        stem = folder / f"{modality}_train_{first + number}"
        nib.save(nib.Nifti1Image(image, affine), f"{stem}_image.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), f"{stem}_label.nii.gz")


@pytest.mark.slow
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path / "mmwhs", "ct", 1001)
    write_set(tmp_path / "mmwhs", "mr", 1001)
    monkeypatch.chdir(tmp_path)
    (names,) = blocks(PAGE, "json")
    (mend,) = blocks(PAGE, "python notest")
    moving, converting, studying = blocks(PAGE, "sh")
    (tmp_path / "mmwhs.json").write_text(names)
    assert commands(moving, tmp_path) == []

    (convert_ct, convert_mr, *checks) = commands(converting, tmp_path)
    run(convert_ct)
    capfd.readouterr()
    run(convert_mr, code=1)
    told = capfd.readouterr().err
    assert "case 'mr_train_1004_image': its label has 421 (3 voxels), not declared in mmwhs.json" in told
    exec(compile(mend, PAGE, "exec"), {})
    for arguments in (convert_mr, *checks):
        run(arguments)

    for name, declared in (("Dataset021_WholeHeartCT", "CT"), ("Dataset022_WholeHeartMR", "MR")):
        dataset = Dataset.open(tmp_path / "workspace" / "raw" / name)
        assert dataset.description.channels == (declared,)
        assert len(dataset.cases) == N_CASES
        assert dataset.labels.targets.keys() == json.loads(names).keys() - {"background"}
        for case in dataset.cases:
            assert case.label is not None
            assert set(np.unique(read_label(case.label)[0])) == set(range(8))

    for arguments in commands(studying, tmp_path):
        run(arguments, patch="24,24" if "2d" in arguments else "8,16,16")
    held_out = read_splits(tmp_path / "workspace" / "preprocessed" / "Dataset021_WholeHeartCT" / "splits_final.json")[0]
    for name in ("heart-ct", "heart-ct-3d"):
        study = tmp_path / "studies" / name
        lines = [json.loads(line) for line in (study / "results.jsonl").read_text().splitlines()]
        assert [line["arm"] for line in lines] == ["scratch", "contrastive", "masked", "sequential"]
        for line in lines:
            assert set(line["cases"]) == set(held_out.val)
            assert not {*line["train"], *line["kept_out"]} & set(held_out.val)
        for record in study.glob("runs/*/fold_0/run.json"):
            assert set(json.loads(record.read_text())["train"]) == set(held_out.train)
        assert (study / "report.md").is_file()
