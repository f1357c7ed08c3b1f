"""What importing and exporting a model have in common: results, places, and what is told of the dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfcfg.dataset import DatasetDescription
from selfcfg.engine.prediction.packaged import DATASET, MAX_DEPTH
from selfcfg.errors import DataError, UsageError
from selfcfg.plan import Plan
from selfcfg.runs import RunRecord

INFORMING = ("licence", "license", "reference", "release")
"""Keys of dataset.json that travel with a model although no prediction needs them."""


@dataclass(frozen=True)
class Exchanged:
    """What an import or export made.

    Args:
        model: folder of the model.
        first: folder of a cascade's first model, else None.
        folds: names of its folds.
        notes: what a user should know, in words.
    """

    model: Path
    first: Path | None
    folds: tuple[str, ...]
    notes: tuple[str, ...]


def beside(folder: Path, configuration: str, previous: str) -> Path:
    """Where the first model of a cascade goes: named like its second with the name of its own configuration."""
    stem = folder.name.removesuffix(configuration)
    return folder.with_name(f"{stem}{previous}" if stem != folder.name else f"{folder.name}__{previous}")


def refuse_existing(folder: Path) -> None:
    """Nothing, where there is no such folder or file yet.

    Raises:
        UsageError: there is.
    """
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"write {folder}", "it is there already", "name another place with --out, or move it away")


def came_with(model: Path) -> DatasetDescription | None:
    """What an imported model says of the dataset of its training; None for a model that was trained here.

    Args:
        model: its experiment folder or one of its folds, alone or within the folder of a package.

    Raises:
        DataError: the file is not usable.
    """
    folder = model.resolve()
    above = (folder, *folder.parents[: MAX_DEPTH + 1])
    file = next((place / DATASET for place in above if (place / DATASET).is_file()), None)
    return None if file is None else DatasetDescription.read(file)


def described(plan: Plan, record: RunRecord) -> DatasetDescription:
    """What is known of the dataset of a training without its dataset.json."""
    ending = record.origin.file_ending if record.origin else ".png" if plan.dimensions == 2 else ".nii.gz"
    return DatasetDescription(
        channel_names={str(index): name for index, name in enumerate(plan.channels)},
        labels=plan.labels.labels,
        regions_class_order=plan.labels.regions_class_order,
        numTraining=len(record.train) + len(record.validation),
        file_ending=ending,
    )


def shareable(plan: Plan, description: DatasetDescription, dataset: str) -> dict[str, Any]:
    """The content of a dataset.json with what a model needs and what its users should know, such as a licence.

    What else ours holds, such as subjects, is nobody else's.

    Args:
        plan: of the model.
        description: dataset.json of its training.
        dataset: folder name of the dataset, for messages.

    Raises:
        DataError: it describes another dataset.
    """
    if description.channels != plan.channels or description.schema_of_labels != plan.labels:
        found = "channels or labels in it are not those of the model"
        raise DataError("--dataset-json", found, f"give dataset.json of {dataset}")
    wanted = ("channel_names", "labels", "numTraining", "file_ending", "overwrite_image_reader_writer")
    content = description.model_dump(mode="json", include=set(wanted), exclude_none=True)
    if plan.labels.regions_class_order:
        content["regions_class_order"] = list(plan.labels.regions_class_order)
    told = description.model_extra or {}
    return content | {key: told[key] for key in INFORMING if isinstance(told.get(key), str)}
