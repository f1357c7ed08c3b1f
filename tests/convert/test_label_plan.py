"""Any label values to consecutive ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfcfg.convert.building import mapped
from selfcfg.convert.label_plan import parse_declared, plan_declared, plan_found, plan_mask, read_declared
from selfcfg.errors import DataError


def planned(content: Any) -> tuple[dict[str, Any], dict[int, int], tuple[int, ...]]:
    plan = plan_declared(parse_declared(content, "labels.json"))
    return plan.schema.labels, plan.label_map, plan.schema.regions_class_order


def test_values_become_consecutive() -> None:
    labels, label_map, _ = planned({"background": 0, "liver": 255, "tumour": 128})
    assert labels == {"background": 0, "liver": 2, "tumour": 1}
    assert label_map == {0: 0, 128: 1, 255: 2}


def test_consecutive_values_stay() -> None:
    plan = plan_declared(parse_declared({"background": 0, "a": 2, "b": 1}, "x"))
    assert not plan.changes
    assert plan.schema.labels == {"background": 0, "a": 2, "b": 1}


def test_background_may_be_missing_or_another_value() -> None:
    assert planned({"lung": 255})[0] == {"background": 0, "lung": 1}
    assert planned({"Background": 255, "lung": 0})[1] == {255: 0, 0: 1}


def test_ignore_becomes_the_last_value() -> None:
    labels, label_map, _ = planned({"background": 0, "ignore": 2, "a": 1, "b": 3})
    assert labels["ignore"] == 3
    assert label_map == {0: 0, 1: 1, 3: 2, 2: 3}
    assert planned({"background": 0, "a": 1, "ignore": -1})[1] == {0: 0, 1: 1, -1: 2}


def test_regions_and_their_order_are_mapped() -> None:
    content = {
        "labels": {"background": 0, "whole": [10, 20, 30], "core": [20, 30], "et": 30},
        "regions_class_order": [10, 20, 30],
    }
    labels, label_map, order = planned(content)
    assert labels == {"background": 0, "whole": (1, 2, 3), "core": (2, 3), "et": 3}
    assert (label_map, order) == ({0: 0, 10: 1, 20: 2, 30: 3}, (1, 2, 3))
    flat = {**content["labels"], "regions_class_order": [10, 20, 30]}
    assert planned(flat) == (labels, label_map, order)


def test_names_by_value_are_understood() -> None:
    assert planned({"0": "background", "1": "a", "5": "b"})[1] == {0: 0, 1: 1, 5: 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "not a JSON object"),
        ({"a": "1"}, "label 'a' has the value '1'; give a whole number"),
        ({"a": 1.5}, "label 'a' has the value 1.5"),
        ({"a": True}, "label 'a' has the value True"),
        ({"a": []}, "label 'a' has the value"),
        ({"background": 0}, "declare no foreground"),
        ({"background": [0, 1], "a": 2}, "background or ignore is a list"),
        ({"whole": [1, 2], "core": 2}, "regions_class_order needs one value"),
        ({"labels": {"whole": [1, 2], "core": 2}, "regions_class_order": [1, 7]}, "names .7., which no label has"),
        ({"labels": {"a": 1}, "regions_class_order": 3}, "regions_class_order is 3"),
    ],
)
def test_contradictions_name_the_file(content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        planned(content)
    assert "labels.json" in str(caught.value)


def test_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text(json.dumps({"lung": 255}))
    assert read_declared(tmp_path / "l.json").labels == {"lung": 255}
    with pytest.raises(DataError, match="no such file"):
        read_declared(tmp_path / "m.json")


def test_undeclared_values_are_listed_with_counts() -> None:
    plan = plan_declared(parse_declared({"a": 1}, "x"))
    assert plan.undeclared({0: 5, 1: 2, 7: 3, 9: 1}) == "7 (3 voxels), 9 (1 voxels)"


def test_values_without_names() -> None:
    assert plan_found({0, 255}, "x").schema.labels == {"background": 0, "foreground": 1}
    plan = plan_found({0, 3, 9}, "x")
    assert (plan.schema.labels, plan.label_map) == ({"background": 0, "class_3": 1, "class_9": 2}, {0: 0, 3: 1, 9: 2})
    for values, message in (
        ({0}, "no voxel of any class"),
        ({0, -1, 1}, "the value -1"),
        (set(range(90)), "89 values"),
    ):
        with pytest.raises(DataError, match=message):
            plan_found(values, "x")


def test_a_mask_has_one_class() -> None:
    assert plan_mask(None).schema.labels == {"background": 0, "foreground": 1}
    assert plan_mask(parse_declared({"lung": 255}, "x")).schema.labels == {"background": 0, "lung": 1}
    with pytest.raises(DataError, match="2 classes with --threshold"):
        plan_mask(parse_declared({"a": 1, "b": 2}, "x"))


def test_mapping_of_voxels() -> None:
    label = np.array([[-1, 0, 255], [128, 0, -1]])
    assert mapped(label, {0: 0, 128: 1, 255: 2, -1: 3}).tolist() == [[3, 0, 2], [1, 0, 3]]
