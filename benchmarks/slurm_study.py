"""The recipe of two stages on real radiographs, by Slurm and without: the same table, and the time that Slurm takes.

    python benchmarks/slurm_study.py --data DIR --work NEW_FOLDER [--epochs 10] [--iterations 40]

DIR of ``--data`` holds ``cxr_lung/montgomery``. Of its radiographs 12 train and 6 validate, with a network of two
stages and 0.02 million parameters. The recipe ``two_stage`` (16 trainings and a choice) is given to the Slurm of this
machine, or to one of one node that is started for it (`one_node.py`; root, and the Debian packages slurm-wlm and
munge), in one command. On the way a training that has saved a checkpoint is preempted (``scontrol requeue``), the
submitting shell is killed and the command given again, and another training that has saved one is killed (SIGKILL),
which fails what needs it; the command, given once more, does what is left. Then the recipe runs without a cluster,
``--jobs 2``. Both together take about a quarter of an hour on two cores that do nothing else.

A row of ``benchmarks/results/slurm.jsonl``, all of it from this one run, says whether scores and weights are equal, job
by job, and what Slurm costs: seconds in which a processor had nothing to do although a job could have run, and
seconds from the preemption until that training ran again, while others did.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from one_node import one_node, why_not
from recording import append
from small_plan import CONFIGURATION, add_small

from selfcfg.cluster.graph import GraphFolder
from selfcfg.cluster.states import State, read_events
from selfcfg.files import read_json, write_json
from selfcfg.recipes.kept import KEPT

RESULTS = "slurm.jsonl"
SPLIT = Path(__file__).with_name("montgomery_split.json")
NUMBER, NAME = 31, "Dataset031_lungs"
GRAPH = f"two_stage__standard__{CONFIGURATION}"
TRAINED, VALIDATED = 12, 6
CPUS = 2
STAGES = ("joint", "pretrain", "finetune", "student")
PREEMPTED, KILLED = "joint/moco/fold_0", "pretrain/vicreg/fold_0"


def prepared(data: Path, work: Path) -> None:
    """The dataset, its only fold, and its plan."""
    source, split = data / "cxr_lung" / "montgomery", read_json(SPLIT)
    chosen = {"train": sorted(split["train"])[:TRAINED], "val": sorted(split["validation"])[:VALIDATED]}
    for kind in ("images", "labels"):
        (work / "known" / kind).mkdir(parents=True, exist_ok=True)
        for case in (*chosen["train"], *chosen["val"]):
            shutil.copy(source / kind / f"{case}.png", work / "known" / kind)
    raw = work / "raw" / NAME
    if not raw.is_dir():
        folders = ["--images", work / "known" / "images", "--labels", work / "known" / "labels"]
        ours("convert", "folder", *folders, "--id", NUMBER, "--name", "lungs", "--channels", "XR", "--workspace", work)
    write_json(raw / "splits_final.json", [chosen])
    if not (file := work / "preprocessed" / NAME / "plans" / "standard.json").is_file():
        ours("plan", NUMBER, "--workspace", work)
        add_small(file, [64, 64], 2, spacing=[6.0, 6.0], median_shape=[76.0, 86.0])
        content = read_json(file)
        blocks = {"kernel_sizes": [[3, 3]] * 2, "strides": [[1, 1], [2, 2]], "encoder_blocks": [1, 1]}
        content["configurations"][CONFIGURATION]["topology"] = {"features": [8, 16], "decoder_blocks": [1], **blocks}
        write_json(file, content)


def program(*words: object) -> list[str]:
    """A command line of this program."""
    return [sys.executable, "-m", "selfcfg", *(str(word) for word in words)]


def ours(*words: object) -> None:
    """Runs a command, which must end well."""
    subprocess.run(program(*words), check=True, stdout=sys.stderr)


def recipe(work: Path, epochs: int, iterations: int) -> list[object]:
    """The command but for where it runs; all candidates train as long."""
    steps = {"epochs": epochs, "iterations_per_epoch": iterations, "validation_iterations": 1, "workers": 0}
    settings = [
        word for stage in STAGES for key, value in steps.items() for word in ("--set", f"{stage}.{key}={value}")
    ]
    return ["train", NUMBER, "--recipe", "two_stage", "-c", CONFIGURATION, "--resume", *settings, "--workspace", work]


@contextmanager
def some_slurm(work: Path) -> Iterator[str]:
    """A Slurm that answers: the machine's, or one node that is started; says which.

    Raises:
        SystemExit: there is none, and none can be started.
    """
    if shutil.which("sinfo") and subprocess.run(["sinfo"], check=False, capture_output=True).returncode == 0:
        yield "the site's"
        return
    if reason := why_not():
        raise SystemExit(f"no Slurm answers here, and none can be started: {reason}")
    shutil.rmtree(work / "slurm", ignore_errors=True)
    with one_node(work / "slurm") as variables:
        os.environ.update(variables)
        yield "one node"


def until(condition: Callable[[], bool], shell: subprocess.Popen[bytes]) -> None:
    """Waits for something while a shell runs.

    Raises:
        SystemExit: the shell ended before.
    """
    while not condition():
        if shell.poll() is not None:
            raise SystemExit(f"the command ended with {shell.returncode} before it was to be disturbed")
        time.sleep(0.3)


def disturbed(graph: GraphFolder, command: list[str]) -> tuple[list[int], dict[str, float]]:
    """Runs the recipe on Slurm, a training preempted, one killed, and a shell.

    Returns:
        The exit codes of the shells; and when the trainings were disturbed, in seconds since 1970.
    """

    def starts(name: str) -> bool:
        events = [one for one in graph.states().values() if one.name == name] if graph.file.is_file() else []
        return bool(events) and events[0].state == "running"

    def has_saved(name: str) -> bool:
        return starts(name) and (graph.folder.parents[1] / GRAPH / name / "last.pt").is_file()

    first = subprocess.Popen(command, stdout=sys.stderr)
    until(lambda: has_saved(PREEMPTED), first)
    cuts = {PREEMPTED: time.time()}
    subprocess.run(["scontrol", "requeue", str(graph.states()[PREEMPTED].job)], check=True)
    first.send_signal(signal.SIGKILL)
    codes = [first.wait()]
    second = subprocess.Popen(command, stdout=sys.stderr)
    until(lambda: has_saved(KILLED), second)
    cuts[KILLED] = time.time()
    subprocess.run(["scancel", "--full", "--signal=KILL", str(graph.states()[KILLED].job)], check=True)
    codes.append(second.wait())
    codes.append(subprocess.run(command, check=False, stdout=sys.stderr).returncode)
    return codes, cuts


def table(results: Path) -> dict[str, Any]:
    """What the recipe came to: scores of all candidates, which are kept, the student's, and hashes of all weights."""
    folder = results / GRAPH
    kept = read_json(folder / "candidates" / KEPT)
    summary = json.loads((folder / "student" / "fold_0" / "validation" / "summary.json").read_text())
    files = sorted(folder.rglob("final.safetensors"))
    return {
        "candidates": {one["key"]: one["score"] for one in kept["candidates"]},
        "kept": kept["kept"],
        "student": summary["foreground_mean"]["dice"],
        "weights": {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
    }


Span = tuple[float, float]
"""From when to when, in seconds since 1970."""


def spans_of(graph: GraphFolder, cuts: dict[str, float]) -> dict[str, list[Span]]:
    """By name of each task when it ran, whatever became of it; they note whole seconds.

    One that was killed before it could note its end ended when it was disturbed.
    """
    found: dict[str, list[Span]] = {}
    for sent in graph.read().submissions:
        for name, index in sent.tasks.items():
            events = read_events(graph.place.state(sent.array, index), sent.job)
            for number, event in enumerate(events):
                if event["event"] == "started":
                    after = events[number + 1] if number + 1 < len(events) else None
                    has_end = after is not None and after["event"] != "started"
                    end = float(after["time"]) if after is not None and has_end else cuts[name]
                    found.setdefault(name, []).append((float(event["time"]), end))
    return found


def idle_seconds(states: dict[str, State], graph: GraphFolder, spans: dict[str, list[Span]]) -> float:
    """Seconds in which a processor had nothing to do although a task could have run, added up over processors.

    A task that was preempted could not run before its last start: that time is told by itself.
    """
    last, waiting = graph.read().last(), list[Span]()
    running = [span for some in spans.values() for span in some]
    for task in graph.read().tasks:
        ready = max([last[task.name].time, *(states[need].ended or 0.0 for need in task.needs)])
        if states[task.name].turns == 1 and (started := states[task.name].started) is not None:
            waiting.append((ready, started))
    moments = sorted({moment for span in (*waiting, *running) for moment in span})
    idle = 0.0
    for begin, end in itertools.pairwise(moments):
        busy, ready = (sum(span[0] <= begin and end <= span[1] for span in some) for some in (running, waiting))
        idle += (end - begin) * max(0, min(CPUS, busy + ready) - busy)
    return idle


def by_slurm(work: Path, words: list[object]) -> dict[str, Any]:
    """Runs the recipe on Slurm; what is told of that."""
    graph = GraphFolder(work / "results" / NAME / "cluster" / GRAPH)
    with some_slurm(work.parent) as which:
        codes, cuts = disturbed(graph, program(*words, "--cluster", "slurm", "--cluster-set", "cpus=1,mem=2G"))
    states, spans = graph.states({}), spans_of(graph, cuts)  # all have ended: their own notes tell it
    seconds = max(one.ended or 0.0 for one in states.values()) - min(one.time for one in graph.read().submissions)
    return {
        "slurm": which,
        "exit_codes": codes,
        "jobs": len(states),
        "preempted": {PREEMPTED: states[PREEMPTED].turns},
        "killed": KILLED,
        "seconds_slurm": round(seconds, 1),
        "idle_cpu_seconds": round(idle_seconds(states, graph, spans), 1),
        "requeued_seconds": round(spans[PREEMPTED][-1][0] - cuts[PREEMPTED], 1),
    }


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder that is not there yet")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=40)
    given = parser.parse_args()
    if given.work.exists():
        raise SystemExit(f"{given.work} is there already: every number of a row is to be of one run")
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    there, here = given.work / "there", given.work / "here"
    prepared(given.data, there)
    shutil.copytree(there, here)
    told = by_slurm(there, recipe(there, given.epochs, given.iterations))
    began = time.time()
    ours(*recipe(here, given.epochs, given.iterations), "--jobs", CPUS)
    without = round(time.time() - began, 1)
    first, second = (table(place / "results" / NAME) for place in (there, here))
    row = {
        "epochs": given.epochs,
        "iterations": given.iterations,
        **told,
        "seconds_without": without,
        "equal_scores": [first[part] == second[part] for part in ("candidates", "kept", "student")],
        "equal_weights": sum(first["weights"].get(name) == one for name, one in second["weights"].items()),
        "trainings": len(second["weights"]),
        "candidates": first["candidates"],
        "student": first["student"],
    }
    append(RESULTS, row)


if __name__ == "__main__":
    main()
