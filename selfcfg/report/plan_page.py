"""The page that says what was measured, what was decided and why, for a reader who knows images, not networks."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from selfcfg.engine.checks.cautions import cautions
from selfcfg.engine.checks.findings import Caution
from selfcfg.engine.checks.outliers import unit_of_volume, volumes
from selfcfg.engine.planner import Alternative
from selfcfg.errors import counted, listed
from selfcfg.fingerprint import CaseFingerprint, Fingerprint
from selfcfg.geometry import times
from selfcfg.plan import Configuration, Plan, Reason
from selfcfg.report.plan_plots import TITLES

WIDTH = 100
"""Longest line of text; tables may be wider."""

HEADING = "# The plan for "
"""How every page begins."""

BARS = " ▁▂▃▄▅▆▇█"
N_BINS = 24
AXES = "zyx"


def plan_page(
    plan: Plan,
    fingerprint: Fingerprint,
    alternatives: Sequence[Alternative] = (),
    pictures: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The plan of a dataset explained from top to bottom: Markdown that also reads well on a terminal.

    Args:
        plan: what was decided.
        fingerprint: what it was decided from; without per-case values (nnU-Net's) the page is shorter.
        alternatives: what would be decided for other accelerators, by ascending memory.
        pictures: links by what they show (the names of `selfcfg.report.plan_plots`), put beside the tables.
    """
    found = cautions(plan, fingerprint)
    warnings = [_item(_sentences(caution)) for caution in found if caution.severity == "warning"]
    parts = [
        f"{HEADING}{plan.dataset}",
        _wrap(_summary(plan, fingerprint)),
        *(["## Warnings", "\n".join(warnings)] if warnings else []),
        "## What was measured",
        *_measured(plan, fingerprint, pictures),
        *_notes(found, fingerprint),
        "## What was decided",
        _wrap(_terms(plan)),
        _configurations(plan),
        *(_on_others(plan, alternatives) if alternatives else []),
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


def _measured(plan: Plan, fingerprint: Fingerprint, pictures: Mapping[str, str]) -> list[str]:
    """The tables about the data, each with its picture where there is one."""
    tables = {"space": _ranges(plan, fingerprint)}
    if fingerprint.cases:
        tables["volumes"] = _classes(plan, fingerprint.cases)
        tables["intensities"] = _intensities(plan, fingerprint)
    parts = []
    for name, table in tables.items():
        parts += [table, *([f"![{TITLES[name]}]({pictures[name]})"] if name in pictures else [])]
    return parts


def _notes(found: Sequence[Caution], fingerprint: Fingerprint) -> list[str]:
    """What somebody should have a look at, case by case."""
    notes = [_item(_sentences(caution)) for caution in found if caution.severity == "note"]
    parts = ["Worth a look:", "\n".join(notes)] if notes else []
    if not fingerprint.cases:
        text = "This fingerprint holds no values of single cases, so no outliers can be named; measuring the dataset "
        parts.append(_wrap(text + "with `selfcfg fingerprint` does."))
    return parts or ["No case stands out."]


def _sentences(caution: Caution) -> str:
    """What was found, then what to do about it."""
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in (caution.text, caution.remedy) if part)


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
    rows = []
    for name, in_case in volumes(plan, cases).items():
        present = [volume for volume in in_case.values() if volume > 0]
        row = [name, f"{len(present)} of {len(in_case)}"]
        rows.append([*row, *(_spread(present) if present else ["-"] * 3), _histogram(present) if present else ""])
    heads = ["class", "in cases", f"least ({unit_of_volume(plan)})", "median", "most", "cases from least to most"]
    return _table(heads, rows)


def _intensities(plan: Plan, fingerprint: Fingerprint) -> str:
    """The intensities inside the classes, by channel."""
    rows = []
    for index, channel in enumerate(plan.channels):
        found = fingerprint.foreground_intensity_properties_per_channel[str(index)]
        numbers = (found.min, found.percentile_00_5, found.median, found.percentile_99_5, found.max)
        rows.append([f"intensity of {channel}", *(f"{value:.4g}" for value in numbers)])
    return _table(["inside the classes", "least", "0.5 %", "median", "99.5 %", "most"], rows)


def _terms(plan: Plan) -> str:
    """What the words of the table mean, and in which order the numbers of several axes stand."""
    text = "A patch is what the network sees of an image at once; in each step it learns from a batch of patches. "
    if any(configuration.after for configuration in plan.configurations.values()):
        text += "In a cascade, one network refines what another found at low resolution. "
    names = [AXES[axis] for axis in plan.axis_order]
    if plan.dimensions == 2:
        return text + f"Numbers of two axes are in the order {', '.join(names[1:])}."
    return text + f"Numbers of several axes are in the order {', '.join(names)}; those of 2d {', '.join(names[1:])}."


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


def _on_others(plan: Plan, alternatives: Sequence[Alternative]) -> list[str]:
    """What the default network would be on accelerators of other sizes."""
    rows = []
    for alternative in alternatives:
        mark = " (this plan)" if alternative.memory_gb == plan.memory_gb else ""
        rows.append([f"{alternative.memory_gb:g}{mark}", *_in_brief(alternative)])
    heads = ["memory in GB", "patch in voxels", "of the typical image", "patches in a batch", "cascade"]
    text = f"The network {plan.default_configuration}, planned by '{plan.planner}' for accelerators of other sizes. "
    same = [row[1:] == rows[-1][1:] for row in rows]
    first = len(same) - same[::-1].index(False) if False in same else 0
    if first == 0:
        text += "Memory is not what limits this dataset: all give the same."
    elif first < len(rows) - 1:
        text += f"From {alternatives[first].memory_gb:g} GB on nothing changes any more."
    return ["### On other accelerators", _wrap(text), _table(heads, rows)]


def _in_brief(alternative: Alternative) -> list[str]:
    if alternative.plan is None:
        return [f"not planned: {alternative.refusal}", "-", "-", "-"]
    chosen = alternative.plan.configuration(alternative.plan.default_configuration)
    sides = zip(chosen.patch_size, chosen.median_shape, strict=True)
    seen = math.prod(min(edge / whole, 1) for edge, whole in sides)
    is_cascaded = any(other.after for other in alternative.plan.configurations.values())
    share = "all" if seen >= 1 else f"{100 * seen:.2g} %"
    return [times(chosen.patch_size), share, str(chosen.batch_size), "yes" if is_cascaded else "no"]


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
