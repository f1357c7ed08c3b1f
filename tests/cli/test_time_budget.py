"""Forecasts and time budgets through the command line on the tiny dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfcfg.cli.options import seconds_of
from selfcfg.errors import UsageError
from selfcfg.plan import Plan
from tests.conftest import slim

SETS = ["--set", "batch_size=2", "--set", "workers=0", "--set", "precision=float32"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("4h", 14400), ("90min", 5400), ("1h30m", 5400), ("1.5 h", 5400), ("2d", 172800), ("45s", 45)]
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["4", "h", "4 parsecs", "-4h", "0h", "4h later", ""])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="length of time"):
        seconds_of(text)


@pytest.mark.slow
def test_epochs_follow_from_the_time_and_stay_when_it_continues(selfcfg, workspace: Path) -> None:
    planned = selfcfg("plan", 901, "--memory", 0.02, "--jobs", 1, "--workspace", workspace)
    slim(Path(planned.result["plan"]))
    command = ["plan-and-train", 901, "--memory", 0.02, "--fold", "0,1", *SETS, "--time-budget", "20s", "--jobs", 1]
    trained = selfcfg(*command, "--workspace", workspace)
    assert trained.code == 0, trained.err
    runs = [json.loads(file.read_text()) for file in sorted(Path(trained.result["run"]).glob("fold_*/run.json"))]
    assert len(runs) == 2 and runs[0]["settings"] == runs[1]["settings"]
    assert runs[0]["time_budget"] == 20 and runs[0]["settings"]["epochs"] < 1000
    log = (Path(trained.result["run"]) / "fold_0" / "log.jsonl").read_text().splitlines()
    assert len(log) == runs[0]["settings"]["epochs"]

    again = selfcfg(*command, "--workspace", workspace)
    assert again.code == 0, again.err
    assert "measuring" not in again.err and "finished already" in again.err


def test_a_budget_and_epochs_exclude_each_other(selfcfg, workspace: Path) -> None:
    slim(Path(selfcfg("plan", 901, "--workspace", workspace, "--jobs", 1).result["plan"]))
    refused = selfcfg(
        "train", 901, "--time-budget", "1h", "--set", "epochs=3", *SETS, "--jobs", 1, "--workspace", workspace
    )
    assert refused.code == 2 and "epochs was set too" in refused.err
    refused = selfcfg("train", 901, "--time-budget", "1s", *SETS, "--jobs", 1, "--workspace", workspace)
    assert refused.code == 2 and "give more time" in refused.err
    assert not (workspace / "results").is_dir() or not list((workspace / "results").rglob("run.json"))


def test_a_plan_for_a_time_is_small_and_says_what_was_given_up(selfcfg, workspace: Path) -> None:
    large = selfcfg("plan", 901, "--jobs", 1, "--workspace", workspace)
    small = selfcfg("plan", 901, "--time-budget", "3min", "--jobs", 1, "--explain", "--workspace", workspace)
    assert small.code == 0, small.err
    assert Path(small.result["plan"]).name == "standard-0.05h.json"
    first, second = (Plan.read(Path(answer.result["plan"])) for answer in (large, small))
    assert second.memory_gb <= first.memory_gb
    assert any(reason.what == "time to train" for reason in second.reasons)
    assert "time to train" in small.err


def test_contradicting_wishes_are_refused(selfcfg, workspace: Path) -> None:
    both = selfcfg("plan", 901, "--memory", 4, "--time-budget", "4h", "--workspace", workspace)
    assert both.code == 2 and "give one of them" in both.err
    fit = selfcfg("plan", 901, "--fit", "--device", "cpu", "--jobs", 1, "--workspace", workspace)
    assert fit.code == 2 and "--time-budget" in fit.err


def test_a_forecast_covers_the_whole_road(selfcfg, workspace: Path) -> None:
    selfcfg("plan", 901, "--memory", 0.02, "--workspace", workspace, "--jobs", 1)
    found = selfcfg("forecast", 901, *SETS, "--set", "epochs=2", "--jobs", 1, "--workspace", workspace)
    assert found.code == 0, found.err
    forecast = found.result["forecast"]
    assert forecast["folds"] == 5 and forecast["epochs"] == 2
    for stage in ("preprocess", "train", "predict"):
        assert forecast[stage]["seconds"] > 0 and forecast[stage]["memory"] > 10**8
    assert forecast["preprocess"]["disk"] > 0
    assert not list((workspace / "preprocessed").glob("*/3d_fullres-*"))
