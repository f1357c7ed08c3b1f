"""The selected model of a dataset on disk: which experiments it is made of, and what follows their prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import psutil
import torch

from selfcfg.engine.device import choose_device
from selfcfg.engine.prediction.ensemble import Ensemble, Member, without_networks
from selfcfg.engine.prediction.loading import Weights, load_model
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.prediction.postprocessing import Step, needs_probabilities
from selfcfg.errors import DataError, UsageError
from selfcfg.files import hash_file
from selfcfg.records import Record
from selfcfg.runs import RunFolder, RunRecord

MODEL = "model.json"
FOLDER = "selected"

_SHARE = 0.5
"""Of the free memory that networks may take together; else they are read from disk for each image."""


class SelectedMember(Record):
    """An experiment that a selected model is made of.

    Args:
        experiment: its folder, within the results of the dataset.
        configuration: its name within the plan.
        folds: whose networks are averaged.
        plan_hash: content hash of its plan.
        weights: of each fold's folder, the hash of the final weights.
        weight: of its probabilities; of all members together 1.
    """

    experiment: str
    configuration: str
    folds: tuple[int, ...]
    plan_hash: str
    weights: dict[str, str]
    weight: float


class SelectedModel(Record):
    """The model that `select` chose; it lies in a folder beside the experiments that it names.

    Args:
        dataset: folder name of the dataset.
        members: the experiments, with the weights of their probabilities.
        postprocessing: what is removed from the label map, in order.
    """

    dataset: str
    members: tuple[SelectedMember, ...]
    postprocessing: tuple[Step, ...] = ()


def selected_folder(results: Path, name: str | None = None) -> Path:
    """The folder of a dataset's selected model; `name` distinguishes several."""
    return results / (f"{FOLDER}__{name}" if name else FOLDER)


def selected_models(results: Path) -> list[Path]:
    """The folders of all selected models of a dataset, the one without a name first."""
    return [file.parent for file in sorted(results.glob(f"{FOLDER}*/{MODEL}"))]


def load_selected(folder: Path, *, device: str | None = None, precision: str = "auto") -> Ensemble:
    """The selected model in a folder.

    A temperature that was fitted on an experiment is used where neither a mean nor a step that follows depends on its
    probabilities, which were not divided by it when these were chosen.

    Args:
        folder: with model.json; the experiments lie beside it.
        device: such as "cpu" or "cuda:0"; default: the best there is.
        precision: "auto", "float32" or "bfloat16".

    Raises:
        DataError: model.json is not usable, or an experiment is gone or has changed.
    """
    model = SelectedModel.read(folder / MODEL)
    if not model.members:
        raise DataError(f"load model {folder}", f"{MODEL} names no member", _again(model))
    held = _fits([file for member in model.members for file in _checked(folder, model, member)], device)
    calibrated = len(model.members) == 1 and not needs_probabilities(model.postprocessing)

    def member(one: SelectedMember) -> Member:
        load = partial(load_model, folder.parent / one.experiment, folds=one.folds, device=device, precision=precision)
        return _member(one, partial(load, calibrated=calibrated), held=held)

    return Ensemble(tuple(member(one) for one in model.members), model.postprocessing)


def _member(member: SelectedMember, load: Callable[[], Model], *, held: bool) -> Member:
    model = load()
    key = model.plan.preprocessing_hash(member.configuration)
    if model.first is not None:
        key += model.first.plan.content_hash() + model.first.configuration.content_hash()
    return Member(
        name=member.experiment,
        weight=member.weight,
        outline=model if held else without_networks(model),
        identity=model.identity,
        preprocessing=key,
        tells=model.tells,
        load=(lambda: model) if held else load,
    )


def _checked(folder: Path, model: SelectedModel, member: SelectedMember) -> list[Path]:
    """The weights of a member, which are those that were selected.

    Raises:
        DataError: something is gone or has changed.
    """
    experiment, asked = folder.parent / member.experiment, f"load model {folder}"
    files = []
    for fold in member.folds:
        run = RunFolder(experiment / f"fold_{fold}")
        if not run.final.is_file() or not run.record.is_file():
            raise DataError(asked, f"its member {run.path} is not there", f"put it back, or {_again(model)}")
        if RunRecord.read(run.record).plan_hash != member.plan_hash:
            raise DataError(asked, f"the plan of {run.path} is another one since", _again(model))
        if hash_file(run.final) != member.weights.get(run.path.name):
            raise DataError(asked, f"{run.final} was trained again since", _again(model))
        files.append(run.final)
    return files


def _again(model: SelectedModel) -> str:
    return f"run: selfcfg select {model.dataset}"


def _fits(files: Sequence[Path], device: str | None) -> bool:
    """Whether the networks may stay in the memory of the device, all together."""
    target = choose_device(device)
    free = torch.cuda.mem_get_info(target)[0] if target.type == "cuda" else psutil.virtual_memory().available
    return sum(file.stat().st_size for file in files) < _SHARE * free


def refuse_choices(folder: Path, folds: Sequence[int | str] | None, weights: Weights) -> None:
    """Nothing, where folds and weights are left to the selected model.

    Raises:
        UsageError: they are not.
    """
    if folds is not None or weights != "final":
        found = f"{folder} is a selected model, which says itself which folds and weights it is made of"
        raise UsageError("load model", found, "leave --fold and --weights out, or give the folder of an experiment")
