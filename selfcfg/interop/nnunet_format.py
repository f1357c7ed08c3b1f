"""nnU-Net's plans.json as typed records: every key it has, with the values that selfcfg can honour.

Source: nnU-Net v2.8.1, ``PlansManager`` and ``ConfigurationManager``; the format is described in its documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from selfcfg.fingerprint import ChannelStatistics
from selfcfg.labels import LabelSchema
from selfcfg.plan import Axis, Flag, Length, Name, Normalization
from selfcfg.records import Problem, Record, refuse
from selfcfg.topology import MAX_STAGES, Count

Counts = Annotated[tuple[Count, ...], Field(max_length=MAX_STAGES)]
Resampler = Literal["resample_data_or_seg_to_shape"]
Scheme = Literal[
    "CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"
]
Reader = Literal["SimpleITKIO", "NibabelIO", "NaturalImage2DIO", "Tiff3DIO"]

SCHEMES: dict[Normalization, Scheme] = {
    "ct": "CTNormalization",
    "zscore": "ZScoreNormalization",
    "none": "NoNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}

RESAMPLING: Resampler = "resample_data_or_seg_to_shape"
NETWORKS = "dynamic_network_architectures.architectures."


class ImageResampling(Record):
    """How images are resampled: cubic splines, nearest neighbour along thick slices."""

    is_seg: Literal[False] = False
    order: Literal[3] = 3
    order_z: Literal[0] = 0
    force_separate_z: None = None


class LabelResampling(Record):
    """How label maps are resampled: linearly label by label, nearest neighbour along thick slices."""

    is_seg: Literal[True] = True
    order: Literal[1] = 1
    order_z: Literal[0] = 0
    force_separate_z: None = None


class ProbabilityResampling(Record):
    """How probabilities are resampled back: linearly, nearest neighbour along thick slices."""

    is_seg: Literal[False] = False
    order: Literal[1] = 1
    order_z: Literal[0] = 0
    force_separate_z: None = None


class NormArguments(Record):
    """Arguments of the instance normalisation."""

    eps: Annotated[float, Field(ge=1e-5, le=1e-5)] = 1e-5
    affine: Literal[True] = True


class ActivationArguments(Record):
    """Arguments of the leaky ReLU."""

    inplace: Flag = True
    negative_slope: Annotated[float, Field(ge=0.01, le=0.01)] = 0.01


class NetworkArguments(Record):
    """The arguments a network class is made with; decoder stages from the lowest resolution upwards."""

    n_stages: Count
    features_per_stage: Counts
    conv_op: Literal["torch.nn.modules.conv.Conv2d", "torch.nn.modules.conv.Conv3d"]
    kernel_sizes: tuple[Counts, ...]
    strides: tuple[Counts, ...]
    n_conv_per_stage: Counts | None = None
    n_blocks_per_stage: Counts | None = None
    n_conv_per_stage_decoder: Counts
    conv_bias: Literal[True] = True
    norm_op: Literal["torch.nn.modules.instancenorm.InstanceNorm2d", "torch.nn.modules.instancenorm.InstanceNorm3d"]
    norm_op_kwargs: NormArguments = NormArguments()
    dropout_op: None = None
    dropout_op_kwargs: dict[str, Any] | None = None
    nonlin: Literal["torch.nn.LeakyReLU", "torch.nn.modules.activation.LeakyReLU"] = "torch.nn.LeakyReLU"
    nonlin_kwargs: ActivationArguments = ActivationArguments()


class Architecture(Record):
    """The network class and its arguments."""

    network_class_name: Literal[
        "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet",
    ]
    arch_kwargs: NetworkArguments
    kw_requires_import: tuple[str, ...] = Field(
        ("conv_op", "norm_op", "dropout_op", "nonlin"), alias="_kw_requires_import"
    )

    @property
    def is_plain(self) -> bool:
        """Whether the encoder is made of stacked convolutions, not of residual blocks."""
        return self.network_class_name.endswith("PlainConvUNet")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse(self._problems(), self)
        return self

    def _problems(self) -> Iterator[Problem]:
        given = self.arch_kwargs
        wanted, other = "n_conv_per_stage", "n_blocks_per_stage"
        if not self.is_plain:
            wanted, other = other, wanted
        if getattr(given, wanted) is None:
            yield Problem(("arch_kwargs", wanted), "is missing")
        if getattr(given, other) is not None:
            yield Problem(("arch_kwargs", other), f"is no argument of {self.network_class_name.rpartition('.')[2]}")
        if given.n_stages != len(given.features_per_stage):
            found = f"{given.n_stages}, but features_per_stage has {len(given.features_per_stage)} entries"
            yield Problem(("arch_kwargs", "n_stages"), f"found {found}")
        for name in ("conv_op", "norm_op"):
            dimensions = getattr(given, name)[-2:].upper()
            if given.strides and f"{len(given.strides[0])}D" != dimensions:
                yield Problem(("arch_kwargs", name), f"is for {dimensions}, but strides hold {len(given.strides[0])}")


class NnunetConfiguration(Record):
    """One configuration, complete; before version 2.4 with the ``UNet_...`` keys in place of an architecture."""

    model_config = ConfigDict(allow_inf_nan=False)

    data_identifier: str = ""
    preprocessor_name: Literal["DefaultPreprocessor"] = "DefaultPreprocessor"
    batch_size: Count
    patch_size: Counts
    median_image_size_in_voxels: tuple[Length, ...]
    spacing: tuple[Length, ...]
    normalization_schemes: tuple[Scheme, ...]
    use_mask_for_norm: tuple[Flag, ...]
    resampling_fn_data: Resampler = RESAMPLING
    resampling_fn_seg: Resampler = RESAMPLING
    resampling_fn_data_kwargs: ImageResampling = ImageResampling()
    resampling_fn_seg_kwargs: LabelResampling = LabelResampling()
    resampling_fn_probabilities: Resampler = RESAMPLING
    resampling_fn_probabilities_kwargs: ProbabilityResampling = ProbabilityResampling()
    architecture: Architecture | None = None
    batch_dice: Flag
    next_stage: str | tuple[str, ...] | None = None
    previous_stage: str | None = None

    UNet_class_name: Literal["PlainConvUNet", "ResidualEncoderUNet"] | None = None
    UNet_base_num_features: Count | None = None
    unet_max_num_features: Count | None = None
    n_conv_per_stage_encoder: Counts | None = None
    n_conv_per_stage_decoder: Counts | None = None
    num_pool_per_axis: tuple[int, ...] | None = None
    pool_op_kernel_sizes: tuple[Counts, ...] | None = None
    conv_kernel_sizes: tuple[Counts, ...] | None = None

    @model_validator(mode="after")
    def _has_a_network(self) -> Self:
        missing = [name for name in OLD_NETWORK if getattr(self, name) is None]
        if self.architecture is None and missing:
            names = missing if len(missing) < len(OLD_NETWORK) else ["architecture"]
            refuse((Problem((name,), "is missing") for name in names), self)
        return self

    def network(self) -> dict[str, Any]:
        """The network as the fields of a `selfcfg.topology.Topology`."""
        if self.architecture is not None:
            given = self.architecture.arch_kwargs
            return {
                "kind": "plain" if self.architecture.is_plain else "residual",
                "features": given.features_per_stage,
                "kernel_sizes": given.kernel_sizes,
                "strides": given.strides,
                "encoder_blocks": given.n_conv_per_stage if self.architecture.is_plain else given.n_blocks_per_stage,
                "decoder_blocks": given.n_conv_per_stage_decoder[::-1],
            }
        first, most = self.UNet_base_num_features or 0, self.unet_max_num_features or 0
        stages = range(len(self.n_conv_per_stage_encoder or ()))
        return {
            "kind": "plain" if self.UNet_class_name == "PlainConvUNet" else "residual",
            "features": tuple(min(first * 2**stage, most) for stage in stages),
            "kernel_sizes": self.conv_kernel_sizes,
            "strides": self.pool_op_kernel_sizes,
            "encoder_blocks": self.n_conv_per_stage_encoder,
            "decoder_blocks": (self.n_conv_per_stage_decoder or ())[::-1],
        }


OLD_NETWORK = (
    "UNet_class_name", "UNet_base_num_features", "unet_max_num_features", "n_conv_per_stage_encoder",
    "n_conv_per_stage_decoder", "pool_op_kernel_sizes", "conv_kernel_sizes",
)  # fmt: skip
"""The keys that describe a network where there is no ``architecture``."""


class Extras(Record):
    """What a plan of selfcfg holds and nnU-Net's format has no key for; nnU-Net passes over it.

    Args:
        memory_gb: the accelerator memory it was planned for.
        median_shape: median shape after cropping, not rounded.
        mirror_axes: axes of the plan's order along which mirroring is allowed; nnU-Net mirrors along all.
        memory_bytes: forecast memory of a training step by configuration.
        labels: meaning of the label values.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    memory_gb: Length
    median_shape: tuple[Length, Length, Length]
    mirror_axes: tuple[Axis, ...]
    memory_bytes: dict[str, int]
    labels: LabelSchema


