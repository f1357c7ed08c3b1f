"""Our side of the calls that are measured in a warm process; each job loads its inputs and gives the call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch

from selfcfg.engine.augmentation.transforms import PatchSpace, View, apply, draw
from selfcfg.engine.checkpoint import load_weights
from selfcfg.engine.data.sampling import OUTSIDE_IMAGE, OUTSIDE_LABEL, PatchWish, draw_case, draw_corner, read_box
from selfcfg.engine.data.store import CaseInfo, Store
from selfcfg.engine.prediction.export import export as export_logits
from selfcfg.engine.randomness import generator, noise_field
from selfcfg.engine.trainer import Batch
from selfcfg.engine.training.loop import Training
from selfcfg.geometry import Geometry
from selfcfg.io import read_label
from selfcfg.kernels import resample
from selfcfg.kernels.overlap import counts, joint_histogram
from selfcfg.labels import LabelSchema
from selfcfg.plan import Plan
from selfcfg.runs import RunFolder, RunRecord
from selfcfg.trainers.supervised import Supervised

Call = Callable[[], Any]


def resample_image(image: str, shape: list[int], old: list[float], new: list[float]) -> Call:
    """The cubic spline of one channel."""
    values = np.load(image)
    separate = resample.separate_axis(tuple(old), tuple(new))
    return lambda: resample.resample_image(values, tuple(shape), separate)


def resample_labels(label: str, shape: list[int], old: list[float], new: list[float]) -> Call:
    """A label map, linearly by indicators."""
    values = np.load(label)
    separate = resample.separate_axis(tuple(old), tuple(new))
    return lambda: resample.resample_labels(values[0], tuple(shape), separate)[None]


def augment(image: str, label: str, patch: list[int], samples: int) -> Call:
    """Draws and augments samples of an enlarged patch; gives mean, deviation and foreground share of each."""
    values, labels = np.load(image), np.load(label)
    space = PatchSpace(tuple(patch), (False,), tuple(range(len(patch))))
    lead = (0,) * (3 - len(patch))
    corner = (*lead, *((whole - size) // 2 for whole, size in zip(values.shape[-len(patch) :], patch, strict=True)))

    def one(index: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        wish = draw(generator(0, "benchmark", index), space)
        box = (*((0, 1) for _ in lead), *wish.source_box(space))
        found = read_box(values, corner, box, OUTSIDE_IMAGE)
        seen = read_box(labels, corner, box, OUTSIDE_LABEL)
        if lead:
            found, seen = found[:, 0], seen[:, 0]
        noise = None if wish.noise is None else torch.from_numpy(noise_field(wish.noise[1], (1, *patch)))
        return apply(View(found, seen, noise, wish), space)

    def call() -> Call:
        made = [one(index) for index in range(samples)]
        return lambda: np.array([[float(i.mean()), float(i.std()), float((t > 0).float().mean())] for i, t in made])

    return call


def load_patches(store: str, patch: list[int], samples: int) -> Call:
    """What training reads for its samples: the box that each one's drawn augmentation needs."""
    space = PatchSpace(tuple(patch), (False,), (0, 1, 2))
    opened = {name: Store(Path(store)).open(name) for name in Store(Path(store)).cases()}

    def call() -> None:
        for index in range(samples):
            rng = generator(0, "benchmark", index)
            case = opened[draw_case(rng, tuple(opened))]
            corner = draw_corner(rng, case, PatchWish(tuple(patch), foreground=index % 2 == 1))
            box = draw(rng, space).source_box(space)
            read_box(case.image, corner, box, OUTSIDE_IMAGE)
            read_box(case.label, corner, box, OUTSIDE_LABEL)

    return call


