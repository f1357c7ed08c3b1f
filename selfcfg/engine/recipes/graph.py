"""A recipe on one dataset as a graph: plain data, from which each job can be run wherever its files are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from selfcfg.engine.choice import TrainRequest
from selfcfg.recipes.expansion import Candidate, Expansion, Slot
from selfcfg.recipes.stages import Keep
from selfcfg.records import Record
from selfcfg.runs import RunFolder


class Job(Record):
    """One fold of one candidate: a training that leaves one run folder.

    Args:
        name: no other job has it.
        key: of the candidate: its folder in that of the recipe's results.
        fold: that it trains.
        request: what to train; what it takes from other jobs is added when these have ended.
        init: key of the candidate, or of the place of a kept one, that it starts from, or a path; None: random weights.
        teachers: keys and paths likewise.
        needs: names of the jobs and contests that must have ended well before.
        steps: optimiser steps.
        memory: bytes that it takes on a processor.
    """

    name: str
    key: str
    fold: int
    request: TrainRequest
    init: str | None = None
    teachers: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    steps: int
    memory: int

    def run(self, folder: Path) -> RunFolder:
        """Where it trains, within the folder of the recipe's results."""
        return RunFolder(folder / self.key / f"fold_{self.fold}")

    def resolved(self, places: Mapping[str, Path]) -> TrainRequest:
        """What to train, once the experiment folder of every key is known."""
        init = None if self.init is None else places.get(self.init, Path(self.init))
        teachers = tuple(places.get(key, Path(key)) for key in self.teachers)
        return self.request.model_copy(update={"init": init, "teachers": teachers})


class Contest(Record):
    """The choice among candidates whose folds are all scored.

    Args:
        name: no other contest or job has it.
        stage: that keeps.
        keep: its rule.
        slots: its places, each with the keys of the candidates that it is open to.
        folds: that are scored.
        steps: by key of each candidate, optimiser steps of a fold with those of the stages that it starts from.
        values: by key of each candidate, what tells it apart.
        needs: names of the jobs that must have ended before.
    """

    name: str
    stage: str
    keep: Keep
    slots: tuple[Slot, ...]
    folds: tuple[int, ...]
    steps: dict[str, int]
    values: dict[str, dict[str, Any]]
    needs: tuple[str, ...]


class Graph(Record):
    """All jobs of a recipe in an order in which each comes after those that it needs.

    Args:
        folder: of the recipe's results.
        nodes: jobs and contests.
    """

    folder: Path
    nodes: tuple[Job | Contest, ...]

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The trainings."""
        return tuple(node for node in self.nodes if isinstance(node, Job))

    @property
    def contests(self) -> tuple[Contest, ...]:
        """The choices."""
        return tuple(node for node in self.nodes if isinstance(node, Contest))

    @property
    def width(self) -> int:
        """Jobs that can run at once: the most that are as far from the beginning."""
        depths: dict[str, int] = {}
        for node in self.nodes:
            depths[node.name] = 1 + max((depths[name] for name in node.needs), default=0)
        return max(Counter(depths[job.name] for job in self.jobs).values(), default=0)


class Piece(NamedTuple):
    """A candidate with what its jobs share.

    Args:
        request: without what it takes from other jobs.
        folds: that it trains.
        steps: optimiser steps of a fold.
        memory: bytes that a job takes on a processor.
    """

    request: TrainRequest
    folds: tuple[int, ...]
    steps: int
    memory: int


def build_graph(folder: Path, expansion: Expansion, pieces: Mapping[str, Piece]) -> Graph:
    """The jobs of all candidates, stage by stage.

    Args:
        folder: of the recipe's results.
        expansion: the candidates.
        pieces: by key of each candidate.
    """
    totals = total_steps(expansion, {key: piece.steps for key, piece in pieces.items()})
    slots: dict[str, str] = {}
    nodes: list[Job | Contest] = []
    for stage in expansion.stages:
        for one in stage.candidates:
            nodes += _jobs(one, pieces, slots)
        if stage.slots:
            among = {key: expansion.candidates[key] for slot in stage.slots for key in slot.among}
            folds = pieces[next(iter(among))].folds
            contest = Contest(
                name=contest_name(stage.stage.name),
                stage=stage.stage.name,
                keep=stage.stage.keep or Keep(),
                slots=stage.slots,
                folds=folds,
                steps={key: totals[key] for key in among},
                values={key: one.values for key, one in among.items()},
                needs=tuple(job_name(key, fold) for key in among for fold in folds),
            )
            nodes.append(contest)
            slots |= {slot.key: contest.name for slot in stage.slots}
    return Graph(folder=folder, nodes=tuple(nodes))


def total_steps(expansion: Expansion, own: Mapping[str, int]) -> dict[str, int]:
    """By key, the optimiser steps of a fold with those of what it starts from; of what is kept the most it may be."""
    found: dict[str, int] = {}
    for stage in expansion.stages:
        for one in stage.candidates:
            found[one.key] = own[one.key] + found.get(one.init or "", 0)
        found |= {slot.key: max(found[key] for key in slot.among) for slot in stage.slots}
    return found


def job_name(key: str, fold: int) -> str:
    """The name of the job of a candidate and fold."""
    return f"{key}/fold_{fold}"


def contest_name(stage: str) -> str:
    """The name of the contest of a stage."""
    return f"keep {stage}"


def _jobs(one: Candidate, pieces: Mapping[str, Piece], slots: Mapping[str, str]) -> list[Job]:
    """The folds of a candidate; `slots`: by key of each place, the contest that decides on it."""
    piece = pieces[one.key]
    sources = [source for source in (one.init, *one.teachers) if source is not None]

    known = [source for source in sources if source in slots or source in pieces]

    def needs(fold: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys(slots.get(source) or job_name(source, fold) for source in known))

    return [
        Job(
            name=job_name(one.key, fold),
            key=one.key,
            fold=fold,
            request=piece.request,
            init=one.init,
            teachers=one.teachers,
            needs=needs(fold),
            steps=piece.steps,
            memory=piece.memory,
        )
        for fold in piece.folds
    ]
