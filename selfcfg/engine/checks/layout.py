"""What is wrong with a dataset's folder and its dataset.json, seen without reading an image."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from selfcfg.dataset import TEST_IMAGES, Case, DatasetDescription, channel_files, find_test_cases
from selfcfg.engine.checks.case import relative
from selfcfg.engine.checks.findings import Finding, Kind, Severity
from selfcfg.image_files import ending_in

_NORMALISED_BY_NAME = ("CT", "noNorm", "zscore", "rescale_to_0_1", "rgb_to_0_1")
"""Channel names that choose a normalisation; any other name means z-score."""

_MANY = 10
"""More findings of one kind than this are told as one."""

_TRAINING_SIDE = ("imagesTr", "labelsTr")


def layout_findings(root: Path, description: DatasetDescription, cases: tuple[Case, ...]) -> list[Finding]:
    """Orphans, misnamed files, paths that leave the dataset, wrong counts, and doubtful names in dataset.json."""
    findings = _description_findings(description, cases)
    findings += _outside(root, cases)
    if description.dataset:
        return findings
    ids = {case.id for case in cases}
    findings += _images(root, description)
    findings += _labels(root, description, ids)
    findings += _test_images(root, description)
    return findings


def _description_findings(description: DatasetDescription, cases: tuple[Case, ...]) -> list[Finding]:
    findings = []
    if not cases:
        text = "no training case was found"
        findings.append(_about("count", text, "put images into imagesTr as CASE_0000.ending and labels into labelsTr"))
    elif description.numTraining != len(cases):
        text = f"numTraining is {description.numTraining}, but there are {len(cases)} cases"
        findings.append(_about("count", text, "add the missing cases, or mend numTraining"))
    for key in description.unknown_keys:
        text = f"unknown key '{key}'"
        findings.append(_about("description", text, "remove it, or check its spelling", "warning"))
    for name in description.channels:
        close = difflib.get_close_matches(name.strip().lower(), [n.lower() for n in _NORMALISED_BY_NAME], 1, cutoff=0.7)
        if close and name.lower() != close[0]:
            meant = next(known for known in _NORMALISED_BY_NAME if known.lower() == close[0])
            text = f"channel '{name}' is normalised by z-score; only the exact name '{meant}' chooses that scheme"
            findings.append(_about("channel names", text, f"rename it to '{meant}' if that is meant", "warning"))
    subjects = {case.subject for case in cases}
    if len(subjects) == 1 and len(cases) > 1:
        text = f"all {len(cases)} cases belong to subject '{next(iter(subjects))}', so no folds can be made"
        findings.append(_about("splits", text, "mend selfcfg.subjects in dataset.json, or add other subjects"))
    return findings


def _outside(root: Path, cases: tuple[Case, ...]) -> list[Finding]:
    """Files that do not lie in the dataset's folder: allowed, but they do not move with it."""
    inside = root.resolve()
    found: list[tuple[Case, Path]] = []
    for case in cases:
        for path in (*case.images, *((case.label,) if case.label is not None else ())):
            if not path.resolve().is_relative_to(inside):
                found.append((case, path))
    remedy = "make sure that it is meant, and that the file stays there"
    if len(found) > _MANY:
        text = f"{len(found)} files lie outside the dataset, such as {found[0][1]} at {found[0][1].resolve()}"
        return [Finding(case="", file="", kind="outside", found=text, remedy=remedy, severity="warning")]
    return [
        Finding(
            case=case.id,
            file=relative(root, path),
            kind="outside",
            found=f"it lies outside the dataset, at {path.resolve()}",
            remedy=remedy,
            severity="warning",
        )
        for case, path in found
    ]


def _images(root: Path, description: DatasetDescription) -> list[Finding]:
    ending = description.file_ending
    channels = channel_files(root / "imagesTr", ending)
    findings = _misnamed(root, "imagesTr", {path for files in channels.values() for path in files.values()}, ending)
    for case, files in channels.items():
        if sorted(files) != list(range(len(files))) and len(files) >= len(description.channels):
            text = f"channel files are numbered {', '.join(f'{number:04d}' for number in sorted(files))}"
            file = relative(root, files[min(files)])
            remedy = "number them 0000, 0001, ... without a gap"
            findings.append(Finding(case=case, file=file, kind="channels", found=text, remedy=remedy))
    return findings


def _misnamed(root: Path, folder: str, known: set[Path], ending: str, severity: Severity = "error") -> list[Finding]:
    findings = []
    for path in _visible(root / folder):
        if path not in known and _is_image(path):
            text = f"it is not named CASE_0000{ending}, so it is not used"
            finding = Finding(
                case=path.name[: -len(ending)] if path.name.endswith(ending) else path.stem,
                file=relative(root, path),
                kind="orphan",
                found=text,
                remedy="rename it, convert it to the dataset's format, or move it away",
                severity=severity,
            )
            findings.append(finding)
    return findings


def _labels(root: Path, description: DatasetDescription, ids: set[str]) -> list[Finding]:
    ending = description.label_ending
    findings = []
    for path in _visible(root / "labelsTr"):
        name = path.name.removesuffix(ending) if path.name.endswith(ending) else None
        if name in ids or not _is_image(path):
            continue
        if name is None:
            text, remedy = (
                f"it is not named CASE{ending}, so it is not used",
                "convert it to that format, or move it away",
            )
        else:
            text, remedy = (
                "a label without images",
                f"put {name}_0000{description.file_ending} into imagesTr, or move it away",
            )
        finding = Finding(case=name or path.stem, file=relative(root, path), kind="orphan", found=text, remedy=remedy)
        findings.append(finding)
    return findings


def _test_images(root: Path, description: DatasetDescription) -> list[Finding]:
    known = {path for case in find_test_cases(root, description) for path in case.images}
    return _misnamed(root, TEST_IMAGES, known, description.file_ending, "warning")


def _about(kind: Kind, found: str, remedy: str, severity: Severity = "error", file: str = "dataset.json") -> Finding:
    return Finding(case="", file=file, kind=kind, found=found, remedy=remedy, severity=severity)


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith(".") and not entry.is_dir()
    )


def _is_image(path: Path) -> bool:
    return ending_in(path.name) is not None
