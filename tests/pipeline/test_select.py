"""From two trained experiments to a selected model, and to its predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import selfcfg as package
from selfcfg.cli import main
from selfcfg.dataset import Dataset
from selfcfg.engine.checkpoint import load_weights, save_weights
from selfcfg.engine.data.inputs import find_inputs
from selfcfg.engine.prediction.averaging import add_weighted, decoded
from selfcfg.engine.prediction.ensemble import Ensemble
from selfcfg.engine.prediction.loading import load_model
from selfcfg.engine.prediction.postprocessing import Step, postprocessed
from selfcfg.engine.prediction.selected import SelectedModel, load_selected
from selfcfg.engine.scoring import validation
from selfcfg.engine.selection.entrants import Entrant
from selfcfg.engine.selection.held_out import held_out
from selfcfg.engine.selection.select import Wanted, select
from selfcfg.errors import DataError, UsageError
from selfcfg.io import read_label
from selfcfg.nets.unet import build_parts
from selfcfg.plan import Plan
from selfcfg.project import Project
from selfcfg.runs import RunRecord
from selfcfg.workspace import Workspace
from tests.conftest import slim

pytestmark = [pytest.mark.usefixtures("no_curves"), pytest.mark.slow]

SHORT = ["epochs=1", "iterations_per_epoch=1", "validation_iterations=1", "batch_size=2", "workers=0"]
SETS = [part for setting in [*SHORT, "precision=float32"] for part in ("--set", setting)]
CONFIGURATIONS = ("2d", "3d_fullres")


@pytest.fixture(scope="module")
def trained(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which two configurations were trained in both of two folds; copy it before changing it."""
    workspace = tmp_path_factory.mktemp("select")
    raw = workspace / "raw" / tiny_dataset.name
    shutil.copytree(tiny_dataset.root, raw)
    cases = [case.id for case in tiny_dataset.cases]
    halves = [cases[:4], cases[4:]]
    splits = [{"train": halves[1 - fold], "val": halves[fold]} for fold in (0, 1)]
    (raw / "splits_final.json").write_text(json.dumps(splits))
    place = ["--jobs", "1", "--workspace", str(workspace)]
    assert main(["plan", "901", *place]) == 0
    file = workspace / "preprocessed" / tiny_dataset.name / "plans" / "standard.json"
    slim(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), "mirror_axes": []}))
    for name in CONFIGURATIONS:
        train = ["train", "901", "-c", name, "--fold", "all", *SETS, *place]
        assert main(train) == 0
        for file in workspace.rglob(f"*__{name}/fold_*/final.safetensors"):
            outspoken(file, name)
        assert main([*train, "--resume"]) == 0, "it is validated again with the other weights"
    return workspace


def outspoken(file: Path, name: str) -> None:
    """Changes weights so that they find every class in many places: a few steps find background alone."""
    plan = Plan.read(file.parent / "plan.json")
    parts = build_parts(plan.configuration(name).topology, len(plan.channels), plan.labels.n_outputs)
    notes = load_weights(file, parts)
    with torch.no_grad():
        for key, weight in parts["head"].named_parameters():
            weight.mul_(0 if key.endswith("bias") else 40)
    save_weights(file, parts, notes)


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "w"))


def project(workspace: Path) -> Project:
    return Project.of(Workspace.at(workspace), "901")


def experiment(workspace: Path, configuration: str) -> Path:
    return project(workspace).results / f"supervised__standard__{configuration}"


def probabilities(workspace: Path) -> list[Path]:
    return sorted(project(workspace).results.rglob("validation/*.npz"))


Answer = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Answer:
    """Runs a command line with --json: exit code, answer, and what it told people."""

    def run(*arguments: object) -> tuple[int, dict[str, Any], str]:
        capfd.readouterr()
        code = main([*map(str, arguments), "--json"])
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return code, json.loads(said.out.strip().splitlines()[-1]), said.err

    return run


