"""What of a dataset breaks rules that take medians over its cases, and what may be meant: read it before training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from selfcfg.engine.checks.findings import MAX_NAMED, Caution
from selfcfg.engine.checks.outliers import odd_cases
from selfcfg.engine.checks.scales import mixed_scales
from selfcfg.errors import counted, listed
from selfcfg.fingerprint import CaseFingerprint, Fingerprint
from selfcfg.geometry import times
from selfcfg.plan import Plan

APART = 2.0
"""Ratio between neighbouring spacings from which they are two groups: the largest that a U-Net treats as equal."""
GROUP_SHARE = 0.2
"""Least share of the cases, two at least, that is a group; fewer are outliers."""
INTERPOLATED = 4.0
"""Voxels made of one, in most cases, from which resampling invents the data. The published plans of the Medical
Segmentation Decathlon, which train well, reach 3.3 (hepatic vessels: 5 mm to 1.5 mm)."""
DISCARDED = 3.0
"""Voxels made into one, in a quarter of the cases, from which resampling throws detail away: where nnU-Net's rule for
thick slices leaves the median."""
RESOLVED = 2.0
"""Voxels across a structure below which it may be lost (Shannon 1949: two samples for the finest detail)."""
COARSENED = 1.5
"""Ratio of target to own spacing below which a thin structure is not the target's doing."""
AXES = "zyx"
DIRECTIONS = {
    "L": "left",
    "R": "right",
    "P": "posterior",
    "A": "anterior",
    "S": "superior",
    "I": "inferior",
}
LINES = dict.fromkeys("LR", "left-right") | dict.fromkeys("AP", "anterior-posterior")
LINES |= dict.fromkeys("SI", "superior-inferior")


def cautions(plan: Plan, facts: Fingerprint) -> list[Caution]:
    """What breaks medians or misleads the network, then notes on what may be meant; no warnings for ordinary data.

    Args:
        plan: what was decided.
        facts: what it was decided from; without per-case values (nnU-Net's) only spacings and labels are looked at.
    """
    found = [
        *_spacings(plan, facts),
        *_thin(plan, facts.cases),
        *_orientations(plan, facts.cases),
        *_sides(plan, facts),
        *mixed_scales(plan, facts.cases),
        *odd_cases(plan, facts.cases),
    ]
    return sorted(found, key=lambda caution: caution.severity == "note")


def target_by_axis(plan: Plan) -> dict[int, float]:
    """The spacing in mm that images are resampled to by default, by axis of the files (0 = z); 2D networks have two."""
    anything = next(iter(plan.configurations.values()))
    chosen = plan.configurations.get(plan.default_configuration, anything)
    return dict(sorted(zip(plan.axis_order[3 - chosen.dimensions :], chosen.spacing, strict=True)))


def _spacings(plan: Plan, facts: Fingerprint) -> Iterator[Caution]:
    """Spacings in groups far apart; else a target much finer or coarser than what many cases have."""
    names = [case.case for case in facts.cases] or [""] * facts.n_cases
    targets = target_by_axis(plan)
    alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for axis in targets:
        found = _groups([spacing[axis] for spacing in facts.spacings])
        if len(found) > 1:
            alike.setdefault(tuple(found), []).append(axis)
    for groups, axes in alike.items():
        yield _grouped(axes, groups, facts, targets, names)
    grouped = {axis for axes in alike.values() for axis in axes}
    for axis in targets:
        if axis not in grouped:
            yield from _far_target(axis, facts, targets, names)


def _groups(values: Sequence[float]) -> list[tuple[int, ...]]:
    """The indices of values that lie close together, group by group in ascending order; outliers are in none."""
    order = np.argsort(values, kind="stable")
    ordered = np.array(values)[order]
    gaps = np.flatnonzero(ordered[1:] >= APART * ordered[:-1]) + 1
    least = max(2, GROUP_SHARE * len(values))
    return [tuple(group.tolist()) for group in np.split(order, gaps) if len(group) >= least]


