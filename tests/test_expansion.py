"""What stages of a recipe expand into: candidates with their names and starts, and the places of kept ones."""

from __future__ import annotations

from typing import Any

import pytest

from selfcfg.errors import DataError, UsageError
from selfcfg.recipes.expansion import Candidate, value_name
from selfcfg.recipes.recipe import Recipe

TASKS = ["distance_map", "rubik", "moco", "vicreg", "restoration"]

TWO_STAGE: list[dict[str, Any]] = [
    {"name": "joint", "trainer": "multitask", "settings": {"mode": "joint"}, "foreach": {"tasks": TASKS}},
    {"name": "pretrain", "trainer": "multitask", "settings": {"mode": "pretrain"}, "foreach": {"tasks": TASKS}},
    {"name": "finetune", "trainer": "supervised", "init": "pretrain"},
    {"name": "candidates", "keep": {"of": ["joint", "finetune"], "best_by": "dice", "per": "tasks"}},
    {"name": "student", "trainer": "distillation", "teachers": ["candidates"]},
]


def recipe(*stages: dict[str, Any]) -> Recipe:
    return Recipe.parse({"name": "mine", "stage": list(stages)}, "mine.toml")


def stage(name: str = "a", **keys: Any) -> dict[str, Any]:
    return {"name": name, "trainer": "masked", **keys}


def keys(made: Recipe) -> list[str]:
    return list(made.expansion.candidates)


def test_a_stage_without_foreach_is_its_only_candidate() -> None:
    assert recipe(stage("a", settings={"epochs": 3})).expansion.candidates == {
        "a": Candidate("a", "", {}, "masked", {"epochs": 3})
    }


def test_each_combination_is_a_candidate_in_the_order_of_the_lists() -> None:
    made = recipe(
        {"name": "a", "settings": {"epochs": 2}, "foreach": {"trainer": ["masked", "contrastive"], "x": [1, 2]}}
    )
    assert keys(made) == ["a/masked-x_1", "a/masked-x_2", "a/contrastive-x_1", "a/contrastive-x_2"]
    last = made.expansion.candidates["a/contrastive-x_2"]
    assert (last.trainer, last.settings) == ("contrastive", {"epochs": 2, "x": 2})
    assert last.values == {"trainer": "contrastive", "x": 2}


def test_the_two_stages_of_a_multi_task_strategy() -> None:
    """Hu and Qin 2024: for each task, joint training or pretraining and fine-tuning, whichever validates better."""
    made = recipe(*TWO_STAGE)
    assert keys(made) == [*(f"{name}/{t}" for name in ("joint", "pretrain", "finetune") for t in TASKS), "student"]
    tuned = made.expansion.candidates["finetune/rubik"]
    assert (tuned.init, tuned.values, tuned.settings) == ("pretrain/rubik", {"tasks": "rubik"}, {})
    slots = made.expansion.stages[3].slots
    assert [slot.key for slot in slots] == [f"candidates:{task}" for task in TASKS]
    assert slots[1].among == ("joint/rubik", "finetune/rubik")
    assert made.expansion.candidates["student"].teachers == tuple(slot.key for slot in slots)


def test_a_stage_expands_along_with_what_it_starts_from() -> None:
    first = stage("a", foreach={"x": [1, 2]})
    made = recipe(first, stage("b", init="a", foreach={"y": ["u", "v"]}), stage("c", init="b"))
    assert keys(made)[2:6] == ["b/x_1-u", "b/x_1-v", "b/x_2-u", "b/x_2-v"]
    assert [made.expansion.candidates[f"c/{name}"].init for name in ("x_1-u", "x_2-v")] == ["b/x_1-u", "b/x_2-v"]


def test_what_is_kept_without_a_key_is_one_start() -> None:
    made = recipe(stage("a", foreach={"x": [1, 2]}, keep={}), stage("b", init="a"))
    assert keys(made) == ["a/x_1", "a/x_2", "b"]
    assert made.expansion.candidates["b"].init == "a:best"


def test_starts_can_be_varied_random_weights_among_them() -> None:
    made = recipe(
        stage("a", foreach={"x": [1, 2]}), stage("b"), stage("c", foreach={"init": ["a", "b", "none", "./r"]})
    )
    found = {key: one.init for key, one in made.expansion.candidates.items() if one.stage == "c"}
    assert found == {"c/a-x_1": "a/x_1", "c/a-x_2": "a/x_2", "c/b": "b", "c/none": None, "c/r": "./r"}


def test_settings_within_a_table_are_varied_with_a_dot() -> None:
    made = recipe(stage(settings={"t": {"p": 1, "q": 2}}, foreach={"t": {"r": [0.5, 0.25]}}))
    assert keys(made) == ["a/t.r_0.5", "a/t.r_0.25"]
    assert made.expansion.candidates["a/t.r_0.5"].settings == {"t": {"p": 1, "q": 2, "r": 0.5}}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("rubik", "rubik"),
        (["rubik", "moco"], "rubik+moco"),
        (0.01, "key_0.01"),
        (True, "key_true"),
        ([64, 96], "key_64+96"),
        ("fold_0", "key_fold_0"),
        ("../up and: away", "up_and_away"),
        ("/runs/x/fold_3", "x_fold_3"),
        ("..", "key__"),
        ("3d", "key_3d"),
    ],
)
def test_names_of_values_are_folder_names(value: Any, name: str) -> None:
    assert value_name("key", value) == name


