"""Every recipe that is shipped can be trained: trainers, settings and stages fit together."""

from __future__ import annotations

import pytest

from selfcfg import registry
from selfcfg.engine.choice import parse_settings
from selfcfg.engine.recipes import completed, parts_handed_on
from selfcfg.recipe import shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes(name: str) -> None:
    recipe = completed(shipped_recipes()[name])
    for stage, inherited in parts_handed_on(recipe):
        assert stage.init is None or "encoder" in inherited
    last = recipe.stage[-1]
    trainer = registry.load("trainers", last.trainer)
    assert trainer.segments(parse_settings(trainer, last.settings)), "its last stage is what predicts"
