"""What was decided, and why."""

from __future__ import annotations

from collections.abc import Sequence

from selfcfg.geometry import times
from selfcfg.plan import Reason
from selfcfg.report.names import Names
from selfcfg.report.page.blocks import Block, Details, Section, Terms, Text
from selfcfg.report.page.facts import Facts


def plan(facts: Facts) -> Section | None:
    """The configuration that was trained, with the reason of every decision."""
    if facts.experiment is None:
        return None
    made, record = facts.experiment.plan, facts.experiment.record
    configuration = facts.experiment.configuration
    network = configuration.topology
    items = [
        ("Planner", f"{made.planner}, for {made.memory_gb:g} GB of accelerator memory"),
        ("Configuration", record.configuration),
        ("Spacing", times(configuration.spacing) + (" mm" if made.dimensions == 3 else "")),
        ("Patch", f"{times(record.settings.get('patch_size') or configuration.patch_size)} voxels"),
        ("Batch", f"{record.settings.get('batch_size') or configuration.batch_size} patches"),
        ("Normalisation", ", ".join(configuration.normalization)),
        (
            "Network",
            f"{network.kind} U-Net of {network.n_stages} stages, features {', '.join(map(str, network.features))}",
        ),
    ]
    if configuration.memory_bytes is not None:
        items.append(("Forecast memory", f"{configuration.memory_bytes / 2**30:.2g} GB for a training step (rough)"))
    blocks: list[Block] = [Terms(tuple(items))]
    changed = [name for name in ("patch_size", "batch_size") if record.settings.get(name)]
    if changed:
        blocks.append(Text(f"Changed by hand in the settings of the run: {', '.join(changed)}.", "note"))
    if made.reasons:
        blocks.append(Details("Reasons: all configurations", (_reasons(made.reasons, facts.names),)))
    if configuration.reasons:
        blocks.append(Details(f"Reasons: {record.configuration}", (_reasons(configuration.reasons, facts.names),)))
    return Section("plan", "Plan, and why", tuple(blocks))


def _reasons(reasons: Sequence[Reason], names: Names) -> Terms:
    told = []
    for reason in reasons:
        change = f" To change it: {reason.change}" if reason.change else ""
        told.append((f"{reason.what}: {reason.value}", names.text(f"{reason.why}{change}")))
    return Terms(tuple(told))
