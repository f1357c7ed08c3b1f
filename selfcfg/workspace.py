"""Where raw data, preprocessed data and results lie, and how a dataset is named on the command line."""

from __future__ import annotations

import os
import re
from pathlib import Path

from selfcfg.errors import UsageError, nearest
from selfcfg.records import Record

SET_WORKSPACE = "another workspace is named by --workspace or SELFCFG_WORKSPACE"


class Workspace(Record):
    """The three folders of one user's work."""

    raw: Path
    preprocessed: Path
    results: Path

    @classmethod
    def at(cls, root: Path | None = None) -> Workspace:
        """The workspace at `root`; else $SELFCFG_WORKSPACE, else nnU-Net's three variables, else ./workspace."""
        root = root or (Path(text) if (text := os.environ.get("SELFCFG_WORKSPACE")) else None)
        if root is None:
            places = [os.environ.get(f"nnUNet_{part}") for part in ("raw", "preprocessed", "results")]
            if all(places):
                raw, preprocessed, results = (Path(str(place)).absolute() for place in places)
                return cls(raw=raw, preprocessed=preprocessed, results=results)
            root = Path("workspace")
        root = root.absolute()
        return cls(raw=root / "raw", preprocessed=root / "preprocessed", results=root / "results")

    def datasets(self) -> dict[int, Path]:
        """The raw dataset folders by id.

        Raises:
            UsageError: two folders claim one id.
        """
        found: dict[int, Path] = {}
        for folder in sorted(self.raw.glob("Dataset[0-9][0-9][0-9]_*")):
            number = int(folder.name[7:10])
            if number in found:
                raise UsageError(
                    f"dataset {number}",
                    f"both {found[number].name} and {folder.name} have this id in {self.raw}",
                    "rename one",
                )
            found[number] = folder
        return found

    def dataset_folder(self, dataset: str) -> Path:
        """The raw folder of a dataset named by id (``4``), folder name or path.

        Raises:
            UsageError: nothing by that name.
        """
        if (path := Path(dataset)).is_dir():
            return Path(os.path.abspath(path))  # noqa: PTH100 - "..", but no link, is replaced: its name is the dataset's
        known = self.datasets()
        if dataset.isdecimal() and int(dataset) in known:
            return known[int(dataset)]
        by_name = {folder.name: folder for folder in known.values()}
        if dataset in by_name:
            return by_name[dataset]
        names = [*by_name, *(str(number) for number in known)]
        remedy = nearest(dataset, names) if names else SET_WORKSPACE
        raise UsageError(f"dataset '{dataset}'", f"not found in {self.raw} and not a folder", remedy)

    def new_dataset_folder(self, number: int, name: str) -> Path:
        """The raw folder for a new dataset.

        Raises:
            UsageError: the id or name cannot be used, or is taken.
        """
        if not 0 < number < 1000:
            raise UsageError(f"dataset id {number}", "ids have three digits", "choose one from 1 to 999")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise UsageError(
                f"dataset name '{name}'", "only letters, digits, '-' and '_' are allowed", "choose another name"
            )
        folder = self.raw / f"Dataset{number:03d}_{name}"
        taken = self.datasets().get(number)
        if taken is not None:
            raise UsageError(
                f"dataset id {number}", f"{taken} exists already", "choose another id or remove that folder"
            )
        return folder
