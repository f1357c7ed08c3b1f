"""Trained models from the folders of their runs: one fold or several, and both stages of a cascade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from selfcfg.engine.calibration.temperature import Temperature, same_weights
from selfcfg.engine.checkpoint import fill, load_weights, read_weights
from selfcfg.engine.device import choose_device, place, resolve_precision
from selfcfg.engine.prediction.image_level import Teller
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.prediction.quality import CALIBRATION, QUALITY, Quality
from selfcfg.errors import DataError, UsageError
from selfcfg.files import hash_file, hash_json, read_json
from selfcfg.fingerprint import Fingerprint
from selfcfg.nets.image_head import NAME, PART, has_image_head, image_head_like
from selfcfg.nets.unet import Segmenter, build_parts
from selfcfg.plan import Configuration, Plan
from selfcfg.progress import say
from selfcfg.runs import RunFolder, RunRecord, fold_folders

Weights = Literal["final", "best"]

_SMALLEST = 2
"""Bytes of a weight at least: a network is only built where its file can hold it."""


def load_model(
    path: Path | str,
    *,
    folds: Sequence[int | str] | None = None,
    device: str | None = None,
    precision: str = "auto",
    weights: Weights = "final",
    alone: bool = False,
    calibrated: bool = True,
) -> Model:
    """The model of an experiment folder (all its folds, averaged) or of one fold folder.

    Args:
        path: the parent of ``fold_*`` folders, or one of them.
        folds: use only these, by number, or "all" for the fold that was trained on every case.
        device: such as "cpu" or "cuda:0"; default: the best there is.
        precision: "auto" (bfloat16 where the device computes in it), "float32" or "bfloat16".
        weights: of the last or of the best epoch.
        alone: leave the first model of a cascade out; its result is then given with the image.
        calibrated: take the temperature and the score of quality of the experiment's own folder, where `selfcfg
            calibrate` left them and they were fitted on these weights; never with `alone`.

    Raises:
        UsageError: there is no such folder or fold.
        DataError: a run only pretrains or is not finished, the folds were trained by different plans, or weights do not
            fit the plan.
    """
    runs = _chosen(fold_folders(Path(path)), folds)
    records = [_usable(run, weights) for run in runs]
    plan = _common_plan(runs, records)
    configuration = _configuration(plan, records[0])
    target = choose_device(device)
    files = [run.final if weights == "final" else run.best for run in runs]
    temperature, quality = _calibrated(files) if calibrated and not alone else (1.0, None)
    networks = [_network(file, plan, configuration, record) for file, record in zip(files, records, strict=True)]
    facts = next(
        (place for place in (runs[0].path, runs[0].path.parent) if (place / "fingerprint.json").is_file()), None
    )
    return Model(
        plan=plan,
        configuration=configuration,
        networks=tuple(place(network, target).eval() for network in networks),
        device=target,
        precision=resolve_precision(target, precision),
        files=tuple(files),
        facts=Fingerprint.read(facts / "fingerprint.json") if facts else None,
        mirror_axes=plan.mirror_axes if all(_was_mirrored(record.settings) for record in records) else (),
        first=None if alone else _first(runs, records, device, precision),
        tellers=_tellers(files, networks, plan, configuration, target),
        temperature=temperature,
        quality=quality,
    )


def refuse_pretraining(asked: str, run: RunFolder, record: RunRecord) -> None:
    """Nothing, where a run's weights predict label maps.

    Raises:
        DataError: it only pretrains.
    """
    if not record.segments:
        found = f"trainer '{record.trainer}' only pretrains: there is no head that predicts label maps"
        again = f"selfcfg train {record.dataset} -c {record.configuration} --fold {record.fold} --init {run.path}"
        raise DataError(asked, found, f"fine-tune it: {again}")


def _first(runs: Sequence[RunFolder], records: Sequence[RunRecord], device: str | None, precision: str) -> Model | None:
    """The first model of a cascade, made of the same folds; None for any other model."""
    previous = records[0].previous
    if previous is None:
        return None
    experiment = runs[0].path.absolute().parent.parent / previous
    asked = f"load model {runs[0].path.parent}"
    if any(record.previous != previous or record.previous_weights != records[0].previous_weights for record in records):
        raise DataError(asked, "its folds were trained after different first models", "give folds of one training")
    if not experiment.is_dir():
        raise DataError(asked, f"its first model is not there: {experiment}", "copy that experiment beside it")
    model = load_model(experiment, folds=[record.fold for record in records], device=device, precision=precision)
    for file in model.files:
        if hash_file(file) != records[0].previous_weights.get(file.parent.name):
            raise DataError(asked, f"{file} was trained again since", "train this second stage again, too")
    return model


def _calibrated(files: Sequence[Path]) -> tuple[float, Quality | None]:
    """The temperature and the score of quality beside the folds; 1 and None without, or for other weights."""
    temperature, quality = (files[0].parent.parent / name for name in (CALIBRATION, QUALITY))
    if not temperature.is_file() and not quality.is_file():
        return 1.0, None
    hashes = {file.parent.name: hash_file(file) for file in files}
    fitted = Temperature.read(temperature) if temperature.is_file() else None
    scored = Quality.read(quality) if quality.is_file() else None
    usable = [one if one is not None and same_weights(one.weights, hashes) else None for one in (fitted, scored)]
    if usable != [fitted, scored]:
        say(f"note: {files[0].parent.parent} was calibrated with other weights, which is not used: calibrate again")
        return 1.0, None
    return fitted.temperature if fitted else 1.0, scored


def _was_mirrored(settings: Mapping[str, Any]) -> bool:
    transforms = settings.get("transforms") or {}
    share = transforms.get("mirror_p", 1.0) if isinstance(transforms, Mapping) else None
    if not isinstance(share, int | float):
        found = f"the settings of its training hold transforms={str(transforms)[:60]}"
        raise DataError("load model", found, "put the record of the training back")
    return settings.get("augmentation") != "none" and share > 0


def _chosen(runs: list[RunFolder], folds: Sequence[int | str] | None) -> list[RunFolder]:
    if folds is None:
        return runs
    by_name = {run.path.name: run for run in runs}
    missing = [fold for fold in folds if f"fold_{fold}" not in by_name]
    if missing:
        found = f"no fold {', '.join(map(str, missing))} in {runs[0].path.parent} (there are {', '.join(by_name)})"
        raise UsageError("load model", found, "train it, or choose other folds")
    return [by_name[f"fold_{fold}"] for fold in folds]


def _usable(run: RunFolder, weights: Weights) -> RunRecord:
    record = RunRecord.read(run.record)
    refuse_pretraining(f"load model {run.path}", run, record)
    if weights == "final" and record.status != "finished":
        raise DataError(
            f"load model {run.path}",
            f"its training is not finished (status '{record.status}')",
            "continue it with --resume, choose other folds, or use --weights best",
        )
    file = run.final if weights == "final" else run.best
    if not file.is_file():
        raise DataError(f"load model {run.path}", f"{file.name} is missing", "train it again, or choose other weights")
    return record


def _common_plan(runs: Sequence[RunFolder], records: Sequence[RunRecord]) -> Plan:
    """The plan all runs share, checked against what each run noted of it.

    The file's own content is hashed, so that a field added in a later version does not make old models unreadable.
    """
    plans = [Plan.read(run.plan) for run in runs]
    for run, record in zip(runs, records, strict=True):
        if hash_json(read_json(run.plan)) != record.plan_hash:
            raise DataError(
                f"load model {run.path}",
                "plan.json is not the plan it was trained by",
                "put the plan of the training back",
            )
        if record.plan_hash != records[0].plan_hash or record.configuration != records[0].configuration:
            raise DataError(
                f"load model {run.path.parent}",
                f"{runs[0].path.name} and {run.path.name} were trained by different plans or configurations",
                "give one fold, or folds of one training",
            )
    return plans[0]


def _configuration(plan: Plan, record: RunRecord) -> Configuration:
    configuration = plan.configuration(record.configuration)
    settings = record.settings
    return configuration.resized(batch_size=settings.get("batch_size"), patch_size=settings.get("patch_size"))


def _network(file: Path, plan: Plan, configuration: Configuration, record: RunRecord) -> Segmenter:
    channels, outputs = plan.input_channels(configuration), plan.labels.n_outputs
    if (wanted := configuration.topology.n_parameters(channels, outputs)) * _SMALLEST > file.stat().st_size:
        found = f"{file.stat().st_size} bytes, too few for the {wanted} weights of the network that its plan asks for"
        raise DataError(f"load model {file}", found, "put the plan and the weights of the training back")
    parts = build_parts(configuration.topology, channels, outputs)
    noted = load_weights(file, parts).get("plan_hash", record.plan_hash)
    if noted != record.plan_hash:
        raise DataError(
            f"load model {file}", "the weights were trained by another plan", "put the run's own weights back"
        )
    return Segmenter(parts)


def _tellers(
    files: Sequence[Path], networks: Sequence[Segmenter], plan: Plan, configuration: Configuration, device: torch.device
) -> tuple[Teller, ...]:
    """What tells image-level targets, a network each; nothing where one was trained without."""
    found = []
    for file, network in zip(files, networks, strict=True) if plan.image_targets else ():
        tensors, _ = read_weights(file)
        if has_image_head(tensors):
            head = image_head_like(tensors, configuration.topology, plan.image_targets)
            fill(nn.ModuleDict({PART: nn.ModuleDict({NAME: head})}), tensors, str(file))
            found.append(Teller(network.encoder, place(head, device).eval()))
    return tuple(found) if len(found) == len(networks) else ()
