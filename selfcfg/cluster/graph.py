"""A graph of tasks on disk: written before anything is submitted, so that nothing is submitted twice."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from selfcfg.cluster import slurm
from selfcfg.cluster.arrays import Array, arrays_of
from selfcfg.cluster.scripts import Place, job_name, write_script, write_submit
from selfcfg.cluster.site import Site
from selfcfg.cluster.slurm import Queued
from selfcfg.cluster.states import State, borne, state_of
from selfcfg.cluster.tasks import Task, in_order
from selfcfg.errors import UsageError, listed, nearest
from selfcfg.locks import locked
from selfcfg.records import Record

GRAPH, FOLDER = "graph.json", "cluster"
"""The file of a graph; and the folder in a dataset's results in which each graph has one."""


class Submission(Record):
    """An array of tasks that Slurm was given, or was about to be.

    Args:
        array: name of its script.
        tasks: by name, the index in the array.
        is_array: whether it is one for Slurm.
        job: Slurm's id; None: it is not known whether Slurm was given it.
        time: seconds since 1970.
        cancelled: names of those of the tasks that were ended on request.
    """

    array: str
    tasks: dict[str, int]
    is_array: bool
    job: str | None = None
    time: float
    cancelled: tuple[str, ...] = ()

    def id_of(self, task: str) -> str:
        """Slurm's id of a task."""
        return f"{self.job}_{self.tasks[task]}" if self.is_array else str(self.job)


class Graph(Record):
    """Tasks, and what became of them.

    Args:
        key: a text that tells the jobs of this graph from all others in the queue.
        command: what was typed.
        tasks: in an order in which each comes after those that it needs.
        submissions: in order; of a task the last one counts.
    """

    key: str
    command: tuple[str, ...]
    tasks: tuple[Task, ...]
    submissions: tuple[Submission, ...] = ()

    def last(self) -> dict[str, Submission]:
        """By name of each task that was submitted, its last submission."""
        return {name: one for one in self.submissions for name in one.tasks}


class Found(NamedTuple):
    """A graph on disk."""

    name: str
    folder: Path


