"""What a group does with new data: five folds of each configuration, the choice among them, and the report.

    python benchmarks/new_data.py --data DIR --work DIR [--only hippocampus,montgomery]

DIR of ``--data`` holds ``hippocampus`` (200 cases, `2d` and `3d_fullres`) and ``cxr_lung/montgomery`` (138 pictures).
Trainings are 60 steps a fold, enough to see the road and far too few to be good. Each finished dataset is a row in
``benchmarks/results/new_data.jsonl`` with the cross-validated Dice of each candidate, what was chosen and why, what was
adopted after it, what calibration found, the size of the page and the seconds of each step. The page stays in
``--work``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from recording import append, read
from studying import ours

from selfcfg.files import read_json, write_json

RESULTS = "new_data.jsonl"
RANKS = ("rank_correlation", "rank_p")
STEPS = {"epochs": 3, "iterations_per_epoch": 20, "validation_iterations": 2}


class Task(NamedTuple):
    """A dataset, and the settings of each configuration that is trained."""

    number: int
    source: str
    names: dict[str, int]
    channels: str
    configurations: dict[str, dict[str, Any]]


TASKS = {
    "hippocampus": Task(
        41,
        "hippocampus",
        {"background": 0, "anterior": 1, "posterior": 2},
        "MRI",
        {
            "2d": {"batch_size": 16, "learning_rate": 0.1},
            "3d_fullres": {"batch_size": 2, "learning_rate": 0.03},
        },
    ),
    "montgomery": Task(
        42,
        "cxr_lung/montgomery",
        {"background": 0, "lung": 1},
        "XR",
        {
            "2d": {
                "batch_size": 4,
                "patch_size": "256,256",
                "learning_rate": 0.03,
                "transforms.mirror_p": 0,
                "transforms.rotation_2d": 0.26,
            }
        },
    ),
}


def main() -> None:
    """Every dataset that has no row yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(TASKS))
    options = parser.parse_args()
    done = {row["dataset"] for row in read(RESULTS)}
    for name in options.only.split(","):
        if name not in done:
            append(RESULTS, {"dataset": name, **benchmarked(name, options.data, options.work.absolute())})


def benchmarked(name: str, data: Path, work: Path) -> dict[str, Any]:
    """From folders to the report of one dataset."""
    task, workspace = TASKS[name], ["--workspace", work]
    dataset, seconds = f"Dataset{task.number:03d}_{name}", {}
    if not (work / "raw" / dataset).is_dir():
        names = work / f"{name}.json"
        write_json(names, task.names)
        folders = ["--images", data / task.source / "images", "--labels", data / task.source / "labels"]
        known = ["--id", task.number, "--name", name, "--channels", task.channels, "--labels-json", names]
        ours("convert", "folder", *folders, *known, *workspace)
    if not (work / "preprocessed" / dataset / "plans" / "standard.json").is_file():
        ours("check", task.number, *workspace)
        ours("plan", task.number, *workspace)
    for configuration, settings in task.configurations.items():
        sets = [word for key, value in {**STEPS, **settings}.items() for word in ("--set", f"{key}={value}")]
        how = ["-c", configuration, "--fold", "all", "--resume", "--save-probabilities", *sets]
        ours("train", task.number, *how, *workspace)
    seconds["select"] = timed("select", task.number, *workspace)
    results, calibrated = work / "results" / dataset, {}
    for configuration in task.configurations:
        experiment = results / f"supervised__standard__{configuration}"
        seconds[f"train {configuration}"] = trained_seconds(experiment)
        seconds[f"calibrate {configuration}"] = timed("calibrate", experiment, *workspace)
        temperature, quality = (read_json(experiment / f"{name}.json") for name in ("calibration", "quality"))
        calibrated[configuration] = {
            "temperature": temperature["temperature"],
            "ece": [temperature[when]["ece"] for when in ("before", "after")],
            "nll": [temperature[when]["nll"] for when in ("before", "after")],
            "quality": {name: quality[name] for name in ("is_useful", "error", "error_of_mean", "p", *RANKS)},
        }
        seconds[f"report {configuration}"] = timed("report", experiment, *workspace)
    selection = read_json(results / "selected" / "selection.json")
    candidates = {one["name"]: {"dice": one["dice"], "why": one["why"]} for one in selection["candidates"]}
    pages = {file.parent.name: file.stat().st_size for file in sorted(results.glob("*/report.html"))}
    return {
        "settings": {**STEPS, **task.configurations},
        "candidates": candidates,
        "model": selection["model"],
        "postprocessing": selection["postprocessing"],
        "dice": selection["dice"],
        "calibrated": calibrated,
        "page_bytes": pages,
        "seconds": seconds,
    }


def trained_seconds(experiment: Path) -> float:
    """Of all folds, without the prediction of validation cases."""
    logs = [file.read_text(encoding="utf-8").splitlines() for file in experiment.glob("fold_*/log.jsonl")]
    return round(sum(json.loads(line)["seconds"] for log in logs for line in log), 1)


def timed(*words: object) -> float:
    """The seconds of one command."""
    began = time.perf_counter()
    ours(*words)
    return round(time.perf_counter() - began, 1)


if __name__ == "__main__":
    main()
