"""Every recipe that is shipped can be trained: trainers, settings and stages fit together."""

from __future__ import annotations

import pytest

from selfcfg.engine.recipes.trainers import completed, parts_handed_on, trainer_of
from selfcfg.errors import UsageError
from selfcfg.recipes.recipe import Recipe, shipped_recipes
from selfcfg.recipes.stages import Images


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


GUIDED = """
[[stage]]
name = "pretrain"
foreach = { trainer = ["masked", "reference_guided"] }

[[stage]]
name = "finetune"
trainer = "supervised"
init = "pretrain"
"""


def test_a_reference_goes_to_stages_any_of_whose_candidates_take_one() -> None:
    said = Recipe.from_toml(GUIDED, "guided", "guided.toml")
    recipe = completed(said, reference="./guide")
    assert [stage.reference for stage in recipe.stage] == ["./guide", None]
    assert completed(recipe) == recipe
    with pytest.raises(UsageError, match="no stage of the recipe guided is without a reference and needs one"):
        completed(recipe, reference="./other")
    wrong = Recipe.from_toml(GUIDED.replace('init = "pretrain"', 'reference = "5"'), "guided", "guided.toml")
    with pytest.raises(UsageError, match=r"stage\[1\].reference: the trainer 'supervised' looks at no reference"):
        completed(wrong)
