"""The page that says what was measured, what was decided and why, for a reader who knows images, not networks."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from selfcfg.errors import counted, listed
from selfcfg.fingerprint import CaseFingerprint, Fingerprint
from selfcfg.geometry import times
from selfcfg.plan import Configuration, Plan, Reason

WIDTH = 100
"""Longest line of text; tables may be wider."""

BARS = " ▁▂▃▄▅▆▇█"
N_BINS = 24
MAX_NAMED = 8
FAR_OUT = 3.0
"""Quartile ranges beyond the quartiles from which a case is an outlier. Source: Tukey 1977, "far out" values."""
MATTERS = 0.2
"""Least relative distance from the median of an outlier, so that tiny differences in regular data are not named."""
MIXED_SCALES = 10.0
"""Ratio of the typical intensities of two cases from which a channel's scales count as mixed."""
FEW_VOXELS = 10
NOT_ANNOTATED = "not annotated (ignore)"

AXES = "zyx"
DIRECTIONS = {
    "L": "left",
    "R": "right",
    "P": "posterior",
    "A": "anterior",
    "S": "superior",
    "I": "inferior",
}


def plan_page(plan: Plan, fingerprint: Fingerprint) -> str:
    """The plan of a dataset explained from top to bottom: Markdown that also reads well on a terminal.

    Args:
        plan: what was decided.
        fingerprint: what it was decided from; without per-case values (nnU-Net's) the page is shorter.
    """
    parts = [
        f"# The plan for {plan.dataset}",
        _wrap(_summary(plan, fingerprint)),
        "## What was measured",
        *_measured(plan, fingerprint),
        "## What was decided",
        _wrap(_order(plan)),
        _configurations(plan),
        "### For all configurations",
        _reasons(plan.reasons),
    ]
    for name, configuration in plan.configurations.items():
        default = " (what `selfcfg train` takes unless told otherwise)" if name == plan.default_configuration else ""
        parts += [f"### {name}{default}", _reasons(configuration.reasons)]
    return "\n\n".join(parts) + "\n"


def _summary(plan: Plan, fingerprint: Fingerprint) -> str:
    """The whole plan in a few sentences."""
    chosen = plan.configuration(plan.default_configuration)
    cases = counted(fingerprint.n_cases, "picture" if plan.dimensions == 2 else "volume")
    subjects = len({case.subject for case in fingerprint.cases})
    if fingerprint.cases and subjects != fingerprint.n_cases:
        cases += f" of {counted(subjects, 'subject')}"
    targets = list(plan.labels.targets)
    overlapping = ", overlapping," if plan.labels.has_regions else ""
    classes = counted(len(targets), "class", "classes") + f"{overlapping} ({listed(targets, 12)})"
    spacing = "" if plan.dimensions == 2 else f" at {times(chosen.spacing)} mm"
    return (
        f"{cases} with {counted(len(plan.channels), 'channel')} ({listed(plan.channels, 12)}) and {classes}. The "
        f"planner '{plan.planner}' planned for {plan.memory_gb:g} GB of accelerator memory. By default the network "
        f"{plan.default_configuration} is trained: it sees patches of {times(chosen.patch_size)} voxels{spacing}, "
        f"{chosen.batch_size} at a time."
    )


def _measured(plan: Plan, fingerprint: Fingerprint) -> list[str]:
    """The paragraphs and tables about the data."""
    parts = [_ranges(plan, fingerprint)]
    if not fingerprint.cases:
        text = "This fingerprint holds no values of single cases, so no outliers can be named; measuring the dataset "
        return [*parts, _wrap(text + "with `selfcfg fingerprint` does.")]
    parts.append(_classes(plan, fingerprint.cases))
    parts.append(_intensities(plan, fingerprint))
    notes = [
        *_orientations(fingerprint.cases),
        *_outliers(plan, fingerprint.cases),
        *_absent(plan, fingerprint.cases),
        *_scales(plan, fingerprint.cases),
    ]
    heading = "Worth a look:" if notes else "No case stands out."
    return [*parts, "\n".join([heading, *([""] if notes else []), *(_item(note) for note in notes)])]


def _ranges(plan: Plan, fingerprint: Fingerprint) -> str:
    """Spacing and shape along each axis, with their distribution."""
    rows = []
    axes = (1, 2) if plan.dimensions == 2 else (0, 1, 2)
    columns: list[tuple[str, Sequence[Sequence[float]]]] = [("voxels", fingerprint.shapes_after_crop)]
    if plan.dimensions == 3:
        columns.insert(0, ("spacing in mm", fingerprint.spacings))
    for what, values in columns:
        for axis in axes:
            along = [case[axis] for case in values]
            rows.append([f"{what} along {AXES[axis]}", *_spread(along), _histogram(along)])
    return _table(["", "least", "median", "most", "cases from least to most"], rows)


