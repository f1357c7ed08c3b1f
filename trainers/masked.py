"""Masked reconstruction: the network paints what is hidden of an image from what is left."""

from __future__ import annotations

from typing import Any, ClassVar

from selfcfg.engine.trainer import Settings
from selfcfg.trainers.pretext.masked import Hiding, MaskedTask
from selfcfg.trainers.pretext.task import Task
from selfcfg.trainers.pretraining import PretrainingSettings, TaskPretraining


class MaskedSettings(Hiding, PretrainingSettings):
    """The settings of pretraining, and what is hidden."""


class Masked(TaskPretraining[MaskedSettings]):
    """Pretrains encoder and decoder by the reconstruction of hidden blocks of images.

    Source: see `selfcfg.trainers.pretext.masked.MaskedTask`, which it is alone.
    """

    name: ClassVar[str] = "masked"
    splits: ClassVar[bool] = True
    settings_type: ClassVar[type[Settings]] = MaskedSettings
    task_type: ClassVar[type[Task[Any]]] = MaskedTask
