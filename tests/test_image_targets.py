"""Image-level targets in dataset.json and plans: what is refused, what is kept, and files without them as they were."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import pstdev
from typing import Any

import pytest

from selfcfg.dataset import DatasetDescription
from selfcfg.engine.prediction.ledger import LedgerEntry
from selfcfg.engine.scoring.evaluate import Evaluation
from selfcfg.errors import DataError, UsageError
from selfcfg.files import hash_json
from selfcfg.image_targets import GivenTarget, ImageTarget, columns, encoded, scales
from selfcfg.plan import Plan
from selfcfg.testing import small_plan

FINDING = {"classes": ["normal", "tuberculosis"], "values": {"a": "tuberculosis", "b": "normal"}}
AGE = {"unit": "years", "values": {"b": 63, "c": 40.5, "d": 63}}
MEANINGS = {"finding": ImageTarget(classes=("normal", "tuberculosis")), "age": ImageTarget(unit="years")}


def described(targets: Any) -> DatasetDescription:
    content = {"channel_names": {"0": "XR"}, "labels": {"background": 0, "lung": 1}, "numTraining": 1}
    return DatasetDescription.parse({**content, "file_ending": ".png", "image_targets": targets}, "dataset.json")


def given() -> dict[str, GivenTarget]:
    return described({"finding": FINDING, "age": AGE}).image_targets


def test_values_are_encoded_in_the_order_of_the_plan_and_nan_where_missing() -> None:
    assert described({"finding": FINDING, "age": AGE}).image_meanings == MEANINGS
    found = encoded(dict(reversed(MEANINGS.items())), given())
    assert set(found) == {"a", "b", "c", "d"}
    assert found["b"] == (63.0, 0.0)
    assert math.isnan(found["a"][0]) and found["a"][1] == 1.0


def test_numbers_are_scaled_by_the_training_cases_alone() -> None:
    values = encoded(MEANINGS, given())
    assert scales(MEANINGS, values, ["a", "b", "c", "without"]) == {"age": (51.75, pstdev([63, 40.5]))}
    assert scales(MEANINGS, values, ["b", "d"]) == {"age": (63.0, 1.0)}, "of equal values nothing is divided by 0"
    assert scales(MEANINGS, values, ["a"]) == {}


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ({"finding": {**FINDING, "values": {"a": "tuberclosis"}}}, "values.a: found 'tuberclosis', which is none of"),
        ({"finding": {**FINDING, "values": {"a": "tuberclosis"}}}, "did you mean 'tuberculosis'"),
        ({"age": {**AGE, "values": {"a": "old"}}}, "age.values.a: must be a number"),
        ({"age": {**AGE, "values": {"a": True}}}, "age.values.a: must be"),
        ({"age": {**AGE, "values": {"a": math.nan}}}, "age.values.a: must be"),
        ({"finding": {**FINDING, "unit": "mm"}}, "classes or a unit, not both"),
        ({"finding": {"classes": ["one"], "values": {}}}, "two or more different names"),
        ({"finding": {"clases": ["a", "b"], "values": {}}}, "did you mean 'classes'"),
        ({"case": AGE}, "names must differ, from 'case'"),
        ({"x": {"classes": ["p", "q"], "values": {}}, "x=p": AGE}, "names must differ"),
        ({" x": AGE}, "must match pattern"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_its_place(targets: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        described(targets)
    assert words in str(caught.value)


def test_every_wrong_value_is_named_at_once() -> None:
    with pytest.raises(DataError) as caught:
        described({"finding": {**FINDING, "values": {"a": "x", "b": "normal", "c": 1}}})
    assert "values.a" in str(caught.value) and "values.c" in str(caught.value) and "values.b" not in str(caught.value)


def test_targets_that_are_not_those_of_the_plan_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'finding' in dataset\.json is not what the plan says; plan again"):
        encoded({"finding": ImageTarget(classes=("tuberculosis", "normal"))}, given())
    with pytest.raises(UsageError, match="'weight'"):
        encoded({"weight": ImageTarget()}, given())


def test_a_plan_without_targets_is_stored_and_hashed_as_before(tmp_path: Path) -> None:
    plan = small_plan().model_copy(update={"image_targets": {}})
    content = plan.model_dump(mode="json")
    assert "image_targets" not in content and hash_json(content) == plan.content_hash()
    plan.write(tmp_path / "plan.json")
    assert "image_targets" not in json.loads((tmp_path / "plan.json").read_text())
    assert Plan.read(tmp_path / "plan.json") == plan


def test_a_plan_keeps_the_meaning_of_its_targets(tmp_path: Path) -> None:
    plan = small_plan().model_copy(update={"image_targets": MEANINGS})
    plan.write_whole(tmp_path / "plan.json")
    stored = json.loads((tmp_path / "plan.json").read_text())
    assert stored["image_targets"] == {"finding": {"classes": FINDING["classes"]}, "age": {"unit": "years"}}
    assert hash_json(stored) == plan.content_hash()
    assert list(Plan.read(tmp_path / "plan.json").image_targets.items()) == list(MEANINGS.items())


def test_records_of_predictions_and_scores_without_targets_are_stored_as_before() -> None:
    assert list(LedgerEntry(maker="a", input="b").model_dump()) == ["maker", "input", "output", "probabilities"]
    empty = {"foreground_mean": {}, "mean": {}, "n_excluded": {}, "n_one_empty": {}, "n_cases": 0, "nsd_tolerance": 2}
    scores = Evaluation(**empty, empty="exclude", volume_unit="ml", cases=())
    assert "image_targets" not in json.loads(scores.model_dump_json())


def test_the_columns_of_a_table_of_predictions() -> None:
    assert columns(MEANINGS) == ["case", "finding", "finding=normal", "finding=tuberculosis", "age"]
