"""Which label belongs to which image, by their file names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfcfg.convert.building import SourceCase
from selfcfg.errors import DataError, UsageError, listed
from selfcfg.image_files import image_files

_SAID_OF_FILES = frozenset(
    [
        "mask",
        "masks",
        "seg",
        "segmentation",
        "label",
        "labels",
        "gt",
        "groundtruth",
        "annotation",
        "image",
        "images",
        "img",
    ]
)
"""Words in a name that say what a file is, not whose it is."""

_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class Pairs:
    """What was paired, and the names of what was not.

    Args:
        cases: the pairs, sorted by id.
        lonely_images: ids of images without a label.
        lonely_labels: file names of labels without an image.
    """

    cases: tuple[SourceCase, ...]
    lonely_images: tuple[str, ...]
    lonely_labels: tuple[str, ...]


def pair(folders: Sequence[Path], labels: Path) -> Pairs:
    """The images of one folder (or of one folder a channel) with their labels.

    A label belongs to the image of the same name, suffix aside; else to the one whose name is the same without words
    such as "mask" and "image"; else to the one whose name it begins with, or that begins with its. Images of a single
    folder named CASE_0000, CASE_0001, ... are channels of one case, unless labels are named so too.

    Raises:
        UsageError: a folder is not there, or given twice.
        DataError: no pair was found, a pair is ambiguous (its candidates are named), or a channel is missing.
    """
    if len(set(folders)) < len(folders):
        raise UsageError("convert folder", "the same --images folder twice", "give one folder a channel")
    by_label = image_files(labels)
    images = _one_folder(folders[0], by_label) if len(folders) == 1 else _many_folders(folders)
    matches = {case: match(case, by_label) for case in images}
    _refuse_ambiguous(matches, labels)
    cases = tuple(
        SourceCase(case, images[case], by_label[found[0]]) for case, found in sorted(matches.items()) if found
    )
    if not cases:
        raise DataError(
            f"pair {folders[0]} with {labels}",
            f"no name fits: images such as {listed(images)}, labels such as {listed(by_label)}",
            "name labels like their images",
        )
    used = {case.label for case in cases}
    return Pairs(
        cases,
        tuple(case for case, found in sorted(matches.items()) if not found),
        tuple(path.name for path in by_label.values() if path not in used),
    )


def match(name: str, candidates: Mapping[str, Path]) -> list[str]:
    """The candidates that a name may belong to, by the first rule that finds any."""
    if name in candidates:
        return [name]
    own = _own_words(name)
    if own and (alike := [other for other in candidates if _own_words(other) == own]):
        return alike
    return [other for other in candidates if _begins(other, name) or _begins(name, other)]


def _one_folder(folder: Path, labels: Mapping[str, Path]) -> dict[str, tuple[Path, ...]]:
    files = image_files(folder)
    whole: dict[str, tuple[Path, ...]] = {stem: (path,) for stem, path in files.items()}
    if not all(_CHANNEL.fullmatch(stem) for stem in files):
        return whole
    groups: dict[str, dict[int, Path]] = {}
    for stem, path in files.items():
        case, number = _split(stem)
        groups.setdefault(case, {})[number] = path
    by_group, by_whole = set(groups) & set(labels), set(whole) & set(labels)
    if by_group and by_whole:
        raise DataError(
            f"read {folder}",
            f"labels fit both whole names ({min(by_whole)}) and names without channel number ({min(by_group)})",
            "name labels CASE and images CASE_0000, CASE_0001, ...",
        )
    if by_whole:
        return whole
    for case, channels in groups.items():
        if sorted(channels) != list(range(len(channels))):
            numbers = ", ".join(f"{number:04d}" for number in sorted(channels))
            raise DataError(f"case '{case}'", f"its channels are numbered {numbers}", "number them 0000, 0001, ...")
    return {case: tuple(channels[number] for number in sorted(channels)) for case, channels in groups.items()}


def _many_folders(folders: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    files = [image_files(folder) for folder in folders]
    found: dict[str, list[Path]] = {stem: [path] for stem, path in files[0].items()}
    problems = []
    for folder, others in zip(folders[1:], files[1:], strict=True):
        matches = {case: _match_channel(case, others) for case in found}
        _refuse_ambiguous(matches, folder)
        missing = [case for case, names in matches.items() if not names]
        taken = {name for names in matches.values() for name in names}
        if missing:
            problems.append(f"{folder} has no file of {listed(missing)}")
        if extra := [name for name in others if name not in taken]:
            problems.append(f"{folders[0]} has no file of {listed(extra)}, which {folder} has")
        for case, names in matches.items():
            found[case] += [others[name] for name in names]
    if problems:
        raise DataError("pair the channels", "; ".join(problems), "give every case one file in every --images folder")
    if all(_CHANNEL.fullmatch(case) for case in found) and len({_split(case)[0] for case in found}) == len(found):
        found = {_split(case)[0]: paths for case, paths in found.items()}
    return {case: tuple(paths) for case, paths in found.items()}


def _match_channel(case: str, others: Mapping[str, Path]) -> list[str]:
    """As `match`, with names that differ only in a channel number at their end."""
    if found := match(case, others):
        return found
    parts = _CHANNEL.fullmatch(case)
    return [name for name in others if parts and (other := _CHANNEL.fullmatch(name)) and other[1] == parts[1]]


def _split(stem: str) -> tuple[str, int]:
    parts = _CHANNEL.fullmatch(stem)
    return (parts[1], int(parts[2])) if parts else (stem, 0)


def _refuse_ambiguous(matches: Mapping[str, Sequence[str]], folder: Path) -> None:
    for case, names in matches.items():
        if len(names) > 1:
            found = f"{len(names)} files of {folder} may belong to it: {listed(names)}"
            raise DataError(f"case '{case}'", found, "name each file like its image")
    takers: dict[str, list[str]] = {}
    for case, names in matches.items():
        for name in names:
            takers.setdefault(name, []).append(case)
    for name, cases in takers.items():
        if len(cases) > 1:
            found = f"it may belong to {len(cases)} images: {listed(cases)}"
            raise DataError(f"file '{name}' of {folder}", found, "name each file like its image")


def _own_words(name: str) -> list[str]:
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    return [word for word in words if word not in _SAID_OF_FILES]


def _begins(longer: str, shorter: str) -> bool:
    return longer.startswith(shorter) and not longer[len(shorter) : len(shorter) + 1].isalnum()