def test_select_compares_all_and_says_why(workspace: Path, command: Answer) -> None:
    code, answer, told = command("select", 901, "--jobs", 1, "--workspace", workspace)
    assert code == 0, told
    folder = project(workspace).results / "selected"
    assert answer["model"] == str(folder)
    found = json.loads((folder / "selection.json").read_text())
    singles = {one["name"]: one for one in found["candidates"] if one["kind"] == "single"}
    assert len(singles) == 2 and sum(one["kind"] == "pair" for one in found["candidates"]) == 1
    for name in CONFIGURATIONS:
        scores = json.loads((experiment(workspace, name) / "cross_validation" / "summary.json").read_text())
        one = singles[experiment(workspace, name).name]
        assert one["dice"] == pytest.approx(scores["foreground_mean"]["dice"])
        for label, means in scores["mean"].items():
            assert one["classes"][label] == pytest.approx(means["dice"])
    assert all(one["why"] for one in found["candidates"]) and sum(one["chosen"] for one in found["candidates"]) == 1
    assert found["dice"] == answer["dice"]
    assert {tuned["target"] for tuned in found["postprocessing"]} == {None, "organ", "lesion"}
    assert all(tuned["why"] for tuned in found["postprocessing"])
    page = (folder / "selection.md").read_text()
    assert all(name in page for name in singles)
    assert probabilities(workspace) == [], "what was predicted for the choice alone goes with it"
    assert [file.name for file in sorted(folder.iterdir())] == ["model.json", "selection.json", "selection.md"]


def inputs(workspace: Path) -> dict[str, list[Path]]:
    """The files of the images without labels, by case."""
    plan = Plan.read(experiment(workspace, "2d") / "fold_0" / "plan.json")
    found = find_inputs(project(workspace).root / "imagesTs", plan)
    return {case: list(files) for case, files in found.items()}


def by_hand(
    workspace: Path, weights: dict[str, float], steps: list[Step], image: list[Path]
) -> tuple[np.ndarray, np.ndarray]:
    """Label map and probabilities of an ensemble, put together here."""
    mean, one = None, None
    for name, weight in weights.items():
        model = load_model(experiment(workspace, name), precision="float32", device="cpu")
        one = model.predict(image, probabilities=True)
        mean = np.zeros(one.probabilities.shape, np.float32) if mean is None else mean
        add_weighted(mean, one.probabilities, weight)
    labels = model.plan.labels
    return postprocessed(decoded(mean, labels), mean, one.geometry.voxel_volume, labels, steps), mean


def hand_written(workspace: Path, weights: dict[str, float], steps: list[Step]) -> Path:
    """The folder of a selected model that nobody selected."""
    _, found = select(project(workspace), Wanted(postprocessing=False))
    folder = project(workspace).results / "selected"
    model = SelectedModel.read(folder / "model.json")
    members = []
    for name, weight in weights.items():
        place = experiment(workspace, name)
        runs = [place / f"fold_{fold}" for fold in (0, 1)]
        members.append(
            {
                "experiment": place.name,
                "configuration": name,
                "folds": [0, 1],
                "plan_hash": RunRecord.read(runs[0] / "run.json").plan_hash,
                "weights": {run.name: validation.hash_file(run / "final.safetensors") for run in runs},
                "weight": weight,
            }
        )
    content = {**model.model_dump(mode="json"), "members": members}
    content["postprocessing"] = [step.model_dump(mode="json") for step in steps]
    (folder / "model.json").write_text(json.dumps(content))
    assert found.postprocessing_note == "None was to be tried."
    return folder


STEPS = [
    Step(kind="keep_largest"),
    Step(kind="min_size", target="organ", value=40, unit="mm3"),
    Step(kind="min_mean_probability", target="lesion", value=0.4),
]


@pytest.mark.parametrize("held", [True, False], ids=["in memory", "from disk"])
def test_the_selected_model_predicts_the_weighted_mean_and_its_post_processing(
    held: bool, workspace: Path, tmp_path: Path, command: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"2d": 0.25, "3d_fullres": 0.75}
    folder = hand_written(workspace, weights, STEPS)
    if not held:
        monkeypatch.setattr("selfcfg.engine.prediction.selected._SHARE", 0)
    images = project(workspace).root / "imagesTs"
    place = ["-i", images, "-o", tmp_path / "out", "--precision", "float32", "--save-probabilities"]
    code, answer, told = command("predict", 901, *place, "--workspace", workspace, "--device", "cpu")
    assert code == 0 and len(answer["done"]) == 2, told
    model = package.load_model(folder, precision="float32", device="cpu")
    assert isinstance(model, Ensemble)
    assert bool(model.members[0].outline.networks) == held
    changed = False
    for name, image in inputs(workspace).items():
        expected, mean = by_hand(workspace, weights, STEPS, image)
        changed |= not np.array_equal(expected, decoded(mean, model.plan.labels))
        found = model.predict(image, probabilities=True)
        np.testing.assert_array_equal(found.labels, expected)
        np.testing.assert_array_equal(found.probabilities, mean.astype(np.float16))
        np.testing.assert_array_equal(read_label(tmp_path / "out" / f"{name}.nii.gz")[0], expected)
        stored = np.load(tmp_path / "out" / f"{name}.npz")["probabilities"]
        np.testing.assert_array_equal(stored, mean.astype(np.float16))
    assert changed, "the steps take something away"
    again = command("predict", folder, *place, "--device", "cpu")
    assert len(again[1]["skipped"]) == 2


