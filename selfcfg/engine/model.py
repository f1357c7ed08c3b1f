"""A trained model: the networks of one or several folds, and everything needed to go from an image to a label map."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from selfcfg.dataset import Case
from selfcfg.engine.checkpoint import load_weights
from selfcfg.engine.device import choose_device, place, resolve_precision
from selfcfg.engine.export import LabelMap, Probabilities, export
from selfcfg.engine.inputs import find_inputs, refuse_unfit
from selfcfg.engine.preprocess import Prepared, prepare
from selfcfg.engine.sliding import Window, slide
from selfcfg.engine.store import CaseInfo
from selfcfg.errors import DataError, SelfcfgError, UsageError, counted
from selfcfg.files import hash_file, hash_json, read_json
from selfcfg.fingerprint import Fingerprint
from selfcfg.geometry import FLAT_SPACING, Geometry, Vector
from selfcfg.io import read_case
from selfcfg.nets.unet import Segmenter, build_parts
from selfcfg.plan import Configuration, Plan
from selfcfg.progress import progress
from selfcfg.runs import RunFolder, RunRecord, fold_folders

Weights = Literal["final", "best"]

BUSY_VOXELS = 1 << 16
"""Voxels in a forward pass from which on a larger batch makes a CPU no faster (measured: 48^3 and 256^2 patches)."""


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image, on the image's own grid.

    Args:
        labels: (Z, Y, X), uint8, or uint16 where a value needs it.
        probabilities: (classes, Z, Y, X) float16, background first (regions: no background), or None.
        geometry: of the image.
    """

    labels: LabelMap
    probabilities: Probabilities | None
    geometry: Geometry


@dataclass(frozen=True, repr=False)
class Model:
    """One or several networks of the same plan and configuration, whose logits are averaged.

    Args:
        plan: what they were trained by.
        configuration: the one they were trained in, with the patch size of the training.
        networks: each maps (B, C, [Z,] Y, X) to logits (B, n_outputs, [Z,] Y, X); in evaluation mode and on `device`.
        device: where they are.
        precision: "float32" or "bfloat16".
        files: the files the weights were read from.
        facts: fingerprint of the training cases, where it lies beside the runs.
        mirror_axes: axes along which patches were mirrored in training, so that copies may be in prediction.
    """

    plan: Plan
    configuration: Configuration
    networks: tuple[nn.Module, ...]
    device: torch.device
    precision: str
    files: tuple[Path, ...] = ()
    facts: Fingerprint | None = None
    mirror_axes: tuple[int, ...] = ()

    def __repr__(self) -> str:
        sizes = " x ".join(map(str, self.configuration.patch_size))
        counts = f"{counted(len(self.networks), 'network')} of {self.plan.dataset}"
        return f"Model({counts}, planner {self.plan.planner}, patch {sizes}, {self.precision} on {self.device})"

    @cached_property
    def identity(self) -> str:
        """The hash of everything that makes its predictions: plan, configuration, weights, precision; 32 hex digits."""
        return hash_json(
            {
                "plan": self.plan.content_hash(),
                "configuration": self.configuration.content_hash(),
                "weights": [hash_file(file) for file in self.files],
                "precision": self.precision,
                "mirror_axes": self.mirror_axes,
            }
        )

    def predict(
        self,
        image: Path | str | Sequence[Path | str] | tuple[npt.NDArray[Any], Sequence[float]] | Any,
        *,
        mirroring: bool = True,
        step: float = 0.5,
        probabilities: bool = False,
    ) -> Prediction:
        """The prediction for one image.

        Args:
            image: a file, the files of its channels in order, a SimpleITK image, or an array (C, Z, Y, X) with its
                spacing (z, y, x) in mm.
            mirroring: also predict mirrored copies and average, where the training mirrored.
            step: largest distance between tiles, in tile lengths.
            probabilities: also give the probability of each class.

        Raises:
            DataError: the image cannot be read, or is not what the model was trained on.
        """
        case, array, geometry = _read(image, self.plan)
        refuse_unfit(case, len(array), geometry, self.plan)
        prepared = prepare(case, array, None, geometry, self.plan, self.configuration)
        return self.predict_prepared(prepared, mirroring=mirroring, step=step, probabilities=probabilities)

    def predict_prepared(
        self,
        prepared: Prepared,
        *,
        mirroring: bool = True,
        step: float = 0.5,
        probabilities: bool = False,
        told: bool = False,
    ) -> Prediction:
        """The prediction for an image that was preprocessed for this model's configuration.

        Args:
            prepared: the image.
            mirroring: see `predict`.
            step: see `predict`.
            probabilities: see `predict`.
            told: show on stderr how far it is.

        Raises:
            UsageError: the step is out of range.
            SelfcfgError: the device has too little memory for a single tile.
        """
        if not 0 < step <= 1:
            raise UsageError("predict", f"a step of {step}", "give a step above 0 and at most 1")
        window = Window(
            patch=self.configuration.patch_size,
            n_outputs=self.plan.labels.n_outputs,
            mirror_axes=self.mirror_axes if mirroring else (),
            step=step,
            batch=self._batch(),
            precision=self.precision,
        )
        with suppress(torch.OutOfMemoryError):
            return self._predicted(prepared, window, self.device, probabilities, told)
        torch.cuda.empty_cache()
        try:
            return self._predicted(prepared, replace(window, batch=1), torch.device("cpu"), probabilities, told)
        except torch.OutOfMemoryError as error:
            found = f"{self.device} has too little free memory for one tile of {window.patch}"
            raise SelfcfgError("predict", found, "free some, or use --device cpu") from error

    def _predicted(
        self, prepared: Prepared, window: Window, memory: torch.device, probabilities: bool, told: bool
    ) -> Prediction:
        info = prepared.info
        spacing = self.configuration.target_spacing(info.spacing)
        with torch.inference_mode():
            slabs = slide(self.networks, prepared.image, window, self.device, memory)
            slabs = _told(slabs, info) if told else slabs
            labels, stack = export(slabs, info, spacing, self.plan.labels, probabilities=probabilities)
        return Prediction(labels, stack, info.geometry)

    def _batch(self) -> int:
        """Tiles in a forward pass: on a CPU just enough to keep it busy, else what a training step has room for."""
        if self.device.type == "cpu":
            return max(1, BUSY_VOXELS // math.prod(self.configuration.patch_size))
        return self.configuration.batch_size


def load_model(
    path: Path | str,
    *,
    folds: Sequence[int] | None = None,
    device: str | None = None,
    precision: str = "auto",
    weights: Weights = "final",
) -> Model:
    """The model of an experiment folder (all its folds, averaged) or of one fold folder.

    Args:
        path: the parent of ``fold_*`` folders, or one of them.
        folds: use only these.
        device: such as "cpu" or "cuda:0"; default: the best there is.
        precision: "auto" (bfloat16 where the device computes in it), "float32" or "bfloat16".
        weights: of the last or of the best epoch.

    Raises:
        UsageError: there is no such folder or fold.
        DataError: a run is not finished, the folds were trained by different plans, or weights do not fit the plan.
    """
    runs = _chosen(fold_folders(Path(path)), folds)
    records = [_usable(run, weights) for run in runs]
    plan = _common_plan(runs, records)
    configuration = _configuration(plan, records[0])
    target = choose_device(device)
    files = [run.final if weights == "final" else run.best for run in runs]
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
    )


