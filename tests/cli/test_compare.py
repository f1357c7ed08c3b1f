"""The command compare: from label maps and from runs to a page, and the mistakes that it answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from selfcfg.convert.synthetic import make_synthetic
from selfcfg.dataset import Dataset
from selfcfg.engine.scoring.evaluate import evaluate
from selfcfg.io import read_label, write_label
from selfcfg.runs import RunRecord
from tests.cli.conftest import Command
from tests.report.pages import Page


@pytest.fixture(scope="session")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of seven cases, and label maps by two systems: one loses a few voxels, the other is shifted, too."""
    root = tmp_path_factory.mktemp("predicted")
    dataset = make_synthetic(root / "raw" / "Dataset001_Two", n_cases=7, mean_shape=(6, 16, 14))
    rng = np.random.default_rng(0)
    for case in dataset.cases:
        assert case.label
        label, geometry = read_label(case.label)
        for name, shift in (("new", 0), ("old", 2)):
            mask = np.where(rng.random(label.shape) < 0.05, 0, np.roll(label, shift, axis=2)).astype(label.dtype)
            write_label(root / name / f"{case.id}.nii.gz", mask, geometry)
    return root


def arguments(root: Path, out: Path, *more: object) -> list[object]:
    dataset = root / "raw" / "Dataset001_Two"
    systems = [f"new={root / 'new'}", f"old={root / 'old'}"]
    scoring = ["--references", dataset / "labelsTr", "--dataset-json", dataset / "dataset.json", "--jobs", 1]
    return ["compare", *systems, *scoring, "--out", out, *more]


def test_label_maps_of_other_tools_become_a_report(selfcfg: Command, predicted: Path, tmp_path: Path) -> None:
    answer = selfcfg(*arguments(predicted, tmp_path / "out", "--margin", 0.01))
    assert answer.code == 0, answer.err
    page = Path(answer.result["markdown"])
    assert page == tmp_path / "out" / "comparison.md" and page.is_file()
    assert answer.result["report"] == str(tmp_path / "out" / "comparison.html")
    (pair,) = answer.result["pairs"]
    assert (pair["first"], pair["second"], pair["verdict"], pair["subjects"]) == ("new", "old", "better", 7)
    assert answer.result["conclusions"][0].startswith("new is better than old: Dice +0.")
    assert (tmp_path / "out" / "scores" / "new" / "summary.json").is_file()
    assert "NSD at 2 mm" in page.read_text()


def test_cases_of_one_subject_count_once(selfcfg: Command, predicted: Path, tmp_path: Path) -> None:
    (tmp_path / "who.csv").write_text("case,subject\ncase_000,p\ncase_001,p\n")
    answer = selfcfg(
        *arguments(predicted, tmp_path / "out", "--subjects", tmp_path / "who.csv", "--metric", "dice,iou")
    )
    assert answer.code == 0, answer.err
    assert answer.result["pairs"][0]["subjects"] == 6
    assert (
        "6 subjects (who.csv; 5 cases without an entry there by itself)" in Path(answer.result["markdown"]).read_text()
    )