def read_boxes(store: str, boxes: list[tuple[str, list[int]]], size: list[int]) -> Call:
    """The same boxes on both sides, with padding; every eighth voxel along each axis is kept for comparison."""
    opened = {name: Store(Path(store)).open(name) for name in Store(Path(store)).cases()}
    whole = [(0, length) for length in size]

    def call() -> Call:
        found = []
        for name, corner in boxes:
            case = opened[name]
            image = read_box(case.image, tuple(corner), whole, OUTSIDE_IMAGE)
            found.append((image, read_box(case.label, tuple(corner), whole, OUTSIDE_LABEL)[None]))
        return lambda: np.stack([np.concatenate([i, t])[:, ::8, ::8, ::8] for i, t in found])

    return call


def export(logits: str, shape: list[int], spacing: list[float], n_classes: int, network_spacing: float) -> Call:
    """The label map of a case from memory-mapped logits (K, Z, Y, X) float16, handed over eight planes at a time."""
    stored = np.load(logits, mmap_mode="r")
    z, y, x = shape
    info = CaseInfo(
        case="case",
        geometry=Geometry(shape=(z, y, x), spacing=tuple(spacing)),
        box=((0, z), (0, y), (0, x)),
        cropped_shape=(z, y, x),
        shape=stored.shape[1:],
        spacing=tuple(spacing),
        axis_order=(0, 1, 2),
    )
    labels = LabelSchema(labels={"background": 0, **{f"class {value}": value for value in range(1, n_classes)}})

    def slabs() -> Iterator[torch.Tensor]:
        for start in range(0, stored.shape[1], 8):
            yield torch.from_numpy(stored[:, start : start + 8].astype(np.float32)).transpose(0, 1)

    def call() -> np.ndarray:
        with torch.inference_mode():
            return export_logits(slabs(), info, (network_spacing,) * 3, labels)[0]

    return call


def overlap(pairs: list[tuple[str, str]], n_labels: int) -> Call:
    """Reads pairs of label files and counts every class; gives tp, fp, fn, tn (pairs, classes, 4)."""

    def one(reference: str, prediction: str) -> list[list[int]]:
        histogram = joint_histogram(read_label(Path(reference))[0], read_label(Path(prediction))[0], n_labels + 1)
        found = [counts(histogram, [value]) for value in range(1, n_labels + 1)]
        return [[count.tp, count.fp, count.fn, count.tn] for count in found]

    return lambda: np.array([one(*pair) for pair in pairs])


class _OneBatch:
    """The same batch again and again, in the place of a loader."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def training(self, first: int, last: int) -> Iterator[Mapping[str, Batch]]:
        return repeat({"labelled": self.batch}, last - first)

    def validation(self, epoch: int) -> Iterator[Mapping[str, Batch]]:
        return iter(())

    def close(self) -> None:
        pass


def train_step(run: str, batch: str, precision: str) -> Call:
    """One optimiser step of the training loop on a given batch; gives its loss."""
    device, fold = torch.device("cpu"), RunFolder(Path(run))
    record = RunRecord.read(fold.record)
    settings = Supervised.settings_type.parse({**record.settings, "precision": precision}, "the benchmark's settings")
    plan = Plan.read(fold.plan)
    trainer = Supervised(settings, plan, plan.configuration(record.configuration))
    stored = np.load(batch)
    image, target = torch.from_numpy(stored["image"]), torch.from_numpy(stored["target"])
    batches = _OneBatch(Batch(image, target, ("case",) * len(image)))
    training = Training(trainer, RunFolder(Path(mkdtemp())), record, batches, device)
    load_weights(fold.final, training.parts)
    stream = batches.training(0, 1000)

    def call() -> np.ndarray:
        before = sum(training.position.sums.get(name, 0.0) for name in ("dice", "cross_entropy"))
        training.step(stream)
        return np.array([sum(training.position.sums[name] for name in ("dice", "cross_entropy")) - before])

    return call


JOBS = {
    job.__name__: job
    for job in (resample_image, resample_labels, augment, load_patches, read_boxes, export, overlap, train_step)
}
