from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from selfcfg.engine.scoring.evaluate import Evaluation, combine, evaluate
from selfcfg.engine.scoring.scores import score_case
from selfcfg.errors import DataError, UsageError
from selfcfg.fixes import Fixes, GeometryFix
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.io import write_label
from selfcfg.labels import LabelSchema

LABELS = LabelSchema(labels={"background": 0, "liver": 1, "tumour": 2})
GEOMETRY = Geometry(shape=(6, 10, 12), spacing=(3.0, 1.0, 0.5))


def box(value: int, *spans: tuple[int, int], into: np.ndarray | None = None) -> np.ndarray:
    label = np.zeros(GEOMETRY.shape, dtype=np.uint8) if into is None else into
    label[tuple(slice(*span) for span in spans)] = value
    return label


def save(folder: Path, **labels: np.ndarray) -> Path:
    for case, label in labels.items():
        write_label(folder / f"{case}.nii.gz", label, GEOMETRY)
    return folder


def test_scores_worked_by_hand() -> None:
    reference = box(1, (1, 3), (2, 6), (2, 6))
    prediction = box(1, (2, 4), (2, 6), (2, 6))
    scores = score_case(reference, prediction, GEOMETRY, LABELS, nsd_tolerance=1.0)["liver"]
    assert (scores.tp, scores.fp, scores.fn, scores.tn) == (16, 16, 16, 6 * 10 * 12 - 48)
    assert scores.dice == pytest.approx(0.5)
    assert scores.iou == pytest.approx(1 / 3)
    assert scores.volume_ref == pytest.approx(32 * 1.5e-3)
    assert scores.volume_error == 0
    assert scores.volume_error_relative == 0
    # Two slices each, all surface; the slice that is in one only lies one slice from the other: inner 4 voxels at 3 mm.
    assert scores.hd95 == pytest.approx(3.0)
    assert scores.nsd == pytest.approx((16 + 16) / 64)


def test_an_empty_reference_scores_zero_and_the_diagonal() -> None:
    empty, full = box(0, (0, 1), (0, 1), (0, 1)), box(1, (1, 3), (2, 6), (2, 6))
    diagonal = math.sqrt(18**2 + 10**2 + 6**2)
    for reference, prediction in ((empty, full), (full, empty)):
        scores = score_case(reference, prediction, GEOMETRY, LABELS)["liver"]
        assert (scores.dice, scores.iou, scores.nsd) == (0, 0, 0)
        assert scores.hd95 == pytest.approx(diagonal)
        assert scores.volume_error == pytest.approx(32 * 1.5e-3)
    assert scores.volume_error_relative == pytest.approx(1.0)
    assert score_case(empty, full, GEOMETRY, LABELS)["liver"].volume_error_relative is None


def test_a_class_in_neither_mask_is_left_out_or_scored_as_perfect() -> None:
    reference = box(1, (1, 3), (2, 6), (2, 6))
    left_out = score_case(reference, reference, GEOMETRY, LABELS)["tumour"]
    assert (left_out.dice, left_out.hd95, left_out.nsd, left_out.volume_error) == (None, None, None, None)
    scored = score_case(reference, reference, GEOMETRY, LABELS, empty="score")["tumour"]
    assert (scored.dice, scored.iou, scored.hd95, scored.nsd, scored.volume_error) == (1, 1, 0, 1, 0)


def test_regions_are_scored_as_unions_of_their_values() -> None:
    regions = LabelSchema(labels={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))
    reference = box(2, (1, 3), (2, 4), (2, 6), into=box(1, (1, 3), (2, 6), (2, 6)))
    prediction = box(2, (1, 3), (4, 6), (2, 6), into=box(1, (1, 3), (2, 6), (2, 6)))
    scores = score_case(reference, prediction, GEOMETRY, regions)
    assert scores["whole"].dice == 1
    assert scores["whole"].hd95 == 0
    assert scores["core"].dice == 0


