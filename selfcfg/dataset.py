"""A dataset in the standard folder format: dataset.json, imagesTr, labelsTr (nnU-Net's raw format, read as it is)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, Field, model_validator

from selfcfg.errors import DataError, nearest
from selfcfg.files import read_json
from selfcfg.image_files import FILE_ENDINGS, is_case_name, refuse_names
from selfcfg.image_targets import GivenTarget, ImageTarget, TargetName, columns
from selfcfg.labels import LabelSchema
from selfcfg.records import Record

INFORMATION_KEYS = frozenset(
    [
        "name",
        "description",
        "reference",
        "release",
        "licence",
        "license",
        "modality",
        "tensorImageSize",
        "numTest",
        "training",
        "test",
        "author",
        "citation",
        "converted_by",
        "dataset_name",
        "evaluation",
        "version",
    ]
)
"""Keys of dataset.json that only inform a reader."""


class ListedCase(Record):
    """One entry of an explicit ``dataset`` listing: files relative to the dataset folder, ``$VARIABLES`` expanded."""

    images: tuple[str, ...]
    label: str | None = None


class Provenance(Record):
    """What `selfcfg convert` notes in dataset.json under ``selfcfg``; nnU-Net ignores it.

    Args:
        subjects: the person each case belongs to, where that is not the case itself.
        label_map: original label value (as text) to the value written.
        source: what the dataset was converted from.
        threshold: the intensity above which a mask counted as foreground, if one was given.
    """

    subjects: dict[str, str] = {}
    label_map: dict[str, int] = {}
    source: str = ""
    threshold: float | None = None


class DatasetDescription(Record):
    """The content of dataset.json.

    Args:
        channel_names: channel index ("0", ...) to its name; the name chooses the normalisation ("CT", ...).
        labels: see `LabelSchema`.
        numTraining: number of training cases.
        file_ending: suffix of images and labels, with the dot.
        regions_class_order: see `LabelSchema`.
        overwrite_image_reader_writer: a reader name of nnU-Net, only kept; the reader here follows from the suffix.
        dataset: explicit listing that replaces the two folders.
        image_targets: by name, what is known of whole images; nnU-Net ignores it.
        selfcfg: notes of our own converters.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    channel_names: dict[str, str] = Field(min_length=1)
    labels: dict[str, int | tuple[int, ...]]
    numTraining: int  # noqa: N815 - the key of the published format
    file_ending: str
    regions_class_order: tuple[int, ...] = ()
    overwrite_image_reader_writer: str | None = None
    dataset: dict[str, ListedCase] = {}
    image_targets: dict[TargetName, GivenTarget] = {}
    selfcfg: Provenance = Provenance()

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, content: Any) -> Any:
        if isinstance(content, dict) and "channel_names" not in content and "modality" in content:
            content = {**content, "channel_names": content["modality"]}
        return content

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if sorted(self.channel_names) != sorted(str(index) for index in range(len(self.channel_names))):
            raise ValueError(
                f'channel_names must be numbered "0", "1", ... as {{"0": "CT"}}, found keys {list(self.channel_names)}'
            )
        if self.file_ending not in FILE_ENDINGS:
            raise ValueError(
                f"file_ending '{self.file_ending}' is not supported, " + nearest(self.file_ending, FILE_ENDINGS)
            )
        for key in self.unknown_keys:
            hint = nearest(key, type(self).model_fields)
            if hint.startswith("did you mean"):
                raise ValueError(f"unknown key '{key}', {hint}")
        LabelSchema(labels=self.labels, regions_class_order=self.regions_class_order)
        if bad := [case for case in self.dataset if not is_case_name(case)]:
            raise ValueError(f"dataset: {bad[0][:80]!a} cannot be the name of a case, which names its files")
        files = (name for entry in self.dataset.values() for name in (*entry.images, entry.label or ""))
        if bad := [name for name in files if "\0" in name]:
            raise ValueError(f"dataset: {bad[0][:80]!a} cannot be the name of a file")
        names = columns(self.image_targets)
        if len(set(names)) < len(names):
            raise ValueError("image_targets: names must differ, from 'case' and from TARGET=CLASS of the others, too")
        return self

    @property
    def unknown_keys(self) -> tuple[str, ...]:
        """Keys that are neither part of the format nor known to only inform."""
        return tuple(key for key in self.model_extra or {} if key not in INFORMATION_KEYS)

    @property
    def schema_of_labels(self) -> LabelSchema:
        """The meaning of the label values."""
        return LabelSchema(labels=self.labels, regions_class_order=self.regions_class_order)

    @property
    def image_meanings(self) -> dict[str, ImageTarget]:
        """The image-level targets without their values."""
        return {name: target.meaning for name, target in self.image_targets.items()}

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names in order."""
        return tuple(self.channel_names[str(index)] for index in range(len(self.channel_names)))

    @property
    def label_ending(self) -> str:
        """Suffix of labels and predictions: that of the images, or .png where images are JPEG, which changes values."""
        return ".png" if self.file_ending in (".jpg", ".jpeg") else self.file_ending


TEST_IMAGES = "imagesTs"
"""Folder of images that nothing is trained on."""


class Case(Record):
    """One case: its id, an image file a channel (one file for a colour picture), its label and its subject."""

    id: str
    images: tuple[Path, ...]
    label: Path | None
    subject: str


class Dataset(Record):
    """A dataset folder that was opened: its description and its training cases, sorted by id."""

    root: Path
    description: DatasetDescription
    cases: tuple[Case, ...]

    @property
    def name(self) -> str:
        """The folder name, such as Dataset004_Hippocampus."""
        return self.root.name

    @property
    def labels(self) -> LabelSchema:
        """The meaning of the label values."""
        return self.description.schema_of_labels

    @classmethod
    def open(cls, root: Path) -> Dataset:
        """The dataset in folder `root`; no image is read.

        Raises:
            DataError: dataset.json is missing or wrong, or there are no cases.
        """
        file = root / "dataset.json"
        content = read_json(file)
        description = DatasetDescription.parse(content, str(file))
        cases = find_cases(root, description)
        if not cases:
            raise DataError(
                f"open {root}", "no training case was found", "put images into imagesTr and labels into labelsTr"
            )
        return cls(root=root, description=description, cases=cases)

    def case(self, identifier: str) -> Case:
        """The case with this id.

        Raises:
            DataError: there is none.
        """
        for case in self.cases:
            if case.id == identifier:
                return case
        raise DataError(
            f"case '{identifier}' of {self.name}", "no such case", nearest(identifier, [c.id for c in self.cases])
        )


def find_cases(root: Path, description: DatasetDescription) -> tuple[Case, ...]:
    """The training cases of a dataset folder, sorted by id: those listed in dataset.json, else those in imagesTr."""
    cases = _named_cases(root, description) if description.dataset else _found(root, description)
    return tuple(sorted(cases, key=lambda case: case.id))


def find_test_cases(root: Path, description: DatasetDescription) -> tuple[Case, ...]:
    """The cases in imagesTs, sorted, without labels; "imagesTs/" before their ids keeps them apart from others."""
    found = channel_files(root / TEST_IMAGES, description.file_ending)
    return tuple(
        Case(
            id=f"{TEST_IMAGES}/{identifier}",
            images=tuple(channels[index] for index in sorted(channels)),
            label=None,
            subject=description.selfcfg.subjects.get(identifier, identifier),
        )
        for identifier, channels in found.items()
    )


def channel_files(folder: Path, ending: str) -> dict[str, dict[int, Path]]:
    """The image files of a folder as case id to {channel index: file}, by nnU-Net's ``CASE_0000.ending`` names.

    Raises:
        OSError: the folder may not be read; it need not be there.
    """
    pattern = re.compile(r"(.+)_(\d{4})" + re.escape(ending))
    found: dict[str, dict[int, Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.name.startswith(".") or not file.name.endswith(ending):
            continue
        refuse_names([file.name], folder)
        if match := pattern.fullmatch(file.name):
            found.setdefault(match[1], {})[int(match[2])] = file
    return found


def _found(root: Path, description: DatasetDescription) -> list[Case]:
    ending = description.file_ending
    cases = []
    for identifier, channels in channel_files(root / "imagesTr", ending).items():
        cases.append(
            Case(
                id=identifier,
                images=tuple(channels[index] for index in sorted(channels)),
                label=root / "labelsTr" / f"{identifier}{description.label_ending}",
                subject=description.selfcfg.subjects.get(identifier, identifier),
            )
        )
    return cases


def _named_cases(root: Path, description: DatasetDescription) -> list[Case]:
    def place(name: str) -> Path:
        return root / os.path.expandvars(name)

    return [
        Case(
            id=identifier,
            images=tuple(place(name) for name in entry.images),
            label=place(entry.label) if entry.label else None,
            subject=description.selfcfg.subjects.get(identifier, identifier),
        )
        for identifier, entry in description.dataset.items()
    ]
