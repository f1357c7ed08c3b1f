"""What is fitted on validation cases: the temperature from files, and the score of quality with its interval."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfcfg.engine.calibration.quality import Scored, fit_quality, rank_test
from selfcfg.engine.calibration.temperature import OutOfFold, temperature_of
from selfcfg.engine.prediction.probabilities import write_probabilities
from selfcfg.engine.prediction.quality import FEATURES
from selfcfg.errors import DataError
from selfcfg.geometry import Geometry
from selfcfg.io import write_label
from selfcfg.labels import LabelSchema

GEOMETRY = Geometry(shape=(6, 20, 20), spacing=(1.0, 1.0, 1.0))
CLASSES = LabelSchema(labels={"background": 0, "organ": 1, "lesion": 2})
REGIONS = LabelSchema(labels={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))


def spoilt(folder: Path, case: str, fold: str, labels: LabelSchema, by: float, seed: int) -> OutOfFold:
    """A case whose labels are drawn with some probabilities, and whose file says those of logits times `by`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (labels.n_outputs, *GEOMETRY.shape))
    if labels.has_regions:
        inside = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
        reference = np.where(inside[1], 2, inside[0]).astype(np.uint8)
        logits[0] = np.where(inside[1], 9, logits[0])  # whatever is core is in the whole
        told = 1 / (1 + np.exp(-logits * by))
        prediction = np.where(told[1] > 0.5, 2, told[0] > 0.5)
    else:
        raised = np.exp(logits)
        summed = np.cumsum(raised / raised.sum(0), 0)
        reference = (rng.random(GEOMETRY.shape) > summed).sum(0).astype(np.uint8)
        raised = np.exp(logits * by)
        told = raised / raised.sum(0)
        prediction = told.argmax(0)
    files = [folder / kind / f"{case}.nii.gz" for kind in ("predictions", "references")]
    for file, values in zip(files, (prediction, reference), strict=True):
        write_label(file, values.astype(np.uint8), GEOMETRY)
    beside = folder / "predictions" / f"{case}.npz"
    write_probabilities(beside, told.astype(np.float16))
    return OutOfFold(case, case, fold, beside, *files)


def cases(folder: Path, labels: LabelSchema, by: float, folds: int = 2, count: int = 6) -> list[OutOfFold]:
    return [spoilt(folder, f"case{n}", f"fold_{n % folds}", labels, by, n) for n in range(count)]


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_the_temperature_of_probabilities_that_are_too_sure_is_found(tmp_path: Path, labels: LabelSchema) -> None:
    found = temperature_of(cases(tmp_path, labels, 2.0), labels)
    assert found.temperature == found.fitted == pytest.approx(2.0, rel=0.1)
    assert found.after.nll < found.before.nll
    assert found.after.ece < 0.5 * found.before.ece
    assert set(found.by_group) == {"fold_0", "fold_1"}
    assert "less sure" in found.reason
    assert found.n_voxels >= found.n_drawn > 0


def test_what_is_told_of_a_fold_is_of_the_temperature_of_the_others(tmp_path: Path) -> None:
    several = [
        *(spoilt(tmp_path, f"a{n}", "fold_0", CLASSES, 3.0, n) for n in range(2)),
        *(spoilt(tmp_path, f"b{n}", "fold_1", CLASSES, 0.4, n + 9) for n in range(2)),
    ]
    found = temperature_of(several, CLASSES)
    assert found.by_group["fold_0"] == pytest.approx(0.4, rel=0.15)
    assert found.by_group["fold_1"] == pytest.approx(3.0, rel=0.15)
    assert found.after.nll > found.before.nll
    assert found.temperature == 1, "what does not help other cases is not used"
    assert "stay as they are" in found.reason