def test_ignored_voxels_are_left_out_of_every_metric() -> None:
    labels = LabelSchema(labels={"background": 0, "liver": 1, "ignore": 2})
    reference = box(2, (0, 6), (0, 10), (6, 12), into=box(1, (1, 3), (2, 6), (2, 6)))
    prediction = box(1, (1, 3), (2, 6), (2, 11))
    scores = score_case(reference, prediction, GEOMETRY, labels)["liver"]
    assert (scores.tp, scores.fp, scores.fn) == (32, 0, 0)
    assert scores.tn == 6 * 10 * 6 - 32
    assert (scores.dice, scores.hd95, scores.nsd, scores.volume_error) == (1, 0, 1, 0)


def test_a_2d_image_is_measured_in_its_plane() -> None:
    flat = Geometry(shape=(1, 20, 30), spacing=(FLAT_SPACING, 0.5, 0.5), dimensions=2)
    reference, prediction = np.zeros(flat.shape, dtype=np.uint8), np.zeros(flat.shape, dtype=np.uint8)
    reference[0, 5:15, 5:15] = 1
    prediction[0, 5:15, 9:19] = 1
    scores = score_case(reference, prediction, flat, LABELS, nsd_tolerance=0.5)["liver"]
    assert scores.volume_ref == pytest.approx(100 * 0.25)
    assert scores.dice == pytest.approx(0.6)
    assert scores.hd95 == pytest.approx(2.0)
    missed = score_case(reference, np.zeros_like(reference), flat, LABELS)["liver"]
    assert missed.hd95 == pytest.approx(math.hypot(10, 15))


def test_folders_are_paired_by_case_and_averaged(tmp_path: Path) -> None:
    both = box(2, (4, 5), (1, 5), (1, 5), into=box(1, (1, 3), (2, 6), (2, 6)))
    shifted = box(1, (2, 4), (2, 6), (2, 6))
    references = save(tmp_path / "references", a=both, b=box(1, (1, 3), (2, 6), (2, 6)))
    predictions = save(tmp_path / "predictions", a=both, b=shifted, extra=both)
    scores = evaluate(references, predictions, LABELS)
    assert [case.case for case in scores.cases] == ["a", "b"]
    assert scores.mean["liver"]["dice"] == pytest.approx(0.75)
    assert scores.mean["tumour"]["dice"] == 1
    assert scores.foreground_mean["dice"] == pytest.approx(0.875)
    assert scores.foreground_mean["hd95"] == pytest.approx(0.75)
    assert scores.n_excluded == {"liver": 0, "tumour": 1}
    assert scores.n_one_empty == {"liver": 0, "tumour": 0}
    assert scores.unmatched == ("extra",)
    assert scores.volume_unit == "ml"
    table = scores.table()
    assert "liver" in table
    assert "0.8750" in table
    assert "extra" in table


def test_what_is_written_can_be_read_again(tmp_path: Path) -> None:
    both = box(1, (1, 3), (2, 6), (2, 6))
    references = save(tmp_path / "references", a=both)
    predictions = save(tmp_path / "predictions", a=both)
    scores = evaluate(references, predictions, LABELS)
    scores.write(predictions)
    assert Evaluation.read(predictions / "summary.json") == scores
    with (predictions / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["case"], row["class"], row["dice"]) for row in rows] == [("a", "liver", "1.0"), ("a", "tumour", "")]
    assert evaluate(references, predictions, LABELS).unmatched == ()


def test_a_class_that_no_case_holds_has_no_mean(tmp_path: Path) -> None:
    only = save(tmp_path / "references", a=box(1, (1, 3), (2, 6), (2, 6)))
    scores = evaluate(only, only, LABELS)
    assert scores.mean["tumour"]["dice"] is None
    assert scores.foreground_mean["dice"] == 1
    assert evaluate(only, only, LABELS, empty="score").mean["tumour"]["dice"] == 1


def test_processes_find_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    cases = {f"case{index}": rng.integers(0, 3, GEOMETRY.shape).astype(np.uint8) for index in range(3)}
    references = save(tmp_path / "references", **cases)
    predictions = save(tmp_path / "predictions", **{case: np.roll(label, 1, 1) for case, label in cases.items()})
    one = evaluate(references, predictions, LABELS)
    monkeypatch.setattr("selfcfg.engine.scoring.pairs.SMALL_BYTES", 0)
    assert evaluate(references, predictions, LABELS, jobs=2) == one


