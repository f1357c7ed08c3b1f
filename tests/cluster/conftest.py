"""A real Slurm for the tests that need one: one node, started once a session, where Slurm is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.one_node import one_node, why_not
from tests.cli.conftest import narrow, planned, selfcfg  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def slurm_variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables with which Slurm's programs find the node."""
    if reason := why_not():
        pytest.skip(reason)
    with one_node(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


@pytest.fixture
def slurm(slurm_variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the test Slurm's programs talk to the node."""
    for name, value in slurm_variables.items():
        monkeypatch.setenv(name, value)