def test_a_single_experiment_predicts_as_it_does_by_itself(workspace: Path) -> None:
    folder = hand_written(workspace, {"2d": 1.0}, [])
    image = next(iter(inputs(workspace).values()))
    alone = load_model(experiment(workspace, "2d"), precision="float32").predict(image)
    np.testing.assert_array_equal(load_selected(folder, precision="float32").predict(image).labels, alone.labels)


def test_an_interrupted_selection_goes_on_and_ends_alike(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path(shutil.copytree(workspace, workspace.parent / "whole"))
    _, expected = select(project(whole), Wanted())
    written: list[Path] = []
    write = validation.write_probabilities

    def dying(file: Path, content: Any) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(file)
        write(file, content)

    monkeypatch.setattr(validation, "write_probabilities", dying)
    with pytest.raises(KeyboardInterrupt):
        select(project(workspace), Wanted())
    assert len(probabilities(workspace)) == 5

    def going_on(file: Path, content: Any) -> None:
        assert file not in written[:5], "predicted once already"
        written.append(file)
        write(file, content)

    monkeypatch.setattr(validation, "write_probabilities", going_on)
    _, found = select(project(workspace), Wanted())
    assert len(written) == 16
    assert found == expected
    assert probabilities(workspace) == []


def test_label_maps_stay_where_only_probabilities_are_missing(workspace: Path) -> None:
    maps = sorted(project(workspace).results.rglob("validation/*.nii.gz"))
    before = {file: file.stat().st_mtime_ns for file in maps}
    select(project(workspace), Wanted(keep_probabilities=True))
    assert {file: file.stat().st_mtime_ns for file in maps} == before
    kept = {file: file.stat().st_mtime_ns for file in probabilities(workspace)}
    assert len(kept) == 16
    select(project(workspace), Wanted())
    assert {file: file.stat().st_mtime_ns for file in probabilities(workspace)} == kept, "what was to stay, stays"


def test_an_experiment_that_lacks_a_fold_is_left_out_by_name(workspace: Path, command: Answer) -> None:
    run = experiment(workspace, "2d") / "fold_1"
    RunRecord.read(run / "run.json").model_copy(update={"status": "running"}).write(run / "run.json")
    code, answer, told = command("select", 901, "--jobs", 1, "--workspace", workspace)
    assert code == 0, told
    found = json.loads((Path(answer["model"]) / "selection.json").read_text())
    assert set(found["left_out"]) == {"supervised__standard__2d"}
    assert "have not validated" in found["left_out"]["supervised__standard__2d"]
    assert [one["name"] for one in found["candidates"]] == ["supervised__standard__3d_fullres"]


def test_an_experiment_of_other_splits_is_left_out_by_name(workspace: Path, command: Answer) -> None:
    runs = [experiment(workspace, "2d") / f"fold_{fold}" / "run.json" for fold in (0, 1)]
    first, second = (RunRecord.read(run) for run in runs)
    first.model_copy(update={"validation": (*first.validation, second.validation[0])}).write(runs[0])
    second.model_copy(update={"validation": second.validation[1:]}).write(runs[1])
    code, answer, told = command("select", 901, "--jobs", 1, "--workspace", workspace)
    assert code == 0, told
    found = json.loads((Path(answer["model"]) / "selection.json").read_text())
    assert ["other splits" in why for why in found["left_out"].values()] == [True]
    assert len(found["candidates"]) == 1


def test_an_experiment_that_can_no_longer_predict_is_left_out_by_name(
    workspace: Path, command: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(project: Project, entrant: Entrant, *rest: Any, **how: Any) -> Any:
        if entrant.name.endswith("2d"):
            raise DataError("predict", "its first stage was trained again since", "train it again")
        return held_out(project, entrant, *rest, **how)

    monkeypatch.setattr("selfcfg.engine.selection.select.held_out", refused)
    code, answer, told = command("select", 901, "--jobs", 1, "--workspace", workspace)
    assert code == 0, told
    found = json.loads((Path(answer["model"]) / "selection.json").read_text())
    assert found["left_out"] == {"supervised__standard__2d": "its first stage was trained again since"}
    assert probabilities(workspace) == []
    code, _, told = command("select", 901, "--name", "a/b", "--workspace", workspace)
    assert code == 2 and "without slashes" in told


def test_nothing_to_choose_from_is_an_error(workspace: Path, command: Answer) -> None:
    for name in CONFIGURATIONS:
        for fold in (0, 1):
            (experiment(workspace, name) / f"fold_{fold}" / "final.safetensors").unlink()
    code, _, told = command("select", 901, "--workspace", workspace)
    assert code == 1 and "no experiment can be chosen" in told and "3d_fullres: no fold" in told
    shutil.rmtree(project(workspace).results)
    code, _, told = command("select", 901, "--workspace", workspace)
    assert code == 2 and "nothing was trained" in told and "selfcfg run" in told


def test_a_member_that_changed_or_is_gone_is_named(workspace: Path, command: Answer, tmp_path: Path) -> None:
    folder = hand_written(workspace, {"2d": 0.5, "3d_fullres": 0.5}, [])
    images = project(workspace).root / "imagesTs"
    with pytest.raises(UsageError, match="which folds"):
        package.load_model(folder, folds=[0])
    weights = experiment(workspace, "2d") / "fold_0" / "final.safetensors"
    shutil.copy(experiment(workspace, "2d") / "fold_1" / "final.safetensors", weights)
    code, _, told = command("predict", 901, "-i", images, "-o", tmp_path / "out", "--workspace", workspace)
    assert code == 1 and "trained again since" in told and "selfcfg select Dataset901_Tiny" in told
    shutil.rmtree(experiment(workspace, "2d"))
    with pytest.raises(DataError, match="is not there"):
        package.load_model(folder)
    content = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**content, "members": []}))
    with pytest.raises(DataError, match="names no member"):
        package.load_model(folder)