def test_missing_predictions_are_named(tmp_path: Path) -> None:
    label = box(1, (1, 3), (2, 6), (2, 6))
    references = save(tmp_path / "references", a=label, b=label, c=label)
    predictions = save(tmp_path / "predictions", b=label)
    with pytest.raises(DataError, match=r"2 of 3 cases have no prediction.*a, c"):
        evaluate(references, predictions, LABELS)
    some = {case: references / f"{case}.nii.gz" for case in ("b",)}
    assert evaluate(some, predictions, LABELS).n_cases == 1


def test_every_case_that_cannot_be_compared_is_named(tmp_path: Path) -> None:
    label = box(1, (1, 3), (2, 6), (2, 6))
    references = save(tmp_path / "references", a=label, b=label, c=label)
    predictions = save(tmp_path / "predictions", a=box(3, (1, 3), (2, 6), (2, 6)), c=label)
    moved = GEOMETRY.model_copy(update={"origin": (5.0, 0.0, 0.0)})
    write_label(predictions / "b.nii.gz", label, moved)
    with pytest.raises(DataError, match=r"2 of 3 cases") as caught:
        evaluate(references, predictions, LABELS)
    assert "case 'a': values 3 are not allowed" in str(caught.value)
    assert "case 'b': reference and prediction differ in origin" in str(caught.value)
    assert "case 'c'" not in str(caught.value)


def test_a_prediction_may_not_hold_the_ignore_value(tmp_path: Path) -> None:
    labels = LabelSchema(labels={"background": 0, "liver": 1, "ignore": 2})
    references = save(tmp_path / "references", a=box(2, (1, 3), (2, 6), (2, 6)))
    with pytest.raises(DataError, match="values 2 are not allowed"):
        evaluate(references, references, labels)


def test_a_recorded_fix_of_the_reference_holds(tmp_path: Path) -> None:
    label = box(1, (1, 3), (2, 6), (2, 6))
    references = save(tmp_path / "references", a=label)
    moved = GEOMETRY.model_copy(update={"origin": (0.01, 0.0, 0.0)})
    predictions = tmp_path / "predictions"
    write_label(predictions / "a.nii.gz", label, moved)
    with pytest.raises(DataError, match="origin"):
        evaluate(references, predictions, LABELS)
    fix = GeometryFix(file="a.nii.gz", channel=None, found=GEOMETRY, used=moved, difference="tiny")
    assert evaluate(references, predictions, LABELS, fixes=Fixes(geometry={"a": (fix,)})).n_cases == 1


@pytest.mark.parametrize("which", ["references", "predictions"])
def test_a_folder_that_is_not_there_or_holds_nothing_is_named(tmp_path: Path, which: str) -> None:
    good = save(tmp_path / "good", a=box(1, (1, 3), (2, 6), (2, 6)))
    folders = {"references": good, "predictions": good}
    with pytest.raises(UsageError, match="no such folder"):
        evaluate(**{**folders, which: tmp_path / "nowhere"}, labels=LABELS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no image in it"):
        evaluate(**{**folders, which: tmp_path / "empty"}, labels=LABELS)


def test_evaluations_together_are_the_evaluation_of_all_cases(tmp_path: Path) -> None:
    masks = {name: box(1, (1, 3), (2, 6), (2, 6 + index)) for index, name in enumerate("abc")}
    references = {file.name.partition(".")[0]: file for file in save(tmp_path / "r", **masks).iterdir()}
    shifted = {name: np.roll(mask, 1, axis=2) for name, mask in masks.items()}
    predictions = {file.name.partition(".")[0]: file for file in save(tmp_path / "p", **shifted).iterdir()}
    whole = evaluate(references, predictions, LABELS)
    parts = [
        evaluate({name: references[name] for name in names}, {name: predictions[name] for name in names}, LABELS)
        for names in ("ca", "b")
    ]
    assert combine(parts) == whole
