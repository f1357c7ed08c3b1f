"""Trains on 160 hippocampus cases and scores 40, here and with nnU-Net, on the same plan, batch, iterations and cases.

    python benchmarks/hippocampus.py --data DIR --peer PYTHON --work DIR [--seeds 0,1,2] [--peer-runs 2] [--timing]

DIR is the folder with ``images`` and ``labels`` of the 200 cases, PYTHON the interpreter of an environment that holds
nnunetv2 2.8.1. Each finished job is appended to ``benchmarks/results/hippocampus.jsonl`` and not done again. With
``--timing`` both sides train three epochs in turn, three times, and only seconds per epoch are recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from recording import append, read

from selfcfg.engine.scoring.evaluate import evaluate
from selfcfg.labels import LabelSchema

HERE = Path(__file__).resolve().parent
RESULTS = "hippocampus.jsonl"
SPLIT = HERE / "hippocampus_split.json"
LABELS = LabelSchema(labels={"background": 0, "anterior": 1, "posterior": 2})
EPOCHS, ITERATIONS, VALIDATION, BATCH = 24, 25, 5, 2

PEER_TRAINER = """from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainer_short(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = {epochs}, {train}, {val}
"""


def main() -> None:
    """Runs what is asked for and not done yet."""
    options = _options()
    raw = prepare(options.data, options.work)
    peer = Peer(options.peer, options.work, raw)
    if options.timing:
        time_both(raw, peer, options.work)
    for seed in [int(text) for text in options.seeds.split(",") if text]:
        record("selfcfg", seed, lambda seed=seed: train_ours(raw, options.work, seed, EPOCHS, f"seed{seed}"))
    for run in range(options.peer_runs):
        record("nnunetv2", run, lambda run=run: peer.train(EPOCHS, f"run{run}"))
    summarise()


def prepare(data: Path, work: Path) -> Path:
    """The raw dataset both sides read, made once."""
    raw = work / "raw" / "Dataset004_Hippocampus"
    if not raw.is_dir():
        labels = work / "labels.json"
        work.mkdir(parents=True, exist_ok=True)
        labels.write_text(json.dumps({"background": 0, "anterior": 1, "posterior": 2}))
        command = ["convert", "folder", "--images", data / "images", "--labels", data / "labels", "--id", 4]
        ours(work, *command, "--name", "Hippocampus", "--channels", "MRI", "--labels-json", labels)
        (raw / "splits_final.json").write_text(SPLIT.read_text())
        ours(work, "plan", 4)
        ours(work, "preprocess", 4)
    return raw


def ours(work: Path, *command: Any) -> None:
    """Runs one command of selfcfg in the benchmark's workspace."""
    arguments = [str(part) for part in command]
    subprocess.run([sys.executable, "-m", "selfcfg", *arguments, "--workspace", str(work)], check=True)


def train_ours(raw: Path, work: Path, seed: int, epochs: int, name: str) -> dict[str, Any]:
    """One training here; Dice of the 40 cases and median seconds per epoch."""
    settings = {
        "epochs": epochs,
        "iterations_per_epoch": ITERATIONS,
        "validation_iterations": VALIDATION,
        "batch_size": BATCH,
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    ours(work, "train", 4, "--fold", 0, "--seed", seed, "--name", name, "--resume", *sets)
    run = work / "results" / raw.name / f"supervised__standard__3d_fullres__{name}" / "fold_0"
    seconds = [json.loads(line)["seconds"] for line in (run / "log.jsonl").read_text().splitlines()]
    return {**score(raw, run / "validation"), "seconds_per_epoch": statistics.median(seconds)}


class Peer:
    """nnU-Net in an environment of its own, on the same raw dataset."""

    def __init__(self, python: Path, work: Path, raw: Path) -> None:
        self.python, self.work, self.raw = python, work, raw
        self.folder = work / "peer"

    def train(self, epochs: int, name: str) -> dict[str, Any]:
        """One training there; Dice of the 40 cases and median seconds per epoch."""
        self._plan()
        fold = self.fold(name)
        extension = self.folder / "trainers"
        extension.mkdir(parents=True, exist_ok=True)
        (extension / "short.py").write_text(PEER_TRAINER.format(epochs=epochs, train=ITERATIONS, val=VALIDATION))
        trainer = ["4", "3d_fullres", "0", "-tr", "nnUNetTrainer_short", "-device", "cpu"]
        self._run("nnUNetv2_train", *trainer, "--c", results=fold.parents[2])
        log = "".join(file.read_text() for file in fold.glob("training_log_*.txt"))
        seconds = [float(text) for text in re.findall(r"Epoch time: ([\d.]+) s", log)]
        return {**score(self.raw, fold / "validation"), "seconds_per_epoch": statistics.median(seconds)}

    def fold(self, name: str) -> Path:
        """Where nnU-Net keeps the training of a name."""
        return (
            self.folder / f"results_{name}" / self.raw.name / "nnUNetTrainer_short__nnUNetPlans__3d_fullres" / "fold_0"
        )

    def _plan(self) -> None:
        plans = self.folder / "preprocessed" / self.raw.name / "nnUNetPlans.json"
        if not plans.is_file():
            self._run("nnUNetv2_plan_and_preprocess", "-d", "4", "-c", "3d_fullres", "-npfp", "2", "-np", "2")
            content = json.loads(plans.read_text())
            content["configurations"]["3d_fullres"]["batch_size"] = BATCH
            plans.write_text(json.dumps(content, indent=2))

    def _run(self, command: str, *arguments: str, results: Path | None = None) -> None:
        environment = {
            **os.environ,
            "nnUNet_raw": str(self.raw.parent),
            "nnUNet_preprocessed": str(self.folder / "preprocessed"),
            "nnUNet_results": str(results or self.folder / "results"),
            "nnUNet_extTrainer": str(self.folder / "trainers"),
            "nnUNet_n_proc_DA": "1",
            "nnUNet_def_n_proc": "2",
            "nnUNet_compile": "f",
            "CUDA_VISIBLE_DEVICES": "",
        }
        subprocess.run([str(self.python.parent / command), *arguments], env=environment, check=True)


def score(raw: Path, predictions: Path) -> dict[str, Any]:
    """Dice of the 40 cases by our own evaluation, for either side's predictions."""
    cases = json.loads(SPLIT.read_text())[0]["val"]
    references = {case: raw / "labelsTr" / f"{case}.nii.gz" for case in cases}
    scores = evaluate(references, {case: predictions / f"{case}.nii.gz" for case in cases}, LABELS)
    return {
        "dice": scores.foreground_mean["dice"],
        "per_class": {name: row["dice"] for name, row in scores.mean.items()},
    }


def time_both(raw: Path, peer: Peer, work: Path) -> None:
    """Three epochs of each side in turn, three times; the median epoch of each counts."""
    for turn in range(3):
        stamp = int(time.time())
        result = {
            "selfcfg": train_ours(raw, work, 0, 3, f"timing{stamp}")["seconds_per_epoch"],
            "nnunetv2": peer.train(3, f"timing{stamp}")["seconds_per_epoch"],
        }
        append(RESULTS, {"system": "timing", "run": turn, **result, "ratio": result["nnunetv2"] / result["selfcfg"]})


def record(system: str, run: int, job: Any) -> None:
    """Does a job once and appends its result."""
    if not any(row["system"] == system and row["run"] == run for row in read(RESULTS)):
        append(RESULTS, {"system": system, "run": run, **job()})


def summarise() -> None:
    """Prints means and ratios."""
    rows = read(RESULTS)
    for system in ("selfcfg", "nnunetv2"):
        dice = [row["dice"] for row in rows if row["system"] == system]
        if dice:
            print(f"{system}: mean foreground Dice {statistics.mean(dice):.4f} over {len(dice)} runs {dice}")
    ratios = [row["ratio"] for row in rows if row["system"] == "timing"]
    if ratios:
        print(f"seconds per epoch, nnunetv2 / selfcfg: median {statistics.median(ratios):.2f} of {ratios}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--peer-runs", type=int, default=2)
    parser.add_argument("--timing", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
