"""The folder of one training run: every path in it, and the record that says what made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfcfg.errors import DataError, UsageError
from selfcfg.records import Record

INCIDENTAL = frozenset({"workers", "tensorboard"})
"""Settings that change no weight: a run may be continued with others."""


class Origin(Record):
    """Where the weights of a run came from that was not trained here.

    Args:
        tool: that trained it, such as "nnunetv2".
        source: name of the folder or archive that was imported.
        trainer: what the tool calls its training.
        checkpoint: name of the weights file there.
        checkpoint_hash: of that file's bytes.
        epoch: epochs it was trained for, or None where the file does not say.
        file_ending: suffix of the images it was trained on.
    """

    tool: str
    source: str
    trainer: str
    checkpoint: str
    checkpoint_hash: str
    epoch: int | None
    file_ending: str


class RunRecord(Record):
    """What made a run: enough to repeat it, and to refuse a run that would be another one.

    Args:
        dataset: folder name of the dataset.
        trainer: entry-point name; of an imported run, the name the other tool has for it.
        planner: entry-point name; of an imported run, the name of the other tool's plans.
        configuration: name within the plan.
        fold: fold number, or "all".
        settings: the trainer's typed settings as JSON.
        label_fraction: share of the training subjects whose labels were used.
        seed: of every random number.
        init: where the weights it started from lay, or None.
        init_hash: of the bytes of these weights; empty without.
        previous: in a cascade, the name of the experiment of the stage before, which lies beside this run's own.
        previous_weights: of that experiment, the hash of the weights of each fold by folder name.
        segments: whether its weights predict label maps; else it only pretrains.
        unlabelled: further datasets whose images it was pretrained on, by name, each with the hash of its cases.
        plan_hash: content hash of the plan.
        data_hash: hash over the sources of the training cases.
        train: ids of the training cases.
        validation: ids of the validation cases.
        versions: of selfcfg, Python and the packages that change results.
        machine: processor or accelerator, threads, precision: what bit-for-bit repetition depends on.
        time_budget: seconds that the number of epochs was fitted to, or None.
        status: "running" or "finished".
        origin: where an imported run came from; None where it was trained here.
    """

    dataset: str
    trainer: str
    planner: str
    configuration: str
    fold: int | str
    settings: dict[str, Any]
    label_fraction: float
    seed: int
    init: str | None
    init_hash: str = ""
    previous: str | None = None
    previous_weights: dict[str, str] = {}
    segments: bool = True
    unlabelled: dict[str, str] = {}
    plan_hash: str
    data_hash: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    versions: dict[str, str]
    machine: dict[str, str | int]
    time_budget: float | None = None
    status: str = "running"
    origin: Origin | None = None

    def identity(self) -> dict[str, Any]:
        """What two runs must share to be the same run: neither versions, machine and status, nor where files lie."""
        everything = self.model_dump(
            mode="json", exclude={"versions", "machine", "status", "init", "previous", "time_budget", "segments"}
        )
        settings = {name: value for name, value in self.settings.items() if name not in INCIDENTAL}
        return {**everything, "settings": settings}

    def shared_identity(self) -> dict[str, Any]:
        """What the folds of one experiment must share: everything but their cases and what they were started from.

        Each fold is started from the pretraining of its own fold, which has not seen its validation cases; all are, or
        none is.
        """
        own = ("fold", "train", "validation", "data_hash", "init_hash")
        shared = {name: value for name, value in self.identity().items() if name not in own}
        return {**shared, "is_pretrained": bool(self.init_hash)}


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run (one fold)."""

    path: Path

    @property
    def record(self) -> Path:
        """run.json."""
        return self.path / "run.json"

    @property
    def plan(self) -> Path:
        """The plan the run was made with."""
        return self.path / "plan.json"

    @property
    def log(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "log.jsonl"

    @property
    def curves(self) -> Path:
        """The training curves as a picture."""
        return self.path / "curves.png"

    @property
    def last(self) -> Path:
        """The newest local checkpoint."""
        return self.path / "last.pt"

    @property
    def previous(self) -> Path:
        """The checkpoint before the newest."""
        return self.path / "previous.pt"

    @property
    def best(self) -> Path:
        """Weights of the best epoch by the moving average of the validation Dice."""
        return self.path / "best.safetensors"

    @property
    def final(self) -> Path:
        """Weights at the end of training."""
        return self.path / "final.safetensors"

    @property
    def validation(self) -> Path:
        """Predictions and scores of the fold's validation cases."""
        return self.path / "validation"


def experiment_name(trainer: str, planner: str, configuration: str, name: str | None = None) -> str:
    """The folder name of an experiment, the parent of its folds."""
    return "__".join(part for part in (trainer, planner, configuration, name) if part)


def fold_folders(path: Path) -> list[RunFolder]:
    """The folds of a run given as an experiment folder or as one fold folder, in order.

    Raises:
        UsageError: there is no such folder.
        DataError: the folder holds no run.
    """
    if not path.is_dir():
        raise UsageError(
            f"run {path}", "there is no such folder", "give an experiment folder or one of its fold_* folders"
        )
    if (path / "run.json").is_file():
        return [RunFolder(path)]
    folds = [RunFolder(folder) for folder in path.glob("fold_*") if (folder / "run.json").is_file()]
    if not folds:
        raise DataError(f"run {path}", "no run.json in it or in a fold_* folder", "train first, or give another folder")
    return sorted(folds, key=lambda fold: (len(fold.path.name), fold.path.name))
