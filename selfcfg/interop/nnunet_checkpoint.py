"""nnU-Net's checkpoints, read without running anything that is in them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from selfcfg.errors import DataError, listed

_DTYPES = ("bool", "int32", "int64", "float16", "float32", "float64")
_SCALAR = np.float64(0).__reduce__()[0]

ALLOWED: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in _DTYPES),
]
"""What a checkpoint may name besides what PyTorch itself allows: the numpy numbers of nnU-Net's log. A number is made
of its bytes, and no other function is called."""

_OTHER_NETWORKS = re.compile(r"BN$|Primus")
"""Trainers of nnU-Net that build another network than the plans say."""

_REMEDY = "take another copy of the model"


@dataclass(frozen=True)
class Checkpoint:
    """What is used of a checkpoint.

    Args:
        file: where it lies.
        trainer: name of nnU-Net's trainer class.
        configuration: name within the plans.
        mirror_axes: of the network's input, 0 the first spatial one; empty where copies are not to be mirrored.
        epoch: epochs trained, or None.
        weights: the network's tensors by nnU-Net's names.
    """

    file: Path
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]
    epoch: int | None
    weights: Mapping[str, Tensor]


def read_checkpoint(file: Path) -> Checkpoint:
    """The content of a ``checkpoint_*.pth``.

    Raises:
        DataError: the file is missing or damaged, would need code to be run, was written by a trainer with a network of
            its own, or lacks something.
    """
    asked = f"read {file}"
    content = _load(file, asked)
    arguments, weights = content.get("init_args"), content.get("network_weights")
    configuration = arguments.get("configuration") if isinstance(arguments, Mapping) else None
    trainer, epoch = content.get("trainer_name"), content.get("current_epoch")
    for key, is_there in (
        ("network_weights", isinstance(weights, Mapping) and weights),
        ("trainer_name", isinstance(trainer, str) and trainer.isidentifier()),
        ("init_args.configuration", isinstance(configuration, str)),
    ):
        if not is_there:
            raise DataError(asked, f"no usable {key} in it", "give a model that nnU-Net v2 trained")
    if _OTHER_NETWORKS.search(str(trainer)):
        raise DataError(asked, f"{trainer} builds another network than the plans say", "such models cannot be imported")
    return Checkpoint(
        file=file,
        trainer=str(trainer),
        configuration=str(configuration),
        mirror_axes=_mirror_axes(content.get("inference_allowed_mirroring_axes"), asked),
        epoch=epoch if isinstance(epoch, int) else None,
        weights=_tensors(weights or {}, asked),
    )


def _load(file: Path, asked: str) -> Mapping[str, Any]:
    """The whole content; every byte is verified first, as the loader does not look at the checksums."""
    if not file.is_file():
        raise DataError(asked, "there is no such file", "check the path")
    with safe_globals(ALLOWED):
        try:
            _refuse_damaged(file, asked)
            code = sorted(get_unsafe_globals_in_checkpoint(str(file)))
        except DataError:
            raise
        except Exception as error:  # a damaged file can fail in any way
            raise DataError(asked, f"damaged ({type(error).__name__})", _REMEDY) from error
        if code:
            found = f"it would run code to be read: {listed(code)}"
            raise DataError(asked, found, "only weights and numbers are read; have its author save it without")
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # hostile content can fail in any way
            raise DataError(asked, f"not weights and numbers alone ({type(error).__name__})", _REMEDY) from error
    if not isinstance(content, Mapping):
        raise DataError(asked, f"it holds a {type(content).__name__}", "give a model that nnU-Net v2 trained")
    return content


def _refuse_damaged(file: Path, asked: str) -> None:
    if not zipfile.is_zipfile(file):
        raise DataError(asked, "not a checkpoint of PyTorch, or cut short", _REMEDY)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > file.stat().st_size:
            raise DataError(asked, "it holds more than its size, which PyTorch never writes", _REMEDY)
        if (broken := archive.testzip()) is not None:
            raise DataError(asked, f"damaged (checksum of {broken})", _REMEDY)


def _mirror_axes(found: Any, asked: str) -> tuple[int, ...]:
    """The axes; a file of before they were stored is one without, as nnU-Net reads it."""
    axes = () if found is None else found
    if not isinstance(axes, (tuple, list)) or not all(isinstance(axis, int) and 0 <= axis <= 2 for axis in axes):
        raise DataError(asked, f"inference_allowed_mirroring_axes {str(found)[:40]}", "give axes from 0 to 2")
    return tuple(sorted(set(axes)))


def _tensors(weights: Mapping[Any, Any], asked: str) -> dict[str, Tensor]:
    for name, tensor in weights.items():
        is_weight = isinstance(name, str) and isinstance(tensor, Tensor) and tensor.is_floating_point()
        if not is_weight or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise DataError(asked, f"network_weights '{str(name)[:80]}' is no tensor of real numbers", _REMEDY)
    return dict(weights)
