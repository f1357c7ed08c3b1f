"""Graphs on a real Slurm of one node; what their tasks do is a line of shell, so that only the graph takes time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selfcfg.cluster import slurm as programs
from selfcfg.cluster.finding import find_graph
from selfcfg.cluster.graph import GraphFolder
from selfcfg.cluster.site import Site
from selfcfg.cluster.states import table
from selfcfg.cluster.tasks import Resources, Task
from selfcfg.cluster.waiting import Ended, wait
from selfcfg.errors import SelfcfgError, UsageError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]

SAVES = """trap 'echo saved >>{file}; exit 75' TERM; echo began >>{file}
grep -q saved {file} && exit 0
while true; do sleep 0.1; done"""
"""A task that goes on for ever, saves when it is asked to end, and ends well when it finds what it saved."""

GOES_ON = "while true; do sleep 0.1; done"


def task(name: str, line: str, *after: str, any_of: tuple[str, ...] = ()) -> Task:
    takes = Resources(memory=50 * 2**20, seconds=600)
    return Task(name=name, kind="train", command=("-c", line), after=after, after_any=any_of, resources=takes)


@pytest.fixture
def graph(tmp_path: Path) -> GraphFolder:
    return GraphFolder(tmp_path / "results" / "Dataset001_A" / "cluster" / "graph")


def submit(graph: GraphFolder, *tasks: Task) -> int:
    """The number of tasks that Slurm was given."""
    made = graph.submit(tasks, Site(folder=graph.folder, program=("bash",)), ["selfcfg"])
    return sum(len(one.tasks) for one in made)


def ended(graph: GraphFolder, *tasks: Task) -> Ended:
    return wait(graph, {one.name for one in tasks}, lambda _: None)


def words(found: Ended) -> dict[str, str]:
    return {name: one.state for name, one in found.states.items()}


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_graph_ends_in_order_and_is_not_submitted_again(graph: GraphFolder, tmp_path: Path) -> None:
    file = tmp_path / "order"
    tasks = [
        *(task(f"a{n}", f"echo a >>{file}") for n in (0, 1)),
        *(task(f"b{n}", f"echo b >>{file}", f"a{n}") for n in (0, 1)),
        task("keep", f"echo keep >>{file}", any_of=("b0", "b1")),
        task("last", f"echo last >>{file}", "keep", "a0"),
    ]
    assert submit(graph, *tasks) == 6
    found = ended(graph, *tasks)
    assert found.is_well and set(words(found).values()) == {"done"}
    written = file.read_text().split()
    assert sorted(written[:4]) == ["a", "a", "b", "b"] and written[4:] == ["keep", "last"]
    assert [len(one.tasks) for one in graph.read().submissions] == [2, 2, 1, 1]
    assert submit(graph, *tasks) == 0


def test_a_failed_task_fails_what_needs_it_alone_and_is_mended_by_the_same_command(
    graph: GraphFolder, tmp_path: Path
) -> None:
    cause = tmp_path / "cause"
    cause.touch()
    tasks = [
        task("good", "true"),
        task("bad", f"if [ -e {cause} ]; then echo the reason; exit 3; fi"),
        task("after good", "true", "good"),
        task("after bad", "true", "bad"),
        task("after both", "true", "after good", "after bad"),
    ]
    submit(graph, *tasks)
    found = ended(graph, *tasks)
    skipped = {"after bad": "skipped", "after both": "skipped"}
    assert words(found) == {"good": "done", "bad": "failed", "after good": "done", **skipped}
    told = str(found.error("graph"))
    for part in ("bad failed, exit code 3", "  | the reason", "and with them after bad, after both", "1 job did not"):
        assert part in told
    assert re.search(r"^bad +failed +\d+_?\d* .* exit code 3$", table(found.states, time.time()), re.MULTILINE)
    cause.unlink()
    assert submit(graph, *tasks) == 3
    assert ended(graph, *tasks).is_well


def test_what_a_choice_can_do_without_may_fail(graph: GraphFolder) -> None:
    tasks = [
        task("a", "exit 1"),
        task("of a", "true", "a"),
        task("b", "true"),
        task("keep", "true", any_of=("of a", "b")),
    ]
    submit(graph, *tasks)
    found = ended(graph, *tasks)
    assert found.is_well and found.borne == {"a", "of a"} and words(found)["keep"] == "done"
    assert submit(graph, *tasks) == 0


def test_preempted_and_out_of_time_a_task_saves_goes_back_into_the_queue_and_goes_on(
    graph: GraphFolder, tmp_path: Path
) -> None:
    files = {name: tmp_path / name for name in ("timed", "preempted")}
    tasks = [task(name, SAVES.format(file=file)) for name, file in files.items()]
    submit(graph, *tasks, task("after", "true", "timed", "preempted"))
    until(lambda: all(file.exists() for file in files.values()))
    states = graph.states()
    subprocess.run(["scancel", "--batch", "--signal=USR1", str(states["timed"].job)], check=True)
    until(lambda: graph.states()["timed"].note == "back in the queue")
    urgent = ["sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap=true"]
    subprocess.run(urgent, check=True, capture_output=True)
    until(lambda: graph.states()["preempted"].note == "back in the queue")
    found = ended(graph, *tasks, task("after", "true", "timed", "preempted"))
    assert found.is_well, found.error("graph")
    assert [file.read_text().split() for file in files.values()] == [["began", "saved", "began"]] * 2
    assert [found.states[name].turns for name in files] == [2, 2]
    assert found.states["timed"].job == states["timed"].job


def test_killed_and_cancelled_tasks_are_told_apart(graph: GraphFolder, tmp_path: Path) -> None:
    tasks = [
        task("killed", f"echo $$ >{tmp_path}/pid; {GOES_ON}"),
        task("cancelled", GOES_ON),
        task("after", "true", "killed"),
    ]
    submit(graph, *tasks)
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    until(lambda: graph.states()["cancelled"].state == "running")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    subprocess.run(["scancel", str(graph.states()["cancelled"].job)], check=True)
    found = ended(graph, *tasks)
    assert words(found) == {"killed": "failed", "cancelled": "failed", "after": "skipped"}
    assert found.states["killed"].note == "exit code 137"
    assert found.states["cancelled"].note == "it was cancelled"


def test_cancel_ends_what_waits_or_runs_and_the_same_command_goes_on(graph: GraphFolder, tmp_path: Path) -> None:
    file = tmp_path / "go"
    tasks = [
        task("done", "true"),
        task("runs", f"until [ -e {file} ]; do sleep 0.1; done", "done"),
        task("waits", "true", "runs"),
    ]
    submit(graph, *tasks)
    until(lambda: graph.states()["runs"].state == "running")
    with pytest.raises(UsageError, match="'runs' waits or runs there with a command that changed since"):
        submit(graph, task("runs", "true"))
    assert sorted(graph.cancel()) == ["runs", "waits"]
    assert words(ended(graph, *tasks)) == {"done": "done", "runs": "cancelled", "waits": "cancelled"}
    file.touch()
    assert submit(graph, *tasks) == 2
    assert ended(graph, *tasks).is_well


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_shell_that_dies_between_two_lines_is_followed_by_one_that_submits_nothing_twice(
    graph: GraphFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    file = tmp_path / "runs"
    tasks = [task("a", f"echo a >>{file}"), task("b", f"echo b >>{file}", "a"), task("c", f"echo c >>{file}", "b")]
    given, real = list[Path](), programs.submit

    def dies(script: Path, dependencies: list[str]) -> str:
        given.append(script)
        if len(given) == 2 and moment == "before":
            raise KeyboardInterrupt
        job = real(script, dependencies)
        if len(given) == 2:
            raise KeyboardInterrupt
        return job

    monkeypatch.setattr(programs, "submit", dies)
    with pytest.raises(KeyboardInterrupt):
        submit(graph, *tasks)
    monkeypatch.setattr(programs, "submit", real)
    assert graph.read().submissions[-1].job is None
    assert submit(graph, *tasks) == (1 if moment == "after" else 2)
    assert ended(graph, *tasks).is_well
    assert file.read_text().split() == ["a", "b", "c"]


def test_what_slurm_refuses_is_said_in_its_words(graph: GraphFolder) -> None:
    site = Site(folder=graph.folder, program=("bash",), options={"partition": "nowhere"})
    with pytest.raises(SelfcfgError, match=r"(?s)Slurm says: .*invalid partition.*--cluster-set"):
        graph.submit([task("a", "true")], site, ["selfcfg"])
    assert graph.states()["a"].state == "not submitted"
    assert submit(graph, task("a", "true")) == 1
    assert find_graph(graph.folder.parents[2], "graph").folder == graph.folder
    assert ended(graph, task("a", "true")).is_well


def test_written_scripts_run_in_order_when_they_are_submitted_by_hand(graph: GraphFolder, tmp_path: Path) -> None:
    file = tmp_path / "order"
    tasks = [*(task(f"a{n}", f"echo a >>{file}") for n in (0, 1)), task("b", f"echo b >>{file}", "a0", "a1")]
    script = graph.write_scripts(tasks, Site(folder=tmp_path, program=("bash",)), "by-hand")
    subprocess.run(["bash", script], check=True, cwd="/", capture_output=True)
    until(lambda: file.exists() and file.read_text().split() == ["a", "a", "b"])
