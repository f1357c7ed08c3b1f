"""The page on statistics shows what was simulated, and says of it what it says."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("statistics_simulation")


def test_the_page_holds_the_committed_results(script: ModuleType) -> None:
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.filled(page, script.read()) == page, "python benchmarks/statistics_simulation.py makes them again"


def test_intervals_and_tests_keep_their_promises_where_the_page_says_so(script: ModuleType) -> None:
    rows = script.read()
    for row in rows:
        told = (row["part"], row.get("what"))
        usual = row.get("differences") in ("normal", "1-6 cases a subject", "rare failures of both")
        if told == ("coverage", "expanded percentile") and usual:
            assert 0.9 <= row["share"] <= 0.98, row
        if (told == ("errors", "verdict") and usual) or told == ("families", "any of 6 pairs, Holm"):
            assert row["share"] <= 0.07, row
    equal = [row for row in rows if row["part"] == "rankings" and row["step"] == 0]
    clear = [row for row in rows if row["part"] == "rankings" and row["step"] == 1 and row["subjects"] >= 50]
    assert all(row["share of the leader"] < 0.7 and row["leader above 95 %"] <= 0.05 for row in equal)
    assert all(row["leader is the best"] == 1 and row["mean tau"] > 0.99 for row in clear)


def test_a_short_simulation_gives_every_row_of_the_tables(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SUBJECTS", (6,))
    monkeypatch.setattr(script, "RESAMPLES", 49)
    rows = [*script.coverage(2), *script.errors(2), *script.families(2), *script.rankings(10)]
    text = script.tables(rows)
    assert text.count("| normal | 6 |") == 2 and "| 0.0 | 10 | rank of means |" in text
    assert [*script.coverage(2)] == rows[: len([*script.coverage(2)])]
