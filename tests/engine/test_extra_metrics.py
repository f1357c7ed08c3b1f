"""Metrics that are asked for, through the scoring of whole cases: regions, ignored voxels, empty masks, averages."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from selfcfg.engine.scoring.evaluate import Evaluation, combine, evaluate
from selfcfg.engine.scoring.extras import AVERAGED, LESION_COUNTS, OF_PROBABILITIES, Extras, asked_for
from selfcfg.engine.scoring.scores import score_case
from selfcfg.errors import UsageError
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.io import write_label
from selfcfg.labels import LabelSchema

LABELS = LabelSchema(labels={"background": 0, "lesion": 1, "other": 2})
GEOMETRY = Geometry(shape=(6, 12, 14), spacing=(2.0, 1.0, 0.5))
ALL = Extras(metrics=("boundary_iou", "centreline_dice", "lesions"))


def balls(*corners: tuple[int, int, int], value: int = 1, side: int = 3) -> np.ndarray:
    mask = np.zeros(GEOMETRY.shape, dtype=np.uint8)
    for z, y, x in corners:
        mask[z : z + side, y : y + side, x : x + side] = value
    return mask


def lesion_case() -> tuple[np.ndarray, np.ndarray]:
    """Three lesions there; one found whole, one half, one missed; one invented."""
    reference = balls((1, 1, 1), (1, 1, 6), (1, 7, 1))
    prediction = balls((1, 1, 1), (1, 8, 9))
    prediction[1:2, 1:4, 6:9] = 1
    return reference, prediction


def save(folder: Path, **labels: np.ndarray) -> Path:
    for case, label in labels.items():
        write_label(folder / f"{case}.nii.gz", label, GEOMETRY)
    return folder


def test_lesions_worked_by_hand() -> None:
    found = score_case(*lesion_case(), GEOMETRY, LABELS, extras=ALL)["lesion"]
    counts = {name: found.value(name) for name in LESION_COUNTS}
    assert counts == {"lesions_ref": 3, "lesions_pred": 3, "lesion_tp": 1, "lesion_fp": 2, "lesion_fn": 2}
    assert found.value("lesion_sensitivity") == found.value("lesion_precision") == pytest.approx(1 / 3)
    assert found.value("lesion_f1") == found.value("panoptic_quality") == pytest.approx(1 / 3)
    assert found.value("segmentation_quality") == 1


def test_an_overlap_finds_a_lesion_and_panoptic_quality_stays_that_of_pairs() -> None:
    touching = ALL.model_copy(update={"match": "overlap"})
    found = score_case(*lesion_case(), GEOMETRY, LABELS, extras=touching)["lesion"]
    assert [found.value(name) for name in LESION_COUNTS] == [3, 3, 2, 1, 1]
    assert found.value("lesion_f1") == pytest.approx(2 / 3)
    assert found.value("panoptic_quality") == pytest.approx(1 / 3)
    low = score_case(*lesion_case(), GEOMETRY, LABELS, extras=ALL.model_copy(update={"match": "iou:0.2"}))["lesion"]
    assert low.value("panoptic_quality") == pytest.approx((1 + 1 / 3) / 3)
    assert low.value("recognition_quality") == pytest.approx(2 / 3)
    assert low.value("segmentation_quality") == pytest.approx((1 + 1 / 3) / 2)


def test_one_lesion_of_the_prediction_over_two_of_the_reference() -> None:
    reference, prediction = balls((1, 1, 1), (1, 1, 6)), balls((1, 1, 1), (1, 1, 6))
    prediction[2, 2, 4:6] = 1
    found = score_case(reference, prediction, GEOMETRY, LABELS, extras=Extras(metrics=("lesions",), match="overlap"))
    assert [found["lesion"].value(name) for name in LESION_COUNTS] == [2, 1, 2, 0, 0]
    assert found["lesion"].value("lesion_f1") == 1
    assert found["lesion"].value("panoptic_quality") == 0


def test_empty_masks() -> None:
    full, empty = balls((1, 1, 1), (1, 7, 1)), balls()
    invented = score_case(empty, full, GEOMETRY, LABELS, extras=ALL)["lesion"].extra
    assert invented["boundary_iou"] == invented["centreline_dice"] == invented["lesion_f1"] == 0
    assert invented["panoptic_quality"] == invented["lesion_precision"] == 0
    assert invented["lesion_sensitivity"] is None
    assert invented["segmentation_quality"] is None
    assert invented["lesion_fp"] == 2
    missed = score_case(full, empty, GEOMETRY, LABELS, extras=ALL)["lesion"].extra
    assert (missed["lesion_sensitivity"], missed["lesion_precision"], missed["lesion_fn"]) == (0, None, 2)
    names = [name for kind, made in AVERAGED.items() if kind not in OF_PROBABILITIES for name in made]
    for rule, value in (("exclude", None), ("score", 1)):
        neither = score_case(full, full, GEOMETRY, LABELS, empty=rule, extras=ALL)["other"].extra
        assert neither == {name: 0 if name in LESION_COUNTS else value for name in names}


def test_ignored_voxels_and_regions() -> None:
    labels = LabelSchema(labels={"background": 0, "whole": (1, 2), "core": 2, "ignore": 3}, regions_class_order=(1, 2))
    reference, prediction = balls((1, 1, 1)), balls((1, 1, 1), (1, 7, 9))
    reference[2, 2, 2] = prediction[2, 2, 2] = 2
    reference[:, 6:] = 3
    found = score_case(reference, prediction, GEOMETRY, labels, extras=ALL)
    for name in ("whole", "core"):
        extra = found[name].extra
        assert extra["boundary_iou"] == extra["centreline_dice"] == extra["panoptic_quality"] == 1
        assert (extra["lesions_pred"], extra["lesion_fp"]) == (1, 0)


def test_the_boundary_is_as_wide_as_the_tolerance_or_as_is_said() -> None:
    reference, prediction = balls((0, 0, 0), side=6), balls((0, 0, 1), side=6)
    values = [
        score_case(reference, prediction, GEOMETRY, LABELS, nsd_tolerance=tolerance, extras=extras)["lesion"].extra
        for tolerance, extras in ((0.6, ALL), (9.0, ALL.model_copy(update={"boundary_width": 0.6})))
    ]
    assert values[0] == values[1]
    wide = score_case(reference, prediction, GEOMETRY, LABELS, nsd_tolerance=9.0, extras=ALL)["lesion"]
    assert wide.value("boundary_iou") == wide.iou
    assert values[0]["boundary_iou"] < wide.iou


def test_lesions_of_a_2d_image_touch_by_corners() -> None:
    flat = Geometry(shape=(1, 8, 8), spacing=(FLAT_SPACING, 1.0, 1.0), dimensions=2)
    mask = np.zeros(flat.shape, dtype=np.uint8)
    mask[0, 2:4, 2:4] = mask[0, 4:6, 4:6] = 1
    found = {
        how: score_case(mask, mask, flat, LABELS, extras=Extras(metrics=("lesions",), neighbours=how))["lesion"]
        for how in ("corners", "faces")
    }
    assert {how: one.value("lesion_tp") for how, one in found.items()} == {"corners": 1, "faces": 2}


def test_averages_totals_and_files(tmp_path: Path) -> None:
    reference, prediction = lesion_case()
    references = save(tmp_path / "references", a=reference, b=balls(), c=balls((1, 1, 1)))
    predictions = save(tmp_path / "predictions", a=prediction, b=balls((1, 1, 1)), c=balls((1, 1, 1)))
    scores = evaluate(references, predictions, LABELS, extras=ALL)
    mean = scores.mean["lesion"]
    assert mean["lesion_fp"] == pytest.approx((2 + 1 + 0) / 3)
    assert mean["lesion_f1"] == pytest.approx((1 / 3 + 0 + 1) / 3)
    assert mean["lesion_sensitivity"] == pytest.approx((1 / 3 + 1) / 2)
    totals = scores.lesions["lesion"]
    assert (totals.lesions_ref, totals.lesions_pred, totals.lesion_tp, totals.lesion_fp) == (4, 5, 2, 3)
    assert totals.lesion_sensitivity == 0.5
    assert totals.lesion_precision == pytest.approx(2 / 5)
    assert totals.lesion_f1 == pytest.approx(2 * 2 / 9)
    assert totals.panoptic_quality == pytest.approx(2 * 2 / 9)
    assert totals.false_positives_a_case == 1
    assert scores.lesions["other"].lesion_f1 is None
    scores.write(tmp_path)
    assert Evaluation.read(tmp_path / "summary.json") == scores
    with (tmp_path / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert (rows[0]["case"], rows[0]["class"], rows[0]["lesions_ref"]) == ("a", "lesion", "3")
    assert (rows[1]["lesion_f1"], rows[1]["lesion_fp"]) == ("", "0")
    text = scores.text()
    assert "clDice" in text
    assert "lesions of all cases" in text
    names = "abc"
    files = [{name: folder / f"{name}.nii.gz" for name in names} for folder in (references, predictions)]
    parts = [
        evaluate(*({name: file[name] for name in some} for file in files), LABELS, extras=ALL) for some in ("ca", "b")
    ]
    assert combine(parts) == scores


def test_what_was_not_asked_for_is_not_written(tmp_path: Path) -> None:
    only = save(tmp_path, a=balls((1, 1, 1)))
    scores = evaluate(only, only, LABELS)
    scores.write(tmp_path)
    text = (tmp_path / "summary.json").read_text()
    assert not [word for word in ("extra", "lesions", "subgroups", "readers", "boundary") if f'"{word}' in text]
    head = (tmp_path / "metrics.csv").read_text().partition("\n")[0]
    before = "case,class,dice,iou,hd95,nsd,volume_ref,volume_pred,volume_error,volume_error_relative,tp,fp,fn,tn"
    assert head == f"{before},hd,assd"


def test_a_summary_of_before_the_newer_metrics_is_read(tmp_path: Path) -> None:
    only = save(tmp_path / "maps", a=balls((1, 1, 1)))
    content = evaluate(only, only, LABELS).model_dump(mode="json")
    for values in (content["foreground_mean"], *content["mean"].values(), *content["cases"][0]["scores"].values()):
        del values["hd"], values["assd"]
    old = Evaluation.parse(content, "an old file")
    assert "-" in old.table().splitlines()[-2]
    assert combine([old]).foreground_mean["hd"] is None


def test_names_of_metrics() -> None:
    assert asked_for([]) == ()
    assert asked_for(["dice", "HD95"]) == ()
    assert asked_for(["clDice", "boundary-iou"]) == ("boundary_iou", "centreline_dice")
    assert asked_for(["panoptic_quality", "lesion_f1", "pq"]) == ("lesions",)
    assert asked_for(["all"]) == tuple(kind for kind in AVERAGED if kind not in OF_PROBABILITIES)
    with pytest.raises(UsageError, match="no metric 'lesion'; did you mean 'lesions'"):
        asked_for(["lesion"])


@pytest.mark.parametrize("match", ["iou", "iou:", "iou:1", "iou:2", "iou:-0.5", "iou:nan", "touch"])
def test_a_match_that_is_none_is_refused(match: str) -> None:
    with pytest.raises(UsageError, match=r"--match .*'overlap' or 'iou:T'"):
        Extras.asked(("lesions",), None, match, "corners")
    with pytest.raises(UsageError, match="--boundary-width"):
        Extras.asked(("boundary_iou",), float("nan"), "overlap", "corners")
