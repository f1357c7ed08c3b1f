"""What a user gives to predict: which files make a case, and whether it looks like what the model was trained on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from selfcfg.engine.data.store import CaseInfo
from selfcfg.errors import DataError, UsageError, nearest
from selfcfg.fingerprint import Fingerprint
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.image_files import FILE_ENDINGS, ending_in, refuse_names, stem_in
from selfcfg.io import read_header
from selfcfg.plan import Plan

SAMPLE = 200_000
"""Voxels of a channel that are looked at to judge its intensities."""

SPACING_FACTOR, EXTENT_FACTOR = 1.2, 1.5
"""How far beyond the range of the training cases spacing and extent may lie before a warning (our choice)."""

MEDIAN_SPACING_FACTOR, MEDIAN_EXTENT_FACTOR = 2.0, 3.0
"""The same where only the medians of the training cases are known (our choice)."""

USUAL_SHARE = 0.01
"""Share of an image's voxels that at least lie within the foreground intensities of training (our choice)."""

_AXES = ("z", "y", "x")


def find_inputs(
    path: Path | Sequence[Path], plan: Plan, file_ending: str | None = None
) -> Mapping[str, tuple[Path, ...]]:
    """The image files of each case, by case id.

    A folder holds either ``CASE_0000.ending``, ``CASE_0001.ending``, ... (one file a channel), or one file a case
    without such a number, which then holds every channel. A channel that is missing is listed all the same, so that
    reading just that case fails.

    Args:
        path: a file, the files of one case in the order of the channels, or a folder.
        plan: what the model expects.
        file_ending: the suffix to look for in a folder; by default the only one there is.

    Raises:
        UsageError: there is no such file or folder, or no image in it.
        DataError: the names can be understood in more than one way, or name channels the model does not have.
    """
    if not isinstance(path, Path):
        return _one_case(list(path), plan)
    if path.is_dir():
        return _folder(path, plan, file_ending)
    return _one_case([path], plan)


def label_ending(images: Sequence[Path]) -> str:
    """The suffix of the label map of a case: that of its image, but never a lossy one."""
    ending = ending_in(images[0].name) or ".nii.gz"
    return ".png" if ending in (".jpg", ".jpeg") else ending


def refuse_unfit(case: str, n_channels: int, geometry: Geometry, plan: Plan) -> None:
    """Nothing, where the network can take the image at all.

    Raises:
        DataError: another number of channels, or a 2D image for a model of volumes.
    """
    if n_channels != len(plan.channels):
        found = f"{n_channels} channels, the model was trained on {len(plan.channels)} ({', '.join(plan.channels)})"
        is_colour = plan.dimensions == 2 and len(plan.channels) == 1 and n_channels == 3
        remedy = "make the colour picture gray" if is_colour else "give all of them, in that order"
        raise DataError(f"predict case '{case}'", found, remedy)
    if plan.dimensions == 3 and geometry.dimensions == 2:
        raise DataError(f"predict case '{case}'", "a 2D image, the model was trained on volumes", "give a volume")


def doubts(image: npt.NDArray[np.float32], info: CaseInfo, plan: Plan, facts: Fingerprint | None = None) -> list[str]:
    """In words, each way in which the image lies outside of what the model was trained on, and by how much.

    Args:
        image: (C, Z, Y, X) as in the file.
        info: how the case was cut, for its shape without the empty margin.
        plan: the model's, with medians and foreground intensities of the training cases.
        facts: the training cases' fingerprint; without it, spacing and extent are compared with the medians.
    """
    found = [*_grid_doubts(info, plan, facts)]
    for index, channel in enumerate(image):
        found += _intensity_doubts(channel, index, plan)
    if plan.dimensions == 2 and info.geometry.shape[0] > 1:
        found.append(f"{info.geometry.shape[0]} slices, each predicted on its own: the model was trained on 2D images")
    return found


