"""A graph of tasks on disk: written before anything is submitted, so that nothing is submitted twice."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfcfg.cluster import slurm
from selfcfg.cluster.arrays import Array, arrays_of
from selfcfg.cluster.scripts import Place, job_name, write_script, write_submit
from selfcfg.cluster.site import Site
from selfcfg.cluster.slurm import Queued
from selfcfg.cluster.states import State, read_events, state_of
from selfcfg.cluster.submissions import Graph, Submission
from selfcfg.cluster.tasks import Task, in_order
from selfcfg.errors import UsageError
from selfcfg.locks import locked

GRAPH, FOLDER = "graph.json", "cluster"
"""The file of a graph; and the folder in a dataset's results in which each graph has one."""


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
        # the queue before the files: what ends in between is seen in these
        queue = slurm.queue([self.read().user]) if queue is None else queue
        return self._states(self._known(queue), queue)

    def _states(self, graph: Graph, queue: Mapping[str, Queued]) -> dict[str, State]:
        last, found = graph.last(), dict[str, State]()
        for task in graph.tasks:
            submission = last.get(task.name)
            needs = [found[name] for name in task.after if name in found]
            if submission is None:
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
            UsageError: a task runs, or waits, that is to be another now; or the graph is another user's.
            SelfcfgError: Slurm cannot be asked, or refuses a job; what it took goes on, and is found by the next call.
        """
        self._refuse_another("submit")
        self.place.make_ready()
        with locked(self.folder / ".lock"):
            queue = slurm.queue([slurm.user()])
            graph = self._merged(tasks, command, queue)
            graph.write(self.file)
            states = self._states(graph, queue)
            wanted = graph.due({task.name for task in tasks}, states)
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
        """The graph with the tasks as they are now.

        Raises:
            UsageError: one that is to be another now waits or runs.
        """
        if not self.file.is_file():
            key = uuid.uuid4().hex[:8]
            return Graph(key=key, user=slurm.user(), command=tuple(command), tasks=tuple(in_order(tasks)))
        graph, wanted = self._known(queue), {task.name: task for task in tasks}
        states = self._states(graph, queue)
        for task in graph.tasks:
            now = wanted.get(task.name, task)
            if states[task.name].is_open and not now.is_like(task):
                other = "for data, a plan or settings that" if now.command == task.command else "with a command that"
                found = f"'{task.name}' waits or runs there {other} changed since"
                raise UsageError(f"submit {self.folder.name}", found, f"wait for it, or selfcfg cancel {self.folder}")
        return graph.changed_to(tasks, command)

    def _known(self, queue: Mapping[str, Queued]) -> Graph:
        """The graph on disk with what Slurm got of it.

        A shell that died in between did not write down the id: it is in Slurm's queue, or in the lines of the task.
        """
        graph = self.read()
        by_name, known = {one.name: one.job.partition("_")[0] for one in queue.values()}, list[Submission]()
        for one in graph.submissions:
            lines = (read_events(self.place.state(one.array, index), None) for index in one.tasks.values())
            told = one.job or by_name.get(job_name(graph.key, one.array))
            if job := told or next((each[0]["job"] for each in lines if each), None):
                known.append(one.model_copy(update={"job": job}))
        return graph.model_copy(update={"submissions": tuple(known)})

    def _refuse_another(self, doing: str) -> None:
        """Raises where the graph is another user's: their jobs are not ours to see everywhere, nor to end."""
        if self.file.is_file() and (owner := self.read().user) != slurm.user():
            remedy = f"have {owner} do it; when all is done, the same command without --cluster tells the scores"
            raise UsageError(f"{doing} {self.folder.name}", f"its jobs are those of the user '{owner}'", remedy)

    def cancel(self) -> list[str]:
        """Ends what waits or runs; the names of these tasks.

        Raises:
            UsageError: the graph is another user's.
            SelfcfgError: Slurm does not do it.
        """
        self._refuse_another("cancel")
        with locked(self.folder / ".lock"):
            queue = slurm.queue([slurm.user()])
            graph = self._known(queue)
            states = self._states(graph, queue)
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
