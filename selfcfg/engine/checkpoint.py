"""Weights that are shared (safetensors), the state a training continues from, and taking over another run's weights."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from selfcfg.errors import DataError, UsageError, listed, nearest
from selfcfg.files import replacing, write_bytes
from selfcfg.progress import say
from selfcfg.runs import RunFolder, TakeOver, fold_folders

NOTES = "selfcfg"
"""The one key of a weights file's metadata, holding all of ours as JSON: several keys have no order, so that the same
weights would not be the same bytes."""

CHECKSUM = "checksum"
"""Key within: a hash of every tensor's name, type, shape and bytes."""

_SHOWN = 3


def save_weights(path: Path, parts: nn.ModuleDict, metadata: Mapping[str, str]) -> None:
    """Writes the named parts to a safetensors file with a checksum of its content, whole or not at all.

    The same weights and metadata give the same bytes.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in parts.state_dict().items()}
    notes = {**metadata, CHECKSUM: _checksum(tensors)}
    write_bytes(path, to_safetensors(tensors, {NOTES: json.dumps(notes, sort_keys=True)}))


def load_weights(path: Path, parts: nn.ModuleDict) -> dict[str, str]:
    """Fills `parts` with the weights of a file and gives the file's metadata; further parts in the file are ignored.

    Raises:
        DataError: the file is missing or damaged, or a tensor is missing, left over or of another shape; both shapes
            are named.
    """
    tensors, metadata = read_weights(path)
    fill(parts, tensors, str(path))
    return metadata


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a weights file by name ("encoder. ..."), and its metadata.

    Raises:
        DataError: the file is missing, cut short, or its bytes are not those that were written.
    """
    asked, remedy = f"load weights {path}", "make it again or take another copy"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = _notes(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError as error:
        raise DataError(asked, "there is no such file", "check the path, or train first") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(asked, f"not a whole safetensors file ({error})", remedy) from error
    if CHECKSUM in metadata and metadata[CHECKSUM] != _checksum(tensors):
        raise DataError(asked, "its content does not match its checksum", remedy)
    return tensors, metadata


def fill(parts: nn.ModuleDict, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies tensors into the parts' own; `source` says where they are from, for messages.

    Raises:
        DataError: a tensor is missing, left over or of another shape.
    """
    problems = _differences(tensors, parts.state_dict(), tuple(parts.keys()))
    if problems:
        raise DataError(
            f"load weights {source}",
            listed(problems, _SHOWN, separator="; "),
            "use the weights of a network with the same plan, configuration, channels and labels",
        )
    _copy(parts.state_dict(), tensors)


def save_state(run: RunFolder, state: Mapping[str, Any]) -> None:
    """Makes `state` the run's newest checkpoint and keeps the one before; a failure leaves both as they were.

    The same state gives the same bytes.

    Args:
        run: where to.
        state: tensors, numbers, strings, and lists and dicts of them.

    Raises:
        SelfcfgError: the disk refused the bytes.
    """
    with replacing(run.last) as temporary:
        with temporary.open("wb") as stream:
            _write(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        if run.last.is_file():
            _keep_as_previous(run)


def load_state(run: RunFolder) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None where there is none.

    A damaged one is reported on stderr and removed, else it would become the one before; that is used.

    Raises:
        DataError: there are checkpoints, but none can be read.
    """
    damaged: list[str] = []
    for path in (run.last, run.previous):
        if not path.is_file():
            continue
        try:
            found = _read(path)
            if damaged:
                run.last.unlink(missing_ok=True)
            return found
        except DataError as error:
            damaged.append(path.name)
            if path == run.last:
                say(f"{error}; trying {run.previous.name}, saved before it")
    if damaged:
        raise DataError(
            f"continue {run.path}",
            f"no checkpoint can be read ({', '.join(damaged)})",
            "delete the folder and train again",
        )
    return None


def weights_of(source: Path) -> Path:
    """The weights file meant by `source`: the file itself, or the final (else best) weights of a run.

    Raises:
        UsageError: there is nothing there, or an experiment with several folds.
        DataError: the folder holds no run, or the run has no weights yet.
    """
    if source.is_file():
        return source
    runs = fold_folders(source)
    if len(runs) > 1:
        names = ", ".join(run.path.name for run in runs)
        raise UsageError(f"take over weights from {source}", f"it holds several folds ({names})", "name one of them")
    found = next((path for path in (runs[0].final, runs[0].best) if path.is_file()), None)
    if found is None:
        raise DataError(f"take over weights from {runs[0].path}", "no weights in it yet", "finish that run first")
    return found


def take_over(source: Path, parts: nn.ModuleDict, wanted: Collection[str] | None = None) -> TakeOver:
    """Copies every part that fits from a weights file or a finished run, and gives what became of each part.

    A part fits when all its tensors have the same names and shapes; the first convolution of the encoder is adapted to
    another number of image channels. Nothing is taken when the encoder does not fit: the other parts build on it.

    Args:
        source: a weights file, the folder of a run, or that of an experiment with one fold.
        parts: what the weights are copied into.
        wanted: names of the parts to take; None: all that fit.

    Raises:
        DataError: nothing fits, or the weights cannot be read.
        UsageError: the source is not there, or names several folds; or there is no part of a wanted name.
    """
    if strange := sorted(set(wanted or ()) - set(parts)):
        raise UsageError(f"take over part '{strange[0]}'", "there is no such part", nearest(strange[0], parts))
    path = weights_of(source)
    tensors, _ = read_weights(path)
    own = parts.state_dict()
    adapted = _adapt_input(tensors, own)
    skipped: dict[str, str] = {}
    for part in parts:
        if wanted is not None and part not in wanted:
            skipped[part] = "it is not among taken_parts"
        elif problems := _differences(tensors, _of_part(own, part), (part,)):
            skipped[part] = listed(problems, _SHOWN, separator="; ")
    taken = tuple(part for part in parts if part not in skipped)
    if not taken or "encoder" in skipped:
        reasons = skipped.get("encoder") or listed(skipped.values(), _SHOWN, separator="; ")
        raise DataError(f"take over weights from {path}", f"nothing fits: {reasons}", "use a run of the same topology")
    for part in taken:
        _copy(_of_part(own, part), tensors)
    return TakeOver(source=str(path), taken=taken, adapted=adapted, skipped=skipped)


def _adapt_input(tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, str]:
    """Gives the first convolution of the encoder the number of input channels the network has; says how."""
    name = next((name for name, tensor in own.items() if name.startswith("encoder.") and tensor.dim() >= 4), None)
    found = tensors.get(name) if name else None
    if name is None or found is None:
        return {}
    wanted = own[name].shape
    if found.shape == wanted or found.dim() != len(wanted) or found[:, :1].shape != own[name][:, :1].shape:
        return {}
    old, new = found.shape[1], wanted[1]
    # the mean filter, scaled so that equal channels give the response they gave before
    tensors[name] = found.mean(1, keepdim=True).expand(wanted) * (old / new)
    return {name: f"mean over {old} input channels, repeated for {new}"}


def _differences(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], parts: Iterable[str]) -> list[str]:
    """What keeps tensors from being copied into `own`, in words; parts that `own` does not have do not count."""
    found = []
    for name, tensor in own.items():
        if name not in tensors:
            found.append(f"{name} {tuple(tensor.shape)} is missing")
        elif tensors[name].shape != tensor.shape:
            found.append(f"{name} is {tuple(tensors[name].shape)} there and {tuple(tensor.shape)} in this network")
    prefixes = tuple(f"{part}." for part in parts)
    left = [name for name in tensors if name.startswith(prefixes) and name not in own]
    return found + [f"{name} {tuple(tensors[name].shape)} is not in this network" for name in left]


def _of_part(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith(f"{part}.")}


def _copy(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _notes(metadata: Mapping[str, str]) -> dict[str, str]:
    found = json.loads(metadata[NOTES]) if NOTES in metadata else metadata
    return {str(name): str(value) for name, value in found.items()}


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _write(state: Mapping[str, Any], stream: Any) -> None:
    try:
        torch.save(_with_texts_once(state), stream)
    except RuntimeError as error:
        # the writer reports a full disk as its own error, raised while it handles the real one
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def _with_texts_once(item: Any) -> Any:
    """The same with equal texts being one object, which is written once; texts of a state that was read are others."""
    if isinstance(item, Mapping):
        return {_with_texts_once(key): _with_texts_once(one) for key, one in item.items()}
    if isinstance(item, list | tuple):
        return type(item)([_with_texts_once(one) for one in item])
    return sys.intern(item) if type(item) is str else item


def _keep_as_previous(run: RunFolder) -> None:
    """Gives the newest checkpoint the name of the one before, without a moment in which it has no name."""
    spare = run.previous.with_name(f".tmp-{run.previous.name}")
    try:
        spare.unlink(missing_ok=True)
        os.link(run.last, spare)
        spare.replace(run.previous)
    except OSError:
        # a file system without hard links
        run.last.replace(run.previous)
    finally:
        with suppress(OSError):
            spare.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, every byte verified: the loader itself does not look at the checksums."""
    asked = f"load checkpoint {path}"
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is None:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return state
    except Exception as error:  # a damaged file can fail in any way
        raise DataError(asked, f"damaged ({type(error).__name__})") from error
    raise DataError(asked, f"damaged (checksum of {broken})")
