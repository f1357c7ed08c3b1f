"""Momentum contrast: two views of one image are to be alike, and unlike all other images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from selfcfg.engine.trainer import Need, Settings
from selfcfg.trainers.momentum import MomentumSettings
from selfcfg.trainers.pretext.moco import Moco
from selfcfg.trainers.pretext.task import Task
from selfcfg.trainers.pretraining import PROBE, PROBED, UNLABELLED, TaskPretraining


class Contrastive(TaskPretraining[MomentumSettings]):
    """Pretrains the encoder by momentum contrast of two views of each patch (MoCo v2).

    Source: see `selfcfg.trainers.pretext.moco.Moco`, which it is alone; how views differ is a setting here.
    """

    name: ClassVar[str] = "contrastive"
    splits: ClassVar[bool] = True
    settings_type: ClassVar[type[Settings]] = MomentumSettings
    task_type: ClassVar[type[Task[Any]]] = Moco
    needs: ClassVar[Mapping[str, Need]] = {
        UNLABELLED: replace(Moco.need, transforms=None),
        PROBE: PROBED,
    }
    exports: ClassVar[tuple[str, ...]] = ("encoder",)
