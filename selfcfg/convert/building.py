"""A dataset folder that appears whole or not at all, and the reading and writing of its cases in parallel."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from selfcfg.errors import DataError, SelfcfgError, UsageError, listed
from selfcfg.files import new_folder, refused, write_json
from selfcfg.geometry import Geometry
from selfcfg.image_files import DICOM_ENDINGS, RASTER_ENDINGS
from selfcfg.io.images import ending_of, read_image, read_label, write_image, write_label
from selfcfg.io.notes import without_notes
from selfcfg.parallel import default_jobs, run_cases
from selfcfg.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")

_SMALL = 128 << 20
"""Bytes of image files below which one process is quicker than starting several."""

_SHOWN = 10
_TIFF = (".tif", ".tiff")


@dataclass(frozen=True)
class SourceCase:
    """One case of what is converted: its id, an image file a channel (or one for all), its label or None."""

    id: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class CaseSurvey:
    """What reading a case told.

    Args:
        n_channels: channels of each image file.
        copied: for each image file, whether it can be taken as it is, suffix aside.
        label_copied: whether the label can be taken as it is, suffix and values aside.
        values: label value to number of voxels; with a threshold, of the mask.
        stack: whether a picture format holds several slices, or numbers that only TIFF can.
        geometry: of the first image file.
    """

    n_channels: tuple[int, ...]
    copied: tuple[bool, ...]
    label_copied: bool
    values: dict[int, int]
    stack: bool
    geometry: Geometry


@dataclass(frozen=True)
class Writing:
    """One case to write.

    Args:
        case: where it comes from.
        survey: what reading it told.
        folder: the dataset folder being built.
        part: "Tr" or "Ts".
        ending: suffix to write.
        label_map: original label value to the one written.
        threshold: values above it are foreground; None takes values as they are.
    """

    case: SourceCase
    survey: CaseSurvey
    folder: Path
    part: str
    ending: str
    label_map: dict[int, int]
    threshold: float | None = None


@contextmanager
def building(destination: Path) -> Iterator[Path]:
    """A new folder that becomes `destination` when the block ends well, and vanishes when it does not.

    Raises:
        UsageError: there is something at `destination` already.
        SelfcfgError: the folder cannot be made, or the disk refused the bytes.
    """
    if destination.exists():
        raise UsageError(f"make dataset {destination}", "it exists already", "choose another or remove that folder")
    with new_folder(destination) as folder:
        yield folder


def every_case(
    function: Callable[[Item], Result], items: Mapping[str, Item], sources: list[SourceCase], doing: str
) -> dict[str, Result]:
    """The result of a function for every case.

    Raises:
        DataError: some cases failed; each is named with its reason.
    """
    total = sum(path.stat().st_size for case in sources for path in case.images if path.is_file())
    results: dict[str, Result] = {}
    failed: list[str] = []
    with progress(doing, len(items)) as step:
        for name, result in run_cases(function, items, jobs=default_jobs() if total > _SMALL else 1, doing=doing):
            if isinstance(result, SelfcfgError):
                failed.append(f"case '{name}': {result}")
            else:
                results[name] = result
            step(name)
    refuse(failed, doing)
    return results


def refuse(failed: list[str], doing: str, remedy: str = "mend them and run it again", what: str = "cases") -> None:
    """Raises one error that lists what is wrong with every case (or other thing), or does nothing when nothing is."""
    if failed:
        shown = listed(failed, _SHOWN, separator="\n  ")
        raise DataError(doing, f"{len(failed)} {what} cannot be used\n  {shown}\n", remedy)


def survey_case(item: tuple[SourceCase, float | None]) -> CaseSurvey:
    """Reads every file of a case to its end; the second part of `item` is the threshold of its mask, or None.

    Raises:
        DataError: a file is not usable, or the files differ in shape.
    """
    case, threshold = item
    n_channels, copied, stack = [], [], False
    geometries: list[Geometry] = []
    shapes: dict[str, tuple[int, ...]] = {}
    for path in case.images:
        image, geometry = read_source(path)
        geometries.append(geometry)
        shapes[path.name] = geometry.shape
        n_channels.append(len(image))
        copied.append(_is_plain(path, image))
        stack |= geometry.shape[0] > 1 or image.dtype not in (np.uint8, np.uint16)
    values: dict[int, int] = {}
    label_copied = False
    if case.label is not None:
        label = _read_mask(case.label, threshold)
        shapes[f"label {case.label.name}"] = label.shape
        found, counts = np.unique(label, return_counts=True)
        values = {int(value): int(count) for value, count in zip(found, counts, strict=True)}
        label_copied = threshold is None and _is_plain_label(case.label, label)
    if len(set(shapes.values())) > 1:
        every = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError("compare its files", f"they differ in shape (z, y, x): {every}", "export them from one grid")
    return CaseSurvey(tuple(n_channels), tuple(copied), label_copied, values, stack, geometries[0])


def common_ending(sources: list[SourceCase], surveys: Mapping[str, CaseSurvey]) -> str:
    """The suffix to write: that of all files where they agree, else .nii.gz for volumes and .png for pictures.

    Pictures that PNG cannot hold become .tif; neither JPEG stays, since it changes label values, nor DICOM.

    Raises:
        DataError: pictures and volumes are mixed.
    """
    files = [path for case in sources for path in (*case.images, *([case.label] if case.label else []))]
    endings = {_source_ending(path): path for path in files}
    if len(endings) == 1 and (only := next(iter(endings))) not in (".jpg", ".jpeg", *DICOM_ENDINGS):
        return only
    raster = [path for ending, path in endings.items() if ending in RASTER_ENDINGS + DICOM_ENDINGS]
    volumes = [path for path in endings.values() if path not in raster]
    if raster and volumes:
        found = f"pictures ({raster[0].name}) and volumes ({volumes[0].name}) are mixed"
        raise DataError("convert", found, "store images and labels in formats of one kind")
    if volumes:
        return ".nii.gz"
    return ".tif" if any(surveys[case.id].stack for case in sources) else ".png"


def write_case(item: Writing) -> None:
    """Writes the files of one case; those that need no change are copied, see `copy`."""
    write_images(item)
    if item.case.label is not None:
        _write_label(item, item.case.label, label_file(item))


def label_file(item: Writing) -> Path:
    """Where the label of a case is to be written."""
    return item.folder / f"labels{item.part}" / f"{item.case.id}{item.ending}"


def write_images(item: Writing) -> None:
    """Writes the image files of one case as `write_case` does, and no label."""
    images = item.folder / f"images{item.part}"
    number = 0
    for path, copied in zip(item.case.images, item.survey.copied, strict=True):
        if copied and _source_ending(path) == item.ending:
            copy(path, images / f"{item.case.id}_{number:04d}{item.ending}")
            number += 1
            continue
        image, geometry = read_source(path)
        one_file = item.ending in RASTER_ENDINGS
        for part in [image] if one_file else [image[index : index + 1] for index in range(len(image))]:
            write_image(images / f"{item.case.id}_{number:04d}{item.ending}", part, geometry)
            number += 1


def read_source(path: Path) -> tuple[np.ndarray[Any, Any], Geometry]:
    """The image (C, Z, Y, X) of a file of any format that a converter takes, and where it lies.

    Raises:
        FileProblem: as `read_image`.
    """
    if not _is_dicom(path):
        return read_image(path)
    from selfcfg.io import dicom  # noqa: PLC0415 - only DICOM files need SimpleITK

    return dicom.read_picture(path)


def copy(source: Path, target: Path) -> None:
    """Copies a file, without notes that may name a patient; not as a link: editing one never changes the other.

    Raises:
        SelfcfgError: the disk refused the bytes.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if (clean := without_notes(source)) is None:
            shutil.copyfile(source, target)
        else:
            target.write_bytes(clean)
        if target.name.lower().endswith(_TIFF):
            from selfcfg.io.tiff import read_spacing  # noqa: PLC0415 - only TIFF files need tifffile

            if beside := read_spacing(source):
                write_json(target.with_suffix(".json"), {"spacing": list(beside)})
    except OSError as error:
        raise refused(target, error) from error


