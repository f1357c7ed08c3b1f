"""The command that scores: its options, what it answers, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from selfcfg.engine.prediction.probabilities import write_probabilities
from selfcfg.geometry import Geometry
from selfcfg.io import read_label, write_label

GEOMETRY = Geometry(shape=(4, 12, 12), spacing=(2.0, 1.0, 1.0))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for index in range(7):
        mask = np.zeros(GEOMETRY.shape, dtype=np.uint8)
        mask[1:3, 2:9, 2 : 6 + index % 3] = 1
        for name, shift in (("references", 0), ("second", 1), ("predictions", 0)):
            write_label(tmp_path / name / f"case{index}.nii.gz", np.roll(mask, shift, 2), GEOMETRY)
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "numTraining": 7}
    (tmp_path / "dataset.json").write_text(json.dumps({**dataset, "file_ending": ".nii.gz"}))
    rows = "".join(f"case{index},{'AB'[index > 4]}\n" for index in range(6))
    (tmp_path / "cases.csv").write_text(f"case,site\n{rows}")
    return tmp_path


def arguments(folders: Path, *options: object) -> list[object]:
    given = ["evaluate", folders / "references", folders / "predictions", "--dataset-json", folders / "dataset.json"]
    return [*given, "--jobs", 1, *options]


def test_everything_at_once(selfcfg, folders: Path) -> None:
    options = (
        "--metrics",
        "cldice,lesions",
        "--metrics",
        "boundary_iou",
        "--match",
        "overlap",
        "--out",
        folders / "out",
    )
    further = ("--attributes", folders / "cases.csv", "--readers", folders / "second")
    answer = selfcfg(*arguments(folders, *options, *further))
    assert answer.code == 0
    assert answer.result["foreground_mean"]["panoptic_quality"] == 1
    assert answer.result["readers"]["dice"] == "closer"
    assert {file.name for file in (folders / "out").iterdir()} == {
        "summary.json",
        "metrics.csv",
        "subgroups.csv",
        "readers.csv",
    }
    told = " ".join(answer.err.split())
    for words in ("clDice", "site cases Dice", "references and second", "1 case without a row: case6"):
        assert words in told
    stored = json.loads((folders / "out" / "summary.json").read_text())
    assert stored["extras"]["match"] == "overlap"


def test_without_options_only_the_usual_is_computed(selfcfg, folders: Path) -> None:
    answer = selfcfg(*arguments(folders))
    assert answer.code == 0
    assert set(answer.result["foreground_mean"]) == {
        *("dice", "iou", "hd95", "nsd", "volume_error", "volume_error_relative", "hd", "assd"),
    }
    assert {file.suffix for file in (folders / "predictions").iterdir()} == {".gz", ".csv", ".json"}
    assert not (folders / "predictions" / "readers.csv").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--metrics", "dics"), 2, "did you mean 'dice'"),
        (("--match", "half"), 2, "must be 'overlap' or 'iou:T'"),
        (("--attributes", "nothing.csv"), 2, "there is no such file"),
        (("--readers", "nowhere"), 2, "there is no such folder"),
    ],
)
def test_options_that_cannot_be_met(selfcfg, folders: Path, options: tuple[str, ...], code: int, words: str) -> None:
    answer = selfcfg(*arguments(folders, *options))
    assert answer.code == code
    assert words in answer.err
    assert not (folders / "predictions" / "summary.json").exists(), "nothing is half written"


def test_calibration_reads_the_probabilities_beside_the_predictions(selfcfg, folders: Path) -> None:
    for file in sorted((folders / "predictions").iterdir()):
        mask, _ = read_label(file)
        inside = np.where(mask == 1, 0.75, 0.25).astype(np.float16)
        write_probabilities(file.with_name(f"{file.name.partition('.')[0]}.npz"), np.stack([1 - inside, inside]))
    options = ("--metrics", "calibration", "--readers", folders / "second", "--out", folders / "out")
    answer = selfcfg(*arguments(folders, *options))
    assert answer.code == 0
    assert answer.result["calibration"] == {"ece": 0.25, "brier": 0.125, "nll": pytest.approx(-np.log(0.75))}
    assert answer.result["foreground_mean"]["ece"] == pytest.approx(0.25)
    assert "ece" not in answer.result["readers"], "label maps of readers have no probabilities"
    assert "calibration.csv" in answer.err
    (folders / "predictions" / "case3.npz").unlink()
    refused = selfcfg(*arguments(folders, *options))
    assert refused.code == 1
    assert "case 'case3'" in refused.err
    assert "--save-probabilities" in refused.err
