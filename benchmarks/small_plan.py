"""A 2D configuration that two processor cores train in minutes, added to a plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfcfg.files import write_json

CONFIGURATION = "2d_small"

TOPOLOGY = {
    "features": [16, 32, 64, 128],
    "kernel_sizes": [[3, 3]] * 4,
    "strides": [[1, 1], [2, 2], [2, 2], [2, 2]],
    "encoder_blocks": [2] * 4,
    "decoder_blocks": [2] * 3,
}
"""Four stages, 0.5 million parameters."""


def add_small(plan: Path, patch_size: Sequence[int], batch_size: int, **others: Any) -> None:
    """Adds the configuration to a plan's file, beside "2d", which it inherits from.

    Args:
        plan: file.
        patch_size: (y, x) in voxels.
        batch_size: patches.
        others: further fields of the configuration.
    """
    content = json.loads(plan.read_text())
    sizes = {"patch_size": list(patch_size), "batch_size": batch_size}
    content["configurations"][CONFIGURATION] = {"inherits_from": "2d", "topology": TOPOLOGY, **sizes, **others}
    write_json(plan, content)
