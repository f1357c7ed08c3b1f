from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from selfcfg.convert.synthetic import make_synthetic
from selfcfg.dataset import Dataset, channel_files
from selfcfg.errors import UsageError
from selfcfg.io import read_image, read_label


def files_of(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


def test_it_is_a_complete_dataset_in_the_standard_format(tiny_dataset: Dataset) -> None:
    root = tiny_dataset.root
    assert [case.id for case in tiny_dataset.cases] == [f"case_{index:03d}" for index in range(8)]
    assert {case: sorted(files) for case, files in channel_files(root / "imagesTs", ".nii.gz").items()} == {
        "test_000": [0, 1],
        "test_001": [0, 1],
    }
    assert sorted(file.name for file in (root / "labelsTs").iterdir()) == ["test_000.nii.gz", "test_001.nii.gz"]
    content = json.loads((root / "dataset.json").read_text())
    assert content["numTraining"] == 8 == len(list((root / "labelsTr").iterdir()))
    assert content["labels"] == {"background": 0, "organ": 1, "lesion": 2}


def test_every_case_holds_both_classes_on_one_grid_of_its_own(tiny_dataset: Dataset) -> None:
    geometries = []
    for case in tiny_dataset.cases:
        label, geometry = read_label(case.label)
        for file in case.images:
            image, other = read_image(file)
            assert image.shape == (1, *geometry.shape) and not geometry.differences(other)
        assert set(np.unique(label)) == {0, 1, 2}
        assert all((label == value).sum() > 50 for value in (1, 2))
        assert all(np.abs(np.array(geometry.shape) / (14, 24, 20) - 1) < 0.2)
        assert geometry.spacing[0] > 1.5 * geometry.spacing[1]
        geometries.append(geometry)
    assert len({geometry.spacing for geometry in geometries}) == len({geometry.origin for geometry in geometries}) == 8
    assert len({geometry.shape for geometry in geometries}) > 4


def test_the_lesion_touches_the_organ_and_each_is_one_piece(tiny_dataset: Dataset) -> None:
    for case in tiny_dataset.cases:
        label, _ = read_label(case.label)
        assert ndimage.label(label == 2)[1] == 1
        assert ndimage.label(label > 0)[1] == 1


def test_neither_channel_alone_tells_the_classes_apart_as_well_as_both(tiny_dataset: Dataset) -> None:
    organ, lesion = [], []
    for case in tiny_dataset.cases:
        label, _ = read_label(case.label)
        image = np.concatenate([read_image(file)[0] for file in case.images]).astype(float)
        organ.append(image[:, label == 1].mean(axis=1))
        lesion.append(image[:, label == 2].mean(axis=1))
    assert (np.array(organ)[:, 0] > np.array(lesion)[:, 0]).all()
    assert (np.array(organ)[:, 1] < np.array(lesion)[:, 1]).all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    made = [
        make_synthetic(tmp_path / name, n_cases=2, n_test=1, seed=seed, mean_shape=(8, 16, 14)).root
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    first, second, third = (files_of(root) for root in made)
    assert first == second
    label = "labelsTr/case_000.nii.gz"
    assert first[label] != third[label] != first["labelsTr/case_001.nii.gz"]


def test_more_cases_leave_the_first_ones_as_they_are(tmp_path: Path) -> None:
    few = files_of(make_synthetic(tmp_path / "few", n_cases=1, mean_shape=(8, 16, 14)).root)
    many = files_of(make_synthetic(tmp_path / "many", n_cases=3, n_test=1, mean_shape=(8, 16, 14)).root)
    assert all(many[name] == content for name, content in few.items() if name != "dataset.json")


@pytest.mark.parametrize(("color", "channels"), [(False, 2), (True, 3)])
def test_pictures(tmp_path: Path, color: bool, channels: int) -> None:
    dataset = make_synthetic(tmp_path / "flat", n_cases=2, dimensions=2, mean_shape=(1, 40, 48), color=color)
    assert len(dataset.description.channels) == channels
    for case in dataset.cases:
        assert len(case.images) == (1 if color else 2)
        label, geometry = read_label(case.label)
        assert geometry.dimensions == 2 and label.shape[0] == 1
        assert set(np.unique(label)) == {0, 1, 2}
        for file in case.images:
            image, _ = read_image(file)
            assert image.dtype == np.uint8 and image.shape == (3 if color else 1, *label.shape)


@pytest.mark.parametrize("wrong", [{"n_cases": 0}, {"dimensions": 4}, {"color": True}])
def test_arguments_that_cannot_be_used(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        make_synthetic(tmp_path / "new", **{"n_cases": 1, **wrong})
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="it exists already"):
        make_synthetic(tmp_path / "there", n_cases=1)
    assert [file.name for file in tmp_path.iterdir()] == ["there"]