@dataclass(frozen=True)
class GraphFolder:
    """A graph in its folder.

    Args:
        folder: that holds it.
    """

    folder: Path

    @property
    def place(self) -> Place:
        """The paths in it."""
        return Place(self.folder)

    @property
    def file(self) -> Path:
        """graph.json."""
        return self.folder / GRAPH

    def read(self) -> Graph:
        """The graph as it was written last."""
        return Graph.read(self.file)

    def states(self, queue: Mapping[str, Queued] | None = None) -> dict[str, State]:
        """By name, how far each task is; `queue`: what Slurm says, asked for where it is not given."""
        queue = slurm.queue() if queue is None else queue  # before the files: what ends in between is seen in these
        graph = self.read()
        last, found = graph.last(), dict[str, State]()
        for task in graph.tasks:
            submission = last.get(task.name)
            needs = [found[name] for name in task.after if name in found]
            if submission is None or submission.job is None:
                found[task.name] = State(name=task.name, state="not submitted")
                continue
            index, job = submission.tasks[task.name], submission.id_of(task.name)
            found[task.name] = state_of(
                task.name,
                queue.get(job),
                read_events(self.place.state(submission.array, index), submission.job),
                needs=needs,
                given=State(
                    name=task.name,
                    state="waiting",
                    job=job,
                    submitted=submission.time,
                    log=self.place.log(submission.array, index, is_array=submission.is_array),
                    cancelled=task.name in submission.cancelled,
                ),
            )
        return found

    def submit(self, tasks: Sequence[Task], site: Site, command: Sequence[str]) -> list[Submission]:
        """Gives Slurm those tasks that have neither ended well nor wait nor run; one shell at a time does so.

        Args:
            tasks: of the graph; those of an earlier call that are not among them stay as they are.
            site: how to submit.
            command: what was typed.

        Raises:
            UsageError: a task runs, or waits, that is to be another now.
            SelfcfgError: Slurm cannot be asked, or refuses a job; what it took goes on, and is found by the next call.
        """
        self.place.make_ready()
        with locked(self.folder / ".lock"):
            queue = slurm.queue()
            graph = self._merged(tasks, command, queue)
            states = self.states(queue)
            names = {task.name for task in tasks}
            spared = borne([task for task in graph.tasks if task.name in names], states)
            wanted = {
                task.name
                for task in tasks
                if not states[task.name].is_open and states[task.name].state != "done" and task.name not in spared
            }
            before = {name: str(one.job) for name, one in states.items() if one.is_open}
            turn = 1 + max((int(one.array.partition("-")[0]) for one in graph.submissions), default=-1)
            arrays = arrays_of((task for task in graph.tasks if task.name in wanted), before, turn)
            return self._submit(graph, arrays, site)

    def _submit(self, graph: Graph, arrays: Iterable[Array], site: Site) -> list[Submission]:
        """Each array is written down, then given to Slurm, then written down with its id."""
        ids, made = dict[str, str](), list[Submission]()
        for array in arrays:
            script = write_script(self.place, graph.key, array, site)
            names = {task.name: index if array.is_array else 0 for index, task in array.tasks.items()}
            one = Submission(array=array.name, tasks=names, is_array=array.is_array, time=time.time())
            earlier = graph.submissions
            graph.model_copy(update={"submissions": (*earlier, one)}).write(self.file)
            one = one.model_copy(update={"job": slurm.submit(script, [wait.text(ids) for wait in array.waits])})
            graph = graph.model_copy(update={"submissions": (*earlier, one)})
            graph.write(self.file)
            ids[array.name] = str(one.job)
            made.append(one)
        return made

    def _merged(self, tasks: Sequence[Task], command: Sequence[str], queue: Mapping[str, Queued]) -> Graph:
        """The graph on disk, with what a shell that crashed did not write down, and with the tasks as they are now."""
        wanted = {task.name: task for task in tasks}
        if not self.file.is_file():
            graph = Graph(key=uuid.uuid4().hex[:8], command=tuple(command), tasks=tuple(in_order(tasks)))
            graph.write(self.file)
            return graph
        graph = self.read()
        by_name = {one.name: one.job.partition("_")[0] for one in queue.values()}
        graph = graph.model_copy(update={"submissions": tuple(self._known(graph, by_name))})
        graph.write(self.file)
        states = self.states(queue)
        for task in graph.tasks:
            now = wanted.get(task.name, task)
            if now.command == task.command:
                continue
            if states[task.name].is_open:
                found = f"'{task.name}' waits or runs there with another command"
                raise UsageError(f"submit {self.folder.name}", found, f"wait for it, or selfcfg cancel {self.folder}")
        stay = [task for task in graph.tasks if task.name not in wanted]
        changes = {"tasks": tuple(in_order([*stay, *tasks])), "command": tuple(command)}
        changed = {name for name, task in wanted.items() if _differs(task, graph)}
        submissions = tuple(
            one.model_copy(update={"tasks": {name: index for name, index in one.tasks.items() if name not in changed}})
            for one in graph.submissions
        )
        graph = graph.model_copy(update={**changes, "submissions": submissions})
        graph.write(self.file)
        return graph

    def _known(self, graph: Graph, by_name: Mapping[str, str]) -> Iterator[Submission]:
        """The submissions that Slurm got; the id of one that was not written down is in its queue, or in its lines."""
        for one in graph.submissions:
            if one.job is not None:
                yield one
                continue
            events = (read_events(self.place.state(one.array, index), None) for index in one.tasks.values())
            job = by_name.get(job_name(graph.key, one.array)) or next((each[0]["job"] for each in events if each), None)
            if job is not None:
                yield one.model_copy(update={"job": job})

    def cancel(self) -> list[str]:
        """Ends what waits or runs; the names of these tasks.

        Raises:
            SelfcfgError: Slurm does not do it.
        """
        with locked(self.folder / ".lock"):
            graph, queue = self.read(), slurm.queue()
            states = self.states(queue)
            names = [name for name, one in states.items() if one.is_open]
            last = graph.last()
            submissions = tuple(
                one.model_copy(
                    update={"cancelled": (*one.cancelled, *(n for n in names if last[n].array == one.array))}
                )
                for one in graph.submissions
            )
            graph.model_copy(update={"submissions": submissions}).write(self.file)
            slurm.cancel(dict.fromkeys(str(states[name].job) for name in names))
            return names

    def write_scripts(self, tasks: Sequence[Task], site: Site, key: str) -> Path:
        """Writes the scripts of all tasks and submit.sh; what to run."""
        self.place.make_ready()
        for old in self.folder.glob("*.sh"):
            old.unlink()
        arrays = arrays_of(tasks, {}, 0)
        for array in arrays:
            write_script(self.place, key, array, site)
        return write_submit(self.place, arrays)


def _differs(task: Task, graph: Graph) -> bool:
    return any(one.name == task.name and one.command != task.command for one in graph.tasks)


def read_events(file: Path, job: str | None) -> list[dict[str, str]]:
    """The lines that a task wrote of itself in the job of an id, or in any; a line that is cut short is left out."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if job is None or event["job"] == job:
            found.append(event)
    return found


def graphs_of(results: Path) -> list[Found]:
    """The graphs of all datasets; each is named by the dataset's folder and its own."""
    files = sorted(results.glob(f"*/{FOLDER}/*/{GRAPH}"))
    return [Found(f"{file.parents[2].name}/{file.parent.name}", file.parent) for file in files]


def find_graph(results: Path, given: str) -> Found:
    """The graph of a name, with or without the dataset's, or in a folder.

    Raises:
        UsageError: there is none, or several.
    """
    every = graphs_of(results)
    path = Path(given)
    if (path / GRAPH).is_file():
        return Found(path.name, path)
    fitting = [one for one in every if given in (one.name, one.folder.name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"graph '{given}'", f"there are {listed(one.name for one in fitting)}", "name one of them")
    remedy = nearest(given, [one.name for one in every])
    raise UsageError(f"graph '{given}'", f"there is none in {results}", remedy)
