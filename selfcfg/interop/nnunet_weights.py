"""A network's weights in nnU-Net's checkpoints and in ours: the names of its tensors both ways.

nnU-Net registers every convolution block's layers twice and the encoder again within the decoder, so that each tensor
of a checkpoint has up to four names; we register each once (`selfcfg.nets.unet`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from selfcfg.engine.checkpoint import fill
from selfcfg.errors import DataError, listed
from selfcfg.nets.unet import build_parts
from selfcfg.plan import Plan

_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")
"""What DistributedDataParallel and torch.compile put before every name."""

_LAYERS = ("conv", "norm")
"""A block's layers in the order of ``all_modules``; there is no dropout between them in the plans that we take."""

_BLOCK = re.compile(r"(.+)\.(conv|norm)\.(\w+)")
_AGAIN = re.compile(r"\.all_modules\.([01])\.")


def our_network(theirs: Mapping[str, Tensor], plan: Plan, name: str, source: str) -> nn.ModuleDict:
    """The parts of our network with the weights of a checkpoint.

    Plans of strangers may ask for any size, so names and shapes are compared before memory is taken.

    Args:
        theirs: the checkpoint's ``network_weights``.
        plan: says what network it is.
        name: of the configuration in it.
        source: the file they are from, for messages.

    Raises:
        DataError: the weights are not those of this network, or not finite.
    """
    asked, remedy = f"import {source}", "give plans.json of the same training"
    configuration = plan.configuration(name)
    topology, tensors = configuration.topology, to_ours(theirs, source)
    if (blocks := sum(topology.encoder_blocks) + sum(topology.decoder_blocks)) > len(tensors):
        raise DataError(asked, f"{len(tensors)} tensors, but the plans ask for {blocks} blocks of layers", remedy)
    try:
        with torch.device("meta"):
            parts = build_parts(topology, plan.input_channels(configuration), plan.labels.n_outputs)
    except RuntimeError as error:
        raise DataError(asked, f"the plans ask for {max(topology.features)} feature maps", remedy) from error
    if foreign := [name for name in tensors if name.partition(".")[0] not in parts]:
        found = f"{listed(foreign, 3)} is in no network of the plans"
        raise DataError(asked, found, "only the U-Nets of nnU-Net's own plans can be imported")
    fill(parts, tensors, source)
    parts = parts.to_empty(device="cpu")
    fill(parts, tensors, source)
    for own, tensor in parts.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise DataError(asked, f"{own} holds NaN or infinite values", "give another checkpoint")
    return parts


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
