"""The folder of one training run: every path in it, and the record that says what made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfcfg.errors import DataError, UsageError, listed
from selfcfg.recipes.kept import kept_folders
from selfcfg.recipes.recipe import RECIPE, Recipe
from selfcfg.records import Record

INCIDENTAL = frozenset({"workers", "tensorboard"})
"""Settings that change no weight: a run may be continued with others."""

_INDIFFERENT = {
    *("segments", "versions", "machine", "status", "init", "taken_over", "previous", "stage", "time_budget"),
    "teachers",
}
"""What a record holds besides what makes the run the one it is."""


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


class StageOf(Record):
    """The stage of a recipe that a run is.

    Args:
        recipe: name of the recipe.
        stage: name of the stage.
        candidate: name of the candidate, where the stage has several; else empty.
        recipe_hash: content hash of the whole recipe with every setting that was used, as it lies in recipe.json.
    """

    recipe: str
    stage: str
    candidate: str = ""
    recipe_hash: str


class TakeOver(Record):
    """What became of the weights of another run.

    Args:
        source: the file they came from.
        taken: names of the parts that were taken over.
        adapted: name of a tensor to how it was changed to fit.
        skipped: name of a part to why it was left as it was.
    """

    source: str
    taken: tuple[str, ...]
    adapted: dict[str, str]
    skipped: dict[str, str]

    def __str__(self) -> str:
        text = f"took over {', '.join(self.taken)} from {self.source}"
        text += "".join(f"\n  adapted {name}: {how}" for name, how in self.adapted.items())
        return text + "".join(f"\n  left {name} as it was: {why}" for name, why in self.skipped.items())


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
        teachers: where the runs lay that it learnt from, in order.
        teacher_hashes: of each of these, the hash of its plan and its final weights.
        teacher_weights: of each, its weight in what they say together, by class or region.
        previous: in a cascade, the name of the experiment of the stage before, which lies beside this run's own.
        previous_weights: of that experiment, the hash of the weights of each fold by folder name.
        segments: whether its weights predict label maps; else it only pretrains.
        taken_over: what became of these weights, part by part; None before the first step, and without any.
        unlabelled: further datasets whose images it was pretrained on, by name, each with the hash of its cases.
        reference: name of the labelled dataset that guided it, with the hash of its cases and labels; empty without.
        plan_hash: content hash of the plan.
        data_hash: hash over the sources of the training cases.
        train: ids of the training cases.
        validation: ids of the validation cases.
        versions: of selfcfg, Python and the packages that change results.
        machine: processor or accelerator, threads, precision: what bit-for-bit repetition depends on.
        time_budget: seconds that the number of epochs was fitted to, or None.
        stage: the stage of a recipe that it is, or None.
        status: "running" or "finished"; of a recipe's candidate also "diverged".
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
    teachers: tuple[str, ...] = ()
    teacher_hashes: tuple[str, ...] = ()
    teacher_weights: tuple[dict[str, float], ...] = ()
    previous: str | None = None
    previous_weights: dict[str, str] = {}
    segments: bool = True
    taken_over: TakeOver | None = None
    unlabelled: dict[str, str] = {}
    reference: dict[str, str] = {}
    plan_hash: str
    data_hash: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    versions: dict[str, str]
    machine: dict[str, str | int]
    time_budget: float | None = None
    stage: StageOf | None = None
    status: str = "running"
    origin: Origin | None = None

    def identity(self) -> dict[str, Any]:
        """What two runs must share to be the same run: neither versions, machine and status, nor where files lie.

        Of a recipe, a stage's run is the same whatever the later stages are: what comes from earlier ones is told by
        the hash of their weights.
        """
        everything = self.model_dump(mode="json", exclude=_INDIFFERENT)
        settings = {name: value for name, value in self.settings.items() if name not in INCIDENTAL}
        return {**everything, "settings": settings}

    def shared_identity(self) -> dict[str, Any]:
        """What the folds of one experiment must share: everything but their cases.

        Each fold may start from weights of its own, which were trained on its cases alone: all of them or none. So may
        its teachers be its own; their number is the same.
        """
        own = ("fold", "train", "validation", "data_hash", "teacher_weights")
        shared = {name: value for name, value in self.identity().items() if name not in own}
        return {**shared, "init_hash": bool(self.init_hash), "teacher_hashes": len(self.teacher_hashes)}


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

    def note(self, **values: Any) -> None:
        """Changes values of the record that is there."""
        RunRecord.read(self.record).model_copy(update=values).write(self.record)


def experiment_name(trainer: str, planner: str, configuration: str, name: str | None = None) -> str:
    """The folder name of an experiment, the parent of its folds."""
    return "__".join(part for part in (trainer, planner, configuration, name) if part)


def experiment_folders(path: Path) -> list[Path]:
    """The parents of folds that a folder stands for: a recipe's stands for its last stage, any other for itself.

    Of a last stage that keeps candidates it is these; none of them where it has not chosen yet.

    Raises:
        DataError: the folder's recipe.json or candidates.json is not usable.
    """
    if not (path / RECIPE).is_file():
        return [path]
    last = Recipe.read(path / RECIPE).expansion.stages[-1]
    if last.slots:
        return kept_folders(path, last.stage.name)
    return [path / one.key for one in last.candidates]


def experiment_folder(path: Path) -> Path:
    """The parent of the folds that a folder stands for: a recipe's stands for its last stage, any other for itself.

    Raises:
        UsageError: the last stage holds several candidates.
        DataError: the folder's recipe.json or candidates.json is not usable, or the last stage has not chosen yet.
    """
    found = experiment_folders(path)
    if not found:
        raise DataError(f"run {path}", "its recipe has not kept a candidate yet", "train the recipe to its end")
    if len(found) > 1:
        names = listed(folder.relative_to(path) for folder in found)
        several = f"its recipe ends with several candidates ({names})"
        raise UsageError(f"run {path}", several, "give one of their folders")
    return found[0]


def same_fold(path: Path, fold: int | str) -> Path:
    """A fold's own run in an experiment or recipe folder; where there is none, or for any other path, the path."""
    own = experiment_folder(path) / f"fold_{fold}"
    return own if (own / "run.json").is_file() else path


def fold_folders(path: Path) -> list[RunFolder]:
    """The folds of a run given as a recipe's folder, an experiment folder or one fold folder, in order.

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
    parent = experiment_folder(path)
    folds = [RunFolder(folder) for folder in parent.glob("fold_*") if (folder / "run.json").is_file()]
    if not folds and parent != path:
        found = f"its recipe has not come to the last stage, '{parent.relative_to(path)}'"
        raise DataError(f"run {path}", found, "train the recipe to its end, or give the folder of a stage")
    if not folds:
        raise DataError(f"run {path}", "no run.json in it or in a fold_* folder", "train first, or give another folder")
    return sorted(folds, key=lambda fold: (len(fold.path.name), fold.path.name))
