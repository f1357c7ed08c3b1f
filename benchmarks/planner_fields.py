"""What a plan decides, as the fields of nnU-Net's plans.json, from our plan and from theirs, for comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfcfg.plan import Configuration, Plan

SCHEMES = {
    "ct": "CTNormalization",
    "zscore": "ZScoreNormalization",
    "none": "NoNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}
NETWORKS = {"plain": "PlainConvUNet", "residual": "ResidualEncoderUNet"}
BLOCKS = {"plain": "n_conv_per_stage", "residual": "n_blocks_per_stage"}

NAMES = {
    "dataset_name",
    "plans_name",
    "image_reader_writer",
    "experiment_planner_used",
    "label_manager",
    "data_identifier",
    "preprocessor_name",
}
"""Fields of nnU-Net that say what something is called, and decide nothing."""

RESAMPLING = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
FIXED: dict[str, Any] = {
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": RESAMPLING,
    "resampling_fn_seg_kwargs": {**RESAMPLING, "is_seg": True, "order": 1},
    "resampling_fn_probabilities_kwargs": {**RESAMPLING, "order": 1},
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    "conv_bias": True,
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
"""Fields with the same value in every plan of nnU-Net; here they are how preprocessing and networks are made."""


def fields_of_ours(plan: Plan) -> dict[str, Any]:
    """The decisions of our plan under nnU-Net's names, lists in place of tuples."""
    return {
        "transpose_forward": list(plan.axis_order),
        "transpose_backward": [plan.axis_order.index(axis) for axis in range(3)],
        "original_median_spacing_after_transp": list(plan.median_spacing),
        "original_median_shape_after_transp": [round(edge) for edge in plan.median_shape],
        "foreground_intensity_properties_per_channel": {
            str(index): statistics.model_dump() for index, statistics in enumerate(plan.intensities)
        },
        "configurations": {name: _configuration(plan, name) for name in plan.configurations},
    }


def fields_of_theirs(plans: Mapping[str, Any]) -> dict[str, Any]:
    """The decisions of nnU-Net's plans.json in the same form.

    Raises:
        ValueError: a field of `FIXED` has another value.
    """
    found = _decisions(plans)
    found["configurations"] = {
        name: _decisions({**content, **_architecture(content)}) for name, content in found["configurations"].items()
    }
    return found


def differences(ours: Any, theirs: Any, place: str = "") -> list[str]:
    """Every field that is not exactly the same on both sides, with both values."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found: list[str] = []
        for key in sorted({*ours, *theirs}):
            found += differences(ours.get(key, "absent"), theirs.get(key, "absent"), f"{place}.{key}" if place else key)
        return found
    return [] if ours == theirs else [f"{place}: ours {ours}, theirs {theirs}"]


def _configuration(plan: Plan, name: str) -> dict[str, Any]:
    configuration = plan.configurations[name]
    if configuration.after:
        inherits = "3d_fullres"
        expected = plan.configurations[inherits]
        changed = {"after": None, "reasons": expected.reasons}
        inherited = configuration.model_copy(update=changed) == expected
        return {"inherits_from": inherits if inherited else "none", "previous_stage": configuration.after}
    refined = [other for other, c in plan.configurations.items() if c.after == name]
    return {**_of_network(configuration), **({"next_stage": refined[0]} if refined else {})}


def _of_network(configuration: Configuration) -> dict[str, Any]:
    topology = configuration.topology
    dimensions = topology.dimensions
    return {
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size),
        "median_image_size_in_voxels": list(configuration.median_shape),
        "spacing": list(configuration.spacing),
        "normalization_schemes": [SCHEMES[scheme] for scheme in configuration.normalization],
        "use_mask_for_norm": list(configuration.use_mask_for_norm),
        "batch_dice": configuration.batch_dice,
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{NETWORKS[topology.kind]}",
        "n_stages": topology.n_stages,
        "features_per_stage": list(topology.features),
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
        "kernel_sizes": [list(kernel) for kernel in topology.kernel_sizes],
        "strides": [list(stride) for stride in topology.strides],
        BLOCKS[topology.kind]: list(topology.encoder_blocks),
        "n_conv_per_stage_decoder": list(topology.decoder_blocks),
    }


def _architecture(content: Mapping[str, Any]) -> dict[str, Any]:
    """The network's fields without the two levels they lie under."""
    if "architecture" not in content:
        return {}
    architecture = dict(content["architecture"])
    return {**architecture.pop("arch_kwargs"), **architecture}


def _decisions(fields: Mapping[str, Any]) -> dict[str, Any]:
    for name in FIXED.keys() & fields.keys():
        if fields[name] != FIXED[name]:
            raise ValueError(f"{name}: {fields[name]!r} in nnU-Net's plan, {FIXED[name]!r} here")
    return {name: value for name, value in fields.items() if name not in NAMES | FIXED.keys() | {"architecture"}}
