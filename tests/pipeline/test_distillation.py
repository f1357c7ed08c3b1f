"""Teachers and students through the command line, on small synthetic data in 2D and 3D, with labels and regions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from selfcfg.cli import main
from selfcfg.convert.synthetic import make_synthetic
from selfcfg.dataset import Dataset
from selfcfg.engine.checkpoint import read_weights
from selfcfg.engine.data.store import CaseInfo, Prepared, Store
from selfcfg.engine.data.stored_array import StoredArray
from selfcfg.engine.distillation.soft_targets import STEPS, on_grid_of
from selfcfg.engine.prediction.loading import load_model
from selfcfg.files import hash_json
from selfcfg.geometry import Geometry
from selfcfg.plan import Plan
from selfcfg.runs import RunFolder, RunRecord

pytestmark = pytest.mark.usefixtures("no_curves")

SHORT = ["epochs=1", "iterations_per_epoch=2", "validation_iterations=1", "batch_size=2", "workers=0"]
SETS = [part for setting in [*SHORT, "precision=float32"] for part in ("--set", setting)]
STUDENT = ["--trainer", "distillation"]


def run(*words: object) -> int:
    return main([str(word) for word in words])


def answer(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict, str]:
    capfd.readouterr()
    code = run(*words, "--json")
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    return code, json.loads(said.out.strip().splitlines()[-1]), said.err


def slim(plan: Path) -> None:
    """Narrow networks, and a configuration "coarse" of another spacing, patch and depth."""
    content = json.loads(plan.read_text())
    for one in content["configurations"].values():
        one["topology"]["features"] = [4] * len(one["topology"]["features"])
    name = next(iter(content["configurations"]))
    parent = content["configurations"][name]
    spacing = [2 * mm for mm in parent["spacing"]]
    content["configurations"]["coarse"] = {"inherits_from": name, "spacing": spacing}
    plan.write_text(json.dumps(content))


def workspace_of(folder: Path, dataset: Dataset) -> list[object]:
    place = ["--jobs", 1, "--workspace", folder]
    assert run("plan", folder / "raw" / dataset.name, *place) == 0
    slim(next(folder.glob("preprocessed/*/plans/*.json")))
    return place


@pytest.fixture(scope="module")
def taught(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with teachers of two configurations in fold 0, and a student of both."""
    folder = tmp_path_factory.mktemp("distillation")
    shutil.copytree(tiny_dataset.root, folder / "raw" / tiny_dataset.name)
    place = workspace_of(folder, tiny_dataset)
    assert run("train", 901, "--name", "fine", "--seed", 1, *SETS, *place) == 0
    assert run("train", 901, "-c", "coarse", "--seed", 2, *SETS, *place) == 0
    both = ["--teacher", fine(folder), "--teacher", coarse(folder)]
    assert run("train", 901, *STUDENT, *both, "--set", "balance=0.7", *SETS, *place) == 0
    return folder


def fine(folder: Path) -> Path:
    return folder / "results" / "Dataset901_Tiny" / "supervised__standard__3d_fullres__fine"


def coarse(folder: Path) -> Path:
    return folder / "results" / "Dataset901_Tiny" / "supervised__standard__coarse"


def student(folder: Path, name: str = "") -> RunFolder:
    experiment = f"distillation__standard__3d_fullres{name and '__' + name}"
    return RunFolder(folder / "results" / "Dataset901_Tiny" / experiment / "fold_0")


def place_of(folder: Path) -> list[object]:
    return ["--jobs", 1, "--workspace", folder]


def soft_of(folder: Path, name: str) -> str:
    """The folder name of a student's soft targets, from what its record says."""
    record = RunRecord.read(student(folder, name).record)
    combine, temperature = record.settings["combine"], record.settings["temperature"]
    members = list(zip(record.teacher_hashes, record.teacher_weights, strict=True))
    return f"3d_fullres-{hash_of_store(folder)}-soft-{hash_json([members, combine, temperature])[:8]}"


def hash_of_store(folder: Path) -> str:
    (store,) = (path for path in folder.glob("preprocessed/*/3d_fullres-*") if "-soft-" not in path.name)
    return store.name.removeprefix("3d_fullres-")


def soft_folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("preprocessed/Dataset901_Tiny/*-soft-*"))


