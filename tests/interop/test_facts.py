"""What is known of a model's training goes on with it, however often it is packed, imported and handed on."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import pytest

from selfcfg.cli import main
from selfcfg.dataset import DatasetDescription
from selfcfg.engine.scoring.evaluate import Evaluation
from selfcfg.engine.scoring.scores import CaseScores, ClassScores
from selfcfg.errors import DataError
from selfcfg.files import hash_file
from selfcfg.interop.nnunet_model_read import import_model
from selfcfg.interop.nnunet_model_write import export_model
from selfcfg.interop.package_read import import_package
from selfcfg.interop.package_write import write_package
from selfcfg.plan import Plan
from selfcfg.runs import RunFolder
from tests.interop.conftest import FIRST, SECOND, Write, cascade_plan, description_of, plan_of
from tests.interop.test_package import experiment, selected

TOLD = {"numTraining": 37, "licence": "CC-BY 4.0", "reference": "doi:10.1000/1"}


def told_of(plan: Plan) -> DatasetDescription:
    return DatasetDescription.parse({**description_of(plan).model_dump(exclude_defaults=True), **TOLD}, "test")


def validated(model: Path, dice: dict[str, float]) -> None:
    """Leaves the scores of one case a fold, as a training does."""
    nothing = dict.fromkeys(("iou", "hd95", "nsd", "volume_error", "volume_error_relative"))
    for fold, value in dice.items():
        one = ClassScores(**nothing, dice=value, volume_ref=1, volume_pred=1, tp=1, fp=0, fn=0, tn=0)
        case = CaseScores(case=f"Erika_{fold}", reference=Path("r"), prediction=Path("p"), scores={"a": one})
        means: dict[str, Any] = {"foreground_mean": {"dice": value}, "mean": {"a": {"dice": value}}, "n_cases": 1}
        counts = {"n_excluded": {"a": 0}, "n_one_empty": {"a": 0}, "nsd_tolerance": 2.0}
        scores = Evaluation(**means, **counts, empty="exclude", volume_unit="ml", cases=(case,))
        scores.write(RunFolder(model / fold).validation)


def in_package(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_an_imported_package_packed_again_is_the_same_file_whatever_its_name(tmp_path: Path) -> None:
    model = experiment(tmp_path / "results", plan_of(), (0, 1))
    validated(model, {"fold_0": 0.8, "fold_1": 0.9})
    first = write_package(model, tmp_path / "one.zip", description=told_of(plan_of())).file
    made = import_package(first, tmp_path / "m")
    again = write_package(made.folder, tmp_path / "other.zip").file
    from_model = write_package(made.model, tmp_path / "third.zip").file
    assert hash_file(first) == hash_file(again) == hash_file(from_model)
    contents = in_package(again)
    assert json.loads(contents["training_dataset.json"]).items() >= TOLD.items()
    card = contents["README.md"].decode()
    assert "0.8500" in card and "37" in card and "CC-BY 4.0" in card and "Erika" not in card


def test_a_selected_model_packed_again_is_the_same_file(tmp_path: Path) -> None:
    model = selected(tmp_path / "results")
    nested = tmp_path / "results" / "recipe" / "finetune" / "supervised__standard__small__mine"
    validated(nested, {"fold_0": 0.5, "fold_1": 0.6})
    first = write_package(model, tmp_path / "one.zip", description=told_of(plan_of())).file
    again = write_package(import_package(first, tmp_path / "m").folder, tmp_path / "other.zip").file
    assert hash_file(first) == hash_file(again)
    assert "0.5500" in in_package(again)["README.md"].decode()


def test_the_scores_of_all_folds_are_not_told_of_some(tmp_path: Path) -> None:
    model = experiment(tmp_path / "results", plan_of(), (0, 1))
    validated(model, {"fold_0": 0.8, "fold_1": 0.9})
    made = import_package(write_package(model, tmp_path / "one.zip").file, tmp_path / "m")
    card = in_package(write_package(made.folder, tmp_path / "some.zip", folds=[0]).file)["README.md"].decode()
    assert "0.8500" not in card


def test_scores_that_are_none_are_refused_on_the_way_in(tmp_path: Path) -> None:
    model = experiment(tmp_path / "results", plan_of())
    (model / "cross_validation.json").write_text('{"dice": 1.5, "n_cases": 1, "folds": ["fold_0"]}')
    with pytest.raises(DataError, match=r"cross_validation.json: dice: must be less than or equal to 1"):
        write_package(model, tmp_path / "m.zip")


def nnunet_scored(folder: Path, fold: int | str, dice: tuple[float, ...]) -> None:
    """Leaves what nnU-Net's validation of a fold writes: one entry a case; Dice may be NaN."""
    cases = [
        {
            "metrics": {"1": {"Dice": one, "n_ref": 4, "n_pred": 4, "IoU": one}},
            "reference_file": f"/h/{fold}_{i}.nii.gz",
        }
        for i, one in enumerate(dice)
    ]
    (folder / f"fold_{fold}" / "validation").mkdir()
    summary = {"metric_per_case": cases, "foreground_mean": {"Dice": 0.1}}
    (folder / f"fold_{fold}" / "validation" / "summary.json").write_text(json.dumps(summary))


