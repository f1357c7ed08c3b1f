"""What is wrong or suspicious when the cases of a dataset are seen together."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from selfcfg.dataset import Case, DatasetDescription
from selfcfg.engine.checks.case import CaseFacts
from selfcfg.engine.checks.findings import Finding, Kind, Severity
from selfcfg.errors import DataError, listed
from selfcfg.geometry import Geometry
from selfcfg.splits import read_splits, refuse_leakage

_OUTLIER = 10.0
"""How many times the median a spacing may be, or the median it."""

_PLAUSIBLE_MM = (0.001, 30.0)

_MANY = 5
"""The same remark about more cases than this is made once."""

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def together_findings(
    root: Path,
    description: DatasetDescription,
    cases: Sequence[Case],
    facts: Sequence[CaseFacts],
    test_facts: Sequence[CaseFacts] = (),
) -> list[Finding]:
    """Mixed dimensions, outlying spacings, suspicious headers, absent classes, duplicates, and problems of splits.

    Args:
        root: the dataset folder.
        description: its dataset.json.
        cases: all its cases.
        facts: of those cases that could be looked at.
        test_facts: of test cases, whose images are only told apart from those of the cases.
    """
    places = {fact.case: fact.geometry for fact in facts if fact.geometry is not None}
    volumes = {case: place for case, place in places.items() if place.dimensions == 3}
    findings = _dimensions(places)
    findings += _spacings(volumes)
    findings += _headers(facts, volumes)
    findings += _orientations(volumes)
    findings += _classes(description, facts)
    findings += _intensities(description, facts)
    findings += _duplicates(cases, facts)
    findings += _seen_before(facts, test_facts)
    findings += _splits(root, cases, facts)
    return findings


def _dimensions(places: Mapping[str, Geometry]) -> list[Finding]:
    flat = {case: place.shape[0] == 1 for case, place in places.items()}
    n_flat = sum(flat.values())
    if n_flat in (0, len(flat)):
        return []
    odd = n_flat <= len(flat) / 2
    majority = f"{max(n_flat, len(flat) - n_flat)} of {len(flat)} cases"
    what = "one slice" if odd else "several slices"
    return [
        Finding(
            case=case,
            file="",
            kind="dimensions",
            found=f"{what}, shape {places[case].shape}, unlike {majority}",
            remedy="train on flat images and on volumes in separate datasets",
        )
        for case, is_flat in flat.items()
        if is_flat == odd
    ]


def _spacings(volumes: Mapping[str, Geometry]) -> list[Finding]:
    if not volumes:
        return []
    medians = [statistics.median(place.spacing[axis] for place in volumes.values()) for axis in range(3)]
    remarks = {}
    for case, place in volumes.items():
        ratios = [side / median for side, median in zip(place.spacing, medians, strict=True)]
        text = "x".join(f"{side:g}" for side in place.spacing)
        if max(ratios) > _OUTLIER or min(ratios) < 1 / _OUTLIER:
            median = "x".join(f"{side:g}" for side in medians)
            remarks[case] = f"spacing {text} mm, while the median over the dataset is {median} mm"
        elif not all(_PLAUSIBLE_MM[0] <= side <= _PLAUSIBLE_MM[1] for side in place.spacing):
            remarks[case] = f"spacing {text} mm is hardly that of a medical image"
    return _remarks("spacing outlier", remarks, "check the header's spacing and its unit")


def _headers(facts: Sequence[CaseFacts], volumes: Mapping[str, Geometry]) -> list[Finding]:
    by_doubt: dict[str, list[str]] = {}
    for fact in facts:
        for doubt in fact.doubts:
            by_doubt.setdefault(doubt, []).append(fact.case)
    findings = []
    for doubt, names in by_doubt.items():
        remarks = dict.fromkeys(names, doubt)
        findings += _remarks("header", remarks, "compare with the scanner's own data, or export it again")
    doubted = {fact.case for fact in facts if fact.doubts}
    blank = [case for case, place in volumes.items() if _is_blank(place) and case not in doubted]
    text = "spacing 1x1x1 mm, origin 0 and no rotation: the header may have been lost"
    findings += _remarks("header", dict.fromkeys(blank, text), "check the spacing with the scanner's own data")
    return findings


def _is_blank(place: Geometry) -> bool:
    return place.spacing == (1.0, 1.0, 1.0) and not any(place.origin) and place.direction == _IDENTITY


def _orientations(volumes: Mapping[str, Geometry]) -> list[Finding]:
    groups: dict[str, list[str]] = {}
    for case, place in volumes.items():
        groups.setdefault(place.orientation, []).append(case)
    if len(groups) < 2:
        return []
    ranked = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    text = "; ".join(f"{code} in {len(names)} cases ({listed(names, 3)})" for code, names in ranked)
    found = f"array axes (z, y, x) point to different sides: {text}"
    remedy = "harmless if it is meant; else reorient the odd ones, images and labels alike"
    return [_about("orientation", found, remedy)]


def _classes(description: DatasetDescription, facts: Sequence[CaseFacts]) -> list[Finding]:
    present = {value for fact in facts for value, count in fact.values.items() if count}
    schema = description.schema_of_labels
    absent = [
        f"'{name}' ({', '.join(map(str, values))})"
        for name, values in schema.targets.items()
        if not present.intersection(values)
    ]
    if not absent or not present:
        return []
    found = f"declared, but in no label: {listed(absent, 10)}"
    return [_about("absent class", found, "mend labels in dataset.json, or add cases that show it", "dataset.json")]


def _intensities(description: DatasetDescription, facts: Sequence[CaseFacts]) -> list[Finding]:
    findings = []
    for index, name in enumerate(description.channels):
        ranges = [fact.ranges[index] for fact in facts if len(fact.ranges) > index]
        ranges = [(low, high) for low, high in ranges if math.isfinite(low)]
        if name.lower() == "ct" and ranges and all(low >= 0 and high <= 255 for low, high in ranges):
            top = max(high for _, high in ranges)
            found = f"channel '{name}' lies between {min(low for low, _ in ranges):g} and {top:g} in every case"
            remedy = "these are not Hounsfield units: export them, or give the channel another name"
            findings.append(_about("intensities", found, remedy))
    return findings


def _duplicates(cases: Sequence[Case], facts: Sequence[CaseFacts]) -> list[Finding]:
    subjects = {case.id: case.subject for case in cases}
    groups: dict[str, list[str]] = {}
    for fact in facts:
        if fact.voxel_hash is not None:
            groups.setdefault(fact.voxel_hash, []).append(fact.case)
    findings = []
    for first, *others in groups.values():
        for other in others:
            same = subjects[first] == subjects[other]
            finding = Finding(
                case=other,
                file="",
                kind="duplicate image",
                found=f"the same voxels as case '{first}'" + ("" if same else ", of another subject"),
                remedy="remove one of the two" + ("" if same else ", or give both one subject"),
                severity="warning" if same else "error",
            )
            findings.append(finding)
    return findings


def _seen_before(facts: Sequence[CaseFacts], test_facts: Sequence[CaseFacts]) -> list[Finding]:
    """Test images that are trained on too, or on another grid than every image that is."""
    known = {fact.voxel_hash: fact.case for fact in facts if fact.voxel_hash is not None}
    dimensions = {fact.geometry.dimensions for fact in facts if fact.geometry is not None}
    findings = []
    for fact in test_facts:
        found: list[tuple[Kind, str, str]] = []
        if fact.voxel_hash in known:
            text = f"the same voxels as training case '{known[fact.voxel_hash]}': scores on it will be too good"
            found.append(("duplicate image", text, "remove one of the two"))
        if fact.geometry is not None and dimensions and fact.geometry.dimensions not in dimensions:
            text = f"it has {fact.geometry.dimensions} dimensions, no training case has"
            found.append(("dimensions", text, "it cannot be predicted: test on images like those trained on"))
        findings += [
            Finding(case=fact.case, file="", kind=kind, found=text, remedy=remedy, severity="warning")
            for kind, text, remedy in found
        ]
    return findings


def _splits(root: Path, cases: Sequence[Case], facts: Sequence[CaseFacts]) -> list[Finding]:
    file = root / "splits_final.json"
    if not file.is_file():
        return []
    try:
        splits = read_splits(file, [case.id for case in cases])
    except DataError as error:
        return [Finding(case="", file=file.name, kind="splits", found=error.found, remedy=error.remedy)]
    hashes = {fact.case: fact.voxel_hash for fact in facts if fact.voxel_hash is not None}
    try:
        refuse_leakage(splits, {case.id: case.subject for case in cases}, hashes)
    except DataError as error:
        found = f"{error.asked}: {error.found}"
        return [Finding(case="", file=file.name, kind="leakage", found=found, remedy=error.remedy)]
    return []


def _remarks(kind: Kind, remarks: Mapping[str, str], remedy: str) -> list[Finding]:
    """One warning a case, or a single one about all of them where they are many."""
    if len(remarks) > _MANY:
        counts = Counter(remarks.values())
        text, count = counts.most_common(1)[0]
        similar = "" if count == len(remarks) else "such as "
        found = f"{len(remarks)} cases ({listed(remarks, 3)}): {similar}{text}"
        return [_about(kind, found, remedy)]
    return [
        Finding(case=case, file="", kind=kind, found=text, remedy=remedy, severity="warning")
        for case, text in remarks.items()
    ]


def _about(kind: Kind, found: str, remedy: str, file: str = "", severity: Severity = "warning") -> Finding:
    return Finding(case="", file=file, kind=kind, found=found, remedy=remedy, severity=severity)
