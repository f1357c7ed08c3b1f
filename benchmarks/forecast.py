"""The forecast of a training step against the step itself, on a processor: time, and peak memory of the process.

    python benchmarks/forecast.py --data DIR --work DIR [--only hippocampus-3d]

For each entry of `PLANS` a real dataset is converted, planned and preprocessed; then, in a process each, `selfcfg
forecast` and a few training steps on real batches of full size, with one worker. Each finished row is appended to
``benchmarks/results/forecast.jsonl`` with both and their ratios, and not done again. Needs an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from real_road import TASKS, Task, call, convert
from recording import append, read

from selfcfg.engine.choice import TrainRequest
from selfcfg.engine.experiment import forecast_of, open_experiment
from selfcfg.engine.forecasting.time_budget import measure_pace
from selfcfg.project import Project
from selfcfg.workspace import Workspace

RESULTS = "forecast.jsonl"
HIPPOCAMPUS = Task(
    27, "hippocampus/images", "hippocampus/labels", {"background": 0, "anterior": 1, "posterior": 2}, "MR", "", {}
)


def planned(task: Task, configuration: str, planner: str = "standard", memory: str = "") -> Task:
    """A dataset planned in some way."""
    return replace(task, configuration=configuration, planner=planner, memory=memory)


PLANS = {
    "hippocampus-3d": planned(HIPPOCAMPUS, "3d_fullres"),
    "hippocampus-2d": planned(HIPPOCAMPUS, "2d", memory="1"),
    "hippocampus-residual": planned(HIPPOCAMPUS, "3d_fullres", "residual-m", "1"),
    "montgomery": planned(TASKS["montgomery"], "2d"),
    "montgomery-small": planned(TASKS["montgomery"], "2d", memory="0.5"),
    "nuclei": planned(TASKS["nuclei"], "2d"),
    "nuclei-residual": planned(TASKS["nuclei"], "2d", "residual-m", "1"),
    "scribbles-2d": planned(TASKS["scribbles"], "2d"),
    "scribbles-3d": planned(TASKS["scribbles"], "3d_fullres"),
    "ct_pet": planned(TASKS["ct_pet"], "3d_fullres"),
    "regions": planned(TASKS["regions"], "3d_fullres"),
    "organs-small": planned(TASKS["cascade"], "3d_fullres", memory="1"),
    "organs-residual": planned(TASKS["cascade"], "3d_fullres", "residual-m", "2"),
}


def main() -> None:
    """Does every plan that is asked for and not done yet; with --child one half of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(PLANS))
    parser.add_argument("--child", choices=["forecast", "measured"])
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, PLANS[options.only], options.work)))
        return
    done = {row["plan"] for row in read(RESULTS)}
    for name in options.only.split(","):
        if name not in done:
            append(RESULTS, {"plan": name, **run(name, options.data, options.work)})
    table()


def run(name: str, data: Path, work: Path) -> dict[str, Any]:
    """Forecast and truth of one plan."""
    task = PLANS[name]
    number, workspace = str(task.number), ["--workspace", str(work)]
    convert(task, data, work)
    call(["plan", number, *task.plan, *workspace])
    began = time.perf_counter()
    call(["preprocess", number, "-c", task.configuration, "--planner", task.plan_name, *workspace])
    preprocessing = time.perf_counter() - began
    found = {half: in_child(half, name, work) for half in ("forecast", "measured")}
    ratios = {key: found["forecast"][key] / found["measured"][key] for key in ("step_seconds", "memory")}
    return {**found, "ratios": ratios, "preprocess_seconds": preprocessing}


def in_child(half: str, name: str, work: Path) -> dict[str, Any]:
    """What a process of its own says, so that its memory is its own too."""
    command = [sys.executable, __file__, "--work", str(work), "--only", name, "--child", half]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def child(half: str, task: Task, work: Path) -> dict[str, Any]:
    """The forecast, or what steps on real batches take."""
    project = Project.of(Workspace.at(work), str(task.number))
    request = TrainRequest(configuration=task.configuration, planner=task.plan_name)
    if half == "forecast":
        began = time.perf_counter()
        found = forecast_of(project, request, [0], jobs=2)
        return {
            "step_seconds": found.step_seconds,
            "memory": found.train.memory,
            "precision": found.precision,
            "preprocess_seconds": found.preprocess.seconds,
            "seconds": time.perf_counter() - began,
        }
    experiment = open_experiment(project, request, [0], jobs=2)
    pace = measure_pace(experiment)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sizes = {"patch": experiment.configuration.patch_size, "batch": experiment.configuration.batch_size}
    return {"step_seconds": pace.step, "memory": peak, **sizes}


def table() -> None:
    """Prints all rows so far, forecast over measured."""
    rows = read(RESULTS)
    print(f"{'plan':22}{'patch':>14}{'batch':>6}{'step s':>9}{'ratio':>7}{'GB':>7}{'ratio':>7}")
    for row in rows:
        truth, ratios = row["measured"], row["ratios"]
        patch = "x".join(map(str, truth["patch"]))
        print(
            f"{row['plan']:22}{patch:>14}{truth['batch']:>6}{truth['step_seconds']:>9.2f}{ratios['step_seconds']:>7.2f}"
            f"{truth['memory'] / 2**30:>7.2f}{ratios['memory']:>7.2f}"
        )
    for key in ("step_seconds", "memory"):
        print(f"{key}: median ratio {statistics.median(row['ratios'][key] for row in rows):.2f}")


if __name__ == "__main__":
    main()
