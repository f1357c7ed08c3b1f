from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from selfcfg.engine.scoring.evaluate import Evaluation, evaluate, with_readers
from selfcfg.engine.scoring.extras import Extras
from selfcfg.errors import DataError, UsageError
from selfcfg.geometry import Geometry
from selfcfg.io import write_label
from selfcfg.labels import LabelSchema

LABELS = LabelSchema(labels={"background": 0, "organ": 1, "ignore": 2})
GEOMETRY = Geometry(shape=(3, 12, 24), spacing=(2.0, 1.0, 1.0))


def bar(end: int) -> np.ndarray:
    mask = np.zeros(GEOMETRY.shape, dtype=np.uint8)
    mask[1, 2:10, 2:end] = 1
    return mask


def save(folder: Path, *labels: np.ndarray, first: int = 0) -> Path:
    for number, label in enumerate(labels, first):
        write_label(folder / f"case{number}.nii.gz", label, GEOMETRY)
    return folder


def dice(a: int, b: int) -> float:
    return 2 * min(a - 2, b - 2) / (a + b - 4)


def scored(references: Path, predictions: Path, *readers: Path, extras: Extras | None = None) -> Evaluation:
    scores = evaluate(references, predictions, LABELS, extras=extras or Extras())
    return with_readers(scores, references, readers, LABELS)


@pytest.mark.parametrize(
    ("predicted", "verdict", "of_hd95"),
    [((10, 10), "closer", "closer"), ((19, 19), "farther", "farther"), ((10, 18), "within", "within")],
)
def test_the_prediction_beside_readers(tmp_path: Path, predicted: tuple[int, int], verdict: str, of_hd95: str) -> None:
    sizes = [index % 3 for index in range(8)]
    first, second = (save(tmp_path / str(end), *[bar(end + size) for size in sizes]) for end in (8, 12))
    ends = [predicted[index % 2] + size for index, size in enumerate(sizes)]
    found = scored(first, save(tmp_path / "model", *map(bar, ends)), second).readers
    assert found is not None
    told = found.comparisons["dice"]
    people = np.mean([dice(8 + size, 12 + size) for size in sizes])
    model = np.mean([dice(end + size, made) for made, size in zip(ends, sizes, strict=True) for end in (8, 12)])
    assert (told.n_cases, told.readers, told.prediction) == (8, pytest.approx(people), pytest.approx(model))
    assert told.lowest == told.highest == pytest.approx(people)
    assert told.difference == pytest.approx(model - people)
    assert told.low <= told.difference <= told.high
    assert (told.verdict, found.comparisons["hd95"].verdict) == (verdict, of_hd95)
    sentence = told.sentence("dice")
    assert f"two readers {people:.4f}, mean paired difference {model - people:+.4f} (95 % interval" in sentence
    assert {"closer": "closer to", "farther": "farther from", "within": "within the range of"}[verdict] in sentence


def test_every_pair_is_told_on_the_cases_it_shares(tmp_path: Path) -> None:
    first = save(tmp_path / "first", *[bar(10)] * 4)
    second = save(tmp_path / "second", *[bar(12)] * 3)
    third = save(tmp_path / "third", *[bar(14)] * 2, first=2)
    model = save(tmp_path / "model", *[bar(11)] * 5)
    scores = scored(first, model, second, third, extras=Extras(metrics=("lesions",)))
    found = scores.readers
    assert found is not None
    assert found.names == ("first", "second", "third")
    pairs = {(one.first, one.second): (one.n_cases, one.mean["organ"]["dice"]) for one in found.agreements}
    assert pairs == {
        ("first", "prediction"): (4, pytest.approx(dice(10, 11))),
        ("second", "prediction"): (3, pytest.approx(dice(12, 11))),
        ("third", "prediction"): (2, pytest.approx(dice(14, 11))),
        ("first", "second"): (3, pytest.approx(dice(10, 12))),
        ("first", "third"): (2, pytest.approx(dice(10, 14))),
        ("second", "third"): (1, pytest.approx(dice(12, 14))),
    }
    told = found.comparisons["dice"]
    per_case = [dice(10, 12), dice(10, 12), (dice(10, 12) + dice(10, 14) + dice(12, 14)) / 3, dice(10, 14)]
    assert told.readers == pytest.approx(np.mean(per_case))
    assert (told.verdict, told.low) == ("too few", None)
    assert found.comparisons["lesion_f1"].difference == 0
    assert "nothing can be said with fewer than 6 cases" in scores.text()
    scores.write(tmp_path)
    assert Evaluation.read(tmp_path / "summary.json") == scores
    with (tmp_path / "readers.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["first"], row["second"]) for row in rows} == set(pairs)


def test_agreement_does_not_depend_on_who_is_held_to_be_true(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = [(rng.random(GEOMETRY.shape) < 0.4).astype(np.uint8) for _ in range(3)]
    unsure = maps[0].copy()
    unsure[:, :, :6] = 2
    maps[1][:, :3] = 2
    folders = [save(tmp_path / name, label) for name, label in zip("abm", (unsure, *maps[1:]), strict=True)]
    extras = Extras(metrics=("boundary_iou", "centreline_dice", "lesions"))
    means = []
    for first, second in ((folders[0], folders[1]), (folders[1], folders[0])):
        found = scored(first, folders[2], second, extras=extras).readers
        assert found is not None
        means.append({frozenset((one.first, one.second)): one.mean["organ"] for one in found.agreements})
    for pair, mean in means[0].items():
        assert mean == pytest.approx(means[1][pair])


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    first, model = save(tmp_path / "first", bar(10)), save(tmp_path / "model", bar(11))
    with pytest.raises(UsageError, match="is given twice"):
        scored(first, model, first)
    with pytest.raises(DataError, match=r"none of its 1 cases \(case7\) is among those scored \(case0\)"):
        scored(first, model, save(tmp_path / "others", bar(10), first=7))
    with pytest.raises(UsageError, match="no such folder"):
        scored(first, model, tmp_path / "nowhere")
    wrong = save(tmp_path / "wrong", bar(10) * 5)
    with pytest.raises(DataError, match=r"case0'.*values 5 are not allowed.*wrong"):
        scored(first, model, wrong)
    moved = GEOMETRY.model_copy(update={"origin": (5.0, 0.0, 0.0)})
    write_label(tmp_path / "moved" / "case0.nii.gz", bar(10), moved)
    with pytest.raises(DataError, match=r"case0'.*differ in origin"):
        scored(first, model, tmp_path / "moved")
    same = save(tmp_path / "x" / "first", bar(12))
    found = scored(first, model, same).readers
    assert found is not None
    assert found.names == (str(first), str(same))
