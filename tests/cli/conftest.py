"""A workspace with the tiny dataset, and the command line called in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from selfcfg.cli import main
from selfcfg.dataset import Dataset
from tests.conftest import slim

SHORT = "epochs = 1, iterations_per_epoch = 2, validation_iterations = 1, batch_size = 2, workers = 0"
"""Settings of a stage of a recipe that only shows the road."""

RATES = f"""
[[stage]]
name = "rates"
trainer = "supervised"
settings = {{ {SHORT}, clip_norm = 1e30 }}
foreach = {{ learning_rate = [0.01, 1e38] }}
keep = {{ best_by = "dice" }}
"""
"""Two candidates, of which one diverges."""


@dataclass
class Answer:
    """What one command said."""

    code: int
    out: str
    err: str
    result: dict[str, Any] = field(default_factory=dict)


Command = Callable[..., Answer]


@pytest.fixture
def selfcfg(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs one command line with --json; a command never lets an exception out."""

    def run(*arguments: object) -> Answer:
        capfd.readouterr()
        code = main([*map(str, arguments), "--json"])
        captured = capfd.readouterr()
        last = captured.out.strip().splitlines()[-1] if captured.out.strip() else "{}"
        assert "Traceback" not in captured.err
        return Answer(code, captured.out, captured.err, json.loads(last))

    return run


@pytest.fixture
def workspace(tmp_path: Path, tiny_dataset: Dataset) -> Path:
    """A workspace whose dataset 901 is a copy of the tiny dataset, so a test may damage it."""
    shutil.copytree(tiny_dataset.root, tmp_path / "w" / "raw" / tiny_dataset.name)
    return tmp_path / "w"


@pytest.fixture(scope="session")
def narrow(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the tiny dataset is planned, for networks an eighth as wide; copy it before changing it."""
    place = tmp_path_factory.mktemp("narrow") / "w"
    shutil.copytree(tiny_dataset.root, place / "raw" / tiny_dataset.name)
    assert main(["plan", "901", "--jobs", "1", "--workspace", str(place)]) == 0
    slim(place / "preprocessed" / tiny_dataset.name / "plans" / "standard.json")
    return place


@pytest.fixture
def planned(narrow: Path, tmp_path: Path) -> Path:
    """A copy of that workspace."""
    return Path(shutil.copytree(narrow, tmp_path / "w"))
