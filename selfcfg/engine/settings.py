"""The settings that every trainer has."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from selfcfg.engine.augmentation.transforms import REFERENCE, Augmentation
from selfcfg.records import Names, Record


class Settings(Record):
    """What every trainer can be told with ``--set``; a subclass adds the settings of its own algorithm."""

    model_config = ConfigDict(allow_inf_nan=False)

    epochs: int = Field(1000, ge=1, description="number of epochs")
    iterations_per_epoch: int = Field(250, ge=1, description="optimiser steps in an epoch")
    validation_iterations: int = Field(50, ge=0, description="validation batches after an epoch")
    batch_size: int | None = Field(None, ge=1, description="patches in a batch; default: the plan's")
    patch_size: tuple[int, ...] | None = Field(None, description="patch in voxels; default: the plan's")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="SGD with Nesterov momentum, or AdamW")
    learning_rate: float = Field(0.01, gt=0, description="learning rate at the start of the schedule")
    momentum: float = Field(0.99, ge=0, lt=1, description="Nesterov momentum of SGD; AdamW takes its usual betas")
    weight_decay: float = Field(3e-5, ge=0, description="L2 penalty on all parameters")
    schedule_power: float = Field(0.9, gt=0, description="power of the polynomial decay to zero over the epochs")
    warmup_epochs: int = Field(0, ge=0, description="epochs in which the learning rate rises linearly from zero")
    taken_rate: float = Field(
        1.0, gt=0, le=1, description="learning rate of parts taken over with --init, as a share of that of the others"
    )
    frozen_epochs: int = Field(0, ge=0, description="epochs in which parts taken over with --init stay as they are")
    taken_parts: Names | None = Field(
        None, description="parts taken over with --init, such as encoder; default: all that fit"
    )
    clip_norm: float | None = Field(12.0, gt=0, description="largest gradient norm; none: no clipping")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are averaged for one step")
    foreground_fraction: float = Field(0.33, ge=0, le=1, description="share of patches centred on a foreground class")
    augmentation: Literal["reference", "none"] = Field("reference", description="nnU-Net's list of transforms, or none")
    transforms: Augmentation = Field(REFERENCE, description="how often each transform is drawn, and its range")
    executor: Literal["torch", "batchgenerators"] = Field("torch", description="what applies the drawn augmentation")
    workers: int = Field(1, ge=0, description="processes that load patches; 0: the training process itself")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where the device computes in it, and rightly for this network"
    )
    ema: float | None = Field(None, gt=0, lt=1, description="decay of a moving average of the weights; none: off")
    patience: int | None = Field(
        None, ge=1, description="epochs without a better validation score before stopping early"
    )
    tensorboard: bool = Field(False, description="also write the curves for TensorBoard, beside log.jsonl")

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be below epochs ({self.epochs}), found {self.warmup_epochs}")
        return self

    @model_validator(mode="after")
    def _takes_the_encoder(self) -> Self:
        if self.taken_parts is not None and "encoder" not in self.taken_parts:
            raise ValueError(f"taken_parts must name the encoder, on which the others build, found {self.taken_parts}")
        return self
