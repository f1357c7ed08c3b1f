"""Plans as files through the command line: edited by hand, given to nnU-Net, taken over from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfcfg.plan import Plan
from selfcfg.runs import RunFolder

SETS = ["--set", "epochs=1", "--set", "iterations_per_epoch=2", "--set", "validation_iterations=0"]


@pytest.fixture
def dataset(selfcfg, workspace: Path) -> list[Any]:
    """What names the planned dataset on the command line."""
    where = ["--jobs", 1, "--workspace", workspace]
    assert selfcfg("plan", 901, *where).code == 0
    return [901, *where]


@pytest.fixture
def made(workspace: Path) -> Path:
    return workspace / "preprocessed" / "Dataset901_Tiny"


@pytest.mark.slow
def test_a_configuration_of_ones_own_is_trained(selfcfg, dataset: list[Any], made: Path) -> None:
    file = made / "plans" / "standard.json"
    content = json.loads(file.read_text())
    edge = 2 * content["configurations"]["3d_fullres"]["patch_size"][2]
    content["configurations"]["3d_big"] = {"inherits_from": "3d_fullres", "patch_size": [16, 32, edge], "batch_size": 1}
    file.write_text(json.dumps(content))
    answer = selfcfg("train", *dataset, "-c", "3d_big", *SETS, "--set", "workers=0")
    assert answer.code == 0, answer.err
    plan = Plan.read(RunFolder(Path(answer.result["run"]) / "fold_0").plan)
    assert "3d_big" in answer.result["run"]
    assert (plan.configurations["3d_big"].patch_size, plan.configurations["3d_big"].batch_size) == ((16, 32, edge), 1)
    assert plan.content_hash() == Plan.read(file).content_hash()


def test_a_predecessor_misspelt_in_a_plan_is_told_with_its_place(selfcfg, dataset: list[Any], made: Path) -> None:
    file = made / "plans" / "standard.json"
    content = json.loads(file.read_text())
    content["configurations"]["own"] = {"inherits_from": "3d_fullres", "after": "3d_fulres"}
    file.write_text(json.dumps(content))
    answer = selfcfg("preprocess", *dataset)
    assert answer.code == 1
    assert "configurations.own.after: found '3d_fulres', did you mean '3d_fullres'" in answer.err


def test_plans_for_nnunet_lie_where_nnunet_looks(selfcfg, dataset: list[Any], made: Path) -> None:
    answer = selfcfg("plan", *dataset, "--nnunet-format")
    assert answer.code == 0, answer.err
    content = json.loads((made / "nnUNetPlans.json").read_text())
    assert (content["dataset_name"], content["plans_name"]) == ("Dataset901_Tiny", "nnUNetPlans")
    assert selfcfg("plan", *dataset, "--nnunet-format").code == 0, "our own file is written again"
    assert selfcfg("preprocess", *dataset).code == 0, "the file is not taken for a plan of ours"


def test_plans_of_another_memory_have_a_name_of_their_own(selfcfg, dataset: list[Any], made: Path) -> None:
    options = ["--planner", "residual-l", "--memory", 16, "--nnunet-format"]
    assert selfcfg("plan", *dataset, *options).code == 0
    content = json.loads((made / "nnUNetResEncUNetLPlans_16GB.json").read_text())
    assert content["plans_name"] == "nnUNetResEncUNetLPlans_16GB"
    assert content["configurations"]["2d"]["data_identifier"] == "nnUNetResEncUNetLPlans_16GB_2d"


def test_nnunets_own_plans_are_not_overwritten(selfcfg, dataset: list[Any], made: Path) -> None:
    (made / "nnUNetPlans.json").write_text('{"plans_name": "nnUNetPlans"}')
    answer = selfcfg("plan", *dataset, "--nnunet-format")
    assert answer.code == 2
    assert "selfcfg did not write it" in answer.err
    assert (made / "nnUNetPlans.json").read_text() == '{"plans_name": "nnUNetPlans"}'


def test_nnunets_plans_become_a_plan_that_is_chosen_by_name(selfcfg, dataset: list[Any], made: Path) -> None:
    selfcfg("plan", *dataset, "--nnunet-format")
    ours = Plan.read(made / "plans" / "standard.json")
    answer = selfcfg("plan", *dataset, "--from-nnunet", made / "nnUNetPlans.json")
    assert answer.code == 0, answer.err
    assert Path(answer.result["plan"]) == made / "plans" / "nnUNetPlans.json"
    assert "--planner nnUNetPlans" in answer.err
    read = Plan.read(made / "plans" / "nnUNetPlans.json")
    assert {name: read.preprocessing_hash(name) for name in read.configurations} == {
        name: ours.preprocessing_hash(name) for name in ours.configurations
    }
    assert selfcfg("preprocess", *dataset, "-c", "2d", "--planner", "nnUNetPlans").code == 0


def test_nnunets_plans_are_written_and_read_without_images(
    selfcfg, dataset: list[Any], made: Path, workspace: Path, tmp_path: Path
) -> None:
    described = workspace / "raw" / "Dataset901_Tiny" / "dataset.json"
    files = ["--fingerprint", made / "fingerprint.json", "--dataset-json", described]
    theirs, ours = tmp_path / "nnunet.json", tmp_path / "ours.json"
    assert selfcfg("plan", *files, "--out", theirs, "--nnunet-format").code == 0
    assert json.loads(theirs.read_text())["plans_name"] == "nnUNetPlans"
    assert selfcfg("plan", *files, "--out", ours, "--from-nnunet", theirs).code == 0
    assert Plan.read(ours).dataset == "Dataset901_Tiny"


@pytest.mark.parametrize(
    ("name", "words"), [("standard", "'standard' is"), ("residual-l-24GB", "'residual-l-24GB' is")]
)
def test_plans_called_like_a_planner_are_refused(
    selfcfg, dataset: list[Any], made: Path, name: str, words: str
) -> None:
    selfcfg("plan", *dataset, "--nnunet-format")
    content = json.loads((made / "nnUNetPlans.json").read_text())
    (made / "theirs.json").write_text(json.dumps({**content, "plans_name": name}))
    before = (made / "plans" / "standard.json").read_text()
    answer = selfcfg("plan", *dataset, "--from-nnunet", made / "theirs.json")
    assert answer.code == 2
    assert words in answer.err
    assert (made / "plans" / "standard.json").read_text() == before


def test_plans_of_another_dataset_are_refused(selfcfg, dataset: list[Any], made: Path) -> None:
    selfcfg("plan", *dataset, "--nnunet-format")
    content = json.loads((made / "nnUNetPlans.json").read_text())
    del content["foreground_intensity_properties_per_channel"]["1"]
    (made / "theirs.json").write_text(json.dumps(content))
    answer = selfcfg("plan", *dataset, "--from-nnunet", made / "theirs.json")
    assert answer.code == 1
    assert "dataset.json names 2" in answer.err


@pytest.mark.parametrize("option", [["--memory", 24], ["--spacing", "1,1,1"], ["--nnunet-format"]])
def test_options_that_mean_nothing_without_planning_are_refused(
    selfcfg, dataset: list[Any], made: Path, option: list[Any]
) -> None:
    answer = selfcfg("plan", *dataset, "--from-nnunet", made / "plans" / "standard.json", *option)
    assert answer.code == 2
    assert "nothing is planned" in answer.err
