"""Plans that nnU-Net made of published fingerprints, reproduced in every field that decides anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfcfg.dataset import DatasetDescription
from selfcfg.fingerprint import Fingerprint
from selfcfg.plan import Configuration, Plan
from selfcfg.planners.residual import plan_l
from selfcfg.planners.standard import plan

TASKS = {
    "standard": "001_BrainTumour 002_Heart 003_Liver 004_Hippocampus 005_Prostate 006_Lung 007_Pancreas "
    "008_HepaticVessel 009_Spleen 010_Colon",
    "residual-l": "001_BrainTumour 002_Heart 004_Hippocampus 005_Prostate",
}
PLANNERS = {"standard": plan, "residual-l": plan_l}
SCHEMES = {"ct": "CTNormalization", "zscore": "ZScoreNormalization"}


def as_nnunet(made: Plan) -> dict[str, Any]:
    """The fields of nnU-Net's plans.json that a plan decides."""
    return {
        "transpose_forward": list(made.axis_order),
        "original_median_spacing_after_transp": list(made.median_spacing),
        "original_median_shape_after_transp": [round(edge) for edge in made.median_shape],
        "foreground_intensity_properties_per_channel": {
            str(index): statistics.model_dump() for index, statistics in enumerate(made.intensities)
        },
        "configurations": {name: configuration_fields(c) for name, c in made.configurations.items()},
    }


def configuration_fields(configuration: Configuration) -> dict[str, Any]:
    if configuration.after:
        return {"inherits_from": "3d_fullres", "previous_stage": configuration.after}
    topology = configuration.topology
    blocks = "n_conv_per_stage" if topology.kind == "plain" else "n_blocks_per_stage"
    return {
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size),
        "median_image_size_in_voxels": list(configuration.median_shape),
        "spacing": list(configuration.spacing),
        "normalization_schemes": [SCHEMES[scheme] for scheme in configuration.normalization],
        "use_mask_for_norm": list(configuration.use_mask_for_norm),
        "batch_dice": configuration.batch_dice,
        "network": "PlainConvUNet" if topology.kind == "plain" else "ResidualEncoderUNet",
        "n_stages": topology.n_stages,
        "features_per_stage": list(topology.features),
        "kernel_sizes": [list(kernel) for kernel in topology.kernel_sizes],
        "strides": [list(stride) for stride in topology.strides],
        blocks: list(topology.encoder_blocks),
        "n_conv_per_stage_decoder": list(topology.decoder_blocks),
    }


def published_fields(published: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The published plan in the same form; `wanted` names the fields."""
    configurations = {}
    for name, content in published["configurations"].items():
        architecture = content.get("architecture", {"arch_kwargs": {}, "network_class_name": ""})
        flat = {**content, **architecture["arch_kwargs"], "network": architecture["network_class_name"].split(".")[-1]}
        configurations[name] = {field: flat.get(field) for field in wanted["configurations"].get(name, content)}
    return {field: published[field] for field in wanted if field != "configurations"} | {
        "configurations": configurations
    }


@pytest.mark.parametrize(
    ("planner", "task"), [(planner, task) for planner, tasks in TASKS.items() for task in tasks.split()]
)
def test_plan_equals_the_published_one(real_data: Callable[[str], Path], planner: str, task: str) -> None:
    folder = real_data("nnunet_plans") / f"msd_{task}__{planner}"
    published = json.loads((folder / "plans.json").read_text())
    made = PLANNERS[planner](
        Fingerprint.read(folder / "fingerprint.json"),
        DatasetDescription.read(folder / "dataset.json"),
        dataset=f"Dataset{task}",
    )
    fields = as_nnunet(made)
    assert fields == published_fields(published, fields)
    assert made.planner == planner
    assert made.memory_gb == {"standard": 8, "residual-l": 24}[planner]