def test_several_selected_models_are_told_apart(workspace: Path, command: Answer, tmp_path: Path) -> None:
    where = ["--no-postprocessing", "--workspace", workspace]
    images = ["-i", project(workspace).root / "imagesTs", "-o", tmp_path / "out", "--workspace", workspace]
    for name in ("a", "b"):
        code, answer, told = command("select", 901, "--name", name, "--rule", "highest", *where)
        assert code == 0 and Path(answer["model"]).name == f"selected__{name}", told
    code, _, told = command("predict", 901, *images)
    assert code == 2 and "several selected models" in told
    assert command("select", 901, *where)[0] == 0
    assert command("predict", 901, *images)[0] == 0, "the one without a name goes first"


def test_run_trains_selects_and_reports(workspace: Path, command: Answer) -> None:
    code, answer, told = command("run", 901, "-c", "2d", *SETS, "--jobs", 1, "--workspace", workspace)
    assert code == 0, told
    assert Path(answer["model"], "model.json").is_file() and Path(answer["report"]).is_file()
    assert answer["dice"] == json.loads(Path(answer["model"], "selection.json").read_text())["dice"]
    assert "Selected model" in Path(answer["report"]).read_text(encoding="utf-8")
    assert probabilities(workspace) == []
    assert told.count("next: ") == 1 and "next: selfcfg predict" in told


def test_training_keeps_probabilities_where_asked(workspace: Path, command: Answer) -> None:
    more = ["--name", "kept", "--save-probabilities", "--jobs", 1, "--workspace", workspace]
    assert command("train", 901, "-c", "2d", "--fold", 0, *SETS, *more)[0] == 0
    kept = probabilities(workspace)
    assert len(kept) == 4 and all("kept" in str(file) for file in kept)
    select(project(workspace), Wanted())
    assert probabilities(workspace) == kept
