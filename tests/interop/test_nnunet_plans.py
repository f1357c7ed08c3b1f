"""Plans in nnU-Net's format: written as it writes them, read as it reads them, and refused where it does more."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfcfg.dataset import DatasetDescription
from selfcfg.errors import DataError, UsageError
from selfcfg.fingerprint import ChannelStatistics, Fingerprint
from selfcfg.interop.nnunet_read import from_nnunet, read_plans
from selfcfg.interop.nnunet_write import plans_name, to_nnunet
from selfcfg.plan import Plan
from selfcfg.planners.residual import plan_l, plan_m
from selfcfg.planners.standard import plan as plan_standard

PLANNERS = {"standard": plan_standard, "residual-l": plan_l}
PUBLISHED = [
    f"{task}__{planner}"
    for planner, tasks in {
        "standard": "001_BrainTumour 002_Heart 003_Liver 004_Hippocampus 005_Prostate 006_Lung 007_Pancreas "
        "008_HepaticVessel 009_Spleen 010_Colon",
        "residual-l": "001_BrainTumour 002_Heart 004_Hippocampus 005_Prostate",
    }.items()
    for task in tasks.split()
]
Content = dict[str, Any]
NETWORK = ("configurations", "3d_fullres", "architecture")
ARGUMENTS = (*NETWORK, "arch_kwargs")


def facts(spacings: list[tuple[float, ...]], shapes: list[tuple[int, ...]], channels: int) -> Fingerprint:
    statistics = ChannelStatistics(
        max=900.5, mean=40.25, median=38, min=-1000, percentile_00_5=-120, percentile_99_5=310, std=55
    )
    return Fingerprint(
        spacings=spacings,
        shapes_after_crop=shapes,
        foreground_intensity_properties_per_channel={str(index): statistics for index in range(channels)},
        median_relative_size_after_cropping=0.5,
    )


@pytest.fixture(params=PUBLISHED)
def published(request: pytest.FixtureRequest, real_data: Callable[[str], Path]) -> Path:
    return real_data("nnunet_plans") / f"msd_{request.param}"


@pytest.fixture
def description() -> DatasetDescription:
    return DatasetDescription(
        channel_names={"0": "CT", "1": "PET"},
        labels={"background": 0, "liver": 1, "tumour": 2},
        numTraining=40,
        file_ending=".nii.gz",
    )


@pytest.fixture
def ours(description: DatasetDescription) -> Plan:
    """The plan of large volumes whose slices follow each other along the last axis: axes are turned, with a cascade."""
    sizes = [(500, 480, 120 + 15 * index) for index in range(4)]
    measured = facts([(0.8, 0.8, 3.0 + index) for index in range(4)], sizes, channels=2)
    return plan_m(measured, description, dataset="Dataset001_Test", memory_gb=11)


@pytest.fixture
def theirs(ours: Plan, description: DatasetDescription) -> Content:
    """Plans as nnU-Net itself would have written them."""
    content = json.loads(json.dumps(to_nnunet(ours, description, "nnUNetResEncUNetMPlans")))
    del content["selfcfg"]
    return content


def numbers(plan: Plan) -> Content:
    """Everything of a plan but where it came from."""
    content = plan.model_dump(exclude={"planner", "reasons"})
    for configuration in content["configurations"].values():
        del configuration["reasons"]
    return content


def change(content: Content, place: tuple[str, ...], value: Any) -> Content:
    changed = copy.deepcopy(content)
    within = changed
    for step in place[:-1]:
        within = within[step]
    if value is KeyError:
        del within[place[-1]]
    else:
        within[place[-1]] = value
    return changed


def test_our_plans_equal_the_published_ones_field_for_field(published: Path) -> None:
    planner = published.name.partition("__")[2]
    description = DatasetDescription.read(published / "dataset.json")
    content = json.loads((published / "plans.json").read_text())
    facts = Fingerprint.read(published / "fingerprint.json")
    made = PLANNERS[planner](facts, description, dataset=content["dataset_name"])
    written = json.loads(json.dumps(to_nnunet(made, description, plans_name(planner))))
    del written["selfcfg"]
    assert written == content


def test_published_plans_are_read_with_every_number(published: Path) -> None:
    planner = published.name.partition("__")[2]
    description = DatasetDescription.read(published / "dataset.json")
    read = read_plans(published / "plans.json", description, "Dataset001_Test")
    content = json.loads((published / "plans.json").read_text())
    again = json.loads(json.dumps(to_nnunet(read, description, plans_name(planner))))
    told = {"dataset_name", "experiment_planner_used", "selfcfg"}
    assert {k: v for k, v in again.items() if k not in told} == {k: v for k, v in content.items() if k not in told}


def test_ours_to_theirs_to_ours_keeps_every_number(ours: Plan, description: DatasetDescription) -> None:
    content = json.loads(json.dumps(to_nnunet(ours, description, "nnUNetPlans_11GB")))
    read = from_nnunet(content, description, ours.dataset, "plans.json")
    assert numbers(read) == numbers(ours)
    assert {name: read.preprocessing_hash(name) for name in read.configurations} == {
        name: ours.preprocessing_hash(name) for name in ours.configurations
    }


def test_what_their_format_lacks_follows_what_nnunet_does(theirs: Content, description: DatasetDescription) -> None:
    read = from_nnunet(theirs, description, "Dataset001_Test", "plans.json")
    assert (read.memory_gb, read.mirror_axes, read.dimensions) == (8, (0, 1, 2), 3)
    assert read.planner == "nnUNetResEncUNetMPlans"
    assert "plans.json" in read.reasons[0].why


def test_axes_are_turned_and_decoders_run_upwards_as_in_theirs(ours: Plan, theirs: Content) -> None:
    assert theirs["transpose_forward"] == [2, 0, 1] and theirs["transpose_backward"] == [1, 2, 0]
    assert theirs["configurations"]["3d_lowres"]["next_stage"] == "3d_cascade_fullres"
    assert theirs["configurations"]["3d_cascade_fullres"] == {
        "inherits_from": "3d_fullres",
        "previous_stage": "3d_lowres",
    }
    uneven = ours.configurations["3d_lowres"]
    blocks = tuple(range(1, uneven.topology.n_stages))
    uneven = uneven.model_copy(update={"topology": uneven.topology.model_copy(update={"decoder_blocks": blocks})})
    changed = ours.model_copy(update={"configurations": {"3d_lowres": uneven}})
    description = DatasetDescription(
        channel_names={"0": "CT", "1": "PET"}, labels=ours.labels.labels, numTraining=1, file_ending=".nrrd"
    )
    content = to_nnunet(changed, description, "x")
    written = content["configurations"]["3d_lowres"]["architecture"]["arch_kwargs"]["n_conv_per_stage_decoder"]
    assert list(written) == list(blocks[::-1])
    assert numbers(from_nnunet(content, description, ours.dataset, "p")) == numbers(changed)


def test_pictures_stay_pictures(description: DatasetDescription) -> None:
    made = plan_standard(facts([(999, 1, 1)], [(1, 256, 320)], channels=2), description, dataset="Dataset001_Test")
    content = to_nnunet(made, description, "nnUNetPlans")
    del content["selfcfg"]
    read = from_nnunet(content, description, made.dataset, "plans.json")
    assert (read.dimensions, read.mirror_axes) == (2, (1, 2))
    assert numbers(read) == {**numbers(made), "configurations": numbers(read)["configurations"]}


def test_plans_of_before_2_4_are_read(theirs: Content, description: DatasetDescription) -> None:
    old = copy.deepcopy(theirs)
    old["foreground_intensity_properties_by_modality"] = old.pop("foreground_intensity_properties_per_channel")
    for configuration in old["configurations"].values():
        if "architecture" not in configuration:
            continue
        arguments = configuration.pop("architecture")["arch_kwargs"]
        configuration |= {
            "UNet_class_name": "ResidualEncoderUNet",
            "UNet_base_num_features": 32,
            "unet_max_num_features": max(arguments["features_per_stage"]),
            "n_conv_per_stage_encoder": arguments["n_blocks_per_stage"],
            "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
            "num_pool_per_axis": [5, 5, 5],
            "pool_op_kernel_sizes": arguments["strides"],
            "conv_kernel_sizes": arguments["kernel_sizes"],
        }
    read = from_nnunet(old, description, "Dataset001_Test", "plans.json")
    assert numbers(read) == numbers(from_nnunet(theirs, description, "Dataset001_Test", "plans.json"))


def test_inheritance_replaces_whole_values_as_in_nnunet(theirs: Content, description: DatasetDescription) -> None:
    theirs["configurations"]["big"] = {"inherits_from": "3d_fullres", "batch_size": 7, "data_identifier": "x"}
    read = from_nnunet(theirs, description, "Dataset001_Test", "plans.json")
    full = read.configurations["3d_fullres"]
    assert read.configurations["big"] == full.model_copy(update={"batch_size": 7})
    theirs["configurations"]["big"]["architecture"] = {}
    with pytest.raises(DataError, match=r"configurations\.big\.architecture\.network_class_name: is missing"):
        from_nnunet(theirs, description, "Dataset001_Test", "plans.json")


REFUSED: list[tuple[tuple[str, ...], Any, str]] = [
    ((*NETWORK, "network_class_name"), "my.Transformer", r"network_class_name: found 'my.Transformer', known: .*Plain"),
    ((*ARGUMENTS, "norm_op"), "torch.nn.modules.batchnorm.BatchNorm3d", "norm_op: found 'torch.*Inst"),
    ((*ARGUMENTS, "norm_op"), "torch.nn.modules.instancenorm.InstanceNorm2d", "norm_op: is for 2D, but strides hold 3"),
    ((*ARGUMENTS, "dropout_op"), "torch.nn.Dropout3d", "dropout_op: must be None, found"),
    ((*ARGUMENTS, "nonlin"), "os.system", "nonlin: found 'os.system'"),
    ((*ARGUMENTS, "conv_bias"), False, "conv_bias: must be True, found False"),
    ((*ARGUMENTS, "norm_op_kwargs"), {"eps": 1e-3}, r"norm_op_kwargs\.eps: must be less"),
    ((*ARGUMENTS, "stem_channels"), 8, "arch_kwargs.stem_channels: unknown key"),
    ((*ARGUMENTS, "n_stages"), 99, "n_stages: found 99, but features_per_stage has"),
    ((*ARGUMENTS, "n_blocks_per_stage"), KeyError, "n_blocks_per_stage: is missing"),
    ((*ARGUMENTS, "n_conv_per_stage"), [2], "n_conv_per_stage: is no argument of ResidualEncoderUNet"),
    ((*ARGUMENTS, "strides"), [[1, 1, 1]], r"arch_kwargs\.strides: needs one entry for each"),
    ((*ARGUMENTS, "features_per_stage"), ["a"], r"features_per_stage\[0\]: must be a valid integer, found 'a'"),
    ((*ARGUMENTS, "features_per_stage"), [1] * 99, "features_per_stage: must have at most 32 items"),
    (("configurations", "3d_fullres", "resampling_fn_data"), "resample_torch_fornnunet", "found 'resample_torch_f"),
    (
        ("configurations", "3d_fullres", "resampling_fn_data_kwargs", "order"),
        1,
        r"resampling_fn_data_kwargs\.order: must be 3, found 1",
    ),
    (("configurations", "3d_fullres", "preprocessor_name"), "MyOwn", "preprocessor_name: .*'MyOwn', known: DefaultPre"),
    (("configurations", "3d_fullres", "normalization_schemes"), ["CTNormalisation"] * 2, "did you mean 'CTNorm"),
    (("configurations", "3d_fullres", "normalization_schemes"), ["NoNormalization"], "use_mask_for_norm: needs 1 val"),
    (("configurations", "3d_fullres", "patch_size"), [1, 2, 3], r"3d_fullres\.patch_size\[1\]: must be a multiple of"),
    (("configurations", "3d_fullres", "patch_sise"), [1, 2, 3], "patch_sise: unknown key, did you mean 'patch_size'"),
    (("configurations", "3d_fullres", "batch_size"), "2", "batch_size: must be a valid integer, found '2'"),
    (("configurations", "3d_fullres", "architecture"), KeyError, "3d_fullres.architecture: is missing"),
    (
        ("configurations", "3d_cascade_fullres", "previous_stage"),
        "3d_low",
        r"3d_cascade_fullres\.previous_stage: found '3d_low', did you mean '3d_lowres'",
    ),
    (("configurations", "3d_cascade_fullres", "inherits_from"), "3d_full", "inherits_from: found '3d_full', did you"),
    (("configurations", "../../up"), {"inherits_from": "2d"}, "must match pattern"),
    (("configurations",), [], "no configurations"),
    (("transpose_forward",), [0, 1, 1], "transpose_forward: must hold 0, 1 and 2 once each"),
    (("transpose_backward",), [0, 1, 2], "transpose_backward: must undo transpose_forward"),
    (("image_reader_writer",), "NibabelIOWithReorient", "image_reader_writer: found 'NibabelIOWithReorient'"),
    (("label_manager",), "MyLabels", "label_manager: found 'MyLabels', known: LabelManager"),
    (("plans_name",), "../..", "has no letter or digit"),
    (("plans_name",), 5, "plans_name: must be a valid string, found 5"),
    (("foreground_intensity_properties_per_channel", "1"), KeyError, "holds channels 0, but dataset.json names 2"),
    (("foreground_intensity_properties_per_channel", "0", "std"), float("nan"), "std: must be a finite number"),
    (("original_median_spacing_after_transp",), [1, 1], r"original_median_spacing_after_transp\[2\]: is missing"),
]


@pytest.mark.parametrize(("place", "value", "message"), REFUSED)
def test_what_we_cannot_honour_is_refused_with_its_place(
    theirs: Content, description: DatasetDescription, place: tuple[str, ...], value: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        from_nnunet(change(theirs, place, value), description, "Dataset001_Test", "plans.json")
    assert str(caught.value).startswith("plans.json: ")


def test_plans_of_other_labels_are_refused(ours: Plan, description: DatasetDescription) -> None:
    content = to_nnunet(ours, description, "nnUNetPlans")
    fewer = description.model_copy(update={"labels": {"background": 0, "liver": 1}})
    with pytest.raises(DataError, match=r"selfcfg\.labels: holds the values \[0, 1, 2\], but dataset.json \[0, 1\]"):
        from_nnunet(content, fewer, "Dataset001_Test", "plans.json")


@pytest.mark.parametrize("content", [None, [], "plans", {}, {"configurations": {"2d": 3}}])
def test_anything_else_is_refused(content: Any, description: DatasetDescription) -> None:
    with pytest.raises(DataError, match=r"^plans\.json: "):
        from_nnunet(content, description, "Dataset001_Test", "plans.json")


def test_a_huge_file_is_not_read(tmp_path: Path, description: DatasetDescription) -> None:
    with (tmp_path / "plans.json").open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(DataError, match="1073741824 bytes"):
        read_plans(tmp_path / "plans.json", description, "Dataset001_Test")


def test_a_name_is_made_safe_before_it_names_a_file(theirs: Content, description: DatasetDescription) -> None:
    read = from_nnunet({**theirs, "plans_name": "../My plans: 24 GB"}, description, "Dataset001_Test", "plans.json")
    assert read.planner == "My_plans_24_GB"


def test_pictures_that_nnunet_cannot_read_are_refused(ours: Plan, description: DatasetDescription) -> None:
    with pytest.raises(UsageError, match=r"nnU-Net reads no \.jpg files"):
        to_nnunet(ours, description.model_copy(update={"file_ending": ".jpg"}), "nnUNetPlans")
