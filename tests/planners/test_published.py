"""Plans that nnU-Net made of published fingerprints, reproduced in every field that decides anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.planner_fields import differences, fields_of_ours, fields_of_theirs
from selfcfg.dataset import DatasetDescription
from selfcfg.fingerprint import Fingerprint
from selfcfg.planners.residual import plan_l
from selfcfg.planners.standard import plan

TASKS = {
    "standard": "001_BrainTumour 002_Heart 003_Liver 004_Hippocampus 005_Prostate 006_Lung 007_Pancreas "
    "008_HepaticVessel 009_Spleen 010_Colon",
    "residual-l": "001_BrainTumour 002_Heart 004_Hippocampus 005_Prostate",
}
PLANNERS = {"standard": plan, "residual-l": plan_l}


@pytest.mark.parametrize(
    ("planner", "task"), [(planner, task) for planner, tasks in TASKS.items() for task in tasks.split()]
)
def test_plan_equals_the_published_one(real_data: Callable[[str], Path], planner: str, task: str) -> None:
    folder = real_data("nnunet_plans") / f"msd_{task}__{planner}"
    made = PLANNERS[planner](
        Fingerprint.read(folder / "fingerprint.json"),
        DatasetDescription.read(folder / "dataset.json"),
        dataset=f"Dataset{task}",
    )
    published = json.loads((folder / "plans.json").read_text())
    assert differences(fields_of_ours(made), fields_of_theirs(published)) == []
    assert made.planner == planner
    assert made.memory_gb == {"standard": 8, "residual-l": 24}[planner]


def test_a_small_dataset_in_every_field(facts, describe):
    """260 cases of 36 x 50 x 35 voxels of 1 mm, two classes: the example of nnU-Net's plans.json, field by field.

    The patch is the image rounded up to multiples of 8. A batch may hold 5 percent of the voxels of the dataset:
    0.05 * 260 * 36 * 50 * 35 / (40 * 56 * 40) = 9.1 patches.
    """
    description = describe(classes=("anterior", "posterior"), n_training=260)
    made = plan(facts([(1.0, 1.0, 1.0)] * 260, [(36, 50, 35)] * 260), description, dataset="D")
    fields = fields_of_ours(made)
    configurations = fields.pop("configurations")
    del fields["foreground_intensity_properties_per_channel"]
    assert fields == {
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "original_median_spacing_after_transp": [1, 1, 1],
        "original_median_shape_after_transp": [36, 50, 35],
    }
    assert list(configurations) == ["2d", "3d_fullres"]
    assert configurations["3d_fullres"] == {
        "batch_size": 9,
        "patch_size": [40, 56, 40],
        "median_image_size_in_voxels": [36, 50, 35],
        "spacing": [1, 1, 1],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "n_stages": 4,
        "features_per_stage": [32, 64, 128, 256],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "kernel_sizes": [[3, 3, 3]] * 4,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * 3],
        "n_conv_per_stage": [2, 2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2, 2],
    }
    assert configurations["2d"]["patch_size"] == [56, 40]
    assert configurations["2d"]["batch_dice"] is True
