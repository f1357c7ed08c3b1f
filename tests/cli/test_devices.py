"""One training in two processes from the command line: the same weights, one of them killed, stopped, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from selfcfg.cli import main
from selfcfg.dataset import Dataset
from selfcfg.engine.checkpoint import read_weights
from selfcfg.runs import RunFolder, RunRecord
from tests.conftest import slim

pytestmark = pytest.mark.timeout(900)

SETTINGS = [
    "epochs=3",
    "iterations_per_epoch=4",
    "validation_iterations=3",
    "batch_size=4",
    "workers=1",
    "precision=float32",
]
SET = [part for setting in (*SETTINGS, "precision=float32") for part in ("--set", setting)]
COMMAND = ["train", "901", "-c", "2d", "--device", "cpu", "--jobs", "1", *SET]
TWO = [*COMMAND, "--devices", "2"]


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


def start(workspace: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "selfcfg", *TWO, *options, "--workspace", str(workspace)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run_of(workspace: Path, name: str = "") -> RunFolder:
    return RunFolder(workspace / f"results/Dataset901_Tiny/supervised__standard__2d{name}/fold_0")


def assert_alike(one: RunFolder, other: RunFolder) -> None:
    """Weights of two runs that did the same sums in another order."""
    (mine, _), (theirs, _) = read_weights(one.final), read_weights(other.final)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-5, rtol=1e-4)


def wait_for_checkpoint(process: subprocess.Popen[bytes], run: RunFolder) -> None:
    deadline = time.monotonic() + 600
    while not run.last.is_file():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.02)


def second_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    """The second of the processes that train."""
    children = psutil.Process(process.pid).children()
    return next(child for child in children if child.environ().get("RANK") == "1")


@pytest.fixture(scope="module")
def undisturbed(planned: Path) -> RunFolder:
    """A training in two processes."""
    process = start(planned, "--json")
    told, errors = process.communicate(timeout=800)
    assert process.returncode == 0, errors.decode()
    (line,) = told.decode().splitlines()
    assert json.loads(line)["run"] == str(run_of(planned).path.parent)
    assert errors.decode().count("train fold_0: 12/12") == 1
    return run_of(planned)


@pytest.mark.slow
def test_two_processes_end_with_what_one_does(planned: Path, undisturbed: RunFolder) -> None:
    assert main([*COMMAND, "--name", "one", "--workspace", str(planned)]) == 0
    one = run_of(planned, "__one")
    assert_alike(undisturbed, one)
    assert RunRecord.read(undisturbed.record).machine["processes"] == 2
    assert "processes" not in RunRecord.read(one.record).machine
    assert {file.name for file in undisturbed.path.rglob("*")} == {file.name for file in one.path.rglob("*")}


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_all_ends_the_same(planned: Path, undisturbed: RunFolder) -> None:
    process = start(planned, "--max-restarts", "3", "--name", "killed")
    run = run_of(planned, "__killed")
    wait_for_checkpoint(process, run)
    second_of(process).kill()
    _, errors = process.communicate(timeout=800)
    assert process.returncode == 0, errors.decode()
    assert b"continuing fold_0" in errors
    (mine, _), (theirs, _) = read_weights(run.final), read_weights(undisturbed.final)
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.slow
def test_a_killed_process_ends_all_with_one_message(planned: Path) -> None:
    process = start(planned, "--name", "lost", "--set", "epochs=200")
    wait_for_checkpoint(process, run_of(planned, "__lost"))
    second_of(process).kill()
    _, errors = process.communicate(timeout=800)
    assert process.returncode == 1
    told = [line for line in errors.decode().splitlines() if line.startswith("error:") or "Traceback" in line]
    assert told == [
        "error: train with 2 processes: process 1 was ended by SIGKILL, most likely for want of memory; "
        "continue with --resume; --max-restarts N does so by itself"
    ]


@pytest.mark.slow
def test_asked_to_stop_both_save_and_one_process_continues(planned: Path, undisturbed: RunFolder) -> None:
    # a long validation, after which all obey, so that the training is not over before the signal comes
    slower = ("--name", "stopped", "--set", "validation_iterations=60")
    process = start(planned, *slower)
    run = run_of(planned, "__stopped")
    wait_for_checkpoint(process, run)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=800)
    assert process.returncode == 75, errors.decode()
    assert b"Traceback" not in errors
    assert b"it is saved" in errors
    assert not run.final.is_file()
    assert main([*COMMAND, *slower, "--resume", "--workspace", str(planned)]) == 0
    assert_alike(run, undisturbed)


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
