"""The names of a network's tensors in nnU-Net's checkpoints, and ours.

nnU-Net registers every convolution block's layers twice and the encoder again within the decoder, so that each tensor
of a checkpoint has up to four names; we register each once (`selfcfg.nets.unet`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from selfcfg.errors import DataError

_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")
"""What DistributedDataParallel and torch.compile put before every name."""

_LAYERS = ("conv", "norm")
"""A block's layers in the order of ``all_modules``; there is no dropout between them in the plans that we take."""

_BLOCK = re.compile(r"(.+)\.(conv|norm)\.(\w+)")
_AGAIN = re.compile(r"\.all_modules\.([01])\.")


def to_ours(theirs: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint by the names of `selfcfg.nets.unet.build_parts`, each once.

    Args:
        theirs: the checkpoint's ``network_weights``.
        source: the file they are from, for messages.

    Raises:
        DataError: two names of one tensor hold different values.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        own = _our_name(name)
        kept = found.setdefault(own, tensor)
        if not _same(kept, tensor):
            raise DataError(
                f"import {source}", f"'{name}' is not the same tensor as '{own}'", "take another copy of the model"
            )
    return found


def to_theirs(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under every name that nnU-Net's network has for them."""
    return {name: tensor for own, tensor in ours.items() for name in _their_names(own)}


def _our_name(name: str) -> str:
    name = re.sub(r"^decoder\.encoder\.", "encoder.", _WRAPPERS.sub("", name))
    name = _AGAIN.sub(lambda match: f".{_LAYERS[int(match[1])]}.", name)
    return re.sub(r"^decoder\.seg_layers\.", "head.seg_layers.", name)


def _their_names(own: str) -> list[str]:
    names = [re.sub(r"^head\.", "decoder.", own)]
    if block := _BLOCK.fullmatch(own):
        names.append(f"{block[1]}.all_modules.{_LAYERS.index(block[2])}.{block[3]}")
    return names + [f"decoder.{name}" for name in names if name.startswith("encoder.")]


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.stride() != other.stride():
        return False
    return one.data_ptr() == other.data_ptr() or one.equal(other)
