"""Rows of training steps, prediction, export, scoring and start-up."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from selfcfg.io import read_label

from . import inputs
from .contests import Array, Check, Contest, Row, at_most, calls, same_labels
from .measuring import HERE, Place, Usage, Worker, run, seconds_until

N_CLASSES = 118
N_SCORED = 13
LOGITS_MM = 1.5


@contextmanager
def training_step(place: Place, precision: str) -> Iterator[Contest]:
    """A step of either training on the same batch, from the same weights."""
    models = inputs.models(place)
    batch = str(inputs.training_batch(place, models.plan))
    own = {"run": str(models.ours / "fold_0"), "batch": batch, "precision": precision}
    check = partial(_same_loss, limit=1e-3 if precision == "float32" else 1e-2)
    with calls(place, "train_step", own, {"model": str(models.theirs), "batch": batch}, check) as contest:
        yield contest


def _same_loss(ours: Array, theirs: Array, limit: float) -> list[Check]:
    """Our Dice loss is 1 - Dice, nnU-Net's is -Dice."""
    return [at_most("difference of the first step's losses", abs(float(ours[0]) - 1 - float(theirs[0])), limit)]


@contextmanager
def prediction(place: Place, precision: str, *, mirroring: bool) -> Iterator[Contest]:
    """The whole command for one CT, the same weights on both sides."""
    models = inputs.models(place)
    folders = {side: place.work / "coarse" / f"predicted_{side}" for side in ("ours", "theirs")}
    own = place.ours("predict", models.ours, "-i", models.images, "-o", folders["ours"], "--precision", precision)
    their = _their_prediction(place, models, folders["theirs"], mirroring=mirroring)
    if not mirroring:
        own.append("--no-mirroring")

    def one(command: list[str], side: str) -> Usage:
        shutil.rmtree(folders[side], ignore_errors=True)
        return run([command], place.environment())

    def check() -> list[Check]:
        ours, theirs = (read_label(folders[side] / "ct_0.nii.gz")[0] for side in ("ours", "theirs"))
        found = len(np.unique(theirs))
        checks = [*same_labels(ours, theirs, 0.999), Check("labels in nnU-Net's prediction", found, 2, found >= 2)]
        if precision == "float32":
            exact = folders["theirs"].with_name("predicted_exactly")
            program, *arguments = _their_prediction(place, models, exact, mirroring=mirroring)
            script = [str(place.peer), "-W", "ignore", str(HERE / "exact_prediction.py"), _entry(program)]
            run([[*script, *arguments]], place.environment())
            equal = same_labels(ours, read_label(exact / "ct_0.nii.gz")[0], 0.9999)
            checks += [check._replace(what="labels that are equal where both add up in float32") for check in equal]
        return checks

    yield Contest(lambda: one(own, "ours"), lambda: one(their, "theirs"), check)


def _their_prediction(place: Place, models: inputs.Models, output: Path, *, mirroring: bool = True) -> list[str]:
    processes = ["-npp", place.cores, "-nps", place.cores, "-device", "cpu", "--disable_progress_bar"]
    folders = ["-i", models.images, "-o", output, "-m", models.theirs, "-f", 0]
    options = processes if mirroring else [*processes, "--disable_tta"]
    return place.theirs("nnUNetv2_predict_from_modelfolder", *folders, *options)


@contextmanager
def first_tile(place: Place) -> Iterator[Contest]:
    """From the start of the command until the network sees its first tile."""
    models = inputs.models(place)
    script = str(HERE / "first_tile.py")
    output = place.work / "coarse" / "first_tile"
    own = [sys.executable, script, "selfcfg.cli:main", "predict", str(models.ours), "-i", str(models.images)]
    program, *arguments = _their_prediction(place, models, output)
    their = [str(place.peer), "-W", "ignore", script, _entry(program), *arguments]

    def one(command: list[str]) -> Usage:
        shutil.rmtree(output, ignore_errors=True)
        return seconds_until(command, place.environment(), "first tile")

    yield Contest(lambda: one([*own, "-o", str(output)]), lambda: one(their), list)


def _entry(program: str) -> str:
    """The function behind a command of nnU-Net's."""
    names = {"nnUNetv2_predict_from_modelfolder": "predict_entry_point_modelfolder"}
    return f"nnunetv2.inference.predict_from_raw_data:{names[Path(program).name]}"


@contextmanager
def help_text(place: Place) -> Iterator[Contest]:
    """The help of the program, and of nnU-Net's command for prediction."""
    environment = place.environment()
    own, their = place.ours("--help"), place.theirs("nnUNetv2_predict", "--help")
    yield Contest(lambda: run([own], environment), lambda: run([their], environment), list)


@contextmanager
def export(place: Place) -> Iterator[Contest]:
    """Logits of 118 classes to the label map of the file, at a size that nnU-Net can be run at."""
    shape, spacing = ((20, 32, 32) if place.quick else (200, 256, 256)), (1.0, 0.8, 0.8)
    arguments = _export_arguments(place, shape, spacing)
    with calls(place, "export", arguments, arguments, same_labels) as contest:
        yield contest


@contextmanager
def large_export(place: Place) -> Iterator[Contest]:
    """The same for a whole-body CT; nnU-Net's memory is computed, since no machine here would hold it."""
    shape, spacing = ((20, 64, 64) if place.quick else (400, 512, 512)), (1.0, 0.8, 0.8)
    with Worker(place, "own_jobs") as ours:
        ours.prepare("export", **_export_arguments(place, shape, spacing))
        yield Contest(ours.call, None, list)


