"""Recipes as they are written: what is read, and how everything wrong is told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfcfg.errors import DataError, UsageError
from selfcfg.recipes.recipe import Recipe, find_recipe, shipped_recipes

TWO = """
description = "Learns, then learns more.\\nDetails."

[[stage]]
name = "first"
trainer = "masked"
settings = { epochs = 3, transforms = { mirror_p = 0.0 } }
unlabelled = ["5", "./more"]
datasets = [{ name = "Dataset007_CT", group = "ct" }]

[[stage]]
name = "second"
trainer = "supervised"
init = "first"
folds = [0, 2]
"""


def recipe(*stages: dict[str, Any], **keys: Any) -> Recipe:
    return Recipe.parse({"name": "mine", "stage": list(stages), **keys}, "mine.toml")


def stage(name: str = "a", **keys: Any) -> dict[str, Any]:
    return {"name": name, "trainer": "masked", **keys}


def test_a_file_gives_its_stages_in_order_and_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(TWO)
    found = Recipe.read(tmp_path / "mine.toml")
    assert (found.name, found.summary) == ("mine", "Learns, then learns more.")
    first, second = found.stage
    assert (first.name, second.init, second.folds) == ("first", "first", (0, 2))
    assert [image.group for image in first.images] == [None, None, "ct"]


def test_relative_paths_count_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(TWO.replace('init = "first"', 'init = "runs/fold_0"'))
    first, second = Recipe.read(tmp_path / "mine.toml").stage
    assert [image.name for image in first.images] == ["5", str(tmp_path / "more"), "Dataset007_CT"]
    assert second.init == str(tmp_path / "runs" / "fold_0")


def test_what_was_used_reads_back_the_same(tmp_path: Path) -> None:
    made = Recipe.from_toml(TWO, "mine", "mine.toml")
    made.write(tmp_path / "recipe.json")
    assert Recipe.read(tmp_path / "recipe.json") == made


def test_everything_wrong_is_told_at_once_with_its_place() -> None:
    with pytest.raises(DataError) as error:
        recipe(
            stage("a", ini="x", folds=[-1]),
            stage("a", init="b"),
            stage("b", trainer=3, init="aa", folds=[]),
            stage("fold_1", folds="al", keep={"off": []}),
            foreach={},
        )
    for words in (
        "stage[0].ini: unknown key, did you mean 'init'?",
        "stage[0].folds[0]: must be greater than or equal to 0",
        "stage[1].name: 'a' is the name of stage[0] already",
        "stage[1].init: must be an earlier stage, found 'b'",
        "stage[2].trainer: must be a valid string, found 3",
        "stage[2].init: no stage 'aa', did you mean 'a'?",
        "stage[2].folds: must name a fold or more",
        "stage[3].name: must not begin as the folders of folds do",
        "stage[3].folds: found 'al', did you mean 'all'?",
        "stage[3].keep.off: unknown key, did you mean 'of'?",
        "foreach: unknown key",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize("init", ["a", "b"])
def test_a_stage_looks_back_only(init: str) -> None:
    with pytest.raises(DataError, match="earlier stage"):
        recipe(stage("a", init=init), stage("b"))


def test_a_recipe_without_stages_is_refused() -> None:
    with pytest.raises(DataError, match="stage: must hold one stage or more"):
        recipe()


@pytest.mark.parametrize("name", ["with space", "a/b", "a.b", "", "../up"])
def test_names_that_are_no_folder_names_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"stage\[0\].name"):
        recipe(stage(name))


@pytest.mark.parametrize(("content", "words"), [(b"a = [", "not valid TOML"), (b"\xff", "UTF-8"), (b"a = 1", "stage")])
def test_files_that_hold_no_recipe_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(DataError, match=words):
        Recipe.read(tmp_path / "mine.toml")


def test_names_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'masked'"):
        find_recipe("maskd")
    with pytest.raises(UsageError, match="no such file"):
        find_recipe(str(tmp_path / "mine.toml"))


def test_settings_are_changed_stage_by_stage() -> None:
    made = recipe(stage("a", settings={"epochs": 3, "seed": 1}), stage("b"))
    changed = made.changed({"a.epochs": "5", "b.transforms.mirror_p": "0"})
    assert changed.stage[0].settings == {"epochs": "5", "seed": 1}
    assert changed.stage[1].settings == {"transforms.mirror_p": "0"}
    assert made.stage[0].settings["epochs"] == 3


@pytest.mark.parametrize(("key", "words"), [("epochs", "STAGE.epochs"), ("pretrian.epochs", "did you mean 'pretrain'")])
def test_a_setting_of_no_stage_is_refused(key: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        recipe(stage("pretrain")).changed({key: "1"})


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_have_a_summary(name: str) -> None:
    made = shipped_recipes()[name]
    assert made.name == name
    assert made.summary.endswith(".")
