"""nnU-Net's plans.json read as plans of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfcfg.dataset import DatasetDescription
from selfcfg.errors import DataError, UsageError
from selfcfg.files import read_json
from selfcfg.inheritance import complete, told_once
from selfcfg.interop.nnunet_format import SCHEMES, NnunetConfiguration, NnunetPlans
from selfcfg.plan import Plan
from selfcfg.project import Project
from selfcfg.records import Problem, unusable
from selfcfg.registry import registered

MEMORY_GB = {"nnUNetPlannerResEncL": 24.0, "nnUNetPlannerResEncXL": 40.0}
"""What nnU-Net's planners plan for; the others for `DEFAULT_MEMORY_GB`. Its plans do not say what was asked for."""
DEFAULT_MEMORY_GB = 8.0

FLAT_RATIO = 100
"""A single slice this many times thicker than its pixels is a 2D image: nnU-Net gives those 999 times the spacing."""

MAX_BYTES = 16 << 20
"""Of a JSON file that is read; a plans.json has some ten thousand."""

_THEIR_KEYS: dict[str, tuple[str, ...]] = {
    "intensities": ("foreground_intensity_properties_per_channel",),
    "median_shape": ("median_image_size_in_voxels",),
    "normalization": ("normalization_schemes",),
    "after": ("previous_stage",),
}
_THEIR_NETWORK_KEYS = {
    "features": ("features_per_stage", "UNet_base_num_features"),
    "kernel_sizes": ("kernel_sizes", "conv_kernel_sizes"),
    "strides": ("strides", "pool_op_kernel_sizes"),
    "encoder_blocks": ("n_blocks_per_stage", "n_conv_per_stage_encoder"),
    "decoder_blocks": ("n_conv_per_stage_decoder", "n_conv_per_stage_decoder"),
}
"""Our key to theirs: within an architecture, and in plans of before version 2.4."""


def from_nnunet(content: Any, description: DatasetDescription, dataset: str, source: str) -> Plan:
    """Our plan of the content of nnU-Net's plans.json: every number as it stands there.

    Args:
        content: of the file, not trusted.
        description: dataset.json of the dataset it is to be used for.
        dataset: folder name of that dataset.
        source: the file, for messages and reasons.

    Raises:
        DataError: something in it is wrong, not supported here, or of another dataset; every such field is named.
    """
    said = content.get("configurations") if isinstance(content, Mapping) else None
    if not isinstance(said, Mapping):
        raise DataError(source, "no configurations", "give the plans.json that an nnU-Net planner wrote")
    whole, loose = complete(said, lambda inherited, own: {**inherited, **own})
    theirs, problems = NnunetPlans.attempt({**content, "configurations": whole})
    problems += [Problem(("configurations", *place), what) for place, what in loose]
    if theirs is None or problems:
        raise unusable(source, told_once(problems, said), "only what nnU-Net's own U-Net planners write is taken over")
    if problems := _disagreements(theirs, description):
        raise unusable(source, problems, "take the plans of this dataset, or mend dataset.json")
    made, problems = Plan.attempt(_our_content(theirs, description, dataset, source))
    if made is None:
        problems = [_in_their_words(problem, theirs) for problem in problems]
        raise unusable(source, told_once(problems, said))
    return made


def read_plans(file: Path, description: DatasetDescription, dataset: str) -> Plan:
    """The plan in a plans.json of nnU-Net, see `from_nnunet`."""
    return from_nnunet(read_foreign_json(file), description, dataset, str(file))


def read_foreign_json(file: Path) -> Any:
    """The content of a JSON file of nnU-Net, read only if it has a size that such files have."""
    if file.is_file() and file.stat().st_size > MAX_BYTES:
        found = f"{file.stat().st_size} bytes"
        raise DataError(f"read {file}", found, f"give nnU-Net's {file.name}, which is far smaller")
    return read_json(file)


def import_plans(project: Project, file: Path) -> tuple[Path, Plan]:
    """Makes a dataset's plan from nnU-Net's plans.json; where it was written, and the plan.

    Raises:
        DataError: see `from_nnunet`.
        UsageError: the plans are called like a planner of ours, whose plan they would replace.
    """
    plan = read_plans(file, project.dataset.description, project.name)
    for planner in registered("planners"):
        if re.fullmatch(re.escape(planner) + r"(-(.*GB|.*h|fit))?", plan.planner):
            raise UsageError(
                f"plans_name of {file}", f"'{plan.planner}' is a planner here", "give it another plans_name"
            )
    target = project.plan_file(plan.planner)
    plan.write(target)
    return target, plan


def safe_name(name: str, key: str, source: str) -> str:
    """What stands under a key of a file, made fit to name a file.

    Raises:
        DataError: nothing is left of it.
    """
    safe = re.sub(r"[^A-Za-z0-9_.+-]+", "_", name).lstrip("._+-")[:64]
    if not safe:
        raise DataError(source, f"{key} '{name[:64]}' has no letter or digit", "give it a name")
    return safe


