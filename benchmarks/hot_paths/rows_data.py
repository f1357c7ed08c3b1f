"""Rows of preprocessing and of what training reads: whole commands, resampling, loading, augmentation."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from selfcfg.engine.data.store import Store
from selfcfg.kernels.resample import new_shape

from . import inputs
from .contests import Array, Check, Contest, Row, at_least, at_most, calls, nearly_equal, same_labels
from .measuring import Place, Usage, Worker, run

PATCH = (128, 128, 128)
PICTURE = (512, 512)


@contextmanager
def preprocessing(place: Place, dataset: Callable[[Place], Path]) -> Iterator[Contest]:
    """Fingerprint, plan and preprocessing by the commands of either side, with as many processes as cores."""
    scans = dataset(place)
    ours, theirs = (folder / scans.name for folder in inputs.folders(place))

    def one(commands: list[list[str]], made: Path) -> Usage:
        shutil.rmtree(made, ignore_errors=True)
        return run(commands, place.environment(1))

    def check() -> list[Check]:
        inputs.preprocess_theirs_alike(place, scans)
        own, other = inputs.preprocessed(place, scans)
        return _same_cases(Store(own), other)

    yield Contest(
        lambda: one(inputs.own_preprocessing(place, scans), ours),
        lambda: one(inputs.their_preprocessing(place, scans), theirs),
        check,
    )


def _same_cases(store: Store, theirs: Path) -> list[Check]:
    import blosc2

    largest, equal, total = 0.0, 0, 0
    for name in store.cases():
        case = store.open(name)
        image, label = (np.asarray(blosc2.open(f"{theirs}/{name}{end}.b2nd", mode="r")[:]) for end in ("", "_seg"))
        if case.image.shape != image.shape:
            return [at_most(f"shapes of {name}: {case.image.shape} and {image.shape}", np.inf, 1e-3)]
        largest = max(largest, float(np.abs(case.image[:] - image).max() / image.std()))
        equal += np.count_nonzero(case.label[:] == label[0]) if case.label is not None else 0
        total += label.size
    return [
        at_most("largest difference of images / std", largest, 1e-3),
        at_least("labels that are equal", equal / total, 0.9999),
    ]


@contextmanager
def image_resampling(place: Place, spacing: tuple[float, float, float]) -> Iterator[Contest]:
    """One channel to 1 mm by the cubic spline."""
    size = (40, 96, 96) if place.quick else (200, 512, 512)
    image, _ = inputs.array(place, "resampling", size, 5)
    shape = new_shape(size, spacing, (1.0, 1.0, 1.0))
    arguments = {"image": str(image), "shape": list(shape), "old": list(spacing), "new": [1.0] * 3}
    with calls(place, "resample_image", arguments, arguments, nearly_equal) as contest:
        yield contest


@contextmanager
def label_resampling(place: Place, n_labels: int) -> Iterator[Contest]:
    """A label map to 1 mm."""
    size, spacing = ((32, 64, 64) if place.quick else (130, 256, 256)), (2.5, 1.3, 1.3)
    _, label = inputs.array(place, "labels", size, n_labels)
    shape = new_shape(size, spacing, (1.5, 1.5, 1.5))
    arguments = {"label": str(label), "shape": list(shape), "old": list(spacing), "new": [1.5] * 3}
    with calls(place, "resample_labels", arguments, arguments, same_labels) as contest:
        yield contest


@contextmanager
def augmentation(place: Place, patch: tuple[int, ...]) -> Iterator[Contest]:
    """Samples of an enlarged patch in memory, augmented on one core."""
    patch = tuple(size // 4 for size in patch) if place.quick else patch
    size = _enlarged(place, patch)
    image, label = inputs.array(place, "patch", (size if len(patch) == 3 else (9, *size)), 5)
    if len(patch) == 2:
        image, label = (_middle(file) for file in (image, label))
    samples = 4 if place.quick else 40 if len(patch) == 3 else 120
    arguments = {"image": str(image), "label": str(label), "patch": list(patch), "samples": samples}
    with calls(place, "augment", arguments, arguments, _same_distribution, per=samples, cores=1) as contest:
        yield contest


def _middle(file: Path) -> Path:
    """The middle plane of a volume, (1, 1, Y, X), beside it."""
    target = file.with_name(f"middle_{file.name}")
    np.save(target, np.load(file)[:, 4:5])
    return target


def _same_distribution(ours: Array, theirs: Array) -> list[Check]:
    """Kolmogorov-Smirnov tests of mean, deviation and foreground share over the samples of either side."""
    from scipy.stats import ks_2samp

    names = ("mean", "deviation", "foreground")
    found = [float(ks_2samp(ours[:, column], theirs[:, column]).pvalue) for column in range(len(names))]
    return [at_least(f"p that {name} has one distribution", p, 1e-3) for name, p in zip(names, found, strict=True)]


def _enlarged(place: Place, patch: tuple[int, ...]) -> tuple[int, ...]:
    """The patch that the reference reads for a patch of the network."""
    with Worker(place, "peer_jobs") as worker:
        worker.prepare("enlarged", patch=list(patch)).call()
        found = np.load(worker.keep(place.work / "enlarged.npy"))
    return tuple(int(size) for size in found)


@contextmanager
def patch_loading(place: Place) -> Iterator[Contest]:
    """What each side reads for its training patches: the enlarged patch there, the box of what was drawn here."""
    ours, theirs = inputs.preprocessed(place, inputs.raw(place))
    samples = 4 if place.quick else 40
    shared = {"patch": [size // 4 for size in PATCH] if place.quick else list(PATCH), "samples": samples}
    own, their = {"store": str(ours), **shared}, {"store": str(theirs), **shared}
    with calls(place, "load_patches", own, their, None, per=samples, cores=1) as contest:
        yield contest


@contextmanager
def box_reading(place: Place) -> Iterator[Contest]:
    """The same enlarged boxes from both stores."""
    ours, theirs = inputs.preprocessed(place, inputs.raw(place))
    size = _enlarged(place, tuple(side // 4 for side in PATCH) if place.quick else PATCH)
    rng = np.random.default_rng(3)
    store = Store(ours)
    boxes = []
    for name in store.cases() * (1 if place.quick else 4):
        shape = store.open(name).image.shape[1:]
        first = [int(rng.integers(min(0, n - s), max(0, n - s) + 1)) for n, s in zip(shape, size, strict=True)]
        boxes.append((name, first))
    shared = {"boxes": boxes, "size": list(size)}
    own, their = {"store": str(ours), **shared}, {"store": str(theirs), **shared}
    with calls(place, "read_boxes", own, their, _same_boxes, per=len(boxes), cores=1) as contest:
        yield contest


def _same_boxes(ours: Array, theirs: Array) -> list[Check]:
    return [*nearly_equal(ours[:, :1], theirs[:, :1]), *same_labels(ours[:, 1], theirs[:, 1])]


ROWS = {
    "preprocessing": Row(
        "fingerprint, plan and preprocessing of 6 CTs of about 130 x 256 x 256",
        "",
        5,
        partial(preprocessing, dataset=inputs.raw),
        memory=2,
    ),
    "preprocessing_real": Row(
        "the same of 40 real head and neck CTs of about 80 x 128 x 128",
        "",
        None,
        partial(preprocessing, dataset=inputs.real),
    ),
    "image": Row(
        "image 200 x 512 x 512, 2.0 x 0.7 x 0.7 to 1 mm", "", 10, partial(image_resampling, spacing=(2.0, 0.7, 0.7))
    ),
    "image_separate": Row(
        "the same from 5.0 x 0.7 x 0.7 mm, slice by slice", "", 10, partial(image_resampling, spacing=(5.0, 0.7, 0.7))
    ),
    "labels_5": Row("label map 130 x 256 x 256 with 5 labels", "", 5, partial(label_resampling, n_labels=5)),
    "labels_100": Row("the same with 100 labels", "", 20, partial(label_resampling, n_labels=100)),
    "augmentation_3d": Row(
        "augmentation, patch of 128 x 128 x 128, one core", "a sample", 2, partial(augmentation, patch=PATCH)
    ),
    "augmentation_2d": Row(
        "augmentation, patch of 512 x 512, one core", "a sample", 2, partial(augmentation, patch=PICTURE)
    ),
    "loading": Row("loading of training patches of 128 x 128 x 128, one core", "a patch", 3, patch_loading),
    "boxes": Row("the reference's enlarged patch (205 x 205 x 205) from either store", "a patch", None, box_reading),
}
