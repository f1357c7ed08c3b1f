"""Model folders as nnU-Net writes them, with networks of its own library and checkpoints with all that it stores."""

from __future__ import annotations

import json
import pydoc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfcfg.dataset import DatasetDescription
from selfcfg.interop.nnunet_write import to_nnunet
from selfcfg.labels import LabelSchema
from selfcfg.plan import Plan
from selfcfg.testing import small_plan
from selfcfg.topology import Topology

Content = dict[str, Any]
FIRST, SECOND = "3d_lowres", "3d_cascade_fullres"


def plan_of(kind: str = "plain", dimensions: int = 3, labels: LabelSchema | None = None) -> Plan:
    """A small plan whose network is unequal everywhere, so that a mixed-up order shows."""
    plan = small_plan(dimensions, labels) if labels else small_plan(dimensions)
    topology = Topology(
        kind=kind,
        features=(4, 6, 8),
        kernel_sizes=((1, 3, 3)[3 - dimensions :], (3,) * dimensions, (3,) * dimensions),
        strides=((1,) * dimensions, (1, 2, 2)[3 - dimensions :], (2,) * dimensions),
        encoder_blocks=(1, 3, 2),
        decoder_blocks=(2, 1),
    )
    configuration = plan.configurations["small"].model_copy(update={"topology": topology})
    return plan.model_copy(update={"configurations": {"small": configuration}})


def cascade_plan() -> Plan:
    plan = plan_of()
    first = plan.configurations["small"]
    second = first.model_copy(update={"after": FIRST})
    return plan.model_copy(update={"configurations": {FIRST: first, SECOND: second}})


def description_of(plan: Plan) -> DatasetDescription:
    return DatasetDescription(
        channel_names={str(index): name for index, name in enumerate(plan.channels)},
        labels=plan.labels.labels,
        regions_class_order=plan.labels.regions_class_order,
        numTraining=10,
        file_ending=".nii.gz" if plan.dimensions == 3 else ".png",
    )


def their_network(content: Content, configuration: str, in_channels: int, n_outputs: int) -> nn.Module:
    """The network that nnU-Net makes of the content of plans.json, with weights that are all different."""
    said = content["configurations"][configuration]
    said = content["configurations"].get(said.get("inherits_from"), {}) | said
    arguments = dict(said["architecture"]["arch_kwargs"])
    for key in said["architecture"]["_kw_requires_import"]:
        arguments[key] = arguments[key] and pydoc.locate(arguments[key])
    kind: Any = pydoc.locate(said["architecture"]["network_class_name"])
    network: nn.Module = kind(input_channels=in_channels, num_classes=n_outputs, deep_supervision=False, **arguments)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


def their_checkpoint(content: Content, configuration: str, weights: Mapping[str, Tensor], **changes: Any) -> Content:
    """What nnU-Net's trainer saves."""
    return {
        "network_weights": weights,
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float32(0.5)], "lrs": [np.float64(0.01)], "n": [np.int64(3)]},
        "_best_ema": np.float32(0.5),
        "current_epoch": 1000,
        "init_args": {"plans": content, "configuration": configuration, "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        **changes,
    }


Write = Callable[..., tuple[Path, list[nn.Module]]]


@pytest.fixture
def write_theirs(tmp_path: Path) -> Write:
    """A function that writes a model folder of nnU-Net and gives it with the networks of its folds."""

    def write(
        plan: Plan,
        folds: tuple[int | str, ...] = (0,),
        configuration: str = "small",
        file: str = "final",
        **changes: Any,
    ) -> tuple[Path, list[nn.Module]]:
        folder = tmp_path / "theirs" / "Dataset999_Small" / f"nnUNetTrainer__nnUNetPlans__{configuration}"
        content = json.loads(json.dumps(to_nnunet(plan, description_of(plan), "nnUNetPlans")))
        del content["selfcfg"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plans.json").write_text(json.dumps(content))
        (folder / "dataset.json").write_text(description_of(plan).model_dump_json(exclude_defaults=True))
        in_channels = plan.input_channels(plan.configurations[configuration])
        networks = []
        for fold in folds:
            networks.append(their_network(content, configuration, in_channels, plan.labels.n_outputs))
            checkpoint = their_checkpoint(content, configuration, networks[-1].state_dict(), **changes)
            (folder / f"fold_{fold}").mkdir(exist_ok=True)
            torch.save(checkpoint, folder / f"fold_{fold}" / f"checkpoint_{file}.pth")
        return folder, networks

    return write
