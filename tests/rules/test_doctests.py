"""The examples in docstrings, run by import name: by path the mapped packages would be imported a second time."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"selfcfg": "selfcfg", "planners": "selfcfg.planners", "trainers": "selfcfg.trainers"}


def with_examples() -> list[str]:
    found = []
    for folder, package in FOLDERS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            if ">>> " in file.read_text(encoding="utf-8"):
                parts = [package, *file.relative_to(ROOT / folder).with_suffix("").parts]
                found.append(".".join(parts).removesuffix(".__init__"))
    return found


@pytest.mark.parametrize("name", with_examples())
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted and not result.failed
