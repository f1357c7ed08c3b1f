"""A cascade on the tiny dataset: both stages trained by one command, and predicted by one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from selfcfg.cli import main
from selfcfg.dataset import Case, Dataset
from selfcfg.engine.data.inputs import find_inputs
from selfcfg.engine.data.store import Store
from selfcfg.engine.data.stored_array import StoredArray
from selfcfg.engine.prediction.averaging import decoded, read_probabilities
from selfcfg.engine.prediction.cascade import on_grid, with_previous
from selfcfg.engine.prediction.loading import load_model
from selfcfg.engine.scoring.validation import remove_passing
from selfcfg.engine.selection.entrants import entrant_of
from selfcfg.engine.selection.held_out import held_out
from selfcfg.errors import DataError
from selfcfg.io import read_case, read_label
from selfcfg.plan import Plan
from selfcfg.project import Project
from selfcfg.workspace import Workspace
from tests.conftest import slim

pytestmark = pytest.mark.usefixtures("no_curves")

SHORT = ["epochs=1", "iterations_per_epoch=2", "validation_iterations=1", "workers=0", "precision=float32"]
SETS = [part for setting in SHORT for part in ("--set", setting)]
CASCADE = "3d_cascade_fullres"


def add_cascade(file: Path) -> None:
    """Adds a low-resolution stage and a cascade to a plan: the tiny dataset needs none."""
    content = json.loads(file.read_text())
    configurations = content["configurations"]
    full = configurations["3d_fullres"]
    coarse = {
        "spacing": [2 * mm for mm in full["spacing"]],
        "median_shape": [edge / 2 for edge in full["median_shape"]],
    }
    configurations["3d_lowres"] = {**full, **coarse, "batch_size": 2, "patch_size": full["topology"]["strides"][0]}
    factors = np.prod(full["topology"]["strides"], axis=0)
    configurations["3d_lowres"]["patch_size"] = [int(factor) * 2 for factor in factors]
    configurations["3d_fullres"]["batch_size"] = 2
    configurations[CASCADE] = {"inherits_from": "3d_fullres", "after": "3d_lowres"}
    file.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def trained(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which fold 0 of the cascade was trained."""
    workspace = tmp_path_factory.mktemp("cascade")
    shutil.copytree(tiny_dataset.root, workspace / "raw" / tiny_dataset.name)
    place = ["--workspace", str(workspace)]
    assert main(["plan", "901", "--memory", "0.05", *place]) == 0
    plan = workspace / "preprocessed" / tiny_dataset.name / "plans" / "standard-0.05GB.json"
    slim(plan)
    add_cascade(plan)
    command = ["plan-and-train", "901", "--memory", "0.05", "-c", CASCADE, "--fold", "0", "--jobs", "1", *SETS, *place]
    assert main(command) == 0
    return workspace


def experiment(workspace: Path, configuration: str) -> Path:
    return workspace / "results" / "Dataset901_Tiny" / f"supervised__standard-0.05GB__{configuration}"


@pytest.mark.slow
def test_the_first_stage_is_trained_in_all_folds_and_its_results_go_on(trained: Path) -> None:
    first, second = experiment(trained, "3d_lowres"), experiment(trained, CASCADE)
    assert sorted(path.name for path in first.glob("fold_*")) == [f"fold_{fold}" for fold in range(5)]
    record = json.loads((second / "fold_0" / "run.json").read_text())
    assert record["previous"] == first.name and len(record["previous_weights"]) == 5
    store = next(trained.glob("preprocessed/*/3d_fullres-*"))
    assert not list(trained.glob(f"preprocessed/*/{CASCADE}-*"))
    plan = Plan.read(second / "fold_0" / "plan.json")
    for case in Store(store).cases():
        (file,) = first.glob(f"fold_*/validation/{case}.nii.gz")
        brought = StoredArray(first / "next_stage" / store.name / f"{case}.b2nd", np.int16)[...]
        info = Store(store).open(case).info
        np.testing.assert_array_equal(brought, on_grid(read_label(file)[0], info, plan.configurations[CASCADE]))
        assert brought.shape == info.shape