def _grouped(
    axes: Sequence[int],
    groups: Sequence[Sequence[int]],
    facts: Fingerprint,
    targets: dict[int, float],
    names: Sequence[str],
) -> Caution:
    axis = axes[0]
    along = [[facts.spacings[index][axis] for index in group] for group in groups]
    parts = [
        f"{_range(values)} in {counted(len(values), 'case')}{_named([names[index] for index in group])}"
        for values, group in zip(along, groups, strict=True)
    ]
    near = [min(values) / APART**0.5 <= targets[axis] <= max(values) * APART**0.5 for values in along]
    suits = "which suits only one group" if any(near) else "which is near none of them"
    where = " and ".join(AXES[side] for side in axes)
    other, why = (groups[0], "keeps all detail") if near[-1] else (groups[-1], "needs no invented detail")
    option = _option(
        targets | {side: float(np.median([facts.spacings[index][side] for index in other])) for side in axes}
    )
    return Caution(
        kind="spacing",
        text=f"the spacings along {where} are {len(groups)} groups far apart: {', '.join(parts)}. All are resampled to "
        f"{targets[axis]:.3g} mm, {suits}",
        remedy=f"choose on purpose ({option} {why}), or make a dataset of each group",
        cases=tuple(filter(None, (names[index] for index in min(groups, key=len)))),
    )


def _far_target(axis: int, facts: Fingerprint, targets: dict[int, float], names: Sequence[str]) -> Iterator[Caution]:
    spacings = np.array([spacing[axis] for spacing in facts.spacings])
    target, n = targets[axis], len(spacings)
    median = float(np.median(spacings))
    coarser = np.flatnonzero(spacings >= INTERPOLATED * target).tolist()
    finer = np.flatnonzero(DISCARDED * spacings <= target).tolist()
    if len(coarser) > n / 2:
        yield Caution(
            kind="resampling",
            text=f"the target of {target:.3g} mm along {AXES[axis]} is far finer than what {len(coarser)} of {n} cases "
            f"have (median {median:.3g} mm): most of what the network sees there is interpolated",
            remedy=f"{_option(targets | {axis: median})} takes the median",
            cases=tuple(filter(None, (names[index] for index in coarser))),
        )
    elif len(finer) >= n / 4:
        fine = float(np.median(spacings[finer]))
        yield Caution(
            kind="resampling",
            text=f"the target of {target:.3g} mm along {AXES[axis]} is far coarser than the {fine:.3g} mm of "
            f"{len(finer)} of {n} cases{_named([names[index] for index in finer])}: their detail is thrown away",
            remedy=f"{_option(targets | {axis: fine})} keeps it, at the price of larger images",
            cases=tuple(filter(None, (names[index] for index in finer))),
        )


def _thin(plan: Plan, cases: Sequence[CaseFingerprint]) -> Iterator[Caution]:
    """Classes with hardly two voxels across them in most cases: at the target spacing, or in the files already."""
    if plan.labels.ignore is not None:
        return  # strokes on a part of a structure say nothing about how thick it is
    lost: list[str] = []
    fine: dict[str, list[str]] = {}
    for name, values in plan.labels.targets.items():
        for axis, target in target_by_axis(plan).items():
            sides = [(max(found), case.spacing[axis]) for case in cases if (found := _across(case, values, axis))]
            if not sides:
                continue
            across, own = np.array(sides).T
            text = f"'{name}' along {AXES[axis]} ({np.median(across):.2g} mm)"
            if np.mean((across < RESOLVED * target) & (target >= COARSENED * own)) > 0.5:
                lost.append(text)
            elif np.mean(across < RESOLVED * own) > 0.5:
                fine.setdefault(name, []).append(AXES[axis])
    if lost:
        yield Caution(
            kind="thin structure",
            text=f"at the target spacing ({times(target_by_axis(plan).values())} mm) typically less than {RESOLVED:g} "
            f"voxels thick: {listed(lost, MAX_NAMED)}",
            remedy="they may be lost; a finer --spacing keeps them",
        )
    if fine:
        parts = [f"'{name}' along {', '.join(axes)}" for name, axes in fine.items()]
        text = f"less than {RESOLVED:g} voxels thick in most files: {listed(parts, MAX_NAMED)}"
        remedy = "being off by one voxel costs them much of their Dice"
        yield Caution(kind="thin structure", text=text, remedy=remedy, severity="note")


