"""Stopped or killed and run again, a training ends with the weights of an undisturbed one; see also tests/faults."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from selfcfg.cli import main
from selfcfg.dataset import Dataset
from selfcfg.engine.checkpoint import load_state
from selfcfg.engine.training.journal import read_log
from selfcfg.runs import RunFolder
from tests.conftest import slim

SETTINGS = ["epochs=3", "iterations_per_epoch=5", "validation_iterations=20", "batch_size=2", "workers=1"]
COMMAND = ["plan-and-train", "901", "--fold", "0", "--jobs", "2", *(x for one in SETTINGS for x in ("--set", one))]

EPOCHS = 10
PRETRAINED = ["iterations_per_epoch=2", "validation_iterations=1", "batch_size=4", "workers=0", f"epochs={EPOCHS}"]
PRETRAININGS = {
    "masked": ["-c", "2d"],
    "contrastive": ["-c", "2d", "--set", "queue=24"],
    "sequential": ["-c", "3d_fullres", "--set", "patch_size=4,24,20", "--set", "queue=24"],
    "hierarchical": ["-c", "2d"],
}
"""A strategy, and how it is trained here; the queues are full, and replaced, after a few steps."""


def start(workspace: Path, command: list[str] = COMMAND) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "selfcfg", *command, "--workspace", str(workspace)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def weights(workspace: Path) -> str:
    files = list(workspace.rglob("final.safetensors"))
    assert len(files) == 1
    return hashlib.sha256(files[0].read_bytes()).hexdigest()


def leftovers(workspace: Path) -> list[Path]:
    return [path for path in workspace.rglob("*") if path.name.startswith(".tmp-")]


@pytest.fixture(scope="module")
def planned(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which a dataset is planned, for networks an eighth as wide, and preprocessed."""
    workspace = tmp_path_factory.mktemp("planned")
    shutil.copytree(tiny_dataset.root, workspace / "raw" / tiny_dataset.name)
    place = ["--workspace", str(workspace), "--jobs", "1"]
    assert main(["plan", "901", *place]) == 0
    (file,) = workspace.rglob("plans/*.json")
    slim(file)
    for name in ("2d", "3d_fullres"):
        assert main(["preprocess", "901", "-c", name, *place]) == 0
    return workspace


@pytest.mark.slow
def test_asked_to_stop_it_saves_and_exits_75(planned: Path, tmp_path: Path) -> None:
    undisturbed, workspace = (shutil.copytree(planned, tmp_path / name) for name in ("undisturbed", "stopped"))
    assert main([*COMMAND, "--workspace", str(undisturbed)]) == 0
    process = start(workspace)
    deadline = time.monotonic() + 120
    while not list(workspace.rglob("last.pt")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors.decode()
    assert b"Traceback" not in errors
    assert main([*COMMAND, "--workspace", str(workspace)]) == 0
    assert weights(workspace) == weights(undisturbed)


def learnt(run: RunFolder) -> tuple[bytes, bytes, list[dict[str, Any]], dict[str, Tensor]]:
    """All that a training is left with but times: weights, log, and the last state with queue and slow copies."""
    state = load_state(run)
    assert state is not None
    log = read_log(run)
    for entry in log:
        for name in ("seconds", "seconds_per_iteration", "data_wait"):
            del entry[name]
    return run.final.read_bytes(), run.best.read_bytes(), log, state["parts"]


def kill_in_an_epoch(process: subprocess.Popen[bytes], run: RunFolder, share: float) -> int:
    """Kills a training that has logged two more epochs, after a share of the time that one takes; its exit code."""
    known, deadline = len(read_log(run)), time.monotonic() + 120
    while len(log := read_log(run)) < known + 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.002)
    time.sleep(share * log[-1]["seconds"])
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode


@pytest.mark.slow
@pytest.mark.parametrize("trainer", PRETRAININGS)
def test_pretraining_killed_at_random_moments(planned: Path, tmp_path: Path, trainer: str) -> None:
    unlabelled = ["--unlabelled", str(next(planned.rglob("imagesTs")))] if trainer == "hierarchical" else []
    sets = [part for setting in PRETRAINED for part in ("--set", setting)]
    command = ["train", "901", "--trainer", trainer, "--jobs", "1", *PRETRAININGS[trainer], *unlabelled, *sets]
    disturbed = shutil.copytree(planned, tmp_path / "w")
    assert main([*command, "--workspace", str(planned)]) == 0
    name = f"results/Dataset901_Tiny/{trainer}__standard__{PRETRAININGS[trainer][1]}/fold_0"
    run, moments = RunFolder(disturbed / name), random.Random(trainer)
    has_queue = "queue=24" in command
    for _ in range(2 if has_queue else 1):
        process = start(disturbed, [*command, "--resume"])
        assert kill_in_an_epoch(process, run, moments.uniform(0, 1.5)) == -signal.SIGKILL
    assert len(read_log(run)) < EPOCHS
    assert main([*command, "--resume", "--workspace", str(disturbed)]) == 0
    *files, parts = learnt(run)
    *expected, wanted = learnt(RunFolder(planned / name))
    assert files == expected
    assert parts.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(parts[name], wanted[name])] == []
    slow = {"slow_encoder", "slow_projection", "centre", "queue"}
    assert slow & {name.split(".")[0] for name in parts} == (slow if has_queue else set())
    assert leftovers(disturbed) == []