def test_runs_are_compared_over_all_their_folds(selfcfg: Command, predicted: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(predicted / "raw" / "Dataset001_Two")
    shutil.copytree(dataset.root, tmp_path / "w" / "raw" / dataset.name)
    ids = [case.id for case in dataset.cases]
    for name in ("new", "old"):
        for fold, validation in enumerate((ids[:4], ids[4:])):
            folder = tmp_path / name / f"fold_{fold}"
            RunRecord(
                dataset=dataset.name, trainer="supervised", planner="standard", configuration="3d_fullres", fold=fold,
                settings={}, label_fraction=1.0, seed=0, init=None, plan_hash="", data_hash="", train=(),
                validation=tuple(validation), versions={}, machine={}, status="finished",
            ).write(folder / "run.json")  # fmt: skip
            references = {case: dataset.case(case).label for case in validation}
            predictions = {case: predicted / name / f"{case}.nii.gz" for case in validation}
            evaluate(references, predictions, dataset.labels).write(folder / "validation")
    answer = selfcfg(
        "compare", tmp_path / "new", tmp_path / "old", "--out", tmp_path / "out", "--workspace", tmp_path / "w"
    )
    assert answer.code == 0, answer.err
    assert answer.result["pairs"][0]["verdict"] == "better" and answer.result["pairs"][0]["cases"] == 7
    text = Path(answer.result["markdown"]).read_text()
    assert "not of other trainings of the same systems: of new, old one is given" in text and str(tmp_path) not in text
    assert not (tmp_path / "new" / "cross_validation").exists()
    one_fold = selfcfg("compare", tmp_path / "new" / "fold_0", "--out", tmp_path / "single")
    assert one_fold.code == 0 and "nothing to compare it with" in "\n".join(one_fold.result["conclusions"])


@pytest.mark.parametrize(
    ("more", "code", "found"),
    [
        (["--baseline", "nwe"], 2, "there is no 'nwe'; did you mean 'new'?"),
        (["--metric", "dise"], 2, "there is no 'dise'; did you mean 'dice'?"),
        (["--subjects", "nobody"], 2, "it has no group"),
        (["--subjects", "missing.csv"], 2, "there is no such file"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    selfcfg: Command, predicted: Path, tmp_path: Path, more: list[str], code: int, found: str
) -> None:
    answer = selfcfg(*arguments(predicted, tmp_path / "out", *more))
    assert answer.code == code and found in answer.err
    assert not (tmp_path / "out" / "comparison.md").exists()


def test_a_wrong_baseline_is_noticed_before_anything_is_scored(
    selfcfg: Command, predicted: Path, tmp_path: Path
) -> None:
    assert selfcfg(*arguments(predicted, tmp_path / "out", "--baseline", "x")).code == 2
    assert not (tmp_path / "out").exists()


def test_references_need_the_meaning_of_the_values(selfcfg: Command, predicted: Path, tmp_path: Path) -> None:
    answer = selfcfg("compare", predicted / "new", "--references", predicted / "old", "--out", tmp_path / "out")
    assert answer.code == 2 and "add --dataset-json FILE" in answer.err


def test_a_single_system_of_another_tool_has_a_page_with_its_cases(
    selfcfg: Command, predicted: Path, tmp_path: Path
) -> None:
    dataset = predicted / "raw" / "Dataset001_Two"
    scoring = ["--references", dataset / "labelsTr", "--dataset-json", dataset / "dataset.json", "--jobs", 1]
    answer = selfcfg("compare", f"theirs={predicted / 'old'}", *scoring, "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    page = Path(answer.result["report"]).read_text(encoding="utf-8")
    found = Page(page)
    assert "Report on theirs" in found.text and "Failures and doubtful cases" in found.text
    assert len([one for one in found.all("div") if one.get("class") == "viewer"]) == 5
    assert len(found.all("image")) == 5, "the images lie beside the dataset.json"
    assert str(tmp_path) not in page and str(predicted) not in page


def test_systems_are_outlined_together_on_images_from_elsewhere(
    selfcfg: Command, predicted: Path, tmp_path: Path
) -> None:
    dataset = predicted / "raw" / "Dataset001_Two"
    shutil.copytree(dataset / "imagesTr", tmp_path / "images")
    shutil.copy(dataset / "dataset.json", tmp_path)
    answer = selfcfg(
        *arguments(predicted, tmp_path / "out"),
        "--dataset-json", tmp_path / "dataset.json", "--images", tmp_path / "images",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    found = Page(Path(answer.result["report"]).read_text(encoding="utf-8"))
    shown = {one["data-shows"] for one in found.all("input") if "data-shows" in one}
    assert shown - {"focus"} == {"image", "0", "1", "2"} and "Differences" in found.text
    missing = selfcfg(*arguments(predicted, tmp_path / "other"), "--images", tmp_path / "nowhere")
    assert missing.code == 2 and "there is no such folder" in missing.err


def test_scores_without_label_maps_make_a_page_without_cases(selfcfg: Command, predicted: Path, tmp_path: Path) -> None:
    nnunet = Path(__file__).parents[1] / "engine" / "nnunet_summary.json"
    answer = selfcfg("compare", f"theirs={nnunet}", "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    found = Page(Path(answer.result["report"]).read_text(encoding="utf-8"))
    assert "Scores" in found.text and "Cases to look at" not in found.text


def test_anonymised_a_comparison_names_no_case(selfcfg: Command, predicted: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    answer = selfcfg(*arguments(predicted, tmp_path / "out", "--anonymise", "--anonymise-key", key))
    assert answer.code == 0, answer.err
    folder = tmp_path / "out" / "anonymised"
    assert Path(answer.result["report"]) == folder / "comparison.html"
    for file in folder.iterdir():
        assert b"case_00" not in file.read_bytes(), file.name
    assert "case_000" in key.read_text()
    alone = selfcfg(*arguments(predicted, tmp_path / "out", "--anonymise-key", key))
    assert alone.code == 2 and "add --anonymise" in alone.err