def _one_case(files: list[Path], plan: Plan) -> dict[str, tuple[Path, ...]]:
    if not files:
        raise UsageError("input", "no file was given", "give an image, one image per channel, or a folder")
    refuse_names([file.name for file in files], files[0].parent)
    for file in files:
        if not file.exists():
            raise UsageError(f"input {file}", "there is no such file or folder", "check the path")
        if file.is_dir():
            raise UsageError(f"input {file}", "a folder among files", "give either one folder or the files of one case")
        if ending_in(file.name) is None:
            hint = nearest(file.suffix, FILE_ENDINGS)
            raise UsageError(f"input {file}", "its suffix is of no supported format", hint)
    identifier, number = _split(files[0])
    numbers = [_split(file)[1] for file in files]
    same = len(files) > 1 and None not in numbers and len({_split(file)[0] for file in files}) == 1
    if same and numbers != sorted(numbers, key=lambda number: number or 0):
        names = ", ".join(file.name for file in files)
        raise UsageError("input", f"the numbers in {names} are not in order", "give the channels in ascending order")
    if len(files) == 1 and number:
        identifier = stem_in(files[0].name)
    return {identifier: tuple(files)}


def _folder(folder: Path, plan: Plan, file_ending: str | None) -> dict[str, tuple[Path, ...]]:
    files = _images(folder, file_ending)
    parts = {file: _split(file) for file in files}
    numbered = [file for file in files if parts[file][1] is not None]
    plain = [file for file in files if parts[file][1] is None]
    if numbered and plain:
        raise DataError(
            f"input {folder}",
            f"some names end in a channel number ({numbered[0].name}) and some do not ({plain[0].name})",
            "name all files CASE_0000, CASE_0001, ..., or none",
        )
    if plain:
        return _unnumbered(folder, plain, plan)
    groups: dict[str, dict[int, Path]] = {}
    for file in numbered:
        identifier, number = parts[file]
        groups.setdefault(identifier, {})[number or 0] = file
    _refuse_numbers(folder, groups, plan)
    return {identifier: _channels(identifier, group, plan) for identifier, group in groups.items()}


def _images(folder: Path, file_ending: str | None) -> list[Path]:
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        ending = ending_in(file.name)
        if ending and not file.name.startswith(".") and file.is_file() and file_ending in (None, ending):
            refuse_names([file.name], folder)
            files.setdefault(ending, []).append(file)
    if not files:
        wanted = file_ending or ", ".join(FILE_ENDINGS)
        raise UsageError(f"input {folder}", f"no image ({wanted}) in it", "give an image or a folder of images")
    if len(files) > 1:
        counts = " and ".join(f"{len(found)} {ending}" for ending, found in files.items())
        raise DataError(f"input {folder}", f"files of several formats: {counts}", "keep one format in the folder")
    return next(iter(files.values()))


def _unnumbered(folder: Path, files: list[Path], plan: Plan) -> dict[str, tuple[Path, ...]]:
    """One file a case; a look into the first tells whether a file can hold all channels."""
    n_channels = len(plan.channels)
    if n_channels > 1 and (found := read_header(files[0])[0]) != n_channels:
        raise DataError(
            f"input {folder}",
            f"{files[0].name} holds {found} channel(s), the model expects {n_channels} ({', '.join(plan.channels)})",
            "name the files CASE_0000, CASE_0001, ... by channel",
        )
    return {_split(file)[0]: (file,) for file in files}


def _refuse_numbers(folder: Path, groups: Mapping[str, Mapping[int, Path]], plan: Plan) -> None:
    known = f"the model has {len(plan.channels)} ({', '.join(plan.channels)})"
    remedy = "name files CASE_0000, CASE_0001, ... by channel; where the number belongs to the name, add _0000"
    for group in groups.values():
        for number, file in group.items():
            if number >= len(plan.channels):
                raise DataError(f"input {folder}", f"'{file.name}' ends like channel {number}, {known}", remedy)


