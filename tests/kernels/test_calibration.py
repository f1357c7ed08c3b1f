from __future__ import annotations

import math

import numpy as np
import pytest

from selfcfg.kernels.calibration import (
    BINS,
    Tally,
    fit_temperature,
    log_probabilities,
    one_class,
    pair,
    tempered,
    tempered_top_label,
    top_label,
)


def probabilities(n_classes: int, n: int, seed: int = 0, sharpness: float = 2.0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, sharpness, (n_classes, n))
    raised = np.exp(logits)
    return (raised / raised.sum(0)).astype(np.float16)


def drawn(values: np.ndarray, seed: int = 1) -> np.ndarray:
    """The true class of each voxel, drawn with just these probabilities."""
    summed = np.cumsum(values.astype(np.float64) / values.sum(0, dtype=np.float64), 0)
    return (np.random.default_rng(seed).random(values.shape[1]) > summed).sum(0).clip(max=len(values) - 1)


def by_hand(confidence: list[float], hit: list[bool], bins: int = BINS) -> float:
    """The expected calibration error, voxel by voxel and bin by bin."""
    total = 0.0
    for index in range(bins):
        inside = [
            (c, h)
            for c, h in zip(confidence, hit, strict=True)
            if index / bins < c <= (index + 1) / bins or (index == 0 and c == 0)
        ]
        if inside:
            accuracy = sum(h for _, h in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - sum(c for c, _ in inside) / len(inside))
    return total


def test_scores_of_the_most_likely_class_equal_brute_force() -> None:
    values = probabilities(3, 500)
    target = np.random.default_rng(2).integers(3, size=500)
    found = top_label(values, target)
    exact = values.astype(np.float64)
    confidence = [max(column) for column in exact.T]
    hit = [int(np.argmax(column)) == wanted for column, wanted in zip(exact.T, target, strict=True)]
    assert found.ece == pytest.approx(by_hand(confidence, hit), abs=1e-12)
    one_hot = np.eye(3)[target].T
    assert found.brier == pytest.approx(((exact - one_hot) ** 2).sum(0).mean())
    assert found.nll == pytest.approx(np.mean([-math.log(exact[wanted, n]) for n, wanted in enumerate(target)]))
    assert found.n == 500


def test_scores_of_one_class_equal_brute_force() -> None:
    values = probabilities(2, 400, seed=3, sharpness=1.0)[1]
    truth = np.random.default_rng(4).random(400) < 0.3
    found = one_class(values, truth)
    exact = values.astype(np.float64)
    assert found.ece == pytest.approx(by_hand(exact.tolist(), truth.tolist()), abs=1e-12)
    assert found.brier == pytest.approx(((exact - truth) ** 2).mean())
    assert found.nll == pytest.approx(-np.log(np.where(truth, exact, 1 - exact)).mean())


def test_tallies_of_parts_add_up_to_that_of_the_whole() -> None:
    values, target = probabilities(4, 300), np.random.default_rng(5).integers(4, size=300)
    whole = top_label(values, target)
    parts = [top_label(values[:, cut], target[cut]) for cut in (slice(0, 120), slice(120, 300))]
    together = parts[0] + parts[1] + Tally.empty()
    np.testing.assert_array_equal(together.count, whole.count)
    np.testing.assert_array_equal(together.hits, whole.hits)
    assert together.ece == pytest.approx(whole.ece, abs=1e-12)
    assert together.nll == pytest.approx(whole.nll)


def test_no_voxel_has_no_score() -> None:
    empty = Tally.empty()
    assert (empty.ece, empty.brier, empty.nll) == (None, None, None)


def test_probabilities_that_come_true_have_almost_no_error() -> None:
    values = probabilities(3, 40_000)
    assert top_label(values, drawn(values)).ece < 0.01


def test_a_sure_mistake_costs_what_half_precision_can_tell() -> None:
    assert one_class(np.array([1.0]), np.array([False])).nll == pytest.approx(13 * math.log(2))
    assert top_label(np.array([[1.0], [0.0]]), np.array([1])).nll == pytest.approx(24 * math.log(2))


@pytest.mark.parametrize("temperature", [0.5, 1.7, 3.0])
def test_the_temperature_that_spoilt_probabilities_is_found(temperature: float) -> None:
    honest = probabilities(3, 30_000, sharpness=1.0)
    target = drawn(honest)
    spoilt = log_probabilities(honest) * temperature
    found = fit_temperature(spoilt, target, np.ones(len(target)))
    assert found == pytest.approx(temperature, rel=0.03)
    before, after = (tempered_top_label(spoilt, target, np.ones(len(target)), t) for t in (1.0, found))
    assert after.ece < 0.02 < before.ece
    assert after.nll < before.nll


def test_weights_count_as_repetitions() -> None:
    values, target = probabilities(3, 60), np.random.default_rng(6).integers(3, size=60)
    weights = np.random.default_rng(7).integers(1, 4, size=60)
    repeated = np.repeat(np.arange(60), weights)
    logs = log_probabilities(values)
    assert fit_temperature(logs, target, weights.astype(float)) == pytest.approx(
        fit_temperature(logs[:, repeated], target[repeated], np.ones(len(repeated))), rel=1e-3
    )
    weighted, plain = top_label(values, target, weights.astype(float)), top_label(values[:, repeated], target[repeated])
    assert weighted.ece == pytest.approx(plain.ece)


def test_a_temperature_changes_no_label() -> None:
    values = probabilities(4, 2000, sharpness=3.0)
    for temperature in (0.3, 1.0, 4.0):
        made = tempered(values, temperature, exclusive=True)
        np.testing.assert_array_equal(made.argmax(0), values.argmax(0))
        np.testing.assert_allclose(made.sum(0), 1)
    regions = values[1:]
    for temperature in (0.3, 1.0, 4.0):
        np.testing.assert_array_equal(tempered(regions, temperature, exclusive=False) > 0.5, regions > 0.5)


def test_a_temperature_is_that_of_the_logits() -> None:
    logits = np.random.default_rng(8).normal(0, 2, (3, 50))
    soft = np.exp(logits) / np.exp(logits).sum(0)
    expected = np.exp(logits / 1.6) / np.exp(logits / 1.6).sum(0)
    np.testing.assert_allclose(tempered(soft, 1.6, exclusive=True), expected)
    np.testing.assert_allclose(
        tempered(1 / (1 + np.exp(-logits)), 1.6, exclusive=False), 1 / (1 + np.exp(-logits / 1.6)), atol=1e-9
    )
    np.testing.assert_allclose(tempered(pair(soft[0]), 1.6, exclusive=True)[1], tempered(soft, 1.6, exclusive=False)[0])
