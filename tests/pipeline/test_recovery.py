"""Killed at any moment and run again, a training ends with the weights of an undisturbed one."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfcfg.dataset import Dataset

SETTINGS = ["epochs=3", "iterations_per_epoch=5", "validation_iterations=1", "batch_size=2", "workers=1"]
COMMAND = [sys.executable, "-m", "selfcfg", "plan-and-train", "901", "--fold", "0", "--jobs", "2"]


def start(workspace: Path) -> subprocess.Popen[bytes]:
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    arguments = [*COMMAND, *sets, "--workspace", str(workspace)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(workspace: Path) -> None:
    process = start(workspace)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()


def weights(workspace: Path) -> str:
    files = list(workspace.rglob("final.safetensors"))
    assert len(files) == 1
    return hashlib.sha256(files[0].read_bytes()).hexdigest()


def leftovers(workspace: Path) -> list[Path]:
    return [path for path in workspace.rglob("*") if path.name.startswith(".tmp-")]


def copy(dataset: Dataset, workspace: Path) -> Path:
    shutil.copytree(dataset.root, workspace / "raw" / dataset.name)
    return workspace


@pytest.fixture(scope="module")
def undisturbed(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """The weights of a run that nobody disturbed, and how long it took."""
    workspace = copy(tiny_dataset, tmp_path_factory.mktemp("undisturbed"))
    begun = time.monotonic()
    finish(workspace)
    return weights(workspace), time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments(
    tiny_dataset: Dataset, tmp_path: Path, undisturbed: tuple[str, float], seed: int
) -> None:
    expected, seconds = undisturbed
    workspace = copy(tiny_dataset, tmp_path)
    moments = random.Random(seed)
    for _ in range(3):
        process = start(workspace)
        try:
            process.wait(timeout=moments.uniform(0.15, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(workspace)
    assert weights(workspace) == expected
    assert leftovers(workspace) == []


@pytest.mark.slow
def test_asked_to_stop_it_saves_and_exits_75(
    tiny_dataset: Dataset, tmp_path: Path, undisturbed: tuple[str, float]
) -> None:
    workspace = copy(tiny_dataset, tmp_path)
    process = start(workspace)
    deadline = time.monotonic() + 120
    while not list(workspace.rglob("last.pt")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the training was over before the signal came")
    assert process.returncode == 75, errors.decode()
    assert b"Traceback" not in errors
    finish(workspace)
    assert weights(workspace) == undisturbed[0]