def mapped(label: np.ndarray[Any, Any], label_map: Mapping[int, int]) -> np.ndarray[Any, Any]:
    """The label map with each original value replaced; every value must be in the map."""
    originals = np.array(sorted(label_map))
    targets = np.array([label_map[int(value)] for value in originals])
    result: np.ndarray[Any, Any] = targets[np.searchsorted(originals, label)]
    return result


def _is_dicom(path: Path) -> bool:
    return path.name.lower().endswith(DICOM_ENDINGS)


def _source_ending(path: Path) -> str:
    return path.suffix.lower() if _is_dicom(path) else ending_of(path)


def _write_label(item: Writing, source: Path, target: Path) -> None:
    unchanged = all(item.label_map.get(value, value) == value for value in item.survey.values)
    if unchanged and item.survey.label_copied and ending_of(source) == item.ending:
        copy(source, target)
        return
    _, geometry = read_image(source)
    write_label(target, mapped(_read_mask(source, item.threshold), item.label_map), geometry)


def _read_mask(path: Path, threshold: float | None) -> np.ndarray[Any, Any]:
    """The label map, or where `threshold` is given 1 above it and 0 elsewhere."""
    if threshold is None:
        return read_label(path)[0]
    image, _ = read_image(path)
    if len(image) > 1 and not (image == image[:1]).all():
        raise DataError(f"read {path}", f"a mask of {len(image)} different channels", "store it as one gray channel")
    mask: np.ndarray[Any, Any] = (image[0] > threshold).astype(np.uint8)
    return mask


def _is_plain(path: Path, image: np.ndarray[Any, Any]) -> bool:
    """Whether the file can stay as it is: one channel a volume; a gray or RGB picture without palette and alpha."""
    if _is_dicom(path):
        return False
    ending = ending_of(path)
    if ending not in RASTER_ENDINGS:
        return len(image) == 1
    if ending == ".bmp":
        return False  # what lies between and behind its parts is not looked at
    if ending in _TIFF:
        from selfcfg.io import tiff  # noqa: PLC0415

        return tiff.is_plain(path)
    from selfcfg.io import raster  # noqa: PLC0415

    return raster.is_plain(path)


def _is_plain_label(path: Path, label: np.ndarray[Any, Any]) -> bool:
    image, _ = read_image(path)
    return len(image) == 1 and image.dtype.kind in "ui" and _is_plain(path, image) and bool((image[0] == label).all())
