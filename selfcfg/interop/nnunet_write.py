"""Plans of ours written as nnU-Net's plans.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfcfg.dataset import DatasetDescription
from selfcfg.errors import UsageError
from selfcfg.files import read_json, write_json
from selfcfg.inheritance import INHERITS_FROM
from selfcfg.interop.nnunet_format import (
    NETWORKS,
    RESAMPLING,
    SCHEMES,
    Architecture,
    Extras,
    ImageResampling,
    LabelResampling,
    NetworkArguments,
    ProbabilityResampling,
)
from selfcfg.plan import Configuration, Plan
from selfcfg.project import Project

PLANS_NAMES = {
    "standard": "nnUNetPlans",
    "residual-m": "nnUNetResEncUNetMPlans",
    "residual-l": "nnUNetResEncUNetLPlans",
    "residual-xl": "nnUNetResEncUNetXLPlans",
}
"""What nnU-Net calls the plans that our planners make by its rules."""

PLANNERS = {
    "standard": "ExperimentPlanner",
    "residual-m": "nnUNetPlannerResEncM",
    "residual-l": "nnUNetPlannerResEncL",
    "residual-xl": "nnUNetPlannerResEncXL",
}
"""What nnU-Net calls the planners whose rules ours follow."""

READERS = {
    ".nii.gz": "SimpleITKIO",
    ".nrrd": "SimpleITKIO",
    ".mha": "SimpleITKIO",
    ".nii": "NibabelIO",
    ".png": "NaturalImage2DIO",
    ".bmp": "NaturalImage2DIO",
    ".tif": "NaturalImage2DIO",
    ".tiff": "Tiff3DIO",
}
"""The reader that nnU-Net takes for a file ending; for volumes in ``.tif`` it is that of ``.tiff``."""


def plans_name(planner: str, suffix: str = "") -> str:
    """What nnU-Net is to call the plans of one of our planners; the suffix is that of `Target`."""
    return PLANS_NAMES.get(planner, planner) + suffix.replace("-", "_")


def to_nnunet(plan: Plan, description: DatasetDescription, name: str) -> dict[str, Any]:
    """The content of nnU-Net's plans.json for a plan.

    What the format has no key for goes under ``selfcfg``, which nnU-Net passes over.

    Args:
        plan: ours.
        description: dataset.json; the reader follows from it.
        name: nnU-Net's name for the plans, by which its commands find them.

    Raises:
        UsageError: nnU-Net cannot read the images of this dataset.
    """
    first, second, third = (plan.axis_order.index(axis) for axis in range(3))
    extras = Extras(
        memory_gb=plan.memory_gb,
        median_shape=plan.median_shape,
        mirror_axes=plan.mirror_axes,
        memory_bytes={name: c.memory_bytes for name, c in plan.configurations.items() if c.memory_bytes is not None},
        labels=plan.labels,
    )
    return {
        "dataset_name": plan.dataset,
        "plans_name": name,
        "original_median_spacing_after_transp": list(plan.median_spacing),
        "original_median_shape_after_transp": [round(edge) for edge in plan.median_shape],
        "image_reader_writer": _reader(plan, description),
        "transpose_forward": list(plan.axis_order),
        "transpose_backward": [first, second, third],
        "configurations": _their_configurations(plan, name),
        "experiment_planner_used": PLANNERS.get(plan.planner, plan.planner),
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(index): statistics.model_dump() for index, statistics in enumerate(plan.intensities)
        },
        "selfcfg": extras.model_dump(mode="json"),
    }


def export_plans(project: Project, plan: Plan, name: str) -> Path:
    """Writes a dataset's plan as nnU-Net's plans.json, where nnU-Net looks for it, and returns the file.

    Raises:
        UsageError: there is a file of that name that selfcfg did not write.
    """
    file = project.preprocessed / f"{name}.json"
    if file.is_file():
        there = read_json(file)
        if not isinstance(there, dict) or "selfcfg" not in there:
            raise UsageError(f"write {file}", "it is there already, and selfcfg did not write it", "move it away first")
    write_json(file, to_nnunet(plan, project.dataset.description, name))
    return file


def _reader(plan: Plan, description: DatasetDescription) -> str:
    given, ending = description.overwrite_image_reader_writer, description.file_ending
    if given not in (None, "None"):
        return str(given)
    if ending not in READERS:
        raise UsageError("write for nnU-Net", f"nnU-Net reads no {ending} files", "convert the images to .png first")
    return "Tiff3DIO" if ending == ".tif" and plan.dimensions == 3 else READERS[ending]


def _their_configurations(plan: Plan, name: str) -> dict[str, Any]:
    parents = plan.parents()
    found: dict[str, Any] = {}
    for key, configuration in plan.configurations.items():
        if key in parents:
            found[key] = {INHERITS_FROM: parents[key]}
        else:
            # nnU-Net's residual planners share what its first planner preprocessed
            shared = name in PLANS_NAMES.values() and key in ("2d", "3d_fullres")
            found[key] = _their_configuration(configuration, f"{'nnUNetPlans' if shared else name}_{key}")
        if configuration.after is not None:
            found[key]["previous_stage"] = configuration.after
    for key, content in found.items():
        following = [other for other, configuration in plan.configurations.items() if configuration.after == key]
        if following:
            content["next_stage"] = following if len(following) > 1 else following[0]
    return found


def _their_configuration(configuration: Configuration, data_identifier: str) -> dict[str, Any]:
    topology, dimensions = configuration.topology, configuration.dimensions
    plain = topology.kind == "plain"
    arguments: dict[str, Any] = {
        "n_stages": topology.n_stages,
        "features_per_stage": topology.features,
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": topology.kernel_sizes,
        "strides": topology.strides,
        "n_conv_per_stage" if plain else "n_blocks_per_stage": topology.encoder_blocks,
        "n_conv_per_stage_decoder": topology.decoder_blocks[::-1],
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
    }
    architecture = Architecture.model_validate(
        {
            "network_class_name": f"{NETWORKS}unet.{'PlainConvUNet' if plain else 'ResidualEncoderUNet'}",
            "arch_kwargs": NetworkArguments.model_validate(arguments),
        }
    )
    network = architecture.model_dump(mode="json", by_alias=True)
    del network["arch_kwargs"]["n_blocks_per_stage" if plain else "n_conv_per_stage"]
    del network["arch_kwargs"]["nonlin_kwargs"]["negative_slope"]  # the default of the class it goes to
    return {
        "data_identifier": data_identifier,
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size),
        "median_image_size_in_voxels": list(configuration.median_shape),
        "spacing": list(configuration.spacing),
        "normalization_schemes": [SCHEMES[scheme] for scheme in configuration.normalization],
        "use_mask_for_norm": list(configuration.use_mask_for_norm),
        "resampling_fn_data": RESAMPLING,
        "resampling_fn_seg": RESAMPLING,
        "resampling_fn_probabilities": RESAMPLING,
        "resampling_fn_data_kwargs": ImageResampling().model_dump(),
        "resampling_fn_seg_kwargs": LabelResampling().model_dump(),
        "resampling_fn_probabilities_kwargs": ProbabilityResampling().model_dump(),
        "architecture": network,
        "batch_dice": configuration.batch_dice,
    }