def test_one_fold_is_dealt_out_by_subject_and_the_seed_decides_what_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = cases(tmp_path, CLASSES, 1.5, folds=1, count=7)
    assert len(temperature_of(several, CLASSES).by_group) == 5
    monkeypatch.setattr("selfcfg.engine.calibration.temperature.MOST", 300)
    first, again, other = (temperature_of(several, CLASSES, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.fitted != other.fitted
    assert first.n_drawn == 7 * 300 < first.n_voxels
    assert sum(first.before.count) == pytest.approx(first.n_voxels)


def test_a_temperature_needs_two_subjects_and_whole_files(tmp_path: Path) -> None:
    several = cases(tmp_path, CLASSES, 1.0, count=2)
    with pytest.raises(DataError, match="1 subject"):
        temperature_of(several[:1], CLASSES)
    several[1].probabilities.unlink()
    with pytest.raises(DataError, match="calibrate case 'case1': there are no probabilities"):
        temperature_of(several, CLASSES)


# --- quality


def simulated(
    n: int, seed: int, strength: float, noise: float = 0.04, shift: float = 0.0, folds: int = 5
) -> list[Scored]:
    """Two cases a subject; the Dice follows a feature; each network is off by its own amount."""
    rng = np.random.default_rng(seed)
    off, made = rng.normal(0, shift, folds), []
    for index in range(n):
        features: dict[str, float | None] = {name: float(rng.normal()) for name in FEATURES}
        features["components"] = None if index % 5 == 0 else 0.0
        fold = index // 2 % folds
        dice = 0.7 + strength * (features["expected_dice"] or 0) + noise * rng.normal() + off[fold]
        made.append(
            Scored(f"case{index}", f"subject{index // 2}", f"fold_{fold}", float(np.clip(dice, 0, 1)), features)
        )
    return made


@pytest.mark.parametrize("folds", [1, 5])
def test_features_that_tell_something_are_used_and_their_interval_holds(folds: int) -> None:
    inside, useful = [], []
    for seed in range(25):
        several = simulated(80, seed, strength=0.06, folds=folds)
        found = fit_quality(several[:40], {})
        useful.append(found.is_useful)
        assert found.left_out == ("fold" if folds > 1 else "subject")
        for case in several[40:]:
            if (expected := found.expected(case.features)) is not None:
                inside.append(expected.low <= case.dice <= expected.high)
                assert expected.low <= expected.dice <= expected.high
    assert np.mean(useful) > 0.9
    assert 0.86 < np.mean(inside) < 0.96


def test_the_interval_holds_for_a_network_that_was_not_seen() -> None:
    inside: dict[bool, list[bool]] = {True: [], False: []}
    for seed in range(40):
        several = simulated(96, seed, strength=0.06, shift=0.04, folds=6)
        known, new = ([case for case in several if (case.fold == "fold_5") is is_new] for is_new in (False, True))
        for by_fold, held in inside.items():
            found = fit_quality(known if by_fold else [replace(case, fold="fold_0") for case in known], {})
            told = found.model_copy(update={"is_useful": True})
            for case in new:
                expected = told.expected(case.features)
                held.append(expected.low <= case.dice <= expected.high)
    assert np.mean(inside[True]) > 0.85
    assert np.mean(inside[True]) > np.mean(inside[False])


def test_networks_that_differ_predict_no_dice_but_the_order() -> None:
    several = [fit_quality(simulated(80, seed, strength=0.05, noise=0.02, shift=0.1, folds=2), {}) for seed in range(8)]
    refused = [one for one in several if not one.is_useful and one.is_ranking]
    assert len(refused) >= 2
    assert "no Dice is predicted, and cases are put in order by it" in refused[0].reason
    better, worse = ({name: value for name in FEATURES} for value in (1.0, -1.0))
    better |= dict.fromkeys(FEATURES[1:], 0.0)
    worse |= dict.fromkeys(FEATURES[1:], 0.0)
    assert refused[0].expected(better) is None
    assert refused[0].rank(better) > refused[0].rank(worse)


def test_features_that_tell_nothing_are_seldom_used_and_this_is_said() -> None:
    several = [fit_quality(simulated(24, seed, strength=0.0), {}) for seed in range(60)]
    assert np.mean([one.is_useful for one in several]) <= 0.1
    assert np.mean([one.is_ranking for one in several]) <= 0.12
    refused = next(one for one in several if not one.is_useful and not one.is_ranking)
    assert "no better than the mean" in refused.reason
    features = simulated(1, 0, 0.0)[0].features
    assert refused.expected(features) is None
    assert refused.rank(features) is None


def test_few_subjects_tell_nothing() -> None:
    found = fit_quality(simulated(18, 0, strength=0.1), {"fold_0": "abc"})
    assert not found.is_useful
    assert found.reason.startswith("9 subjects are too few")
    assert found.weights == {"fold_0": "abc"}


def test_ranks_are_compared_within_folds() -> None:
    rng, up = np.random.default_rng(0), np.arange(6.0)
    found = rank_test([up, up + 100], [up**3, up - 50], rng)
    assert found.correlation == pytest.approx(1)
    assert found.p == pytest.approx(1e-4, abs=2e-4)
    assert rank_test([up], [-up], rng).correlation == pytest.approx(-1)
    assert rank_test([np.ones(3)], [up[:3]], rng) is None
    exact = np.mean([np.array(order) @ up[:5] >= 30 - 1e-9 for order in itertools.permutations(up[:5])])
    assert rank_test([up[:5]], [up[:5]], rng, 20_000).p == pytest.approx(exact, abs=3e-3)
