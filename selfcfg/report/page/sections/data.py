"""What the model was trained on, as it was measured."""

from __future__ import annotations

from selfcfg.engine.checks.outliers import unit_of_volume, volumes
from selfcfg.errors import counted, listed
from selfcfg.geometry import times
from selfcfg.report.page import svg
from selfcfg.report.page.blocks import Block, Plot, Section, Table, Terms, Text
from selfcfg.report.page.facts import Experiment, Facts
from selfcfg.report.tables import spread

_AXES = "zyx"
_MOST_CLASSES = 12


def data(facts: Facts) -> Section | None:
    """The dataset: cases, sizes, spacings, intensities and classes."""
    experiment = facts.experiment
    if experiment is None:
        return None
    plan = experiment.plan
    in_mm = times(plan.median_spacing) + " mm" if plan.dimensions == 3 else "none: 2D pictures"
    items = [
        ("Cases", f"{len(experiment.cases)} of {counted(experiment.n_subjects, 'subject')}"),
        ("Channels", listed(plan.channels, 12)),
        ("Classes", listed(plan.labels.targets, 24) + (" (overlapping)" if plan.labels.has_regions else "")),
        ("Median size", f"{times(plan.median_shape)} voxels after cropping"),
        ("Median spacing", in_mm),
    ]
    if plan.labels.ignore is not None:
        items.append(("Not annotated", "some voxels carry the ignore label and count nowhere"))
    blocks: list[Block] = [Terms(tuple(items)), *_measured(experiment), *_class_sizes(facts)]
    return Section("data", "Data", tuple(blocks))


def _measured(experiment: Experiment) -> list[Block]:
    """Distributions over cases, and the intensities inside the classes."""
    fingerprint, plan = experiment.fingerprint, experiment.plan
    if fingerprint is None:
        return [Text("The dataset's fingerprint is not at hand, so distributions over cases are not shown.", "note")]
    axes = (1, 2) if plan.dimensions == 2 else (0, 1, 2)
    panels = {
        f"size along {_AXES[axis]}, voxels": [float(shape[axis]) for shape in fingerprint.shapes_after_crop]
        for axis in axes
    }
    if plan.dimensions == 3:
        panels |= {f"spacing along {_AXES[axis]}, mm": [one[axis] for one in fingerprint.spacings] for axis in axes}
    label = "Histograms of sizes and spacings over cases"
    blocks: list[Block] = [Plot(svg.histograms(panels, label), "How many cases have which size and spacing.")]
    rows = []
    for place, channel in enumerate(plan.channels):
        found = fingerprint.foreground_intensity_properties_per_channel.get(str(place))
        if found is not None:
            values = (
                found.min,
                found.percentile_00_5,
                found.median,
                found.percentile_99_5,
                found.max,
                found.mean,
                found.std,
            )
            rows.append((channel, *(f"{value:.4g}" for value in values)))
    heads = ("channel", "least", "0.5 %", "median", "99.5 %", "most", "mean", "std")
    if rows:
        blocks.append(Table("Intensities inside the classes", heads, tuple(rows)))
    by_class = volumes(plan, fingerprint.cases) if fingerprint.cases else {}
    present = {
        f"{name}, {unit_of_volume(plan)}": [volume for volume in by_case.values() if volume > 0]
        for name, by_case in list(by_class.items())[:_MOST_CLASSES]
    }
    present = {name: values for name, values in present.items() if values}
    if present:
        label = "Histograms of the volumes of the classes"
        blocks.append(
            Plot(svg.histograms(present, label), "How many cases have which volume of a class, absent ones left out.")
        )
    return blocks


def _class_sizes(facts: Facts) -> list[Block]:
    if facts.evaluation is None:
        return []
    rows = []
    for name in facts.evaluation.mean:
        sizes = [case.scores[name].volume_ref for case in facts.evaluation.cases if case.scores[name].volume_ref > 0]
        rows.append((name, f"{len(sizes)} of {facts.evaluation.n_cases}", *spread(sizes, 2)))
    unit = facts.evaluation.volume_unit
    heads = ("class", "in cases", f"mean, {unit}", "median", "std", "least", "most")
    return [Table("Classes in the references of the scored cases", heads, tuple(rows))]
