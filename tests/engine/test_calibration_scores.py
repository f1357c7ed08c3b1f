"""Calibration of probabilities beside label maps: which voxels count, what is told, and how bad files are refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from selfcfg.engine.prediction.probabilities import write_probabilities
from selfcfg.engine.scoring.evaluate import Evaluation, combine, evaluate
from selfcfg.engine.scoring.extras import Extras, asked_for
from selfcfg.errors import DataError
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.io import write_label
from selfcfg.labels import LabelSchema

GEOMETRY = Geometry(shape=(4, 16, 18), spacing=(3.0, 1.0, 1.5))
CLASSES = LabelSchema(labels={"background": 0, "organ": 1, "lesion": 2, "ignore": 3})
REGIONS = LabelSchema(labels={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))
ASKED = Extras(metrics=("calibration",), calibration_margin=2.0)


def made(folder: Path, case: str, labels: LabelSchema, seed: int, geometry: Geometry = GEOMETRY) -> np.ndarray:
    """Writes the reference, the label map and the probabilities of a case; gives the probabilities."""
    rng = np.random.default_rng(seed)
    shape = geometry.shape
    reference = np.zeros(shape, np.uint8)
    reference[:, 4:9, 5:11] = 1
    reference[:, 6:8, 6:8] = 2
    if labels.ignore is not None:
        reference[:, :, 8] = labels.ignore
    count = labels.n_outputs
    logits = rng.normal(0, 1, (count, *shape))
    if labels.has_regions:
        logits += np.stack([np.isin(reference, values) * 4.0 - 2 for values in labels.targets.values()])
        logits[:, :, :2] = logits[..., 14:] = -9
        values = 1 / (1 + np.exp(-logits))
        prediction = np.where(values[1] > 0.5, 2, values[0] > 0.5).astype(np.uint8)
    else:
        logits += 3 * np.stack([reference == index for index in range(count)])
        logits[0, :, :2] = logits[0, ..., 14:] = 12
        raised = np.exp(logits)
        values = raised / raised.sum(0)
        prediction = values.argmax(0).astype(np.uint8)
    write_label(folder / "references" / f"{case}.nii.gz", reference, geometry)
    write_label(folder / "predictions" / f"{case}.nii.gz", prediction, geometry)
    half = values.astype(np.float16)
    write_probabilities(folder / "predictions" / f"{case}.npz", half)
    return half


def counted_by_hand(folder: Path, case: str, labels: LabelSchema, margin: float, geometry: Geometry = GEOMETRY):
    """Reference values and places of the voxels within the margin of any foreground, found by trying all."""
    from selfcfg.io import read_label

    reference, _ = read_label(folder / "references" / f"{case}.nii.gz")
    prediction, _ = read_label(folder / "predictions" / f"{case}.nii.gz")
    known = reference != (-1 if labels.ignore is None else labels.ignore)
    foreground = np.argwhere(((reference != 0) & known) | (prediction != 0)) * geometry.spacing
    places = [
        tuple(place)
        for place in np.argwhere(known)
        if (((foreground - place * np.array(geometry.spacing)) ** 2).sum(1) <= margin**2 + 1e-9).any()
    ]
    return places, np.array([reference[place] for place in places])


def scored(folder: Path, labels: LabelSchema, extras: Extras = ASKED) -> Evaluation:
    return evaluate(folder / "references", folder / "predictions", labels, extras=extras)


def test_classes_equal_a_count_by_hand_and_ignored_voxels_are_left_out(tmp_path: Path) -> None:
    values = made(tmp_path, "a", CLASSES, 0)
    places, truth = counted_by_hand(tmp_path, "a", CLASSES, 2.0)
    found = scored(tmp_path, CLASSES)
    assert 0 < len(places) < 0.9 * np.prod(GEOMETRY.shape)
    picked = np.array([values[:, *place] for place in places], dtype=np.float64).T
    assert found.calibration is not None
    overall = found.calibration.overall
    assert sum(overall.count) == len(places)
    assert sum(overall.hits) == (picked.argmax(0) == truth).sum()
    assert overall.brier == pytest.approx(((picked - np.eye(3)[truth].T) ** 2).sum(0).mean())
    organ = found.cases[0].scores["organ"].extra
    assert organ["brier"] == pytest.approx(((picked[1] - (truth == 1)) ** 2).mean())
    assert organ["ece"] == pytest.approx(found.calibration.classes["organ"].ece)
    assert found.mean["organ"]["nll"] == pytest.approx(found.calibration.classes["organ"].nll)


def test_regions_are_decisions_of_their_own(tmp_path: Path) -> None:
    values = made(tmp_path, "a", REGIONS, 1)
    places, truth = counted_by_hand(tmp_path, "a", REGIONS, 2.0)
    found = scored(tmp_path, REGIONS).calibration
    assert found is not None
    picked = np.array([values[:, *place] for place in places], dtype=np.float64).T
    core = picked[1]
    assert found.classes["core"].brier == pytest.approx(((core - (truth == 2)) ** 2).mean())
    assert sum(found.overall.count) == 2 * len(places)
    right = ((picked > 0.5) == np.stack([truth > 0, truth == 2])).sum()
    assert sum(found.overall.hits) == right


def test_cases_and_folds_add_up(tmp_path: Path) -> None:
    for index in range(3):
        made(tmp_path / "one", f"case{index}", CLASSES, index)
        made(tmp_path / ("b" if index else "a"), f"case{index}", CLASSES, index)
    whole = scored(tmp_path / "one", CLASSES)
    parts = combine([scored(tmp_path / name, CLASSES) for name in "ab"])
    assert parts.calibration is not None
    assert whole.calibration is not None
    assert parts.calibration.overall.count == whole.calibration.overall.count
    assert parts.calibration.overall.ece == pytest.approx(whole.calibration.overall.ece)
    whole.write(tmp_path / "out")
    assert Evaluation.read(tmp_path / "out" / "summary.json") == whole
    rows = list(csv.DictReader((tmp_path / "out" / "calibration.csv").open()))
    assert [row["class"] for row in rows[:1]] == ["(decision)"]
    assert sum(int(row["count"]) for row in rows if row["class"] == "organ") == sum(whole.calibration.overall.count)
    assert "ece" in (tmp_path / "out" / "metrics.csv").read_text().splitlines()[0]
    assert "ECE" in whole.text()


def test_a_picture_counts_pixels(tmp_path: Path) -> None:
    flat = Geometry(shape=(1, 16, 18), spacing=(FLAT_SPACING, 1.0, 1.0), dimensions=2)
    made(tmp_path, "a", CLASSES, 2, flat)
    places, _ = counted_by_hand(tmp_path, "a", CLASSES, 2.0, flat)
    found = scored(tmp_path, CLASSES).calibration
    assert found is not None
    assert sum(found.overall.count) == len(places)


def test_a_class_that_nobody_holds_is_left_out_and_no_voxel_has_no_score(tmp_path: Path) -> None:
    labels = LabelSchema(labels={"background": 0, "organ": 1})
    empty = np.zeros(GEOMETRY.shape, np.uint8)
    for name in ("references", "predictions"):
        write_label(tmp_path / name / "a.nii.gz", empty, GEOMETRY)
    write_probabilities(tmp_path / "predictions" / "a.npz", np.stack([empty + 1, empty]).astype(np.float16))
    found = scored(tmp_path, labels)
    assert found.mean["organ"]["ece"] is None
    assert found.calibration is not None
    assert found.calibration.overall.ece is None


def test_all_metrics_are_those_of_label_maps() -> None:
    assert "calibration" not in asked_for(["all"])
    assert asked_for(["nll"]) == ("calibration",)


def _garbage(file: Path) -> None:
    file.write_bytes(b"no archive")


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))


def _other_key(file: Path) -> None:
    np.savez(file, other=np.zeros(3))


def _other_shape(file: Path) -> None:
    write_probabilities(file, np.zeros((3, 2, 2, 2), np.float16))


def _no_probabilities(file: Path) -> None:
    write_probabilities(file, np.full((3, *GEOMETRY.shape), 7, np.float16))


def _not_a_number(file: Path) -> None:
    write_probabilities(file, np.full((3, *GEOMETRY.shape), np.nan, np.float16))


def _bare_array(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "no probabilities"),
        (_garbage, "damaged"),
        (_cut, "damaged"),
        (_flipped, "damaged"),
        (_bare_array, "damaged"),
        (_other_key, "no 'probabilities' in"),
        (_other_shape, r"\(3, 4, 16, 18\) \(classes with the background"),
        (_no_probabilities, "no probabilities"),
        (_not_a_number, "no probabilities"),
    ],
)
def test_files_that_cannot_be_used_are_told_with_their_case(tmp_path: Path, damage, words: str) -> None:
    made(tmp_path, "a", CLASSES, 0)
    damage(tmp_path / "predictions" / "a.npz")
    with pytest.raises(DataError, match=f"case 'a'.*{words}"):
        scored(tmp_path, CLASSES)
