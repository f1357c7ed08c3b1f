"""What was calibrated and selected, on the page of an experiment."""

from __future__ import annotations

from selfcfg.engine.prediction.postprocessing import Step
from selfcfg.engine.prediction.selected import MODEL, selected_folder
from selfcfg.engine.selection.records import FILE, Candidate, Selection, Tuned
from selfcfg.report.names import PLAIN
from selfcfg.report.page.experiment import experiment_of, facts_of_experiment
from selfcfg.report.page.outline import sections_of
from selfcfg.report.page.render import page
from tests.report.conftest import Road
from tests.report.pages import Page
from tests.report.test_calibration import made


def sections(road: Road) -> dict[str, str]:
    """The text of the page of each section that tells how far to trust a model."""
    experiment = experiment_of(road.folder, road.evaluation, road.dataset, road.plan)
    facts = facts_of_experiment(road.folder, road.evaluation, experiment, PLAIN)
    return {one.identity: Page(page(facts, [one])).text for one in sections_of(facts)}


def test_calibration_is_told_with_its_curve(road: Road) -> None:
    assert "calibration" not in sections(road)
    made(road.folder)
    text = sections(road)["calibration"]
    assert "Of 8 cases" in text and "probabilities are less sure" in text
    assert "Dice of new cases: on folds left out it errs by" in text
    assert "as the networks say" in text and "confidence" in text and "accuracy" in text


def test_the_selected_model_stands_beside_what_it_was_chosen_from(road: Road) -> None:
    assert "selection" not in sections(road)
    folder = selected_folder(road.folder.parent)
    common = {"classes": {"organ": 0.8}, "cost": 1.0}
    one = Candidate(
        name="2d", kind="single", weights={"2d": 1.0}, dice=0.8, score=0.8, interval=(0.7, 0.9), chosen=True,
        why="no other is shown to be better", **common,
    )  # fmt: skip
    both = Candidate(
        name="2d + 3d",
        kind="pair",
        weights={"2d": 0.25, "3d": 0.75},
        dice=0.81,
        score=0.81,
        difference=-0.0125,
        **common,
    )
    step = Step(kind="keep_largest", target="organ")
    tuned = Tuned(target="organ", tried=12, steps=(step,), before=0.8, after=0.85, gain=0.05, adopted=True)
    selection = Selection(
        dataset=road.dataset.name, rule="simplest", cases=8, subjects=8, folds=2, candidates=(one, both),
        postprocessing=(tuned,), model={"2d": 1.0}, dice=0.85, classes={"organ": 0.85},
    )  # fmt: skip
    selection.write(folder / FILE)
    (folder / MODEL).write_text("{}")
    text = sections(road)["selection"]
    assert "2d, Dice 0.8500: no other is shown to be better." in text
    assert "0.25 2d + 0.75 3d" in text and "-0.0125" in text
    assert "organ: only the largest component" in text and "adopted" in text and "+0.0500" in text