def _across(case: CaseFingerprint, values: Sequence[int], axis: int) -> list[float]:
    return [case.thickness[value][axis] for value in values if value in case.thickness]


def _orientations(plan: Plan, cases: Sequence[CaseFingerprint]) -> Iterator[Caution]:
    """Axes that are other anatomical lines, or run the other way, in some cases."""
    by_way: dict[str, list[str]] = {}
    for case in cases:
        if case.dimensions == 3:
            by_way.setdefault(case.orientation, []).append(case.case)
    by_line: dict[tuple[str, ...], list[str]] = {}
    for orientation, names in by_way.items():
        by_line.setdefault(tuple(LINES.get(letter, letter) for letter in orientation), []).extend(names)
    if len(by_line) > 1:
        odd = tuple(case for names in _but_largest(by_line.values()) for case in names)
        yield Caution(
            kind="orientation",
            text=f"z, y, x are not the same anatomical lines in all cases: {_ways(by_line)}. Medians of spacing and "
            "shape, and the slices of 2D networks, mix directions",
            remedy="store all images and labels in one order of axes and plan again",
            cases=odd,
        )
    elif len(by_way) > 1:
        pointing = {tuple(DIRECTIONS.get(letter, letter) for letter in way): names for way, names in by_way.items()}
        sides = {letter for way in by_way for letter in way if letter in "LR"}
        is_harmful = len(sides) > 1 and bool(plan.labels.lateral_pairs)
        harm, remedy = "", ""
        if is_harmful:
            left, right = plan.labels.lateral_pairs[0]
            harm = f". '{left}' and '{right}' then change sides from case to case"
            remedy = "store all images and labels in one orientation and plan again"
        yield Caution(
            kind="orientation",
            text=f"z, y, x do not point the same way in all cases: {_ways(pointing)}{harm}",
            remedy=remedy,
            cases=tuple(case for names in _but_largest(by_way.values()) for case in names),
            severity="warning" if is_harmful else "note",
        )


def _sides(plan: Plan, facts: Fingerprint) -> Iterator[Caution]:
    """Left and right classes where mirroring may swap them."""
    if not plan.labels.lateral_pairs:
        return
    left, right = plan.labels.lateral_pairs[0]
    pair = f"'{left}' and '{right}' are told apart"
    if plan.dimensions == 2:
        text = f"{pair}; pictures do not say where left is, so the horizontal axis is taken for it and not mirrored"
        yield Caution(kind="left and right", text=text, remedy="check that all hang alike", severity="note")
        return
    mirrored = {plan.axis_order[axis] for axis in plan.mirror_axes}
    known = facts.left_right_axes
    if known and not mirrored.intersection(known):
        return
    why = "this plan mirrors along the left-right axis" if known else "nothing tells which axis runs left-right"
    yield Caution(
        kind="left and right",
        text=f"{pair}, but {why}: mirrored training images would show them swapped",
        remedy="take that axis out of mirror_axes in the plan" if known else "plan from `selfcfg fingerprint`",
    )


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return f"{low} mm" if low == high else f"{low} to {high} mm"


def _named(names: Sequence[str]) -> str:
    """The names in brackets where they are few and known."""
    return f" ({', '.join(names)})" if 0 < len(names) <= MAX_NAMED and all(names) else ""


def _option(targets: dict[int, float]) -> str:
    return "--spacing " + ",".join(f"{targets.get(axis, 1):.3g}" for axis in range(3))


def _ways(groups: Mapping[tuple[str, ...], Sequence[str]]) -> str:
    """The directions of z, y, x with the number of cases each, and their names where they are few."""
    ranked = sorted(groups.items(), key=lambda group: -len(group[1]))
    return "; ".join(f"{', '.join(way)} in {counted(len(names), 'case')}{_named(names)}" for way, names in ranked)


def _but_largest(groups: Iterable[list[str]]) -> list[list[str]]:
    return sorted(groups, key=len)[:-1]
