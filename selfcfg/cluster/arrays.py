"""Tasks that are alike as arrays of Slurm, and what each array waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from selfcfg.cluster.tasks import Task, in_order

LONGEST = 1000
"""Tasks of an array at most. Source: Slurm's default of MaxArraySize, 1001."""

How = Literal["afterok", "afterany", "aftercorr"]


class Dependency(NamedTuple):
    """What an array waits for.

    Args:
        how: Slurm's word: for tasks to end well ("afterok"), to end ("afterany"), or each task of the array for the one
            of the same index ("aftercorr").
        source: name of an array of the same submission, or Slurm's id of a job submitted before.
        indices: of the tasks that are meant; none: the whole.
    """

    how: How
    source: str
    indices: tuple[int, ...] = ()

    def text(self, ids: Mapping[str, str]) -> str:
        """As sbatch takes it; `ids`: by name of each array, Slurm's id or a variable that holds it."""
        job = ids.get(self.source, self.source)
        return ":".join([self.how, *([f"{job}_{index}" for index in self.indices] or [job])])


@dataclass(frozen=True)
class Array:
    """Tasks that are submitted together.

    Args:
        name: of its script and its logs.
        tasks: by index; a single one is no array for Slurm.
        waits: what it waits for.
    """

    name: str
    tasks: Mapping[int, Task]
    waits: tuple[Dependency, ...] = ()

    @property
    def is_array(self) -> bool:
        """Whether Slurm is given an array."""
        return len(self.tasks) > 1

    @property
    def first(self) -> Task:
        """One of the tasks, for what all share."""
        return next(iter(self.tasks.values()))


def arrays_of(tasks: Iterable[Task], before: Mapping[str, str], turn: int) -> list[Array]:
    """The tasks as arrays in an order in which each comes after those that it waits for.

    Tasks become an array where they are of one kind, take the same, and wait for the same; or where each waits for one
    task of the same arrays, whose index it gets. All others stand alone.

    Args:
        tasks: to submit; needs that are neither among them nor in `before` are taken to be done.
        before: by name, Slurm's id of tasks that were submitted before and have not ended.
        turn: number of the submission; all names begin with it.
    """
    made = _Made(before)
    ordered = in_order(tasks)
    depths: dict[str, int] = {}
    for task in ordered:
        depths[task.name] = 1 + max((depths.get(name, 0) for name in task.needs), default=0)
    for depth in sorted(set(depths.values())):
        alike: dict[object, list[Task]] = {}
        for task in ordered:
            if depths[task.name] == depth:
                alike.setdefault((task.kind, task.resources, made.sources(task)), []).append(task)
        for some in alike.values():
            for indexed, waits in made.split(some):
                made.add(Array(f"{turn:02d}-{len(made.arrays):02d}-{some[0].kind}", indexed, waits))
    return made.arrays


@dataclass
class _Made:
    """The arrays so far, and where each task is in them."""

    before: Mapping[str, str]
    arrays: list[Array] = field(default_factory=list)
    places: dict[str, tuple[Array, int]] = field(default_factory=dict)

    def add(self, array: Array) -> None:
        self.arrays.append(array)
        self.places |= {task.name: (array, index) for index, task in array.tasks.items()}

    def sources(self, task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What a task waits for, as far as it has not ended: names of arrays, and ids of jobs."""
        arrays = {self.places[name][0].name for name in task.needs if name in self.places}
        jobs = {self.before[name] for name in task.needs if self._runs(name)}
        return tuple(sorted(arrays)), tuple(sorted(jobs))

    def split(self, alike: Sequence[Task]) -> Iterator[tuple[dict[int, Task], tuple[Dependency, ...]]]:
        """Tasks of one kind that wait for the same arrays, as they can be submitted together; what they wait for."""
        first = alike[0]
        if all((set(one.after), set(one.after_any)) == (set(first.after), set(first.after_any)) for one in alike):
            for start in range(0, len(alike), LONGEST):
                yield dict(enumerate(alike[start : start + LONGEST])), self._all(first)
        elif (indices := self._partners(alike)) is not None:
            arrays, _ = self.sources(first)
            yield dict(zip(indices, alike, strict=True)), tuple(Dependency("aftercorr", name) for name in arrays)
        else:
            for one in alike:
                yield {0: one}, self._all(one)

    def _partners(self, alike: Sequence[Task]) -> list[int] | None:
        """The index that each task shares with the one task of every array that it waits for; None: there is none."""
        found = list[int]()
        for task in alike:
            arrays, jobs = self.sources(task)
            places = [self.places[name] for name in task.after if name in self.places]
            indices = {index for _, index in places}
            is_one_each = len(places) == len(arrays) and all(array.is_array for array, _ in places)
            if jobs or len(indices) != 1 or not is_one_each or any(name in self.places for name in task.after_any):
                return None
            found += indices
        return found if len(set(found)) == len(found) else None

    def _all(self, task: Task) -> tuple[Dependency, ...]:
        """What a task waits for."""
        return (*self._named("afterok", task.after), *self._named("afterany", task.after_any))

    def _named(self, how: How, names: Sequence[str]) -> Iterator[Dependency]:
        wanted: dict[str, list[int]] = {}
        for name in names:
            if name in self.places:
                array, index = self.places[name]
                wanted.setdefault(array.name, []).append(index)
            elif self._runs(name):
                yield Dependency(how, self.before[name])
        by_name = {array.name: array for array in self.arrays}
        for source, indices in wanted.items():
            is_whole = len(set(indices)) == len(by_name[source].tasks)
            yield Dependency(how, source, () if is_whole else tuple(sorted(indices)))

    def _runs(self, name: str) -> bool:
        return name not in self.places and name in self.before
