"""Choosing an ensemble: trials to the voxel, greedy weights, and a verdict that chance does not move."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.selection_simulation import CANDIDATES, passing_over
from selfcfg.engine.prediction.averaging import decoded, read_probabilities, weighted_mean
from selfcfg.engine.prediction.probabilities import write_probabilities
from selfcfg.engine.selection.greedy import cross_fitted, greedy_counts
from selfcfg.engine.selection.held_out import HeldOut
from selfcfg.engine.selection.trials import (
    CaseFiles,
    Trials,
    by_subject,
    case_scores,
    mean_dice,
    tally,
    weights_from,
)
from selfcfg.engine.selection.verdict import judged
from selfcfg.errors import DataError
from selfcfg.io import read_label, write_label
from selfcfg.labels import LabelSchema
from tests.engine.test_postprocessing import CLASSES, GEOMETRY, IGNORING, NESTED, SHAPE, random_case

ONE = LabelSchema(labels={"background": 0, "organ": 1})


@pytest.mark.parametrize("labels", [CLASSES, IGNORING, NESTED], ids=["classes", "ignore", "regions"])
def test_a_trial_counts_the_voxels_of_the_label_map_that_the_ensemble_would_write(
    labels: LabelSchema, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    cases = [random_case(tmp_path, f"c{index}", rng, labels, 3) for index in range(2)]
    (tmp_path / "scratch").mkdir()
    trials = Trials(cases, labels, tmp_path / "scratch", jobs=1)
    wanted = [(1, 0, 0), (0, 0, 1), (1, 1, 0), (1, 1, 1), (3, 1, 0), (2, 5, 4)]
    found = trials.tallies(wanted)
    for counts in wanted:
        used = [index for index, count in enumerate(counts) if count]
        for place, case in enumerate(cases):
            stacks = [read_probabilities(case.said[index].probabilities) for index in used]
            mean = weighted_mean(stacks, [weights_from(counts)[index] for index in used])
            expected = tally(read_label(case.reference)[0], decoded(mean, labels), labels)
            np.testing.assert_array_equal(found[counts][place], expected)


def test_probabilities_are_read_once_however_many_trials_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfcfg.engine.selection import trials as module

    read: list[Path] = []

    def counting(file: Path) -> np.ndarray:
        read.append(file)
        return read_probabilities(file)

    monkeypatch.setattr(module, "read_probabilities", counting)
    rng = np.random.default_rng(0)
    cases = [random_case(tmp_path, f"c{index}", rng, CLASSES, 3) for index in range(2)]
    trials = Trials(cases, CLASSES, tmp_path, jobs=1)
    greedy_counts(trials, [np.ones(2, dtype=bool)], np.arange(2))
    assert sorted(read) == sorted(one.probabilities for case in cases for one in case.said)


def constructed(tmp_path: Path, members: Sequence[Sequence[float]], reference: Sequence[int], cases: int) -> Trials:
    """Trials of cases of a few voxels, of each member the probability of the organ at each voxel."""
    found = []
    for index in range(cases):
        said = []
        for number, organ in enumerate(members):
            stack = np.array([1 - np.array(organ), organ]).reshape(2, 1, 1, -1).astype(np.float16)
            files = HeldOut(tmp_path / f"{index}_{number}.nii.gz", tmp_path / f"{index}_{number}.npz")
            write_label(files.labels, decoded(stack, ONE), GEOMETRY.model_copy(update={"shape": stack.shape[1:]}))
            write_probabilities(files.probabilities, stack)
            said.append(files)
        truth = np.array(reference, dtype=np.uint8).reshape(1, 1, -1)
        write_label(tmp_path / f"{index}.nii.gz", truth, GEOMETRY.model_copy(update={"shape": truth.shape}))
        found.append(CaseFiles(f"case{index}", tmp_path / f"{index}.nii.gz", tuple(said), 2))
    (tmp_path / "scratch").mkdir()
    return Trials(found, ONE, tmp_path / "scratch", 1)


def test_the_greedy_ensemble_weighs_members_as_their_probabilities_need(tmp_path: Path) -> None:
    """Two of the first and one of the second are right at every voxel; no equal weights are."""
    first = [0.9, 0.9, 0.4, 0.6, 0.55, 0.3, 0.9]
    second = [0.9, 0.9, 0.75, 0.1, 0.1, 0.8, 0.3]
    useless = [0.1, 0.1, 0.1, 0.9, 0.1, 0.9, 0.1]
    trials = constructed(tmp_path, [useless, second, first], [1, 1, 1, 0, 0, 0, 1], cases=2)
    (counts,) = greedy_counts(trials, [np.ones(2, dtype=bool)], np.arange(2))
    assert counts == (0, 1, 2)
    scores = {one: case_scores(found).mean() for one, found in trials.tallies([(0, 1, 1), (0, 1, 2)]).items()}
    assert scores == {(0, 1, 1): pytest.approx(8 / 9), (0, 1, 2): 1.0}


def test_a_fold_is_scored_by_weights_that_it_did_not_fit(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    cases = [random_case(tmp_path, f"c{index}", rng, CLASSES, 3) for index in range(4)]
    trials = Trials(cases, CLASSES, tmp_path, 1)
    folds = np.array([0, 0, 1, 1])
    of_fold = greedy_counts(trials, [folds != fold for fold in (0, 1)], np.arange(4))
    assert of_fold[0] != of_fold[1]
    (alone,) = greedy_counts(trials, [folds == 1], np.arange(4))
    assert of_fold[0] == alone, "the weights for fold 0 are those of fold 1 alone"
    found = cross_fitted(trials, of_fold, folds)
    for case, fold in enumerate(folds):
        counts = of_fold[fold]
        np.testing.assert_array_equal(found[case], trials.tallies([counts])[counts][case])


def test_scores_follow_their_definitions() -> None:
    tallies = np.array([[[2, 1, 1], [0, 0, 0]], [[1, 0, 0], [0, 3, 0]]])
    np.testing.assert_allclose(case_scores(tallies), [(4 / 6 + 1) / 2, (1 + 0) / 2])
    mean, classes = mean_dice(tallies, CLASSES)
    assert classes == {"organ": pytest.approx((4 / 6 + 1) / 2), "lesion": 0.0}
    assert mean == pytest.approx((4 / 6 + 1) / 4)
    np.testing.assert_allclose(by_subject(np.array([1.0, 3.0, 5.0]), np.array([4, 4, 9])), [2, 5])


def test_damaged_probabilities_are_named(tmp_path: Path) -> None:
    case = random_case(tmp_path, "c", np.random.default_rng(0), CLASSES, 2)
    case.said[1].probabilities.write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match=r"c_1\.npz"):
        Trials([case], CLASSES, tmp_path, 1)
    write_probabilities(case.said[1].probabilities, np.zeros((2, *SHAPE), np.float16))
    with pytest.raises(DataError, match="has shape"):
        Trials([case], CLASSES, tmp_path, 1)


# --- the verdict


def test_differences_within_chance_go_to_the_simpler() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.7, 0.9, 20)
    noise = rng.normal(0, 0.01, 20)
    found = judged(CANDIDATES, [base, base + noise - noise.mean() + 0.0005, base], "simplest", 0)
    assert [one.name for one in found if one.chosen] == ["cheap"]
    assert "within chance of the highest score, that of dear" in found[0].why
    assert "is simpler" in found[1].why and "is simpler" in found[2].why
    highest = judged(CANDIDATES, [base, base + noise - noise.mean() + 0.0005, base], "highest", 0)
    assert [one.name for one in highest if one.chosen] == ["dear"]


def test_what_is_shown_to_be_better_is_chosen_though_it_is_dearer() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.7, 0.9, 20)
    found = judged(CANDIDATES, [base, base + 0.02, base + 0.0201], "simplest", 0)
    by_name = {one.name: one for one in found}
    assert by_name["cheap"].why == "worse than cheap + dear" and by_name["cheap"].p_holm < 0.05
    assert by_name["cheap + dear"].chosen, "a sure gain, though a small one"
    tied = judged(CANDIDATES, [base, base + 0.02, base + 0.02], "simplest", 0)
    assert [one.name for one in tied if one.chosen] == ["dear"]


def test_with_few_subjects_the_best_single_experiment_is_chosen() -> None:
    found = judged(CANDIDATES, [np.full(4, 0.5), np.full(4, 0.7), np.full(4, 0.9)], "simplest", 0)
    assert [one.name for one in found if one.chosen] == ["dear"]
    assert "fewer than 6 subjects" in next(one.why for one in found if one.kind == "pair")


def test_the_simplest_of_equally_good_ones_is_seldom_passed_over() -> None:
    assert passing_over(0.0, 100) <= 0.1, "at a rate of 0.05 more than 10 of 100 come with a chance of 1 %"
