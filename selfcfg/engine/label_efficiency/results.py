"""What a benchmark of label efficiency leaves behind: the protocol of all its jobs, and one line a finished job."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from selfcfg.errors import DataError, UsageError
from selfcfg.files import parse_json, write_bytes
from selfcfg.records import Record, Sparing

RESULTS, PROTOCOL, APART = "results.jsonl", "protocol.json", "results"


class Arm(Sparing):
    """One of the methods that are compared.

    Args:
        trainer: entry-point name of what trains with labels.
        settings: its settings as JSON, without those that a job decides.
        pretrainer: entry-point name of what trained before without labels; None: nothing did.
        pretraining: settings of that as JSON.
        pretrained_from: the arm from whose pretraining that started; None: it started anew.
        unlabelled: further datasets that it saw, by name, each with the hash of its cases.
        reference: name of the labelled dataset that guided it, with the hash of its cases and labels; empty without.
    """

    spared: ClassVar[frozenset[str]] = frozenset({"pretrained_from"})

    trainer: str
    settings: dict[str, Any]
    pretrainer: str | None = None
    pretraining: dict[str, Any] = {}
    pretrained_from: str | None = None
    unlabelled: dict[str, str] = {}
    reference: dict[str, str] = {}


class Protocol(Record):
    """What makes the jobs of a benchmark comparable; arms and budgets may come later, nothing else may change.

    Args:
        dataset: folder name of the dataset.
        planner: name of the plan.
        configuration: name within the plan.
        plan_hash: content hash of the plan.
        data_hash: hash over the sources of all cases of the fold.
        train: ids of the cases that may be trained on.
        test: ids of the cases that every job is scored on.
        rates: learning rates that each job chooses from.
        mirroring: whether predictions average mirrored images.
        budgets: optimiser steps with labels, by name of the budget.
        arms: by name.
    """

    dataset: str
    planner: str
    configuration: str
    plan_hash: str
    data_hash: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    rates: tuple[float, ...]
    mirroring: bool
    budgets: dict[str, int]
    arms: dict[str, Arm]

    def joined(self, earlier: Protocol, folder: Path) -> Protocol:
        """This protocol with the arms and budgets that an earlier one in the same folder had besides.

        Raises:
            UsageError: they differ in anything else; names it.
        """
        mine, theirs = self.model_dump(mode="json"), earlier.model_dump(mode="json")
        differing = [name for name in mine if name not in ("budgets", "arms") and mine[name] != theirs[name]]
        for kind in ("budgets", "arms"):
            both = [name for name in mine[kind] if name in theirs[kind]]
            differing += [f"{kind[:-1]} '{name}'" for name in both if mine[kind][name] != theirs[kind][name]]
        if differing:
            found = f"it holds a benchmark made otherwise ({', '.join(differing)})"
            raise UsageError(f"benchmark into {folder}", found, "choose another folder with --out")
        budgets, arms = {**earlier.budgets, **self.budgets}, {**earlier.arms, **self.arms}
        return self.model_copy(update={"budgets": budgets, "arms": arms})


class Job(Record):
    """One training with labels, its learning rate to be chosen.

    Args:
        arm: what is trained.
        fraction: labelled subjects; as an int their number, as a float their share.
        budget: name of the number of steps.
        seed: of the labelled subjects, the start and the batches.
    """

    arm: str
    fraction: int | float
    budget: str
    seed: int

    @property
    def name(self) -> str:
        """A text that no other job has, usable as the name of a folder."""
        return f"{self.arm}-{self.fraction}-{self.budget}-{self.seed}"


class LabelResult(Job):
    """What came of one job: a line of results.jsonl.

    Args:
        arm: what was trained.
        fraction: labelled subjects; as an int their number, as a float their share.
        budget: name of the number of steps.
        seed: of the labelled subjects, the start and the batches.
        subjects: number of labelled subjects.
        steps: optimiser steps with labels.
        dice: mean over the test subjects.
        rate: the learning rate that was chosen.
        tried: each learning rate with the Dice it was chosen by; None: it diverged, or there was no choice.
        chosen_on: the cases of that Dice: labelled ones kept out of training, the ones trained on, or none.
        train: ids of the labelled cases that were trained on.
        kept_out: ids of the labelled cases that were kept out of training.
        cases: mean Dice over the classes of each test case.
        seconds: that the job took.
    """

    subjects: int
    steps: int
    dice: float
    rate: float
    tried: tuple[tuple[float, float | None], ...]
    chosen_on: Literal["kept out", "trained on", "none"]
    train: tuple[str, ...]
    kept_out: tuple[str, ...]
    cases: dict[str, float]
    seconds: float


def read_results(folder: Path) -> list[LabelResult]:
    """The results in a benchmark's folder in the order they came in; none where nothing is finished.

    Raises:
        DataError: a line is not a result.
    """
    file, found = folder / RESULTS, list[LabelResult]()
    for number, line in enumerate(_lines(file), 1):
        source = f"{file}, line {number}"
        try:
            content = parse_json(line, source)
        except DataError as error:
            raise DataError(source, error.found, "remove that line") from error
        found.append(LabelResult.parse(content, source))
    known = {result.name for result in found}
    apart = [LabelResult.read(one) for one in sorted((folder / APART).glob("*.json"))]
    return [*found, *(result for result in apart if result.name not in known)]


def add_result(folder: Path, result: LabelResult) -> None:
    """Adds a line to the results of a benchmark; the file is replaced as a whole, so no line is ever cut short."""
    file = folder / RESULTS
    write_bytes(file, b"".join(line + b"\n" for line in (*_lines(file), result.model_dump_json().encode())))


def add_apart(folder: Path, result: LabelResult) -> None:
    """Adds the result of a job in a file of its own: jobs on several machines have no lock that all of them heed."""
    result.write(apart_file(folder, result))


def apart_file(folder: Path, job: Job) -> Path:
    """Where the result of a job lies that has a file of its own."""
    return folder / APART / f"{job.name}.json"


def _lines(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines() if file.is_file() else []
