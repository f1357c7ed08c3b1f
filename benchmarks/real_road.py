"""The whole road on real datasets with short trainings: converts, checks, plans, trains fold 0, scores it.

    python benchmarks/real_road.py --data DIR --work DIR [--only montgomery,ct_pet]

DIR holds the datasets as listed in `TASKS`. Each finished task is appended to ``benchmarks/results/real_road.jsonl``
with its Dice, the seconds its training took, versions and machine, and not done again. Pictures are in the report of
each run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recording import append, read

from selfcfg.cli import main as selfcfg

RESULTS = "real_road.jsonl"


@dataclass(frozen=True)
class Task:
    """One dataset: where its images and labels are, what they mean, how it is planned and how long trained."""

    number: int
    images: str
    labels: str
    names: dict[str, Any]
    channels: str
    configuration: str
    settings: dict[str, Any]
    options: list[str] = field(default_factory=list)
    cases: int | None = None
    planner: str = "standard"
    memory: str = ""

    @property
    def plan(self) -> list[str]:
        """The options of planning."""
        return ["--planner", self.planner, *(["--memory", self.memory] if self.memory else [])]

    @property
    def plan_name(self) -> str:
        """The name of the plan's file."""
        return self.planner + (f"-{self.memory}GB" if self.memory else "")


NESTED = {
    "labels": {"background": 0, "any dose": [1, 2, 3], "middle dose": [2, 3], "high dose": [3]},
    "regions_class_order": [1, 2, 3],
}
SCRIBBLES = {"background": 0, "RV": 1, "myocardium": 2, "LV": 3, "ignore": 4}
UPRIGHT = {"transforms.mirror_p": 0, "transforms.rotation_2d": 0.26}
"""For pictures that always hang the same way."""

XRAYS: tuple[Any, ...] = (
    21,
    "cxr_lung/montgomery/images",
    "cxr_lung/montgomery/labels",
    {"background": 0, "lung": 1},
    "XR",
    "2d",
)
XRAY_SETTINGS = {
    "epochs": 24,
    "iterations_per_epoch": 30,
    "validation_iterations": 4,
    "batch_size": 4,
    "patch_size": "256,256",
}
SHORT = {"epochs": 3, "iterations_per_epoch": 10, "validation_iterations": 2, "batch_size": 2}
SOME = {"epochs": 3, "iterations_per_epoch": 20, "validation_iterations": 2}
ORGANS: tuple[Any, ...] = (
    28,
    "openkbp_headneck_ct/images",
    "openkbp_headneck_ct/labels",
    {"background": 0, "brainstem": 1, "spinal cord": 2, "right parotid": 3, "left parotid": 4, "mandible": 5},
    "CT",
    "3d_cascade_fullres",
)
TASKS = {
    "montgomery": Task(*XRAYS, {**XRAY_SETTINGS, **UPRIGHT}),
    "montgomery_default": Task(26, *XRAYS[1:], XRAY_SETTINGS),
    "ct_pet": Task(
        22,
        "sts_sarcoma/ctpet_2ch/images",
        "sts_sarcoma/ctpet_2ch/labels",
        {"background": 0, "tumour": 1},
        "CT,PET",
        "3d_fullres",
        {**SHORT, "patch_size": "32,64,64"},
    ),
    "regions": Task(
        23,
        "openkbp_headneck_ct/images",
        "openkbp_headneck_ct/labels_ptv",
        NESTED,
        "CT",
        "3d_fullres",
        {**SHORT, "patch_size": "64,32,64"},
        cases=10,
    ),
    "scribbles": Task(
        24,
        "acdc_cardiac_mr/images",
        "acdc_cardiac_mr/labels_scribble",
        SCRIBBLES,
        "MRI",
        "2d",
        {**SHORT, "batch_size": 4},
        ["--subject-pattern", r"(patient\d+)"],
    ),
    "nuclei": Task(
        25, "dsb2018_nuclei/images", "dsb2018_nuclei/labels", {"background": 0, "nucleus": 1}, "R,G,B", "2d", SHORT
    ),
    "nuclei_residual": Task(
        25,
        "dsb2018_nuclei/images",
        "dsb2018_nuclei/labels",
        {"background": 0, "nucleus": 1},
        "R,G,B",
        "2d",
        {"epochs": 3, "iterations_per_epoch": 10, "validation_iterations": 2},
        planner="residual-m",
        memory="0.5",
    ),
    "cascade": Task(*ORGANS, settings=SOME, cases=10, memory="0.3"),
    "cascade_residual": Task(*ORGANS, settings=SOME, cases=10, planner="residual-m", memory="0.3"),
}


