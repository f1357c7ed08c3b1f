"""Task folders of the Medical Segmentation Decathlon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from selfcfg.convert.msd import convert_msd
from selfcfg.engine.checks.check import check
from selfcfg.errors import DataError, SelfcfgError, UsageError
from selfcfg.io import read_case, read_image


def voxels(number: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.Generator(np.random.Philox(key=[number, 5])).integers(0, 900, shape).astype(np.int16)


def save(path: Path, array: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([0.8, 0.8, 4.0, 1.0])
    affine[:3, 3] = [-30, -40, 50]
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Two channels in a fourth axis, as in Task05_Prostate."""
    root = tmp_path / "Task05_Prostate"
    training, test = [], []
    for number in range(3):
        save(root / "imagesTr" / f"prostate_0{number}.nii.gz", voxels(number, (6, 7, 5, 2)))
        save(root / "labelsTr" / f"prostate_0{number}.nii.gz", (voxels(number, (6, 7, 5)) % 3).astype(np.uint8))
        name = f"prostate_0{number}.nii.gz"
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    save(root / "imagesTs" / "prostate_00.nii.gz", voxels(9, (6, 7, 5, 2)))
    test.append("./imagesTs/prostate_00.nii.gz")
    (root / "imagesTr" / "._prostate_00.nii.gz").write_bytes(b"mac")
    content = {
        "name": "PROSTATE",
        "licence": "CC-BY-SA 4.0",
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "numTraining": 3,
        "training": training,
        "test": test,
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def edit(task: Path, **change: Any) -> None:
    content = json.loads((task / "dataset.json").read_text())
    (task / "dataset.json").write_text(json.dumps(content | change))


def test_channels_are_split_and_the_rest_is_taken_over(task: Path, tmp_path: Path) -> None:
    dataset = convert_msd(task, tmp_path / "raw" / "Dataset005_Prostate")
    assert [finding for finding in check(dataset.root, 1) if finding.severity == "error"] == []
    assert dataset.description.channels == ("T2", "ADC")
    assert dataset.description.labels == {"background": 0, "PZ": 1, "TZ": 2}
    assert [case.id for case in dataset.cases] == ["prostate_00", "prostate_01", "prostate_02"]
    for number, case in enumerate(dataset.cases):
        found = read_case(case)
        assert np.array_equal(found.image, voxels(number, (6, 7, 5, 2)).T)
        assert found.geometry == read_image(task / "imagesTr" / f"{case.id}.nii.gz")[1]
        assert case.label is not None
        assert case.label.read_bytes() == (task / "labelsTr" / f"{case.id}.nii.gz").read_bytes()
    names = sorted(path.name for path in (dataset.root / "imagesTs").iterdir())
    assert names == ["prostate_00_0000.nii.gz", "prostate_00_0001.nii.gz"]
    found, _ = read_image(dataset.root / "imagesTs" / names[1])
    assert np.array_equal(found[0], voxels(9, (6, 7, 5, 2)).T[1])
    assert json.loads((dataset.root / "dataset.json").read_text())["licence"] == "CC-BY-SA 4.0"


def test_images_of_one_channel_stay_byte_for_byte(task: Path, tmp_path: Path) -> None:
    for path in [*task.glob("imagesTr/p*"), *task.glob("imagesTs/p*")]:
        save(path, voxels(4, (6, 7, 5)) + len(path.name) + int(path.name[9:11]))
    edit(task, modality={"0": "MRI"})
    dataset = convert_msd(task, tmp_path / "Dataset005_Prostate")
    for case in dataset.cases:
        assert case.images[0].read_bytes() == (task / "imagesTr" / f"{case.id}.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality": {"0": "T2"}}, r"1 channels in 'modality', but case 'prostate_00' has 2"),
        ({"modality": "MRI"}, "'modality' is 'MRI'"),
        (
            {"labels": {"0": "background", "1": "PZ"}},
            r"case 'prostate_00': its label has 2 \(\d+ voxels\), not declared",
        ),
        ({"training": []}, "no list of 'training' cases"),
        ({"training": ["a.nii.gz"]}, "'training' entry 'a.nii.gz' is not"),
        ({"training": [{"image": "imagesTr/no.nii.gz", "label": "labelsTr/no.nii.gz"}]}, "case 'no': there is no file"),
        ({"test": ["../outside.nii.gz"]}, "case 'outside': .* leaves the task folder"),
        ({"test": [3]}, "'test' entry 3 is not a file name"),
    ],
)
def test_wrong_tasks_are_refused_and_leave_nothing(
    task: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    edit(task, **change)
    with pytest.raises(SelfcfgError, match=message):
        convert_msd(task, tmp_path / "raw" / "Dataset005_Prostate")
    assert not (tmp_path / "raw").exists()


def test_a_case_listed_twice_is_refused(task: Path, tmp_path: Path) -> None:
    entry = {"image": "./imagesTr/prostate_01.nii.gz", "label": "./labelsTr/prostate_01.nii.gz"}
    edit(task, training=[entry, entry])
    with pytest.raises(DataError, match="case 'prostate_01' is listed twice"):
        convert_msd(task, tmp_path / "Dataset005_Prostate")


def test_a_damaged_file_names_its_case(task: Path, tmp_path: Path) -> None:
    path = task / "imagesTr" / "prostate_01.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"case 'prostate_01': .*cut short"):
        convert_msd(task, tmp_path / "Dataset005_Prostate")


def test_what_is_not_listed_is_said(task: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = json.loads((task / "dataset.json").read_text())
    edit(task, training=content["training"][:2])
    assert len(convert_msd(task, tmp_path / "Dataset005_Prostate").cases) == 2
    assert "left out 1 images that dataset.json does not list: prostate_02.nii.gz" in capfd.readouterr().err


def test_not_a_task_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no dataset\.json in it; give the folder of one task"):
        convert_msd(tmp_path, tmp_path / "Dataset005_X")
