"""One training in two processes from the command line: the same weights though one is killed, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from selfcfg.cli import main
from selfcfg.dataset import Dataset
from selfcfg.engine import launching
from selfcfg.engine.checkpoint import read_weights
from selfcfg.runs import RunFolder, RunRecord
from tests.conftest import slim

pytestmark = pytest.mark.timeout(900)

SETTINGS = ["epochs=3", "iterations_per_epoch=4", "validation_iterations=3", "batch_size=4", "precision=float32"]
SET = [part for setting in (*SETTINGS, "workers=0") for part in ("--set", setting)]
COMMAND = ["train", "901", "-c", "2d", "--device", "cpu", "--jobs", "1", *SET]


@pytest.fixture(scope="module")
def planned(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which a dataset is planned, for networks an eighth as wide, and preprocessed."""
    workspace = tmp_path_factory.mktemp("planned")
    shutil.copytree(tiny_dataset.root, workspace / "raw" / tiny_dataset.name)
    place = ["--workspace", str(workspace), "--jobs", "1"]
    assert main(["plan", "901", *place]) == 0
    (file,) = workspace.rglob("plans/*.json")
    slim(file)
    assert main(["preprocess", "901", "-c", "2d", *place]) == 0
    return workspace


def run_of(workspace: Path, name: str) -> RunFolder:
    return RunFolder(workspace / f"results/Dataset901_Tiny/supervised__standard__2d__{name}/fold_0")


def train(workspace: Path, name: str, *options: str) -> int:
    return main([*COMMAND, *options, "--name", name, "--workspace", str(workspace)])


@pytest.mark.slow
def test_two_processes_end_with_what_one_does_though_one_is_killed(
    planned: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train(planned, "one") == 0
    capfd.readouterr()
    monkeypatch.setattr(launching, "CHILD", (sys.executable, "-m", "tests.cli.dying"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    assert train(planned, "killed", "--devices", "2", "--max-restarts", "1", "--json") == 0
    told, errors = capfd.readouterr()
    one, run = run_of(planned, "one"), run_of(planned, "killed")
    (line,) = told.splitlines()
    assert json.loads(line)["run"] == str(run.path.parent)
    assert errors.count("continuing fold_0 at epoch 1, iteration 0") == 1
    assert errors.count("train fold_0: 8/8") == 1
    assert not [word for word in ("Traceback", "error:", "torch") if word in errors], errors
    (mine, _), (theirs, _) = read_weights(run.final), read_weights(one.final)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-5, rtol=0)
    assert RunRecord.read(run.record).machine["processes"] == 2
    assert "processes" not in RunRecord.read(one.record).machine
    assert {file.name for file in run.path.rglob("*")} == {file.name for file in one.path.rglob("*")}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--devices", "3"], "batch of 4, which all share, cannot be split among them; give --set batch_size=6"),
        (["--devices", "2", "--recipe", "masked"], "--recipe: 2 processes cannot do it together"),
        (["--devices", "2", "--time-budget", "1h"], "--time-budget: 2 processes cannot do it together"),
        (["--devices", "2", "--nodes", "2"], "give --rendezvous HOST:PORT"),
        (["--max-restarts", "2"], "there is one process, which nobody watches; give --devices, too"),
        (["--devices", "2", "--device", "cuda:0"], "device 'cuda:0': not available"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    planned: Path, capfd: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert main([*COMMAND, *options, "--workspace", str(planned)]) == 2
    told = capfd.readouterr().err
    assert words in told
    assert told.count("error:") == 1


def test_what_torchrun_started_is_held_to(planned: Path, capfd: pytest.CaptureFixture[str]) -> None:
    started = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    os.environ.update(started)
    assert main(["plan-and-train", "901", "--workspace", str(planned)]) == 2
    assert "in 2 processes: only 'train' can be shared" in capfd.readouterr().err
    assert main([*COMMAND, "--devices", "3", "--workspace", str(planned)]) == 2
    assert "2 processes were started on this machine; leave it out under torchrun" in capfd.readouterr().err
