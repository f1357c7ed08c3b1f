"""What a network runs on: the device, its precision and memory layout, and the facts that repetition depends on."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeVar, cast

import torch
from torch import nn

from selfcfg.errors import UsageError, counted
from selfcfg.topology import Topology

Precision = Literal["float32", "bfloat16"]
Module = TypeVar("Module", bound=nn.Module)

PACKAGES = (
    "selfcfg",
    "torch",
    "lightning-fabric",
    "dynamic-network-architectures",
    "batchgenerators",
    "numpy",
    "scipy",
    "SimpleITK",
    "nibabel",
    "blosc2",
)
"""The packages whose version can change a result."""

SAFE_EDGE = {2: 2, 3: 3}
"""The narrowest feature map of 2D and 3D networks, in voxels, whose bfloat16 gradients are right on a processor."""


def choose_device(name: str | None = None) -> torch.device:
    """The device called `name`, such as "cpu" or "cuda:1"; without a name the best one there is.

    Raises:
        UsageError: there is no such device here.
    """
    if name is None:
        return torch.device(_best())
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device '{name}'", "not the name of a device", f"use one of: {_known()}") from error
    if not _is_here(device):
        raise UsageError(f"device '{name}'", "not available on this machine", f"use one of: {_known()}")
    return device


def resolve_precision(device: torch.device, wanted: str = "auto") -> Precision:
    """The precision to compute in: `wanted`, or for "auto" bfloat16 where the device has arithmetic for it.

    Source: measured: benchmarks/network_layout.py (bfloat16 is twice as fast on a processor with AVX-512 BF16).

    Raises:
        UsageError: no such precision.
    """
    if wanted not in ("auto", "float32", "bfloat16"):
        raise UsageError(f"precision '{wanted}'", "no such precision", "use auto, float32 or bfloat16")
    if wanted != "auto":
        return cast(Precision, wanted)
    return "bfloat16" if _computes_bfloat16(device) else "float32"


def training_precision(device: torch.device, wanted: str, topology: Topology, patch_size: Sequence[int]) -> Precision:
    """The precision to train in: as `resolve_precision`, but float32 on a processor where maps get very narrow.

    Args:
        device: to train on.
        wanted: "auto", "float32" or "bfloat16".
        topology: the network.
        patch_size: voxels along each of its axes.

    Source: measured: benchmarks/bfloat16_gradients.py (PyTorch 2.13 computes bfloat16 weight gradients wrongly on a
    processor, and writes into foreign memory, where a kernel extends over one voxel, or in 3D over two).

    Raises:
        UsageError: no such precision, or bfloat16 where it computes wrongly.
    """
    precision = resolve_precision(device, wanted)
    narrowest, safe = topology.narrowest(patch_size), SAFE_EDGE[topology.dimensions]
    if device.type != "cpu" or precision == "float32" or narrowest >= safe:
        return precision
    if wanted == "auto":
        return "float32"
    found = f"maps narrow down to {counted(narrowest, 'voxel')}, and PyTorch's gradients are wrong there on a processor"
    remedy = f"use precision=float32 or auto, or a patch that keeps {safe} voxels"
    raise UsageError("train with precision=bfloat16", found, remedy)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """A context in which convolutions run in `precision`."""
    is_mixed = precision == "bfloat16"
    return cast("AbstractContextManager[None]", torch.autocast(device.type, torch.bfloat16, enabled=is_mixed))


def place(module: Module, device: torch.device) -> Module:
    """The module itself, moved to a device in the memory layout that is fastest there: channels-last on a CPU.

    Source: measured: benchmarks/network_layout.py.
    """
    module.to(device)
    is_cpu = device.type == "cpu"
    for parameter in module.parameters():
        if parameter.dim() in (4, 5):
            layout = torch.channels_last if parameter.dim() == 4 else torch.channels_last_3d
            parameter.data = parameter.data.contiguous(memory_format=layout if is_cpu else torch.contiguous_format)
    return module


def package_versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that can change a result, by name."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine_facts(device: torch.device | None = None, processes: int = 1) -> dict[str, str | int]:
    """What the last bit of a result depends on: processor, its vector instructions, threads, and the accelerator.

    Where several processes share each batch, also their number.
    """
    facts: dict[str, str | int] = {
        "system": f"{sys.platform} {platform.machine()}",
        "processor": str(_processor().get("cpu_name") or platform.processor() or "unknown"),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    if processes > 1:
        facts["processes"] = processes
    if device is not None:
        facts["device"] = device.type
        if device.type == "cuda":
            facts["accelerator"] = torch.cuda.get_device_name(device)
            facts["cuda"] = str(torch.version.cuda or torch.version.hip)
    return facts


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _is_here(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return device.type == "cpu"


def _known() -> str:
    accelerators = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ", ".join(["cpu", *accelerators, *(["mps"] if torch.backends.mps.is_available() else [])])


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(_processor().get("avx512_bf16") or _processor().get("amx_bf16"))
    return False


def _processor() -> Mapping[str, Any]:
    """What PyTorch knows of the processor; nothing in versions that do not tell."""
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return known
