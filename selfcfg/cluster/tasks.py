"""What runs on a cluster: command lines that a person could type, what each waits for, and what it takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from selfcfg.records import Record


class Resources(Record):
    """What a task is given on the machine that runs it.

    Args:
        memory: bytes.
        seconds: until it is asked to save and to make room; it then goes on in a new turn.
        cpus: processor cores.
        gpus: accelerators.
    """

    memory: int
    seconds: float
    cpus: int = 1
    gpus: int = 0


class Task(Record):
    """One command line.

    Args:
        name: no other task of the graph has it.
        kind: what it is, such as "train"; tasks of one kind that take the same may become an array.
        command: arguments of `selfcfg` that say what is to be done; given once more, it goes on where it was.
        options: further arguments, which change nothing of what comes of it, such as how many processes it may start.
        inputs: a hash of what its result depends on besides the command.
        leaves: files and folders that are there once it is done.
        reads: files of others; where one is newer than what it leaves, it is to be done again.
        keeps: folders into which it writes what it has done so far; none: after a stop it begins anew.
        after: names of the tasks that must have ended well before.
        after_any: names of those that must have ended, well or not.
        resources: that it takes.
    """

    name: str
    kind: str
    command: tuple[str, ...]
    options: tuple[str, ...] = ()
    inputs: str = ""
    leaves: tuple[Path, ...] = ()
    reads: tuple[Path, ...] = ()
    keeps: tuple[Path, ...] = ()
    after: tuple[str, ...] = ()
    after_any: tuple[str, ...] = ()
    resources: Resources

    @property
    def needs(self) -> tuple[str, ...]:
        """All tasks that it waits for."""
        return (*self.after, *self.after_any)

    def is_like(self, other: Task) -> bool:
        """Whether the same comes of both, whatever they are given to do it with."""
        return (self.command, self.inputs) == (other.command, other.inputs)

    @property
    def has_left(self) -> bool:
        """Whether all that it leaves is there, and no older than what others left for it."""
        if not all(path.exists() for path in self.leaves):
            return False
        made = [path.stat().st_mtime_ns for path in self.leaves]
        given = [path.stat().st_mtime_ns for path in self.reads if path.exists()]
        return not made or not given or max(given) <= min(made)


def in_order(tasks: Iterable[Task]) -> list[Task]:
    """The tasks with each after those of them that it needs; needs that are not among them do not count.

    Raises:
        ValueError: tasks wait for each other.
    """
    waiting = {task.name: task for task in tasks}
    found: list[Task] = []
    while waiting:
        ready = [name for name, task in waiting.items() if not any(need in waiting for need in task.needs)]
        if not ready:
            raise ValueError(f"tasks that wait for each other: {', '.join(waiting)}")
        found += [waiting[name] for name in ready]
        waiting = {name: task for name, task in waiting.items() if name not in ready}
    return found
