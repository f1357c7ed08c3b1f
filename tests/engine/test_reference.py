"""The labelled reference dataset: brought to the plan of another one, with labels of its own meaning."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from selfcfg.convert.synthetic import make_synthetic
from selfcfg.dataset import Dataset
from selfcfg.engine.data.batches import Batches
from selfcfg.engine.data.collection import Reference, gather_reference
from selfcfg.engine.data.source import Source
from selfcfg.engine.data.store import Store
from selfcfg.engine.trainer import Need, Settings
from selfcfg.errors import DataError, UsageError
from selfcfg.io import hash_images, read_label, write_label
from selfcfg.project import Project
from selfcfg.testing import CPU, small_plan

PLAN = small_plan(3, n_channels=2)


@pytest.fixture
def project(tmp_path: Path, tiny_dataset: Dataset) -> Project:
    return Project(tiny_dataset.root, tmp_path / "preprocessed", tmp_path / "results")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases whose organ and lesion are two sides of one thing; copy the folder before changing it."""
    root = tmp_path_factory.mktemp("raw") / "Dataset902_Other"
    make_synthetic(root, n_cases=4, seed=3, mean_shape=(14, 24, 20))
    relabelled(root, {"background": 0, "left thing": 1, "right thing": 2})
    return root


def relabelled(root: Path, labels: dict[str, int]) -> None:
    description = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({**description, "labels": labels}))


def gathered(project: Project, folder: Path) -> Reference:
    return gather_reference(project, PLAN, "small", folder, jobs=1)


def test_it_comes_with_its_own_labels_and_holds_some_out(project: Project, other: Path) -> None:
    found = gathered(project, other)
    assert found.name == "Dataset902_Other" and found.plan.labels.targets == {"left thing": (1,), "right thing": (2,)}
    assert (len(found.domain.training), len(found.domain.validation)) == (3, 1), "at least one, of three or more"
    case = Store(found.domain.store_folder).open(found.domain.training[0])
    assert case.label is not None and set(np.unique(case.label[...])) >= {0, 1, 2}
    assert set(case.locations) == {"left thing", "right thing"}
    assert abs(float(case.image[...].mean())) < 1e-2, "normalised as the plan says"
    assert project.preprocessed / "reference" in found.domain.store_folder.parents
    assert gathered(project, other) == found


def test_left_and_right_are_not_exchanged(project: Project, other: Path, tmp_path: Path) -> None:
    assert PLAN.mirror_axes == (0, 1, 2)
    assert gathered(project, other).plan.mirror_axes == (0, 1)
    plain = Path(shutil.copytree(other, tmp_path / "plain"))
    relabelled(plain, {"background": 0, "thing": 1, "other": 2})
    assert gathered(project, plain).plan.mirror_axes == (0, 1, 2)


def test_the_hash_tells_other_labels_and_other_meanings(project: Project, other: Path, tmp_path: Path) -> None:
    first = gathered(project, other).hash
    again = Path(shutil.copytree(other, tmp_path / "again" / other.name))
    assert gathered(project, again).hash == first
    file = next((again / "labelsTr").iterdir())
    label, geometry = read_label(file)
    write_label(file, 2 - label, geometry)
    changed = gathered(project, again).hash
    relabelled(again, {"background": 0, "one": 1, "two": 2})
    assert len({first, changed, gathered(project, again).hash}) == 3


def test_validation_images_of_the_target_are_left_out(
    project: Project, tmp_path: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed, seen = Path(shutil.copytree(other, tmp_path / "mixed")), project.dataset.cases[0]
    for number, file in enumerate(seen.images):
        shutil.copy(file, mixed / "imagesTr" / f"a_{number:04d}.nii.gz")
    shutil.copy(seen.label, mixed / "labelsTr" / "a.nii.gz")
    found = gathered(project, mixed)
    assert "a" in (*found.domain.training, *found.domain.validation)
    domain = found.without({hash_images(seen)}).domain
    assert "a" not in (*domain.training, *domain.validation)
    assert "mixed: left out a, the same images as cases of the validation" in capsys.readouterr().err


def test_batches_have_the_reference_s_labels(project: Project, other: Path) -> None:
    relabelled_root = Path(shutil.copytree(other, project.preprocessed.parent / "ignoring"))
    relabelled(relabelled_root, {"background": 0, "thing": 1, "ignore": 2})
    found = gathered(project, relabelled_root)
    source = Source((found.domain,), Need(reference=True), plan=found.plan)
    settings = Settings(workers=0, foreground_fraction=0, augmentation="none")
    configuration = PLAN.configurations["small"].model_copy(update={"patch_size": (1, 1, 1), "batch_size": 20})
    with Batches({"reference": source}, settings, configuration, PLAN, CPU, 0) as batches:
        made = [one["reference"] for one in batches.training(0, 6)]
    drawn = torch.cat([one.labels() for one in made]).unique()
    assert drawn.tolist() == [0, 1], "patches lie on voxels that the reference has annotated"
    assert {case for one in made for case in one.cases} <= set(found.domain.training)


def test_what_cannot_guide_is_said(project: Project, other: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it is the dataset that is trained for"):
        gathered(project, project.root / ".." / project.root.name)
    with pytest.raises(UsageError, match=r"no dataset.json.*convert folder"):
        gathered(project, other / "imagesTr")
    bare = Path(shutil.copytree(other, tmp_path / "bare"))
    next((bare / "labelsTr").glob("case_001*")).unlink()
    with pytest.raises(DataError, match="no label of 1 case: case_001"):
        gathered(project, bare)
    grey = tmp_path / "grey"
    make_synthetic(grey, n_cases=3, dimensions=2, mean_shape=(1, 24, 24), color=True)
    with pytest.raises(DataError, match="3 channels, the plan has 2"):
        gathered(project, grey)