def main() -> None:
    """Does every task that is asked for and not done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(TASKS))
    options = parser.parse_args()
    done = {row["task"] for row in read(RESULTS)}
    for name in options.only.split(","):
        if name not in done:
            append(RESULTS, {"task": name, **run(TASKS[name], options.data, options.work)})


def run(task: Task, data: Path, work: Path) -> dict[str, Any]:
    """One dataset from its folders to scores."""
    workspace = ["--workspace", str(work)]
    dataset = convert(task, data, work)
    call(["check", str(task.number), *workspace])
    call(["plan", str(task.number), *task.plan, *workspace])
    used = ["-c", task.configuration, "--planner", task.plan_name]
    call(["preprocess", str(task.number), *used, *workspace])
    sets = [part for key, value in task.settings.items() for part in ("--set", f"{key}={value}")]
    began = time.perf_counter()
    if task.configuration == "3d_cascade_fullres":
        first = ["-c", "3d_lowres", "--planner", task.plan_name, "--fold", "all"]
        call(["train", str(task.number), *first, "--resume", *sets, *workspace])
    call(["train", str(task.number), *used, "--resume", *sets, *workspace])
    seconds = time.perf_counter() - began
    folder = work / "results" / dataset.name / f"supervised__{task.plan_name}__{task.configuration}"
    scores = json.loads((folder / "fold_0" / "validation" / "summary.json").read_text())
    log = [json.loads(line) for line in (folder / "fold_0" / "log.jsonl").read_text().splitlines()]
    return {
        "dice": scores["foreground_mean"]["dice"],
        "per_class": {name: row["dice"] for name, row in scores["mean"].items()},
        "cases": len(scores["cases"]),
        "settings": task.settings,
        "training_seconds": sum(epoch["seconds"] for epoch in log),
        "training_and_validation_seconds": seconds,
    }


def convert(task: Task, data: Path, work: Path) -> Path:
    """The dataset in the standard folder format, made where it is not there yet."""
    dataset = work / "raw" / f"Dataset{task.number:03d}_Real"
    if dataset.is_dir():
        return dataset
    work.mkdir(parents=True, exist_ok=True)
    names = work / f"labels_{task.number}.json"
    names.write_text(json.dumps(task.names))
    images, labels = data / task.images, data / task.labels
    if task.cases is not None:
        images, labels = (
            first_files(folder, task.cases, work / f"source_{task.number}") for folder in (images, labels)
        )
    command = ["convert", "folder", "--images", str(images), "--labels", str(labels)]
    command += ["--id", str(task.number), "--name", "Real", "--channels", task.channels]
    call([*command, "--labels-json", str(names), *task.options, "--workspace", str(work)])
    return dataset


def first_files(folder: Path, count: int, destination: Path) -> Path:
    """A copy of a folder's first files by name."""
    copy = destination / folder.name
    copy.mkdir(parents=True, exist_ok=True)
    for file in sorted(folder.iterdir())[:count]:
        shutil.copyfile(file, copy / file.name)
    return copy


def call(command: list[str]) -> None:
    """One command line; anything but success ends the benchmark."""
    if code := selfcfg(command):
        raise SystemExit(f"selfcfg {' '.join(command)} ended with {code}")


if __name__ == "__main__":
    main()
