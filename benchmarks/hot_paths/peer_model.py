"""Makes a model folder of nnU-Net from plans.json, dataset.json and weights.pt; run by the peer's interpreter.

PYTHON peer_model.py FOLDER
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

CONFIGURATION = "3d_fullres"


def our_name(key: str) -> str:
    """The name that a tensor of nnU-Net's network has with us; it holds each of them under several."""
    key = re.sub(r"^decoder\.encoder\.", "encoder.", key)
    key = key.replace(".all_modules.0.", ".conv.").replace(".all_modules.1.", ".norm.")
    return key.replace("decoder.seg_layers.", "head.seg_layers.")


def main() -> None:
    """Writes ``fold_0/checkpoint_final.pth``."""
    folder = Path(sys.argv[1])
    plans = json.loads((folder / "plans.json").read_text())
    dataset = json.loads((folder / "dataset.json").read_text())
    weights = torch.load(folder / "weights.pt", weights_only=True)
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    n_outputs = manager.get_label_manager(dataset).num_segmentation_heads
    network = nnUNetTrainer.build_network_architecture(manager, configuration, 1, n_outputs, True)
    network.load_state_dict({key: weights[our_name(key)] for key in network.state_dict()})
    (folder / "fold_0").mkdir()
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"plans": plans, "configuration": CONFIGURATION, "fold": 0, "dataset_json": dataset},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


if __name__ == "__main__":
    main()
