"""Everything that would make training on a dataset go wrong, found in one pass over all its cases."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from selfcfg.dataset import TEST_IMAGES, Case, DatasetDescription, find_cases, find_test_cases
from selfcfg.engine.checks.case import CaseFacts, CaseItem, inspect_case, relative
from selfcfg.engine.checks.findings import Finding, order
from selfcfg.engine.checks.layout import layout_findings
from selfcfg.engine.checks.targets import target_findings
from selfcfg.engine.checks.together import together_findings
from selfcfg.errors import DataError, SelfcfgError
from selfcfg.files import read_json
from selfcfg.fixes import FIXES_FILE, Fixes, GeometryFix
from selfcfg.io.images import read_header
from selfcfg.parallel import run_cases
from selfcfg.progress import progress

__all__ = ["Finding", "check", "write_fixes"]

_SMALL = 32 << 20
"""Bytes of image files below which starting worker processes takes longer than the look itself."""

_LOOKED_AT = {*DatasetDescription.model_fields, "modality"} - {"image_targets"}
"""Keys of dataset.json that are kept where others are wrong, so that the cases are looked at all the same."""

_BYTES_A_VOXEL = 16
"""What looking at an image may need: the stored voxels, a float copy, masks."""


def check(root: Path, jobs: int, *, test_images: bool = True) -> list[Finding]:
    """Every finding of every case of the dataset in folder `root`, the dataset's own first; empty when all is well.

    Every file is decompressed to its end and compared with its checksums and its header; one bad case never stops the
    look at the others. No file is written.

    Args:
        root: the dataset folder, with its dataset.json.
        jobs: worker processes.
        test_images: also look at those in imagesTs; what is found there is a warning.
    """
    findings: list[Finding] = []
    description = _description(root, findings)
    if description is None:
        return findings
    cases = find_cases(root, description)
    fixes = _fixes(root, findings)
    findings += layout_findings(root, description, cases)
    tests = find_test_cases(root, description) if test_images else ()
    findings += target_findings(description, [case.id for case in cases], [case.id for case in tests])
    looked_at = _inspect(root, description, (*cases, *tests), fixes, jobs)
    findings += [finding for fact in looked_at for finding in fact.findings]
    facts, test_facts = looked_at[: len(cases)], looked_at[len(cases) :]
    findings += together_findings(root, description, cases, facts, test_facts)
    return sorted(findings, key=order)


def write_fixes(root: Path, findings: list[Finding]) -> list[Finding]:
    """The findings that it settled by recording them in fixes.json: headers that differ by rounding.

    From then on such a file is taken to lie where its case's first channel lies, as long as its header stays as it is.
    No image is changed; earlier records are kept.

    Raises:
        SelfcfgError: dataset.json or fixes.json cannot be read, or fixes.json cannot be written.
    """
    drifted = [finding for finding in findings if finding.kind == "geometry drift"]
    if not drifted:
        return []
    description = DatasetDescription.read(root / "dataset.json")
    cases = {case.id: case for case in find_cases(root, description)}
    recorded = dict(Fixes.of(root).geometry)
    for finding in drifted:
        fix = _fix(root, cases[finding.case], finding)
        kept = [old for old in recorded.get(finding.case, ()) if old.channel != fix.channel]
        recorded[finding.case] = (*kept, fix)
    Fixes(geometry=dict(sorted(recorded.items()))).write(root / FIXES_FILE)
    return drifted


def _description(root: Path, findings: list[Finding]) -> DatasetDescription | None:
    """The dataset's description; with a misspelt key, what is left without it, so that the cases are looked at too."""
    file = root / "dataset.json"
    try:
        content = read_json(file)
    except DataError as error:
        findings.append(_about_description(error))
        return None
    try:
        return DatasetDescription.parse(content, str(file))
    except DataError as error:
        findings.append(_about_description(error))
    if not isinstance(content, dict):
        return None
    known: dict[str, Any] = {key: value for key, value in content.items() if key in _LOOKED_AT}
    try:
        return DatasetDescription.parse(known, str(file))
    except DataError:
        return None


def _about_description(error: DataError) -> Finding:
    return Finding(case="", file="dataset.json", kind="description", found=error.found, remedy=error.remedy)


def _fixes(root: Path, findings: list[Finding]) -> Fixes:
    try:
        return Fixes.of(root)
    except DataError as error:
        remedy = f"remove {FIXES_FILE} and run: selfcfg check --fix"
        findings.append(Finding(case="", file=FIXES_FILE, kind="fixes", found=error.found, remedy=remedy))
        return Fixes()


def _inspect(
    root: Path, description: DatasetDescription, cases: tuple[Case, ...], fixes: Fixes, jobs: int
) -> list[CaseFacts]:
    """What was found of every case, in the order of the cases."""
    schema = description.schema_of_labels
    items = {
        case.id: CaseItem(
            root, case, len(description.channels), schema, fixes, is_test=case.id.startswith(f"{TEST_IMAGES}/")
        )
        for case in cases
    }
    found: dict[str, CaseFacts] = {}
    jobs = jobs if _total_bytes(cases) > _SMALL else 1
    with progress("check", len(items)) as step:
        for name, result in run_cases(inspect_case, items, jobs=jobs, doing="check", memory=_memory):
            found[name] = _died(name, result) if isinstance(result, SelfcfgError) else result
            step(name)
    return [found[case.id] for case in cases]


def _died(case: str, error: SelfcfgError) -> CaseFacts:
    finding = Finding(case=case, file="", kind="worker died", found=error.found, remedy=error.remedy)
    return CaseFacts(case, [finding])


def _total_bytes(cases: tuple[Case, ...]) -> int:
    return sum(path.stat().st_size for case in cases for path in case.images if path.is_file())


def _memory(item: CaseItem) -> int:
    """An estimate of the bytes that a look at a case needs; 0 where a header cannot be read."""
    total = 0
    for path in item.case.images:
        try:
            n_channels, geometry = read_header(path)
        except SelfcfgError:
            continue
        total = max(total, n_channels * math.prod(geometry.shape) * _BYTES_A_VOXEL)
    return total


def _fix(root: Path, case: Case, finding: Finding) -> GeometryFix:
    files: dict[str, int | None] = {relative(root, path): index for index, path in enumerate(case.images)}
    paths = {relative(root, path): path for path in case.images}
    if case.label is not None:
        files[relative(root, case.label)] = None
        paths[relative(root, case.label)] = case.label
    _, reference = read_header(case.images[0])
    _, own = read_header(paths[finding.file])
    return GeometryFix(
        file=finding.file, channel=files[finding.file], found=own, used=reference, difference=finding.found
    )
