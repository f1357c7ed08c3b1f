"""What a benchmark of label efficiency may conclude, from scores made up to be clear."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from selfcfg.engine.label_efficiency.results import Arm, LabelResult, Protocol
from selfcfg.report.label_cells import Cell, cells_of, conclusions, rates_at_an_end
from selfcfg.report.label_efficiency import write_label_report

SUBJECTS = {f"{subject}{eye}": subject for subject in "abcdefghij" for eye in "LR"}
"""Ten test subjects of two cases each."""

STEPS = {"short": 100, "long": 600}


def results(
    arms: Mapping[str, Mapping[str, float]], seeds: int = 3, subjects: Mapping[str, str] = SUBJECTS
) -> list[LabelResult]:
    """For each arm and budget three labelled subjects and a mean Dice, with a little noise around it."""
    rng = np.random.default_rng(0)
    found = []
    for seed in range(seeds):
        for arm, budgets in arms.items():
            for budget, mean in budgets.items():
                cases = {case: mean + 0.02 * float(rng.normal()) for case in subjects}
                found.append(
                    LabelResult(
                        arm=arm, fraction=3, budget=budget, seed=seed, subjects=3, steps=STEPS[budget],
                        dice=float(np.mean([*cases.values()])), rate=0.01, tried=((0.01, None),), chosen_on="none",
                        train=("x", "y", "z"), kept_out=(), cases=cases, seconds=1.0,
                    )
                )  # fmt: skip
    return found


HEAD_START = {"scratch": {"short": 0.5, "long": 0.8}, "masked": {"short": 0.6, "long": 0.8}}


def of(cells: list[Cell], arm: str, budget: str) -> Cell:
    return next(cell for cell in cells if (cell.arm, cell.budget) == (arm, budget))


def test_subjects_are_the_unit_whatever_the_cases_and_seeds() -> None:
    cell = of(cells_of(results(HEAD_START), SUBJECTS), "masked", "short")
    assert cell.dice.n == 10
    assert list(cell.by_seed) == [0, 1, 2]
    assert cell.dice.mean == pytest.approx(np.mean([*cell.by_seed.values()]))


def test_differences_are_paired_and_only_over_seeds_that_both_have() -> None:
    everything = results(HEAD_START)
    some = [result for result in everything if (result.arm, result.seed) != ("scratch", 2)]
    cell = of(cells_of(some, SUBJECTS), "masked", "short")
    shared = [(r.arm, r.dice) for r in some if r.budget == "short" and r.seed < 2]
    expected = np.mean([d for a, d in shared if a == "masked"]) - np.mean([d for a, d in shared if a == "scratch"])
    assert cell.against
    assert cell.against.difference.mean == pytest.approx(expected)
    assert cell.ahead == "2 of 2 seeds"


def test_p_values_are_corrected_for_all_comparisons() -> None:
    cells = cells_of(results(HEAD_START), SUBJECTS)
    short, long = (of(cells, "masked", budget) for budget in ("short", "long"))
    assert short.against and short.against.sign_flip and short.p == 2 * short.against.sign_flip
    assert (short.verdict, long.verdict) == (1, 0)
    assert of(cells, "scratch", "short").p is None


def test_a_gain_that_is_gone_is_called_a_head_start() -> None:
    text = "\n".join(conclusions(cells_of(results(HEAD_START), SUBJECTS), "scratch"))
    assert "masked, short (100 steps): better than scratch with 3 labelled (Dice +0.10" in text
    assert "masked, long (600 steps): no difference shown with 3 labelled" in text
    assert "speaks for a head start rather than for better features" in text


def test_a_gain_that_stays_is_more_than_a_head_start() -> None:
    stays = {**HEAD_START, "masked": {"short": 0.6, "long": 0.9}}
    text = "\n".join(conclusions(cells_of(results(stays), SUBJECTS), "scratch"))
    assert "still there at long: more than a head start" in text


def test_what_is_worse_is_called_worse() -> None:
    worse = {"scratch": {"short": 0.6}, "masked": {"short": 0.5}}
    assert (
        "worse than scratch with 3 labelled (Dice -0." in conclusions(cells_of(results(worse), SUBJECTS), "scratch")[0]
    )


def test_one_seed_is_warned_of() -> None:
    text = "\n".join(conclusions(cells_of(results(HEAD_START, seeds=1), SUBJECTS), "scratch"))
    assert "may be the luck of one start: repeat it with --seeds 3" in text


def test_a_rate_at_the_end_of_those_tried_is_told() -> None:
    found = [one.model_copy(update={"rate": 0.1}) for one in results({"scratch": {"short": 0.5}}, seeds=4)]
    assert rates_at_an_end(found, (0.1,)) == []
    assert rates_at_an_end(found, (0.3, 0.1, 0.01)) == []
    (high,), (low,) = rates_at_an_end(found, (0.1, 0.01)), rates_at_an_end(found, (0.3, 0.1))
    assert "highest learning rate, 0.1, was chosen by nearly all jobs of scratch" in high and "try higher" in high
    assert "lowest learning rate, 0.1" in low and "try lower" in low


def test_few_test_subjects_allow_no_conclusion() -> None:
    few = {case: subject for case, subject in SUBJECTS.items() if subject in "abc"}
    cells = cells_of(results(HEAD_START, subjects=few), few)
    assert conclusions(cells, "scratch") == ["Nothing: the test set has 3 subjects, and at least 6 are needed."]
    assert cells[0].as_json()["interval"] is None


def test_the_report_has_every_score_a_table_and_a_plot(tmp_path: Path) -> None:
    made = results(HEAD_START)
    protocol = Protocol(
        dataset="Dataset001_A", planner="standard", configuration="2d", plan_hash="", data_hash="",
        train=("x", "y", "z"), test=tuple(SUBJECTS), rates=(0.01,), mirroring=True, budgets=STEPS,
        arms={
            "scratch": Arm(trainer="supervised", settings={}),
            "masked": Arm(
                trainer="supervised", settings={}, pretrainer="masked",
                pretraining={"epochs": 5, "iterations_per_epoch": 8},
            ),
        },
    )  # fmt: skip
    write_label_report(tmp_path, protocol, made, SUBJECTS)
    with (tmp_path / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(result.cases) for result in made)
    assert rows[0]["subject"] == "a" and rows[0]["case"] == "aL"
    assert (tmp_path / "label_efficiency.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "masked, 40 steps without labels on 3 cases" in page
    assert "| difference to scratch (95 %) |" in page
    assert "no training and no choice of a rate has seen" in page
