"""Killed at random moments and run again, every step ends as if nothing had happened.

The long version is ``pytest -m long tests/faults``; `benchmarks/faults.py` counts what it finds.
"""

from __future__ import annotations

import pytest

from tests.faults.kills import killed
from tests.faults.road import STEPS, Road

NAMES = [step.name for step in STEPS]


@pytest.mark.parametrize(
    ("kills", "seed"),
    [
        pytest.param(2, 0, marks=[pytest.mark.slow, pytest.mark.timeout(1200)], id="twice"),
        pytest.param(150, 1, marks=[pytest.mark.long, pytest.mark.timeout(7200)], id="again and again"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_step_ends_as_if_nothing_had_happened(road: Road, name: str, kills: int, seed: int) -> None:
    found = killed(road, name, kills=kills, seed=seed)
    assert found.kills >= kills
    assert found.faults == []
