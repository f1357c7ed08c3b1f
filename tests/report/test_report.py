from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfcfg.engine.scoring.evaluate import Evaluation
from selfcfg.engine.scoring.scores import CaseScores, ClassScores
from selfcfg.errors import DataError
from selfcfg.report.cases import choose, failures
from selfcfg.report.report import report_experiment
from selfcfg.runs import Origin, RunRecord
from tests.report.conftest import Road


def scores(dice: float | None, **counts: int) -> ClassScores:
    voxels = {"tp": 1, "fp": 1, "fn": 1, "tn": 1} | counts
    empty: dict[str, Any] = dict.fromkeys(("iou", "hd95", "nsd", "volume_error", "volume_error_relative"))
    return ClassScores(dice=dice, volume_ref=1, volume_pred=1, **empty, **voxels)


def evaluation_of(cases: dict[str, dict[str, ClassScores]]) -> Evaluation:
    entries = tuple(CaseScores(case=n, reference=Path("r"), prediction=Path("p"), scores=s) for n, s in cases.items())
    means: dict[str, Any] = {"foreground_mean": {}, "mean": {}, "n_excluded": {}, "n_one_empty": {}}
    settings: dict[str, Any] = {"nsd_tolerance": 2, "empty": "exclude", "volume_unit": "ml"}
    return Evaluation(**means, **settings, n_cases=len(entries), cases=entries)


def test_the_report_is_complete_and_can_be_moved(road: Road) -> None:
    text = road.report()
    assert str(road.folder) not in text and "/tmp" not in text
    pictures = re.findall(r"\]\(([^)]+)\)", text)
    assert len(pictures) == 5
    for picture in pictures:
        assert not Path(picture).is_absolute() and (road.folder / picture).is_file()
    for section in (
        "Scores",
        "Failures",
        "Cases to look at",
        "Training",
        "Data",
        "Plan: 3d_fullres",
        "How it was made",
    ):
        assert f"\n## {section}\n" in text
    assert "not a medical device" in text
    assert "**patch: 14 x 24 x 20.** It fits \\| whole.\n" in text and "More words" not in text
    assert "| seed | 7 |" in text and "| torch | 2.13.0 |" in text and "| epochs | 12 |" in text


def test_the_numbers_are_those_of_the_cases(road: Road) -> None:
    text = road.report()
    for name in ("organ", "lesion"):
        dice = np.array([case.scores[name].dice for case in road.evaluation.cases])
        wanted = [dice.mean(), np.median(dice), dice.std(ddof=1), dice.min(), dice.max()]
        assert f"| {name} | " + " | ".join(f"{value:.3f}" for value in wanted) + " | 8 | 0 | 0 |" in text
    for fold in (0, 1):
        cases = road.evaluation.cases[4 * fold : 4 * fold + 4]
        mean = np.mean([[case.scores[name].dice for case in cases] for name in ("organ", "lesion")])
        assert f"| {fold} | finished | 4 | 4 | {mean:.3f} |" in text
    assert f"Mean foreground Dice **{road.evaluation.foreground_mean['dice']:.3f}**" in text


def test_tables_are_well_formed(road: Road) -> None:
    unescaped = re.compile(r"(?<!\\)\|")
    rows = 0
    for block in road.report().split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            assert len({len(unescaped.findall(line)) for line in lines}) == 1
            rows += len(lines)
    assert rows > 20


def test_a_report_can_be_written_again_later_and_elsewhere(road: Road, tmp_path: Path) -> None:
    first = road.report()
    moved = tmp_path / "moved"
    shutil.move(road.folder, moved)
    again = report_experiment(moved, road.workspace).markdown.read_text(encoding="utf-8")
    assert again == first


def test_the_report_says_where_an_imported_model_came_from(road: Road) -> None:
    origin = Origin(
        tool="nnunetv2",
        source="model.zip",
        trainer="nnUNetTrainer",
        checkpoint="fold_0/checkpoint_final.pth",
        checkpoint_hash="0" * 32,
        epoch=1000,
        file_ending=".nii.gz",
    )
    for file in road.folder.glob("fold_*/run.json"):
        imported = {"origin": origin, "settings": {}, "machine": {}, "trainer": "nnUNetTrainer"}
        RunRecord.read(file).model_copy(update=imported).write(file)
    assert "| imported: source | model.zip |" in road.report()


def test_what_cannot_be_drawn_is_said(road: Road) -> None:
    worst = choose(road.evaluation)[0][1]
    worst.prediction.unlink()
    assert "No picture: " in road.report() and "the file is gone" in road.report()


def test_an_experiment_without_scores_is_refused(road: Road) -> None:
    for summary in road.folder.glob("fold_*/validation/summary.json"):
        summary.unlink()
    with pytest.raises(DataError, match="not been scored"):
        report_experiment(road.folder, road.workspace)


@pytest.mark.parametrize(
    ("n_cases", "chosen"),
    [
        (0, []),
        (1, [("the only case", 0)]),
        (2, [("1 of 2, worst first", 0), ("2 of 2, worst first", 1)]),
        (3, [(f"{rank + 1} of 3, worst first", rank) for rank in range(3)]),
        (4, [("worst", 0), ("worst", 1), ("worst", 2), ("best", 3)]),
        (9, [("worst", 0), ("worst", 1), ("worst", 2), ("median", 4), ("best", 8)]),
    ],
)
def test_which_cases_are_shown(n_cases: int, chosen: list[tuple[str, int]]) -> None:
    shuffled = np.random.default_rng(0).permutation(n_cases)
    cases = {f"case_{rank}": {"a": scores(rank / 10), "b": scores(None)} for rank in shuffled}
    found = choose(evaluation_of({**cases, "nothing": {"a": scores(None), "b": scores(None)}}))
    assert [(why, case.case) for why, case in found] == [(why, f"case_{rank}") for why, rank in chosen]


def test_failures_are_named() -> None:
    missed, invented = scores(0.0, tp=0, fp=0, fn=7), scores(0.0, tp=0, fp=3, fn=0)
    nothing, wrong = scores(None, tp=0, fp=0, fn=0), scores(0.0, tp=0, fp=2, fn=2)
    found = failures(
        evaluation_of({"one": {"a": missed, "b": invented}, "two": {"a": nothing, "b": wrong}}), ["one", "two", "three"]
    )
    assert found == [
        "three: not scored, it has no prediction or no label",
        "one: a was missed altogether (7 voxels)",
        "one: b was predicted (3 voxels) but is not there",
    ]


def test_names_from_the_dataset_are_escaped(road: Road) -> None:
    first = road.evaluation.cases[0].model_copy(update={"case": "<script>|x"})
    road.evaluation = road.evaluation.model_copy(update={"cases": (first, *road.evaluation.cases[1:])})
    text = road.report()
    assert "<script>" not in text and "&lt;script&gt;\\|x" in text
