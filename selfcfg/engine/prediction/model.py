"""A trained model: the networks of one or several folds, and everything needed to go from an image to a label map."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from selfcfg.dataset import Case
from selfcfg.engine.data.inputs import find_inputs, refuse_unfit
from selfcfg.engine.data.preprocess import Prepared, prepare
from selfcfg.engine.data.store import CaseInfo
from selfcfg.engine.prediction.cascade import on_grid, with_previous
from selfcfg.engine.prediction.export import LabelMap, Probabilities, export
from selfcfg.engine.prediction.image_level import Teller, told_of
from selfcfg.engine.prediction.quality import Quality
from selfcfg.engine.prediction.sliding import Disagreement, Window, slide
from selfcfg.engine.prediction.uncertainty import Gathering, Uncertainty, Wanted
from selfcfg.errors import DataError, SelfcfgError, UsageError, counted
from selfcfg.files import hash_file, hash_json
from selfcfg.fingerprint import Fingerprint
from selfcfg.geometry import FLAT_SPACING, Geometry, Vector
from selfcfg.image_targets import ImageLevel
from selfcfg.io import read_case
from selfcfg.plan import Configuration, Plan
from selfcfg.progress import progress

Collected = TypeVar("Collected")

BUSY_VOXELS = 1 << 16
"""Voxels in a forward pass from which on a larger batch makes a CPU no faster (measured: 48^3 and 256^2 patches)."""


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image, on the image's own grid.

    Args:
        labels: (Z, Y, X), uint8, or uint16 where a value needs it.
        probabilities: (classes, Z, Y, X) float16, background first (regions: no background), or None.
        geometry: of the image.
        image_level: what it says of the image as a whole, by target; empty where it was not trained to.
        uncertainty: how unsure it is, or None.
    """

    labels: LabelMap
    probabilities: Probabilities | None
    geometry: Geometry
    image_level: Mapping[str, ImageLevel] = field(default_factory=dict)
    uncertainty: Uncertainty | None = None


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
        first: in a cascade, the model whose label map goes in with the image.
        tellers: what tells image-level targets, one a network; empty where these were trained without.
        temperature: that logits are divided by where probabilities are asked for; it changes no label.
        quality: says how good a prediction is likely to be, where it was fitted.
    """

    plan: Plan
    configuration: Configuration
    networks: tuple[nn.Module, ...]
    device: torch.device
    precision: str
    files: tuple[Path, ...] = ()
    facts: Fingerprint | None = None
    mirror_axes: tuple[int, ...] = ()
    first: Model | None = None
    tellers: tuple[Teller, ...] = ()
    temperature: float = 1.0
    quality: Quality | None = None

    def __repr__(self) -> str:
        sizes = " x ".join(map(str, self.configuration.patch_size))
        counts = f"{counted(len(self.networks), 'network')} of {self.plan.dataset}"
        return f"Model({counts}, planner {self.plan.planner}, patch {sizes}, {self.precision} on {self.device})"

    @cached_property
    def identity(self) -> str:
        """The hash of everything that makes its predictions: plan, configuration, weights, precision; 32 hex digits."""
        makes = {
            "plan": self.plan.content_hash(),
            "configuration": self.configuration.content_hash(),
            "weights": [hash_file(file) for file in self.files],
            "precision": self.precision,
            "mirror_axes": self.mirror_axes,
            "first": self.first.identity if self.first else None,
        }
        return hash_json(makes if self.temperature == 1 else {**makes, "temperature": self.temperature})

    @property
    def tells(self) -> bool:
        """Whether it says something of images as a whole."""
        return bool(self.tellers)

    def predict(
        self,
        image: Path | str | Sequence[Path | str] | tuple[npt.NDArray[Any], Sequence[float]] | Any,
        *,
        mirroring: bool = True,
        step: float = 0.5,
        probabilities: bool = False,
        uncertainty: bool = False,
    ) -> Prediction:
        """The prediction for one image.

        Args:
            image: a file, the files of its channels in order, a SimpleITK image, or an array (C, Z, Y, X) with its
                spacing (z, y, x) in mm.
            mirroring: also predict mirrored copies and average, where the training mirrored.
            step: largest distance between tiles, in tile lengths.
            probabilities: also give the probability of each class.
            uncertainty: also say voxel by voxel how unsure the prediction is.

        Raises:
            DataError: the image cannot be read, or is not what the model was trained on.
        """
        case, array, geometry = read_input(image, self.plan)
        refuse_unfit(case, len(array), geometry, self.plan)
        prepared = self.prepare(case, array, geometry)
        wanted: Wanted | None = "all" if uncertainty else None
        return self.predict_prepared(
            prepared, mirroring=mirroring, step=step, probabilities=probabilities, uncertainty=wanted
        )

    def prepare(self, case: str, array: npt.NDArray[Any], geometry: Geometry) -> Prepared:
        """An image (C, Z, Y, X) preprocessed for this model and, in a cascade, for the one before it.

        Raises:
            DataError: the image does not fit the plan.
        """
        first = None if self.first is None else self.first.prepare(case, array, geometry)
        return replace(prepare(case, array, None, geometry, self.plan, self.configuration), first=first)

    def predict_prepared(
        self,
        prepared: Prepared,
        *,
        mirroring: bool = True,
        step: float = 0.5,
        probabilities: bool = False,
        uncertainty: Wanted | None = None,
        told: bool = False,
    ) -> Prediction:
        """The prediction for an image that was preprocessed for this model's configuration.

        Args:
            prepared: the image, see `prepare`; in a cascade either with `Prepared.first`, or with the channels of
                `selfcfg.engine.prediction.cascade.with_previous`.
            mirroring: see `predict`.
            step: see `predict`.
            probabilities: see `predict`.
            uncertainty: what of it is wanted.
            told: show on stderr how far it is.

        Raises:
            UsageError: the step is out of range.
            SelfcfgError: the device has too little memory for a single tile.
        """
        if not 0 < step <= 1:
            raise UsageError("predict", f"a step of {step}", "give a step above 0 and at most 1")
        info, prepared = prepared.info, self._after_first(prepared, mirroring, step, told)
        spacing, image_level = self.configuration.target_spacing(info.spacing), self.image_level(prepared)
        schema = self.plan.labels
        asked = Disagreement(not schema.has_regions, self.temperature) if uncertainty == "all" else None

        def exported(slabs: Iterator[Tensor]) -> Prediction:
            slabs = _told(slabs, info) if told else slabs
            unsure = None
            if uncertainty:
                shape = info.geometry.shape
                plain = None if self.temperature == 1 else Gathering(shape, schema)
                unsure = Gathering(shape, schema, disagreement=asked is not None, untempered=plain)
            labels, stack = export(
                slabs,
                info,
                spacing,
                schema,
                probabilities=probabilities,
                temperature=self.temperature,
                uncertainty=unsure,
            )
            return Prediction(labels, stack, info.geometry, image_level, unsure.finished() if unsure else None)

        return self._slid(prepared, exported, mirroring, step, asked)

    def image_level(self, prepared: Prepared) -> dict[str, ImageLevel]:
        """What it says of an image as a whole, by target, see `predict_prepared`; empty where it was not trained to."""
        if not self.tellers:
            return {}
        whole = self._after_first(prepared, mirroring=True, step=0.5, told=False)
        window = self._window((), 1.0)
        with suppress(torch.OutOfMemoryError):
            return told_of(self.tellers, whole.image, window, self.device)
        torch.cuda.empty_cache()
        return told_of(self.tellers, whole.image, replace(window, batch=1), self.device)

    def logits(self, prepared: Prepared, *, mirroring: bool = True) -> npt.NDArray[np.float32]:
        """The logits (n_outputs, Z, Y, X) of an image on the grid that it was preprocessed to, see `predict_prepared`.

        Raises:
            SelfcfgError: the device has too little memory for a single tile.
        """

        def together(slabs: Iterator[Tensor]) -> npt.NDArray[np.float32]:
            values = [slab.transpose(0, 1).cpu().numpy().copy() for slab in slabs]
            return np.concatenate(values, 1)

        return self._slid(self._after_first(prepared, mirroring, 0.5, told=False), together, mirroring, 0.5)

    def _after_first(self, prepared: Prepared, mirroring: bool, step: float, told: bool) -> Prepared:
        """In a cascade, the image with what the first model says of it; else as it is."""
        if self.first is None or prepared.first is None:
            return prepared
        before = self.first.predict_prepared(prepared.first, mirroring=mirroring, step=step, told=told)
        labels = on_grid(before.labels, prepared.info, self.configuration)
        image = with_previous(prepared.image, labels, self.plan.labels.foreground_values)
        return replace(prepared, image=image, first=None)

    def _slid(
        self,
        prepared: Prepared,
        collect: Callable[[Iterator[Tensor]], Collected],
        mirroring: bool,
        step: float,
        disagreement: Disagreement | None = None,
    ) -> Collected:
        """What is made of the slabs of logits of an image; once more in main memory where the device has too little."""
        window = replace(self._window(self.mirror_axes if mirroring else (), step), disagreement=disagreement)
        with suppress(torch.OutOfMemoryError), torch.inference_mode():
            return collect(slide(self.networks, prepared.image, window, self.device, self.device))
        torch.cuda.empty_cache()
        try:
            with torch.inference_mode():
                slabs = slide(self.networks, prepared.image, replace(window, batch=1), self.device, torch.device("cpu"))
                return collect(slabs)
        except torch.OutOfMemoryError as error:
            found = f"{self.device} has too little free memory for one tile of {window.patch}"
            raise SelfcfgError("predict", found, "free some, or use --device cpu") from error

    def _window(self, mirror_axes: tuple[int, ...], step: float) -> Window:
        return Window(
            patch=self.configuration.patch_size,
            n_outputs=self.plan.labels.n_outputs,
            mirror_axes=mirror_axes,
            step=step,
            batch=self._batch(),
            precision=self.precision,
        )

    def _batch(self) -> int:
        """Tiles in a forward pass: on a CPU just enough to keep it busy, else what a training step has room for."""
        if self.device.type == "cpu":
            return max(1, BUSY_VOXELS // math.prod(self.configuration.patch_size))
        return self.configuration.batch_size


def _told(slabs: Iterator[Tensor], info: CaseInfo) -> Iterator[Tensor]:
    with progress(f"predict {info.case}, slices", info.shape[0]) as step:
        for slab in slabs:
            yield slab
            for _ in range(len(slab)):
                step("")


def read_input(image: Any, plan: Plan) -> tuple[str, npt.NDArray[Any], Geometry]:
    """Name, voxels (C, Z, Y, X) and geometry of whatever the user gave, see `Model.predict`.

    Raises:
        DataError: it cannot be read.
    """
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