@pytest.mark.slow
def test_soft_targets_are_the_mean_of_what_teachers_predict(taught: Path) -> None:
    (soft,) = soft_folders(taught)
    record = RunRecord.read(student(taught).record)
    assert {file.stem for file in soft.glob("*.b2nd")} == set(record.train)
    store = Store(soft.with_name(soft.name.partition("-soft-")[0]))
    case = record.train[0]
    stored, found = store.open(case), StoredArray(soft / f"{case}.b2nd", np.float32)[...]
    model = load_model(fine(taught) / "fold_0", precision="float32")
    one = torch.from_numpy(model.logits(Prepared(stored.image[...], None, stored.info))).softmax(0)
    model = load_model(coarse(taught) / "fold_0", precision="float32")
    store = Store(next(path for path in taught.glob("preprocessed/*/coarse-*") if "-soft-" not in path.name))
    other = store.open(case)
    logits = model.logits(Prepared(other.image[...], None, other.info))
    configuration = Plan.read(student(taught).plan).configuration("3d_fullres")
    moved = on_grid_of(logits, other.info, model.configuration, stored.info, configuration)
    two = torch.from_numpy(moved).softmax(0)
    assert found.shape == (2, *stored.info.shape)
    exact = ((one + two) / 2)[1:].numpy()
    np.testing.assert_allclose(found, exact, atol=0.5 / STEPS + 2.0**-12 + 1e-6)


@pytest.mark.slow
def test_the_run_says_who_taught_it(taught: Path) -> None:
    record = RunRecord.read(student(taught).record)
    assert record.teachers == tuple(str(one(taught) / "fold_0") for one in (fine, coarse))
    assert len(set(record.teacher_hashes)) == 2
    assert record.teacher_weights == ({"background": 0.5, "organ": 0.5, "lesion": 0.5},) * 2
    log = json.loads(student(taught).log.read_text().splitlines()[-1])
    assert list(log["terms"]) == ["dice", "cross_entropy", "teachers"]


