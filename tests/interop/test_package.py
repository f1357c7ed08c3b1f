"""Packages of models: what goes in comes out bit for bit, nothing names a case, and the same model is the same file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import selfcfg as package
from selfcfg.cli import main
from selfcfg.engine.calibration.temperature import Temperature
from selfcfg.engine.prediction.packaged import MANIFEST, is_member
from selfcfg.engine.prediction.postprocessing import Step
from selfcfg.engine.prediction.quality import Quality
from selfcfg.engine.prediction.selected import SelectedMember, SelectedModel
from selfcfg.engine.scoring.calibration import Reliability
from selfcfg.errors import DataError, SelfcfgError, UsageError
from selfcfg.files import hash_file
from selfcfg.fingerprint import CaseFingerprint, Fingerprint
from selfcfg.interop.package_read import import_package
from selfcfg.interop.package_write import write_package
from selfcfg.kernels.calibration import Tally
from selfcfg.plan import Plan
from selfcfg.runs import RunRecord, TakeOver
from tests.interop.conftest import cascade_plan, description_of, plan_of
from tests.interop.test_nnunet_export import our_model

CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}
SECRETS = ("Erika", "Mustermann", "/home/doe", "doe-scans", "deadbeef", "cafebabe")
"""What the experiments of these tests know and no package may tell."""

KNOWING: dict[str, Any] = {
    "train": ("Erika_1", "Erika_2"),
    "validation": ("Mustermann",),
    "init": "/home/doe/doe-scans/fold_0",
    "teachers": ("/home/doe/doe-scans/teacher",),
    "data_hash": "cafebabe",
    "unlabelled": {"others": "cafebabe"},
    "reference": {"guide": "cafebabe"},
    "taken_over": TakeOver(source="/home/doe/doe-scans/final.safetensors", taken=("encoder",), adapted={}, skipped={}),
}


def facts() -> Fingerprint:
    case = CaseFingerprint(
        case="Erika_1",
        subject="Mustermann",
        shape=(8, 8, 8),
        shape_after_crop=(8, 8, 8),
        spacing=(1.0, 1.0, 1.0),
        orientation="SPL",
        dimensions=3,
        intensities=(None,),
        voxels={0: 400, 1: 112},
        source="deadbeef",
        picture="deadbeef",
    )
    return Fingerprint(
        spacings=((1.0, 1.0, 1.0),),
        shapes_after_crop=((8, 8, 8),),
        foreground_intensity_properties_per_channel={"0": plan_of().intensities[0]},
        median_relative_size_after_cropping=1.0,
        cases=(case,),
    )


def experiment(folder: Path, plan: Plan, folds: tuple[int, ...] = (0,), **changes: Any) -> Path:
    made = our_model(folder, plan, folds, **KNOWING, **changes)
    facts().write(made / "fingerprint.json")
    return made


def calibrated(model: Path) -> None:
    """Leaves a temperature and a score of quality beside the folds, as `selfcfg calibrate` does."""
    weights = {file.parent.name: hash_file(file) for file in model.glob("fold_*/final.safetensors")}
    scores = Reliability.of(Tally.empty())
    temperature = Temperature(
        temperature=2.0,
        fitted=2.0,
        by_group={"fold_0": 2.0},
        before=scores,
        after=scores,
        n_cases=1,
        n_voxels=1,
        n_drawn=1,
        margin=1.0,
        seed=0,
        reason="made up",
        weights=weights,
    )
    temperature.write(model / "calibration.json")
    quality = Quality(
        confidence=0.9,
        n_cases=1,
        n_subjects=1,
        mean_dice=0.5,
        left_out="fold",
        is_useful=True,
        reason="made up",
        features=("expected_dice",),
        mean=(0.5,),
        scale=(1.0,),
        coefficients=(0.7,),
        weights=weights,
    )
    quality.write(model / "quality.json")


def image() -> tuple[np.ndarray[Any, Any], tuple[float, float, float]]:
    return np.random.default_rng(5).normal(size=(1, 13, 16, 14)).astype(np.float32), (1.0, 1.0, 1.0)


def said(model: Path) -> tuple[Any, Any, str]:
    loaded = package.load_model(model, **CPU)
    found = loaded.predict(image(), probabilities=True)
    return found.labels, found.probabilities, loaded.identity


def same(one: tuple[Any, Any, str], other: tuple[Any, Any, str]) -> None:
    assert one[0].tobytes() == other[0].tobytes()
    assert one[1].tobytes() == other[1].tobytes()
    assert one[2] == other[2]


def names_in(file: Path) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def test_an_imported_model_predicts_the_same_bits(tmp_path: Path) -> None:
    model = experiment(tmp_path / "results", plan_of(), (0, 3))
    calibrated(model)
    made = write_package(model, tmp_path / "m.zip")
    found = import_package(made.file, tmp_path / "m")
    assert found.model == tmp_path / "m" / "supervised__standard__small" and found.networks == 2
    same(said(model), said(tmp_path / "m"))
    same(said(model), said(found.model))
    before, after = package.load_model(model, **CPU), package.load_model(found.folder, **CPU)
    assert after.temperature == 2.0 and after.quality == before.quality is not None
    assert after.facts.cases[0].voxels == before.facts.cases[0].voxels


def test_nothing_in_it_names_a_case_or_a_place(tmp_path: Path) -> None:
    model = experiment(tmp_path / "results", plan_of())
    (model / "fold_0" / "validation").mkdir()
    (model / "fold_0" / "log.jsonl").write_text("{}")
    plan = plan_of()
    described = description_of(plan).model_dump(exclude_defaults=True)
    told = {**described, "licence": "CC-BY 4.0", "author": "doe-scans", "selfcfg": {"subjects": {"a": "Erika"}}}
    file = write_package(model, tmp_path / "m.zip", description=type(description_of(plan)).parse(told, "test")).file
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    for name, content in contents.items():
        for secret in (*SECRETS, str(tmp_path)):
            assert secret.encode() not in content, f"{secret} is in {name}"
    assert all(name == MANIFEST or is_member(name) for name in contents)
    assert json.loads(contents["training_dataset.json"])["licence"] == "CC-BY 4.0"
    assert "CC-BY 4.0" in contents["README.md"].decode()
    record = RunRecord.parse(json.loads(contents["supervised__standard__small/fold_0/run.json"]), "test")
    assert (record.init, record.teachers, record.train) == ("fold_0", ("teacher",), ())


def test_the_same_model_is_the_same_file(tmp_path: Path) -> None:
    model = experiment(tmp_path / "results", plan_of())
    one, other = (write_package(model, tmp_path / name / "m.zip").file.read_bytes() for name in "ab")
    assert one == other
    import_package(tmp_path / "a" / "m.zip", tmp_path / "m")
    again = write_package(tmp_path / "m", tmp_path / "c" / "m.zip", description=description_of(plan_of())).file
    import_package(again, tmp_path / "n")
    same(said(model), said(tmp_path / "n"))


def test_a_cascade_goes_with_both_models(tmp_path: Path) -> None:
    model = experiment(tmp_path / "results", cascade_plan())
    made = write_package(model, tmp_path / "m.zip")
    assert made.experiments == ("supervised__standard__3d_cascade_fullres", "supervised__standard__3d_lowres")
    import_package(made.file, tmp_path / "m")
    same(said(model), said(tmp_path / "m"))


def selected(folder: Path) -> Path:
    """A selected model of an experiment of a recipe, whose folder is nested, and of a cascade; with post-processing."""
    members = []
    for place, plan, weight in (("recipe/finetune", plan_of(), 0.25), (".", cascade_plan(), 0.75)):
        made = experiment(folder / place, plan, (0, 1))
        made = made.rename(made.with_name(f"{made.name}__mine"))
        record = RunRecord.read(made / "fold_0" / "run.json")
        member = SelectedMember(
            experiment=made.relative_to(folder).as_posix(),
            configuration=record.configuration,
            folds=(0, 1),
            plan_hash=record.plan_hash,
            weights={fold.name: hash_file(fold / "final.safetensors") for fold in made.glob("fold_*")},
            weight=weight,
        )
        members.append(member)
    steps = (Step(kind="keep_largest"), Step(kind="min_mean_probability", target="a", value=0.4))
    model = SelectedModel(dataset="Dataset999_Small", members=tuple(members), postprocessing=steps)
    model.write(folder / "selected" / "model.json")
    return folder / "selected"


def test_a_selected_model_goes_with_its_members_weights_and_steps(tmp_path: Path) -> None:
    model = selected(tmp_path / "results")
    made = write_package(model, tmp_path / "m.zip")
    assert made.model == "selected" and len(made.experiments) == 3
    found = import_package(made.file, tmp_path / "m")
    assert found.networks == 4
    same(said(model), said(tmp_path / "m"))
    with zipfile.ZipFile(made.file) as archive:
        text = archive.read("README.md").decode()
    assert "only the largest component" in text and "0.25" in text
    with pytest.raises(UsageError, match="says itself which folds"):
        write_package(model, tmp_path / "n.zip", folds=[0])


def test_the_best_weights_become_the_final_ones(tmp_path: Path) -> None:
    model = experiment(tmp_path / "results", plan_of())
    other = our_model(tmp_path / "other", plan_of())
    best = (other / "fold_0" / "final.safetensors").read_bytes()
    (model / "fold_0" / "best.safetensors").write_bytes(best)
    import_package(write_package(model, tmp_path / "m.zip", weights="best").file, tmp_path / "m")
    assert (tmp_path / "m" / model.name / "fold_0" / "final.safetensors").read_bytes() == best


def test_what_cannot_be_packed_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    model = experiment(tmp_path / "results", plan_of(), status="running")
    (model / "fold_0" / "best.safetensors").write_bytes((model / "fold_0" / "final.safetensors").read_bytes())
    with pytest.raises(DataError, match="training is not finished"):
        write_package(model, tmp_path / "m.zip", weights="best")
    good = experiment(tmp_path / "good", plan_of())
    odd = good.rename(good.with_name("a:b"))
    with pytest.raises(DataError, match="holds the part 'a:b'; rename that folder"):
        write_package(odd, tmp_path / "m.zip")
    (tmp_path / "m.zip").write_text("")
    with pytest.raises(UsageError, match="is there already"):
        write_package(odd, tmp_path / "m.zip")
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["m.zip"]


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = experiment(tmp_path / "results", plan_of())
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(model), "--to", "package"]) == 0
    file = "Dataset999_Small__supervised__standard__small.zip"
    assert f"next: selfcfg import {file} --out MODEL" in capsys.readouterr().out
    assert main(["import", file, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"model": f"{file.removesuffix('.zip')}/supervised__standard__small"}
    assert main(["import", "package", file, "--out", "m"]) == 0
    assert main(["import", file, "--out", "m"]) == 2
    assert main(["export", str(model), "--to", "nnunet"]) == 2
    assert "no --out; name the folder to make" in capsys.readouterr().err
    for command in (["import", "nothing.zip"], ["import", "nnunet", file, "--out", "n"]):
        assert main(command) != 0
    said = capsys.readouterr().err
    assert "import nothing.zip: there is no such file" in said and "a package of selfcfg; take it in" in said


def test_a_network_larger_than_its_weights_is_never_built(tmp_path: Path) -> None:
    model = experiment(tmp_path / "results", plan_of())
    plan = json.loads((model / "fold_0" / "plan.json").read_text())
    plan["configurations"]["small"]["topology"]["features"] = [2**30] * 3
    made = Plan.parse(plan, "test")
    made.write_whole(model / "fold_0" / "plan.json")
    RunRecord.read(model / "fold_0" / "run.json").model_copy(update={"plan_hash": made.content_hash()}).write(
        model / "fold_0" / "run.json"
    )
    with pytest.raises(SelfcfgError, match=r"bytes, too few for the \d+ weights of the network"):
        package.load_model(model, **CPU)
