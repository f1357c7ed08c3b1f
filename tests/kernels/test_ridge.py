from __future__ import annotations

import numpy as np
import pytest

from selfcfg.kernels.ridge import PENALTIES, fit_ridge, half_width, leave_groups_out


def sample(n: int, seed: int, noise: float = 0.05, strength: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(5, 3, (n, 4))
    return features, 0.8 + strength * (features[:, 0] - 5) / 3 + rng.normal(0, noise, n)


def solved(features: np.ndarray, values: np.ndarray, penalty: float) -> np.ndarray:
    """Predictions of the samples by the normal equations."""
    standard = (features - features.mean(0)) / features.std(0)
    beta = np.linalg.solve(
        standard.T @ standard + penalty * len(values) * np.eye(standard.shape[1]), standard.T @ (values - values.mean())
    )
    return values.mean() + standard @ beta


def test_the_fit_solves_the_penalised_normal_equations() -> None:
    features, values = sample(40, 0)
    found = fit_ridge(features, values)
    np.testing.assert_allclose(found.predict(features), solved(features, values, found.penalty))


def test_the_penalty_is_that_of_the_smallest_error_on_samples_left_out() -> None:
    features, values = sample(25, 1, noise=0.3)
    standard = (features - features.mean(0)) / features.std(0)
    errors = {}
    for penalty in PENALTIES:
        matrix = np.hstack([np.ones((25, 1)), standard])
        total = 0.0
        for one in range(25):
            kept = np.arange(25) != one
            ridge = np.diag([0.0] + [penalty * 25] * 4)
            # centred with all samples, as the closed form has it: the intercept is free
            beta = np.linalg.solve(matrix[kept].T @ matrix[kept] + ridge, matrix[kept].T @ values[kept])
            total += (values[one] - matrix[one] @ beta) ** 2
        errors[penalty] = total
    assert fit_ridge(features, values).penalty == min(errors, key=errors.__getitem__)


def test_a_feature_that_never_changes_or_is_not_known_says_nothing() -> None:
    features, values = sample(30, 2)
    wider = np.hstack([features, np.full((30, 1), 7.0), np.full((30, 1), np.nan)])
    np.testing.assert_allclose(fit_ridge(wider, values).predict(wider), fit_ridge(features, values).predict(features))
    far = np.array([[*features[0], 1e6, 3.0]])
    assert fit_ridge(wider, values).predict(far) == pytest.approx(fit_ridge(features, values).predict(features[:1]))


def test_a_group_left_out_changes_nothing_of_its_own_prediction() -> None:
    features, values = sample(20, 3)
    groups = [f"s{index // 2}" for index in range(20)]
    before, _ = leave_groups_out(features, values, groups)
    changed = values.copy()
    changed[:2] += 100
    after, mean = leave_groups_out(features, changed, groups)
    np.testing.assert_array_equal(before[:2], after[:2])
    np.testing.assert_allclose(mean[:2], values[2:].mean())


@pytest.mark.parametrize(("n", "noise", "strength"), [(20, 0.05, 0.1), (60, 0.2, 0.0)])
def test_the_interval_holds_new_values_as_often_as_it_says(n: int, noise: float, strength: float) -> None:
    inside = []
    for seed in range(60):
        features, values = sample(n + 50, seed, noise, strength)
        out, _ = leave_groups_out(features[:n], values[:n], [str(index) for index in range(n)])
        reach = half_width(values[:n] - out, 0.9)
        assert reach is not None
        found = fit_ridge(features[:n], values[:n]).predict(features[n:])
        inside.append((np.abs(found - values[n:]) <= reach).mean())
    assert 0.87 < np.mean(inside) < 0.95


def test_too_few_samples_have_no_interval() -> None:
    assert half_width(np.ones(8), 0.9) is None
    assert half_width(np.arange(9.0), 0.9) == 8
    assert half_width(np.arange(19.0), 0.9) == 17
