"""Every recipe that is shipped can be trained: trainers, settings and stages fit together."""

from __future__ import annotations

import pytest

from selfcfg.engine.recipes import completed, parts_handed_on, trainer_of
from selfcfg.recipe import Recipe, shipped_recipes
from selfcfg.stages import Images


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes(name: str) -> None:
    recipe = completed(shipped_recipes()[name])
    for candidate, inherited in parts_handed_on(recipe):
        assert candidate.init is None or "encoder" in inherited
    for candidate in recipe.expansion.stages[-1].candidates:
        trainer, settings = trainer_of(candidate)
        assert trainer.segments(settings), "its last stage is what predicts"


def test_defaults_that_follow_from_what_differs_stay_those_of_each_candidate() -> None:
    text = '[[stage]]\nname = "a"\ntrainer = "multitask"\nforeach = { mode = ["joint", "pretrain"] }\n'
    recipe = completed(Recipe.from_toml(text, "both", "both.toml"))
    candidates = recipe.expansion.stages[0].candidates
    assert [trainer_of(one)[1].epochs for one in candidates] == [1000, 200]


def test_images_go_to_the_candidates_that_take_them_and_the_completed_recipe_is_complete() -> None:
    recipe = completed(shipped_recipes()["two_stage"], [Images(name="./scans")])
    given = {stage.name: bool(stage.datasets) for stage in recipe.stage}
    assert given == {"joint": True, "pretrain": True, "finetune": False, "candidates": False, "student": True}
    assert completed(recipe) == recipe
