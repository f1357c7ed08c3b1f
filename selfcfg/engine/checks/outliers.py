"""Cases that stand out: far from the others in spacing, shape or volume, or without some class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from selfcfg.engine.checks.findings import MAX_NAMED, Caution
from selfcfg.errors import counted, listed
from selfcfg.fingerprint import CaseFingerprint
from selfcfg.plan import Plan

FAR_OUT = 3.0
"""Quartile ranges beyond the quartiles from which a case is an outlier. Source: Tukey 1977, "far out" values."""
MATTERS = 0.2
"""Least relative distance from the median of an outlier, so that tiny differences in regular data are not named."""
FEW_VOXELS = 10
AXES = "zyx"
NOT_ANNOTATED = "not annotated (ignore)"


def odd_cases(plan: Plan, cases: Sequence[CaseFingerprint]) -> list[Caution]:
    """Notes on single cases to look at; empty where none stands out."""
    found: list[Caution] = []
    for axis in (1, 2) if plan.dimensions == 2 else (0, 1, 2):
        if plan.dimensions == 3:
            found += _far_out(f"spacing along {'zyx'[axis]}", "mm", {case.case: case.spacing[axis] for case in cases})
        shapes = {case.case: float(case.shape_after_crop[axis]) for case in cases}
        found += _far_out(f"size along {'zyx'[axis]}", "voxels", shapes)
    unusual: list[Caution] = []
    for name, in_case in volumes(plan, cases).items():
        present = {case: volume for case, volume in in_case.items() if volume > 0}
        unusual += _far_out(f"volume of '{name}'", unit_of_volume(plan), present)
    return [*found, *_first(unusual, "have cases of unusual volume"), *_absent(plan, cases)]


def volumes(plan: Plan, cases: Sequence[CaseFingerprint]) -> dict[str, dict[str, float]]:
    """The volume of each class in each labelled case: ml, or per cent of a picture."""
    scale = {
        case.case: 100 / np.prod(case.shape) if plan.dimensions == 2 else np.prod(case.spacing) / 1000 for case in cases
    }
    targets = plan.labels.targets
    if plan.labels.ignore is not None:
        targets |= {NOT_ANNOTATED: (plan.labels.ignore,)}
    return {
        name: {
            case.case: float(sum(case.voxels.get(value, 0) for value in values) * scale[case.case])
            for case in cases
            if case.voxels
        }
        for name, values in targets.items()
    }


def unit_of_volume(plan: Plan) -> str:
    """The unit of `volumes`."""
    return "% of the picture" if plan.dimensions == 2 else "ml"


def _far_out(what: str, unit: str, values: Mapping[str, float]) -> Iterator[Caution]:
    """The values far from the others, as ratios: half is as far as twice."""
    if not values:
        return
    logarithms = {name: float(np.log(value)) for name, value in values.items()}
    low, middle, high = np.percentile(list(logarithms.values()), [25, 50, 75]).tolist()
    reach = FAR_OUT * (high - low)
    distance = {
        name: abs(value - middle)
        for name, value in logarithms.items()
        if not low - reach <= value <= high + reach and abs(value - middle) > np.log(1 + MATTERS)
    }
    if distance:
        odd = sorted(distance, key=lambda name: -distance[name])
        named = listed([f"{name} ({values[name]:.4g})" for name in odd], MAX_NAMED)
        yield _note(f"unusual {what} (median {np.median(list(values.values())):.4g} {unit}): {named}", odd)


def _absent(plan: Plan, cases: Sequence[CaseFingerprint]) -> list[Caution]:
    """Classes that some case lacks, together where the same cases lack them, or has almost nothing of."""
    without: dict[tuple[str, ...], list[str]] = {}
    tiny: list[Caution] = []
    for name, values in plan.labels.targets.items():
        counts = {case.case: sum(case.voxels.get(value, 0) for value in values) for case in cases if case.voxels}
        if lacking := tuple(case for case, count in counts.items() if count == 0):
            without.setdefault(lacking, []).append(f"'{name}'")
        if few := [case for case, count in counts.items() if 0 < count < FEW_VOXELS]:
            tiny.append(_note(f"fewer than {FEW_VOXELS} voxels of '{name}': {listed(few, MAX_NAMED)}", few))
    absent = [
        _note(
            f"no {listed(names, MAX_NAMED)} in {counted(len(lacking), 'case')}: {listed(lacking, MAX_NAMED)}", lacking
        )
        for lacking, names in without.items()
    ]
    return [*_first(absent, "are missing in some cases"), *_first(tiny, "have cases with hardly a voxel of them")]


def _first(notes: Sequence[Caution], what: str) -> list[Caution]:
    """The first few notes about classes, and how many more there are."""
    shown, rest = list(notes[:MAX_NAMED]), notes[MAX_NAMED:]
    odd = [case for note in rest for case in note.cases]
    return [*shown, *([_note(f"more classes {what}, as the table of classes shows", odd)] if rest else [])]


def _note(text: str, cases: Sequence[str]) -> Caution:
    return Caution(kind="odd cases", text=text, cases=tuple(dict.fromkeys(cases)), severity="note")