@pytest.mark.slow
def test_given_again_nothing_is_predicted_again_and_other_teachers_are_refused(
    taught: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (soft,) = soft_folders(taught)
    before = {file: file.stat().st_mtime_ns for file in soft.glob("*.b2nd")}
    both = ["--teacher", f"{fine(taught)},{coarse(taught)}", "--set", "balance=0.7", *SETS, *place_of(taught)]
    assert run("train", 901, *STUDENT, *both) == 0
    assert {file: file.stat().st_mtime_ns for file in soft.glob("*.b2nd")} == before
    one = ["--teacher", fine(taught), "--set", "balance=0.7", *SETS, *place_of(taught)]
    code, _, said = answer(capfd, "train", 901, *STUDENT, *one)
    assert code == 2 and "the teachers differ" in said and "--name" in said
    assert soft_folders(taught) == [soft]


@pytest.mark.slow
def test_a_killed_prediction_goes_on_with_the_cases_that_are_left(taught: Path, tmp_path: Path) -> None:
    shutil.copytree(taught, tmp_path / "w")
    (soft,) = soft_folders(tmp_path / "w")
    whole = {file.name: file.read_bytes() for file in soft.glob("*.b2nd")}
    gone, kept = sorted(whole)[0], sorted(whole)[1]
    (soft / gone).unlink()
    when = (soft / kept).stat().st_mtime_ns
    both = ["--teacher", fine(tmp_path / "w"), "--teacher", coarse(tmp_path / "w"), "--name", "again"]
    assert run("train", 901, *STUDENT, *both, "--set", "balance=0.7", *SETS, *place_of(tmp_path / "w")) == 0
    assert (soft / gone).read_bytes() == whole[gone]
    assert (soft / kept).stat().st_mtime_ns == when
    first, second = (read_weights(student(tmp_path / "w", name).final)[0] for name in ("", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first), "the same seed and the same teachers"


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["validation", "per_class", "greedy"])
def test_weights_come_from_validation_and_are_recorded(
    taught: Path, weighting: str, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ["--teacher", fine(taught), "--teacher", coarse(taught), "--set", f"weighting={weighting}"]
    extra = ["--set", "combine=logit", "--set", "temperature=2", "--name", weighting]
    code, _, said = answer(capfd, "train", 901, *STUDENT, *given, *extra, *SETS, *place_of(taught))
    assert code == 0, said
    assert f"weighting {weighting}" in said and "supervised__standard__coarse: weight" in said
    weights = RunRecord.read(student(taught, weighting).record).teacher_weights
    for output in ("background", "organ", "lesion"):
        assert sum(one[output] for one in weights) == pytest.approx(1)
    if weighting == "greedy":
        assert all(one["organ"] in (0.0, 0.5, 1.0) for one in weights)
    if weighting == "per_class":
        files = [one(taught) / "fold_0" / "validation" / "summary.json" for one in (fine, coarse)]
        scores = [json.loads(file.read_text())["mean"] for file in files]
        raised = np.exp([(score["organ"]["dice"] - scores[0]["organ"]["dice"]) / 0.03 for score in scores])
        assert [one["organ"] for one in weights] == pytest.approx((raised / raised.sum()).tolist())


@pytest.mark.slow
def test_the_student_is_put_beside_its_teachers(
    taught: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["benchmark", "distillation", student(taught).path.parent, "--margin", 0.05, "--out", tmp_path]
    code, told, said = answer(capfd, *command, *place_of(taught))
    assert code == 0, said
    names = [one["system"] for one in told["results"]]
    assert names == ["student", fine(taught).name, coarse(taught).name, "ensemble"]
    assert [one["against"] for one in told["comparisons"]][1] == "ensemble"
    sizes = {one["system"]: one["parameters"] for one in told["results"]}
    assert sizes["ensemble"] == sizes[names[1]] + sizes[names[2]]
    alone = json.loads((student(taught).validation / "summary.json").read_text())["foreground_mean"]["nsd"]
    assert told["results"][0]["nsd"] == pytest.approx(alone)
    assert "too few" in (tmp_path / "report.md").read_text()
    code, _, said = answer(capfd, *command, "--images", tmp_path, *place_of(taught))
    assert code == 2 and "one of --images and --labels" in said
    code, _, said = answer(capfd, "benchmark", "distillation", fine(taught), *place_of(taught))
    assert code == 2 and "it had none" in said


@pytest.mark.slow
def test_a_test_set_is_compared_on_too(taught: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    raw, cases = taught / "raw" / "Dataset901_Tiny", RunRecord.read(student(taught).record).train[:2]
    for case in cases:
        for file in raw.glob(f"imagesTr/{case}_*"):
            (tmp_path / "images").mkdir(exist_ok=True)
            shutil.copy(file, tmp_path / "images")
    command = ["benchmark", "distillation", student(taught).path, "--images", tmp_path / "images", "--out", tmp_path]
    code, told, said = answer(capfd, *command, "--labels", raw / "labelsTr", *place_of(taught))
    assert code == 0 and told["comparisons"][0]["subjects"] == 2, said
    predicted = {file.name.partition(".")[0] for file in (tmp_path / "predictions" / "ensemble").glob("*.nii.gz")}
    assert predicted == set(cases)
    code, _, said = answer(capfd, *command, "--labels", raw / "imagesTs", *place_of(taught))
    assert code == 2 and "no reference of" in said


@pytest.mark.slow
def test_what_cannot_teach_is_refused(taught: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(fine(taught), tmp_path / "other")
    plan = tmp_path / "other" / "fold_0" / "plan.json"
    plan.write_text(plan.read_text().replace('"lesion"', '"cyst"'))
    shutil.copytree(fine(taught), tmp_path / "unfinished")
    RunFolder(tmp_path / "unfinished" / "fold_0").note(status="running")
    shutil.copytree(fine(taught), tmp_path / "unscored")
    shutil.rmtree(tmp_path / "unscored" / "fold_0" / "validation")
    one = ["--teacher", fine(taught)]
    for code, words, given in (
        (2, "no teacher was given", []),
        (2, "there is no such folder", ["--teacher", tmp_path / "nowhere"]),
        (2, "it predicts organ (1), cyst (2)", ["--teacher", tmp_path / "other"]),
        (1, "its training is not finished", ["--teacher", tmp_path / "unfinished"]),
        (2, "the same network as", [*one, "--teacher", fine(taught) / "fold_0"]),
        (2, "no validation scores", ["--teacher", tmp_path / "unscored", "--set", "weighting=validation"]),
    ):
        found, _, said = answer(capfd, "train", 901, *STUDENT, *given, "--name", "x", *SETS, *place_of(taught))
        assert found == code and words in said, said
    found, _, said = answer(capfd, "train", 901, *one, *SETS, *place_of(taught))
    assert found == 2 and "has no teachers" in said
    assert not student(taught, "x").path.exists()


@pytest.mark.slow
def test_teachers_that_saw_what_is_validated_are_told_of(
    taught: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ["--fold", 1, "--teacher", fine(taught), "--name", "seen"]
    code, _, said = answer(capfd, "train", 901, *STUDENT, *given, *SETS, *place_of(taught))
    assert code == 0 and "was trained on validation cases of this fold" in said
    place = student(taught, "seen").path.with_name("fold_1")
    code, _, said = answer(capfd, "benchmark", "distillation", place, "--out", tmp_path, *place_of(taught))
    assert code == 0 and "of these: its scores are too good" in said


@pytest.mark.slow
def test_a_model_of_another_tool_teaches_too(taught: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("export", fine(taught), "--to", "nnunet", "--out", tmp_path / "there", *place_of(taught)[2:]) == 0
    assert run("import", "nnunet", tmp_path / "there", "--out", tmp_path / "model") == 0
    given = ["--teacher", tmp_path / "model", "--teacher", coarse(taught), "--name", "foreign"]
    code, _, said = answer(capfd, "train", 901, *STUDENT, *given, "--set", "balance=0.7", *SETS, *place_of(taught))
    assert code == 0 and "it is not known which cases" in said, said
    case = RunRecord.read(student(taught).record).train[0]
    by_both, by_import = (next(taught.glob(f"preprocessed/*/{soft_of(taught, name)}")) for name in ("", "foreign"))
    assert by_both != by_import
    first, second = (StoredArray(folder / f"{case}.b2nd", np.float32)[...] for folder in (by_both, by_import))
    np.testing.assert_allclose(first, second, atol=1e-3)


@pytest.mark.slow
def test_a_forecast_needs_no_teachers(taught: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, told, said = answer(capfd, "forecast", 901, "--trainer", "distillation", *SETS, *place_of(taught))
    assert code == 0, said
    assert told


@pytest.mark.slow
def test_images_without_labels_are_taught_too(
    taught: Path, tiny_dataset: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    further = taught / "raw" / tiny_dataset.name / "imagesTs"
    given = ["--teacher", fine(taught), "--unlabelled", further, "--label-fraction", 0.5, "--name", "more"]
    code, _, said = answer(capfd, "train", 901, *STUDENT, *given, *SETS, *place_of(taught))
    assert code == 0, said
    log = json.loads(student(taught, "more").log.read_text().splitlines()[-1])
    assert list(log["terms"]) == ["dice", "cross_entropy", "teachers", "teachers without labels"]
    assert len(list(taught.glob("preprocessed/*/unlabelled/*/*-soft-*/*.b2nd"))) == 2
    code, _, said = answer(capfd, "train", 901, *STUDENT, *given, *SETS, *place_of(taught))
    assert code == 0 and "is finished already" in said


@pytest.mark.slow
def test_pictures_with_regions(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dataset = make_synthetic(tmp_path / "raw" / "Dataset904_P", n_cases=5, dimensions=2, mean_shape=(1, 32, 32))
    file = dataset.root / "dataset.json"
    content = json.loads(file.read_text())
    content["labels"] = {"background": 0, "whole": [1, 2], "lesion": 2}
    content["regions_class_order"] = [1, 2]
    file.write_text(json.dumps(content))
    place = workspace_of(tmp_path, dataset)
    for seed in (1, 2):
        assert run("train", 904, "--seed", seed, "--name", f"t{seed}", *SETS, *place) == 0
    teachers = sorted((tmp_path / "results" / dataset.name).glob("*__t?"))
    given = [word for one in teachers for word in ("--teacher", one)]
    code, told, said = answer(capfd, "train", 904, *STUDENT, *given, "--set", "weighting=greedy", *SETS, *place)
    assert code == 0, said
    code, told, said = answer(capfd, "benchmark", "distillation", told["run"], *place)
    assert code == 0 and len(told["results"]) == 4, said


def info(shape: tuple[int, int, int], spacing: tuple[float, float, float], order: tuple[int, int, int]) -> CaseInfo:
    z, y, x = shape
    return CaseInfo(
        case="a", geometry=Geometry(shape=(4, 6, 8), spacing=(1, 1, 1)), cropped_shape=shape,
        box=((0, z), (0, y), (0, x)), shape=shape, spacing=spacing, axis_order=order,
    )  # fmt: skip


def test_logits_follow_the_order_of_axes() -> None:
    from selfcfg.testing import small_plan

    configuration = small_plan().configurations["small"]
    logits = np.random.default_rng(0).standard_normal((2, 8, 4, 6)).astype(np.float32)
    theirs, ours = info((8, 4, 6), (1, 1, 1), (2, 0, 1)), info((4, 6, 8), (1, 1, 1), (0, 1, 2))
    moved = on_grid_of(logits, theirs, configuration, ours, configuration)
    np.testing.assert_array_equal(moved, logits.transpose(0, 2, 3, 1))