def described(folder: Path) -> None:
    """Adds to nnU-Net's dataset.json what is not about prediction."""
    file = folder / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **TOLD, "training": ["./imagesTr/Erika.nii.gz"]}))


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_model_of_nnunet_goes_on_with_what_it_came_with(packed: bool, write_theirs: Write, tmp_path: Path) -> None:
    source, _ = write_theirs(plan_of(), folds=(0, 1))
    described(source)
    nnunet_scored(source, 0, (0.6, math.nan))
    nnunet_scored(source, 1, (0.8,))
    if packed:
        with zipfile.ZipFile(tmp_path / "theirs.zip", "w") as archive:
            for file in source.rglob("*.*"):
                archive.write(file, file.relative_to(source.parent.parent))
        source = tmp_path / "theirs.zip"
    import_model(source, tmp_path / "m")
    export_model(tmp_path / "m", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "dataset.json").read_text()).items() >= TOLD.items()
    contents = in_package(write_package(tmp_path / "m", tmp_path / "m.zip").file)
    assert json.loads(contents["training_dataset.json"]).items() >= TOLD.items()
    assert "0.7000" in contents["README.md"].decode()
    assert not [name for name, content in contents.items() if b"Erika" in content or b"0_0" in content]


def test_both_models_of_a_cascade_say_it(write_theirs: Write, tmp_path: Path) -> None:
    write_theirs(cascade_plan(), (0,), FIRST)
    source, _ = write_theirs(cascade_plan(), (0,), SECOND)
    described(source)
    made = import_model(source, tmp_path / "m")
    assert made.first is not None and (made.first / "training_dataset.json").is_file()
    assert json.loads((made.model / "training_dataset.json").read_text()).items() >= TOLD.items()


@pytest.mark.parametrize(
    ("content", "told"),
    [('{"metric_per_case": 3}', "metric_per_case is no list"), ("[]", "no metric_per_case"), ("{", "not valid JSON")],
)
def test_scores_of_nnunet_that_cannot_be_read_are_left_out(
    content: str, told: str, write_theirs: Write, tmp_path: Path
) -> None:
    source, _ = write_theirs(plan_of())
    (source / "fold_0" / "validation").mkdir()
    (source / "fold_0" / "validation" / "summary.json").write_text(content)
    made = import_model(source, tmp_path / "m")
    assert told in made.notes[0] and not (tmp_path / "m" / "cross_validation.json").exists()


def test_a_dice_that_is_none_and_one_of_training_cases_are_left_out(write_theirs: Write, tmp_path: Path) -> None:
    source, _ = write_theirs(plan_of(), folds=(0, "all"))
    nnunet_scored(source, 0, (1e308, 1e308))
    nnunet_scored(source, "all", (0.9,))
    assert "dice: must be less than or equal to 1" in " ".join(import_model(source, tmp_path / "m").notes)
    import_model(source, tmp_path / "all", folds=["all"])
    assert not (tmp_path / "all" / "cross_validation.json").exists()


def test_the_commands_hand_it_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = experiment(tmp_path / "results", plan_of())
    write_package(model, tmp_path / "one.zip", description=told_of(plan_of()))
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "w" / "raw" / "Dataset999_Small" / "dataset.json"
    other.parent.mkdir(parents=True)
    other.write_text(description_of(plan_of()).model_dump_json(exclude_defaults=True))
    assert main(["import", "one.zip", "--out", "m"]) == 0
    for target in ("m", "m/supervised__standard__small/fold_0"):
        assert main(["export", target, "--to", "nnunet", "--out", f"{target}-theirs", "--workspace", "w"]) == 0
        assert json.loads(Path(f"{target}-theirs/dataset.json").read_text())["numTraining"] == 37
    assert main(["export", "m", "--to", "package", "--workspace", "w"]) == 0
    assert hash_file(tmp_path / "one.zip") == hash_file(tmp_path / "Dataset999_Small__supervised__standard__small.zip")
    assert "--dataset-json" not in capsys.readouterr().out
