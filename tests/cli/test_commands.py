"""Single commands: what they answer, and how they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from selfcfg.cli import main


def test_plan_says_what_it_wrote_and_explains(selfcfg, workspace: Path) -> None:
    answer = selfcfg("plan", 901, "--explain", "--jobs", 1, "--workspace", workspace)
    assert answer.code == 0
    assert Path(answer.result["plan"]).name == "standard.json"
    assert set(answer.result["configurations"]) >= {"2d", "3d_fullres"}
    assert "patch" in answer.err.lower()


def test_plan_from_files_needs_no_images_and_no_torch(selfcfg, workspace: Path, tmp_path: Path) -> None:
    first = selfcfg("plan", 901, "--jobs", 1, "--workspace", workspace)
    fingerprint = workspace / "preprocessed" / "Dataset901_Tiny" / "fingerprint.json"
    dataset_json = workspace / "raw" / "Dataset901_Tiny" / "dataset.json"
    out = tmp_path / "plan.json"
    answer = selfcfg("plan", "--fingerprint", fingerprint, "--dataset-json", dataset_json, "--out", out)
    assert answer.code == 0
    assert json.loads(out.read_text()) == json.loads(Path(first.result["plan"]).read_text())


def test_the_explanation_lies_beside_the_plan_until_it_is_made_again(selfcfg, workspace: Path) -> None:
    file = Path(selfcfg("plan", 901, "--explain", "--jobs", 1, "--workspace", workspace).result["plan"])
    page = file.with_suffix(".md").read_text(encoding="utf-8")
    assert "8 (this plan)" in page
    assert "(standard-space.png)" in page
    assert len(list(file.parent.glob("*.png"))) == 3
    selfcfg("plan", 901, "--jobs", 1, "--workspace", workspace)
    assert [other.name for other in file.parent.iterdir()] == ["standard.json"]


def test_plan_warns_of_what_breaks_medians(selfcfg, workspace: Path, tmp_path: Path) -> None:
    selfcfg("fingerprint", 901, "--jobs", 1, "--workspace", workspace)
    facts = json.loads((workspace / "preprocessed" / "Dataset901_Tiny" / "fingerprint.json").read_text())
    for index, case in enumerate(facts["cases"]):
        case["spacing"][0] = facts["spacings"][index][0] = 1.0 if index % 2 else 5.0
    (tmp_path / "fingerprint.json").write_text(json.dumps(facts))
    dataset_json = workspace / "raw" / "Dataset901_Tiny" / "dataset.json"
    given = ["--fingerprint", tmp_path / "fingerprint.json", "--dataset-json", dataset_json]
    answer = selfcfg("plan", *given, "--out", tmp_path / "plan.json")
    assert answer.code == 0
    assert "warning: the spacings along z are 2 groups far apart" in answer.err
    (warning,) = answer.result["warnings"]
    assert warning["kind"] == "spacing"
    assert set(warning["cases"]) < {case["case"] for case in facts["cases"]}
    assert "--spacing" in warning["remedy"]


def test_plan_does_not_draw_unless_asked(workspace: Path) -> None:
    script = (
        "import sys; from selfcfg.cli import main; "
        f"main(['plan', '901', '--jobs', '1', '--workspace', {str(workspace)!r}]); print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_two_plans_must_be_chosen_between(selfcfg, workspace: Path) -> None:
    selfcfg("plan", 901, "--jobs", 1, "--workspace", workspace)
    selfcfg("plan", 901, "--memory", 24, "--workspace", workspace)
    answer = selfcfg("preprocess", 901, "--workspace", workspace)
    assert answer.code == 2
    assert "standard-24GB" in answer.err
    assert "--planner" in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "17"], ["dataset '17'", "not found"]),
        (["plan", "901", "--planner", "standrad"], ["standrad", "did you mean 'standard'"]),
        (["plan", "901", "--spacing", "1,2"], ["--spacing", "z, y, x"]),
        (["plan"], ["no dataset"]),
        (["train", "901"], ["there is none yet", "selfcfg plan"]),
        (["predict", "nowhere", "-i", "a", "-o", "b"], ["nowhere", "not found"]),
        (["list", "planers"], ["planers"]),
        (["frobnicate"], ["frobnicate"]),
    ],
)
def test_wrong_use_is_exit_2_with_a_remedy(selfcfg, workspace: Path, arguments: list[str], words: list[str]) -> None:
    takes_workspace = arguments[0] not in ("predict", "frobnicate")
    answer = selfcfg(*arguments, *(["--workspace", workspace] if takes_workspace else []))
    assert answer.code == 2, answer.err
    for word in words:
        assert word in answer.err


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("epoch=3", ["epoch", "did you mean 'epochs'"]),
        ("epochs=many", ["epochs", "many"]),
        ("epochs", ["no '='"]),
        ("patch_size=13,13,13", ["patch_size", "multiple"]),
        ("learning_rate=-1", ["learning_rate"]),
    ],
)
def test_wrong_settings_are_named(selfcfg, planned: Path, setting: str, words: list[str]) -> None:
    answer = selfcfg("train", 901, "--set", setting, "--jobs", 1, "--workspace", planned)
    assert answer.code == 2, answer.err
    for word in words:
        assert word in answer.err


def test_a_plan_edited_wrongly_is_refused_with_the_place(selfcfg, workspace: Path) -> None:
    file = Path(selfcfg("plan", 901, "--jobs", 1, "--workspace", workspace).result["plan"])
    content = json.loads(file.read_text())
    content["configurations"]["3d_fullres"]["patch_sise"] = content["configurations"]["3d_fullres"].pop("patch_size")
    file.write_text(json.dumps(content))
    answer = selfcfg("preprocess", 901, "--workspace", workspace)
    assert answer.code == 1
    assert "patch_sise" in answer.err
    assert "did you mean 'patch_size'" in answer.err


def test_list_trainers_prints_every_setting_with_its_default(selfcfg) -> None:
    answer = selfcfg("list", "trainers")
    supervised = next(entry for entry in answer.result["trainers"] if entry["name"] == "supervised")
    assert supervised["settings"]["epochs"] == 1000
    assert "learning_rate = 0.01" in answer.err


def test_doctor_names_versions_and_device(selfcfg) -> None:
    answer = selfcfg("doctor")
    assert answer.code == 0
    assert "torch" in answer.result["versions"]


def test_version_and_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out.startswith("selfcfg ")
    assert main(["--help"]) == 0
    assert "plan-and-train" in capfd.readouterr().out


def test_check_lists_findings_and_fails(selfcfg, workspace: Path) -> None:
    clean = selfcfg("check", 901, "--jobs", 1, "--workspace", workspace)
    assert clean.code == 0, clean.err
    image = sorted((workspace / "raw" / "Dataset901_Tiny" / "imagesTr").iterdir())[0]
    image.write_bytes(image.read_bytes()[:-100])
    answer = selfcfg("check", 901, "--jobs", 1, "--workspace", workspace)
    assert answer.code == 1
    errors = [finding for finding in answer.result["findings"] if finding["severity"] == "error"]
    assert any(image.name in finding["file"] for finding in errors)