class NnunetPlans(Record):
    """The content of plans.json, configurations complete; keys that other tools add at the top are passed over."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    dataset_name: str
    plans_name: str
    original_median_spacing_after_transp: tuple[Length, Length, Length]
    original_median_shape_after_transp: tuple[Length, Length, Length]
    image_reader_writer: Reader
    transpose_forward: tuple[Axis, Axis, Axis]
    transpose_backward: tuple[Axis, Axis, Axis]
    configurations: Annotated[dict[Name, NnunetConfiguration], Field(min_length=1)]
    experiment_planner_used: str = ""
    label_manager: Literal["LabelManager"] = "LabelManager"
    foreground_intensity_properties_per_channel: dict[str, ChannelStatistics]
    selfcfg: Extras | None = None

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, content: Any) -> Any:
        new, old = "foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality"
        if isinstance(content, dict) and new not in content and old in content:
            content = {**content, new: content[old]}
        return content

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse(self._problems(), self)
        return self

    def _problems(self) -> Iterator[Problem]:
        forward, backward = self.transpose_forward, self.transpose_backward
        if sorted(forward) != [0, 1, 2]:
            yield Problem(("transpose_forward",), f"must hold 0, 1 and 2 once each, found {list(forward)}")
        elif tuple(forward[axis] for axis in backward) != (0, 1, 2):
            yield Problem(
                ("transpose_backward",), f"must undo transpose_forward {list(forward)}, found {list(backward)}"
            )