def _classes(plan: Plan, cases: Sequence[CaseFingerprint]) -> str:
    """How large each class is."""
    unit = "% of the picture" if plan.dimensions == 2 else "ml"
    rows = []
    for name, volumes in _volumes(plan, cases).items():
        present = [volume for volume in volumes.values() if volume > 0]
        row = [name, f"{len(present)} of {len(volumes)}"]
        rows.append([*row, *(_spread(present) if present else ["-"] * 3), _histogram(present) if present else ""])
    return _table(["class", "in cases", f"least ({unit})", "median", "most", "cases from least to most"], rows)


def _intensities(plan: Plan, fingerprint: Fingerprint) -> str:
    """The intensities inside the classes, by channel."""
    rows = []
    for index, channel in enumerate(plan.channels):
        found = fingerprint.foreground_intensity_properties_per_channel[str(index)]
        numbers = (found.min, found.percentile_00_5, found.median, found.percentile_99_5, found.max)
        rows.append([f"intensity of {channel}", *(f"{value:.4g}" for value in numbers)])
    return _table(["inside the classes", "least", "0.5 %", "median", "99.5 %", "most"], rows)


def _orientations(cases: Sequence[CaseFingerprint]) -> list[str]:
    """A note where volumes are not all oriented alike."""
    found = Counter(case.orientation for case in cases if case.dimensions == 3)
    if len(found) < 2:
        return []
    parts = []
    for orientation, count in found.most_common():
        pointing = ", ".join(DIRECTIONS.get(letter, letter) for letter in orientation)
        names = [case.case for case in cases if case.orientation == orientation]
        named = f": {listed(names, MAX_NAMED)}" if count <= len(cases) / 2 else ""
        parts.append(f"z, y, x to {pointing} in {counted(count, 'case')}{named}")
    return [f"The axes do not point the same way in all cases ({'; '.join(parts)})."]


def _outliers(plan: Plan, cases: Sequence[CaseFingerprint]) -> list[str]:
    """Notes about the cases whose spacing, shape or volumes lie far from the others."""
    notes = []
    axes = (1, 2) if plan.dimensions == 2 else (0, 1, 2)
    for axis in axes:
        if plan.dimensions == 3:
            spacings = {case.case: case.spacing[axis] for case in cases}
            notes += _far_out(f"spacing along {AXES[axis]}", "mm", spacings)
        shapes = {case.case: float(case.shape_after_crop[axis]) for case in cases}
        notes += _far_out(f"size along {AXES[axis]}", "voxels", shapes)
    unit = "%" if plan.dimensions == 2 else "ml"
    for name, volumes in _volumes(plan, cases).items():
        notes += _far_out(f"volume of '{name}'", unit, {case: volume for case, volume in volumes.items() if volume > 0})
    return notes


def _far_out(what: str, unit: str, values: Mapping[str, float]) -> list[str]:
    """A note about the values far from the others, as ratios: half is as far as twice."""
    if not values:
        return []
    logarithms = {name: float(np.log(value)) for name, value in values.items()}
    low, middle, high = np.percentile(list(logarithms.values()), [25, 50, 75]).tolist()
    reach = FAR_OUT * (high - low)
    distance = {
        name: abs(value - middle)
        for name, value in logarithms.items()
        if not low - reach <= value <= high + reach and abs(value - middle) > np.log(1 + MATTERS)
    }
    if not distance:
        return []
    named = [f"{name} ({values[name]:.4g})" for name in sorted(distance, key=lambda name: -distance[name])]
    return [f"Unusual {what} (median {np.median(list(values.values())):.4g} {unit}): {listed(named, MAX_NAMED)}."]


def _absent(plan: Plan, cases: Sequence[CaseFingerprint]) -> list[str]:
    """Notes about classes that some case lacks, or has almost nothing of."""
    notes = []
    for name, values in plan.labels.targets.items():
        counts = {case.case: sum(case.voxels.get(value, 0) for value in values) for case in cases if case.voxels}
        without = [case for case, count in counts.items() if count == 0]
        tiny = [case for case, count in counts.items() if 0 < count < FEW_VOXELS]
        if without:
            notes.append(f"No '{name}' in {counted(len(without), 'case')}: {listed(without, MAX_NAMED)}.")
        if tiny:
            notes.append(f"Fewer than {FEW_VOXELS} voxels of '{name}': {listed(tiny, MAX_NAMED)}.")
    return notes


