"""Images without labels: raw datasets and plain folders, brought to the plan of the dataset that is trained for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from selfcfg.dataset import Dataset
from selfcfg.engine.data.collection import Collection, Unlabelled, gather
from selfcfg.engine.data.store import Store
from selfcfg.errors import DataError, SelfcfgError, UsageError
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.io import hash_images, write_image
from selfcfg.project import Project
from selfcfg.testing import small_plan

PLAN = small_plan(3, n_channels=2)


def images(
    folder: Path, names: tuple[str, ...] = ("a", "b"), side: int = 12, channels: int = 2, ending: str = ".nii.gz"
) -> Path:
    """A folder of noise, a file a channel; pictures have one slice."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        shape = (1 if ending == ".png" else side, side, side)
        geometry = Geometry(shape=shape, spacing=(1.0, 1.0, 1.0))
        if ending == ".png":
            geometry = Geometry(shape=shape, spacing=(FLAT_SPACING, 1.0, 1.0), dimensions=2)
        rng = np.random.default_rng(number)
        for channel in range(channels):
            image = (rng.uniform(1, 200, shape) + 10 * channel).astype("uint8")[None]
            write_image(folder / f"{name}_{channel:04d}{ending}", image, geometry)
    return folder


@pytest.fixture
def project(tmp_path: Path, tiny_dataset: Dataset) -> Project:
    return Project(tiny_dataset.root, tmp_path / "preprocessed", tmp_path / "results")


def gathered(project: Project, *sets: Path | Unlabelled, alike: bool = False) -> Collection:
    asked = [one if isinstance(one, Unlabelled) else Unlabelled(images=one) for one in sets]
    return gather(project, PLAN, "small", asked, alike=alike, jobs=1)


def test_a_folder_of_images(project: Project, tmp_path: Path) -> None:
    found = gathered(project, images(tmp_path / "scans"))
    (domain,) = found.further
    assert (found.names, found.groups, domain.group) == (("Dataset901_Tiny", "scans"), ("own", "scans"), 1)
    assert (domain.training, domain.validation) == (("a", "b"), ())
    case = Store(domain.store_folder).open("a")
    assert case.label is None and case.image.shape[0] == 2
    assert abs(float(case.image[...].mean())) < 1e-3, "normalised as the plan says"


def test_a_raw_dataset_without_a_look_at_its_labels(project: Project, tmp_path: Path) -> None:
    other = tmp_path / "Dataset902_Other"
    shutil.copytree(project.root, other)
    for label in (other / "labelsTr").iterdir():
        label.write_bytes(b"nonsense")
    found = gathered(project, Unlabelled(images=other, group="related"))
    assert found.groups == ("own", "related")
    assert sorted(found.further[0].training) == [case.id for case in project.dataset.cases]


def test_of_many_cases_a_tenth_is_held_out_always_the_same(project: Project, tmp_path: Path) -> None:
    folder = images(tmp_path / "scans", tuple(f"case{index:02d}" for index in range(20)), side=4)
    (first,), (again,) = gathered(project, folder).further, gathered(project, folder).further
    assert (len(first.training), len(first.validation)) == (18, 2)
    assert not set(first.training) & set(first.validation)
    assert first == again


def test_what_is_there_is_kept(project: Project, tmp_path: Path) -> None:
    folder = images(tmp_path / "scans")
    (domain,) = gathered(project, folder).further
    before = {file: file.stat().st_mtime_ns for file in domain.store_folder.rglob("*.b2nd")}
    assert len(before) == 2
    images(tmp_path / "new", ("c",))
    for file in (tmp_path / "new").iterdir():
        shutil.copy(file, folder)
    (more,) = gathered(project, folder).further
    assert more.store_folder == domain.store_folder and more.training == ("a", "b", "c")
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_the_hash_tells_other_images_and_other_groups(project: Project, tmp_path: Path) -> None:
    folder = images(tmp_path / "scans")
    first = gathered(project, folder).hashes
    assert list(first) == ["scans"] and gathered(project, folder).hashes == first
    assert gathered(project, Unlabelled(images=folder, group="x")).hashes != first
    shutil.copy(folder / "a_0000.nii.gz", folder / "b_0000.nii.gz")
    assert gathered(project, folder).hashes != first


