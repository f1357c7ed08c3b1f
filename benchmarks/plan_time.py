"""Times planning here and with nnU-Net on the same published fingerprints: the planner's call, and the whole command.

    python benchmarks/plan_time.py --data DIR --peer PYTHON [--rounds 3] [--tasks 004_Hippocampus,003_Liver,...]

DIR holds a folder a task, such as ``msd_003_Liver__standard``, with ``fingerprint.json`` and ``dataset.json``; PYTHON
is the interpreter of an environment that holds nnunetv2 2.8.1. Both sides take turns. The call is timed in a process
that has planned before, from the files of a dataset to the plan in memory (nnU-Net's also writes it); the command is
timed from the start of its process to its end. Medians are appended to ``benchmarks/results/plan_time.jsonl``; what is
there is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from line_protocol import Peer
from planner_equality import PEER, READER, plan_theirs
from planner_jobs import PLANNERS
from recording import append, read

from selfcfg.dataset import DatasetDescription
from selfcfg.engine.planner import load_planner
from selfcfg.fingerprint import Fingerprint

RESULTS = "plan_time.jsonl"
LIMIT = 600
TASKS = "004_Hippocampus,005_Prostate,001_BrainTumour,003_Liver"
CLASSES = {
    "standard": "default_experiment_planner.ExperimentPlanner",
    "residual-m": "residual_unets.residual_encoder_unet_planners.nnUNetPlannerResEncM",
    "residual-l": "residual_unets.residual_encoder_unet_planners.nnUNetPlannerResEncL",
    "residual-xl": "residual_unets.residual_encoder_unet_planners.nnUNetPlannerResEncXL",
}
SCRIPT = """from nnunetv2.experiment_planning.experiment_planners.{module} import {name}
{name}("{dataset}", {memory}).plan_experiment()
"""
DATASET = "Dataset001_Timed"


def time_call(files: Path, planner: str, peer: Peer, rounds: int) -> dict[str, float]:
    """Median seconds of either planner in a process that is warm, from a dataset's files to a plan in memory."""
    job = {
        "planner": planner,
        "memory_gb": PLANNERS[planner],
        "spacing": None,
        "fingerprint": json.loads((files / "fingerprint.json").read_text()),
        "dataset": json.loads((files / "dataset.json").read_text()),
    }

    def theirs() -> float:
        answer = plan_theirs(peer, job, LIMIT, real=True)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return float(answer["seconds"])

    decide = load_planner(planner)

    def ours() -> float:
        began = time.perf_counter()
        facts = Fingerprint.read(files / "fingerprint.json")
        decide(facts, DatasetDescription.read(files / "dataset.json"), dataset=DATASET)
        return time.perf_counter() - began

    return _in_turn(ours, theirs, rounds)


def time_command(files: Path, planner: str, python: Path, rounds: int) -> dict[str, float]:
    """Median seconds of either command, process and imports included."""
    with tempfile.TemporaryDirectory() as folder:
        environment = _prepare(files, Path(folder))
        module, _, name = CLASSES[planner].rpartition(".")
        script = SCRIPT.format(module=module, name=name, dataset=DATASET, memory=PLANNERS[planner])
        program = str(Path(sys.executable).with_name("selfcfg"))
        inputs = ["--fingerprint", str(files / "fingerprint.json"), "--dataset-json", str(files / "dataset.json")]
        out = ["--out", str(Path(folder, "plan.json"))]
        ours = [program, "plan", "--planner", planner, *inputs, *out]
        theirs = [str(python), "-W", "ignore", "-c", script]
        return _in_turn(lambda: _seconds(ours, environment), lambda: _seconds(theirs, environment), rounds)


def _prepare(files: Path, folder: Path) -> dict[str, str]:
    """nnU-Net's folders with the fingerprint there, as environment variables."""
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    raw, preprocessed = folder / names[0] / DATASET, folder / names[1] / DATASET
    raw.mkdir(parents=True)
    preprocessed.mkdir(parents=True)
    description = json.loads((files / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**description, **READER}))
    (preprocessed / "dataset_fingerprint.json").write_text((files / "fingerprint.json").read_text())
    return {**os.environ, **{name: str(folder / name) for name in names}}


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def _in_turn(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> dict[str, float]:
    """Medians of both and their ratio; a first turn that does not count warms up caches."""
    turns = [(ours(), theirs()) for _ in range(rounds + 1)][1:]
    own, other = (statistics.median(side) for side in zip(*turns, strict=True))
    return {"seconds": round(own, 5), "peer_seconds": round(other, 4), "ratio": round(other / own, 1)}


def summarise() -> None:
    """Prints every ratio, and the lowest and the median of each kind."""
    rows = read(RESULTS)
    print(f"\n{'what':8} {'task':16} {'planner':12} {'nnU-Net, s':>11} {'ours, s':>9} {'ratio':>7}")
    for row in rows:
        times = f"{row['peer_seconds']:11.3f} {row['seconds']:9.4f} {row['ratio']:7.0f}"
        print(f"{row['what']:8} {row['task']:16} {row['planner']:12} {times}")
    for what in ("call", "command"):
        ratios = [row["ratio"] for row in rows if row["what"] == what]
        if ratios:
            print(f"{what}: lowest ratio {min(ratios):.0f}, median {statistics.median(ratios):.0f} of {len(ratios)}")


def main() -> None:
    """Times what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", default=TASKS)
    options = parser.parse_args()
    done = {(row["what"], row["task"], row["planner"]) for row in read(RESULTS)}
    with Peer(options.peer, PEER) as peer:
        for task in options.tasks.split(","):
            files = options.data / f"msd_{task}__standard"
            for planner in PLANNERS:
                measurements: dict[str, Callable[[], dict[str, Any]]] = {
                    "call": lambda: time_call(files, planner, peer, options.rounds),  # noqa: B023 - called at once
                    "command": lambda: time_command(files, planner, options.peer, options.rounds),  # noqa: B023
                }
                for what, measure in measurements.items():
                    if (what, task, planner) not in done:
                        row = {"what": what, "task": task, "planner": planner, **measure()}
                        append(RESULTS, {**row, "peer": peer.versions})
    summarise()


if __name__ == "__main__":
    main()