def _was_mirrored(settings: Mapping[str, Any]) -> bool:
    transforms = settings.get("transforms") or {}
    return settings.get("augmentation") != "none" and transforms.get("mirror_p", 1.0) > 0


def _told(slabs: Iterator[Tensor], info: CaseInfo) -> Iterator[Tensor]:
    with progress(f"predict {info.case}, slices", info.shape[0]) as step:
        for slab in slabs:
            yield slab
            for _ in range(len(slab)):
                step("")


def _chosen(runs: list[RunFolder], folds: Sequence[int] | None) -> list[RunFolder]:
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
    if configuration.after is not None:
        raise UsageError(
            f"predict with {record.configuration}",
            f"it refines the predictions of {configuration.after}, and chains of two networks cannot be predicted yet",
            "use a model of another configuration",
        )
    settings = record.settings
    return configuration.resized(batch_size=settings.get("batch_size"), patch_size=settings.get("patch_size"))


def _network(file: Path, plan: Plan, configuration: Configuration, record: RunRecord) -> nn.Module:
    parts = build_parts(configuration.topology, len(plan.channels), plan.labels.n_outputs)
    noted = load_weights(file, parts).get("plan_hash", record.plan_hash)
    if noted != record.plan_hash:
        raise DataError(
            f"load model {file}", "the weights were trained by another plan", "put the run's own weights back"
        )
    return Segmenter(parts)


def _read(image: Any, plan: Plan) -> tuple[str, npt.NDArray[Any], Geometry]:
    """Name, voxels (C, Z, Y, X) and geometry of whatever the user gave."""
    if isinstance(image, (str, Path)):
        image = [image]
    if isinstance(image, tuple) and len(image) == 2 and isinstance(image[0], np.ndarray):
        return _from_array(image[0], image[1])
    if hasattr(image, "GetSpacing"):
        return _from_simpleitk(image)
    if isinstance(image, np.ndarray):
        found = f"an array of shape {image.shape} without spacing"
        raise DataError("predict an array", found, "give a pair: the array (C, Z, Y, X) and its spacing z, y, x in mm")
    cases = find_inputs([Path(file) for file in image], plan)
    (case, files), *_ = cases.items()
    arrays = read_case(Case(id=case, images=files, label=None, subject=case))
    return case, arrays.image, arrays.geometry


def _from_array(array: npt.NDArray[Any], spacing: Sequence[float]) -> tuple[str, npt.NDArray[Any], Geometry]:
    if array.ndim != 4 or len(spacing) != 3 or min(spacing) <= 0:
        found = f"an array of shape {array.shape} and spacing {tuple(spacing)}"
        raise DataError("predict an array", found, "give (C, Z, Y, X) and three positive numbers in mm")
    if not np.isfinite(array).all():
        raise DataError("predict an array", "it holds NaN or infinite values", "replace them")
    place: Vector = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    flat = array.shape[1] == 1 and place[0] == FLAT_SPACING
    geometry = Geometry(shape=array.shape[1:], spacing=place, dimensions=2 if flat else 3)
    return "array", array.astype(np.float32), geometry


def _from_simpleitk(image: Any) -> tuple[str, npt.NDArray[Any], Geometry]:
    from selfcfg.io.itk import unpack  # noqa: PLC0415 - only who gives such an image needs SimpleITK

    array, geometry, _ = unpack(Path("SimpleITK image"), image)
    if not np.isfinite(array).all():
        raise DataError("predict a SimpleITK image", "it holds NaN or infinite values", "replace them")
    return "image", array.astype(np.float32), geometry
