"""Every recipe that is shipped can be trained: trainers, settings and stages fit together."""

from __future__ import annotations

import pytest

from selfcfg.engine.recipes import completed, parts_handed_on, trainer_of
from selfcfg.recipe import shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes(name: str) -> None:
    recipe = completed(shipped_recipes()[name])
    for candidate, inherited in parts_handed_on(recipe):
        assert candidate.init is None or "encoder" in inherited
    for candidate in recipe.expansion.stages[-1].candidates:
        trainer, settings = trainer_of(candidate)
        assert trainer.segments(settings), "its last stage is what predicts"
