"""The road, walked once for all tests of a process."""

from __future__ import annotations

import pytest

from tests.faults.road import Road


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """All steps as they end when nobody disturbs them."""
    return Road(tmp_path_factory.mktemp("faults") / "road")
