"""What was submitted of a graph, and what of it has to be submitted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from selfcfg.cluster.states import State, borne
from selfcfg.cluster.tasks import Task, in_order
from selfcfg.records import Record


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
        user: whose jobs they are.
        command: what was typed.
        tasks: in an order in which each comes after those that it needs.
        submissions: in order; of a task the last one counts.
    """

    key: str
    user: str
    command: tuple[str, ...]
    tasks: tuple[Task, ...]
    submissions: tuple[Submission, ...] = ()

    def last(self) -> dict[str, Submission]:
        """By name of each task that was submitted, its last submission."""
        return {name: one for one in self.submissions for name in one.tasks}

    def due(self, names: Collection[str], states: Mapping[str, State]) -> set[str]:
        """The names of those tasks that are to be submitted: neither do they wait or run, nor are they done.

        A task is done that ended well, after all that it needs was submitted last, as long as what it left is there.
        One that failed is not to be submitted where all that waited for it did without.

        Args:
            names: of the tasks that are asked for.
            states: by name, of all tasks.
        """
        turns = {name: turn for turn, one in enumerate(self.submissions) for name in one.tasks}
        spared = borne([task for task in self.tasks if task.name in names], states)
        found: set[str] = set()
        for task in in_order(task for task in self.tasks if task.name in names):
            own, state = turns.get(task.name, -1), states[task.name]
            is_old = any(need in found or turns.get(need, -1) > own for need in task.needs)
            is_done = state.state == "done" and not is_old and task.has_left
            if not (state.is_open or is_done or task.name in spared):
                found.add(task.name)
        return found

    def changed_to(self, tasks: Sequence[Task], command: Sequence[str]) -> Graph:
        """The graph with tasks as they are now; of one of which something else would come, nothing was submitted."""
        wanted = {task.name: task for task in tasks}
        changed = {one.name for one in self.tasks if not wanted.get(one.name, one).is_like(one)}
        stay = [task for task in self.tasks if task.name not in wanted]
        submissions = tuple(
            one.model_copy(update={"tasks": {name: index for name, index in one.tasks.items() if name not in changed}})
            for one in self.submissions
        )
        changes = {"tasks": tuple(in_order([*stay, *tasks])), "command": tuple(command), "submissions": submissions}
        return self.model_copy(update=changes)