@pytest.mark.slow
def test_one_command_predicts_with_both_stages(trained: Path, tmp_path: Path) -> None:
    images = trained / "raw" / "Dataset901_Tiny" / "imagesTs"
    run = experiment(trained, CASCADE)
    command = ["predict", str(run), "-i", str(images), "-o", str(tmp_path), "--precision", "float32"]
    assert main(command) == 0
    first = load_model(experiment(trained, "3d_lowres"), folds=[0], precision="float32")
    second = load_model(run, precision="float32", alone=True)
    for case, files in find_inputs(images, second.plan).items():
        found = read_case(Case(id=case, images=files, label=None, subject=case))
        before = first.predict(files).labels
        prepared = second.prepare(case, found.image, found.geometry)
        labels = on_grid(before, prepared.info, second.configuration)
        image = with_previous(prepared.image, labels, second.plan.labels.foreground_values)
        expected = second.predict_prepared(type(prepared)(image, None, prepared.info)).labels
        written, _ = read_label(tmp_path / f"{case}.nii.gz")
        np.testing.assert_array_equal(written, expected)


@pytest.mark.slow
def test_a_first_stage_trained_again_is_noticed(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "results", tmp_path / "results")
    run = experiment(tmp_path, CASCADE)
    first = experiment(tmp_path, "3d_lowres")
    shutil.copy(first / "fold_1" / "final.safetensors", first / "fold_0" / "final.safetensors")
    with pytest.raises(DataError, match="trained again"):
        load_model(run)
    shutil.rmtree(first)
    with pytest.raises(DataError, match="first model is not there"):
        load_model(run)


@pytest.mark.slow
def test_a_first_stage_that_is_missing_or_incomplete_is_named(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "w")
    command = ["train", "901", "-c", CASCADE, "--fold", "1", "--jobs", "1", *SETS, "--workspace", str(tmp_path / "w")]
    first = experiment(tmp_path / "w", "3d_lowres")
    shutil.rmtree(first / "fold_2")
    assert main(command) == 2
    assert "no finished fold has validated" in capfd.readouterr().err
    shutil.rmtree(first)
    assert main(command) == 2
    assert "--fold all" in capfd.readouterr().err


def test_configurations_preprocessed_alike_share_a_folder(tiny_dataset: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    shutil.copytree(tiny_dataset.root, tmp_path / "raw" / tiny_dataset.name)
    assert main(["plan", "901", "--workspace", str(tmp_path)]) == 0
    shutil.copy(next(tmp_path.glob("preprocessed/*/plans/standard.json")), file)
    add_cascade(file)
    plan, project = Plan.read(file), Project(tmp_path, tmp_path, tmp_path)
    assert project.store_folder(plan, CASCADE) == project.store_folder(plan, "3d_fullres")
    assert project.store_folder(plan, "3d_lowres") != project.store_folder(plan, "3d_fullres")


@pytest.mark.slow
def test_probabilities_of_the_second_stage_are_those_of_its_label_maps(trained: Path) -> None:
    place = experiment(trained, CASCADE)
    entrant = entrant_of(place.name, place)
    first = entrant_of(experiment(trained, "3d_lowres").name, experiment(trained, "3d_lowres"))
    assert entrant.cost > first.cost / len(first.runs), "the first stage is predicted, too"
    cases = sorted(entrant.fold_of)
    before = {case: read_label(place / "fold_0" / "validation" / f"{case}.nii.gz")[0] for case in cases}
    project = Project.of(Workspace.at(trained), "901")
    found = held_out(project, entrant, cases, keeping="passing", device="cpu", jobs=1)
    for case, files in found.items():
        labels, _ = read_label(files.labels)
        np.testing.assert_array_equal(labels, before[case])
        decided = decoded(read_probabilities(files.probabilities), entrant.plan.labels)
        assert (decided == labels).mean() > 0.999, "half precision may decide ties in another way"
    for run in entrant.runs:
        remove_passing(run)
    assert not any(files.probabilities.exists() for files in found.values())
