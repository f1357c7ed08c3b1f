"""Trainings on a real Slurm of one node: the same weights as here, whatever happens on the way."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selfcfg.cli import main
from selfcfg.cluster.graph import GraphFolder
from tests.cli.conftest import Command

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm", "no_curves")]

SETTINGS = "iterations_per_epoch = 3, validation_iterations = 1, batch_size = 2, workers = 0"
RECIPE = f"""
[[stage]]
name = "tuned"
trainer = "supervised"
settings = {{ epochs = 16, {SETTINGS} }}
"""
NAME = "one__standard__3d_fullres"


def command(workspace: Path, *options: str) -> list[str]:
    return ["train", "901", "--recipe", str(workspace / "one.toml"), *options, "--workspace", str(workspace)]


def until(condition: Callable[[], object], process: subprocess.Popen[bytes] | None = None) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_a_recipe_whose_shell_is_killed_and_whose_training_is_preempted_gives_the_weights_of_here(
    selfcfg: Command, preprocessed: Path, tmp_path: Path
) -> None:
    workspace = Path(shutil.copytree(preprocessed, tmp_path / "w"))
    (workspace / "one.toml").write_text(RECIPE)
    here = shutil.copytree(workspace, tmp_path / "here")
    there = command(workspace, "--cluster", "slurm", "--cluster-set", "cpus=1,mem=2G")
    folder = workspace / "results" / "Dataset901_Tiny"
    graph, run = GraphFolder(folder / "cluster" / NAME), folder / NAME / "tuned" / "fold_0"

    shell = subprocess.Popen(
        [sys.executable, "-m", "selfcfg", *there], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    until(lambda: graph.file.exists() and [one.job for one in graph.read().submissions if one.job], shell)
    shell.send_signal(signal.SIGKILL)
    shell.communicate()
    until((run / "log.jsonl").exists)
    job = graph.states()["tuned/fold_0"].job
    subprocess.run(["scancel", "--batch", "--signal=USR1", str(job)], check=True)

    assert main(command(here, "--jobs", "1")) == 0
    answer = selfcfg(*there)
    assert answer.code == 0, answer.err
    assert "nothing to submit" in answer.err and answer.result["run"] == str(folder / NAME)
    scores = [
        json.loads((one / "validation" / "summary.json").read_text())
        for one in (run, here / run.relative_to(workspace))
    ]
    assert scores[0]["foreground_mean"] == scores[1]["foreground_mean"]
    final = run / "final.safetensors"
    assert final.read_bytes() == (here / final.relative_to(workspace)).read_bytes()
    told = selfcfg("status", NAME, "--workspace", workspace)
    jobs = {one["name"]: one for one in told.result["graphs"][0]["jobs"]}
    assert {one["state"] for one in jobs.values()} == {"done"}
    assert list(jobs) == ["tuned/fold_0"]
    assert jobs["tuned/fold_0"]["turns"] == 2 and "started 2 times" in told.err
    log = Path(jobs["tuned/fold_0"]["log"]).read_text()
    assert "SIGTERM: finishing this step" in log