def _export_arguments(place: Place, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> dict[str, Any]:
    z, y, x = (round(size * step / LOGITS_MM) for size, step in zip(shape, spacing, strict=True))
    file = inputs.logits(place, (z, y, x), N_CLASSES)
    sizes = {"shape": list(shape), "spacing": list(spacing), "n_classes": N_CLASSES, "network_spacing": LOGITS_MM}
    return {"logits": str(file), **sizes}


@contextmanager
def surfaces(place: Place) -> Iterator[Contest]:
    """Our evaluation, all metrics, against distance transforms of whole volumes; seconds are for a case."""
    folder, few = inputs.pairs(place), 2
    scores, plain = place.work / "scores", place.work / "plain.json"
    many = len(list((folder / "references").iterdir()))
    own = place.ours("evaluate", folder / "references", folder / "predictions", "--dataset-json")
    own += [str(folder / "dataset.json"), "--out", str(scores), "--jobs", str(place.cores)]
    their = [sys.executable, str(HERE / "plain_surfaces.py"), str(folder), str(few), str(N_SCORED), str(place.cores)]

    def one(command: list[str], cases: int) -> Usage:
        usage = run([command], place.environment(1))
        return usage._replace(seconds=usage.seconds / cases)

    def check() -> list[Check]:
        return _same_scores(json.loads((scores / "summary.json").read_text()), json.loads(plain.read_text()))

    yield Contest(lambda: one(own, many), lambda: one([*their, str(plain)], few), check)


def _same_scores(ours: dict[str, Any], theirs: dict[str, dict[str, list[float]]]) -> list[Check]:
    found = {case["case"]: case["scores"] for case in ours["cases"]}
    largest = dict.fromkeys(("dice", "hd95", "nsd"), 0.0)
    for name, classes in theirs.items():
        for value, scores in classes.items():
            own = found[name.removesuffix(".nii.gz")][f"organ {value}"]
            for metric, score in zip(largest, scores, strict=True):
                largest[metric] = max(largest[metric], abs(own[metric] - score))
    return [at_most(f"largest difference of {metric}", value, 1e-4) for metric, value in largest.items()]


@contextmanager
def overlap(place: Place) -> Iterator[Contest]:
    """Reading pairs of label files and counting every class, in one process."""
    folder = inputs.pairs(place)
    names = sorted(file.name for file in (folder / "references").iterdir())[:4]
    pairs = [[str(folder / side / name) for side in ("references", "predictions")] for name in names]
    arguments = {"pairs": pairs, "n_labels": N_SCORED}
    with calls(place, "overlap", arguments, arguments, _same_counts, per=len(names)) as contest:
        yield contest


def _same_counts(ours: Array, theirs: Array) -> list[Check]:
    return [at_most("largest difference of the voxel counts", float(np.abs(ours - theirs).max()), 0)]


@contextmanager
def evaluation(place: Place) -> Iterator[Contest]:
    """The commands for 20 cases: ours with surface distances and volumes, nnU-Net's with overlap alone."""
    folder = inputs.pairs(place)
    sides = [folder / "references", folder / "predictions"]
    own = place.ours("evaluate", *sides, "--dataset-json", folder / "dataset.json", "--jobs", place.cores)
    own += ["--out", str(place.work / "scores")]
    values = range(1, N_SCORED + 1)
    theirs = place.work / "their_scores.json"
    their = place.theirs("nnUNetv2_evaluate_simple", *sides, "-l", *values, "-o", theirs, "-np", place.cores)

    def check() -> list[Check]:
        ours = json.loads((place.work / "scores" / "summary.json").read_text())["foreground_mean"]["dice"]
        other = json.loads(theirs.read_text())["foreground_mean"]["Dice"]
        return [at_most("difference of the mean Dice", abs(ours - other), 1e-6)]

    environment = place.environment(1)
    yield Contest(lambda: run([own], environment), lambda: run([their], environment), check)


ROWS = {
    "train_step": Row("a training step as shipped (precision auto)", "", 1, partial(training_step, precision="auto")),
    "train_step_float32": Row("a training step in float32", "", 1, partial(training_step, precision="float32")),
    "predict": Row(
        "predict a CT of 130 x 256 x 256, no mirroring, as shipped (precision auto)",
        "",
        2,
        partial(prediction, precision="auto", mirroring=False),
    ),
    "predict_float32": Row("the same in float32", "", 1, partial(prediction, precision="float32", mirroring=False)),
    "predict_mirrored": Row(
        "the same with all mirrored copies, as shipped", "", 2, partial(prediction, precision="auto", mirroring=True)
    ),
    "predict_mirrored_float32": Row(
        "the same with all mirrored copies, in float32",
        "",
        1,
        partial(prediction, precision="float32", mirroring=True),
        turns=1,
    ),
    "export": Row("export of 118 classes to 200 x 256 x 256", "", None, export, turns=1),
    "export_large": Row("export of 118 classes to 400 x 512 x 512", "", None, large_export, limit_mb=4096, turns=1),
    "surfaces": Row("Dice, HD95 and NSD of 20 cases with 13 classes", "a case", 10, surfaces),
    "overlap": Row("overlap of 13 classes, files read, one process", "a case", 10, overlap),
    "evaluate": Row("evaluate 20 cases (ours with HD95, NSD and volumes, too)", "", None, evaluation),
    "help": Row("--help", "", 5, help_text),
    "first_tile": Row("predict until the first tile", "", 2, first_tile),
}