def test_folders_of_one_name_stay_apart(project: Project, tmp_path: Path) -> None:
    one, other = images(tmp_path / "1" / "images", ("a",)), images(tmp_path / "2" / "images", ("a",), side=10)
    found = gathered(project, one, other)
    assert found.names[1:] == found.groups[1:] == ("images", "images (2)")
    assert [Store(domain.store_folder).open("a").info.geometry.shape[0] for domain in found.further] == [12, 10]


def test_nothing_is_named_twice(project: Project, tmp_path: Path) -> None:
    folder = images(tmp_path / "scans")
    for sets in ((folder, tmp_path / "1" / ".." / "scans"), (project.root,)):
        (tmp_path / "1").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match="named twice, or the dataset"):
            gathered(project, *sets)


def test_images_of_another_size_show_as_much(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = gathered(project, images(tmp_path / "large", ("a",), side=72), images(tmp_path / "near", ("a",), side=30))
    assert "large: images are 3 times as large" in capsys.readouterr().err
    shapes = [Store(domain.store_folder).open("a").image.shape for domain in found.further]
    assert shapes == [(2, 24, 24, 24), (2, 30, 30, 30)], "the median case of the plan has 24 voxels a side"


def test_other_channels_are_for_strategies_that_draw_one(project: Project, tmp_path: Path) -> None:
    other = tmp_path / "Dataset902_Other"
    shutil.copytree(project.root, other)
    description = (other / "dataset.json").read_text()
    (other / "dataset.json").write_text(description.replace('"1": "T2"', '"1": "T2", "2": "FLAIR"'))
    for case in project.dataset.cases:
        shutil.copy(case.images[0], other / "imagesTr" / f"{case.id}_0002.nii.gz")
    with pytest.raises(DataError, match=r"case 'case_000' of Dataset902_Other: 3 channels, the plan has 2"):
        gathered(project, other)
    found = gathered(project, other, alike=True)
    assert found.own is not None
    for store, channels in ((found.own, 2), (found.further[0].store_folder, 3)):
        image = Store(store).open("case_000").image[...]
        assert image.shape[0] == channels
        np.testing.assert_allclose(image.mean((1, 2, 3)), 0, atol=0.2)
        np.testing.assert_allclose(image.std((1, 2, 3)), 1, atol=0.2)


def test_pictures_are_not_for_a_network_of_volumes(project: Project, tmp_path: Path) -> None:
    folder = images(tmp_path / "pictures", ending=".png")
    with pytest.raises(DataError, match=r"case 'a' of pictures: a 2D image, the network is 3D"):
        gathered(project, folder)


def test_a_broken_image_is_named_with_its_case(project: Project, tmp_path: Path) -> None:
    folder = images(tmp_path / "scans")
    whole = (folder / "b_0001.nii.gz").read_bytes()
    (folder / "b_0001.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SelfcfgError, match="case 'b'"):
        gathered(project, folder)


def test_cases_with_the_same_images_are_left_out(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = images(tmp_path / "scans", ("b",))
    case = project.dataset.cases[0]
    for number, file in enumerate(case.images):
        shutil.copy(file, folder / f"a_{number:04d}.nii.gz")
    found = gathered(project, folder)
    assert [domain.training for domain in found.without({"0" * 32})] == [("a", "b")]
    assert "left out" not in capsys.readouterr().err
    assert [domain.training for domain in found.without({hash_images(case)})] == [("b",)]
    assert "scans: left out a, the same images as cases of the validation" in capsys.readouterr().err