def _channels(identifier: str, group: Mapping[int, Path], plan: Plan) -> tuple[Path, ...]:
    n_channels = len(plan.channels)
    first = next(iter(group.values()))
    if list(group) == [0] and n_channels > 1 and _n_channels(first) == n_channels:
        return (first,)
    ending = first.name.removeprefix(stem_in(first.name))
    return tuple(group.get(n, first.with_name(f"{identifier}_{n:04d}{ending}")) for n in range(n_channels))


def _n_channels(file: Path) -> int | None:
    """The channels a file holds; None where that cannot be told, so that reading the case says why."""
    try:
        return read_header(file)[0]
    except DataError:
        return None


def _split(file: Path) -> tuple[str, int | None]:
    """The case id and the channel number of a file name, None where it has none."""
    stem = stem_in(file.name)
    match = re.fullmatch(r"(.+)_(\d{4})", stem)
    return (match[1], int(match[2])) if match else (stem, None)


def _grid_doubts(info: CaseInfo, plan: Plan, facts: Fingerprint | None) -> Iterator[str]:
    is_picture = info.geometry.dimensions == 2 and info.geometry.spacing[1:] == (1.0, 1.0)
    unit = "pixels" if is_picture else "mm"
    for place, axis in enumerate(info.axis_order):
        if info.spacing[place] == FLAT_SPACING:
            continue
        name = _AXES[axis]
        extent = info.cropped_shape[place] * info.spacing[place]
        if facts is None:
            spacing, usual = plan.median_spacing[place], plan.median_shape[place] * plan.median_spacing[place]
            yield from _outside(f"spacing along {name}", info.spacing[place], [spacing], MEDIAN_SPACING_FACTOR, "mm")
            yield from _outside(f"extent along {name}", extent, [usual], MEDIAN_EXTENT_FACTOR, unit)
        else:
            spacings = [case[axis] for case in facts.spacings]
            extents = [shape[axis] * step for shape, step in zip(facts.shapes_after_crop, spacings, strict=True)]
            yield from _outside(f"spacing along {name}", info.spacing[place], spacings, SPACING_FACTOR, "mm")
            yield from _outside(f"extent along {name}", extent, extents, EXTENT_FACTOR, unit)


def _outside(what: str, value: float, known: Sequence[float], factor: float, unit: str) -> Iterator[str]:
    """Says by how much a value lies beyond the known ones, a single one being their median."""
    low, high = min(known), max(known)
    smallest, largest = ("median", "median") if len(known) == 1 else ("smallest", "largest")
    if value > high * factor:
        times, which, bound = f"{value / high:.2g} times", largest, high
    elif value < low / factor:
        times, which, bound = f"{low / value:.2g} times below", smallest, low
    else:
        return
    yield f"{what} is {value:.4g} {unit}, {times} the {which} of the training cases ({bound:.4g} {unit})"


def _intensity_doubts(channel: npt.NDArray[Any], index: int, plan: Plan) -> list[str]:
    name, usual = f"channel {index} ({plan.channels[index]})", plan.intensities[index]
    values = _sampled(channel)
    values = values[values != 0]
    if not values.size:
        return [f"{name} is zero everywhere"]
    low, high = np.percentile(values, (0.5, 99.5))
    if low == high:
        return [f"{name} is {low:g} everywhere"]
    found = []
    scheme = next(iter(plan.configurations.values())).normalization[index]
    if scheme == "ct" and channel.min() >= 0:
        found.append(f"{name} has no value below {channel.min():g}, but CT is expected in Hounsfield units (air -1000)")
    first, last = usual.percentile_00_5, usual.percentile_99_5
    share = float(np.mean((values >= first) & (values <= last)))
    if share < USUAL_SHARE:
        found.append(
            f"{share:.2%} of the voxels of {name} lie within the foreground intensities of training "
            f"({first:.4g} to {last:.4g}); here 99 % lie from {low:.4g} to {high:.4g}"
        )
    return found


def _sampled(channel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Some voxels, spread evenly; a fixed stride could fall on the same column of every row."""
    values = channel.reshape(-1)
    if values.size <= SAMPLE:
        return values
    places = np.arange(SAMPLE, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(values.size)
    sampled: npt.NDArray[Any] = values[places]
    return sampled
