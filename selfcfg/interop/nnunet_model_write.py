"""Models of ours written as nnU-Net's, for its own prediction."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from selfcfg.dataset import DatasetDescription
from selfcfg.engine.prediction.loading import Weights, load_model
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.prediction.packaged import model_folder
from selfcfg.engine.training.journal import read_log
from selfcfg.files import new_folder, write_json
from selfcfg.interop.exchanged import Exchanged, beside, came_with, described, refuse_existing, shareable
from selfcfg.interop.nnunet_weights import to_theirs
from selfcfg.interop.nnunet_write import plans_name, to_nnunet
from selfcfg.runs import RunFolder, RunRecord

TRAINER = "nnUNetTrainer"
"""The class that nnU-Net is to build the network with; what it mirrors along is in the checkpoint."""

_OURS_ALONE = {"cases", "ignore", "version"}
"""Keys of a fingerprint that nnU-Net does not know; the first names the cases."""


def export_model(
    model: Path,
    out: Path,
    *,
    folds: Sequence[int | str] | None = None,
    weights: Weights = "final",
    description: DatasetDescription | None = None,
) -> Exchanged:
    """Writes a model as a folder that ``nnUNetv2_predict_from_modelfolder`` takes, a cascade's first model beside it.

    Args:
        model: experiment folder or fold folder.
        out: the folder to make.
        folds: those to write; None: all.
        weights: which become ``checkpoint_final.pth``.
        description: dataset.json of the training, for the suffix of the images, nnU-Net's reader and the licence; None:
            what came with the model, where it was imported, else .nii.gz, or .png for 2D pictures.

    Raises:
        UsageError: `out` is there already, or nnU-Net cannot read such images.
        DataError: the model cannot be loaded, or is not of this dataset.
    """
    model = model_folder(model)
    loaded = load_model(model, folds=folds, device="cpu", precision="float32", weights=weights)
    record = _record(loaded)
    first = None if loaded.first is None else beside(out, record.configuration, _record(loaded.first).configuration)
    notes: list[str] = []
    description = description or came_with(model)
    if description is None:
        description = described(loaded.plan, record)
        if record.origin is None:
            notes.append(f"images are taken to be {description.file_ending}: give --dataset-json if they are not")
    with ExitStack() as finishing:
        for part, folder in ((loaded, out), (loaded.first, first)):
            if part is None or folder is None:
                continue
            refuse_existing(folder)
            _write(part, finishing.enter_context(new_folder(folder)), description)
    if not loaded.mirror_axes:
        notes.append("nnU-Net will predict one pass: the training did not mirror")
    return Exchanged(out, first, tuple(file.parent.name for file in loaded.files), tuple(notes))


def _write(model: Model, folder: Path, description: DatasetDescription) -> None:
    record = _record(model)
    # the sizes of the training, which settings may have changed, are those to predict with
    configurations = {**model.plan.configurations, record.configuration: model.configuration}
    plan = model.plan.model_copy(update={"configurations": configurations})
    name = plans_name(plan.planner, record.planner.removeprefix(plan.planner))
    plans, dataset = to_nnunet(plan, description, name), shareable(plan, description, record.dataset)
    write_json(folder / "plans.json", plans)
    write_json(folder / "dataset.json", dataset)
    if model.facts is not None:
        write_json(folder / "dataset_fingerprint.json", model.facts.model_dump(mode="json", exclude=_OURS_ALONE))
    skipped = 3 - model.configuration.dimensions
    axes = tuple(axis - skipped for axis in model.mirror_axes if axis >= skipped)
    for network, file in zip(model.networks, model.files, strict=True):
        fold = RunRecord.read(RunFolder(file.parent).record).fold
        arguments = {
            "plans": plans,
            "configuration": record.configuration,
            "fold": fold,
            "dataset_json": dataset,
            "device": torch.device("cpu"),
        }
        checkpoint = {
            "network_weights": to_theirs({key: tensor.contiguous() for key, tensor in network.state_dict().items()}),
            "trainer_name": TRAINER,
            "init_args": arguments,
            "inference_allowed_mirroring_axes": axes or None,
            "current_epoch": _epochs(file),
        }
        target = folder / file.parent.name
        target.mkdir()
        torch.save(checkpoint, target / "checkpoint_final.pth")


def _record(model: Model) -> RunRecord:
    return RunRecord.read(RunFolder(model.files[0].parent).record)


def _epochs(file: Path) -> int:
    run = RunFolder(file.parent)
    origin = RunRecord.read(run.record).origin
    return len(read_log(run)) if origin is None else origin.epoch or 0