def _disagreements(theirs: NnunetPlans, description: DatasetDescription) -> list[Problem]:
    """Where the plans are not of the dataset that dataset.json describes."""
    problems = []
    channels = [str(index) for index in range(len(description.channels))]
    key, known = "foreground_intensity_properties_per_channel", theirs.foreground_intensity_properties_per_channel
    if sorted(known) != sorted(channels):
        found = f"holds channels {', '.join(known) or 'none'}, but dataset.json names {len(channels)}"
        problems.append(Problem((key,), f"{found} ({', '.join(description.channels)})"))
    labels = description.schema_of_labels
    if theirs.selfcfg is not None and theirs.selfcfg.labels.values != labels.values:
        found = f"holds the values {list(theirs.selfcfg.labels.values)}, but dataset.json {list(labels.values)}"
        problems.append(Problem(("selfcfg", "labels"), found))
    return problems


def _our_content(theirs: NnunetPlans, description: DatasetDescription, dataset: str, source: str) -> dict[str, Any]:
    spacing, shape = theirs.original_median_spacing_after_transp, theirs.original_median_shape_after_transp
    in_3d = any(len(configuration.spacing) > 2 for configuration in theirs.configurations.values())
    is_flat = not in_3d and round(shape[0]) == 1 and spacing[0] >= FLAT_RATIO * max(spacing[1:])
    dimensions, extras = 2 if is_flat else 3, theirs.selfcfg
    planner, known = theirs.experiment_planner_used, theirs.foreground_intensity_properties_per_channel
    memory = extras.memory_gb if extras else MEMORY_GB.get(planner, DEFAULT_MEMORY_GB)
    mirrors = extras.mirror_axes if extras else tuple(range(3 - dimensions, 3))
    reasons = [
        _reason("origin", f"{theirs.plans_name} of {theirs.dataset_name}", f"Read from {source}, made by {planner}."),
        _reason("accelerator memory", f"{memory:g} GB", "As that file says." if extras else "Its planner's default."),
        _reason("mirroring", str(mirrors), "As that file says." if extras else "nnU-Net mirrors along every axis."),
    ]
    return {
        "dataset": dataset,
        "planner": safe_name(theirs.plans_name, "plans_name", source),
        "memory_gb": memory,
        "channels": description.channels,
        "labels": description.schema_of_labels,
        "image_targets": description.image_meanings,
        "axis_order": theirs.transpose_forward,
        "median_spacing": spacing,
        "median_shape": extras.median_shape if extras else shape,
        "intensities": [known[str(index)] for index in range(len(known))],
        "mirror_axes": mirrors,
        "dimensions": dimensions,
        "configurations": {
            name: _our_configuration(configuration, extras.memory_bytes.get(name) if extras else None)
            for name, configuration in theirs.configurations.items()
        },
        "reasons": reasons,
    }


def _our_configuration(theirs: NnunetConfiguration, memory_bytes: int | None) -> dict[str, Any]:
    ours = {scheme: name for name, scheme in SCHEMES.items()}
    return {
        "spacing": theirs.spacing,
        "patch_size": theirs.patch_size,
        "batch_size": theirs.batch_size,
        "median_shape": theirs.median_image_size_in_voxels,
        "normalization": [ours[scheme] for scheme in theirs.normalization_schemes],
        "use_mask_for_norm": theirs.use_mask_for_norm,
        "topology": theirs.network(),
        "batch_dice": theirs.batch_dice,
        "after": theirs.previous_stage,
        "memory_bytes": memory_bytes,
        "reasons": [_reason("every number", "as in nnU-Net's plans", "Nothing was decided anew.")],
    }


def _reason(what: str, value: str, why: str) -> dict[str, str]:
    return {"what": what, "value": value, "why": why, "change": "editing this file, or planning anew."}


def _in_their_words(problem: Problem, theirs: NnunetPlans) -> Problem:
    """The problem at the place of nnU-Net's file that the value of ours came from."""
    match problem.place:
        case ("configurations", str(name), "topology", str(key), *rest) if key in _THEIR_NETWORK_KEYS:
            new, old = _THEIR_NETWORK_KEYS[key]
            architecture = theirs.configurations[name].architecture
            if architecture is None:
                return Problem(("configurations", name, old, *rest), problem.what)
            new = "n_conv_per_stage" if key == "encoder_blocks" and architecture.is_plain else new
            return Problem(("configurations", name, "architecture", "arch_kwargs", new, *rest), problem.what)
        case ("configurations", str(name), str(key), *rest):
            return Problem(("configurations", name, *_THEIR_KEYS.get(key, (key,)), *rest), problem.what)
    return problem
