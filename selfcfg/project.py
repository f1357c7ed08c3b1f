"""One dataset within a workspace: where each thing that is made of it lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from selfcfg.dataset import Dataset
from selfcfg.errors import UsageError, nearest
from selfcfg.plan import Plan
from selfcfg.runs import RunRecord, experiment_folders, fold_folders
from selfcfg.workspace import Workspace


@dataclass(frozen=True)
class Project:
    """A raw dataset with its preprocessed and results folders.

    Args:
        root: the raw dataset folder.
        preprocessed: folder of the fingerprint, plans, splits and stores.
        results: folder of the experiments.
    """

    root: Path
    preprocessed: Path
    results: Path

    @classmethod
    def of(cls, workspace: Workspace, dataset: str) -> Project:
        """The project of a dataset named by id, folder name or path.

        Raises:
            UsageError: nothing by that name.
        """
        root = workspace.dataset_folder(dataset)
        return cls(root, workspace.preprocessed / root.name, workspace.results / root.name)

    @cached_property
    def dataset(self) -> Dataset:
        """The opened dataset."""
        return Dataset.open(self.root)

    @property
    def name(self) -> str:
        """The dataset's folder name."""
        return self.root.name

    @property
    def fingerprint_file(self) -> Path:
        """fingerprint.json."""
        return self.preprocessed / "fingerprint.json"

    @property
    def own_splits_file(self) -> Path:
        """The splits made by selfcfg; a splits_final.json in the raw folder goes before it."""
        return self.preprocessed / "splits_final.json"

    @property
    def user_splits_file(self) -> Path:
        """The splits a user put beside dataset.json."""
        return self.root / "splits_final.json"

    def plan_file(self, planner: str, suffix: str = "") -> Path:
        """Where the plan of a planner lies; the suffix says what it was fitted to, such as "-24GB" or "-12h"."""
        return self.preprocessed / "plans" / f"{planner}{suffix}.json"

    def plan(self, name: str | None = None) -> tuple[str, Plan]:
        """The plan called `name` ("standard", "standard-24GB"), or the only one there is; with its name.

        Raises:
            UsageError: there is none, or several and no name was given.
            DataError: the file is not a valid plan.
        """
        files = {file.stem: file for file in sorted((self.preprocessed / "plans").glob("*.json"))}
        if not files:
            raise UsageError(f"plan of {self.name}", "there is none yet", f"run: selfcfg plan {self.name}")
        if name is None and len(files) > 1:
            raise UsageError(
                f"plan of {self.name}", f"there are several: {', '.join(files)}", "choose one with --planner"
            )
        name = name or next(iter(files))
        if name not in files:
            raise UsageError(f"plan '{name}' of {self.name}", "there is no such plan", nearest(name, files))
        return name, Plan.read(files[name])

    def store_folder(self, plan: Plan, configuration: str) -> Path:
        """Where the preprocessed cases of a configuration lie; the name carries the hash of what made them.

        Configurations that are preprocessed alike share the folder of the first of them.
        """
        made = plan.preprocessing_hash(configuration)
        first = next(name for name in plan.configurations if plan.preprocessing_hash(name) == made)
        return self.preprocessed / f"{first}-{made}"


def experiments_of(target: str, workspace: Workspace) -> list[Path]:
    """The experiment folders that a run folder, or a dataset, names; of a dataset, those that predict label maps.

    Of a recipe it is that of its last stage.

    Raises:
        UsageError: neither a folder of runs nor a dataset with any.
        DataError: the record of a run cannot be read.
    """
    path = Path(target)
    if path.is_dir() and not (path / "dataset.json").is_file():
        several = experiment_folders(path)
        return several if len(several) > 1 else [fold_folders(path)[0].path.parent]
    results = Project.of(workspace, target).results
    every = [experiment for folder in sorted(results.glob("*")) for experiment in experiment_folders(folder)]
    runs = {folder: next(iter(sorted(folder.glob("fold_*/run.json"))), None) for folder in every}
    found = {folder: RunRecord.read(run).segments for folder, run in runs.items() if run is not None}
    if not found:
        raise UsageError(f"experiments of '{target}'", f"none in {results}", f"run: selfcfg plan-and-train {target}")
    if not any(found.values()):
        only = f"only pretrainings in {results}"
        raise UsageError(f"experiments of '{target}'", only, f"fine-tune one: selfcfg train {target} --init RUN")
    return sorted(folder for folder, segments in found.items() if segments)