def _scales(plan: Plan, cases: Sequence[CaseFingerprint]) -> list[str]:
    """Notes about channels whose intensities are on different scales in different cases."""
    notes = []
    schemes = next(iter(plan.configurations.values())).normalization
    for index, (channel, scheme) in enumerate(zip(plan.channels, schemes, strict=True)):
        means = {case.case: found.mean for case in cases if (found := case.intensities[index]) is not None}
        low, high = (choose(means, key=lambda name: means[name]) for choose in (min, max))
        if means[low] <= 0 or means[high] < MIXED_SCALES * means[low]:
            continue
        harm = "Each image is scaled on its own, which evens that out."
        if scheme != "zscore":
            harm = f"The scheme '{scheme}' takes them for one scale: check these cases."
        notes.append(
            f"The intensities of {channel} are on different scales: the mean inside the classes is {means[low]:.4g} in "
            f"{low} and {means[high]:.4g} in {high}. {harm}"
        )
    return notes


def _volumes(plan: Plan, cases: Sequence[CaseFingerprint]) -> dict[str, dict[str, float]]:
    """The volume of each class in each labelled case: ml, or per cent of a picture."""
    unit = {
        case.case: 100 / np.prod(case.shape) if plan.dimensions == 2 else np.prod(case.spacing) / 1000 for case in cases
    }
    targets = plan.labels.targets
    if plan.labels.ignore is not None:
        targets |= {NOT_ANNOTATED: (plan.labels.ignore,)}
    return {
        name: {
            case.case: float(sum(case.voxels.get(value, 0) for value in values) * unit[case.case])
            for case in cases
            if case.voxels
        }
        for name, values in targets.items()
    }


def _order(plan: Plan) -> str:
    """In which order the numbers of several axes stand."""
    names = [AXES[axis] for axis in plan.axis_order]
    if plan.dimensions == 2:
        return f"Numbers of two axes are in the order {', '.join(names[1:])}."
    return f"Numbers of several axes are in the order {', '.join(names)}; those of 2d {', '.join(names[1:])}."


def _configurations(plan: Plan) -> str:
    """The numbers of all configurations side by side."""

    def column(configuration: Configuration) -> list[str]:
        memory = configuration.memory_bytes
        return [
            times(configuration.spacing),
            times(configuration.median_shape),
            times(configuration.patch_size),
            str(configuration.batch_size),
            str(configuration.topology.n_stages),
            configuration.after or "-",
            "-" if memory is None else f"{memory / 2**30:.2g}",
        ]

    heads = [
        "spacing" if plan.dimensions == 2 else "spacing in mm",
        "typical image in voxels",
        "patch in voxels",
        "patches in a batch",
        "stages of the network",
        "works after",
        "forecast memory in GB (rough)",
    ]
    columns = [column(configuration) for configuration in plan.configurations.values()]
    rows = [[head, *values] for head, *values in zip(heads, *columns, strict=True)]
    return _table(["", *plan.configurations], rows)


def _reasons(reasons: Iterable[Reason]) -> str:
    """Each decision with its value, its reason and what would change it."""
    items = []
    for reason in reasons:
        items.append(_item(f"**{reason.what}: {reason.value}**"))
        items += [textwrap.indent(_wrap(reason.why, WIDTH - 2), "  ")]
        if reason.change:
            items += [textwrap.indent(_wrap(f"To change it: {reason.change}", WIDTH - 2), "  ")]
    return "\n".join(items)


def _spread(values: Sequence[float]) -> list[str]:
    return [f"{value:.4g}" for value in (min(values), float(np.median(values)), max(values))]


def _histogram(values: Sequence[float]) -> str:
    """A row of bars, as high as the number of values in each of equally wide stretches."""
    if min(values) == max(values):
        return "all the same"
    counts, _ = np.histogram(values, bins=N_BINS)
    heights = np.ceil(counts / counts.max() * (len(BARS) - 1)).astype(int)
    return "`" + "".join(BARS[height] for height in heights) + "`"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are padded to the same width."""
    clean = [[value.replace("|", "/") for value in row] for row in [heads, *rows]]
    widths = [max(3, *(len(value) for value in column)) for column in zip(*clean, strict=True)]
    lines = [[value.ljust(width) for value, width in zip(row, widths, strict=True)] for row in clean]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _item(text: str) -> str:
    return "- " + textwrap.indent(_wrap(text, WIDTH - 2), "  ").strip()


def _wrap(text: str, width: int = WIDTH) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
