"""A real Slurm for the tests that need one: one node, started once a session, where Slurm is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.one_node import one_node, why_not
from selfcfg.cli import main
from tests.cli.conftest import narrow, planned, selfcfg  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def preprocessed(narrow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811 - the fixture
    """A workspace that is preprocessed by two commands, each for a share of the cases; copy it before changing it."""
    place = Path(shutil.copytree(narrow, tmp_path_factory.mktemp("preprocessed") / "w"))
    for share in ("1/2", "2/2"):
        given = ["preprocess", "901", "--shard", share, "--jobs", "1", "--workspace", str(place)]
        assert main(given) == 0
    return place


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