def test_long_names_are_cut_and_stay_apart() -> None:
    made = recipe(stage(foreach={"x": ["a" * 90 + "1", "a" * 90 + "2"]}))
    first, second = (one.name for one in made.expansion.candidates.values())
    assert len(first) == len(second) == 64 and first != second


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([stage(foreach={"x": ["u v", "u_v"]})], "stage[0].foreach: two combinations of values would both be called"),
        ([stage(foreach={"x": ["A", "a"]})], "would both be called 'a'"),
        ([stage(foreach={"x": [1, 1]})], "stage[0].foreach.x: holds a value twice"),
        ([stage(foreach={"x": 3})], "stage[0].foreach.x: must be a list of one value or more, found 3"),
        ([stage(foreach={"x": []})], "must be a list of one value or more"),
        ([stage(foreach={"x": [{"y": 1}]})], "stage[0].foreach.x[0]: must be a text, a number"),
        ([stage(foreach={"folds": [0]})], "stage[0].foreach.folds: takes settings of the trainer"),
        ([stage(settings={"x": 1}, foreach={"x": [1]})], "stage[0].foreach.x: is said for the whole stage, too"),
        ([stage(settings={"t": {"x": 1}}, foreach={"t": {"x": [1]}})], "stage[0].foreach.t.x: is said for the whole"),
        ([stage(foreach={"trainer": ["masked"]})], "stage[0].foreach.trainer: is said for the whole stage, too"),
        ([{"name": "a", "foreach": {"x": [1]}}], "stage[0].trainer: is missing"),
        ([stage(foreach={"init": ["b"]})], "stage[0].foreach.init[0]: no stage 'b'"),
        ([stage("a"), stage("b", teachers=["aa"])], "stage[1].teachers[0]: no stage 'aa', did you mean 'a'?"),
        ([stage(keep={"per": "x"})], "stage[0].keep.per: 'a' has no 'x' that tells it apart"),
        ([stage(keep={"best_by": "dise"})], "stage[0].keep.best_by: found 'dise', did you mean 'dice'?"),
        ([stage(foreach={"reference": ["5"]})], "stage[0].foreach.reference: takes settings of the trainer"),
        (
            [stage("a"), {"name": "b", "keep": {"of": ["a"]}, "reference": "5"}],
            "stage[1].reference: a stage with keep.of chooses among others",
        ),
        ([stage("a"), stage("b", keep={"of": ["a"]})], "stage[1].trainer: a stage with keep.of chooses among others"),
        ([stage("a", keep={}), {"name": "b", "keep": {"of": ["a"]}}], "stage[1].keep.of[0]: 'a' keeps some of its own"),
        ([{"name": "b", "keep": {"of": ["c"]}}, stage("c")], "stage[0].keep.of[0]: must be an earlier stage"),
        (
            [stage("a", foreach={"x": [1]}), stage("b", init="a", foreach={"x": [2]})],
            "stage[1].foreach.x: tells the candidates apart that it starts from, too",
        ),
    ],
)
def test_what_cannot_be_expanded_is_told_with_its_place(stages: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(DataError) as error:
        recipe(*stages)
    assert words in str(error.value)


def test_what_was_used_reads_back_the_same(tmp_path: Any) -> None:
    made = recipe(*TWO_STAGE)
    made.write(tmp_path / "recipe.json")
    assert Recipe.read(tmp_path / "recipe.json") == made


def test_relative_paths_of_starts_teachers_and_references_count_from_the_file(tmp_path: Any) -> None:
    text = '[[stage]]\nname = "a"\ntrainer = "x"\nteachers = ["./t"]\nreference = "./g"\n'
    text += 'foreach = { init = ["./r", "none"] }\n'
    (tmp_path / "mine.toml").write_text(text)
    only = Recipe.read(tmp_path / "mine.toml").stage[0]
    assert only.foreach["init"] == [str(tmp_path / "r"), "none"]
    assert only.teachers == (str(tmp_path / "t"),)
    assert only.reference == str(tmp_path / "g")


@pytest.mark.parametrize(
    ("key", "words"), [("a.x", "foreach says it for each candidate: 1, 2"), ("b.x", "trains nothing")]
)
def test_settings_that_a_stage_varies_or_has_no_use_for_are_not_changed(key: str, words: str) -> None:
    made = recipe(stage("a", foreach={"x": [1, 2]}), {"name": "b", "keep": {"of": ["a"]}})
    with pytest.raises(UsageError, match=words):
        made.changed({key: "3"})
