"""What of a graph is submitted once more, and whose jobs are looked at; Slurm's programs are stood in for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from selfcfg.cluster import slurm
from selfcfg.cluster.graph import GraphFolder
from selfcfg.cluster.site import Site
from selfcfg.cluster.slurm import Queued
from selfcfg.cluster.tasks import Resources, Task
from selfcfg.errors import UsageError

SMALL = Resources(memory=2**20, seconds=600)


class Slurm:
    """A queue that takes every script, and knows the states that a test gives its jobs; jobs are no arrays."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.dies = False

    def submit(self, script: Path, dependencies: Sequence[str]) -> str:
        job = str(len(self.states) + 1)
        self.states[job] = "PENDING"
        self.names[job] = next(line for line in script.read_text().splitlines() if "job-name" in line).split("=")[1]
        if self.dies:
            raise KeyboardInterrupt
        return job

    def queue(self, users: Iterable[str]) -> dict[str, Queued]:
        self.asked = list(users)
        return {job: Queued(job, self.names[job], state, "None") for job, state in self.states.items()}

    def cancel(self, jobs: Iterable[str]) -> None:
        self.ended = list(jobs)

    def finish(self) -> None:
        self.states = dict.fromkeys(self.states, "COMPLETED")


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    found = Slurm()
    for name in ("submit", "queue", "cancel"):
        monkeypatch.setattr(slurm, name, getattr(found, name))
    return found


@pytest.fixture
def graph(tmp_path: Path) -> GraphFolder:
    return GraphFolder(tmp_path / "graph")


def task(
    name: str, *after: str, kind: str = "", inputs: str = "", leaves: Sequence[Path] = (), **others: object
) -> Task:
    given = {"kind": kind or name, "command": ("train", name), "resources": SMALL, **others}
    return Task(name=name, after=after, inputs=inputs, leaves=tuple(leaves), **given)


def submitted(graph: GraphFolder, *tasks: Task) -> list[str]:
    made = graph.submit(tasks, Site(folder=graph.folder, program=("true",)), ["selfcfg"])
    return [name for one in made for name in one.tasks]


def test_what_is_done_is_submitted_again_with_all_that_follows_where_its_data_its_plan_or_its_result_changed(
    graph: GraphFolder, queue: Slurm, tmp_path: Path
) -> None:
    result = tmp_path / "final"
    result.touch()
    tasks = [task("a", inputs="1"), task("b", "a", leaves=[result]), task("c", "b"), task("apart")]
    assert submitted(graph, *tasks) == ["a", "apart", "b", "c"]
    queue.finish()
    assert submitted(graph, *tasks) == []
    tasks[0] = task("a", inputs="2")
    assert submitted(graph, *tasks) == ["a", "b", "c"]
    assert submitted(graph, *tasks) == []
    queue.finish()
    result.unlink()
    assert submitted(graph, *tasks) == ["b", "c"]


def test_what_followed_is_due_although_the_shell_died_after_what_comes_before_it(
    graph: GraphFolder, queue: Slurm
) -> None:
    submitted(graph, task("a"), task("b", "a"))
    queue.finish()
    submitted(graph, task("a", inputs="new"))
    queue.finish()
    assert submitted(graph, task("a", inputs="new"), task("b", "a")) == ["b"]


def test_a_choice_is_due_where_others_left_something_newer(graph: GraphFolder, queue: Slurm, tmp_path: Path) -> None:
    chosen, other = tmp_path / "selection", tmp_path / "other"
    for number, file in enumerate((other, chosen)):
        file.touch()
        os.utime(file, ns=(number, number))
    select = task("select", leaves=[chosen], reads=(other,))
    submitted(graph, select)
    queue.finish()
    assert submitted(graph, select) == []
    os.utime(other, ns=(2, 2))
    assert submitted(graph, select) == ["select"]


def test_other_resources_and_options_are_no_other_task(graph: GraphFolder, queue: Slurm) -> None:
    submitted(graph, task("a"), task("b", "a"))
    queue.states["1"] = "COMPLETED"
    more = {"options": ("--jobs", "8"), "resources": SMALL.model_copy(update={"cpus": 8})}
    assert submitted(graph, task("a", **more), task("b", "a", **more)) == []


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (task("a", inputs="2"), "'a' waits or runs there for data, a plan or settings that changed since"),
        (task("a", command=("train", "b")), "'a' waits or runs there with a command that changed since"),
    ],
)
def test_what_runs_cannot_become_another_task(graph: GraphFolder, queue: Slurm, now: Task, words: str) -> None:
    submitted(graph, task("a"))
    with pytest.raises(UsageError, match=words):
        submitted(graph, now)
    assert submitted(graph, task("a")) == []


def test_the_jobs_of_another_user_are_asked_for_and_left_alone(
    graph: GraphFolder, queue: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "user", lambda: "alice")
    submitted(graph, task("a"))
    monkeypatch.setattr(slurm, "user", lambda: "bob")
    queue.states["1"] = "RUNNING"
    assert graph.states()["a"].state == "running" and queue.asked == ["alice"]
    with pytest.raises(UsageError, match="its jobs are those of the user 'alice'; have alice do it"):
        submitted(graph, task("a"))
    with pytest.raises(UsageError, match="'alice'"):
        graph.cancel()
    assert not queue.ended


def test_a_job_whose_id_was_not_written_down_is_shown_and_ended(graph: GraphFolder, queue: Slurm) -> None:
    queue.dies = True
    with pytest.raises(KeyboardInterrupt):
        submitted(graph, task("a"))
    assert json.loads(graph.file.read_text())["submissions"][0]["job"] is None
    queue.states["1"] = "RUNNING"
    assert (graph.states()["a"].state, graph.states()["a"].job) == ("running", "1")
    assert graph.cancel() == ["a"] and queue.ended == ["1"]
    queue.states["1"] = "CANCELLED"
    assert graph.states()["a"].state == "cancelled"
