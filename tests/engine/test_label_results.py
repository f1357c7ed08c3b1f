"""The lines and the protocol of a benchmark of label efficiency."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfcfg.engine.label_efficiency.results import Arm, LabelResult, Protocol, add_result, read_results
from selfcfg.errors import DataError, UsageError
from selfcfg.files import hash_json


def result(**changes: object) -> LabelResult:
    values = {
        "arm": "scratch", "fraction": 1, "budget": "short", "seed": 0, "subjects": 1, "steps": 20, "dice": 0.5,
        "rate": 0.01, "tried": ((0.01, 0.4), (0.003, None)), "chosen_on": "trained on", "train": ("a",),
        "kept_out": (), "cases": {"t": 0.5}, "seconds": 1.0,
    }  # fmt: skip
    return LabelResult.parse({**values, **changes}, "a test")


def protocol(**changes: object) -> Protocol:
    values = {
        "dataset": "Dataset001_A", "planner": "standard", "configuration": "2d", "plan_hash": "p", "data_hash": "d",
        "train": ("a", "b"), "test": ("t",), "rates": (0.01,), "mirroring": True, "budgets": {"short": 20},
        "arms": {"scratch": Arm(trainer="supervised", settings={"momentum": 0.99}).model_dump()},
    }  # fmt: skip
    return Protocol.parse({**values, **changes}, "a test")


def test_results_come_back_with_one_subject_apart_from_all_subjects(tmp_path: Path) -> None:
    written = [result(), result(fraction=1.0), result(seed=1)]
    for one in written:
        add_result(tmp_path, one)
    found = read_results(tmp_path)
    assert found == written
    assert [type(one.fraction) for one in found] == [int, float, int]
    assert len({one.name for one in found}) == 3


def test_no_results_yet_are_none(tmp_path: Path) -> None:
    assert read_results(tmp_path) == []


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    add_result(tmp_path, result())
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"arm": "scr\n')
    with pytest.raises(DataError, match=r"results\.jsonl, line 2: not valid JSON.*; remove that line"):
        read_results(tmp_path)


def test_arms_that_start_anew_are_written_and_hashed_as_before_they_could_do_otherwise() -> None:
    keys = {"trainer": "supervised", "settings": {}, "pretrainer": "masked", "pretraining": {}, "unlabelled": {}}
    arm = Arm(trainer="supervised", settings={}, pretrainer="masked")
    assert json.loads(arm.model_dump_json()) == arm.model_dump() == {**keys, "reference": {}}
    assert arm.content_hash() == hash_json({**keys, "reference": {}})
    assert protocol(arms={"masked": keys}) == protocol(arms={"masked": arm.model_dump()})


def test_the_arm_that_another_starts_from_is_part_of_it(tmp_path: Path) -> None:
    arm = Arm(trainer="supervised", settings={}, pretrainer="masked", pretrained_from="first")
    one = protocol(arms={"second": arm.model_dump()})
    one.write(tmp_path / "protocol.json")
    assert Protocol.read(tmp_path / "protocol.json") == one and one.arms["second"] == arm
    anew = protocol(arms={"second": arm.model_copy(update={"pretrained_from": None}).model_dump()})
    assert one.content_hash() != anew.content_hash()


def test_arms_and_budgets_may_come_later(tmp_path: Path) -> None:
    masked = {"masked": Arm(trainer="supervised", settings={}, pretrainer="masked").model_dump()}
    joined = protocol(arms=masked, budgets={"long": 60}).joined(protocol(), tmp_path)
    assert list(joined.arms) == ["scratch", "masked"]
    assert joined.budgets == {"short": 20, "long": 60}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rates": (0.1,)}, "rates"),
        ({"test": ("a",)}, "test"),
        ({"budgets": {"short": 40}}, "budget 'short'"),
        ({"arms": {"scratch": {"trainer": "supervised", "settings": {"momentum": 0.9}}}}, "arm 'scratch'"),
    ],
)
def test_results_made_otherwise_are_not_mixed(tmp_path: Path, changes: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=rf"made otherwise \({word}\); choose another folder with --out"):
        protocol(**changes).joined(protocol(), tmp_path)
