from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from selfcfg.engine.device import (
    SAFE_EDGE,
    autocast,
    choose_device,
    machine_facts,
    package_versions,
    place,
    resolve_precision,
    training_precision,
)
from selfcfg.errors import UsageError
from selfcfg.nets.unet import build_parts
from selfcfg.testing import small_plan

CPU = torch.device("cpu")


def test_devices_that_are_not_here_are_refused_by_name() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device(None).type in ("cpu", "cuda", "mps")
    for name in ("cuda:97", "potato", "meta"):
        with pytest.raises(UsageError, match=f"device '{name}'.*use one of: cpu"):
            choose_device(name)


def test_precision() -> None:
    assert resolve_precision(CPU, "float32") == "float32"
    assert resolve_precision(CPU, "bfloat16") == "bfloat16"
    assert resolve_precision(CPU, "auto") in ("float32", "bfloat16")
    with pytest.raises(UsageError, match="precision 'float16'"):
        resolve_precision(CPU, "float16")


@pytest.mark.parametrize("dimensions", [2, 3])
def test_processors_train_narrow_maps_in_float32_because_their_bfloat16_gradients_are_wrong(dimensions: int) -> None:
    topology = small_plan(dimensions).configurations["small"].topology
    safe = tuple(step * SAFE_EDGE[dimensions] for step in topology.divisors)
    narrow = (topology.divisors[0], *safe[1:])
    assert training_precision(CPU, "auto", topology, safe) == resolve_precision(CPU, "auto")
    assert training_precision(CPU, "auto", topology, narrow) == "float32"
    assert training_precision(CPU, "bfloat16", topology, safe) == "bfloat16"
    assert training_precision(CPU, "float32", topology, narrow) == "float32"
    with pytest.raises(UsageError, match=r"narrow down to 1 voxel,.*use precision=float32"):
        training_precision(CPU, "bfloat16", topology, narrow)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_autocast_lowers_convolutions_only_where_asked_to(precision: str, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        assert torch.nn.Conv2d(1, 1, 3)(torch.zeros(1, 1, 8, 8)).dtype == dtype


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_placed_network_computes_channels_last_throughout(dimensions: int) -> None:
    layout = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    topology = small_plan(dimensions).configurations["small"].topology
    parts = place(build_parts(topology, 2, 3), CPU)
    features = parts["decoder"](parts["encoder"](torch.randn(2, 2, *(16,) * dimensions)))
    assert all(feature.is_contiguous(memory_format=layout) for feature in features)
    parts["head"](features)[0].sum().backward()
    gradients = [parameter.grad for parameter in parts.parameters() if parameter.grad is not None]
    weights = [gradient for gradient in gradients if gradient.dim() > 1]
    assert weights
    assert all(gradient.is_contiguous(memory_format=layout) for gradient in weights)


def test_facts_that_results_depend_on_can_be_stored() -> None:
    facts, versions = machine_facts(CPU), package_versions()
    assert facts["threads"] == torch.get_num_threads()
    assert facts["device"] == "cpu"
    assert {"python", "torch", "selfcfg", "numpy"} <= set(versions)
    assert json.loads(json.dumps([facts, versions])) == [facts, versions]


def test_prediction_does_not_import_fabric() -> None:
    code = (
        "import sys, selfcfg.engine.device, selfcfg.engine.checkpoint, selfcfg.nets.unet;"
        "print([m for m in sys.modules if m.startswith(('lightning', 'matplotlib'))])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
